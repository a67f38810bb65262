"""What makes a bar fit to be stored: the rules of an import, as pure functions.

A file's bars ascend in time, each lies on its resolution's grid, encloses its own open and close,
is positive, finished, and no thousand times its neighbour. What breaks a rule is a bad line with
its number and the reason; nothing is repaired or guessed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum

import numpy as np

from trading_api.modules.datafeed.domain.aggregate import DAY_SECONDS, MONDAY_OFFSET_DAYS
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit

DECIMALS_MAX = 10
RAW_MAX = 10**15
"""Largest price or volume at its scale; sums of volumes stay within 64 bits."""

SPIKE_FACTOR = 1_000
"""A close this many times the one before, either way, is a slip of the decimal point."""

TIME_MIN = -62_135_596_800
"""0001-01-01T00:00:00 UTC; what lies before has no date."""

BAD_LINES_KEPT = 1_000
"""So many bad lines are told one by one; all are counted."""

SERIES_ID = r"[a-z0-9][a-z0-9._-]{0,63}"
"""What a series may be called."""

FIELDS = ("time", "open", "high", "low", "close", "volume")

_ALIASES = {
    "timestamp": "time", "datetime": "time", "date": "time", "t": "time", "ts": "time",
    "o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "vol": "volume",
}  # fmt: skip


class ImportState(StrEnum):
    """Where an import stands; RUNNING may mean that it was interrupted."""

    RUNNING = "RUNNING"
    DONE = "DONE"
    REFUSED = "REFUSED"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that can't become a bar.

    Attributes:
        line: its number in the file, from 1; in files without lines the number of the row.
        reason: one sentence for people.
    """

    line: int
    reason: str


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """What a file is read as.

    Attributes:
        resolution: of its bars.
        price_decimals: decimals that its prices are stored with.
        volume_decimals: decimals that its volumes are stored with.
        end_time: bars that end later aren't finished yet, seconds.
    """

    resolution: Resolution
    price_decimals: int
    volume_decimals: int
    end_time: int


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a file has been read; enough to go on from there.

    Attributes:
        position: byte, or row, behind the last line read.
        line: number of the last line read.
        last_time: start of the last good bar, seconds; None before the first.
        last_close: its close; None before the first.
    """

    position: int = 0
    line: int = 0
    last_time: int | None = None
    last_close: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Some lines of a file, judged.

    Attributes:
        bars: the good ones.
        bad: the others.
        reached: where the file goes on.
    """

    bars: Columns
    bad: Sequence[BadLine]
    reached: Reached


def field_of(name: str) -> str | None:
    """Return which field a column's heading means; None where it means none."""
    cleaned = name.strip().strip('"').lower()
    cleaned = _ALIASES.get(cleaned, cleaned)
    return cleaned if cleaned in FIELDS else None


def parse_time(text: str) -> int:
    """Return seconds since 1970 of Unix seconds, Unix milliseconds or an ISO 8601 instant.

    An instant without a zone is UTC.

    Raises:
        ValueError: neither.
    """
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit():
        number = int(text)
        if len(digits) <= 11:
            return number
        if len(digits) <= 14 and number % 1_000 == 0:
            return number // 1_000
        raise ValueError
    instant = datetime.fromisoformat(text)
    instant = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    if instant.microsecond:
        raise ValueError
    return int(instant.timestamp())


def parse_raw(text: str, decimals: int, what: str) -> int:
    """Return a decimal number as an integer of ``decimals`` decimals, exact.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{what} is not a number: {text[:32]!r}") from None
    if not value.is_finite():
        raise ValueError(f"{what} is not finite: {text[:32]!r}")
    if value and value.adjusted() + decimals > 15:
        raise ValueError(f"{what} is out of range: {text[:32]!r}")
    raw = value.scaleb(decimals)
    if raw != raw.to_integral_value():
        raise ValueError(f"{what} has more than {decimals} decimals: {text[:32]!r}")
    return int(raw)


def decimals_of(text: str) -> int:
    """Return how many decimals a number needs; 0 where it isn't one."""
    try:
        exponent = Decimal(text).normalize().as_tuple().exponent
    except ArithmeticError:
        return 0
    return max(0, -exponent) if isinstance(exponent, int) else 0


