"""Wire models of the broker in TradingView's shapes, and their conversion from the domain.

Enumerations are TradingView's numbers; instants are milliseconds since 1970 UTC; prices,
quantities and money are JSON numbers written as exact decimals, never through a float.
"""

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
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.arithmetic import divide_half_even
from trading_api.modules.broker.domain.event import AccountEvent, CashChange
from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.domain.instrument import (
    COST_SCALE,
    Instrument,
    Policy,
    Quote,
    full_symbol,
)
from trading_api.modules.broker.domain.order import (
    CloseReason,
    Order,
    OrderSide,
    OrderStatus,
    OrderTicket,
    OrderType,
    TimeInForce,
)
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.service.orders import OrderChange, Preview
from trading_api.modules.broker.service.reports import AccountReport
from trading_api.runtime.http.wire import (
    RequestModel,
    ResponseModel,
    StrictInt,
    Symbol,
    WireDecimal,
)

TypeValue = Literal[1, 2, 3, 4]
SideValue = Literal[1, -1]
StatusValue = Literal[1, 2, 3, 4, 5, 6]
EventKind = Literal["order", "execution", "position", "cash"]

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
_TYPES = {number: type_ for type_, number in TYPE_NUMBERS.items()}
_SIDES = {number: side for side, number in SIDE_NUMBERS.items()}
_TYPE_WORDS = {"limit": 1, "market": 2, "stop": 3, "stoplimit": 4}
_SIDE_WORDS = {"buy": 1, "sell": -1}
_REASONS = {
    CloseReason.BY_CLIENT: "canceled by the client",
    CloseReason.NOT_FILLED_AT_ONCE: "not filled at once",
    CloseReason.EXPIRED: "its time was over",
    CloseReason.NOTHING_TO_REDUCE: "no position left to reduce",
    CloseReason.INSUFFICIENT_MARGIN: "the account had not the margin for it any more",
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


class _View(ResponseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class _Request(RequestModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, extra="forbid")


def _word_to_number(words: Mapping[str, int]) -> BeforeValidator:
    def convert(value: Any) -> Any:
        if isinstance(value, bool):
            # True equals 1 and would pass as the number.
            raise ValueError("must be a number")
        return words.get(value.lower(), value) if isinstance(value, str) else value

    return BeforeValidator(convert)


TypeNumber = Annotated[
    Literal[1, 2, 3, 4],
    _word_to_number(_TYPE_WORDS),
    Field(description="1 limit, 2 market, 3 stop, 4 stop-limit; the words are understood too"),
]
SideNumber = Annotated[
    Literal[1, -1],
    _word_to_number(_SIDE_WORDS),
    Field(description="1 buy, -1 sell; the words are understood too"),
]
ClientOrderId = Annotated[
    str,
    StringConstraints(pattern=r"^[\x21-\x7e]{1,64}$"),
    Field(description="unique on the account for ever; a repeat gives the first answer"),
]
InstantMs = Annotated[StrictInt, Field(ge=0, le=_INSTANT_MS_MAX)]


class DurationRequest(_Request):
    """How long an order works."""

    type: Annotated[
        TimeInForce, BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v)
    ] = Field(TimeInForce.GTC, description="GTC, DAY, GTD, IOC or FOK")
    datetime: InstantMs | None = Field(None, description="of GTD, milliseconds since 1970 UTC")


class CurrentQuotes(_Request):
    """What the client saw when it asked; the venue goes by its own quote."""

    ask: WireDecimal | None = None
    bid: WireDecimal | None = None


class OrderRequest(_Request):
    """An order as TradingView's ``placeOrder`` gives it."""

    symbol: Symbol = Field(description="`DEMO:AAPL`, or `AAPL` for the same")
    type: TypeNumber
    side: SideNumber
    qty: WireDecimal = Field(description="in units of the instrument")
    limit_price: WireDecimal | None = Field(None, description="of limit and stop-limit orders")
    stop_price: WireDecimal | None = Field(None, description="trigger of stop orders")
    duration: DurationRequest | None = Field(None, description="GTC where absent")
    is_close: bool = Field(False, strict=True, description="may only make a position smaller")
    client_order_id: ClientOrderId | None = None
    current_quotes: CurrentQuotes | None = None

    def to_ticket(self) -> OrderTicket:
        """Translate into the domain's words."""
        duration = self.duration or DurationRequest.model_validate({})
        return OrderTicket(
            symbol=full_symbol(self.symbol),
            side=_SIDES[self.side],
            type=_TYPES[self.type],
            quantity=self.qty,
            limit_price=self.limit_price,
            trigger_price=self.stop_price,
            time_in_force=duration.type,
            expires_at=_instant(duration.datetime),
            reduce_only=self.is_close,
        )


class OrderPatch(_Request):
    """What to change of an open order; absent fields stay as they are."""

    qty: WireDecimal | None = Field(None, description="whole size, above what is filled already")
    limit_price: WireDecimal | None = None
    stop_price: WireDecimal | None = None
    duration: DurationRequest | None = None

    def to_change(self) -> OrderChange:
        """Translate into the domain's words."""
        duration = self.duration
        return OrderChange(
            quantity=self.qty,
            limit_price=self.limit_price,
            trigger_price=self.stop_price,
            time_in_force=duration.type if duration else None,
            expires_at=_instant(duration.datetime) if duration else None,
        )


class AccountRequest(_Request):
    """A further paper account."""

    name: (
        Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)] | None
    ) = None


