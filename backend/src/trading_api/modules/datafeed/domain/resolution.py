"""Lengths of bars, in the chart's spelling: ``1``, ``60``, ``1D``, ``1W``, ``1M``."""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from trading_api.kernel.errors import FieldError
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError


class Unit(Enum):
    """What a resolution counts; the value is its letter on the wire."""

    MINUTE = ""
    DAY = "D"
    WEEK = "W"
    MONTH = "M"


COUNT_MAX = {Unit.MINUTE: 1440, Unit.DAY: 366, Unit.WEEK: 52, Unit.MONTH: 12}
"""Longest bars: a day of minutes and a year of anything else."""

_SPELLING = re.compile(r"([0-9]{1,4})?([HDWM]?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Resolution:
    """``count`` minutes, days, weeks or months."""

    count: int
    unit: Unit

    def __str__(self) -> str:
        return f"{self.count}{self.unit.value}"

    @property
    def is_intraday(self) -> bool:
        """Whether bars are shorter than the trading day."""
        return self.unit is Unit.MINUTE


@lru_cache(maxsize=1024)
def parse_resolution(text: str) -> Resolution:
    """Return the resolution that a client wrote, in any case and with or without a leading 1.

    ``D`` is ``1D``, ``1h`` is ``60``; ``1m`` is a month, as TradingView's own server has it.

    Raises:
        ResolutionUnsupportedError: not a resolution, or too long.
    """
    match = _SPELLING.fullmatch(text.upper()) if text else None
    if match is None:
        raise _unsupported(text)
    count, letter = int(match[1] or 1), match[2]
    if letter == "H":
        count, letter = count * 60, ""
    unit = Unit(letter)
    if not 1 <= count <= COUNT_MAX[unit]:
        raise _unsupported(text)
    return Resolution(count, unit)


def _unsupported(text: str) -> ResolutionUnsupportedError:
    message = "a resolution is minutes such as 1 or 60, or days, weeks, months: 1D, 1W, 1M"
    return ResolutionUnsupportedError(
        message,
        errors=[FieldError("resolution", "resolution", message)],
        resolution=text[:16].encode("ascii", "replace").decode(),
    )
