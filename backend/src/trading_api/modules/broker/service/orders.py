"""Placing, changing and canceling orders, each decided under the account's lock."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

from trading_api.kernel.errors import FieldError, TradingError
from trading_api.kernel.values import Currency, decimal_of
from trading_api.modules.broker.domain.account import Valuation
from trading_api.modules.broker.domain.bracket import only_removes
from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.margin import compute_reservation, compute_reserve_price
from trading_api.modules.broker.domain.matching import takes_at_once
from trading_api.modules.broker.domain.order import (
    CloseReason,
    Measures,
    Order,
    OrderSide,
    OrderStatus,
    OrderTicket,
    TicketBrackets,
    TicketTrailing,
    TimeInForce,
    Trailing,
    measure,
)
from trading_api.modules.broker.errors import (
    ClientOrderIdReusedError,
    OrderClosedError,
    OrderInvalidError,
    OrderNotFoundError,
    PostOnlyError,
)
from trading_api.modules.broker.service.accounts import AccountService
from trading_api.modules.broker.service.ahead import AheadReader
from trading_api.modules.broker.service.counter import Counter
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.floor import Floor
from trading_api.modules.broker.service.keyed import Keyed
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.runtime.database import Database, Idempotency, Transaction

CANCEL_TOO_LATE = 0
CANCEL_UNKNOWN_ORDER = 1
"""FIX's CxlRejReason (102), told with a refused cancel or change."""

_AT_ONCE = frozenset({TimeInForce.IOC, TimeInForce.FOK})


@dataclass(frozen=True, slots=True)
class Placed:
    """The outcome of placing an order.

    Attributes:
        is_replay: an earlier, equal request had placed it.
    """

    order_id: str
    is_replay: bool


class Keep(Enum):
    """Leave it as it is, where None means to remove it."""

    KEEP = "KEEP"


@dataclass(frozen=True, slots=True)
class OrderChange:
    """What a client wants changed; None leaves a field as it is.

    Attributes:
        brackets: every leg that shall be there afterwards; KEEP leaves a leg as it is.
    """

    quantity: Decimal | None = None
    limit_price: Decimal | None = None
    trigger_price: Decimal | None = None
    time_in_force: TimeInForce | None = None
    expires_at: datetime | None = None
    trailing: TicketTrailing | None = None
    take_profit: Decimal | Keep | None = Keep.KEEP
    stop: Decimal | TicketTrailing | Keep | None = Keep.KEEP


