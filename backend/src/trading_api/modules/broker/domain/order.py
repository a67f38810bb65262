"""Orders: the ticket and its rules, the states and the only ways between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from trading_api.kernel.errors import FieldError, InvalidValueError
from trading_api.kernel.values import raw_of
from trading_api.modules.broker.domain.arithmetic import divide_half_even, divide_up
from trading_api.modules.broker.domain.instrument import (
    COST_SCALE,
    PPM,
    VALUE_RAW_MAX,
    Instrument,
    Quote,
)
from trading_api.modules.broker.domain.instrument import OrderSide as OrderSide
from trading_api.modules.broker.errors import OrderInvalidError

_TICKS_MAX = 10**9
"""Widest distance of a trailing stop."""

GTD_SPAN_MAX = timedelta(days=366)
"""Longest life of a good-till-date order; later dates are more likely milliseconds as seconds."""


class OrderType(StrEnum):
    """How an order finds its price."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_MARKET = "STOP_MARKET"
    STOP_LIMIT = "STOP_LIMIT"

    @property
    def has_limit(self) -> bool:
        """Tell whether the order has a limit price."""
        return self in (OrderType.LIMIT, OrderType.STOP_LIMIT)

    @property
    def has_trigger(self) -> bool:
        """Tell whether the order waits for a trigger price."""
        return self in (OrderType.STOP_MARKET, OrderType.STOP_LIMIT)


