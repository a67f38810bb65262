"""What a quote does to an order: a pure function, so that the same quotes give the same fills."""

from dataclasses import dataclass
from enum import StrEnum

from trading_api.modules.broker.domain.instrument import PPM, OrderSide, Quote
from trading_api.modules.broker.domain.order import Order, TimeInForce


class Liquidity(StrEnum):
    """Whether a fill took what was there or had been waiting for it."""

    TAKER = "TAKER"
    MAKER = "MAKER"


@dataclass(frozen=True, slots=True)
class Depth:
    """What one order may take on one quote, and what that costs.

    Attributes:
        quantity_max: raw units, at least one step; None where sizes are without limit.
        impact_ppm: how much worse the price gets for the whole of it, parts per million; smaller
            sizes pay their share, rounded down to whole ticks.
        tick: smallest step of a price, raw.
    """

    quantity_max: int | None = None
    impact_ppm: int = 0
    tick: int = 1

    def compute_slippage(self, quantity: int, price: int) -> int:
        """Return how much worse a size fills than the quote, raw and unsigned."""
        if not self.quantity_max:
            return 0
        exact = price * self.impact_ppm * quantity // (PPM * self.quantity_max)
        return exact // self.tick * self.tick


UNLIMITED = Depth()
"""Whatever the size, at the quote."""


@dataclass(frozen=True, slots=True)
class Match:
    """What happens to an order on one quote.

    Attributes:
        triggers: a stop has now seen its trigger price.
        price: raw price at which it fills; None where it doesn't.
        quantity: of it, how much fills, raw; 0 where nothing does.
        slippage: how much worse than the quote that price is, raw.
        liquidity: of the fill.
        trails_to: a trailing stop's better trigger price, raw; None where it stays.
    """

    triggers: bool = False
    price: int | None = None
    quantity: int = 0
    slippage: int = 0
    liquidity: Liquidity = Liquidity.TAKER
    trails_to: int | None = None


def match(order: Order, quote: Quote, depth: Depth = UNLIMITED, *, is_new: bool = False) -> Match:
    """Decide what a fresh quote does to an open order.

    Market orders fill at the opposite side; limits fill there too when that is at their price or
    better; stops trigger when it has reached their trigger price, and then are a market or limit
    order on the same quote. Sizes beyond the depth fill in part; those that take pay for their
    size, but never beyond their limit.

    Args:
        is_new: whether the order has just been accepted, so that it takes.
    """
    assert order.price_scale == quote.price_scale, "an order and its quotes share a scale"
    price, sign = quote.touch(order.side), order.side.sign
    triggers = False
    if order.is_waiting_for_trigger:
        assert order.trigger_price is not None
        triggers = sign * (price - order.trigger_price) >= 0
        if not triggers:
            return Match(trails_to=_trail(order, price))
    if order.limit_price is not None and sign * (order.limit_price - price) < 0:
        return Match(triggers)
    quantity = order.leaves_quantity
    if depth.quantity_max is not None:
        quantity = min(quantity, depth.quantity_max)
    if order.time_in_force is TimeInForce.FOK and quantity < order.leaves_quantity:
        return Match(triggers)
    takes = is_new or triggers or order.limit_price is None
    slippage = 0
    if takes:
        slippage = min(depth.compute_slippage(quantity, price), _room(order, price, depth.tick))
    return Match(
        triggers=triggers,
        price=price + sign * slippage,
        quantity=quantity,
        slippage=slippage,
        liquidity=Liquidity.TAKER if takes else Liquidity.MAKER,
    )


def takes_at_once(order: Order, quote: Quote) -> bool:
    """Tell whether a new order would fill on a quote rather than rest."""
    return not order.type.has_trigger and match(order, quote, is_new=True).price is not None


def _room(order: Order, price: int, tick: int) -> int:
    # A limit stops the slide; a sell's price stays above zero.
    if order.limit_price is not None:
        return order.side.sign * (order.limit_price - price)
    return price - tick if order.side is OrderSide.SELL else price


def _trail(order: Order, price: int) -> int | None:
    if order.trailing is None:
        return None
    assert order.trigger_price is not None
    trigger = order.trailing.compute_trigger(order.side, price)
    return trigger if order.side.sign * (order.trigger_price - trigger) > 0 else None