def are_good(bars: Columns, spec: ImportSpec, reached: Reached) -> bool:
    """Tell at once whether every bar keeps every rule."""
    if not len(bars):
        return True
    before = bars.time[0] - 1 if reached.last_time is None else reached.last_time
    closes = np.concatenate([[reached.last_close or bars.close[0]], bars.close])
    prices = (bars.open, bars.high, bars.low, bars.close)
    return bool(
        (np.diff(bars.time, prepend=before) > 0).all()
        and (bars.time % _grid(spec.resolution) == 0).all()
        and bars.time[0] >= TIME_MIN
        and end_of(int(bars.time[-1]), spec.resolution) <= spec.end_time
        and min(int(column.min()) for column in prices) > 0
        and max(int(column.max()) for column in (*prices, bars.volume)) <= RAW_MAX
        and int(bars.volume.min()) >= 0
        and (bars.high >= np.maximum(bars.open, bars.close)).all()
        and (bars.low <= np.minimum(bars.open, bars.close)).all()
        and (closes[1:] < closes[:-1] * SPIKE_FACTOR).all()
        and (closes[:-1] < closes[1:] * SPIKE_FACTOR).all()
    )


def fault_of(row: Sequence[int], spec: ImportSpec, reached: Reached) -> str | None:
    """Return why a row of (time, open, high, low, close, volume) isn't a good bar."""
    time, open_, high, low, close, volume = row
    if time < TIME_MIN:
        return "the time is out of range"
    if time % _grid(spec.resolution):
        return f"time {_shown(time)} is not the start of a bar of {spec.resolution}"
    if reached.last_time is not None and time <= reached.last_time:
        twice = time == reached.last_time
        return (
            f"time {_shown(time)} comes twice"
            if twice
            else f"time {_shown(time)} lies before {_shown(reached.last_time)}"
        )
    if end_of(time, spec.resolution) > spec.end_time:
        return f"the bar of {_shown(time)} isn't finished yet"
    if min(open_, high, low, close) <= 0:
        return "a price is zero or negative"
    if max(open_, high, low, close, volume) > RAW_MAX:
        return "a price or the volume is out of range"
    if volume < 0:
        return "the volume is negative"
    if high < max(open_, close) or high < low:
        return "the high lies under another price"
    if low > min(open_, close):
        return "the low lies over another price"
    last = reached.last_close
    if last is not None and (close >= last * SPIKE_FACTOR or last >= close * SPIKE_FACTOR):
        return f"the close is over {SPIKE_FACTOR} times away from the one before"
    return None


def end_of(time: int, resolution: Resolution) -> int:
    """Return when the bar that starts at ``time`` is over, seconds.

    As bars are built from finer ones, holidays apart: a file of several trading days a bar may
    take longer than so many calendar days.
    """
    count = resolution.count
    match resolution.unit:
        case Unit.SECOND | Unit.MINUTE:
            return time + resolution.seconds
        case Unit.WEEK:
            group = (time // DAY_SECONDS + MONDAY_OFFSET_DAYS) // 7 // count
            return ((group + 1) * count * 7 - MONDAY_OFFSET_DAYS) * DAY_SECONDS
        case Unit.MONTH:
            month = int(np.datetime64(time, "s").astype("datetime64[M]").astype(np.int64))
            first = month - month % 12
            return _start_of_month(min(first + 12, month - month % 12 % count + count))
        case _:
            year = int(np.datetime64(time, "s").astype("datetime64[Y]").astype(np.int64))
            return min(time + count * DAY_SECONDS, _start_of_month((year + 1) * 12))


def _start_of_month(month: int) -> int:
    """Return the start of a month counted from 1970, seconds."""
    return int(np.datetime64(month, "M").astype("datetime64[s]").astype(np.int64))


def _grid(resolution: Resolution) -> int:
    """Return what a bar's start must be a multiple of, seconds."""
    if resolution.unit is Unit.SECOND:
        return 1
    return 60 if resolution.unit is Unit.MINUTE else DAY_SECONDS


def _shown(time: int) -> str:
    return f"{np.datetime64(time, 's')}Z"
