"""Time as a seam: domain and services are handed instants, they never read a clock."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Where a process gets the time from."""

    def now(self) -> datetime:
        """Return the wall-clock instant, aware, UTC; may jump, so never use it for order."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards, for durations only."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Return the wall-clock instant, aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never run backwards."""
        return time.monotonic()


def to_us(instant: datetime) -> int:
    """Convert an aware instant to whole microseconds since 1970 UTC, as tables keep it."""
    return (instant - _EPOCH) // _MICROSECOND


def from_us(instant_us: int) -> datetime:
    """Convert microseconds since 1970 UTC back to an aware UTC instant."""
    return _EPOCH + timedelta(microseconds=instant_us)
