"""Trading hours in the chart's notation: ``24x7``, ``0930-1600``, ``1700-1700:23456``."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

_DAY_MINUTES = 24 * 60
_RANGES = re.compile(r"(?P<ranges>\d{4}-\d{4}(?:,\d{4}-\d{4})*)(?::(?P<days>[1-7]+))?\Z", re.ASCII)
_WEEKDAYS = "23456"
"""Where no days are named; 1 is Sunday."""


@dataclass(frozen=True, slots=True)
class TradingHours:
    """Minutes of the local week in which a market trades, Sunday 00:00 first, end exclusive."""

    time_zone: str
    ranges: tuple[tuple[int, int], ...]

    def is_open(self, at: datetime) -> bool:
        """Tell whether the market trades at an instant."""
        if not self.ranges:
            return True
        local = at.astimezone(ZoneInfo(self.time_zone))
        minute = local.isoweekday() % 7 * _DAY_MINUTES + local.hour * 60 + local.minute
        # What begins on Saturday evening runs over the week's end.
        week = 7 * _DAY_MINUTES
        return any(
            begin <= minute < end or begin <= minute + week < end for begin, end in self.ranges
        )


@lru_cache(maxsize=256)
def parse_hours(notation: str, time_zone: str) -> TradingHours:
    """Return the hours of a notation; a range that ends before it begins started the day before.

    Raises:
        ValueError: the notation is not understood.
    """
    if notation == "24x7":
        return TradingHours(time_zone, ())
    ranges: list[tuple[int, int]] = []
    for part in notation.split("|"):
        found = _RANGES.match(part)
        if found is None:
            raise ValueError(f"not trading hours: {notation!r}")
        for text in found["ranges"].split(","):
            begin, end = (int(each[:2]) * 60 + int(each[2:]) for each in text.split("-"))
            for day in found["days"] or _WEEKDAYS:
                midnight = (int(day) - 1) * _DAY_MINUTES
                if begin < end:
                    ranges.append((midnight + begin, midnight + end))
                else:
                    started = (midnight - _DAY_MINUTES + begin) % (7 * _DAY_MINUTES)
                    ranges.append((started, started + end + _DAY_MINUTES - begin))
    return TradingHours(time_zone, tuple(ranges))
