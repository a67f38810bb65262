"""How an account did: its equity over time, growth without its deposits, drawdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from trading_api.modules.broker.domain.account import Valuation

_ONE = Decimal(1)
_PLACES = Decimal("0.00000001")


@dataclass(frozen=True, slots=True)
class EquityPoint:
    """An account at one instant, minor units of its currency.

    Attributes:
        at: UTC.
        equity_minor: cash and open results.
        flows_minor: of the cash what was not earned or lost by trading: opening, transfers, resets.
        margin_minor: what its positions needed.
        exposure_minor: value of all positions, each without its sign.
        sequence: number of the account's newest event then.
    """

    at: datetime
    cash_minor: int
    equity_minor: int
    flows_minor: int
    margin_minor: int
    exposure_minor: int
    sequence: int


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point with what it means for who was in from the first one.

    Attributes:
        growth: what one unit became, deposits and withdrawals left out.
        drawdown: how far below the best growth so far, 0 to 1.
    """

    point: EquityPoint
    growth: Decimal
    drawdown: Decimal


@dataclass(frozen=True, slots=True)
class DayResult:
    """One UTC day, from the last point before it to its own last point."""

    day: date
    start_minor: int
    end_minor: int
    flows_minor: int
    growth: Decimal

    @property
    def profit_minor(self) -> int:
        """Return what trading earned that day, open results included."""
        return self.end_minor - self.start_minor - self.flows_minor


def point_of(worth: Valuation, *, exposure_minor: int, sequence: int, at: datetime) -> EquityPoint:
    """Return what a valuation says about an instant."""
    earned = worth.realized_minor - worth.commission_minor - worth.financing_minor
    return EquityPoint(
        at=at,
        cash_minor=worth.cash_minor,
        equity_minor=worth.equity_minor,
        flows_minor=worth.cash_minor - earned,
        margin_minor=worth.margin_minor,
        exposure_minor=exposure_minor,
        sequence=sequence,
    )


def compute_growth(before: EquityPoint, after: EquityPoint) -> Decimal:
    """Return what one unit became between two points; a flow counts at the end.

    Without equity at the beginning there was nothing to grow: 1. What is lost is at most all.
    """
    if before.equity_minor <= 0:
        return _ONE
    flows = after.flows_minor - before.flows_minor
    gain = after.equity_minor - before.equity_minor - flows
    return max(Decimal(0), _ONE + Decimal(gain) / Decimal(before.equity_minor))


def compute_curve(points: Sequence[EquityPoint]) -> list[CurvePoint]:
    """Return the growth since the first point and the drawdown at each one."""
    growth = best = _ONE
    found = []
    for before, point in zip([points[0], *points] if points else [], points, strict=False):
        growth *= compute_growth(before, point) if before is not point else _ONE
        best = max(best, growth)
        drawdown = (_ONE - growth / best) if best else Decimal(0)
        found.append(CurvePoint(point, growth.quantize(_PLACES), drawdown.quantize(_PLACES)))
    return found


def compute_days(points: Sequence[EquityPoint]) -> list[DayResult]:
    """Return the days that have points, oldest first; the first begins with its first point."""
    last_of: dict[date, EquityPoint] = {}
    for point in points:
        last_of[point.at.astimezone(UTC).date()] = point
    found, before = [], points[0] if points else None
    for day, end in last_of.items():
        assert before is not None, "there are points"
        found.append(
            DayResult(
                day=day,
                start_minor=before.equity_minor,
                end_minor=end.equity_minor,
                flows_minor=end.flows_minor - before.flows_minor,
                growth=compute_growth(before, end).quantize(_PLACES),
            )
        )
        before = end
    return found


def thin(points: Iterable[CurvePoint], count: int) -> list[CurvePoint]:
    """Return at most so many of them, evenly by number, the first and the last among them."""
    found = list(points)
    if len(found) <= count:
        return found
    step = (len(found) - 1) / (count - 1)
    return [found[round(each * step)] for each in range(count)]
