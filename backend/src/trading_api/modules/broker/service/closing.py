"""What the house does to an account by itself: cancels its orders, closes its positions."""

import json
from collections.abc import Iterable

from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.matching import Liquidity, touch
from trading_api.modules.broker.domain.order import CloseReason, Order, OrderType, TimeInForce
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.service.desk import Desk


async def cancel_orders(desk: Desk, orders: Iterable[Order], reason: CloseReason) -> list[Order]:
    """Cancel orders of a locked account, each with its event, and free what they reserved.

    Args:
        orders: open ones or held legs, of any instrument.
    """
    canceled = []
    for order in orders:
        changed = order.cancel(reason, desk.now)
        await desk.books.repository.save_order(desk.transaction, changed)
        await desk.tell_order(changed)
        canceled.append(changed)
    await reserve_anew(desk, {each.symbol for each in canceled})
    return canceled


async def close_position(
    desk: Desk, position: Position, quote: Quote, *, cause: CloseReason
) -> Order:
    """Close a position at the touch of a fresh quote; orders that only served it are canceled.

    The closing order is the account's own, so that it shows wherever orders and fills show.

    Args:
        quote: of the position's instrument, fresh.
        cause: why the house closes it; kept with the order.
    """
    assert quote.is_fresh(desk.now), "nothing fills on a stale quote"
    repository, transaction = desk.books.repository, desk.transaction
    side, terms = position.closing_side, position.terms
    price, quantity = touch(side, quote), abs(position.signed_quantity)
    order = Order(
        order_id=desk.books.ids.new("ord"),
        account_id=desk.account.account_id,
        client_order_id=None,
        symbol=position.symbol,
        side=side,
        type=OrderType.MARKET,
        time_in_force=TimeInForce.IOC,
        reduce_only=True,
        price_scale=terms.price_scale,
        quantity_scale=terms.quantity_scale,
        quantity=quantity,
        limit_price=None,
        trigger_price=None,
        expires_at=None,
        reserve_price=price,
        quote_sequence=quote.sequence,
        accepted_at=desk.now,
        updated_at=desk.now,
    ).accept()
    await desk.tell_order(order)
    order = await desk.fill(
        order, quantity=quantity, price=price, liquidity=Liquidity.TAKER, quote=quote
    )
    await repository.add_order(transaction, order, ticket=json.dumps({"cause": cause.value}))
    live = await repository.list_live_orders(transaction, order.account_id, symbol=order.symbol)
    await cancel_orders(
        desk, [each for each in live if each.reduce_only], CloseReason.NOTHING_TO_REDUCE
    )
    await reserve_anew(desk, {order.symbol})
    return order


async def reserve_anew(desk: Desk, symbols: Iterable[str]) -> None:
    """Set what the open orders of some instruments reserve."""
    for symbol in sorted(symbols):
        if symbol in desk.positions:
            desk.reserve(
                symbol,
                await desk.books.repository.list_open_orders(
                    desk.transaction, desk.account.account_id, symbol=symbol
                ),
            )
