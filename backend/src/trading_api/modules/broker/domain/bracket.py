"""Brackets: what a fill, a cancel or a change does to the legs that protect a position.

One pair (take-profit, stop-loss) protects a position and is as large as it at all times. An entry
holds its own legs until its first fill; then they replace the position's pair. Whatever closes or
turns the position cancels the pair, so the two legs together never fill more than it was.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.order import (
    NO_BRACKETS,
    BracketRole,
    Brackets,
    CloseReason,
    Order,
    OrderStatus,
    OrderType,
    ParentType,
    TimeInForce,
)
from trading_api.modules.broker.domain.position import Position


@dataclass(frozen=True, slots=True)
class PairChange:
    """What becomes of the legs.

    Attributes:
        brackets: what protects the position afterwards.
        legs: every leg that has changed, as it is now, in the order of telling.
    """

    brackets: Brackets
    legs: tuple[Order, ...] = ()


def pair_of(position_id: str, live: Iterable[Order]) -> list[Order]:
    """Return the working legs of a position, the take-profit first."""
    return sorted((each for each in live if each.protects(position_id)), key=_leg_order)


def held_by(order_id: str, live: Iterable[Order]) -> list[Order]:
    """Return the legs that an entry still holds, the take-profit first."""
    return sorted((each for each in live if each.waits_for(order_id)), key=_leg_order)


def after_fill(
    filled: Order,
    *,
    before: int,
    position: Position,
    live: Iterable[Order],
    quote: Quote,
    now: datetime,
) -> PairChange:
    """Return what one fill does to the brackets of its position and of its order (rules C).

    Args:
        filled: the order after the fill.
        before: the signed raw quantity before it.
        position: after it, with the brackets of before.
        live: the account's live orders of the instrument, without ``filled``.
    """
    orders = list(live)
    pair, held = pair_of(position.position_id, orders), held_by(filled.order_id, orders)
    brackets, after = position.brackets, position.signed_quantity
    legs: list[Order] = []
    if pair and (after == 0 or before * after < 0):
        is_leg = filled.role is not None
        reason = CloseReason.SIBLING_FILLED if is_leg else CloseReason.POSITION_CLOSED
        legs += [leg.cancel(reason, now) for leg in pair]
        pair = []
    if after == 0 or before * after < 0:
        brackets = NO_BRACKETS
    if held and after * filled.side.sign > 0:
        legs += [leg.cancel(CloseReason.BRACKETS_REPLACED, now) for leg in pair]
        parent_type = ParentType.POSITION if position.own_id is None else ParentType.TRADE
        legs += [
            leg.activate(parent_type=parent_type, quantity=abs(after), quote=quote, now=now)
            for leg in held
        ]
        brackets, pair, held = filled.brackets, [], []
    legs += [leg.resize(abs(after), now) for leg in pair if leg.leaves_quantity != abs(after)]
    if not filled.is_open:
        legs += after_close(filled, live=orders, now=now) if held else []
    return PairChange(brackets, tuple(legs))


def after_close(closed: Order, *, live: Iterable[Order], now: datetime) -> list[Order]:
    """Return the legs that an entry takes with it when it closes before they were active."""
    return [leg.cancel(CloseReason.PARENT_CLOSED, now) for leg in held_by(closed.order_id, live)]


def without_leg(brackets: Brackets, role: BracketRole) -> Brackets:
    """Return brackets without one leg."""
    if role is BracketRole.TAKE_PROFIT:
        return replace(brackets, take_profit=None)
    return replace(brackets, stop_loss=None, trailing=None)


def with_leg(brackets: Brackets, leg: Order) -> Brackets:
    """Return brackets with one leg's prices as they are now."""
    if leg.role is BracketRole.TAKE_PROFIT:
        return replace(brackets, take_profit=leg.limit_price)
    if leg.trailing is not None:
        return replace(brackets, stop_loss=None, trailing=leg.trailing)
    return replace(brackets, stop_loss=leg.trigger_price, trailing=None)


@dataclass(frozen=True, slots=True)
class LegPlan:
    """What a change of brackets asks of the legs.

    Attributes:
        missing: roles that need a new leg.
        changed: legs with other prices, as they are now.
        canceled: legs that nobody wants any more, as they are now.
    """

    missing: tuple[BracketRole, ...]
    changed: tuple[Order, ...]
    canceled: tuple[Order, ...]


def plan_change(wanted: Brackets, legs: Sequence[Order], *, quote: Quote, now: datetime) -> LegPlan:
    """Return how the legs of a position or an entry come to be what is wanted."""
    by_role = {leg.role: leg for leg in legs}
    missing, changed, canceled = [], [], []
    for role in BracketRole:
        leg = by_role.get(role)
        if not has_leg(wanted, role):
            if leg is not None:
                canceled.append(leg.cancel(CloseReason.BY_CLIENT, now))
        elif leg is None:
            missing.append(role)
        elif with_leg(NO_BRACKETS, leg) != _only(wanted, role):
            changed.append(_repriced(leg, wanted, quote, now))
    return LegPlan(tuple(missing), tuple(changed), tuple(canceled))


