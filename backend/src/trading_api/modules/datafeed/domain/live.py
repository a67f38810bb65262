"""A market that a provider feeds: stored minutes, the minutes since, and the one that forms.

Beside them the seconds of the last hours, from the same ticks: a minute that has seconds is what
they add up to.

Bars are built from the last price alone. A minute is final when its end has passed; what listeners
saw of it last is what history answers from then on. Minutes without a tick have no bar.
"""

from bisect import bisect_right
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from operator import itemgetter

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
from trading_api.modules.datafeed.domain.series import (
    SECONDS,
    HistoricalMarket,
    StoredSeries,
    unsupported_by,
)
from trading_api.modules.datafeed.domain.tick import Tick

MINUTE_SECONDS = 60
SETTLED_MINUTES_MAX = 1_440
"""So many final minutes are kept beside the stored bars; then those are to be read again.

With the trading day that the stored bars end in, that is what each tick aggregates anew.
"""

RESOLUTIONS_MAX = 16
"""Resolutions of seconds kept; clients name any."""

_versions = count(1)


class LiveMarket:
    """One instrument that a provider feeds.

    Args:
        series: bars of one minute, at least one.
        seconds: stored bars of a second, of some of the newest of those minutes.
        seconds_kept: bars of a second are kept so long, in seconds; 0: there are none.
    """

    def __init__(
        self,
        instrument: Instrument,
        series: StoredSeries,
        seconds: Columns = EMPTY,
        *,
        seconds_kept: int = 0,
    ) -> None:
        assert series.resolution == Resolution(1, Unit.MINUTE), "live bars are minutes"
        self._instrument = instrument
        self._session = aggregate.parse_session(instrument.session, instrument.time_zone)
        self._closed: list[tuple[int, ...]] = []
        self._final: Columns | None = None
        self._forming: list[int] | None = None
        self._tick: Tick | None = None
        self._seconds = EMPTY
        self._seconds_kept = seconds_kept
        self._forming_seconds: list[list[int]] = []
        self._settle(series)
        self._keep_seconds(seconds)

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

    @property
    def is_long(self) -> bool:
        """Whether so many minutes are known beyond the stored ones that those are to be read."""
        return len(self._closed) >= self._long_at

    def fits(self, instrument: Instrument, series: StoredSeries) -> bool:
        """Tell whether its minutes stay right although the instrument may have changed."""
        ours = self._instrument
        return series.id == self._series.id and (
            (ours.price_decimals, ours.volume_decimals)
            == (instrument.price_decimals, instrument.volume_decimals)
        )

    def become(self, instrument: Instrument) -> None:
        """Be the instrument as an operator changed it; the minutes stay."""
        if instrument != self._instrument:
            self._instrument = instrument
            self._session = aggregate.parse_session(instrument.session, instrument.time_zone)
            self._settle(self._series)
            self._keep_seconds(self._seconds)

    def absorb(self, series: StoredSeries, seconds: Columns = EMPTY) -> None:
        """Take over what is stored by now; minutes known beyond it stay, and their seconds."""
        if series is self._series:
            self._long_at = len(self._closed) + SETTLED_MINUTES_MAX
            return
        last = int(series.bars.time[-1])
        self._closed = self._closed[self._index_behind(last) :]
        if self._forming is not None and self._forming[0] <= last:
            self._drop_forming()
        self._settle(series)
        later = self._seconds[self._seconds.index_at(last + MINUTE_SECONDS) :]
        self._keep_seconds(Columns.concat([seconds, later]))

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
        if self._seconds_kept:
            self._add_to_second(tick)
        self._changed()

    def close_until(self, now_us: int) -> None:
        """Make the forming minute final where its end has passed."""
        forming = self._forming
        if forming is not None and (forming[0] + MINUTE_SECONDS) * 1_000_000 <= now_us:
            self._close_forming()

    def closed_since(self, time: int) -> Columns:
        """Return the final minutes behind ``time`` that aren't in the stored series."""
        return Columns.of_rows(self._closed[self._index_behind(time) :])

    def seconds_of(self, minutes: Columns) -> Columns:
        """Return the seconds of some final minutes, as far as there are any."""
        if not len(minutes):
            return EMPTY
        return self._seconds_between(int(minutes.time[0]), int(minutes.time[-1]) + MINUTE_SECONDS)

    def forming(self) -> tuple[Sequence[int], Sequence[Sequence[int]]] | None:
        """Return the minute that forms, and its seconds; None where none does."""
        return None if self._forming is None else (self._forming, self._forming_seconds)

    def take_forming(self, row: Sequence[int], seconds: Sequence[Sequence[int]]) -> None:
        """Take over the forming minute as the provider's leader has it, with its seconds."""
        forming = self._forming
        if row[0] <= self.last_time or (forming is not None and row[0] < forming[0]):
            return
        if forming is not None and row[0] > forming[0]:
            self._close_forming()
        self._forming = list(row)
        self._forming_seconds = [list(each) for each in seconds] if self._seconds_kept else []
        self._changed()

    def complete_forming(self, row: Sequence[int], seconds: Sequence[Sequence[int]]) -> bool:
        """Add what another process heard of the forming minute and this one didn't.

        For a process that begins to lead: of each second counts who heard more of it. Returns
        whether that changed anything.
        """
        mine = self._forming
        if row[0] <= self.last_time or (mine is not None and row[0] != mine[0]):
            return False
        if mine is None:
            self.take_forming(row, seconds)
            return True
        if not self._seconds_kept:
            if row[5] <= mine[5]:
                return False
            mine[1:] = [row[1], max(row[2], mine[2]), min(row[3], mine[3]), mine[4], row[5]]
            self._changed()
            return True
        heard = {each[0]: list(each) for each in self._forming_seconds}
        for each in seconds:
            if each[0] not in heard or heard[each[0]][5] < each[5]:
                heard[each[0]] = list(each)
        union = [heard[second] for second in sorted(heard)]
        if union == self._forming_seconds:
            return False
        self._forming_seconds = union
        sums = aggregate.merge(
            Columns.of_rows(union), np.zeros(len(union), np.int64), np.full(len(union), row[0])
        )
        self._forming = [int(column[0]) for column in sums.arrays()]
        self._changed()
        return True

    def take_closed(self, row: Sequence[int], seconds: Sequence[Sequence[int]] = ()) -> None:
        """Take over a final minute as the provider's leader built it, with its seconds."""
        forming = self._forming
        if row[0] <= int(self._series.bars.time[-1]):
            return
        index = self._index_behind(row[0])
        known = index > 0 and self._closed[index - 1][0] == row[0]
        self._closed[index - known : index] = [tuple(row)]
        self._final = None
        if forming is not None and forming[0] <= row[0]:
            self._drop_forming()
        if self._seconds_kept:
            mine = self._seconds
            before = mine[: mine.index_at(row[0])]
            after = mine[mine.index_at(row[0] + MINUTE_SECONDS) :]
            self._keep_seconds(Columns.concat([before, Columns.of_rows(seconds), after]))
        self._changed()

    def resolutions(self) -> list[str]:
        """Return the usual resolutions that it offers."""
        seconds = SECONDS if self._seconds_kept else ()
        return [*map(str, seconds), *self._past.resolutions()]

    def is_closed(self, resolution: Resolution, to_time: int, now_us: int) -> bool:
        """Return whether no bar that starts before ``to_time`` can change after ``now_us``."""
        # Old seconds go.
        is_kept = resolution.is_intraday and resolution.unit is not Unit.SECOND
        return to_time <= self._boundary and is_kept

    def bars(self, resolution: Resolution, window: Window, now_us: int) -> Selection:
        """Return what ``window`` holds; the last bar may be forming."""
        end = min(window.to_time, now_us // 1_000_000 + 1)
        window = Window(window.from_time, end, window.count_back)
        if not resolution.is_intraday:
            bars = self._long_bars(resolution)
            key = (self._key, self._change, resolution)
            return select(bars, window, key=key, closed=len(bars) - 1)
        if resolution.unit is Unit.SECOND:
            return self._second_bars(resolution, window)
        recent = self._recent_bars(resolution)
        newest = select(
            recent,
            window,
            key=(self._key, self._change, resolution),
            closed=len(recent) - 1 if self._forming is not None else len(recent),
        )
        return _with_older(
            newest,
            window,
            self._boundary,
            lambda older: self._past.bars(resolution, older, now_us),
        )

    def quote(self, now_us: int) -> Quote:
        """Return the newest prices; their age is what ``at_us`` tells."""
        today = self._long_bars(Resolution(1, Unit.DAY))[-2:]
        tick = self._tick
        last = self.last_close if tick is None else tick.last
        at_us = (self.last_time + MINUTE_SECONDS) * 1_000_000 if tick is None else tick.at_us
        half = self._instrument.spread_ticks // 2 * self._instrument.tick
        return Quote(
            instrument=self._instrument,
            bid=max(1, last - half) if tick is None else tick.bid,
            ask=last + self._instrument.spread - half if tick is None else tick.ask,
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
            self._final = None
            seconds = Columns.of_rows(self._forming_seconds)
            self._drop_forming()
            self._keep_seconds(Columns.concat([self._seconds, seconds]))
            self._changed()

    def _drop_forming(self) -> None:
        self._forming = None
        self._forming_seconds = []

    def _add_to_second(self, tick: Tick) -> None:
        second, rows = tick.at_us // 1_000_000, self._forming_seconds
        if not rows or rows[-1][0] < second:
            rows.append([second, tick.last, tick.last, tick.last, tick.last, tick.size])
            return
        row = rows[-1]
        row[2] = max(row[2], tick.last)
        row[3] = min(row[3], tick.last)
        row[4] = tick.last
        row[5] += tick.size

    def _keep_seconds(self, seconds: Columns) -> None:
        """Keep the seconds of final minutes, the old ones no longer."""
        oldest = self.last_time + MINUTE_SECONDS - self._seconds_kept
        self._seconds = seconds[seconds.index_at(oldest) :]
        self._seconds_key: Hashable = object()
        self._built_seconds: dict[Resolution, Columns] = {}

    def _seconds_between(self, from_time: int, to_time: int) -> Columns:
        return self._seconds[self._seconds.index_at(from_time) : self._seconds.index_at(to_time)]

    def _second_bars(self, resolution: Resolution, window: Window) -> Selection:
        """Return bars of seconds: those of final minutes as built once, the newest anew."""
        if not self._seconds_kept:
            raise unsupported_by(self._instrument, resolution, self.resolutions())
        # A bar may hold the last seconds of a final minute and the first of the next.
        begin = np.array([self.last_time + MINUTE_SECONDS])
        opened = int(self._session.opens(begin)[0])
        start = int(begin[0]) - (int(begin[0]) - opened) % resolution.seconds
        past = self._built_seconds.get(resolution)
        if past is None:
            if len(self._built_seconds) >= RESOLUTIONS_MAX:
                self._built_seconds.clear()
            past = self._seconds[: self._seconds.index_at(start)]
            past = aggregate.intraday(past, resolution.seconds, self._session)
            self._built_seconds[resolution] = past
        recent = Columns.concat(
            [
                self._seconds[self._seconds.index_at(start) :],
                Columns.of_rows(self._forming_seconds),
            ]
        )
        recent = aggregate.intraday(recent, resolution.seconds, self._session)
        key = (self._seconds_key, resolution)
        older = past
        return _with_older(
            select(recent, window),
            window,
            start,
            lambda before: select(older, before, key=key),
        )

    def _settle(self, series: StoredSeries) -> None:
        """Divide what is known: whole trading days once and for all, and what is recent."""
        self._series = series
        bars = series.bars
        self._long_at = len(self._closed) + SETTLED_MINUTES_MAX
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
        self._final = None
        self._key: Hashable = object()
        self._changed()

    def _changed(self) -> None:
        self._change = next(_versions)
        self._built: dict[Resolution, Columns] = {}

    def _index_behind(self, time: int) -> int:
        """Return the index of the first final minute behind ``time``."""
        return bisect_right(self._closed, time, key=itemgetter(0))

    def _recent(self) -> Columns:
        if self._final is None:
            self._final = Columns.concat([self._tail, Columns.of_rows(self._closed)])
        if self._forming is None:
            return self._final
        return Columns.concat([self._final, Columns.of_rows([self._forming])])

    def _recent_bars(self, resolution: Resolution) -> Columns:
        found = self._built.get(resolution)
        if found is None:
            found = self._recent()
            if resolution.count > 1:
                found = aggregate.intraday(found, resolution.seconds, self._session)
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


def _with_older(
    newest: Selection, window: Window, boundary: int, find_older: Callable[[Window], Selection]
) -> Selection:
    """Return what a window holds of recent bars and of older ones.

    Args:
        newest: what it holds of the recent ones.
        boundary: where they begin, and the older ones end.
        find_older: returns what a window holds of the older ones.
    """
    wanted = BARS_MAX if window.count_back is None else min(window.count_back, BARS_MAX)
    missing = wanted - len(newest)
    is_recent = window.count_back is None and window.from_time >= boundary
    if missing <= 0 or (is_recent and (len(newest) or newest.next_time is not None)):
        return newest
    to_time = min(window.to_time, boundary)
    older = find_older(Window(min(window.from_time, to_time), to_time, window.count_back))
    parts: tuple[Part, ...] = _newest(older.parts, missing)
    if not parts and not newest.parts:
        return Selection((), older.next_time)
    return Selection((*parts, *newest.parts))


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
