"""Closing, turning and protecting positions, each decided under the account's lock."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from trading_api.kernel.errors import FieldError, TradingError
from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.instrument import Instrument
from trading_api.modules.broker.domain.order import (
    NO_BRACKETS,
    Order,
    OrderSide,
    OrderTicket,
    OrderType,
    TicketBrackets,
    measure_brackets,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import OrderInvalidError, PositionNotFoundError
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.counter import Counter
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.floor import Floor
from trading_api.modules.broker.service.keyed import Keyed
from trading_api.modules.broker.service.orders import Placed, text_of
from trading_api.runtime.database import Database, Idempotency, Transaction


class PositionService:
    """Closes, turns and protects what accounts hold."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        idempotency: Idempotency,
        counter: Counter,
        floor: Floor,
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._idempotency = idempotency
        self._counter = counter
        self._floor = floor

    async def close_position(
        self,
        *,
        user_id: str,
        account_id: str | None,
        position_id: str,
        quantity: Decimal | None,
        idempotency_key: str | None,
        now: datetime,
    ) -> Placed:
        """Close a position, or a part of it, by a reduce-only market order.

        Args:
            quantity: units to close; None for all of it.

        Raises:
            PositionNotFoundError: nothing is held under that id.
            ReduceOnlyError: more than what is held was named.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        symbol = await self._symbol_of(account_id, position_id)
        market = await self._counter.look_up(symbol)
        body = {
            "accountId": account_id,
            "symbol": position_id,
            "amount": None if quantity is None else text_of(quantity),
        }
        keyed = Keyed(self._idempotency, user_id, "DELETE /positions", idempotency_key, body)

        async def command(transaction: Transaction) -> Placed:
            first = await keyed.begin(transaction)
            if first is not None:
                return Placed(first["order_id"], is_replay=True)
            desk = await self._counter.open_desk(transaction, account_id, now)
            position = _get_held(desk, position_id)
            order = await self._counter.accept(
                desk, _closing_ticket(position, quantity), market, body=body
            )
            await desk.close()
            await keyed.finish(transaction, {"order_id": order.order_id})
            return Placed(order.order_id, is_replay=False)

        return await self._database.group(command, key=account_id)

    async def reverse_position(
        self,
        *,
        user_id: str,
        account_id: str | None,
        position_id: str,
        idempotency_key: str | None,
        now: datetime,
    ) -> Placed:
        """Turn a position into one of equal size on the other side, at the market.

        Under netting one order of twice the size; under hedging one that closes and one that
        opens, of which the latter is returned. Its brackets are canceled.

        Raises:
            PositionNotFoundError: nothing is held under that id.
            InsufficientMarginError: the account can't carry the other side.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        symbol = await self._symbol_of(account_id, position_id)
        market = await self._counter.look_up(symbol)
        body: Mapping[str, Any] = {"accountId": account_id, "symbol": position_id}
        keyed = Keyed(self._idempotency, user_id, "POST /positions/reverse", idempotency_key, body)

        async def command(transaction: Transaction) -> Placed:
            first = await keyed.begin(transaction)
            if first is not None:
                return Placed(first["order_id"], is_replay=True)
            desk = await self._counter.open_desk(transaction, account_id, now)
            position = _get_held(desk, position_id)
            order = await self._reverse(
                desk, position, market, body=body, brackets=TicketBrackets()
            )
            await desk.close()
            await keyed.finish(transaction, {"order_id": order.order_id})
            return Placed(order.order_id, is_replay=False)

        return await self._database.group(command, key=account_id)

    async def set_brackets(
        self,
        *,
        user_id: str,
        account_id: str | None,
        position_id: str,
        wanted: TicketBrackets,
        now: datetime,
    ) -> Position:
        """Protect a position with exactly these legs; those not named are canceled. Idempotent.

        Raises:
            PositionNotFoundError: nothing is held under that id.
            OrderInvalidError: a price is no price, or on the wrong side of the market.
            MarketUnavailableError: there is no quote to hold the prices against.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        symbol = await self._symbol_of(account_id, position_id)
        market = await self._counter.look_up(symbol)

        async def command(transaction: Transaction) -> Position:
            desk = await self._counter.open_desk(transaction, account_id, now)
            position = await self._protect(desk, _get_held(desk, position_id), wanted, market)
            await desk.close()
            return position

        return await self._database.group(command, key=account_id)

    async def change_position(
        self,
        *,
        user_id: str,
        account_id: str | None,
        position_id: str,
        side: OrderSide,
        wanted: TicketBrackets,
        now: datetime,
    ) -> None:
        """Have a position on a side, protected by exactly these legs. Idempotent.

        One that is on the other side is reversed at the market, and what it opens there gets the
        legs; while an earlier reversal is still being filled nothing changes.

        Raises:
            PositionNotFoundError: nothing is held under that id.
            OrderInvalidError: a price is no price, or on the wrong side of the market.
            InsufficientMarginError: the account can't carry the other side.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        symbol = await self._symbol_of(account_id, position_id)
        market = await self._counter.look_up(symbol)
        body: Mapping[str, Any] = {
            "accountId": account_id,
            "symbol": position_id,
            "side": side.value,
        }

        async def command(transaction: Transaction) -> None:
            desk = await self._counter.open_desk(transaction, account_id, now)
            position = _get_held(desk, position_id)
            await desk.load_orders(symbol)
            if position.side is side:
                await self._protect(desk, position, wanted, market)
            elif not _is_turning(desk, position):
                await self._reverse(desk, position, market, body=body, brackets=wanted)
            await desk.close()

        await self._database.group(command, key=account_id)

    async def _reverse(
        self,
        desk: Desk,
        position: Position,
        market: Instrument | TradingError,
        *,
        body: Mapping[str, Any],
        brackets: TicketBrackets,
    ) -> Order:
        """Turn a position and return the order that opens the other side, with these legs."""
        closing = _closing_ticket(position, None)
        opening = replace(closing, reduce_only=False, brackets=brackets)
        if desk.is_hedging:
            await self._counter.accept(desk, closing, market, body=body)
            opening = replace(opening, position_id=None)
        else:
            opening = replace(opening, quantity=2 * closing.quantity)
        return await self._counter.accept(desk, opening, market, body=body)

    async def _protect(
        self,
        desk: Desk,
        position: Position,
        wanted: TicketBrackets,
        market: Instrument | TradingError,
    ) -> Position:
        """Give a position exactly these legs and return it."""
        brackets = NO_BRACKETS
        instrument, quote = self._counter.ensure_tradable(market, desk)
        if not wanted.is_empty:
            touch = quote.touch(position.closing_side)
            errors: list[FieldError] = []
            brackets = measure_brackets(
                wanted, instrument, position.side, above=touch, below=touch, errors=errors
            )
            if errors:
                raise OrderInvalidError(
                    "; ".join(f"{each.field}: {each.message}" for each in errors), errors=errors
                )
        await desk.load_orders(position.symbol)
        return await self._floor.set_position_brackets(desk, position, brackets, quote)

    async def _symbol_of(self, account_id: str, position_id: str) -> str:
        async with self._database.snapshot() as snapshot:
            found = await self._books.repository.find_position(snapshot, account_id, position_id)
        # Whether it is still held is decided under the lock; a repeat needs no position at all.
        return position_id if found is None else found.symbol


def _get_held(desk: Desk, position_id: str) -> Position:
    position = desk.positions.get(position_id)
    if position is None or position.is_flat:
        raise PositionNotFoundError("there is no open position of that id")
    return position


def _is_turning(desk: Desk, position: Position) -> bool:
    """Tell whether market orders that still fill put the position on the other side."""
    pending = sum(
        each.leaves_quantity
        for each in desk.list_orders(position.symbol)
        if each.is_open
        and each.type is OrderType.MARKET
        and each.side is position.closing_side
        and each.position_id == position.position_id
    )
    # Under hedging the other side is another position.
    return pending >= abs(position.signed_quantity) + (0 if desk.is_hedging else 1)


def _closing_ticket(position: Position, quantity: Decimal | None) -> OrderTicket:
    held = decimal_of(abs(position.signed_quantity), position.terms.quantity_scale)
    return OrderTicket(
        symbol=position.symbol,
        side=position.closing_side,
        type=OrderType.MARKET,
        quantity=held if quantity is None else quantity,
        reduce_only=True,
        position_id=position.own_id,
    )
