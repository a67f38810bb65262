"""What the broker reaches outside: the market."""
