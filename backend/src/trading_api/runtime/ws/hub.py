"""The hub of one process: who listens to what, and how a frame reaches them."""

from collections.abc import Collection


class Hub:
    """Carries prices and account events to the subscriptions of this process."""

    def publish(self, feed: str, payload: bytes) -> None:
        """Send a price update of a feed to whoever listens, here and in other processes.

        Args:
            payload: the update as JSON, encoded once.
        """
        raise NotImplementedError

    def publish_here(self, feed: str, payload: bytes) -> None:
        """Send a price update to the listeners of this process alone, without the bus.

        For feeds that every process of the module can compute for itself.
        """
        raise NotImplementedError

    def listened(self) -> Collection[str]:
        """Return the feeds that somebody in this process listens to right now.

        A producer asks before it makes a frame, so that nothing is encoded for nobody.
        """
        raise NotImplementedError

    def wake(self, stream: str, sequence: int) -> None:
        """Tell that a stream has events up to ``sequence``; call it after the commit."""
        raise NotImplementedError