@dataclass(frozen=True, slots=True)
class Preview:
    """What an order would cost, at the newest quote.

    Attributes:
        price: raw price it is reckoned at.
        commission_minor: worst commission.
        margin_minor: margin of its whole quantity at that price.
        reservation_minor: what it would add to the account's reservations or margin.
        error: why it would be refused now; None where it would not.
        warnings: what the client should know before it places the order.
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
    warnings: tuple[str, ...] = ()


class OrderService:
    """Accepts orders on paper accounts and fills at once what the newest quote allows."""

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        accounts: AccountService,
        idempotency: Idempotency,
        counter: Counter,
        floor: Floor,
        risk: RiskGate,
        ahead: AheadReader,
    ) -> None:
        self._database = database
        self._books = books
        self._accounts = accounts
        self._idempotency = idempotency
        self._counter = counter
        self._floor = floor
        self._risk = risk
        self._ahead = ahead

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
            StaleQuoteError, MarketClosedError: it would trade now, and nothing trades.
            PostOnlyError: it would take.
            InsufficientMarginError: the account can't carry it.
            ReduceOnlyError: there is nothing to reduce.
            IdempotencyKeyReusedError, ClientOrderIdReusedError: used for another ticket.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        market = await self._counter.look_up(ticket.symbol)
        body = canonical(ticket, client_order_id, account_id)
        keyed = Keyed(self._idempotency, user_id, "POST /orders", idempotency_key, body)

        async def command(transaction: Transaction) -> Placed:
            first = await keyed.begin(transaction)
            if first is not None:
                return Placed(first["order_id"], is_replay=True)
            desk = await self._counter.open_desk(transaction, account_id, now)
            placed = await self._find_repeat(desk, client_order_id, body)
            if placed is None:
                order = await self._counter.accept(
                    desk, ticket, market, body=body, client_order_id=client_order_id
                )
                await desk.close()
                placed = Placed(order.order_id, is_replay=False)
            await keyed.finish(transaction, {"order_id": placed.order_id})
            return placed

        ahead = self._ahead.of(account_id, ticket.symbol, keyed.claim)
        return await self._database.group(command, key=account_id, ahead=ahead)

    async def modify_order(
        self,
        *,
        user_id: str,
        account_id: str | None,
        order_id: str,
        change: OrderChange,
        now: datetime,
    ) -> Order:
        """Change a live order and its brackets; it then matches on later quotes only.

        The quantity is the whole one: what is left to fill afterwards is what it exceeds the
        filled quantity by. A leg of a bracket changes its price alone.

        Raises:
            OrderNotFoundError: not an order of this account.
            OrderClosedError: it is closed.
            OrderInvalidError: a field breaks a rule, or the quantity isn't above what is filled.
            InsufficientMarginError: the account can't carry the changed order.
            TradingHaltedError, PriceBandError, OrderRateError and what else refuses a new order;
            taking brackets away is never refused.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)
        async with self._database.snapshot() as snapshot:
            known = await self._books.repository.find_order(snapshot, account_id, order_id)
        if known is None:
            raise OrderNotFoundError(
                "there is no such order on this account", cxlRejReason=CANCEL_UNKNOWN_ORDER
            )
        market = await self._counter.look_up(known.symbol)

        async def command(transaction: Transaction) -> Order:
            desk = await self._counter.open_desk(transaction, account_id, now)
            order = await self._get_live(desk, order_id, "changed")
            instrument, quote = self._counter.ensure_tradable(market, desk)
            changed = self._changed(desk, order, change, instrument, quote)
            bare = replace(changed, brackets=order.brackets)
            is_moved = replace(bare, updated_at=order.updated_at, **_advice(order)) != order
            if is_moved or not only_removes(order.brackets, changed.brackets):
                self._risk.take_turn(desk)
            if is_moved:
                others = [
                    each
                    for each in desk.list_orders(order.symbol)
                    if each.is_open and each.order_id != order_id
                ]
                if order.role is not None:
                    self._risk.ensure_legs_allowed(desk)
                else:
                    entries = [each for each in others if each.role is None]
                    self._risk.ensure_allowed(desk, bare, entries, quote, is_new=False)
                    await self._risk.ensure_carried(desk, order.symbol, [*others, bare])
                await desk.tell_order(bare, is_modified=True)
                await self._floor.resize_held(desk, bare)
                await self._floor.show_leg_change(desk, bare)
                order = bare
            if changed.brackets != order.brackets:
                order = await self._floor.set_order_brackets(desk, order, changed.brackets, quote)
            await desk.close()
            return order

        return await self._database.group(command, key=account_id)

    async def cancel_order(
        self, *, user_id: str, account_id: str | None, order_id: str, now: datetime
    ) -> Order:
        """Cancel what is left of an order; a repeat finds it canceled and changes nothing.

        The legs that an entry still holds go with it; a leg alone takes nothing with it.

        Raises:
            OrderNotFoundError: not an order of this account.
            OrderClosedError: it was filled, expired or rejected before.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)

        async def command(transaction: Transaction) -> Order:
            desk = await self._counter.open_desk(transaction, account_id, now)
            order = await self._books.repository.find_order(transaction, account_id, order_id)
            if order is not None and order.status is OrderStatus.CANCELED:
                return order
            order = await self._get_live(desk, order_id, "canceled")
            canceled = await self._floor.cancel(desk, order, CloseReason.BY_CLIENT)
            await desk.close()
            return canceled

        return await self._database.group(command, key=account_id)

    async def cancel_orders(
        self,
        *,
        user_id: str,
        account_id: str | None,
        symbol: str | None,
        side: OrderSide | None,
        now: datetime,
    ) -> list[str]:
        """Cancel every live order of an instrument and a side, and return their ids.

        Args:
            symbol: None for every instrument.
            side: None for both.
        """
        account_id = await self._accounts.resolve(user_id=user_id, account_id=account_id, now=now)

        async def command(transaction: Transaction) -> list[str]:
            desk = await self._counter.open_desk(transaction, account_id, now)
            await desk.load_orders(symbol)
            canceled = []
            for order in sorted(desk.orders.values(), key=lambda each: each.order_id):
                is_meant = symbol in (None, order.symbol) and side in (None, order.side)
                # An entry canceled before it may have taken this leg along.
                if is_meant and order.order_id in desk.orders:
                    live = desk.orders[order.order_id]
                    await self._floor.cancel(desk, live, CloseReason.BY_CLIENT)
                    canceled.append(order.order_id)
            await desk.close()
            return canceled

        return await self._database.group(command, key=account_id)

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
        market = await self._counter.look_up(ticket.symbol)
        async with self._database.snapshot() as snapshot:
            account = await self._books.repository.find_account(snapshot, account_id)
            assert account is not None, "accounts are never deleted"
            desk = await Desk.over(self._books, snapshot, account, now)
            before = await self._risk.value(desk)
            instrument, quote = self._counter.ensure_tradable(market, desk)
            order = self._floor.draft(desk, ticket, instrument, quote)
            position = self._risk.position_of(desk, instrument)
            warnings = self._floor.list_warnings(desk, order, instrument, quote)
            error: TradingError | None = None
            try:
                await self._floor.ensure_acceptable(desk, order, instrument, quote)
            except TradingError as refusal:
                error = refusal
            await desk.load_orders(order.symbol)
            open_orders = [each for each in desk.list_orders(order.symbol) if each.is_open]
        added = (
            compute_reservation(position, [*open_orders, order.accept()]) - position.reserved_minor
        )
        terms, price = position.terms, order.reserve_price
        return Preview(
            instrument=instrument,
            currency=terms.currency,
            price=price,
            value_minor=terms.to_minor_middle(terms.compute_value(order.quantity, price)),
            commission_minor=terms.compute_commission(order.quantity, price),
            margin_minor=terms.compute_margin(order.quantity, price),
            reservation_minor=max(0, added),
            before=before,
            error=error,
            warnings=warnings,
        )

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

    def _changed(
        self,
        desk: Desk,
        order: Order,
        change: OrderChange,
        instrument: Instrument,
        quote: Quote,
    ) -> Order:
        ticket = _ticket_of(order, change)
        if order.role is not None and change.quantity is not None:
            raise _invalid("qty", "unexpected", "a leg is as large as what it protects")
        if order.role is not None and (
            change.take_profit is not Keep.KEEP or change.stop is not Keep.KEEP
        ):
            raise _invalid("takeProfit", "unexpected", "a leg has no legs of its own")
        if change.time_in_force in _AT_ONCE and change.time_in_force is not order.time_in_force:
            message = "a resting order can't become one that fills at once"
            raise _invalid("duration.type", "unexpected", message)
        measures = measure(ticket, instrument, quote, desk.now)
        if order.role is not None:
            _ensure_leg_side(order, measures, quote, desk.orders.get(order.parent_id or ""))
        if measures.quantity <= order.filled_quantity:
            raise _invalid("qty", "not_above_filled", "must be above what is filled already")
        # A day order that changes its size still ends with the day it was placed on.
        keeps_time = change.time_in_force is None and change.expires_at is None
        brackets = measures.brackets if _moves(change) else order.brackets
        if order.filled_quantity and brackets != order.brackets:
            message = "the order has filled; its position carries the brackets now"
            raise _invalid("takeProfit", "unexpected", message)
        if order.post_only and takes_at_once(
            replace(order, limit_price=measures.limit_price), quote
        ):
            raise PostOnlyError("a post-only order at this price would fill at once")
        trigger_price = measures.trigger_price
        if change.trailing is None and change.trigger_price is None:
            # Measuring begins a trailing stop anew; unless asked to, it stays where it is.
            trigger_price = order.trigger_price
        return replace(
            order,
            quantity=measures.quantity,
            limit_price=measures.limit_price,
            trigger_price=trigger_price,
            trailing=measures.trailing if change.trailing else order.trailing,
            brackets=brackets,
            time_in_force=ticket.time_in_force,
            expires_at=order.expires_at if keeps_time else measures.expires_at,
            reserve_price=compute_reserve_price(
                type_=order.type,
                limit_price=measures.limit_price,
                trigger_price=trigger_price,
                quote=quote,
                slippage_cap_ppm=self._counter.policy.slippage_cap_ppm,
            ),
            quote_sequence=max(order.quote_sequence, quote.sequence),
            updated_at=desk.now,
        )

    async def _get_live(self, desk: Desk, order_id: str, verb: str) -> Order:
        order = await self._books.repository.find_order(
            desk.transaction, desk.account.account_id, order_id
        )
        if order is None:
            raise OrderNotFoundError(
                "there is no such order on this account", cxlRejReason=CANCEL_UNKNOWN_ORDER
            )
        if not order.is_live:
            raise OrderClosedError(
                f"the order is {order.status.value.lower()} and can't be {verb}",
                status=order.status.value,
                cxlRejReason=CANCEL_TOO_LATE,
            )
        await desk.load_orders(order.symbol)
        return order


def _ensure_leg_side(leg: Order, measures: Measures, quote: Quote, entry: Order | None) -> None:
    """Refuse a price at which a leg would close its position at once.

    Args:
        entry: what a held leg waits for: then its own price is where the leg will begin.
    """
    touch = quote.touch(leg.side)
    if leg.is_held and entry is not None:
        touch = entry.limit_price or entry.trigger_price or touch
    limit, trigger = measures.limit_price, measures.trigger_price
    if limit is not None and limit != leg.limit_price and leg.side.sign * (limit - touch) >= 0:
        raise _invalid("limitPrice", "wrong_side", "would close the position at once")
    if (
        trigger is not None
        and trigger != leg.trigger_price
        and leg.side.sign * (touch - trigger) >= 0
    ):
        raise _invalid("stopPrice", "wrong_side", "would close the position at once")


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
        trigger_price=(
            change.trigger_price
            if change.trailing
            else price(change.trigger_price, order.trigger_price)
        ),
        time_in_force=time_in_force,
        expires_at=change.expires_at or (order.expires_at if keeps_expiry else None),
        reduce_only=order.reduce_only,
        post_only=order.post_only,
        trailing=change.trailing,
        # Brackets that stay beside prices that stay were right once and needn't be so now: a
        # trailing stop may have moved past them.
        brackets=_brackets_of(order, change) if _moves(change) else TicketBrackets(),
        position_id=order.position_id if order.reduce_only else None,
    )


def _moves(change: OrderChange) -> bool:
    """Tell whether a change moves a price that brackets depend on, or the brackets themselves."""
    kept = change.take_profit is Keep.KEEP and change.stop is Keep.KEEP
    prices = (change.limit_price, change.trigger_price, change.trailing)
    return not kept or any(each is not None for each in prices)


def _brackets_of(order: Order, change: OrderChange) -> TicketBrackets:
    kept, scale = order.brackets, order.price_scale
    take_profit = change.take_profit
    if isinstance(take_profit, Keep):
        take_profit = None if kept.take_profit is None else decimal_of(kept.take_profit, scale)
    stop = change.stop
    if isinstance(stop, Keep):
        stop = None if kept.stop_loss is None else decimal_of(kept.stop_loss, scale)
        if kept.trailing is not None:
            stop = ticket_trailing(kept.trailing)
    if isinstance(stop, TicketTrailing):
        return TicketBrackets(take_profit, None, stop)
    return TicketBrackets(take_profit, stop, None)


def ticket_trailing(trailing: Trailing) -> TicketTrailing:
    """Return a trailing stop's distance as a client says it."""
    if trailing.offset is not None:
        return TicketTrailing(pips=Decimal(trailing.offset) / trailing.pip)
    assert trailing.ppm is not None, "a distance is fixed or a share"
    return TicketTrailing(percent=Decimal(trailing.ppm) / 10_000)


