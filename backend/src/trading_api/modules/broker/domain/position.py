"""Positions, valued by signed cost: one per instrument, or one per entry under hedging."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction

from trading_api.modules.broker.domain.arithmetic import divide_half_even
from trading_api.modules.broker.domain.instrument import COST_SCALE, Quote, Terms
from trading_api.modules.broker.domain.order import NO_BRACKETS, Brackets, OrderSide


@dataclass(frozen=True, slots=True)
class Position:
    """What an account holds of an instrument, and what it has earned with it.

    Attributes:
        account_id: whose.
        terms: scales, leverage and commission.
        signed_quantity: raw; positive long, negative short, 0 flat.
        cost: signed value of what is held at its entry prices, 10^-8; same sign as the quantity.
        realized_minor: what closing has earned over all time, before commission, minor units.
        commission_minor: what all fills have cost, minor units.
        financing_minor: what holding it overnight has cost, minor units; negative when paid out.
        reserved_minor: margin and commission reserved for this instrument's open orders.
        last_price: raw price of the newest fill; 0 before the first.
        opened_at: when what is held now was opened, UTC; None while flat.
        own_id: under hedging the id of one entry's position; None for the instrument's own, which
            under hedging is always flat and carries the reservation and all results.
        brackets: what protects it now.
        updated_at: UTC.
    """

    account_id: str
    terms: Terms
    updated_at: datetime
    signed_quantity: int = 0
    cost: int = 0
    realized_minor: int = 0
    commission_minor: int = 0
    financing_minor: int = 0
    reserved_minor: int = 0
    last_price: int = 0
    opened_at: datetime | None = None
    own_id: str | None = None
    brackets: Brackets = NO_BRACKETS

    @property
    def symbol(self) -> str:
        """Return the instrument's symbol."""
        return self.terms.symbol

    @property
    def position_id(self) -> str:
        """Return its id: the symbol, save for one entry's position under hedging."""
        return self.own_id or self.terms.symbol

    @property
    def side(self) -> OrderSide:
        """Return the side that opened it; BUY while flat."""
        return OrderSide.SELL if self.signed_quantity < 0 else OrderSide.BUY

    @property
    def is_flat(self) -> bool:
        """Tell whether nothing is held."""
        return self.signed_quantity == 0

    @property
    def closing_side(self) -> OrderSide:
        """Return the side of an order that makes the position smaller."""
        return OrderSide.SELL if self.signed_quantity > 0 else OrderSide.BUY

    def average_entry_price(self) -> Fraction | None:
        """Return cost over quantity, exact, in the quote currency; None while flat."""
        if self.is_flat:
            return None
        units = Fraction(self.signed_quantity, int(10**self.terms.quantity_scale))
        return Fraction(self.cost, int(10**COST_SCALE)) / (units * self.terms.multiplier)

    def mark(self, quote: Quote | None) -> int:
        """Return the raw price the position is worth: longs at the bid, shorts at the ask.

        Without any quote it is the price of the newest fill.
        """
        if quote is None:
            return self.last_price
        return quote.bid if self.signed_quantity > 0 else quote.ask

    def at(self, quotes: Mapping[str, Quote]) -> "Position":
        """Return the position with its results converted at the newest rate there is."""
        if self.terms.conversion is None:
            return self
        return replace(self, terms=self.terms.at(quotes))

    def compute_unrealized(self, mark: int) -> int:
        """Return what closing at a raw price would earn, minor units, half-even."""
        value = self.terms.compute_value(self.signed_quantity, mark)
        return self.terms.to_minor(value - self.cost)

    def compute_margin(self, mark: int) -> int:
        """Return the margin the position needs at a raw price, minor units, rounded up."""
        return self.terms.compute_margin(self.signed_quantity, mark)


@dataclass(frozen=True, slots=True)
class FillEffect:
    """What one fill did to a position.

    Attributes:
        closed_quantity: raw units that closed what was held, unsigned.
        realized: what they earned, 10^-8, signed.
        realized_minor: the same in minor units, half-even: what is posted.
        commission_minor: what the fill costs, minor units, rounded up.
    """

    closed_quantity: int
    realized: int
    realized_minor: int
    commission_minor: int


def add_results(position: Position, effect: FillEffect, *, price: int, now: datetime) -> Position:
    """Return an instrument's own position with the results of a fill of one entry's position."""
    return replace(
        position,
        realized_minor=position.realized_minor + effect.realized_minor,
        commission_minor=position.commission_minor + effect.commission_minor,
        last_price=price,
        updated_at=now,
    )


def apply_fill(
    position: Position, *, side: OrderSide, quantity: int, price: int, now: datetime
) -> tuple[Position, FillEffect]:
    """Return the position after a fill and what the fill earned.

    What is opposite to the position closes first: it takes its share of the cost with it
    (half-even in 10^-8; the last close takes the rest), so a flip passes through zero and the
    remainder starts a new entry price.

    Args:
        quantity: raw, positive.
        price: raw.
    """
    assert quantity > 0, "a fill has a size"
    terms, signed = position.terms, side.sign * quantity
    held, cost = position.signed_quantity, position.cost
    closed = min(quantity, abs(held)) if held * signed < 0 else 0
    realized = 0
    if closed:
        closed_signed = closed if held > 0 else -closed
        removed = cost if closed == abs(held) else divide_half_even(cost * closed, abs(held))
        realized = terms.compute_value(closed_signed, price) - removed
        held -= closed_signed
        cost -= removed
    opened_signed = signed + (closed if side is OrderSide.SELL else -closed)
    if opened_signed:
        cost += terms.compute_value(opened_signed, price)
    effect = FillEffect(
        closed_quantity=closed,
        realized=realized,
        realized_minor=terms.to_minor(realized),
        commission_minor=terms.compute_commission(quantity, price),
    )
    after = held + opened_signed
    opened_at = position.opened_at
    if after == 0:
        opened_at = None
    elif position.is_flat or (after > 0) != (position.signed_quantity > 0):
        opened_at = now
    return (
        replace(
            position,
            signed_quantity=after,
            cost=cost,
            realized_minor=position.realized_minor + effect.realized_minor,
            commission_minor=position.commission_minor + effect.commission_minor,
            last_price=price,
            opened_at=opened_at,
            updated_at=now,
        ),
        effect,
    )
