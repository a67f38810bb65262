"""The demo market: real history shifted so that it ends now, and continued.

Construction. The anchor day is fixed when the platform is first seeded. The N source bars (days,
or hours for EURUSD) are laid onto consecutive days (hours) that end where the anchor day begins;
weekends and holidays vanish, so the market is open 24x7. From there the k-th bar, k = 1, 2, …,
repeats source bar k mod N, the first one skipped because nothing precedes it. Bars join without a
gap: O' = C'prev, X' = C'prev · X / Cprev, and H', L' are widened to enclose O' and C'. Splits come
from a table and are taken out (prices before them divided), so none of them looks like a crash.

Inside a day the hours, inside an hour the minutes, inside a minute the half-second slots are paths
that hit the open, high, low and close above them exactly (``bridge``). Two slots make a second.
Each level adds up exactly to the one above; the volume's remainder goes to the last part. The price
is thus a pure function of seed, symbol and time: every process computes the same, and none need run
for bars to exist.

Nothing later than the slot of "now" is ever shown: a forming bar is built from elapsed slots only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trading_api.modules.datafeed.domain import aggregate, bridge
from trading_api.modules.datafeed.domain.aggregate import (
    ALWAYS_OPEN,
    DAY_SECONDS,
    HOUR_SECONDS,
)
from trading_api.modules.datafeed.domain.cache import SizedCache
from trading_api.modules.datafeed.domain.columns import (
    EMPTY,
    Columns,
    Ints,
    Window,
)
from trading_api.modules.datafeed.domain.instrument import Instrument, Quote
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit
from trading_api.modules.datafeed.domain.selection import BARS_MAX, Part, Selection, select
from trading_api.modules.datafeed.domain.series import INTRADAY, StoredSeries

SLOT_US = 500_000
"""The price changes at most this often, and is published every time."""

SLOTS_PER_MINUTE = 60_000_000 // SLOT_US
MINUTE_SECONDS = 60
PRICE_MIN_TICKS = 10
"""A continuation that wanders down for years stops here, so that bid and ask stay positive."""

MINUTE_DAYS_SIZE_MAX = 9 * 1024 * 1024
"""Minutes kept, all instruments together: 136 days of 1,440 bars."""

BLOCKS_SIZE_MAX = 8 * 1024 * 1024
"""Coarser intraday bars kept, all instruments together: 120 blocks of 1,440 bars."""

LONG_RESOLUTIONS_MAX = 16
"""Resolutions of days, weeks and months kept for the current slot; clients name any."""

_BATCH_DAYS = 48
"""Days whose minutes are drawn in one go: bounds the temporary arrays."""

_BATCH_HOURS = 2
"""Hours whose seconds are drawn in one go: some six milliseconds."""

_ONE_MINUTE = Resolution(1, Unit.MINUTE)

_WIGGLE_SHARE = 12
"""How far a part's high and low may lie outside its open and close: at two dozen parts 1/12 of the
whole bar's range, with more parts accordingly less."""

RESOLUTIONS = [*map(str, INTRADAY), "1D", "1W", "1M", "3M"]


@dataclass(frozen=True, slots=True)
class Split:
    """A stock split: one old share became ``ratio`` new ones.

    Attributes:
        time: first trading day at the new price, 00:00 UTC, seconds.
        ratio: 2 for a two-for-one split.
    """

    time: int
    ratio: int


class DemoCaches:
    """What the demo markets of a process keep of their past, each within a bound.

    Attributes:
        days: minutes of whole days.
        blocks: coarser intraday bars of whole days.
    """

    def __init__(self) -> None:
        self.days = MinuteDays()
        self.blocks: SizedCache[Columns] = SizedCache(BLOCKS_SIZE_MAX)