def has_leg(brackets: Brackets, role: BracketRole) -> bool:
    """Tell whether brackets have a leg of that role."""
    return _only(brackets, role) != NO_BRACKETS


def only_removes(before: Brackets, after: Brackets) -> bool:
    """Tell whether a change of brackets takes legs away at most, and brings and moves none."""
    return all(_only(after, role) in (NO_BRACKETS, _only(before, role)) for role in BracketRole)


def build_leg(
    role: BracketRole,
    brackets: Brackets,
    *,
    order_id: str,
    like: Order | Position,
    quantity: int,
    parent_id: str,
    parent_type: ParentType,
    quote: Quote,
    now: datetime,
) -> Order:
    """Return a new leg, neither held nor accepted yet.

    Args:
        like: the entry or the position that it shall protect.
        quantity: raw.
    """
    side = like.side.opposite
    is_profit = role is BracketRole.TAKE_PROFIT
    trailing = None if is_profit else brackets.trailing
    trigger = None if is_profit else brackets.stop_loss
    if trailing is not None:
        trigger = trailing.compute_trigger(side, quote.touch(side))
    terms = like.terms if isinstance(like, Position) else like
    return Order(
        order_id=order_id,
        account_id=like.account_id,
        client_order_id=None,
        symbol=like.symbol,
        side=side,
        type=OrderType.LIMIT if is_profit else OrderType.STOP_MARKET,
        time_in_force=TimeInForce.GTC,
        reduce_only=True,
        price_scale=terms.price_scale,
        quantity_scale=terms.quantity_scale,
        quantity=quantity,
        limit_price=brackets.take_profit if is_profit else None,
        trigger_price=trigger,
        expires_at=None,
        # Legs only close, so they reserve nothing.
        reserve_price=0,
        quote_sequence=quote.sequence,
        accepted_at=now,
        updated_at=now,
        position_id=like.position_id,
        trailing=trailing,
        parent_id=parent_id,
        parent_type=parent_type,
        role=role,
        status=OrderStatus.NEW,
    )


def _repriced(leg: Order, wanted: Brackets, quote: Quote, now: datetime) -> Order:
    changed = replace(leg.meet(quote), updated_at=now)
    if leg.role is BracketRole.TAKE_PROFIT:
        return replace(changed, limit_price=wanted.take_profit)
    if wanted.trailing is None:
        return replace(changed, trigger_price=wanted.stop_loss, trailing=None)
    trigger = wanted.trailing.compute_trigger(leg.side, quote.touch(leg.side))
    return replace(changed, trigger_price=trigger, trailing=wanted.trailing)


def _only(brackets: Brackets, role: BracketRole) -> Brackets:
    if role is BracketRole.TAKE_PROFIT:
        return Brackets(take_profit=brackets.take_profit)
    return Brackets(stop_loss=brackets.stop_loss, trailing=brackets.trailing)


def _leg_order(leg: Order) -> tuple[bool, str]:
    return leg.role is not BracketRole.TAKE_PROFIT, leg.order_id


@dataclass(frozen=True, slots=True)
class BracketFault:
    """A leg that is not as the rules have it.

    Attributes:
        quantity: what it should have left to fill, raw; 0 where it should not be there.
    """

    leg: Order
    quantity: int
    message: str


def list_bracket_faults(
    positions: Iterable[Position], orders: Iterable[Order]
) -> list[BracketFault]:
    """Return the legs of an account that break a rule (O8): orphans, twins, wrong sizes.

    Args:
        orders: every live order.
    """
    by_id = {position.position_id: position for position in positions}
    live = {order.order_id: order for order in orders}
    found: list[BracketFault] = []
    seen: set[tuple[str | None, BracketRole]] = set()
    for leg in sorted(live.values(), key=lambda each: each.order_id):
        if leg.role is None:
            continue
        key = (leg.parent_id, leg.role)
        if key in seen:
            found.append(BracketFault(leg, 0, "another leg has its role already"))
        elif leg.is_held:
            entry = live.get(leg.parent_id or "")
            if entry is None or entry.is_held:
                found.append(BracketFault(leg, 0, "no entry holds it"))
            elif leg.quantity != entry.quantity:
                found.append(BracketFault(leg, entry.quantity, "not as large as its entry"))
        else:
            position = by_id.get(leg.parent_id or "")
            if position is None or position.is_flat or position.side is leg.side:
                found.append(BracketFault(leg, 0, "no position that it protects"))
            elif leg.leaves_quantity != abs(position.signed_quantity):
                size = abs(position.signed_quantity)
                found.append(BracketFault(leg, size, "not as large as its position"))
        seen.add(key)
    return found