class PlacedView(_View):
    """The order that was placed."""

    order_id: str


class DoneView(_View):
    """A change that was made, or had been made before."""

    success: Literal[True] = True
    message: str
    order_id: str | None = None


class DurationView(_View):
    """How long an order works."""

    type: str
    datetime: int | None = None


class MessageView(_View):
    """Why an order ended as it did."""

    text: str
    type: Literal["information", "error"]


class OrderView(_View):
    """An order: TradingView's PlacedOrder with some more."""

    id: str
    account_id: str
    client_order_id: str | None
    symbol: str
    type: Literal[1, 2, 3, 4]
    side: Literal[1, -1]
    qty: Number
    filled_qty: Number
    leaves_qty: Number
    status: Literal[1, 2, 3, 4, 5, 6] = Field(
        description="1 canceled, 2 filled, 3 inactive, 4 placing, 5 rejected, 6 working"
    )
    state: str = Field(description="our own, finer word for the status")
    limit_price: Number | None
    stop_price: Number | None
    avg_price: Number | None
    duration: DurationView
    is_close: bool
    create_time: Milliseconds
    update_time: Milliseconds
    message: MessageView | None

    @classmethod
    def of(cls, order: Order) -> "OrderView":
        """Translate an order."""
        average = (
            decimal_of(order.average_fill_price(), COST_SCALE) if order.filled_quantity else None
        )
        message = None
        if order.close_reason is not None:
            is_error = order.status is OrderStatus.REJECTED
            message = MessageView(
                text=_REASONS[order.close_reason], type="error" if is_error else "information"
            )
        has_end = order.time_in_force is TimeInForce.GTD
        return cls.model_construct(
            id=order.order_id,
            account_id=order.account_id,
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            type=TYPE_NUMBERS[order.type],
            side=SIDE_NUMBERS[order.side],
            qty=decimal_of(order.quantity, order.quantity_scale),
            filled_qty=decimal_of(order.filled_quantity, order.quantity_scale),
            leaves_qty=decimal_of(order.leaves_quantity, order.quantity_scale),
            status=STATUS_NUMBERS[order.status],
            state=order.status.value,
            limit_price=_decimal(order.limit_price, order.price_scale),
            stop_price=_decimal(order.trigger_price, order.price_scale),
            avg_price=average,
            duration=DurationView(
                type=order.time_in_force.value,
                datetime=_ms(order.expires_at) if has_end and order.expires_at else None,
            ),
            is_close=order.reduce_only,
            create_time=_ms(order.accepted_at),
            update_time=_ms(order.updated_at),
            message=message,
        )


