"""Stored history: a market that doesn't move any more (HIST)."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from trading_api.modules.datafeed.domain import aggregate
from trading_api.modules.datafeed.domain.columns import Columns, Window
from trading_api.modules.datafeed.domain.instrument import Instrument, Quote
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit
from trading_api.modules.datafeed.domain.selection import Selection, StoredTexts, select
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError


class Market(Protocol):
    """Bars and prices of one instrument, whatever they are made of."""

    @property
    def instrument(self) -> Instrument:
        """Whose market this is."""
        ...

    def resolutions(self) -> list[str]:
        """Return the usual resolutions that it offers; any multiple of the finest works too."""
        ...

    def bars(self, resolution: Resolution, window: Window, now_us: int) -> Selection:
        """Return what ``window`` holds, nothing of it later than ``now_us``.

        Raises:
            ResolutionUnsupportedError: finer than the data, or not a multiple of its step.
        """
        ...

    def quote(self, now_us: int) -> Quote:
        """Return the prices at ``now_us``."""
        ...

    def is_closed(self, resolution: Resolution, to_time: int, now_us: int) -> bool:
        """Return whether no bar that starts before ``to_time`` can change after ``now_us``."""
        ...


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """One stored series: a package's file, an import.

    Attributes:
        id: its name, such as ``aapl-1d``.
        resolution: what its bars are; one day, or some minutes or seconds.
        price_decimals: decimals of its prices.
        volume_decimals: decimals of its volumes.
        bars: all of them.
        version: changes with its bars.
    """

    id: str
    resolution: Resolution
    price_decimals: int
    volume_decimals: int
    bars: Columns
    version: int = 1
    identity: str = ""


@dataclass(frozen=True, slots=True)
class SourcedSeries:
    """A series with where it comes from.

    Attributes:
        series: the bars.
        source: package and version that ship it.
        source_sha256: digest of the source file, hexadecimal.
        license: the source's licence, in words.
    """

    series: StoredSeries
    source: str
    source_sha256: str
    license: str


SECONDS = tuple(Resolution(count, Unit.SECOND) for count in (1, 5, 10, 15, 30, 45))
"""The usual resolutions below a minute."""

MINUTES = tuple(
    Resolution(count, Unit.MINUTE) for count in (1, 3, 5, 15, 30, 45, 60, 120, 180, 240)
)
INTRADAY = (*SECONDS, *MINUTES)

BUILT_SIZE_MAX = 4 * 1024 * 1024
"""Coarser bars that one instrument keeps: as much as its own bars have, and at least this."""


class HistoricalMarket:
    """A stored series as an instrument, at every resolution from its own up."""

    def __init__(self, instrument: Instrument, series: StoredSeries) -> None:
        self._instrument = instrument
        self._series = series
        self._session = aggregate.parse_session(instrument.session, instrument.time_zone)
        base = series.resolution
        self._built: dict[Resolution, Columns] = {base: series.bars}
        self._built_size = 0
        self.texts: StoredTexts | None = None
        self._quote: Quote | None = None
        self._key = object()

    @property
    def instrument(self) -> Instrument:
        """Whose market this is."""
        return self._instrument

    def resolutions(self) -> list[str]:
        """Return the usual resolutions that the series can give."""
        base = self._series.resolution
        intraday = [each for each in INTRADAY if base.is_intraday and _divides(base, each)]
        return [*map(str, intraday), "1D", "1W", "1M", "3M", "12M"]

    def bars(self, resolution: Resolution, window: Window, now_us: int) -> Selection:
        """Return what ``window`` holds; history has no future, so ``now_us`` only guards it."""
        end = min(window.to_time, now_us // 1_000_000 + 1)
        window = Window(window.from_time, end, window.count_back)
        texts = self.texts if resolution == self._series.resolution else None
        bars = self._at(resolution)
        return select(bars, window, key=(self._key, resolution), texts=texts)

    def is_of(self, instrument: Instrument, series: StoredSeries) -> bool:
        """Tell whether this market shows just that."""
        return self._instrument == instrument and self._series is series

    @property
    def series(self) -> StoredSeries:
        """The bars behind it."""
        return self._series

    def is_ready(self, resolution: Resolution) -> bool:
        """Tell whether bars of a resolution are built; ``prepare`` builds them, from any thread."""
        return resolution in self._built

    def prepare(self, resolution: Resolution) -> None:
        """Build the bars of a resolution; errors as ``bars``."""
        self._at(resolution)

    def quote(self, now_us: int) -> Quote:
        """Return the last bar as a quote: the close, with the spread that the series needs."""
        if self._quote is None:
            self._quote = self._last_bar_quote()
        return self._quote

    def is_closed(self, resolution: Resolution, to_time: int, now_us: int) -> bool:
        """Return True: stored history doesn't change."""
        return True

    @cached_property
    def days(self) -> Columns:
        """Its bars of one trading day."""
        bars = self._series.bars
        if not self._series.resolution.is_intraday:
            return bars
        return aggregate.daily(bars, self._session)

    def _at(self, resolution: Resolution) -> Columns:
        found = self._built.get(resolution)
        if found is None:
            found = self._build(resolution)
            if self._built_size + found.size > max(BUILT_SIZE_MAX, self._series.bars.size):
                # Clients name any resolution; the usual ones are few.
                self._built, self._built_size = {self._series.resolution: self._series.bars}, 0
            self._built[resolution] = found
            self._built_size += found.size
        return found

    def _build(self, resolution: Resolution) -> Columns:
        base = self._series.resolution
        if not resolution.is_intraday:
            return aggregate.from_days(
                self.days, resolution, open_every_day=self.instrument.session == "24x7"
            )
        if not base.is_intraday or not _divides(base, resolution):
            raise unsupported_by(self.instrument, resolution, self.resolutions())
        if resolution == base:
            return self._series.bars
        return aggregate.intraday(self._series.bars, resolution.seconds, self._session)

    def _last_bar_quote(self) -> Quote:
        last, day = self._series.bars[-1:], self.days[-1:]
        close = int(last.close[0])
        before = self.days[-2:-1]
        at_us = int(last.time[0]) * 1_000_000
        return Quote(
            instrument=self.instrument,
            bid=close - self.instrument.spread,
            ask=close,
            last=close,
            sequence=at_us // 500_000,
            at_us=at_us,
            day_open=int(day.open[0]),
            day_high=int(day.high[0]),
            day_low=int(day.low[0]),
            day_volume=int(day.volume[0]),
            previous_close=int(before.close[0]) if len(before) else None,
        )


def _divides(base: Resolution, resolution: Resolution) -> bool:
    return resolution.seconds % base.seconds == 0


def unsupported_by(
    instrument: Instrument, resolution: Resolution, offered: list[str]
) -> ResolutionUnsupportedError:
    """Return the error for a resolution that an instrument's data can't give."""
    return ResolutionUnsupportedError(
        f"{instrument.symbol} has no bars of {resolution}; it offers {', '.join(offered)}",
        symbol=instrument.symbol,
        resolution=str(resolution),
        supported=offered,
    )
