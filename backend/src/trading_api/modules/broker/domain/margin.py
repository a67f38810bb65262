"""What open orders reserve, and at which prices (rules of margin)."""

from collections.abc import Sequence

from trading_api.modules.broker.domain.instrument import PPM, VALUE_RAW_MAX, Quote
from trading_api.modules.broker.domain.order import Order, OrderSide, OrderType
from trading_api.modules.broker.domain.position import Position


def compute_reserve_price(
    *,
    type_: OrderType,
    limit_price: int | None,
    trigger_price: int | None,
    quote: Quote,
    slippage_cap_ppm: int,
) -> int:
    """Return the raw price to reserve margin at (rules of margin, B).

    A limit reserves at the dearer of limit and market; a market or stop order at the dearer of
    its reference and the ask, and the slippage cap on top, rounded up.
    """
    if type_.has_limit:
        assert limit_price is not None
        return max(limit_price, quote.ask)
    reference = max(trigger_price or 0, quote.ask)
    return -(-reference * (PPM + slippage_cap_ppm) // PPM)


def compute_reservation(position: Position, orders: Sequence[Order]) -> int:
    """Return what the open orders of one instrument reserve, in minor units (rules of margin, B).

    The worse of "all buys fill" and "all sells fill" counts, and of it only what goes beyond the
    size already held: so many units at the prices of that side's dearest orders, as margin, and
    their commission. Orders that open a position of their own (hedging) all count. Orders that
    only close reserve nothing.
    """
    own = [each for each in orders if each.position_id != position.position_id]
    if own:
        netted = [each for each in orders if each.position_id == position.position_id]
        return compute_reservation(position, netted) + sum(
            position.terms.compute_margin(each.leaves_quantity, each.reserve_price)
            + position.terms.compute_commission(each.leaves_quantity, each.reserve_price)
            for each in own
            if not each.reduce_only
        )
    return max(
        _reserve_side(position, [order for order in orders if order.side is side], side)
        for side in OrderSide
    )


def is_countable(position: Position, orders: Sequence[Order]) -> bool:
    """Tell whether the worst exposure stays within what integers of 63 bits can carry."""
    for side in OrderSide:
        theirs = [order for order in orders if order.side is side]
        quantity = abs(position.signed_quantity) + sum(each.leaves_quantity for each in theirs)
        price = max((each.reserve_price for each in theirs), default=position.last_price)
        value = position.terms.compute_value(quantity, price)
        if max(value, quantity * price, abs(position.cost) + value) > VALUE_RAW_MAX:
            return False
    return True


def _reserve_side(position: Position, orders: Sequence[Order], side: OrderSide) -> int:
    held = position.signed_quantity
    total = sum(order.leaves_quantity for order in orders if not order.reduce_only)
    beyond = abs(held + side.sign * total) - abs(held)
    margin = commission = 0
    for order in sorted(orders, key=lambda each: (-each.reserve_price, each.order_id)):
        if beyond <= 0:
            break
        if order.reduce_only:
            continue
        quantity = min(beyond, order.leaves_quantity)
        margin += position.terms.compute_margin(quantity, order.reserve_price)
        commission += position.terms.compute_commission(quantity, order.reserve_price)
        beyond -= quantity
    return margin + commission