class MinuteDays:
    """Minutes of whole days by ticker, the most recently used ones; shared by all markets."""

    def __init__(self, size_max: int = MINUTE_DAYS_SIZE_MAX) -> None:
        self._days: SizedCache[Columns] = SizedCache(size_max)

    def find(self, ticker: str, day: int) -> Columns | None:
        """Return the minutes of a day number; None where they must be drawn."""
        return self._days.find((ticker, day))

    def keep(self, ticker: str, day: int, minutes: Columns) -> None:
        """Keep a day's minutes, dropping the longest unused ones."""
        self._days.keep((ticker, day), minutes, minutes.size)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Numbers of the bars of an intraday resolution in a market that never closes.

    Bars of minutes restart with each UTC day, whose last one may be short, bars of seconds with
    each hour.

    Attributes:
        step: length of a bar, seconds.
        period: what bars restart with, seconds.
        block_periods: so many periods make a block: about 1,440 bars of minutes or 3,600 of
            seconds, whatever the resolution.
    """

    step: int
    period: int
    block_periods: int

    @property
    def per_period(self) -> int:
        return -(-self.period // self.step)

    @property
    def block_bars(self) -> int:
        return self.per_period * self.block_periods

    def index_of(self, time: int) -> int:
        """Return the number of the bar that ``time`` lies in."""
        period, second = divmod(time, self.period)
        return period * self.per_period + second // self.step

    def index_from(self, time: int) -> int:
        """Return the number of the first bar that starts at or after ``time``."""
        return self.index_of(time - 1) + 1

    def time_of(self, index: int) -> int:
        """Return the start of a bar."""
        period, number = divmod(index, self.per_period)
        return period * self.period + number * self.step


class DemoMarket:
    """One instrument of the demo market.

    Args:
        instrument: what it is; ``price_decimals`` gives the tick of the demo prices.
        series: the real bars behind it; daily, or intraday of a length that divides a day.
        splits: the source's splits, ascending.
        anchor_time: 00:00 UTC of the anchor day, seconds.
        seed: text that the simulated paths depend on.
        caches: what is kept of the past; some of its own where None.
    """

    def __init__(
        self,
        instrument: Instrument,
        series: StoredSeries,
        splits: Sequence[Split],
        *,
        anchor_time: int,
        seed: str,
        caches: DemoCaches | None = None,
    ) -> None:
        assert anchor_time % DAY_SECONDS == 0, "the anchor is the beginning of a UTC day"
        self._instrument = instrument
        base = series.resolution
        self._base_seconds = base.seconds if base.is_intraday else DAY_SECONDS
        self._chain = _Chain(instrument, series, splits, self._base_seconds, anchor_time)
        self.start_time = self._chain.start_time
        self._hour_key = bridge.key_of(seed, instrument.ticker, "hours")
        self._minute_key = bridge.key_of(seed, instrument.ticker, "minutes")
        self._slot_key = bridge.key_of(seed, instrument.ticker, "slots")
        self._caches = caches or DemoCaches()
        self._key = object()
        self._forming_slot = -1
        self._forming: dict[Resolution, Columns] = {}
        self._hour_seconds: tuple[int, Columns] = (-1, EMPTY)
        self._long: dict[Resolution, tuple[int, Columns]] = {}
        self._past_days = EMPTY
        self._slots: tuple[int, Ints] = (-1, np.empty(0, dtype=np.int64))
        self._quote: Quote | None = None

    @property
    def instrument(self) -> Instrument:
        """Whose market this is."""
        return self._instrument

    def resolutions(self) -> list[str]:
        """Return the usual resolutions; others of seconds, minutes, days and so on work too."""
        return [*RESOLUTIONS, "12M"]

    def is_closed(self, resolution: Resolution, to_time: int, now_us: int) -> bool:
        """Return whether every bar that starts before ``to_time`` is surely final."""
        period = HOUR_SECONDS if resolution.unit is Unit.SECOND else DAY_SECONDS
        begun = now_us // 1_000_000 // period * period
        return to_time <= (begun if resolution.is_intraday else begun - 366 * DAY_SECONDS)

    def bars(self, resolution: Resolution, window: Window, now_us: int) -> Selection:
        """Return what ``window`` holds; the last bar may be forming, none is later than now."""
        end = min(window.to_time, now_us // 1_000_000 + 1)
        if end <= self.start_time:
            return Selection()
        window = Window(window.from_time, end, window.count_back)
        if resolution.is_intraday:
            return self._select_intraday(resolution, window, now_us)
        bars = self._long_bars(resolution, now_us)
        return select(bars, window, key=(self._key, resolution), closed=len(bars) - 1)

    def quote(self, now_us: int) -> Quote:
        """Return bid, ask, last and the day so far at the slot of ``now_us``."""
        slot = max(now_us, self.start_time * 1_000_000) // SLOT_US
        if self._quote is None or self._quote.sequence != slot:
            self._quote = self._quote_at(slot)
        return self._quote

    def _quote_at(self, slot: int) -> Quote:
        at_us = slot * SLOT_US
        day = at_us // 1_000_000 // DAY_SECONDS
        today = aggregate.daily(self._minutes(day, day, at_us), ALWAYS_OPEN)
        last, spread = int(today.close[0]), self._instrument.spread_ticks
        ask = last if self._instrument.ask_is_last else last + spread // 2
        return Quote(
            instrument=self._instrument,
            bid=ask - spread,
            ask=ask,
            last=last,
            sequence=slot,
            at_us=at_us,
            day_open=int(today.open[0]),
            day_high=int(today.high[0]),
            day_low=int(today.low[0]),
            day_volume=int(today.volume[0]),
            previous_close=self._chain.close_before(day * DAY_SECONDS),
        )

    def _select_intraday(self, resolution: Resolution, window: Window, now_us: int) -> Selection:
        """Return an intraday window by arithmetic: the market is always open, so bars are dense."""
        grid = _grid_of(resolution)
        first, start, stop = self._span(grid, window)
        if start >= stop:
            return Selection((), grid.time_of(stop - 1) if stop > first else None)
        parts: list[Part] = []
        for number in range(start // grid.block_bars, (stop - 1) // grid.block_bars + 1):
            low = max(number * grid.block_bars, first)
            high = min(stop, (number + 1) * grid.block_bars)
            block, closed = self._block(resolution, grid, number, now_us)
            begin, end = max(start, low) - low, high - low
            if begin < min(closed, end):
                key = (self._key, resolution, number, closed)
                final = block if closed == len(block) else block[:closed]
                parts.append(Part(final, begin, min(closed, end), key))
            if closed < end:
                parts.append(Part(block, max(begin, closed), end))
        return Selection(tuple(parts))

    def _span(self, grid: _Grid, window: Window) -> tuple[int, int, int]:
        """Return the numbers of the first bar of all, the window's first, the one behind it."""
        first, stop = grid.index_of(self.start_time), grid.index_from(window.to_time)
        if window.count_back is None:
            start = min(max(grid.index_from(window.from_time), first), stop)
        else:
            start = max(first, stop - window.count_back)
        return first, max(start, stop - BARS_MAX), stop

    def prepare(self, resolution: Resolution, window: Window, now_us: int) -> Iterator[None]:
        """Make what ``bars`` needs for seconds, a few milliseconds' work at a time.

        A full answer draws up to half a million prices; others shall be served in between.
        """
        end = min(window.to_time, now_us // 1_000_000 + 1)
        if resolution.unit is not Unit.SECOND or end <= self.start_time:
            return
        grid, current = _grid_of(resolution), now_us // 1_000_000 // HOUR_SECONDS
        _, start, stop = self._span(grid, Window(window.from_time, end, window.count_back))
        if start >= stop:
            return
        for number in range(start // grid.block_bars, (stop - 1) // grid.block_bars + 1):
            first = max(number * grid.block_periods, self.start_time // HOUR_SECONDS)
            last = min((number + 1) * grid.block_periods, current) - 1
            key = (self._key, resolution, first, last)
            if first > last or self._caches.blocks.find(key) is not None:
                continue
            parts = []
            for hour in range(first, last + 1, _BATCH_HOURS):
                parts.append(self._seconds_between(resolution, hour, last))
                yield
            found = Columns.concat(parts)
            self._caches.blocks.keep(key, found, found.size)

    def _block(
        self, resolution: Resolution, grid: _Grid, number: int, now_us: int
    ) -> tuple[Columns, int]:
        """Return a block's bars up to now, and how many of them are final."""
        current = now_us // 1_000_000 // grid.period
        first = max(number * grid.block_periods, self.start_time // grid.period)
        last = (number + 1) * grid.block_periods - 1
        if last < current:
            bars = self._closed_periods(resolution, first, last)
            return bars, len(bars)
        slot = now_us // SLOT_US
        if self._forming_slot != slot:
            self._forming_slot = slot
            self._forming.clear()
        found = self._forming.get(resolution)
        if found is None:
            if resolution.unit is Unit.SECOND:
                bars = self._seconds_of_hour(now_us)
            else:
                bars = self._minutes(current, current, now_us)
            bars = _coarser(bars, resolution)
            if first < current:
                closed = self._closed_periods(resolution, first, current - 1)
                bars = Columns.concat([closed, bars])
            found = self._forming[resolution] = bars
        return found, len(found) - 1

    def _closed_periods(self, resolution: Resolution, first: int, last: int) -> Columns:
        """Return the bars of whole past days, or hours for seconds, both ends inclusive."""
        if resolution == _ONE_MINUTE:
            return self._whole_minutes(first, last)
        key = (self._key, resolution, first, last)
        found = self._caches.blocks.find(key)
        if found is None:
            if resolution.unit is Unit.SECOND:
                found = self._whole_seconds(resolution, first, last)
            else:
                # Hours add up to what their minutes would, and there are fewer of them.
                finer = self._hours if resolution.count % 60 == 0 else self._whole_minutes
                found = _coarser(finer(first, last), resolution)
            self._caches.blocks.keep(key, found, found.size)
        return found

    def _whole_seconds(self, resolution: Resolution, first_hour: int, last_hour: int) -> Columns:
        """Return bars of seconds of whole hours, both ends inclusive."""
        hours = range(first_hour, last_hour + 1, _BATCH_HOURS)
        return Columns.concat(
            [self._seconds_between(resolution, hour, last_hour) for hour in hours]
        )

    def _seconds_between(self, resolution: Resolution, hour: int, last_hour: int) -> Columns:
        """Return bars of seconds of a batch of whole hours, none behind the last one."""
        stop = min(hour + _BATCH_HOURS, last_hour + 1)
        first_day, last_day = (each * HOUR_SECONDS // DAY_SECONDS for each in (hour, stop - 1))
        minutes = self._whole_minutes(first_day, last_day)
        low, high = (minutes.index_at(each * HOUR_SECONDS) for each in (hour, stop))
        return _coarser(self._seconds_of(minutes[low:high]), resolution)

    def _seconds_of_hour(self, now_us: int) -> Columns:
        """Return the seconds of the current hour, cut at the slot of ``now_us``."""
        time = now_us // 60_000_000 * MINUTE_SECONDS
        day = time // DAY_SECONDS
        minutes = self._whole_minutes(day, day)
        index = minutes.index_at(time)
        if self._hour_seconds[0] != time:
            low = minutes.index_at(time // HOUR_SECONDS * HOUR_SECONDS)
            self._hour_seconds = time, self._seconds_of(minutes[low:index])
        current = minutes[index : index + 1]
        elapsed = now_us % 60_000_000 // SLOT_US + 1
        prices = self._slot_prices(current)[:elapsed]
        if elapsed % 2:
            prices = np.append(prices, prices[-1:])
        forming = _seconds(current.time, prices[None, :], current.volume, elapsed)
        return Columns.concat([self._hour_seconds[1], forming])

    def _seconds_of(self, minutes: Columns) -> Columns:
        """Return the seconds of complete minutes."""
        if not len(minutes):
            return EMPTY
        keys = bridge.keys_at(self._slot_key, minutes.time // MINUTE_SECONDS)
        edges = (minutes.open, minutes.high, minutes.low, minutes.close)
        prices = bridge.paths(keys, edges, SLOTS_PER_MINUTE - 1)
        return _seconds(minutes.time, prices, minutes.volume, SLOTS_PER_MINUTE)

    def _long_bars(self, resolution: Resolution, now_us: int) -> Columns:
        """Return all bars of days, weeks or months; the last one is forming."""
        slot = now_us // SLOT_US
        kept = self._long.get(resolution)
        if kept is None or kept[0] != slot:
            bars = aggregate.from_days(self._days(now_us), resolution, open_every_day=True)
            if len(self._long) >= LONG_RESOLUTIONS_MAX:
                self._long.clear()
            kept = self._long[resolution] = (slot, bars)
        return kept[1]

    def _days(self, now_us: int) -> Columns:
        """Return all days up to today's forming one."""
        today = now_us // 1_000_000 // DAY_SECONDS
        if not len(self._past_days) or self._past_days.time[-1] != (today - 1) * DAY_SECONDS:
            past = self._chain.before(today * DAY_SECONDS)
            self._past_days = aggregate.daily(past, ALWAYS_OPEN)
        forming = aggregate.daily(self._minutes(today, today, now_us), ALWAYS_OPEN)
        return Columns.concat([self._past_days, forming])

    def _hours(self, first_day: int, last_day: int) -> Columns:
        """Return the hours of some days, both ends inclusive, whatever the time is now."""
        base = self._chain.between(first_day * DAY_SECONDS, (last_day + 1) * DAY_SECONDS)
        if self._base_seconds == HOUR_SECONDS:
            return base
        return _subdivide(base, self._hour_key, self._base_seconds, HOUR_SECONDS)

    def _minutes(self, first_day: int, last_day: int, now_us: int) -> Columns:
        """Return the minutes of some days, both ends inclusive, cut at the slot of ``now_us``."""
        today = now_us // 1_000_000 // DAY_SECONDS
        bars = self._whole_minutes(first_day, min(last_day, today))
        return bars if last_day < today else self._cut(bars, now_us)

    def _whole_minutes(self, first_day: int, last_day: int) -> Columns:
        """Return the minutes of whole days, both ends inclusive, whatever the time is now."""
        ticker, days = self._instrument.ticker, range(first_day, last_day + 1)
        if len(days) == 1:
            ready = self._caches.days.find(ticker, first_day)
            if ready is not None:
                return ready
        found = {day: self._caches.days.find(ticker, day) for day in days}
        missing = [day for day in days if found[day] is None]
        for batch in _batches(missing, _BATCH_DAYS):
            for day, minutes in self._draw_days(batch).items():
                found[day] = minutes
                self._caches.days.keep(ticker, day, minutes)
        return Columns.concat([minutes for minutes in found.values() if minutes is not None])

    def _cut(self, bars: Columns, now_us: int) -> Columns:
        """Return the minutes before the current one, then the current one as far as it elapsed."""
        minute_time = now_us // 60_000_000 * MINUTE_SECONDS
        index = bars.index_at(minute_time)
        if index == len(bars):
            return bars
        current = bars[index : index + 1]
        elapsed = now_us % 60_000_000 // SLOT_US + 1
        prices = self._slot_prices(current)[:elapsed]
        forming = Columns(
            time=current.time,
            open=prices[:1],
            high=prices.max(keepdims=True),
            low=prices.min(keepdims=True),
            close=prices[-1:],
            volume=current.volume * elapsed // SLOTS_PER_MINUTE,
        )
        return Columns.concat([bars[:index], forming])

    def _slot_prices(self, minute: Columns) -> Ints:
        """Return the prices of one complete minute's slots, in order."""
        number = int(minute.time[0]) // MINUTE_SECONDS
        if self._slots[0] != number:
            keys = bridge.keys_at(self._slot_key, np.array([number], dtype=np.int64))
            prices = (minute.open, minute.high, minute.low, minute.close)
            self._slots = (number, bridge.paths(keys, prices, SLOTS_PER_MINUTE - 1)[0])
        return self._slots[1]

    def _draw_days(self, days: Sequence[int]) -> dict[int, Columns]:
        """Return the minutes of consecutive days, complete ones, whatever the time is now."""
        hours = self._hours(days[0], days[-1])
        minutes = _subdivide(hours, self._minute_key, HOUR_SECONDS, MINUTE_SECONDS)
        edges = [minutes.index_at(day * DAY_SECONDS) for day in (*days, days[-1] + 1)]
        return {
            day: Columns(*(column.copy() for column in minutes[start:stop].arrays()))
            for day, start, stop in zip(days, edges, edges[1:], strict=False)
        }


def _grid_of(resolution: Resolution) -> _Grid:
    period = HOUR_SECONDS if resolution.unit is Unit.SECOND else DAY_SECONDS
    return _Grid(resolution.seconds, period, resolution.count)


def _coarser(bars: Columns, resolution: Resolution) -> Columns:
    """Return bars of a resolution from finer ones of whole periods."""
    if resolution.count == 1:
        return bars
    return aggregate.intraday(bars, resolution.seconds, ALWAYS_OPEN)


def _seconds(time: Ints, prices: Ints, volumes: Ints, elapsed: int) -> Columns:
    """Return the seconds of minutes of which ``elapsed`` slots have begun.

    Args:
        time: starts of the minutes.
        prices: of each minute's slots, two for every second.
        volumes: of the complete minutes.
    """
    count = prices.shape[1] // 2
    pairs = prices.reshape(len(time), count, 2)
    shares = np.minimum(np.arange(count + 1, dtype=np.int64) * 2, elapsed)
    return Columns(
        time=(time[:, None] + np.arange(count, dtype=np.int64)).reshape(-1),
        open=np.ascontiguousarray(pairs[:, :, 0]).reshape(-1),
        high=pairs.max(axis=2).reshape(-1),
        low=pairs.min(axis=2).reshape(-1),
        close=np.ascontiguousarray(pairs[:, :, 1]).reshape(-1),
        volume=np.diff(volumes[:, None] * shares // SLOTS_PER_MINUTE, axis=1).reshape(-1),
    )


def _subdivide(bars: Columns, key: int, bar_seconds: int, part_seconds: int) -> Columns:
    """Return the parts inside each bar: their prices and volumes add up exactly to the bar's."""
    steps = bar_seconds // part_seconds
    keys = bridge.keys_at(key, bars.time // bar_seconds)
    prices = bridge.paths(keys, (bars.open, bars.high, bars.low, bars.close), steps)
    opens, closes = prices[:, :-1], prices[:, 1:]
    highs, lows = bars.high[:, None], bars.low[:, None]
    wiggle = ((highs - lows) * 24 // (_WIGGLE_SHARE * steps) + 2).astype(np.uint64)
    up = (bridge.draws(keys, steps, 2) % wiggle).astype(np.int64)
    down = (bridge.draws(keys, steps, 3) % wiggle).astype(np.int64)
    weights = (bridge.draws(keys, steps, 4) >> np.uint64(54)).astype(np.int64) + 64
    volumes = bars.volume[:, None] * weights // weights.sum(axis=1, keepdims=True)
    volumes[:, -1] += bars.volume - volumes.sum(axis=1)
    offsets = np.arange(steps, dtype=np.int64) * part_seconds
    return Columns(
        time=(bars.time[:, None] + offsets).reshape(-1),
        open=opens.reshape(-1),
        high=np.minimum(np.maximum(opens, closes) + up, highs).reshape(-1),
        low=np.maximum(np.minimum(opens, closes) - down, lows).reshape(-1),
        close=closes.reshape(-1),
        volume=volumes.reshape(-1),
    )


class _Chain:
    """The source-sized bars of the demo market, grown on demand into the future."""

    def __init__(
        self,
        instrument: Instrument,
        series: StoredSeries,
        splits: Sequence[Split],
        base_seconds: int,
        anchor_time: int,
    ) -> None:
        source = series.bars
        self._source = source
        self._base_seconds = base_seconds
        self._factors = _split_factors(source.time, splits)
        self.start_time = anchor_time - len(source) * base_seconds
        self._bars = self._shifted(series, instrument)

    def between(self, from_time: int, to_time: int) -> Columns:
        """Return the bars that start in [from_time, to_time), none before the beginning."""
        start = max(0, (from_time - self.start_time) // self._base_seconds)
        stop = max(start, (to_time - self.start_time) // self._base_seconds)
        self._grow(stop)
        return self._bars[start:stop]

    def before(self, time: int) -> Columns:
        """Return all bars that start before ``time``."""
        return self.between(self.start_time, time)

    def close_before(self, time: int) -> int | None:
        """Return the close of the bar that ends at ``time``; None at the beginning."""
        bars = self.between(time - self._base_seconds, time)
        return int(bars.close[0]) if len(bars) else None

    def _shifted(self, series: StoredSeries, instrument: Instrument) -> Columns:
        """Return the N source bars in demo ticks, joined, on consecutive days or hours."""
        source, count = self._source, len(self._source)
        multiplier = 10**instrument.price_decimals
        divisor = 10**series.price_decimals * self._factors
        opens, highs, lows, closes = (
            np.maximum(_half_even(column * multiplier, divisor), PRICE_MIN_TICKS)
            for column in (source.open, source.high, source.low, source.close)
        )
        opens = np.concatenate([opens[:1], closes[:-1]])
        return Columns(
            time=self.start_time + np.arange(count, dtype=np.int64) * self._base_seconds,
            open=opens,
            high=np.maximum(highs, np.maximum(opens, closes)),
            low=np.minimum(lows, np.minimum(opens, closes)),
            close=closes,
            volume=source.volume * self._factors // 10**series.volume_decimals,
        )

    def _grow(self, count: int) -> None:
        """Append continuation bars until there are ``count``."""
        have = len(self._bars)
        if count <= have:
            return
        # A few days ahead of the demand, so that appending stays rare as time goes by.
        rows = []
        close = int(self._bars.close[-1])
        for index in range(have, count + 4 * DAY_SECONDS // self._base_seconds):
            row = self._continuation(index, close)
            close = row[4]
            rows.append(row)
        self._bars = Columns.concat([self._bars, Columns.of_rows(rows)])

    def _continuation(self, index: int, close_before: int) -> tuple[int, ...]:
        source, count = self._source, len(self._source)
        position = 1 + (index - count) % (count - 1)
        base = int(source.close[position - 1]) * int(self._factors[position])
        scale = close_before * int(self._factors[position - 1])
        high, low, close = (
            max(_half_even_int(int(column[position]) * scale, base), PRICE_MIN_TICKS)
            for column in (source.high, source.low, source.close)
        )
        return (
            self.start_time + index * self._base_seconds,
            close_before,
            max(high, close_before, close),
            min(low, close_before, close),
            close,
            int(self._bars.volume[position]),
        )


def _split_factors(time: Ints, splits: Sequence[Split]) -> Ints:
    """Return by how much each bar's price is divided: the product of the splits after it."""
    factors = np.ones_like(time)
    for split in splits:
        factors[time < split.time] *= split.ratio
    return factors


def _half_even(numerator: Ints, denominator: Ints) -> Ints:
    quotient: Ints
    quotient, rest = np.divmod(numerator, denominator)
    up = (2 * rest > denominator) | ((2 * rest == denominator) & (quotient % 2 == 1))
    rounded: Ints = quotient + up
    return rounded


def _half_even_int(numerator: int, denominator: int) -> int:
    quotient, rest = divmod(numerator, denominator)
    return quotient + (2 * rest > denominator or (2 * rest == denominator and quotient % 2 == 1))


def _batches(days: Sequence[int], size: int) -> list[list[int]]:
    """Return runs of consecutive days, each at most ``size`` long."""
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1 and len(runs[-1]) < size:
            runs[-1].append(day)
        else:
            runs.append([day])
    return runs
