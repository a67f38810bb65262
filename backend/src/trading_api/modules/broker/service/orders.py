"""Placing, changing and canceling orders, each decided under the account's lock."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from trading_api.kernel.errors import FieldError, TradingError
from trading_api.kernel.values import Currency, decimal_of
from trading_api.modules.broker.domain.account import (
    Valuation,
)
from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote
from trading_api.modules.broker.domain.margin import compute_reservation, compute_reserve_price
from trading_api.modules.broker.domain.matching import Liquidity, match
from trading_api.modules.broker.domain.order import (
    CLOSED,
    CloseReason,
    Order,
    OrderStatus,
    OrderTicket,
    OrderType,
    TimeInForce,
    measure,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    ClientOrderIdReusedError,
    InstrumentNotTradableError,
    InstrumentUnknownError,
    MarketUnavailableError,
    OrderClosedError,
    OrderInvalidError,
    OrderNotFoundError,
    PositionNotFoundError,
    ReduceOnlyError,
    StaleQuoteError,
)
from trading_api.modules.broker.ports import InstrumentSource, QuoteSource
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.keyed import Keyed
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.runtime.database import Database, Idempotency, Transaction

_AT_ONCE = frozenset({TimeInForce.IOC, TimeInForce.FOK})


@dataclass(frozen=True, slots=True)
class Placed:
    """The outcome of placing an order.

    Attributes:
        is_replay: an earlier, equal request had placed it.
    """

    order_id: str
    is_replay: bool


@dataclass(frozen=True, slots=True)
class OrderChange:
    """What a client wants changed; None leaves a field as it is."""

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    trigger_price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """What an order would cost, at the newest quote.

    Attributes:
        price: raw price it is reckoned at.
        commission_minor: worst commission.
        margin_minor: margin of its whole quantity at that price.
        reservation_minor: what it would add to the account's reservations or margin.
        error: why it would be refused now; None where it would not.
    """

    instrument: Instrument
    currency: Currency
    price: int
    value_minor: int
    commission_minor: int
    margin_minor: int
    reservation_minor: int
    before: Valuation
    error: TradingError | None


class OrderService:
    """Accepts orders on paper accounts and fills at once what the newest quote allows."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        idempotency: Idempotency,
        quotes: QuoteSource,
        instruments: InstrumentSource,
        policy: Policy,
        risk: RiskGate,
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._idempotency = idempotency
        self._quotes = quotes
        self._instruments = instruments
        self._policy = policy
        self._risk = risk

    async def place_order(
        self,
        *,
        user_id: str,
        account_id: str | None,
        ticket: OrderTicket,
        client_order_id: str | None,
        idempotency_key: str | None,
        now: datetime,
    ) -> Placed:
        """Accept an order, and fill it where a fresh quote already allows.

        Order, fill, position, postings, account events and facts are one transaction. A repeat
        by key or client order id with the same ticket gives the first answer.

        Raises:
            AccountNotFoundError: not the user's account.
            OrderInvalidError: a field breaks a rule; nothing was written.
            InstrumentUnknownError, InstrumentNotTradableError: the symbol can't be traded.
            StaleQuoteError: it needs a fresh quote and there is none.
            InsufficientMarginError: the account can't carry it.
            ReduceOnlyError: there is nothing to reduce.
            IdempotencyKeyReusedError, ClientOrderIdReusedError: used for another ticket.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        market = await self._look_up(ticket.symbol)
        body = _canonical(ticket, client_order_id, account_id)
        keyed = Keyed(self._idempotency, user_id, "POST /orders", idempotency_key, body)

        async def command(transaction: Transaction) -> Placed:
            first = await keyed.begin(transaction)
            if first is not None:
                return Placed(first["order_id"], is_replay=True)
            desk = await self._open_desk(transaction, account_id, now)
            placed = await self._find_repeat(desk, client_order_id, body)
            if placed is None:
                order = await self._accept(desk, ticket, market, client_order_id, body)
                placed = Placed(order.order_id, is_replay=False)
            await keyed.finish(transaction, {"order_id": placed.order_id})
            return placed

        return await self._database.group(command)

    async def close_position(
        self,
        *,
        user_id: str,
        account_id: str | None,
        symbol: str,
        quantity: Decimal | None,
        idempotency_key: str | None,
        now: datetime,
    ) -> Placed:
        """Close a position, or a part of it, by a reduce-only market order.

        Args:
            quantity: units to close; None for all of it.

        Raises:
            PositionNotFoundError: nothing is held of that instrument.
            ReduceOnlyError: more than what is held was named.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        market = await self._look_up(symbol)
        body = {
            "accountId": account_id,
            "symbol": symbol,
            "amount": None if quantity is None else _text(quantity),
        }
        keyed = Keyed(self._idempotency, user_id, "DELETE /positions", idempotency_key, body)

        async def command(transaction: Transaction) -> Placed:
            first = await keyed.begin(transaction)
            if first is not None:
                return Placed(first["order_id"], is_replay=True)
            desk = await self._open_desk(transaction, account_id, now)
            position = desk.positions.get(symbol)
            if position is None or position.is_flat:
                raise PositionNotFoundError("there is no open position of this instrument")
            held = decimal_of(abs(position.signed_quantity), position.terms.quantity_scale)
            ticket = OrderTicket(
                symbol=symbol,
                side=position.closing_side,
                type=OrderType.MARKET,
                quantity=held if quantity is None else quantity,
                reduce_only=True,
            )
            order = await self._accept(desk, ticket, market, None, body)
            await keyed.finish(transaction, {"order_id": order.order_id})
            return Placed(order.order_id, is_replay=False)

        return await self._database.group(command)

    async def modify_order(
        self,
        *,
        user_id: str,
        account_id: str | None,
        order_id: str,
        change: OrderChange,
        now: datetime,
    ) -> Order:
        """Change an open order; it then matches on later quotes only.

        Raises:
            OrderNotFoundError: not an order of this account.
            OrderClosedError: it is closed.
            OrderInvalidError: a field breaks a rule, or the quantity isn't above what is filled.
            InsufficientMarginError: the account can't carry the changed order.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            known = await self._books.repository.find_order(snapshot, account_id, order_id)
        if known is None:
            raise OrderNotFoundError("there is no such order on this account")
        market = await self._look_up(known.symbol)

        async def command(transaction: Transaction) -> Order:
            desk = await self._open_desk(transaction, account_id, now)
            order = await self._get_open(desk, order_id, "changed")
            instrument = self._ensure_tradable(market, desk)
            quote = self._known_quote(instrument)
            changed = self._changed(order, change, instrument, quote, now)
            if replace(changed, updated_at=order.updated_at, **_advice(order)) == order:
                return order
            others = [
                each
                for each in await self._books.repository.list_open_orders(
                    transaction, account_id, symbol=order.symbol
                )
                if each.order_id != order_id
            ]
            self._risk.ensure_allowed(desk, changed, others, quote, is_new=False)
            await self._risk.ensure_carried(desk, order.symbol, [*others, changed])
            await self._books.repository.save_order(transaction, changed)
            await desk.tell_order(changed, is_modified=True)
            desk.reserve(order.symbol, [*others, changed])
            await desk.close()
            return changed

        return await self._database.group(command)

    async def cancel_order(
        self, *, user_id: str, account_id: str | None, order_id: str, now: datetime
    ) -> Order:
        """Cancel what is left of an order; a repeat finds it canceled and changes nothing.

        Raises:
            OrderNotFoundError: not an order of this account.
            OrderClosedError: it was filled, expired or rejected before.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)

        async def command(transaction: Transaction) -> Order:
            desk = await self._open_desk(transaction, account_id, now)
            repository = self._books.repository
            order = await repository.find_order(transaction, account_id, order_id)
            if order is not None and order.status is OrderStatus.CANCELED:
                return order
            order = await self._get_open(desk, order_id, "canceled")
            canceled = order.cancel(CloseReason.BY_CLIENT, now)
            await repository.save_order(transaction, canceled)
            await desk.tell_order(canceled)
            desk.reserve(
                order.symbol,
                await repository.list_open_orders(transaction, account_id, symbol=order.symbol),
            )
            await desk.close()
            return canceled

        return await self._database.group(command)

    async def preview_order(
        self, *, user_id: str, account_id: str | None, ticket: OrderTicket, now: datetime
    ) -> Preview:
        """Reckon what an order would cost and whether it would be accepted; nothing changes.

        Raises:
            OrderInvalidError: a field breaks a rule.
            InstrumentUnknownError, InstrumentNotTradableError: the symbol can't be traded.
            MarketUnavailableError: there is no quote to reckon with.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        market = await self._look_up(ticket.symbol)
        async with self._database.snapshot() as snapshot:
            account = await self._books.repository.find_account(snapshot, account_id)
            assert account is not None, "accounts are never deleted"
            found = await self._books.repository.list_positions(snapshot, account_id)
            desk = Desk(self._books, snapshot, account, now, {each.symbol: each for each in found})
            open_orders = await self._books.repository.list_open_orders(
                snapshot, account_id, symbol=ticket.symbol
            )
            before = await self._risk.value(desk)
            instrument = self._ensure_tradable(market, desk)
            quote = self._known_quote(instrument)
            order = self._drafted(desk, ticket, instrument, quote, None)
            position = self._risk.position_of(desk, instrument)
            error: TradingError | None = None
            try:
                self._ensure_fresh(order, quote, now)
                _ensure_reduces(order, position, open_orders)
                self._risk.ensure_allowed(desk, order, open_orders, quote, is_new=True)
                await self._risk.ensure_carried(desk, order.symbol, [*open_orders, order])
            except TradingError as refusal:
                error = refusal
        added = compute_reservation(position, [*open_orders, order]) - position.reserved_minor
        terms, price = position.terms, order.reserve_price
        return Preview(
            instrument=instrument,
            currency=terms.currency,
            price=price,
            value_minor=terms.to_minor(terms.compute_value(order.quantity, price)),
            commission_minor=terms.compute_commission(order.quantity, price),
            margin_minor=terms.compute_margin(order.quantity, price),
            reservation_minor=max(0, added),
            before=before,
            error=error,
        )

    async def _look_up(self, symbol: str) -> Instrument | TradingError:
        # An error is raised later, after repeats were answered: those need no market.
        try:
            found = await self._instruments.find(symbol)
        except MarketUnavailableError as error:
            return error
        if found is None:
            return InstrumentUnknownError(
                "there is no such instrument",
                errors=[FieldError("symbol", "unknown", "names no instrument")],
            )
        await self._quotes.refresh([symbol])
        return found

    async def _open_desk(self, transaction: Transaction, account_id: str, now: datetime) -> Desk:
        desk = await Desk.open(self._books, transaction, account_id, now)
        if desk is None:
            raise AccountNotFoundError("there is no such trading account")
        return desk

    async def _find_repeat(
        self, desk: Desk, client_order_id: str | None, body: Mapping[str, Any]
    ) -> Placed | None:
        if client_order_id is None:
            return None
        found = await self._books.repository.find_order_by_client_id(
            desk.transaction, desk.account.account_id, client_order_id
        )
        if found is None:
            return None
        order, ticket = found
        first = json.loads(ticket)
        differing = sorted(name for name in {*first, *body} if first.get(name) != body.get(name))
        if differing:
            raise ClientOrderIdReusedError(
                "this clientOrderId belongs to an order with another ticket",
                errors=[
                    FieldError(name, "idempotency_mismatch", "differs from the first request")
                    for name in differing
                ],
            )
        return Placed(order.order_id, is_replay=True)

    async def _accept(
        self,
        desk: Desk,
        ticket: OrderTicket,
        market: Instrument | TradingError,
        client_order_id: str | None,
        body: Mapping[str, Any],
    ) -> Order:
        repository, transaction, now = self._books.repository, desk.transaction, desk.now
        instrument = self._ensure_tradable(market, desk)
        quote = self._known_quote(instrument)
        order = self._drafted(desk, ticket, instrument, quote, client_order_id)
        self._ensure_fresh(order, quote, now)
        position = self._risk.position_of(desk, instrument)
        others = await repository.list_open_orders(
            transaction, order.account_id, symbol=order.symbol
        )
        _ensure_reduces(order, position, others)
        self._risk.ensure_allowed(desk, order, others, quote, is_new=True)
        await self._risk.ensure_carried(desk, order.symbol, [*others, order])
        await desk.tell_order(order)
        found = match(order, quote) if _meets_newest(order) and quote.is_fresh(now) else None
        if found is not None and found.price is not None:
            order = await desk.fill(
                order,
                quantity=order.quantity,
                price=found.price,
                liquidity=Liquidity.TAKER,
                quote=quote,
            )
        elif _is_at_once(order):
            order = order.cancel(CloseReason.NOT_FILLED_AT_ONCE, now)
            await desk.tell_order(order)
        await repository.add_order(transaction, order, ticket=json.dumps(body, sort_keys=True))
        desk.reserve(order.symbol, [*others, order] if order.is_open else others)
        await desk.close()
        return order

    def _ensure_tradable(self, market: Instrument | TradingError, desk: Desk) -> Instrument:
        if isinstance(market, TradingError):
            raise market
        currency = desk.account.currency.code
        is_known = market.kind in self._policy.leverage_by_kind
        if not (market.tradable and is_known and market.quote_currency == currency):
            raise InstrumentNotTradableError(
                f"{market.symbol} can't be traded on this account; DEMO instruments in "
                f"{currency} can",
                errors=[FieldError("symbol", "not_tradable", "is not tradable on this account")],
            )
        return market

    def _drafted(
        self,
        desk: Desk,
        ticket: OrderTicket,
        instrument: Instrument,
        quote: Quote,
        client_order_id: str | None,
    ) -> Order:
        measures = measure(ticket, instrument, desk.now)
        return Order(
            order_id=self._books.ids.new("ord"),
            account_id=desk.account.account_id,
            client_order_id=client_order_id,
            symbol=instrument.symbol,
            side=ticket.side,
            type=ticket.type,
            time_in_force=ticket.time_in_force,
            reduce_only=ticket.reduce_only,
            price_scale=instrument.price_scale,
            quantity_scale=instrument.quantity_scale,
            quantity=measures.quantity,
            limit_price=measures.limit_price,
            trigger_price=measures.trigger_price,
            expires_at=measures.expires_at,
            reserve_price=compute_reserve_price(
                type_=ticket.type,
                limit_price=measures.limit_price,
                trigger_price=measures.trigger_price,
                quote=quote,
                slippage_cap_ppm=self._policy.slippage_cap_ppm,
            ),
            quote_sequence=quote.sequence,
            accepted_at=desk.now,
            updated_at=desk.now,
        ).accept()

    def _changed(
        self,
        order: Order,
        change: OrderChange,
        instrument: Instrument,
        quote: Quote,
        now: datetime,
    ) -> Order:
        ticket = _ticket_of(order, change)
        if change.time_in_force in _AT_ONCE and change.time_in_force is not order.time_in_force:
            message = "a resting order can't become one that fills at once"
            raise OrderInvalidError(
                f"duration.type: {message}",
                errors=[FieldError("duration.type", "unexpected", message)],
            )
        measures = measure(ticket, instrument, now)
        if measures.quantity <= order.filled_quantity:
            message = "must be above what is filled already"
            raise OrderInvalidError(
                f"qty: {message}", errors=[FieldError("qty", "not_above_filled", message)]
            )
        return replace(
            order,
            quantity=measures.quantity,
            limit_price=measures.limit_price,
            trigger_price=measures.trigger_price,
            time_in_force=ticket.time_in_force,
            expires_at=measures.expires_at,
            reserve_price=compute_reserve_price(
                type_=order.type,
                limit_price=measures.limit_price,
                trigger_price=measures.trigger_price,
                quote=quote,
                slippage_cap_ppm=self._policy.slippage_cap_ppm,
            ),
            quote_sequence=max(order.quote_sequence, quote.sequence),
            updated_at=now,
        )

    async def _get_open(self, desk: Desk, order_id: str, verb: str) -> Order:
        order = await self._books.repository.find_order(
            desk.transaction, desk.account.account_id, order_id
        )
        if order is None:
            raise OrderNotFoundError("there is no such order on this account")
        if order.status in CLOSED:
            raise OrderClosedError(
                f"the order is {order.status.value.lower()} and can't be {verb}",
                status=order.status.value,
            )
        return order

    def _known_quote(self, instrument: Instrument) -> Quote:
        quote = self._quotes.find(instrument.symbol)
        if quote is None or quote.price_scale != instrument.price_scale:
            raise MarketUnavailableError(
                "there is no quote of this instrument yet", retry_after_seconds=1
            )
        return quote

    def _ensure_fresh(self, order: Order, quote: Quote, now: datetime) -> None:
        needs_fresh = order.type is OrderType.MARKET or _is_at_once(order)
        if needs_fresh and not quote.is_fresh(now):
            raise StaleQuoteError(
                "the newest quote of this instrument is too old to trade on",
                retry_after_seconds=1,
                quote_at=quote.at.isoformat(),
            )


def _meets_newest(order: Order) -> bool:
    # Stops rest: they trigger on quotes that come after them.
    return not order.type.has_trigger


def _is_at_once(order: Order) -> bool:
    # A stop's time begins with its trigger.
    return order.time_in_force in _AT_ONCE and not order.type.has_trigger


def _ensure_reduces(order: Order, position: Position, others: list[Order]) -> None:
    if not order.reduce_only:
        return
    reducible = -order.side.sign * position.signed_quantity
    if order.quantity > reducible:
        raise ReduceOnlyError(
            "a reduce-only order may be at most as large as the position it reduces",
            reducible=f"{decimal_of(max(0, reducible), order.quantity_scale):f}",
        )


def _ticket_of(order: Order, change: OrderChange) -> OrderTicket:
    def price(changed: Decimal | None, raw: int | None) -> Decimal | None:
        if changed is not None or raw is None:
            return changed
        return decimal_of(raw, order.price_scale)

    time_in_force = change.time_in_force or order.time_in_force
    keeps_expiry = change.time_in_force is None and time_in_force is TimeInForce.GTD
    return OrderTicket(
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        quantity=(
            decimal_of(order.quantity, order.quantity_scale)
            if change.quantity is None
            else change.quantity
        ),
        limit_price=price(change.limit_price, order.limit_price),
        trigger_price=price(change.trigger_price, order.trigger_price),
        time_in_force=time_in_force,
        expires_at=change.expires_at or (order.expires_at if keeps_expiry else None),
        reduce_only=order.reduce_only,
    )


def _advice(order: Order) -> dict[str, Any]:
    # What follows from the market and not from the client's wish.
    return {"reserve_price": order.reserve_price, "quote_sequence": order.quote_sequence}


def _canonical(ticket: OrderTicket, client_order_id: str | None, account_id: str) -> dict[str, Any]:
    """Return the request as the wire names its fields, numbers as plain text."""
    expires_at = ticket.expires_at
    return {
        "accountId": account_id,
        "clientOrderId": client_order_id,
        "symbol": ticket.symbol,
        "side": ticket.side.value,
        "type": ticket.type.value,
        "qty": _text(ticket.quantity),
        "limitPrice": None if ticket.limit_price is None else _text(ticket.limit_price),
        "stopPrice": None if ticket.trigger_price is None else _text(ticket.trigger_price),
        "duration.type": ticket.time_in_force.value,
        "duration.datetime": (
            None if expires_at is None else expires_at.astimezone(UTC).isoformat()
        ),
        "isClose": ticket.reduce_only,
    }


def _text(value: Decimal) -> str:
    return f"{value.normalize():f}"
