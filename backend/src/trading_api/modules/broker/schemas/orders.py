"""Orders on the wire: requests, views, previews."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
)

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.instrument import (
    COST_SCALE,
    full_symbol,
)
from trading_api.modules.broker.domain.order import (
    Order,
    OrderStatus,
    OrderTicket,
    TimeInForce,
)
from trading_api.modules.broker.schemas.wire import (
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
)
from trading_api.modules.broker.service.orders import OrderChange, Preview
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


class OrderRequest(Request):
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
            side=SIDES[self.side],
            type=TYPES[self.type],
            quantity=self.qty,
            limit_price=self.limit_price,
            trigger_price=self.stop_price,
            time_in_force=duration.type,
            expires_at=instant_of(duration.datetime),
            reduce_only=self.is_close,
        )


class OrderPatch(Request):
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
            expires_at=instant_of(duration.datetime) if duration else None,
        )


class PlacedView(View):
    """The order that was placed."""

    order_id: str


class DoneView(View):
    """A change that was made, or had been made before."""

    success: Literal[True] = True
    message: str
    order_id: str | None = None


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
    warnings: list[str]
    errors: list[str]

    @classmethod
    def of(cls, preview: Preview) -> "PreviewView":
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
            warnings=[],
            errors=[] if preview.error is None else [preview.error.message],
        )


def _rows(lines: Mapping[str, str]) -> list[PreviewRow]:
    return [PreviewRow(title=title, value=value) for title, value in lines.items()]
