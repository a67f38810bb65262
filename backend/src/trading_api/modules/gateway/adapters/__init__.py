"""How the gateway reaches the other modules."""
