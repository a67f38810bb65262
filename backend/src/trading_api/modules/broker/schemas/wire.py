"""Numbers, instants and words of the wire, and how views are encoded."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from trading_api.kernel.clock import from_us
from trading_api.kernel.values import Currency, decimal_of
from trading_api.modules.broker.domain.arithmetic import divide_half_even
from trading_api.modules.broker.domain.instrument import (
    COST_SCALE,
)
from trading_api.modules.broker.domain.order import (
    CloseReason,
    OrderSide,
    OrderStatus,
    OrderType,
    ParentType,
    Trailing,
)
from trading_api.runtime.http.wire import (
    RequestModel,
    ResponseModel,
    StrictInt,
)

TypeValue = Literal[1, 2, 3, 4]
SideValue = Literal[1, -1]
StatusValue = Literal[1, 2, 3, 4, 5, 6]
EventKind = Literal["order", "execution", "position", "cash", "notice"]

TYPE_NUMBERS: Mapping[OrderType, TypeValue] = {
    OrderType.LIMIT: 1,
    OrderType.MARKET: 2,
    OrderType.STOP_MARKET: 3,
    OrderType.STOP_LIMIT: 4,
}
SIDE_NUMBERS: Mapping[OrderSide, SideValue] = {OrderSide.BUY: 1, OrderSide.SELL: -1}
STATUS_NUMBERS: Mapping[OrderStatus, StatusValue] = {
    OrderStatus.NEW: 4,
    OrderStatus.HELD: 3,
    OrderStatus.ACCEPTED: 6,
    OrderStatus.TRIGGERED: 6,
    OrderStatus.PARTIALLY_FILLED: 6,
    OrderStatus.PENDING_REPLACE: 6,
    OrderStatus.PENDING_CANCEL: 6,
    OrderStatus.REJECTED: 5,
    OrderStatus.FILLED: 2,
    OrderStatus.CANCELED: 1,
    OrderStatus.EXPIRED: 1,
}
PARENT_NUMBERS: Mapping[ParentType, Literal[1, 2, 3]] = {
    ParentType.ORDER: 1,
    ParentType.POSITION: 2,
    ParentType.TRADE: 3,
}
TYPES = {number: type_ for type_, number in TYPE_NUMBERS.items()}
SIDES = {number: side for side, number in SIDE_NUMBERS.items()}
TYPE_WORDS = {"limit": 1, "market": 2, "stop": 3, "stoplimit": 4}
SIDE_WORDS = {"buy": 1, "sell": -1}
REASONS = {
    CloseReason.BY_CLIENT: "canceled by the client",
    CloseReason.NOT_FILLED_AT_ONCE: "not filled at once",
    CloseReason.EXPIRED: "its time was over",
    CloseReason.NOTHING_TO_REDUCE: "no position left to reduce",
    CloseReason.INSUFFICIENT_MARGIN: "the account had not the margin for it any more",
    CloseReason.STOP_OUT: "the account fell below its stop-out level",
    CloseReason.RESET: "the account was reset",
    CloseReason.SIBLING_FILLED: "the other bracket closed the position",
    CloseReason.PARENT_CLOSED: "its order closed before it was filled",
    CloseReason.POSITION_CLOSED: "its position was closed",
    CloseReason.BRACKETS_REPLACED: "other brackets took its place",
}
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MS_MAX = 4_102_444_800_000  # 2100-01-01

Number = Annotated[
    Decimal,
    PlainSerializer(float, return_type=float, when_used="json"),
    WithJsonSchema({"type": "number"}),
]
"""An exact decimal; ``encode`` writes it as it is, without a float between."""

Milliseconds = Annotated[int, Field(description="milliseconds since 1970 UTC")]


def encode(view: Any) -> bytes:
    """Encode views as JSON: decimals exact, absent values left out."""
    return orjson.dumps(view, default=_encode_other)


def fragment(view: Any) -> orjson.Fragment:
    """Return encoded views to be put into a larger JSON text."""
    return orjson.Fragment(encode(view))


def _encode_other(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_none=True)
    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value.normalize():f}".encode())
    raise TypeError(f"{type(value).__name__} has no JSON form")


class View(ResponseModel):
    """What we answer: camelCase, absent values left out."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class Request(RequestModel):
    """What we are asked: camelCase, nothing unknown."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid")


def word_to_number(words: Mapping[str, int]) -> BeforeValidator:
    """Let an enumeration's words stand for its numbers."""

    def convert(value: Any) -> Any:
        if isinstance(value, bool):
            # True equals 1 and would pass as the number.
            raise ValueError("must be a number")
        return words.get(value.lower(), value) if isinstance(value, str) else value

    return BeforeValidator(convert)


TypeNumber = Annotated[
    Literal[1, 2, 3, 4],
    word_to_number(TYPE_WORDS),
    Field(description="1 limit, 2 market, 3 stop, 4 stop-limit; the words are understood too"),
]
SideNumber = Annotated[
    Literal[1, -1],
    word_to_number(SIDE_WORDS),
    Field(description="1 buy, -1 sell; the words are understood too"),
]
SideText = Annotated[
    Literal[1, -1],
    BeforeValidator(lambda value: {"1": 1, "-1": -1, **SIDE_WORDS}.get(value, value)),
    Field(description="1 or `buy`, -1 or `sell`"),
]
"""A side in a query, where numbers are text."""
ClientOrderId = Annotated[
    str,
    StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$"),
    Field(description="unique on the account for ever; a repeat gives the first answer"),
]
InstantMs = Annotated[StrictInt, Field(ge=0, le=_INSTANT_MS_MAX)]


def money_of(minor: int, currency: Currency) -> Decimal:
    """Return minor units as a decimal of the currency."""
    return decimal_of(minor, currency.scale)


def decimal_or_none(raw: int | None, scale: int) -> Decimal | None:
    """Return a raw number as a decimal."""
    return None if raw is None else decimal_of(raw, scale)


def rounded(value: Fraction | None) -> Decimal:
    """Return an exact fraction rounded half-even to 8 decimals; 0 for None."""
    if value is None:
        return Decimal(0)
    scaled = value.numerator * int(10**COST_SCALE)
    return decimal_of(divide_half_even(scaled, value.denominator), COST_SCALE)


def ms_of(instant: datetime) -> int:
    """Return an instant as milliseconds since 1970 UTC."""
    return (instant - _EPOCH) // _MILLISECOND


def instant_of(milliseconds: int | None) -> datetime | None:
    """Return the instant of milliseconds since 1970 UTC."""
    return None if milliseconds is None else from_us(milliseconds * 1000)


def pips_of(trailing: Trailing | None) -> Decimal | None:
    """Return a trailing stop's distance in pips; None where it is a share, or there is none."""
    if trailing is None or trailing.offset is None:
        return None
    return Decimal(trailing.offset) / trailing.pip


def percent_of(trailing: Trailing | None) -> Decimal | None:
    """Return a trailing stop's distance as a percentage; None where it is fixed, or none."""
    return None if trailing is None or trailing.ppm is None else Decimal(trailing.ppm) / 10_000
