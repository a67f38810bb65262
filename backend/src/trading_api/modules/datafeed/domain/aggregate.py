"""Coarser bars from finer ones.

Rules: intraday bars are aligned to the session's open and restart with each session; a bar never
spans two trading days; an overnight session belongs to the day it ends on (forex: Sunday evening
is Monday's); days restart counting each calendar year, weeks start on Monday, months are calendar
months counted from January. From 1D up a bar's time is 00:00 UTC of its first trading day.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np

from trading_api.modules.datafeed.domain.columns import Columns, Ints
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit

DAY_SECONDS = 86_400
HOUR_SECONDS = 3_600
MONDAY_OFFSET_DAYS = 3
"""1970-01-01 was a Thursday; three days on from a Monday."""


@dataclass(frozen=True, slots=True)
class Session:
    """When a market's trading day begins.

    Attributes:
        time_zone: IANA name of its local time.
        open_minute: minute of the local day at which it opens.
        overnight: it opens on the evening before the day that it counts as.
    """

    time_zone: str
    open_minute: int
    overnight: bool

    def trading_days(self, time: Ints) -> Ints:
        """Return 00:00 UTC of the trading day of each instant, seconds."""
        local = time + self._utc_offsets(time)
        return (local + self._shift_seconds()) // DAY_SECONDS * DAY_SECONDS

    def opens(self, time: Ints) -> Ints:
        """Return the instant at which each instant's session opened, seconds."""
        offsets = self._utc_offsets(time)
        days = (time + offsets + self._shift_seconds()) // DAY_SECONDS * DAY_SECONDS
        local_open = days - self._shift_seconds()
        if not self.overnight:
            local_open = days + self.open_minute * 60
        return local_open - offsets

    def _shift_seconds(self) -> int:
        return DAY_SECONDS - self.open_minute * 60 if self.overnight else 0

    def _utc_offsets(self, time: Ints) -> Ints:
        """Return local minus UTC in seconds; zones change on the hour, so hours are looked up."""
        if self.time_zone in ("Etc/UTC", "UTC"):
            return np.zeros_like(time)
        hours, where = np.unique(time // HOUR_SECONDS, return_inverse=True)
        offsets = [_utc_offset(self.time_zone, int(hour) * HOUR_SECONDS) for hour in hours]
        return np.array(offsets, dtype=np.int64)[where]


ALWAYS_OPEN = Session("Etc/UTC", 0, overnight=False)


def parse_session(notation: str, time_zone: str) -> Session:
    """Return the session of a chart's notation: ``24x7``, ``0930-1600`` or ``1700-1700``.

    The weekday suffix (``:23456``) doesn't move the open, so it is ignored here.

    Raises:
        ValueError: more than one range a day, or not a session.
    """
    if notation == "24x7":
        return Session(time_zone, 0, overnight=False)
    hours = notation.partition(":")[0]
    opening, dash, closing = hours.partition("-")
    if not dash or len(opening) != 4 or len(closing) != 4:
        raise ValueError(f"not a session that is understood here: {notation!r}")
    open_minute = int(opening[:2]) * 60 + int(opening[2:])
    close_minute = int(closing[:2]) * 60 + int(closing[2:])
    return Session(time_zone, open_minute, overnight=open_minute >= close_minute)


def intraday(bars: Columns, seconds: int, session: Session) -> Columns:
    """Return bars of ``seconds`` built from finer ones, aligned to the session's open."""
    if not len(bars):
        return bars
    opens = session.opens(bars.time)
    starts = opens + (bars.time - opens) // seconds * seconds
    return merge(bars, starts, starts)


def daily(bars: Columns, session: Session) -> Columns:
    """Return bars of one trading day each, built from intraday ones."""
    if not len(bars):
        return bars
    days = session.trading_days(bars.time)
    return merge(bars, days, days)


def from_days(days: Columns, resolution: Resolution, *, open_every_day: bool) -> Columns:
    """Return bars of days, weeks or months built from daily ones.

    Args:
        days: daily bars, all of them from the series' beginning.
        resolution: not intraday.
        open_every_day: the market has no holidays, so a day's number in the year is its calendar
            number; otherwise it is counted among the days of the year that have a bar.
    """
    count, unit = resolution.count, resolution.unit
    if not len(days) or (count == 1 and unit is Unit.DAY):
        return days
    dates = days.time.astype("datetime64[s]")
    years = dates.astype("datetime64[Y]").astype(np.int64)
    match unit:
        case Unit.WEEK:
            keys = (days.time // DAY_SECONDS + MONDAY_OFFSET_DAYS) // 7 // count
        case Unit.MONTH:
            months = dates.astype("datetime64[M]").astype(np.int64)
            keys = years * 12 + months % 12 // count
        case _:
            keys = years * 1_000 + _day_numbers(dates, years, open_every_day) // count
    return merge(days, keys, days.time)


def merge(bars: Columns, keys: Ints, times: Ints) -> Columns:
    """Return one bar per run of equal keys, timed by the run's first ``times``."""
    starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
    ends = np.append(starts[1:], len(keys)) - 1
    return Columns(
        time=times[starts],
        open=bars.open[starts],
        high=np.maximum.reduceat(bars.high, starts),
        low=np.minimum.reduceat(bars.low, starts),
        close=bars.close[ends],
        volume=np.add.reduceat(bars.volume, starts),
    )


def _day_numbers(dates: "np.typing.NDArray[np.datetime64]", years: Ints, calendar: bool) -> Ints:
    """Return each day's number within its year, from 0."""
    if calendar:
        first = dates.astype("datetime64[Y]").astype("datetime64[D]")
        days: Ints = (dates.astype("datetime64[D]") - first).astype(np.int64)
        return days
    firsts = np.flatnonzero(np.diff(years, prepend=years[0] - 1))
    lengths = np.diff(np.append(firsts, len(years)))
    numbers: Ints = np.arange(len(years), dtype=np.int64) - np.repeat(firsts, lengths)
    return numbers


def _utc_offset(time_zone: str, time: int) -> int:
    offset = datetime.fromtimestamp(time, UTC).astimezone(ZoneInfo(time_zone)).utcoffset()
    assert offset is not None, "an aware instant has an offset"
    return int(offset.total_seconds())