class TimeInForce(StrEnum):
    """How long an order works."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTD = "GTD"
    DAY = "DAY"


class OrderStatus(StrEnum):
    """Where an order stands; ``TRANSITIONS`` has the only ways between them."""

    NEW = "NEW"
    HELD = "HELD"
    ACCEPTED = "ACCEPTED"
    TRIGGERED = "TRIGGERED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    PENDING_REPLACE = "PENDING_REPLACE"
    PENDING_CANCEL = "PENDING_CANCEL"
    REJECTED = "REJECTED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"


_S = OrderStatus

TRANSITIONS: Mapping[OrderStatus, frozenset[OrderStatus]] = MappingProxyType(
    {
        _S.NEW: frozenset({_S.REJECTED, _S.ACCEPTED, _S.HELD}),
        _S.HELD: frozenset({_S.ACCEPTED, _S.CANCELED, _S.REJECTED}),
        _S.ACCEPTED: frozenset(
            {
                _S.TRIGGERED,
                _S.PARTIALLY_FILLED,
                _S.FILLED,
                _S.PENDING_REPLACE,
                _S.PENDING_CANCEL,
                _S.CANCELED,
                _S.EXPIRED,
            }
        ),
        _S.TRIGGERED: frozenset(
            {
                _S.PARTIALLY_FILLED,
                _S.FILLED,
                _S.PENDING_REPLACE,
                _S.PENDING_CANCEL,
                _S.CANCELED,
                _S.EXPIRED,
                _S.REJECTED,
            }
        ),
        _S.PARTIALLY_FILLED: frozenset(
            {
                _S.PARTIALLY_FILLED,
                _S.FILLED,
                _S.PENDING_REPLACE,
                _S.PENDING_CANCEL,
                _S.CANCELED,
                _S.EXPIRED,
            }
        ),
        _S.PENDING_REPLACE: frozenset(
            {
                _S.ACCEPTED,
                _S.TRIGGERED,
                _S.PARTIALLY_FILLED,
                _S.FILLED,
                _S.CANCELED,
                _S.EXPIRED,
                _S.PENDING_CANCEL,
            }
        ),
        _S.PENDING_CANCEL: frozenset(
            {
                _S.CANCELED,
                _S.ACCEPTED,
                _S.TRIGGERED,
                _S.PARTIALLY_FILLED,
                _S.FILLED,
                _S.EXPIRED,
            }
        ),
        _S.REJECTED: frozenset(),
        _S.FILLED: frozenset(),
        _S.CANCELED: frozenset(),
        _S.EXPIRED: frozenset(),
    }
)
"""The paper venue answers at once, so the two PENDING states never occur on it."""

CLOSED = frozenset(status for status, targets in TRANSITIONS.items() if not targets)
"""Statuses that never leave."""

OPEN = frozenset(
    {_S.ACCEPTED, _S.TRIGGERED, _S.PARTIALLY_FILLED, _S.PENDING_REPLACE, _S.PENDING_CANCEL}
)
"""Statuses in which an order may fill and its account keeps a reservation for it."""


LIVE = OPEN | {_S.HELD}
"""Statuses that may still change."""


class CloseReason(StrEnum):
    """Why an order closed without being filled in full."""

    BY_CLIENT = "BY_CLIENT"
    NOT_FILLED_AT_ONCE = "NOT_FILLED_AT_ONCE"
    EXPIRED = "EXPIRED"
    NOTHING_TO_REDUCE = "NOTHING_TO_REDUCE"
    INSUFFICIENT_MARGIN = "INSUFFICIENT_MARGIN"
    SIBLING_FILLED = "SIBLING_FILLED"
    PARENT_CLOSED = "PARENT_CLOSED"
    POSITION_CLOSED = "POSITION_CLOSED"
    BRACKETS_REPLACED = "BRACKETS_REPLACED"
    STOP_OUT = "STOP_OUT"
    RESET = "RESET"


class ParentType(StrEnum):
    """What a bracket hangs on."""

    ORDER = "ORDER"
    POSITION = "POSITION"
    TRADE = "TRADE"


class BracketRole(StrEnum):
    """Which leg of a bracket an order is."""

    TAKE_PROFIT = "TAKE_PROFIT"
    STOP_LOSS = "STOP_LOSS"


@dataclass(frozen=True, slots=True)
class Trailing:
    """How far a trailing stop stays behind the best price seen; exactly one distance is set.

    Attributes:
        offset: raw price units; None where the distance is a share.
        ppm: parts per million of the price; None where the distance is fixed.
        tick: smallest step of the trigger price, raw.
        pip: what its distance is shown in, raw.
    """

    offset: int | None
    ppm: int | None
    tick: int
    pip: int

    def compute_trigger(self, side: OrderSide, price: int) -> int:
        """Return the trigger price behind a raw price: below it for sells, above it for buys.

        A share is rounded up to a whole tick; the trigger never falls below one tick.
        """
        distance = self.offset
        if distance is None:
            assert self.ppm is not None, "a distance is fixed or a share"
            distance = divide_up(divide_up(price * self.ppm, PPM), self.tick) * self.tick
        return max(self.tick, price + side.sign * distance)


@dataclass(frozen=True, slots=True)
class Brackets:
    """What protects an entry or a position; prices raw.

    Attributes:
        trailing: of a trailing stop, in place of ``stop_loss``.
    """

    take_profit: int | None = None
    stop_loss: int | None = None
    trailing: Trailing | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether there is no leg at all."""
        return self == NO_BRACKETS


NO_BRACKETS = Brackets()


@dataclass(frozen=True, slots=True)
class TicketTrailing:
    """A trailing stop's distance as a client says it; exactly one is set.

    Attributes:
        pips: of the instrument, above zero.
        percent: of the price, above zero and below a hundred, two decimals.
    """

    pips: Decimal | None = None
    percent: Decimal | None = None


