"""Margin levels: when an account is warned, when it is safe again, when the house steps in."""

from collections.abc import Iterable, Mapping

from trading_api.modules.broker.domain.account import Valuation
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.position import Position

MARGIN_CALL_PERCENT = 100
"""At or below this level an account is warned, once."""

REARM_PERCENT = 120
"""At or above this level it is safe again, and the next call warns anew."""

STOP_OUT_PERCENT = 50
"""At or below this level the house cancels orders and closes positions until it is above."""


def is_at_most(worth: Valuation, percent: int) -> bool:
    """Tell whether equity is at most that part of the margin of what is held; exact."""
    return worth.margin_minor > 0 and worth.equity_minor * 100 <= worth.margin_minor * percent


def compute_level(worth: Valuation) -> int | None:
    """Return equity in hundredths of a percent of margin, rounded down; None without margin."""
    if worth.margin_minor == 0:
        return None
    return worth.equity_minor * 10_000 // worth.margin_minor


def is_due(worth: Valuation, *, is_called: bool) -> bool:
    """Tell whether an account's worth asks for a call, its end or a stop-out."""
    if is_at_most(worth, STOP_OUT_PERCENT):
        return True
    if is_called:
        return is_restored(worth)
    return is_at_most(worth, MARGIN_CALL_PERCENT)


def is_restored(worth: Valuation) -> bool:
    """Tell whether a called account is safe again."""
    return worth.equity_minor * 100 >= worth.margin_minor * REARM_PERCENT


def worst_of(positions: Iterable[Position], quotes: Mapping[str, Quote]) -> Position | None:
    """Return what is closed first: the largest loss, of equals the smallest id.

    Args:
        quotes: the fresh ones; what has none waits.
    """
    closable = [each for each in positions if not each.is_flat and each.symbol in quotes]
    return min(
        closable,
        key=lambda each: (
            each.at(quotes).compute_unrealized(each.mark(quotes[each.symbol])),
            each.symbol,
        ),
        default=None,
    )