class QuoteView(_View):
    """The quote that something was reckoned with."""

    bid: Number
    ask: Number
    sequence: int
    time: Milliseconds

    @classmethod
    def of(cls, quote: Quote) -> "QuoteView":
        """Translate a quote."""
        return cls.model_construct(
            bid=decimal_of(quote.bid, quote.price_scale),
            ask=decimal_of(quote.ask, quote.price_scale),
            sequence=quote.sequence,
            time=_ms(quote.at),
        )


class ExecutionView(_View):
    """A fill: TradingView's Execution with some more."""

    id: str
    order_id: str
    account_id: str
    symbol: str
    side: Literal[1, -1]
    qty: Number
    price: Number
    time: Milliseconds
    commission: Number
    realized_pl: Number = Field(description="what the closed part earned, before commission")
    currency: str
    is_close: bool = Field(description="whether it closed anything")
    closed_qty: Number
    liquidity: Literal["MAKER", "TAKER"]
    quote: QuoteView
    sequence: int = Field(description="number of its event on the account")

    @classmethod
    def of(cls, execution: Execution) -> "ExecutionView":
        """Translate an execution."""
        price_scale, quantity_scale = execution.price_scale, execution.quantity_scale
        return cls.model_construct(
            id=execution.execution_id,
            order_id=execution.order_id,
            account_id=execution.account_id,
            symbol=execution.symbol,
            side=SIDE_NUMBERS[execution.side],
            qty=decimal_of(execution.quantity, quantity_scale),
            price=decimal_of(execution.price, price_scale),
            time=_ms(execution.executed_at),
            commission=decimal_of(execution.commission_minor, execution.currency_scale),
            realized_pl=decimal_of(execution.realized_minor, execution.currency_scale),
            currency=execution.currency,
            is_close=execution.closed_quantity > 0,
            closed_qty=decimal_of(execution.closed_quantity, quantity_scale),
            liquidity=execution.liquidity.value,
            quote=QuoteView.model_construct(
                bid=decimal_of(execution.quote_bid, price_scale),
                ask=decimal_of(execution.quote_ask, price_scale),
                sequence=execution.quote_sequence,
                time=_ms(execution.quote_at),
            ),
            sequence=execution.sequence,
        )


class PositionView(_View):
    """What is held of an instrument; ``qty`` 0 tells that it was closed."""

    id: str = Field(description="the symbol: one position per instrument")
    account_id: str
    symbol: str
    qty: Number
    side: Literal[1, -1]
    avg_price: Number = Field(description="average entry price, rounded to 8 decimals; 0 when flat")
    realized_pl: Number
    commission: Number
    open_time: Milliseconds | None
    update_time: Milliseconds
    mark_price: Number | None = Field(
        default=None, description="longs at the bid, shorts at the ask; only where asked by HTTP"
    )
    unrealized_pl: Number | None = None
    margin: Number | None = None

    @classmethod
    def of(cls, position: Position, marked_to: Mapping[str, Quote] | None = None) -> "PositionView":
        """Translate a position, with what it is worth where quotes are given."""
        terms = position.terms
        worth: dict[str, Any] = {"mark_price": None, "unrealized_pl": None, "margin": None}
        if marked_to is not None:
            mark = position.mark(marked_to.get(position.symbol))
            worth = {
                "mark_price": decimal_of(mark, terms.price_scale),
                "unrealized_pl": _money(position.compute_unrealized(mark), terms.currency),
                "margin": _money(position.compute_margin(mark), terms.currency),
            }
        return cls.model_construct(
            id=position.symbol,
            account_id=position.account_id,
            symbol=position.symbol,
            qty=decimal_of(abs(position.signed_quantity), terms.quantity_scale),
            side=-1 if position.signed_quantity < 0 else 1,
            avg_price=_rounded(position.average_entry_price()),
            realized_pl=_money(position.realized_minor, terms.currency),
            commission=_money(position.commission_minor, terms.currency),
            open_time=_ms(position.opened_at) if position.opened_at else None,
            update_time=_ms(position.updated_at),
            **worth,
        )