@dataclass(frozen=True, slots=True)
class TicketBrackets:
    """What a client asks for to protect an entry or a position."""

    take_profit: Decimal | None = None
    stop_loss: Decimal | None = None
    trailing: TicketTrailing | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether no leg is asked for."""
        return self == TicketBrackets()


@dataclass(frozen=True, slots=True)
class OrderTicket:
    """What a client asks for, before it is measured against the instrument.

    Attributes:
        symbol: full symbol, ``DEMO:AAPL``.
        quantity: in units of the instrument.
        limit_price: of LIMIT and STOP_LIMIT; else None.
        trigger_price: of STOP_MARKET and STOP_LIMIT; else None. A trailing stop may leave it out:
            it then begins at its distance from the market.
        expires_at: of GTD, UTC; else None.
        reduce_only: whether it may only make a position smaller.
        post_only: whether it must never take; of LIMIT only.
        trailing: of a trailing stop; else None.
        brackets: what shall protect the position that it opens.
        position_id: on a hedging account the position that a reduce-only order closes; else None.
    """

    symbol: str
    side: OrderSide
    type: OrderType
    quantity: Decimal
    limit_price: Decimal | None = None
    trigger_price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    expires_at: datetime | None = None
    reduce_only: bool = False
    post_only: bool = False
    trailing: TicketTrailing | None = None
    brackets: TicketBrackets = TicketBrackets()
    position_id: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted order.

    Attributes:
        order_id: ours.
        client_order_id: the caller's, unique on the account for ever; None where none was given.
        position_id: the position that its fills change: the symbol under netting.
        price_scale: decimals of every price here.
        quantity_scale: decimals of every quantity here.
        quantity: whole size, raw.
        limit_price: raw; None where the type has none.
        trigger_price: raw; None where the type has none. A trailing stop's moves with the market.
        expires_at: when GTD and DAY orders end, UTC; None otherwise.
        filled_quantity: raw, from 0 to ``quantity``.
        filled_value: Σ raw quantity · raw price of its fills, exact.
        reserve_price: raw; what margin is reserved at while the order is open.
        quote_sequence: newest quote that it has met, or that was known at acceptance or
            modification; it matches later ones only.
        ingest_sequence: number of the account's event that accepted it: with the quote's it
            decides everything random about its fills.
        active_at: from when the venue works it, UTC; None: from its acceptance, whatever the clock
            says since.
        parent_id: of a bracket: the entry it waits for, later the position it protects.
        role: of a bracket; None for any other order.
        brackets: of an entry: what protects the position it opens.
        close_reason: why it closed unfilled; None while open and when filled.
        accepted_at: UTC.
        updated_at: when it last changed, UTC.
    """

    order_id: str
    account_id: str
    client_order_id: str | None
    symbol: str
    side: OrderSide
    type: OrderType
    time_in_force: TimeInForce
    reduce_only: bool
    price_scale: int
    quantity_scale: int
    quantity: int
    limit_price: int | None
    trigger_price: int | None
    expires_at: datetime | None
    reserve_price: int
    quote_sequence: int
    accepted_at: datetime
    updated_at: datetime
    position_id: str
    ingest_sequence: int = 0
    active_at: datetime | None = None
    post_only: bool = False
    trailing: Trailing | None = None
    parent_id: str | None = None
    parent_type: ParentType | None = None
    role: BracketRole | None = None
    brackets: Brackets = NO_BRACKETS
    status: OrderStatus = OrderStatus.NEW
    filled_quantity: int = 0
    filled_value: int = 0
    close_reason: CloseReason | None = None

    @property
    def leaves_quantity(self) -> int:
        """Return what is still to be filled, raw; 0 once closed."""
        return 0 if self.status in CLOSED else self.quantity - self.filled_quantity

    @property
    def is_open(self) -> bool:
        """Tell whether the order may still fill."""
        return self.status in OPEN

    @property
    def is_live(self) -> bool:
        """Tell whether the order may still change."""
        return self.status in LIVE

    @property
    def is_held(self) -> bool:
        """Tell whether a bracket still waits for its entry."""
        return self.status is OrderStatus.HELD

    @property
    def is_waiting_for_trigger(self) -> bool:
        """Tell whether a stop has not seen its trigger price yet."""
        return self.type.has_trigger and self.status is OrderStatus.ACCEPTED

    @property
    def is_at_once(self) -> bool:
        """Tell whether what the first quote doesn't fill is canceled."""
        return self.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)

    def protects(self, position_id: str) -> bool:
        """Tell whether it is a working leg of a position's brackets."""
        return (
            self.role is not None
            and self.parent_type is not ParentType.ORDER
            and self.parent_id == position_id
            and self.is_open
        )

    def waits_for(self, order_id: str) -> bool:
        """Tell whether it is a leg that an entry still holds."""
        return self.is_held and self.parent_id == order_id

    def average_fill_price(self) -> int:
        """Return the average price of its fills in 10^-8, rounded here for the first time."""
        assert self.filled_quantity, "an order without a fill has no price"
        shifted = self.filled_value * int(10 ** (COST_SCALE - self.price_scale))
        return divide_half_even(shifted, self.filled_quantity)

    def accept(self) -> "Order":
        """Return the order as the venue works it."""
        return self._moved(OrderStatus.ACCEPTED, self.accepted_at)

    def hold(self) -> "Order":
        """Return a bracket that waits for its entry."""
        assert self.role is not None, "only brackets wait"
        return self._moved(OrderStatus.HELD, self.accepted_at)

    def activate(
        self, *, parent_type: ParentType, quantity: int, quote: Quote, now: datetime
    ) -> "Order":
        """Return a held bracket as it protects its position, on quotes that come later.

        Args:
            quantity: size of the position, raw.
            quote: the one that its entry filled on; a trailing stop begins there.
        """
        assert self.is_held, "only held brackets wait for their entry"
        trigger = self.trigger_price
        if self.trailing is not None:
            trigger = self.trailing.compute_trigger(self.side, quote.touch(self.side))
        return replace(
            self._moved(OrderStatus.ACCEPTED, now),
            parent_id=self.position_id,
            parent_type=parent_type,
            quantity=quantity,
            trigger_price=trigger,
            quote_sequence=max(self.quote_sequence, quote.sequence),
            active_at=None,
        )

    def resize(self, quantity: int, now: datetime) -> "Order":
        """Return a bracket with ``quantity`` raw units left to fill."""
        assert quantity > 0, "a bracket of nothing is canceled"
        assert self.is_live, "closed orders keep their size"
        return replace(self, quantity=self.filled_quantity + quantity, updated_at=now)

    def trail(self, trigger_price: int, quote: Quote, now: datetime) -> "Order":
        """Return a trailing stop that has followed the market to a better trigger price."""
        assert self.trailing is not None, "only trailing stops move"
        assert self.is_waiting_for_trigger, "a triggered stop stays where it is"
        return replace(
            self, trigger_price=trigger_price, quote_sequence=quote.sequence, updated_at=now
        )

    def trigger(self, now: datetime) -> "Order":
        """Return a stop whose trigger price was seen."""
        assert self.type.has_trigger, "only stops trigger"
        return self._moved(OrderStatus.TRIGGERED, now)

    def meet(self, quote: Quote) -> "Order":
        """Return the order as one that a quote will not match again."""
        return replace(self, quote_sequence=max(self.quote_sequence, quote.sequence))

    def fill(self, quantity: int, price: int, now: datetime) -> "Order":
        """Return the order after a fill of ``quantity`` raw units at a raw price."""
        assert 0 < quantity <= self.leaves_quantity, "a fill takes from what is left"
        assert not self.is_waiting_for_trigger, "a stop fills after its trigger"
        assert self.limit_price is None or self.side.sign * (self.limit_price - price) >= 0, (
            "a limit never fills worse"
        )
        filled = self.filled_quantity + quantity
        status = OrderStatus.FILLED if filled == self.quantity else OrderStatus.PARTIALLY_FILLED
        return replace(
            self._moved(status, now),
            filled_quantity=filled,
            filled_value=self.filled_value + quantity * price,
        )

    def cancel(self, reason: CloseReason, now: datetime) -> "Order":
        """Return the order without what was left of it."""
        return replace(self._moved(OrderStatus.CANCELED, now), close_reason=reason)

    def expire(self, now: datetime) -> "Order":
        """Return the order after its time."""
        return replace(self._moved(OrderStatus.EXPIRED, now), close_reason=CloseReason.EXPIRED)

    def reject(self, reason: CloseReason, now: datetime) -> "Order":
        """Return the order refused after acceptance, as a stop may be at its trigger."""
        return replace(self._moved(OrderStatus.REJECTED, now), close_reason=reason)

    def _moved(self, status: OrderStatus, now: datetime) -> "Order":
        assert status in TRANSITIONS[self.status], f"{self.status} never becomes {status}"
        return replace(self, status=status, updated_at=now)


