"""Orders on the wire: requests, views, previews."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
)

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.instrument import (
    COST_SCALE,
    full_symbol,
)
from trading_api.modules.broker.domain.order import (
    BracketRole,
    Order,
    OrderStatus,
    OrderTicket,
    TicketBrackets,
    TicketTrailing,
    TimeInForce,
)
from trading_api.modules.broker.schemas.wire import (
    PARENT_NUMBERS,
    REASONS,
    SIDE_NUMBERS,
    SIDES,
    STATUS_NUMBERS,
    TYPE_NUMBERS,
    TYPES,
    ClientOrderId,
    InstantMs,
    Milliseconds,
    Number,
    Request,
    SideNumber,
    TypeNumber,
    View,
    decimal_or_none,
    instant_of,
    money_of,
    ms_of,
    percent_of,
    pips_of,
)
from trading_api.modules.broker.service.orders import Keep, OrderChange, Preview
from trading_api.runtime.http.wire import (
    Symbol,
    WireDecimal,
)


class DurationRequest(Request):
    """How long an order works."""

    type: Annotated[
        TimeInForce, BeforeValidator(lambda v: v.upper() if isinstance(v, str) else v)
    ] = Field(TimeInForce.GTC, description="GTC, DAY, GTD, IOC or FOK")
    datetime: InstantMs | None = Field(None, description="of GTD, milliseconds since 1970 UTC")


class CurrentQuotes(Request):
    """What the client saw when it asked; the venue goes by its own quote."""

    ask: WireDecimal | None = None
    bid: WireDecimal | None = None


class TrailRequest(Request):
    """How far a trailing stop stays behind the best price: pips or a percentage."""

    pips: WireDecimal | None = Field(None, description="pips of the instrument")
    percent: WireDecimal | None = Field(None, description="of the price, four decimals at most")

    def to_trailing(self) -> TicketTrailing:
        """Translate into the domain's words."""
        return TicketTrailing(self.pips, self.percent)


class BracketsRequest(Request):
    """What shall protect a position or an entry; what is left out isn't there."""

    take_profit: WireDecimal | None = None
    stop_loss: WireDecimal | None = None
    trailing_stop_pips: WireDecimal | None = Field(
        None, description="a stop that follows the market, in place of `stopLoss`"
    )
    trailing_stop_percent: WireDecimal | None = None
    stop_type: Literal[0, 1] | None = Field(
        None, description="0 stop-loss, 1 trailing stop; says nothing that the rest doesn't"
    )

    def to_brackets(self) -> TicketBrackets:
        """Translate into the domain's words."""
        trailing = None
        if self.trailing_stop_pips is not None or self.trailing_stop_percent is not None:
            trailing = TicketTrailing(self.trailing_stop_pips, self.trailing_stop_percent)
        return TicketBrackets(self.take_profit, self.stop_loss, trailing)


class PositionRequest(BracketsRequest):
    """What a position shall be: on this side, protected by exactly these legs."""

    side: SideNumber | None = Field(None, description="the other one reverses; absent: as it is")


class OrderRequest(BracketsRequest):
    """An order as TradingView's ``placeOrder`` gives it."""

    symbol: Symbol = Field(description="`DEMO:AAPL`, or `AAPL` for the same")
    type: TypeNumber
    side: SideNumber
    qty: WireDecimal = Field(description="in units of the instrument")
    limit_price: WireDecimal | None = Field(None, description="of limit and stop-limit orders")
    stop_price: WireDecimal | None = Field(None, description="trigger of stop orders")
    duration: DurationRequest | None = Field(None, description="GTC where absent")
    is_close: bool = Field(False, strict=True, description="may only make a position smaller")
    post_only: bool = Field(False, strict=True, description="of limit orders: never takes")
    trail: TrailRequest | None = Field(
        None, description="makes a stop order a trailing one; `stopPrice` may then be left out"
    )
    position_id: Annotated[str, StringConstraints(pattern=r"^pos_[a-z0-9]{1,60}$")] | None = Field(
        None, description="on a hedging account the position that a closing order closes"
    )
    confirm_id: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        None, description="of this order's preview; of another order's it is refused"
    )
    client_order_id: ClientOrderId | None = None
    current_quotes: CurrentQuotes | None = None

    def to_ticket(self) -> OrderTicket:
        """Translate into the domain's words."""
        duration = self.duration or DurationRequest.model_validate({})
        return OrderTicket(
            symbol=full_symbol(self.symbol),
            side=SIDES[self.side],
            type=TYPES[self.type],
            quantity=self.qty,
            limit_price=self.limit_price,
            trigger_price=self.stop_price,
            time_in_force=duration.type,
            expires_at=instant_of(duration.datetime),
            reduce_only=self.is_close,
            post_only=self.post_only,
            trailing=None if self.trail is None else self.trail.to_trailing(),
            brackets=self.to_brackets(),
            position_id=self.position_id,
        )


