"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 3, 2, 14, 30, tzinfo=UTC)
"""Monday, the open of New York's stock market."""


class FixedClock:
    """A clock that tests set; wall time and durations move apart where a test wants a jump."""

    def __init__(self, now: datetime = START) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        """Return the instant that the test set, aware, UTC."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that only ``advance`` moves."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Move the wall clock alone, as an operator or a leap would."""
        self._now += timedelta(seconds=seconds)