@dataclass(frozen=True, slots=True)
class Measures:
    """A ticket's numbers at the instrument's scales, checked against its rules."""

    quantity: int
    limit_price: int | None
    trigger_price: int | None
    trailing: Trailing | None
    brackets: Brackets
    expires_at: datetime | None


def measure(ticket: OrderTicket, instrument: Instrument, quote: Quote, now: datetime) -> Measures:
    """Check a ticket against its instrument, its own type and the market (O11).

    Fields at fault are named as the ticket of every wire dialect here names them.

    Args:
        quote: the newest; a trailing stop begins there, and brackets of market orders lie on
            both sides of it.

    Raises:
        OrderInvalidError: ``errors`` has every field that breaks a rule.
    """
    errors: list[FieldError] = []
    quantity = _stepped(
        "qty",
        ticket.quantity,
        scale=instrument.quantity_scale,
        step=instrument.quantity_step,
        maximum=instrument.quantity_max,
        errors=errors,
    )
    limit_price = _price(
        "limitPrice", ticket.limit_price, ticket.type.has_limit, instrument, errors
    )
    trailing = _trailing("trail", ticket.trailing, instrument, errors)
    if ticket.trailing is not None and ticket.type is not OrderType.STOP_MARKET:
        errors.append(FieldError("trail", "unexpected", "belongs to stop orders alone"))
        trailing = None
    trigger_price: int | None
    if trailing is not None and ticket.trigger_price is None:
        trigger_price = trailing.compute_trigger(ticket.side, quote.touch(ticket.side))
    else:
        trigger_price = _price(
            "stopPrice", ticket.trigger_price, ticket.type.has_trigger, instrument, errors
        )
    expires_at = _expiry(ticket, now, errors)
    _check_flags(ticket, errors)
    entry = limit_price or trigger_price
    brackets = measure_brackets(
        ticket.brackets,
        instrument,
        ticket.side,
        above=entry or quote.ask,
        below=entry or quote.bid,
        errors=errors,
    )
    for price in (limit_price, trigger_price):
        if quantity and price and quantity * price > VALUE_RAW_MAX:
            errors.append(FieldError("qty", "value_too_large", "the order is worth too much"))
    if errors:
        raise OrderInvalidError(
            "; ".join(f"{each.field}: {each.message}" for each in errors), errors=errors
        )
    assert quantity is not None
    return Measures(quantity, limit_price, trigger_price, trailing, brackets, expires_at)