def _invalid(field: str, rule: str, message: str) -> OrderInvalidError:
    return OrderInvalidError(f"{field}: {message}", errors=[FieldError(field, rule, message)])


def _advice(order: Order) -> dict[str, Any]:
    # What follows from the market and not from the client's wish.
    return {"reserve_price": order.reserve_price, "quote_sequence": order.quote_sequence}


def canonical(ticket: OrderTicket, client_order_id: str | None, account_id: str) -> dict[str, Any]:
    """Return a request as the wire names its fields, numbers as plain text."""
    expires_at = ticket.expires_at
    return {
        "accountId": account_id,
        "clientOrderId": client_order_id,
        "symbol": ticket.symbol,
        "side": ticket.side.value,
        "type": ticket.type.value,
        "qty": text_of(ticket.quantity),
        "limitPrice": None if ticket.limit_price is None else text_of(ticket.limit_price),
        "stopPrice": None if ticket.trigger_price is None else text_of(ticket.trigger_price),
        "duration.type": ticket.time_in_force.value,
        "duration.datetime": (
            None if expires_at is None else expires_at.astimezone(UTC).isoformat()
        ),
        "isClose": ticket.reduce_only,
        **{name: value for name, value in _later_fields(ticket).items() if value is not None},
    }


def _later_fields(ticket: OrderTicket) -> dict[str, Any]:
    """Return what requests of before could not name; absent where it isn't asked for."""
    brackets = ticket.brackets
    return {
        "postOnly": ticket.post_only or None,
        "positionId": ticket.position_id,
        "trail": _trail_text(ticket.trailing),
        "takeProfit": None if brackets.take_profit is None else text_of(brackets.take_profit),
        "stopLoss": None if brackets.stop_loss is None else text_of(brackets.stop_loss),
        "trailingStop": _trail_text(brackets.trailing),
    }


def _trail_text(trailing: TicketTrailing | None) -> str | None:
    if trailing is None:
        return None
    if trailing.pips is not None:
        return f"{text_of(trailing.pips)} pips"
    return f"{text_of(trailing.percent or Decimal(0))} %"


def text_of(value: Decimal) -> str:
    """Return a number as plain text without trailing zeros."""
    return f"{value.normalize():f}"