class CashView(_View):
    """A movement of the account's cash."""

    entry_id: str
    type: str
    change: Number
    balance: Number
    currency: str
    reference: str | None

    @classmethod
    def of(cls, change: CashChange) -> "CashView":
        """Translate a cash change."""
        return cls.model_construct(
            entry_id=change.entry_id,
            type=change.type,
            change=decimal_of(change.change_minor, change.currency_scale),
            balance=decimal_of(change.cash_minor, change.currency_scale),
            currency=change.currency,
            reference=change.reference,
        )


class EventView(_View):
    """One event of the account's gapless sequence; it shows what its ``type`` names."""

    sequence: int
    type: Literal["order", "execution", "position", "cash"]
    time: Milliseconds
    order: OrderView | None = None
    execution: ExecutionView | None = None
    position: PositionView | None = None
    cash: CashView | None = None

    @classmethod
    def of(cls, event: AccountEvent) -> "EventView":
        """Translate an event."""
        kind, subject = show(event)
        shown: dict[str, Any] = dict.fromkeys(("order", "execution", "position", "cash"))
        return cls.model_construct(
            sequence=event.sequence,
            type=kind,
            time=_ms(event.occurred_at),
            **{**shown, kind: subject},
        )


class AccountView(_View):
    """A trading account."""

    id: str
    name: str
    type: Literal["demo", "live"]
    currency: str
    currency_sign: str
    epoch: str = Field(description="changes when the event sequence starts anew")
    offset: int = Field(description="number of its newest event")
    open_time: Milliseconds

    @classmethod
    def of(cls, account: Account) -> "AccountView":
        """Translate an account."""
        code = account.currency.code
        return cls.model_construct(
            id=account.account_id,
            name=account.name,
            type="demo" if account.book == "demo" else "live",
            currency=code,
            currency_sign="$" if code == "USD" else code,
            epoch=account.epoch,
            offset=account.event_sequence,
            open_time=_ms(account.opened_at),
        )


class StateView(_View):
    """What an account is worth, marked to the newest quotes."""

    account_id: str
    currency: str
    balance: Number = Field(description="cash: deposits, results and commissions so far")
    equity: Number = Field(description="balance and unrealized results")
    unrealized_pl: Number
    realized_pl: Number = Field(description="before commission")
    commission: Number
    margin_used: Number
    margin_reserved: Number = Field(description="for open orders")
    margin_available: Number = Field(description="for new orders; may be negative")
    withdrawable: Number
    positions: list[PositionView]
    epoch: str
    offset: int = Field(description="number of the newest event that this contains")

    @classmethod
    def of(cls, report: AccountReport) -> "StateView":
        """Translate a report."""
        account, worth = report.account, report.valuation

        def money(minor: int) -> Decimal:
            return _money(minor, account.currency)

        return cls.model_construct(
            account_id=account.account_id,
            currency=account.currency.code,
            balance=money(worth.cash_minor),
            equity=money(worth.equity_minor),
            unrealized_pl=money(worth.unrealized_minor),
            realized_pl=money(worth.realized_minor),
            commission=money(worth.commission_minor),
            margin_used=money(worth.margin_minor),
            margin_reserved=money(worth.reserved_minor),
            margin_available=money(worth.available_minor),
            withdrawable=money(worth.withdrawable_minor),
            positions=[PositionView.of(each, report.quotes) for each in report.positions],
            epoch=account.epoch,
            offset=account.event_sequence,
        )


class QuantityRules(_View):
    """What sizes an order may have."""

    min: Number
    max: Number
    step: Number
    default: Number