def measure_brackets(
    wanted: TicketBrackets,
    instrument: Instrument,
    side: OrderSide,
    *,
    above: int,
    below: int,
    errors: list[FieldError],
) -> Brackets:
    """Check what shall protect an entry or a position of that side; faults go to ``errors``.

    Of a buy the take-profit lies above ``above`` and the stop-loss below ``below``, raw; of a sell
    the other way round.
    """
    take_profit = _optional_price("takeProfit", wanted.take_profit, instrument, errors)
    stop_loss = _optional_price("stopLoss", wanted.stop_loss, instrument, errors)
    trailing = _trailing("trailingStopPips", wanted.trailing, instrument, errors)
    if wanted.trailing is not None and wanted.stop_loss is not None:
        errors.append(
            FieldError("stopLoss", "unexpected", "a position has a stop-loss or a trailing stop")
        )
    high, low = ("takeProfit", take_profit), ("stopLoss", stop_loss)
    if side is OrderSide.SELL:
        high, low = low, high
    if high[1] is not None and high[1] <= above:
        errors.append(
            FieldError(high[0], "wrong_side", f"must be above {_show(above, instrument)}")
        )
    if low[1] is not None and low[1] >= below:
        errors.append(FieldError(low[0], "wrong_side", f"must be below {_show(below, instrument)}"))
    return Brackets(take_profit, stop_loss, trailing)


