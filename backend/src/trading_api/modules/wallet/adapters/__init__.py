"""The payment rails that come with the platform."""
