"""The broker's rules once more, in the plainest way: lists, exact fractions, one thread.

It shares no code with the broker, so that where the two agree both are probably right. Prices are
whole cents, quantities whole units, +1 is a buy and -1 a sell. Sizes are without limit.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

COMMISSION = Fraction(100, 10**6)
DONE = {"FILLED", "CANCELED", "EXPIRED"}


class RefusedError(Exception):
    """The broker has to refuse this."""


@dataclass
class Ref:
    """An order."""

    side: int
    quantity: int
    position: object
    limit: int | None = None
    trigger: int | None = None
    at_once: bool = False
    ends: datetime | None = None
    reduces: bool = False
    role: str | None = None
    entry: "Ref | None" = None
    trails: int | None = None
    profit: int | None = None
    stop: int | None = None
    trail_stop: int | None = None
    state: str = "ACCEPTED"
    filled: int = 0
    quote: int = 0

    @property
    def left(self) -> int:
        return 0 if self.state in DONE else self.quantity - self.filled

    @property
    def works(self) -> bool:
        return self.state not in DONE and self.state != "HELD"


@dataclass
class Holding:
    """A position: how much, and what it cost in dollars."""

    quantity: int = 0
    cost: Fraction = Fraction(0)


@dataclass
class Book:
    """One account."""

    hedging: bool
    cash: int = 100_000_00
    orders: list[Ref] = field(default_factory=list)
    held: dict[object, Holding] = field(default_factory=dict)

    def holding(self, key: object) -> Holding:
        return self.held.setdefault(key, Holding())

    def open_positions(self) -> list[object]:
        return [key for key, each in self.held.items() if each.quantity]

    # What clients do.

    def place(self, order: Ref, bid: int, ask: int, quote: int) -> None:
        room = -order.side * self.holding(order.position).quantity
        if order.reduces and order.quantity > room:
            raise RefusedError
        order.quote = quote
        self.orders.append(order)
        self._add_legs(order, bid, ask, quote)
        if order.trigger is not None:
            return
        price = ask if order.side > 0 else bid
        if order.limit is None or order.side * (order.limit - price) >= 0:
            self._fill(order, price, bid, ask, quote)
        elif order.at_once:
            self._end(order, "CANCELED")

    def cancel(self, order: Ref) -> None:
        if order.state == "CANCELED":
            return
        if order.state in DONE:
            raise RefusedError
        self._end(order, "CANCELED")

    def modify(self, order: Ref, quantity: int, quote: int) -> None:
        if order.state in DONE or quantity <= order.filled:
            raise RefusedError
        if order.quantity == quantity:
            return
        order.quantity, order.quote = quantity, quote
        for leg in self.orders:
            if leg.entry is order and leg.state == "HELD":
                leg.quantity = quantity

    def protect(
        self, key: object, profit: int | None, stop: int | None, trail: int | None, *quote: int
    ) -> None:
        bid, ask, number = quote
        size = self.holding(key).quantity
        if not size:
            raise RefusedError
        pair = {leg.role: leg for leg in self._pair(key)}
        leg = pair.get("TAKE_PROFIT")
        if profit is None and leg:
            self._end(leg, "CANCELED")
        stop_leg = pair.get("STOP_LOSS")
        if stop is None and trail is None and stop_leg:
            self._end(stop_leg, "CANCELED")
        side = -1 if size > 0 else 1
        touch = ask if side > 0 else bid
        if profit is not None:
            if leg is None:
                self.orders.append(
                    Ref(side, abs(size), key, limit=profit, role="TAKE_PROFIT", quote=number)
                )
            elif leg.limit != profit:
                leg.limit, leg.quote = profit, number
        if stop is not None or trail is not None:
            level = stop if trail is None else touch + side * trail
            if stop_leg is None:
                made = Ref(side, abs(size), key, trigger=level, role="STOP_LOSS", quote=number)
                made.trails = trail
                self.orders.append(made)
            elif stop_leg.trails != trail or (trail is None and stop_leg.trigger != stop):
                stop_leg.trigger, stop_leg.trails, stop_leg.quote = level, trail, number

    # What the market and time do.

    def expire(self, now: datetime) -> None:
        for order in list(self.orders):
            if order.works and order.ends is not None and order.ends <= now:
                self._end(order, "EXPIRED")

    def tick(self, bid: int, ask: int, quote: int) -> None:
        waiting = [each for each in self.orders if each.works and each.quote < quote]
        waiting.sort(key=lambda each: each.role == "TAKE_PROFIT")
        for order in waiting:
            if not order.works or order.quote >= quote:
                continue
            price = ask if order.side > 0 else bid
            if order.trigger is not None and order.state == "ACCEPTED":
                if order.side * (price - order.trigger) < 0:
                    if order.trails is not None:
                        better = price + order.side * order.trails
                        if order.side * (order.trigger - better) > 0:
                            order.trigger, order.quote = better, quote
                    continue
                order.state, order.quote = "TRIGGERED", quote
            if order.limit is None or order.side * (order.limit - price) >= 0:
                self._fill(order, price, bid, ask, quote)
            elif order.at_once:
                self._end(order, "CANCELED")

    # What follows from it.

    def _fill(self, order: Ref, price: int, bid: int, ask: int, quote: int) -> None:
        holding = self.holding(order.position)
        size = order.left
        if order.reduces or order.role:
            size = min(size, max(0, -order.side * holding.quantity))
        if size == 0:
            self._end(order, "CANCELED")
            return
        before = holding.quantity
        self._book(holding, order.side * size, price)
        order.filled += size
        order.quote = max(order.quote, quote)
        order.state = "FILLED" if order.filled == order.quantity else "PARTIALLY_FILLED"
        after = holding.quantity
        pair = [leg for leg in self._pair(order.position) if leg is not order]
        if after == 0 or before * after < 0:
            for leg in pair:
                self._end(leg, "CANCELED")
            pair = []
        own = [leg for leg in self.orders if leg.entry is order and leg.state == "HELD"]
        if own and after * order.side > 0:
            for leg in pair:
                self._end(leg, "CANCELED")
            for leg in own:
                leg.state, leg.entry, leg.quantity, leg.quote = "ACCEPTED", None, abs(after), quote
                if leg.trails is not None:
                    leg.trigger = (ask if leg.side > 0 else bid) + leg.side * leg.trails
        else:
            for leg in pair:
                leg.quantity = leg.filled + abs(after)
            if order.state in DONE:
                for leg in own:
                    self._end(leg, "CANCELED")
        if order.left and order.reduces and after == 0:
            self._end(order, "CANCELED")

    def _book(self, holding: Holding, signed: int, price: int) -> None:
        dollars = Fraction(price, 100)
        closed = min(abs(signed), abs(holding.quantity)) if signed * holding.quantity < 0 else 0
        result = 0
        if closed:
            sign = 1 if holding.quantity > 0 else -1
            share = holding.cost * closed / abs(holding.quantity)
            # Ten digits behind the point would be finer than the broker keeps.
            removed = Fraction(round(share * 10**8), 10**8)
            result = round((sign * closed * dollars - removed) * 100)
            holding.quantity -= sign * closed
            holding.cost -= removed
            signed += sign * closed
        opened = signed
        holding.quantity += opened
        holding.cost += opened * dollars
        traded = (closed + abs(opened)) * price
        self.cash += result - -(-traded * COMMISSION.numerator // COMMISSION.denominator)

    def _add_legs(self, order: Ref, bid: int, ask: int, quote: int) -> None:
        side = -order.side
        common = {"entry": order, "state": "HELD", "quote": quote}
        if order.profit is not None:
            self.orders.append(
                Ref(
                    side,
                    order.quantity,
                    order.position,
                    limit=order.profit,
                    role="TAKE_PROFIT",
                    **common,  # type: ignore[arg-type]
                )
            )
        if order.stop is not None or order.trail_stop is not None:
            level = order.stop
            if order.trail_stop is not None:
                level = (ask if side > 0 else bid) + side * order.trail_stop
            self.orders.append(
                Ref(
                    side,
                    order.quantity,
                    order.position,
                    trigger=level,
                    trails=order.trail_stop,
                    role="STOP_LOSS",
                    **common,  # type: ignore[arg-type]
                )
            )

    def _pair(self, key: object) -> list[Ref]:
        return [
            leg
            for leg in self.orders
            if leg.role and leg.works and leg.entry is None and leg.position == key
        ]

    def _end(self, order: Ref, state: str) -> None:
        order.state = state
        for leg in self.orders:
            if leg.entry is order and leg.state == "HELD":
                leg.state = "CANCELED"


def day_end(now: datetime) -> datetime:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=1)
