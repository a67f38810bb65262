"""WebSocket channels of the wallet, one file per API version."""