def day_end(now: datetime) -> datetime:
    """Return the end of the trading day that ``now`` belongs to: the next 00:00 UTC."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + timedelta(days=1)


def _stepped(
    field: str, value: Decimal, *, scale: int, step: int, maximum: int, errors: list[FieldError]
) -> int | None:
    try:
        raw = raw_of(value, scale)
    except InvalidValueError:
        errors.append(FieldError(field, "step", f"has more than {scale} decimals"))
        return None
    if raw <= 0:
        errors.append(FieldError(field, "positive", "must be above zero"))
    elif raw % step:
        errors.append(FieldError(field, "step", f"must be a multiple of {_text(step, scale)}"))
    elif raw > maximum:
        errors.append(FieldError(field, "maximum", f"must be at most {_text(maximum, scale)}"))
    else:
        return raw
    return None


def _price(
    field: str,
    value: Decimal | None,
    is_needed: bool,
    instrument: Instrument,
    errors: list[FieldError],
) -> int | None:
    if value is None:
        if is_needed:
            errors.append(FieldError(field, "missing", "is needed for this order type"))
        return None
    if not is_needed:
        errors.append(FieldError(field, "unexpected", "has no meaning for this order type"))
        return None
    return _stepped(
        field,
        value,
        scale=instrument.price_scale,
        step=instrument.tick,
        maximum=int(10 ** (10 + instrument.price_scale)),
        errors=errors,
    )


def _optional_price(
    field: str, value: Decimal | None, instrument: Instrument, errors: list[FieldError]
) -> int | None:
    return None if value is None else _price(field, value, True, instrument, errors)


def _trailing(
    field: str, wanted: TicketTrailing | None, instrument: Instrument, errors: list[FieldError]
) -> Trailing | None:
    if wanted is None:
        return None
    if (wanted.pips is None) == (wanted.percent is None):
        errors.append(FieldError(field, "missing", "needs pips or a percentage, not both"))
        return None
    if wanted.pips is not None:
        ticks = wanted.pips * instrument.pip / instrument.tick
        if ticks <= 0 or ticks != ticks.to_integral_value() or ticks > _TICKS_MAX:
            errors.append(FieldError(field, "step", "must come to whole ticks above zero"))
            return None
        return Trailing(int(ticks) * instrument.tick, None, instrument.tick, instrument.pip)
    assert wanted.percent is not None
    ppm = wanted.percent * 10_000
    if not 0 < ppm < PPM or ppm != ppm.to_integral_value():
        message = "must lie between 0 and 100 with at most four decimals"
        errors.append(FieldError(field, "range", message))
        return None
    return Trailing(None, int(ppm), instrument.tick, instrument.pip)


def _check_flags(ticket: OrderTicket, errors: list[FieldError]) -> None:
    if ticket.post_only and (
        ticket.type is not OrderType.LIMIT
        or ticket.time_in_force in (TimeInForce.IOC, TimeInForce.FOK)
    ):
        errors.append(FieldError("postOnly", "unexpected", "belongs to resting limit orders alone"))
    if ticket.reduce_only and not ticket.brackets.is_empty:
        errors.append(FieldError("takeProfit", "unexpected", "a closing order opens nothing"))
    if ticket.position_id is not None and not ticket.reduce_only:
        errors.append(FieldError("positionId", "unexpected", "belongs to closing orders alone"))


def _show(raw: int, instrument: Instrument) -> str:
    return _text(raw, instrument.price_scale)


def _expiry(ticket: OrderTicket, now: datetime, errors: list[FieldError]) -> datetime | None:
    if ticket.time_in_force is TimeInForce.DAY:
        return day_end(now)
    if ticket.time_in_force is not TimeInForce.GTD:
        if ticket.expires_at is not None:
            errors.append(
                FieldError("duration.datetime", "unexpected", "belongs to GTD orders alone")
            )
        return None
    if ticket.expires_at is None:
        errors.append(FieldError("duration.datetime", "missing", "is needed for GTD orders"))
    elif ticket.expires_at <= now:
        errors.append(FieldError("duration.datetime", "in_past", "must lie in the future"))
    elif ticket.expires_at > now + GTD_SPAN_MAX:
        errors.append(FieldError("duration.datetime", "maximum", "must lie within a year"))
    return ticket.expires_at


def _text(raw: int, scale: int) -> str:
    return f"{Decimal(raw).scaleb(-scale):f}"
