"""The gateway's WebSocket channels by version."""
