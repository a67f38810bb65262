"""Lengths of bars, in the chart's spelling: ``15S``, ``1``, ``60``, ``1D``, ``1W``, ``1M``."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from trading_api.kernel.errors import FieldError
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError


class Unit(Enum):
    """What a resolution counts; the value is its letter on the wire."""

    SECOND = "S"
    MINUTE = ""
    DAY = "D"
    WEEK = "W"
    MONTH = "M"


COUNT_MAX = {Unit.SECOND: 59, Unit.MINUTE: 1440, Unit.DAY: 366, Unit.WEEK: 52, Unit.MONTH: 12}
"""Longest bars: less than a minute of seconds, a day of minutes and a year of anything else."""

_SPELLING = re.compile(r"([0-9]{1,4})?([SHDWM]?)", re.ASCII)
_HOUR_SECONDS = 3_600


@dataclass(frozen=True, slots=True)
class Resolution:
    """``count`` seconds, minutes, days, weeks or months."""

    count: int
    unit: Unit

    def __str__(self) -> str:
        return f"{self.count}{self.unit.value}"

    @property
    def is_intraday(self) -> bool:
        """Whether bars are shorter than the trading day."""
        return self.unit in (Unit.SECOND, Unit.MINUTE)

    @property
    def seconds(self) -> int:
        """Length of an intraday bar, seconds."""
        assert self.is_intraday, "longer bars have no length of their own"
        return self.count if self.unit is Unit.SECOND else self.count * 60


@lru_cache(maxsize=1024)
def parse_resolution(text: str) -> Resolution:
    """Return the resolution that a client wrote, in any case and with or without a leading 1.

    ``D`` is ``1D``, ``1h`` is ``60``, ``60S`` is ``1``; ``1m`` is a month, as TradingView's own
    server has it. Seconds must divide an hour, so that their bars start anew with each.

    Raises:
        ResolutionUnsupportedError: not a resolution, or too long.
    """
    match = _SPELLING.fullmatch(text.upper()) if text else None
    if match is None:
        raise _unsupported(text)
    count, letter = int(match[1] or 1), match[2]
    if letter == "H":
        count, letter = count * 60, ""
    if letter == "S" and count and count % 60 == 0:
        count, letter = count // 60, ""
    unit = Unit(letter)
    if not 1 <= count <= COUNT_MAX[unit]:
        raise _unsupported(text)
    if unit is Unit.SECOND and _HOUR_SECONDS % count:
        raise _unsupported(text)
    return Resolution(count, unit)


def _unsupported(text: str) -> ResolutionUnsupportedError:
    message = (
        "a resolution is minutes such as 1 or 60, or seconds, days, weeks, months: 15S, 1D, 1W, 1M"
    )
    return ResolutionUnsupportedError(
        message,
        errors=[FieldError("resolution", "resolution", message)],
        resolution=text[:16].encode("ascii", "replace").decode(),
    )
