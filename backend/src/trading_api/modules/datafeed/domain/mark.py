"""Marks on a chart: what a user did, and what happened to an instrument."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from trading_api.modules.datafeed.domain.demo import Split
from trading_api.modules.datafeed.domain.instrument import Dividend

MARKS_PER_BAR_MAX = 10
"""A chart shows about so many on one bar; the newest are kept."""


@dataclass(frozen=True, slots=True)
class OwnExecution:
    """One fill of the user who looks at the chart.

    Attributes:
        id: the execution's.
        at: when it happened, UTC.
        is_buy: bought, else sold.
        quantity: positive.
        price: per unit.
        is_closing: it reduced or closed a position.
    """

    id: str
    at: datetime
    is_buy: bool
    quantity: Decimal
    price: Decimal
    is_closing: bool


@dataclass(frozen=True, slots=True)
class ExecutionMark:
    """An execution at the bar that it belongs to.

    Attributes:
        bar_time: start of that bar, seconds: a chart drops marks that hit no bar.
    """

    bar_time: int
    execution: OwnExecution


@dataclass(frozen=True, slots=True)
class SplitMark:
    """A split under the time scale.

    Attributes:
        bar_time: start of the bar it belongs to, seconds.
    """

    bar_time: int
    split: Split
    kind: Literal["split"] = "split"


@dataclass(frozen=True, slots=True)
class DividendMark:
    """A dividend under the time scale.

    Attributes:
        bar_time: start of the bar it belongs to, seconds.
        currency: of its amount.
    """

    bar_time: int
    dividend: Dividend
    currency: str
    kind: Literal["dividend"] = "dividend"


EventMark = SplitMark | DividendMark
"""What is shown under the time scale."""


def place_executions(
    executions: Sequence[OwnExecution], bar_times: Sequence[int]
) -> list[ExecutionMark]:
    """Put each execution on the last bar that starts at or before it; earlier ones are left out.

    Args:
        bar_times: starts of bars, ascending, seconds.

    Returns:
        In the order of bars, within one by time, at most ``MARKS_PER_BAR_MAX`` each.
    """
    by_bar: dict[int, list[OwnExecution]] = {}
    for execution in sorted(executions, key=lambda each: (each.at, each.id)):
        bar_time = _bar_at(bar_times, int(execution.at.timestamp()))
        if bar_time is not None:
            by_bar.setdefault(bar_time, []).append(execution)
    return [
        ExecutionMark(bar_time, execution)
        for bar_time, found in sorted(by_bar.items())
        for execution in found[-MARKS_PER_BAR_MAX:]
    ]


def place_splits(
    splits: Sequence[Split], bar_times: Sequence[int], *, intraday: bool
) -> list[SplitMark]:
    """Put each split on the bar of its first day at the new price; see ``_bar_of_day``."""
    placed = ((_bar_of_day(bar_times, split.time, intraday=intraday), split) for split in splits)
    return [SplitMark(bar_time, split) for bar_time, split in placed if bar_time is not None]


def place_dividends(
    dividends: Sequence[Dividend], currency: str, bar_times: Sequence[int], *, intraday: bool
) -> list[DividendMark]:
    """Put each dividend on the bar of its ex-date; see ``_bar_of_day``."""
    placed = ((_bar_of_day(bar_times, each.time, intraday=intraday), each) for each in dividends)
    return [
        DividendMark(bar_time, each, currency) for bar_time, each in placed if bar_time is not None
    ]


def _bar_of_day(bar_times: Sequence[int], time: int, *, intraday: bool) -> int | None:
    """Return the bar that holds a day, or the first one within it where bars are shorter.

    Args:
        time: 00:00 UTC of the day, seconds.
    """
    if not intraday:
        return _bar_at(bar_times, time)
    index = bisect_left(bar_times, time)
    return bar_times[index] if index < len(bar_times) else None


def _bar_at(bar_times: Sequence[int], time: int) -> int | None:
    index = bisect_right(bar_times, time)
    return bar_times[index - 1] if index else None
