"""A self-hosted trading platform backend, one process per module."""

__version__ = "0.1.0"
