"""What datafeed needs from outside."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import ClassVar, Protocol

from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed.domain.calendar import TradingCalendar
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.demo import Split
from trading_api.modules.datafeed.domain.importing import Batch, ImportSpec, Reached
from trading_api.modules.datafeed.domain.instrument import Instrument
from trading_api.modules.datafeed.domain.mark import OwnExecution
from trading_api.modules.datafeed.domain.selection import StoredTexts
from trading_api.modules.datafeed.domain.series import SourcedSeries, StoredSeries
from trading_api.modules.datafeed.domain.text import Scale
from trading_api.modules.datafeed.domain.tick import ProviderTick


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


class MarketDataProvider(ABC):
    """Where live prices and their recent history come from.

    Found by name among the built-in ones and the entry points of the group
    ``trading_api.market_data``, whose objects are called with a ``ProviderContext``. One process
    runs it at a time; whatever it raises is logged and tried again later, and no other provider
    notices.
    """

    name: ClassVar[str]

    @abstractmethod
    async def instruments(self) -> Sequence[Instrument]:
        """Return what it offers, on one of the live exchanges; each with a series of its own."""

    @abstractmethod
    def backfill(
        self, instrument: Instrument, *, from_time: int, to_time: int
    ) -> AsyncIterator[Columns]:
        """Yield the final minutes that start in [from_time, to_time), ascending, in seconds."""

    @abstractmethod
    async def stream(
        self, instruments: Sequence[Instrument], tell: Callable[[ProviderTick], None]
    ) -> None:
        """Tell each tick as it comes, for ever."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Release connections; ``stream`` has ended by now."""


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """What a provider is made from.

    Attributes:
        environ: the process's environment, for settings of its own.
        clock: where "now" comes from.
        seed: text that simulated paths depend on.
        find_series: returns a stored series by its id; None where there is none.
    """

    environ: Mapping[str, str]
    clock: Clock
    seed: str
    find_series: Callable[[str], StoredSeries | None]


class TickBus(Protocol):
    """Carries ticks between the processes of this module."""

    @property
    def is_up(self) -> bool:
        """Whether messages travel."""
        ...

    def publish(self, channel: str, payload: bytes) -> None:
        """Send at most once; dropped where it can't be sent."""
        ...


class BarSource(Protocol):
    """A file of bars to import.

    Attributes:
        size: what positions count up to: bytes, or rows.
    """

    size: int

    def guess_decimals(self) -> tuple[int, int]:
        """Return the decimals of prices and of volumes at the file's beginning."""
        ...

    def read(self, spec: ImportSpec, reached: Reached) -> Iterator[Batch]:
        """Yield the file's bars from where ``reached`` says, judged."""
        ...


class SeriesFiles(Protocol):
    """Files beside the database that large series are served from.

    An ``identity`` is text of letters and digits that only a series' present bars have.
    """

    def open(self, series_id: str, identity: str, count: int) -> Columns | None:
        """Return a series' bars; None where its file must be written."""
        ...

    def writing(
        self, series_id: str, identity: str, count: int
    ) -> AbstractContextManager[Callable[[Columns], None]]:
        """Give a function that takes the bars part by part."""
        ...

    def open_texts(self, series_id: str, identity: str, count: int) -> StoredTexts | None:
        """Return a series' finished texts; None where they must be written."""
        ...

    def write_texts(
        self, series_id: str, identity: str, count: int, bars: Columns, scale: Scale
    ) -> Iterator[float]:
        """Write the texts block by block; yield the share done after each."""
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
