"""WebSocket channels by version."""
