"""What the house does to an account by itself: cancels its orders, closes its positions."""

import json
from collections.abc import Iterable

from trading_api.modules.broker.domain.bracket import after_close
from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.matching import Liquidity
from trading_api.modules.broker.domain.order import CloseReason, Order, OrderType, TimeInForce
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.ports import InstrumentSource
from trading_api.modules.broker.service.desk import Desk


async def find_instruments(
    source: InstrumentSource, symbols: Iterable[str]
) -> dict[str, Instrument]:
    """Return the instruments of these symbols that there are; not within a transaction.

    Raises:
        MarketUnavailableError: the market can't be asked and the answer isn't known.
    """
    found = {symbol: await source.find(symbol) for symbol in sorted(set(symbols))}
    return {symbol: each for symbol, each in found.items() if each is not None}


async def cancel_orders(desk: Desk, orders: Iterable[Order], reason: CloseReason) -> list[Order]:
    """Cancel orders of a locked account, each with its event; what they reserved is free.

    The legs that an entry holds go with it.

    Args:
        orders: open ones or held legs, of any instrument.
    """
    canceled = []
    for each in orders:
        await desk.load_orders(each.symbol)
        order = desk.orders.get(each.order_id)
        if order is None:
            # It went with its entry.
            continue
        canceled.append(order.cancel(reason, desk.now))
        await desk.tell_order(canceled[-1])
        for leg in after_close(canceled[-1], live=desk.list_orders(order.symbol), now=desk.now):
            canceled.append(leg)
            await desk.tell_order(leg)
    return canceled


async def close_position(
    desk: Desk, position: Position, quote: Quote, *, cause: CloseReason
) -> Order:
    """Close a position at the touch of a fresh quote; orders that only served it are canceled.

    The closing order is the account's own, so that it shows wherever orders and fills show.

    Args:
        quote: of the position's instrument, fresh; the caller has seen that the venue is open.
        cause: why the house closes it; kept with the order.
    """
    assert quote.is_fresh(desk.now), "nothing fills on a stale quote"
    side, terms = position.closing_side, position.terms
    price, quantity = quote.touch(side), abs(position.signed_quantity)
    await desk.load_orders(position.symbol)
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
        position_id=position.position_id,
        ingest_sequence=desk.account.event_sequence + 1,
    ).accept()
    desk.add(order, ticket=json.dumps({"cause": cause.value}))
    await desk.tell_order(order)
    order = await desk.fill(
        order, quantity=quantity, price=price, liquidity=Liquidity.TAKER, quote=quote
    )
    left = [
        each
        for each in desk.list_orders(order.symbol)
        if each.reduce_only and each.position_id == position.position_id and each.is_open
    ]
    await cancel_orders(desk, left, CloseReason.NOTHING_TO_REDUCE)
    return order
