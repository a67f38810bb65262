"""The hub of one process: who listens to what, and how a frame reaches them."""


class Hub:
    """Carries prices and account events to the subscriptions of this process."""

    def publish(self, feed: str, payload: bytes) -> None:
        """Send a price update of a feed to whoever listens, here and in other processes.

        Args:
            payload: the update as JSON, encoded once.
        """
        raise NotImplementedError

    def wake(self, stream: str, sequence: int) -> None:
        """Tell that a stream has events up to ``sequence``; call it after the commit."""
        raise NotImplementedError