class OrderPatch(BracketsRequest):
    """What to change of an open order; absent fields stay as they are, null removes a bracket."""

    qty: WireDecimal | None = Field(None, description="whole size, above what is filled already")
    limit_price: WireDecimal | None = None
    stop_price: WireDecimal | None = None
    duration: DurationRequest | None = None
    trail: TrailRequest | None = Field(None, description="another distance of a trailing stop")

    def to_change(self) -> OrderChange:
        """Translate into the domain's words."""
        duration, named = self.duration, self.model_fields_set
        brackets = self.to_brackets()
        stop: Decimal | TicketTrailing | Keep | None = Keep.KEEP
        if named & {"stop_loss", "trailing_stop_pips", "trailing_stop_percent"}:
            stop = brackets.stop_loss if brackets.trailing is None else brackets.trailing
        return OrderChange(
            quantity=self.qty,
            limit_price=self.limit_price,
            trigger_price=self.stop_price,
            time_in_force=duration.type if duration else None,
            expires_at=instant_of(duration.datetime) if duration else None,
            trailing=None if self.trail is None else self.trail.to_trailing(),
            take_profit=brackets.take_profit if "take_profit" in named else Keep.KEEP,
            stop=stop,
        )


class PlacedView(View):
    """The order that was placed."""

    order_id: str


class DoneView(View):
    """A change that was made, or had been made before."""

    success: Literal[True] = True
    message: str
    order_id: str | None = None


class CanceledView(View):
    """The orders that were canceled by one request."""

    success: Literal[True] = True
    message: str
    order_ids: list[str]


class DurationView(View):
    """How long an order works."""

    type: str
    datetime: int | None = None


class MessageView(View):
    """Why an order ended as it did."""

    text: str
    type: Literal["information", "error"]


class OrderView(View):
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
    post_only: bool
    take_profit: Number | None = Field(description="of an entry")
    stop_loss: Number | None = Field(description="of an entry")
    stop_type: Literal[0, 1] | None = Field(description="0 stop-loss, 1 trailing stop")
    trailing_stop_pips: Number | None = Field(description="pips of the instrument")
    trailing_stop_percent: Number | None
    position_id: str = Field(description="the position that its fills change")
    parent_id: str | None = Field(description="of a bracket: its entry, later its position")
    parent_type: Literal[1, 2, 3] | None = Field(description="1 order, 2 position, 3 trade")
    reject_reason: int | None = Field(description="FIX OrdRejReason (103) of a rejected order")
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
                text=REASONS[order.close_reason], type="error" if is_error else "information"
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
            limit_price=decimal_or_none(order.limit_price, order.price_scale),
            stop_price=decimal_or_none(order.trigger_price, order.price_scale),
            avg_price=average,
            duration=DurationView(
                type=order.time_in_force.value,
                datetime=ms_of(order.expires_at) if has_end and order.expires_at else None,
            ),
            is_close=order.reduce_only,
            post_only=order.post_only,
            take_profit=decimal_or_none(order.brackets.take_profit, order.price_scale),
            stop_loss=decimal_or_none(order.brackets.stop_loss, order.price_scale),
            **_stop_of(order),
            position_id=order.position_id,
            parent_id=order.parent_id,
            parent_type=PARENT_NUMBERS[order.parent_type] if order.parent_type else None,
            reject_reason=3 if order.status is OrderStatus.REJECTED else None,
            create_time=ms_of(order.accepted_at),
            update_time=ms_of(order.updated_at),
            message=message,
        )


class PreviewRow(View):
    """One line of a preview."""

    title: str
    value: str


class PreviewSection(View):
    """Lines of a preview under a header."""

    header: str
    rows: list[PreviewRow]


class PreviewView(View):
    """What an order would cost and whether it would be accepted now."""

    sections: list[PreviewSection]
    confirm_id: str = Field(description="to place this very order with")
    warnings: list[str]
    errors: list[str]

    @classmethod
    def of(cls, preview: Preview, *, confirm_id: str) -> "PreviewView":
        """Translate a preview."""

        def money(minor: int) -> str:
            return f"{money_of(minor, preview.currency):f} {preview.currency.code}"

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
            confirm_id=confirm_id,
            warnings=list(preview.warnings),
            errors=[] if preview.error is None else [preview.error.message],
        )


def _stop_of(order: Order) -> dict[str, Any]:
    """Return an order's own trailing distance, or the one of the stop that it brings."""
    trailing = order.trailing or order.brackets.trailing
    has_stop = order.brackets.stop_loss is not None or order.role is BracketRole.STOP_LOSS
    return {
        "stop_type": 1 if trailing is not None else 0 if has_stop else None,
        "trailing_stop_pips": pips_of(trailing),
        "trailing_stop_percent": percent_of(trailing),
    }


def _rows(lines: Mapping[str, str]) -> list[PreviewRow]:
    return [PreviewRow(title=title, value=value) for title, value in lines.items()]
