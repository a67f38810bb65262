"""A market that a provider feeds: stored minutes, the minutes since, and the one that forms.

Bars are built from the last price alone. A minute is final when its end has passed; what listeners
saw of it last is what history answers from then on. Minutes without a tick have no bar.
"""

from collections.abc import Hashable, Sequence
from itertools import count

import numpy as np

from trading_api.modules.datafeed.domain import aggregate
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns, Window
from trading_api.modules.datafeed.domain.instrument import Instrument, Quote
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit
from trading_api.modules.datafeed.domain.selection import (
    BARS_MAX,
    Part,
    Selection,
    select,
)
from trading_api.modules.datafeed.domain.series import HistoricalMarket, StoredSeries
from trading_api.modules.datafeed.domain.tick import Tick

MINUTE_SECONDS = 60
RECENT_BARS_MAX = 20_000
"""So many minutes are aggregated anew after each change; older ones were once and for all."""

_versions = count(1)


class LiveMarket:
    """One instrument that a provider feeds; ``series`` has bars of one minute, at least one."""

    def __init__(self, instrument: Instrument, series: StoredSeries) -> None:
        assert series.resolution == Resolution(1, Unit.MINUTE), "live bars are minutes"
        self._instrument = instrument
        self._session = aggregate.parse_session(instrument.session, instrument.time_zone)
        self._closed: list[tuple[int, ...]] = []
        self._forming: list[int] | None = None
        self._tick: Tick | None = None
        self._settle(series)

    @property
    def instrument(self) -> Instrument:
        """Whose market this is."""
        return self._instrument

    @property
    def last_time(self) -> int:
        """Start of the newest final minute, seconds."""
        return self._closed[-1][0] if self._closed else int(self._series.bars.time[-1])

    @property
    def last_close(self) -> int:
        """Close of the newest final minute, in ticks."""
        return self._closed[-1][4] if self._closed else int(self._series.bars.close[-1])

    @property
    def series(self) -> StoredSeries:
        """The stored bars as last seen."""
        return self._series

    def absorb(self, series: StoredSeries) -> None:
        """Take over what is stored by now; minutes known beyond it stay."""
        if series is self._series:
            return
        last = int(series.bars.time[-1])
        self._closed = [row for row in self._closed if row[0] > last]
        if self._forming is not None and self._forming[0] <= last:
            self._forming = None
        self._settle(series)

    def apply(self, tick: Tick) -> None:
        """Take a tick; one of a final minute changes the quote alone."""
        self._tick = tick
        start = tick.at_us // 60_000_000 * MINUTE_SECONDS
        forming = self._forming
        if forming is not None and start > forming[0]:
            self._close_forming()
            forming = None
        if start <= self.last_time:
            return
        if forming is None:
            self._forming = [start, tick.last, tick.last, tick.last, tick.last, tick.size]
        else:
            forming[2] = max(forming[2], tick.last)
            forming[3] = min(forming[3], tick.last)
            forming[4] = tick.last
            forming[5] += tick.size
        self._changed()

    def close_until(self, now_us: int) -> None:
        """Make the forming minute final where its end has passed."""
        forming = self._forming
        if forming is not None and (forming[0] + MINUTE_SECONDS) * 1_000_000 <= now_us:
            self._close_forming()

    def closed_since(self, time: int) -> Columns:
        """Return the final minutes behind ``time`` that aren't in the stored series."""
        return Columns.of_rows([row for row in self._closed if row[0] > time])

    def take_closed(self, row: Sequence[int]) -> None:
        """Take over a final minute as the provider's leader built it."""
        forming = self._forming
        if row[0] <= int(self._series.bars.time[-1]):
            return
        self._closed = sorted([each for each in self._closed if each[0] != row[0]] + [tuple(row)])
        if forming is not None and forming[0] <= row[0]:
            self._forming = None
        self._changed()

    def resolutions(self) -> list[str]:
        """Return the usual resolutions that it offers."""
        return self._past.resolutions()

    def is_closed(self, resolution: Resolution, to_time: int, now_us: int) -> bool:
        """Return whether no bar that starts before ``to_time`` can change after ``now_us``."""
        return to_time <= self._boundary and resolution.is_intraday

    def bars(self, resolution: Resolution, window: Window, now_us: int) -> Selection:
        """Return what ``window`` holds; the last bar may be forming."""
        end = min(window.to_time, now_us // 1_000_000 + 1)
        window = Window(window.from_time, end, window.count_back)
        if not resolution.is_intraday:
            bars = self._long_bars(resolution)
            key = (self._key, self._change, resolution)
            return select(bars, window, key=key, closed=len(bars) - 1)
        recent = self._recent_bars(resolution)
        newest = select(
            recent,
            window,
            key=(self._key, self._change, resolution),
            closed=len(recent) - 1 if self._forming is not None else len(recent),
        )
        wanted = BARS_MAX if window.count_back is None else min(window.count_back, BARS_MAX)
        missing = wanted - len(newest)
        is_recent = window.count_back is None and window.from_time >= self._boundary
        if missing <= 0 or (is_recent and (len(newest) or newest.next_time is not None)):
            return newest
        # Older bars end where the recent ones begin.
        to_time = min(window.to_time, self._boundary)
        older = self._past.bars(
            resolution, Window(min(window.from_time, to_time), to_time, window.count_back), now_us
        )
        parts: tuple[Part, ...] = _newest(older.parts, missing)
        if not parts and not newest.parts:
            return Selection((), older.next_time)
        return Selection((*parts, *newest.parts))

    def quote(self, now_us: int) -> Quote:
        """Return the newest prices; their age is what ``at_us`` tells."""
        today = self._long_bars(Resolution(1, Unit.DAY))[-2:]
        tick = self._tick
        last = self.last_close if tick is None else tick.last
        at_us = (self.last_time + MINUTE_SECONDS) * 1_000_000 if tick is None else tick.at_us
        half = self._instrument.spread_ticks // 2
        return Quote(
            instrument=self._instrument,
            bid=max(1, last - half) if tick is None else tick.bid,
            ask=last + self._instrument.spread_ticks - half if tick is None else tick.ask,
            last=last,
            sequence=at_us,
            at_us=at_us,
            day_open=int(today.open[-1]),
            day_high=int(today.high[-1]),
            day_low=int(today.low[-1]),
            day_volume=int(today.volume[-1]),
            previous_close=int(today.close[0]) if len(today) == 2 else None,
        )

    def _close_forming(self) -> None:
        if self._forming is not None:
            self._closed.append(tuple(self._forming))
            self._forming = None
            self._changed()
        if len(self._closed) > RECENT_BARS_MAX:
            self._settle(self._series)

    def _settle(self, series: StoredSeries) -> None:
        """Divide what is known: whole trading days once and for all, and what is recent."""
        self._series = series
        bars = series.bars
        if len(self._closed) > RECENT_BARS_MAX:
            bars = Columns.concat([bars, Columns.of_rows(self._closed)])
        self._boundary = int(self._session.opens(bars.time[-1:])[0])
        index = bars.index_at(self._boundary)
        past = bars[:index]
        self._past = HistoricalMarket(
            self._instrument,
            StoredSeries(
                series.id, series.resolution, series.price_decimals, series.volume_decimals, past
            ),
        )
        self._tail = bars[index:]
        self._key: Hashable = object()
        self._changed()

    def _changed(self) -> None:
        self._change = next(_versions)
        self._built: dict[Resolution, Columns] = {}

    def _recent(self) -> Columns:
        last = int(self._tail.time[-1]) if len(self._tail) else -1
        rows = [row for row in self._closed if row[0] > last]
        if self._forming is not None:
            rows.append(tuple(self._forming))
        return Columns.concat([self._tail, Columns.of_rows(rows)]) if rows else self._tail

    def _recent_bars(self, resolution: Resolution) -> Columns:
        found = self._built.get(resolution)
        if found is None:
            found = self._recent()
            if resolution.count > 1:
                found = aggregate.intraday(found, resolution.count, self._session)
            self._built[resolution] = found
        return found

    def _long_bars(self, resolution: Resolution) -> Columns:
        found = self._built.get(resolution)
        if found is None:
            recent = aggregate.daily(self._recent(), self._session)
            days = Columns.concat([self._past.days, recent]) if len(self._past.days) else recent
            found = self._built[resolution] = aggregate.from_days(
                days, resolution, open_every_day=self._instrument.session == "24x7"
            )
        return found


def _newest(parts: Sequence[Part], wanted: int) -> tuple[Part, ...]:
    """Return the parts cut to their newest ``wanted`` bars."""
    kept: list[Part] = []
    for part in reversed(parts):
        if wanted <= 0:
            break
        start = max(part.start, part.stop - wanted)
        kept.append(Part(part.block, start, part.stop, part.key, part.ready))
        wanted -= part.stop - start
    return tuple(reversed(kept))


def minutes_of(times_us: Sequence[int], prices: Sequence[int], sizes: Sequence[int]) -> Columns:
    """Return the minutes of a sequence of trades in ascending order."""
    if not times_us:
        return EMPTY
    starts = np.array(times_us, dtype=np.int64) // 60_000_000 * MINUTE_SECONDS
    price = np.array(prices, dtype=np.int64)
    ticks = Columns(starts, price, price, price, price, np.array(sizes, dtype=np.int64))
    return aggregate.merge(ticks, starts, starts)
