"""Orders: the ticket and its rules, the states and the only ways between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from trading_api.kernel.errors import FieldError, InvalidValueError
from trading_api.kernel.values import raw_of
from trading_api.modules.broker.domain.arithmetic import divide_half_even
from trading_api.modules.broker.domain.instrument import (
    COST_SCALE,
    VALUE_RAW_MAX,
    Instrument,
)
from trading_api.modules.broker.errors import OrderInvalidError

GTD_SPAN_MAX = timedelta(days=366)
"""Longest life of a good-till-date order; later dates are more likely milliseconds as seconds."""


class OrderSide(StrEnum):
    """Which way an order trades."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        """Return +1 for BUY and -1 for SELL."""
        return 1 if self is OrderSide.BUY else -1

    @property
    def opposite(self) -> "OrderSide":
        """Return the other side."""
        return OrderSide.SELL if self is OrderSide.BUY else OrderSide.BUY


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


class CloseReason(StrEnum):
    """Why an order closed without being filled in full."""

    BY_CLIENT = "BY_CLIENT"
    NOT_FILLED_AT_ONCE = "NOT_FILLED_AT_ONCE"
    EXPIRED = "EXPIRED"
    NOTHING_TO_REDUCE = "NOTHING_TO_REDUCE"
    INSUFFICIENT_MARGIN = "INSUFFICIENT_MARGIN"
    STOP_OUT = "STOP_OUT"
    RESET = "RESET"


@dataclass(frozen=True, slots=True)
class OrderTicket:
    """What a client asks for, before it is measured against the instrument.

    Attributes:
        symbol: full symbol, ``DEMO:AAPL``.
        quantity: in units of the instrument.
        limit_price: of LIMIT and STOP_LIMIT; else None.
        trigger_price: of STOP_MARKET and STOP_LIMIT; else None.
        expires_at: of GTD, UTC; else None.
        reduce_only: whether it may only make a position smaller.
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


@dataclass(frozen=True, slots=True)
class Order:
    """An accepted order.

    Attributes:
        order_id: ours.
        client_order_id: the caller's, unique on the account for ever; None where none was given.
        price_scale: decimals of every price here.
        quantity_scale: decimals of every quantity here.
        quantity: whole size, raw.
        limit_price: raw; None where the type has none.
        trigger_price: raw; None where the type has none.
        expires_at: when GTD and DAY orders end, UTC; None otherwise.
        filled_quantity: raw, from 0 to ``quantity``.
        filled_value: Σ raw quantity · raw price of its fills, exact.
        reserve_price: raw; what margin is reserved at while the order is open.
        quote_sequence: newest quote at acceptance or modification; a resting order matches later
            ones only.
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
    def is_waiting_for_trigger(self) -> bool:
        """Tell whether a stop has not seen its trigger price yet."""
        return self.type.has_trigger and self.status is OrderStatus.ACCEPTED

    def average_fill_price(self) -> int:
        """Return the average price of its fills in 10^-8, rounded here for the first time."""
        assert self.filled_quantity, "an order without a fill has no price"
        shifted = self.filled_value * int(10 ** (COST_SCALE - self.price_scale))
        return divide_half_even(shifted, self.filled_quantity)

    def accept(self) -> "Order":
        """Return the order as the venue works it."""
        return self._moved(OrderStatus.ACCEPTED, self.accepted_at)

    def trigger(self, now: datetime) -> "Order":
        """Return a stop whose trigger price was seen."""
        assert self.type.has_trigger, "only stops trigger"
        return self._moved(OrderStatus.TRIGGERED, now)

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
    expires_at: datetime | None


def measure(ticket: OrderTicket, instrument: Instrument, now: datetime) -> Measures:
    """Check a ticket against its instrument and its own type (O11).

    Fields at fault are named as the ticket of every wire dialect here names them.

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
    trigger_price = _price(
        "stopPrice", ticket.trigger_price, ticket.type.has_trigger, instrument, errors
    )
    expires_at = _expiry(ticket, now, errors)
    for price in (limit_price, trigger_price):
        if quantity and price and quantity * price > VALUE_RAW_MAX:
            errors.append(FieldError("qty", "value_too_large", "the order is worth too much"))
    if errors:
        raise OrderInvalidError(
            "; ".join(f"{each.field}: {each.message}" for each in errors), errors=errors
        )
    assert quantity is not None
    return Measures(quantity, limit_price, trigger_price, expires_at)


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
