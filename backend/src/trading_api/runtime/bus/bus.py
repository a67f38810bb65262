"""A process's connection to Valkey or Redis."""

from collections.abc import Callable

Callback = Callable[[str, bytes], None]


class Subscription:
    """A standing subscription; ends with ``close``."""

    def close(self) -> None:
        """Stop listening."""
        raise NotImplementedError


class Bus:
    """Publishes and listens; survives the server's absence.

    Args:
        url: ``redis://…`` or ``unix://…``.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def is_up(self) -> bool:
        """Tell whether the server answered lately."""
        raise NotImplementedError

    async def start(self) -> None:
        """Connect in the background; returns at once, the server may come later."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close every connection."""
        raise NotImplementedError

    def publish(self, channel: str, payload: bytes) -> None:
        """Queue a message, sent in the next batch; dropped while the server is away."""
        raise NotImplementedError

    def subscribe(self, pattern: str, callback: Callback) -> Subscription:
        """Call back in the event loop for each message; kept over reconnects."""
        raise NotImplementedError
