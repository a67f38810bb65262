"""WebSocket channels and what feeds them."""