class InstrumentView(_View):
    """An instrument's rules: TradingView's InstrumentInfo with some more."""

    symbol: str
    broker_symbol: str
    description: str
    type: str
    qty: QuantityRules
    pip_size: Number
    pip_value: Number
    min_tick: Number
    limit_price_step: Number
    stop_price_step: Number
    lot_size: int
    big_point_value: int
    leverage: str
    margin_rate: Number
    commission_ppm: int = Field(description="parts per million of the traded value")
    currency: str
    base_currency: str | None
    quote_currency: str
    allowed_durations: list[str]
    session: str
    timezone: str
    tradable: bool
    quote: QuoteView | None

    @classmethod
    def of(cls, instrument: Instrument, policy: Policy, quote: Quote | None) -> "InstrumentView":
        """Translate an instrument."""
        tick = decimal_of(instrument.tick, instrument.price_scale)
        pip = tick * 10 if instrument.kind == "forex" else tick
        step = decimal_of(instrument.quantity_step, instrument.quantity_scale)
        leverage = policy.leverage_by_kind.get(instrument.kind, 1)
        return cls.model_construct(
            symbol=instrument.symbol,
            broker_symbol=instrument.symbol,
            description=instrument.description,
            type=instrument.kind,
            qty=QuantityRules.model_construct(
                min=step,
                max=decimal_of(instrument.quantity_max, instrument.quantity_scale),
                step=step,
                default=step,
            ),
            pip_size=pip,
            pip_value=pip * instrument.multiplier,
            min_tick=tick,
            limit_price_step=tick,
            stop_price_step=tick,
            lot_size=instrument.lot_size,
            big_point_value=instrument.multiplier,
            leverage=f"{leverage}:1",
            margin_rate=_rounded(Fraction(1, leverage)),
            commission_ppm=policy.commission_ppm_by_kind.get(instrument.kind, 0),
            currency=instrument.quote_currency,
            base_currency=instrument.base_currency,
            quote_currency=instrument.quote_currency,
            allowed_durations=[each.value for each in TimeInForce],
            session=instrument.session,
            timezone=instrument.time_zone,
            tradable=instrument.tradable,
            quote=None if quote is None else QuoteView.of(quote),
        )


class PreviewRow(_View):
    """One line of a preview."""

    title: str
    value: str


class PreviewSection(_View):
    """Lines of a preview under a header."""

    header: str
    rows: list[PreviewRow]


class PreviewView(_View):
    """What an order would cost and whether it would be accepted now."""

    sections: list[PreviewSection]
    warnings: list[str]
    errors: list[str]

    @classmethod
    def of(cls, preview: Preview) -> "PreviewView":
        """Translate a preview."""

        def money(minor: int) -> str:
            return f"{_money(minor, preview.currency):f} {preview.currency.code}"

        price = decimal_of(preview.price, preview.instrument.price_scale)
        order_rows = {
            "Price at most": f"{price:f}",
            "Value": money(preview.value_minor),
            "Commission": money(preview.commission_minor),
            "Margin": money(preview.margin_minor),
            "Reserved on acceptance": money(preview.reservation_minor),
        }
        account_rows = {
            "Equity": money(preview.before.equity_minor),
            "Margin available": money(preview.before.available_minor),
        }
        return cls(
            sections=[
                PreviewSection(header=header, rows=_rows(lines))
                for header, lines in (("Order", order_rows), ("Account", account_rows))
            ],
            warnings=[],
            errors=[] if preview.error is None else [preview.error.message],
        )


def show(event: AccountEvent) -> tuple[EventKind, _View]:
    """Return what an event shows, and the word for its kind."""
    subject = event.subject
    match subject:
        case Order():
            return "order", OrderView.of(subject)
        case Execution():
            return "execution", ExecutionView.of(subject)
        case Position():
            return "position", PositionView.of(subject)
        case CashChange():
            return "cash", CashView.of(subject)


def _rows(lines: Mapping[str, str]) -> list[PreviewRow]:
    return [PreviewRow(title=title, value=value) for title, value in lines.items()]


def _money(minor: int, currency: Currency) -> Decimal:
    return decimal_of(minor, currency.scale)


def _decimal(raw: int | None, scale: int) -> Decimal | None:
    return None if raw is None else decimal_of(raw, scale)


def _rounded(value: Fraction | None) -> Decimal:
    if value is None:
        return Decimal(0)
    scaled = value.numerator * int(10**COST_SCALE)
    return decimal_of(divide_half_even(scaled, value.denominator), COST_SCALE)


def _ms(instant: datetime) -> int:
    return (instant - _EPOCH) // _MILLISECOND


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_us(milliseconds * 1000)
