"""What happens to orders at an open desk: accepted, met by quotes, filled, canceled, protected.

Every method here is a step within one transaction of one account; use cases open and close the
desk.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.bracket import (
    after_close,
    build_leg,
    has_leg,
    held_by,
    only_removes,
    pair_of,
    plan_change,
    with_leg,
    without_leg,
)
from trading_api.modules.broker.domain.instrument import Instrument, Policy, Quote
from trading_api.modules.broker.domain.margin import compute_reserve_price
from trading_api.modules.broker.domain.matching import Match, takes_at_once
from trading_api.modules.broker.domain.order import (
    BracketRole,
    Brackets,
    CloseReason,
    Order,
    OrderStatus,
    OrderTicket,
    OrderType,
    ParentType,
    measure,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.errors import (
    MarketClosedError,
    OrderInvalidError,
    PostOnlyError,
    ReduceOnlyError,
    StaleQuoteError,
)
from trading_api.modules.broker.ports import Venue
from trading_api.modules.broker.service.desk import Desk
from trading_api.modules.broker.service.risk import RiskGate


class Floor:
    """Accepts, matches and closes the orders of one account at its desk."""

    def __init__(self, *, venue: Venue, risk: RiskGate, policy: Policy) -> None:
        self._venue = venue
        self._risk = risk
        self._policy = policy

    def draft(
        self,
        desk: Desk,
        ticket: OrderTicket,
        instrument: Instrument,
        quote: Quote,
        *,
        client_order_id: str | None = None,
    ) -> Order:
        """Measure a ticket and return the order it would become, not accepted yet.

        Raises:
            OrderInvalidError: a field breaks a rule.
        """
        measures = measure(ticket, instrument, quote, desk.now)
        order_id = desk.books.ids.new("ord")
        position_id = instrument.symbol
        if desk.is_hedging:
            position_id = ticket.position_id or f"pos_{order_id.removeprefix('ord_')}"
            if ticket.reduce_only and ticket.position_id is None:
                raise _invalid("positionId", "missing", "names the position to close")
            held = desk.positions.get(position_id)
            if ticket.position_id is not None and (held is None or held.symbol != ticket.symbol):
                raise _invalid("positionId", "unknown", "names no open position of this instrument")
        elif ticket.position_id not in (None, instrument.symbol):
            raise _invalid("positionId", "unknown", "names no position of this account")
        order = Order(
            order_id=order_id,
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
            position_id=position_id,
            ingest_sequence=desk.account.event_sequence + 1,
            post_only=ticket.post_only,
            trailing=measures.trailing,
            brackets=measures.brackets,
        )
        delay = self._venue.compute_delay(order)
        return replace(order, active_at=desk.now + delay) if delay else order

    async def ensure_acceptable(
        self, desk: Desk, order: Order, instrument: Instrument, quote: Quote
    ) -> None:
        """Refuse what the market or the account can't bear now; nothing is changed.

        Raises:
            StaleQuoteError, MarketClosedError: it would trade now, and nothing trades.
            PostOnlyError: it would take.
            ReduceOnlyError: there is nothing to reduce, or less.
            InsufficientMarginError: the account can't carry it.
            OrderRateError, TradingHaltedError and what else the risk gate refuses.
        """
        if order.type is OrderType.MARKET or (order.is_at_once and not order.type.has_trigger):
            if not self._venue.is_open(instrument, desk.now):
                raise MarketClosedError("this instrument doesn't trade now")
            if not quote.is_fresh(desk.now):
                raise StaleQuoteError(
                    "the newest quote of this instrument is too old to trade on",
                    retry_after_seconds=1,
                    quote_at=quote.at.isoformat(),
                )
        if order.post_only and takes_at_once(order.accept(), quote):
            raise PostOnlyError("a post-only order at this price would fill at once")
        position = self._risk.position_of(desk, instrument)
        if order.reduce_only:
            reducible = self._reducible(desk, order)
            if order.quantity > reducible:
                raise ReduceOnlyError(
                    "a reduce-only order may be at most as large as the position it reduces",
                    reducible=f"{decimal_of(reducible, order.quantity_scale):f}",
                )
        await desk.load_orders(order.symbol)
        live = [each for each in desk.list_orders(order.symbol) if each.is_open]
        entries = [each for each in live if each.role is None]
        self._risk.ensure_allowed(desk, order.accept(), entries, quote, is_new=True)
        self._risk.take_turn(desk)
        await self._risk.ensure_carried(desk, position.symbol, [*live, order.accept()])

    def list_warnings(
        self, desk: Desk, order: Order, instrument: Instrument, quote: Quote
    ) -> tuple[str, ...]:
        """Return what somebody should know before placing a drafted order, for people."""
        found = []
        if not self._venue.is_open(instrument, desk.now):
            found.append("The market is closed; the order waits until it opens.")
        position = desk.positions.get(order.position_id)
        if position is not None and not position.is_flat:
            grows = position.side is order.side
            if grows and not (order.brackets.is_empty or position.brackets.is_empty):
                found.append("The brackets of the position will be replaced by this order's.")
            if not grows and order.quantity > abs(position.signed_quantity):
                found.append("The order closes the position and opens one on the other side.")
        match = Match()
        if not order.type.has_trigger:
            match = self._venue.meet(order.accept(), quote, instrument, is_new=True)
        if 0 < match.quantity < order.quantity:
            found.append("At this size the order fills in several parts.")
        return tuple(found)

    async def accept(
        self,
        desk: Desk,
        order: Order,
        instrument: Instrument,
        quote: Quote,
        *,
        body: Mapping[str, Any],
    ) -> Order:
        """Accept a drafted order, hold its legs, and fill at once what the quote allows."""
        order = order.accept()
        desk.add(order, ticket=json.dumps(body, sort_keys=True))
        await desk.tell_order(order)
        for role in BracketRole:
            if has_leg(order.brackets, role):
                await self._hold_leg(desk, order, role, quote)
        is_due = order.active_at is None and not order.type.has_trigger
        if not is_due:
            return order
        found = Match()
        if quote.is_fresh(desk.now) and self._venue.is_open(instrument, desk.now):
            found = self._venue.meet(order, quote, instrument, is_new=True)
        order = await self._fill(desk, order, found, quote)
        if order.is_open and order.is_at_once:
            order = await self.cancel(desk, order, CloseReason.NOT_FILLED_AT_ONCE)
        return order

    async def meet(self, desk: Desk, order: Order, instrument: Instrument, quote: Quote) -> bool:
        """Do to a resting order what a fresh quote does; tell whether it changed."""
        has_arrived = order.active_at is None or order.active_at <= quote.at
        if not has_arrived or quote.sequence <= order.quote_sequence:
            return False
        if order.role is BracketRole.TAKE_PROFIT and self._is_stop_triggered(desk, order):
            # Both legs were hit: the stop goes first and leaves nothing to take.
            return False
        found = self._venue.meet(order, quote, instrument)
        if found.trails_to is not None:
            await desk.tell_order(order.trail(found.trails_to, quote, desk.now), is_modified=True)
            return True
        if found.triggers:
            order = order.trigger(desk.now).meet(quote)
            await desk.tell_order(order)
            if not await self._risk.is_carried(desk, order):
                await self._close(desk, order.reject(CloseReason.INSUFFICIENT_MARGIN, desk.now))
                return True
        is_changed = found.triggers or found.price is not None
        order = await self._fill(desk, order, found, quote)
        if order.is_open and order.is_at_once and not order.is_waiting_for_trigger:
            await self.cancel(desk, order, CloseReason.NOT_FILLED_AT_ONCE)
            return True
        return is_changed

    async def cancel(self, desk: Desk, order: Order, reason: CloseReason) -> Order:
        """Cancel what is left of a live order; the legs it holds go with it."""
        return await self._close(desk, order.cancel(reason, desk.now))

    async def expire(self, desk: Desk, order: Order) -> Order:
        """End an order whose time is over; the legs it holds go with it."""
        return await self._close(desk, order.expire(desk.now))

    async def set_order_brackets(
        self, desk: Desk, order: Order, wanted: Brackets, quote: Quote
    ) -> Order:
        """Give an entry other brackets, and return it; its legs are held until it fills.

        Raises:
            TradingHaltedError: a leg is new or moves, and only cancels are taken.
        """
        if not only_removes(order.brackets, wanted):
            self._risk.ensure_legs_allowed(desk)
        held = held_by(order.order_id, desk.list_orders(order.symbol))
        order = replace(order, brackets=wanted, updated_at=desk.now)
        plan = plan_change(wanted, held, quote=quote, now=desk.now)
        await desk.tell_order(order, is_modified=True)
        await self._tell(desk, [*plan.canceled, *plan.changed])
        for role in plan.missing:
            await self._hold_leg(desk, order, role, quote)
        return order

    async def set_position_brackets(
        self, desk: Desk, position: Position, wanted: Brackets, quote: Quote
    ) -> Position:
        """Protect a position with these brackets, and return it; legs not wanted are canceled.

        Raises:
            TradingHaltedError, OrderRateError: a leg is new or moves, and that isn't taken now.
        """
        pair = pair_of(position.position_id, desk.list_orders(position.symbol))
        plan = plan_change(wanted, pair, quote=quote, now=desk.now)
        if not (plan.missing or plan.changed or plan.canceled):
            return position
        if plan.missing or plan.changed:
            self._risk.ensure_legs_allowed(desk)
            self._risk.take_turn(desk)
        position = replace(position, brackets=wanted, updated_at=desk.now)
        desk.show_position(position)
        await self._tell(desk, [*plan.canceled, *plan.changed])
        for role in plan.missing:
            leg = build_leg(
                role,
                wanted,
                order_id=desk.books.ids.new("ord"),
                like=replace(position),
                quantity=abs(position.signed_quantity),
                parent_id=position.position_id,
                parent_type=ParentType.TRADE if position.own_id else ParentType.POSITION,
                quote=quote,
                now=desk.now,
            ).accept()
            await self._add_leg(desk, leg)
        return position

    async def resize_held(self, desk: Desk, order: Order) -> None:
        """Make an entry's held legs as large as the entry is now."""
        for leg in held_by(order.order_id, desk.list_orders(order.symbol)):
            if leg.quantity != order.quantity:
                await self._tell(desk, [leg.resize(order.quantity, desk.now)])

    async def show_leg_change(self, desk: Desk, leg: Order) -> None:
        """Let what a leg protects show its new prices, or that it is gone."""
        if leg.role is None:
            return
        if leg.parent_type is ParentType.ORDER:
            entry = desk.orders.get(leg.parent_id or "")
            if entry is not None:
                brackets = _shown(entry.brackets, leg)
                if brackets != entry.brackets:
                    await self._tell(desk, [replace(entry, brackets=brackets, updated_at=desk.now)])
            return
        position = desk.positions.get(leg.position_id)
        if position is not None and not position.is_flat:
            brackets = _shown(position.brackets, leg)
            if brackets != position.brackets:
                desk.show_position(replace(position, brackets=brackets, updated_at=desk.now))

    async def _close(self, desk: Desk, closed: Order) -> Order:
        await desk.tell_order(closed)
        for leg in after_close(closed, live=desk.list_orders(closed.symbol), now=desk.now):
            await desk.tell_order(leg)
        await self.show_leg_change(desk, closed)
        return closed

    async def _fill(self, desk: Desk, order: Order, found: Match, quote: Quote) -> Order:
        if found.price is None:
            return order
        quantity = found.quantity
        if order.reduce_only:
            quantity = min(quantity, self._reducible(desk, order))
        if quantity:
            order = await desk.fill(
                order,
                quantity=quantity,
                price=found.price,
                slippage=found.slippage,
                liquidity=found.liquidity,
                quote=quote,
            )
        if order.is_open and order.reduce_only and not self._reducible(desk, order):
            order = await self.cancel(desk, order, CloseReason.NOTHING_TO_REDUCE)
        return order

    async def _hold_leg(self, desk: Desk, entry: Order, role: BracketRole, quote: Quote) -> None:
        leg = build_leg(
            role,
            entry.brackets,
            order_id=desk.books.ids.new("ord"),
            like=entry,
            quantity=entry.quantity,
            parent_id=entry.order_id,
            parent_type=ParentType.ORDER,
            quote=quote,
            now=desk.now,
        ).hold()
        await self._add_leg(desk, leg)

    async def _add_leg(self, desk: Desk, leg: Order) -> None:
        leg = replace(leg, ingest_sequence=desk.account.event_sequence + 1)
        desk.add(leg, ticket="{}")
        await desk.tell_order(leg)

    async def _tell(self, desk: Desk, orders: Iterable[Order]) -> None:
        for order in orders:
            await desk.tell_order(order, is_modified=order.status is not OrderStatus.CANCELED)

    def _reducible(self, desk: Desk, order: Order) -> int:
        position = desk.positions.get(order.position_id)
        held = 0 if position is None else position.signed_quantity
        return max(0, -order.side.sign * held)

    def _is_stop_triggered(self, desk: Desk, profit: Order) -> bool:
        return any(
            leg.role is BracketRole.STOP_LOSS and not leg.is_waiting_for_trigger
            for leg in pair_of(profit.position_id, desk.list_orders(profit.symbol))
        )


def _shown(brackets: Brackets, leg: Order) -> Brackets:
    if not leg.is_live:
        assert leg.role is not None, "only legs are shown"
        return without_leg(brackets, leg.role)
    return with_leg(brackets, leg)


def _invalid(field: str, rule: str, message: str) -> OrderInvalidError:
    return OrderInvalidError(f"{field}: {message}", errors=[FieldError(field, rule, message)])
