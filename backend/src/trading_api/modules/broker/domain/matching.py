"""What a quote does to an order: a pure function, so that the same quotes give the same fills."""

from dataclasses import dataclass
from enum import StrEnum

from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.order import Order, OrderSide


class Liquidity(StrEnum):
    """Whether a fill took what was there or had been waiting for it."""

    TAKER = "TAKER"
    MAKER = "MAKER"


@dataclass(frozen=True, slots=True)
class Match:
    """What happens to an order on one quote.

    Attributes:
        triggers: a stop has now seen its trigger price.
        price: raw price at which it fills; None where it doesn't.
    """

    triggers: bool = False
    price: int | None = None


def touch(side: OrderSide, quote: Quote) -> int:
    """Return the price that an order of that side trades at: buys on the ask, sells on the bid."""
    return quote.ask if side is OrderSide.BUY else quote.bid


def match(order: Order, quote: Quote) -> Match:
    """Decide what a fresh quote does to an open order.

    Market orders fill at the opposite side; limits fill there too when that is at their price or
    better; stops trigger when it has reached their trigger price, and then are a market or limit
    order on the same quote. Sizes are without limit on this venue.
    """
    assert order.price_scale == quote.price_scale, "an order and its quotes share a scale"
    price, sign = touch(order.side, quote), order.side.sign
    triggers = False
    if order.is_waiting_for_trigger:
        assert order.trigger_price is not None
        triggers = sign * (price - order.trigger_price) >= 0
        if not triggers:
            return Match()
    if order.limit_price is not None and sign * (order.limit_price - price) < 0:
        return Match(triggers)
    return Match(triggers, price)
