"""What datafeed needs from outside."""

from collections.abc import Collection, Iterator, Sequence
from datetime import date, datetime
from typing import Protocol

from trading_api.modules.datafeed.domain.calendar import TradingCalendar
from trading_api.modules.datafeed.domain.demo import Split
from trading_api.modules.datafeed.domain.instrument import Instrument
from trading_api.modules.datafeed.domain.mark import OwnExecution
from trading_api.modules.datafeed.domain.series import SourcedSeries


class HistorySource(Protocol):
    """Where history comes from that ``seed`` loads."""

    def series_ids(self) -> list[str]:
        """Return the names of its series."""
        ...

    def load_series(self, series_id: str) -> SourcedSeries:
        """Read one series.

        Raises:
            ValueError: it is damaged.
        """
        ...

    def splits_of(self, series_id: str) -> Sequence[Split]:
        """Return the splits inside a series, ascending."""
        ...

    def instruments(self) -> Iterator[Instrument]:
        """Yield the instruments made of its series."""
        ...


class PricePublisher(Protocol):
    """Carries price messages to other modules."""

    def publish(self, channel: str, payload: bytes) -> None:
        """Send at most once; dropped where it can't be sent."""
        ...


class FrameSink(Protocol):
    """Carries frames to the sockets of this process."""

    def listened(self) -> Collection[str]:
        """Return the feeds that somebody listens to."""
        ...

    def publish_here(self, feed: str, payload: bytes) -> None:
        """Send an encoded update to a feed's listeners."""
        ...


class CalendarSource(Protocol):
    """Knows the holidays of exchanges."""

    async def find(self, code: str, *, first_day: date) -> TradingCalendar | None:
        """Return a calendar by its code; None where there is none of that name."""
        ...


class ExecutionSource(Protocol):
    """Knows what a user bought and sold."""

    async def list_executions(
        self, *, user_id: str, symbol: str, from_: datetime, to: datetime, limit: int
    ) -> Sequence[OwnExecution]:
        """Return the user's executions of a symbol in [from_, to), the newest ``limit``.

        Raises:
            UnavailableError: whoever knows them doesn't answer.
        """
        ...
