"""Wire models of TradingView's Broker REST dialect, made from the native views.

Enumerations are words, instants seconds since 1970 UTC; every answer is ``{"s": "ok", "d": …}``.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.instrument import Instrument, Quote
from trading_api.modules.broker.domain.order import TimeInForce
from trading_api.modules.broker.schemas.accounts import CURRENCY_SIGNS, StateView
from trading_api.modules.broker.schemas.instruments import InstrumentView
from trading_api.modules.broker.schemas.wire import Number, View

T = TypeVar("T")

Side = Literal["buy", "sell"]
OrderKind = Literal["market", "stop", "limit", "stoplimit"]
OrderState = Literal["placing", "inactive", "working", "rejected", "filled", "cancelled"]
Parent = Literal["order", "position"]

_STATUSES: Mapping[int, OrderState] = {
    1: "cancelled",
    2: "filled",
    3: "inactive",
    4: "placing",
    5: "rejected",
    6: "working",
}
_TYPES: Mapping[int, OrderKind] = {1: "limit", 2: "market", 3: "stop", 4: "stoplimit"}
_SIDES: Mapping[int, Side] = {1: "buy", -1: "sell"}
_PARENTS: Mapping[int, Parent] = {1: "order", 2: "position", 3: "position"}


class Done(View):
    """It is done."""

    s: Literal["ok"] = "ok"


class Answer(View, Generic[T]):
    """What was asked for."""

    s: Literal["ok"] = "ok"
    d: T


class ErrorAnswer(View):
    """Why nothing was done, for people."""

    s: Literal["error"]
    errmsg: str
    code: str = Field(description="stable, dotted; decide on this")


class Token(View):
    """A new sign-in."""

    access_token: str = Field(alias="access_token")
    expiration: int = Field(description="seconds since 1970 UTC")


class Mapped(View):
    """One symbol of the broker and TradingView's for it."""

    f: list[str]
    s: str


class SymbolMapping(View):
    """Every symbol of the broker; an answer without envelope."""

    symbols: list[Mapped]
    fields: list[Literal["brokerSymbol"]] = ["brokerSymbol"]


class Duration(View):
    """A duration that orders may have."""

    id: str
    title: str
    has_date_picker: bool = False
    has_time_picker: bool = False
    default: bool = False


class Column(View):
    """A column or row of the account manager."""

    id: str
    title: str
    tool_tip: str = Field("", alias="tooltip")


class Table(View):
    """A table of the account manager."""

    id: str
    title: str
    columns: list[Column]


class PullingInterval(View):
    """How often to ask, milliseconds."""

    quotes: int = 500
    orders: int = 500
    positions: int = 1000
    account_manager: int = 1000
    balances: int = 1000


class Config(View):
    """What the broker shows and how often to ask."""

    account_summary_row: list[Column]
    account_manager: list[Table]
    durations: list[Duration]
    order_custom_fields: list[Column] = []
    order_history_custom_fields: list[Column] = []
    position_custom_fields: list[Column] = []
    order_dialog_custom_fields: list[Column] = []
    pulling_interval: PullingInterval = PullingInterval()


class AccountFlags(View):
    """What an account can do; the names are TradingView's."""

    support_balances: bool = True
    support_brackets: bool = True
    support_order_brackets: bool = True
    support_position_brackets: bool = True
    support_close_position: bool = True
    support_partial_close_position: bool = True
    support_custom_order_info: bool = False
    support_depth_of_market: bool = Field(True, alias="supportDOM")
    support_digital_signature: bool = False
    support_executions: bool = True
    support_leverage: bool = True
    support_level2_data: bool = Field(False, alias="supportLevel2Data")
    support_logout: bool = True
    support_margin: bool = True
    support_market_orders: bool = True
    support_limit_orders: bool = True
    support_stop_orders: bool = True
    support_stop_limit_orders: bool = True
    support_modify_order_price: bool = True
    support_edit_amount: bool = True
    support_modify_duration: bool = True
    support_modify_brackets: bool = True
    support_native_reverse_position: bool = False
    support_orders_history: bool = True
    support_pl_update: bool = Field(True, alias="supportPLUpdate")
    support_place_order_preview: bool = True
    support_modify_order_preview: bool = False
    support_positions: bool = True
    support_reverse_position: bool = True
    support_trailing_stop: bool = True
    support_multiposition: bool = False
    show_quantity_instead_of_amount: bool = True


class TvAccount(View):
    """A trading account."""

    id: str
    name: str
    type: Literal["live", "demo"]
    currency: str
    currency_sign: str
    config: AccountFlags
    is_verified: bool = True


class TvInstrument(View):
    """Rules of an instrument on an account."""

    name: str
    description: str
    min_qty: Number
    max_qty: Number
    qty_step: Number
    pip_size: Number
    pip_value: Number
    min_tick: Number
    lot_size: Number
    base_currency: str | None = None
    quote_currency: str
    margin_rate: Number
    has_quotes: bool = True
    units: str | None = None
    type: str


class TvState(View):
    """What an account is worth."""

    balance: Number
    unrealized_pl: Number
    equity: Number
    am_data: list[list[list[str]]] = Field(description="by table of the config: rows of cells")
    account_summary_row_data: list[str]


class TvDuration(View):
    """How long an order works."""

    type: str
    datetime: int | None = Field(None, description="seconds since 1970 UTC")


class TvMessage(View):
    """Why an order is as it is."""

    text: str
    type: Literal["information", "warning", "error"]


class TvOrder(View):
    """An order."""

    id: str
    instrument: str
    qty: Number
    side: Side
    type: OrderKind
    status: OrderState
    filled_qty: Number
    avg_price: Number | None = None
    limit_price: Number | None = None
    stop_price: Number | None = None
    stop_loss: Number | None = None
    take_profit: Number | None = None
    trailing_stop_pips: Number | None = None
    is_trailing_stop: bool | None = None
    parent_id: str | None = None
    parent_type: Literal["order", "position"] | None = None
    duration: TvDuration | None = None
    last_modified: int = Field(description="seconds since 1970 UTC")
    message: TvMessage | None = None


class TvPosition(View):
    """What is held."""

    id: str
    instrument: str
    qty: Number
    side: Side
    avg_price: Number
    unrealized_pl: Number


class TvExecution(View):
    """A fill."""

    id: str
    instrument: str
    price: Number
    time: int = Field(description="seconds since 1970 UTC")
    qty: Number
    side: Side
    order_id: str
    is_close: bool
    position_id: str
    commission: Number


class TvBalance(View):
    """Money of one currency."""

    symbol: str
    long_name: str
    total: Number
    available: Number
    reserved: Number
    value: Number
    value_currency: str


class TvPlaced(View):
    """The order that was placed."""

    order_id: str


class TvRow(View):
    """One line of a preview."""

    title: str
    value: str


class TvSection(View):
    """Lines of a preview under a header."""

    header: str
    rows: list[TvRow]


class TvPreview(View):
    """What an order would cost."""

    confirm_id: str | None = None
    sections: list[TvSection]
    warnings: list[str]
    errors: list[str]


class TvLeverageInfo(View):
    """What leverage is in force, and what may be chosen."""

    title: str
    leverage: Number
    min: Number
    max: Number
    step: Number


class TvLeverage(View):
    """What is in force now."""

    leverage: Number


class TvLeveragePreview(View):
    """What a leverage would mean."""

    infos: list[str]
    warnings: list[str]
    errors: list[str]


class QuoteValues(View):
    """The best prices of an instrument."""

    ask: Number
    bid: Number
    buy_pip_value: Number
    sell_pip_value: Number
    halted: bool = False


class TvQuote(View):
    """A quote, or why there is none."""

    s: Literal["ok", "error"]
    n: str
    v: QuoteValues | None = None
    errmsg: str | None = None


class Depth(View):
    """Prices and sizes: asks rising, bids falling."""

    asks: list[tuple[Number, Number]]
    bids: list[tuple[Number, Number]]


class Group(View):
    """A group of symbols."""

    id: str


class Groups(View):
    """The groups there are."""

    groups: list[Group]


class Permissions(View):
    """The groups that the user may see."""

    groups: list[str]


class History(View):
    """Bars as columns of one length, ascending."""

    s: Literal["ok", "no_data"]
    t: list[int]
    o: list[float]
    h: list[float]
    l: list[float]  # noqa: E741 - the dialect's name
    c: list[float]
    v: list[float]


GROUP = "trading_demo"
"""All that can be traded is one group."""

_SUMMARY = {
    "balance": "Balance",
    "equity": "Equity",
    "unrealizedPl": "Unrealized P/L",
    "realizedPl": "Realized P/L",
    "commission": "Commission",
    "financing": "Financing",
    "marginUsed": "Margin used",
    "marginReserved": "Reserved for orders",
    "marginAvailable": "Margin available",
    "marginLevel": "Margin level, %",
}
_SUMMARY_ROW = ("balance", "equity", "unrealizedPl", "marginAvailable")
_DURATION_TITLES = {
    TimeInForce.GTC: "Good till canceled",
    TimeInForce.DAY: "Day",
    TimeInForce.GTD: "Good till date",
    TimeInForce.IOC: "Immediate or cancel",
    TimeInForce.FOK: "Fill or kill",
}


def config() -> Config:
    """Return what the broker shows and how often to ask."""
    return Config(
        account_summary_row=[Column(id=each, title=_SUMMARY[each]) for each in _SUMMARY_ROW],
        account_manager=[
            Table(
                id="summary",
                title="Account summary",
                columns=[Column(id="title", title="Figure"), Column(id="value", title="Value")],
            )
        ],
        durations=[
            Duration(
                id=each.value,
                title=title,
                has_date_picker=each is TimeInForce.GTD,
                has_time_picker=each is TimeInForce.GTD,
                default=each is TimeInForce.GTC,
            )
            for each, title in _DURATION_TITLES.items()
        ],
    )


def mapping(instruments: Iterable[Instrument]) -> SymbolMapping:
    """Return the broker's symbols, which are named alike on both sides."""
    return SymbolMapping(symbols=[Mapped(f=[each.symbol], s=each.symbol) for each in instruments])


def account_of(account: Account) -> TvAccount:
    """Translate an account."""
    code = account.currency.code
    return TvAccount(
        id=account.account_id,
        name=account.name,
        type="demo" if account.book == "demo" else "live",
        currency=code,
        currency_sign=CURRENCY_SIGNS.get(code, code),
        config=AccountFlags(support_multiposition=account.position_mode.value == "HEDGING"),
    )


def instrument_of(view: InstrumentView) -> TvInstrument:
    """Translate an instrument's rules."""
    return TvInstrument.model_construct(
        name=view.symbol,
        description=view.description,
        min_qty=view.qty.min,
        max_qty=view.qty.max,
        qty_step=view.qty.step,
        pip_size=view.pip_size,
        pip_value=view.pip_value,
        min_tick=view.min_tick,
        lot_size=Decimal(view.lot_size),
        base_currency=view.base_currency,
        quote_currency=view.quote_currency,
        margin_rate=view.margin_rate,
        has_quotes=True,
        units=view.base_currency,
        type=view.type,
    )


def state_of(view: StateView) -> TvState:
    """Translate what an account is worth."""
    figures = view.model_dump(by_alias=True)
    texts = {name: _text(figures.get(name)) for name in _SUMMARY}
    return TvState.model_construct(
        balance=view.balance,
        unrealized_pl=view.unrealized_pl,
        equity=view.equity,
        am_data=[[[title, texts[name]] for name, title in _SUMMARY.items()]],
        account_summary_row_data=[texts[name] for name in _SUMMARY_ROW],
    )


def order_of(order: Mapping[str, Any]) -> TvOrder:
    """Translate an order from its native view's fields."""
    duration, message = order["duration"], order.get("message")
    until = duration.get("datetime")
    parent, pips = order.get("parentType"), order.get("trailingStopPips")
    is_trailing = order.get("stopType") == 1 or None
    is_leg = order.get("parentId") is not None
    return TvOrder.model_construct(
        id=order["id"],
        instrument=order["symbol"],
        qty=order["qty"],
        side=_SIDES[order["side"]],
        type=_TYPES[order["type"]],
        status=_STATUSES[order["status"]],
        filled_qty=order["filledQty"],
        avg_price=order.get("avgPrice"),
        limit_price=order.get("limitPrice"),
        stop_price=order.get("stopPrice"),
        stop_loss=order.get("stopLoss"),
        take_profit=order.get("takeProfit"),
        trailing_stop_pips=pips,
        # Only the order that trails is one; an entry names the pips of the leg it will have.
        is_trailing_stop=is_trailing if is_leg or order["type"] == 3 else None,
        parent_id=order.get("parentId"),
        parent_type=None if parent is None else _PARENTS[parent],
        duration=TvDuration(
            type=duration["type"], datetime=None if until is None else until // 1000
        ),
        last_modified=order["updateTime"] // 1000,
        message=None if message is None else TvMessage(**message),
    )


def position_of(position: Mapping[str, Any]) -> TvPosition:
    """Translate a position from its native view's fields."""
    return TvPosition.model_construct(
        id=position["id"],
        instrument=position["symbol"],
        qty=position["qty"],
        side=_SIDES[position["side"]],
        avg_price=position["avgPrice"],
        unrealized_pl=position.get("unrealizedPl") or Decimal(0),
    )


def execution_of(execution: Mapping[str, Any]) -> TvExecution:
    """Translate an execution from its native view's fields."""
    return TvExecution.model_construct(
        id=execution["id"],
        instrument=execution["symbol"],
        price=execution["price"],
        time=execution["time"] // 1000,
        qty=execution["qty"],
        side=_SIDES[execution["side"]],
        order_id=execution["orderId"],
        is_close=execution["isClose"],
        position_id=execution.get("positionId") or execution["symbol"],
        commission=execution["commission"],
    )


def balance_of(view: StateView) -> TvBalance:
    """Translate an account's cash."""
    return TvBalance.model_construct(
        symbol=view.currency,
        long_name=view.currency,
        total=view.balance,
        available=max(Decimal(0), view.margin_available),
        reserved=view.margin_used + view.margin_reserved,
        value=view.balance,
        value_currency=view.currency,
    )


def quote_of(symbol: str, quote: Quote | None, view: InstrumentView | None) -> TvQuote:
    """Translate a quote, or say that there is none."""
    if quote is None or view is None:
        return TvQuote(s="error", n=symbol, errmsg="there is no quote of this symbol")
    return TvQuote(
        s="ok",
        n=symbol,
        v=QuoteValues(
            ask=decimal_of(quote.ask, quote.price_scale),
            bid=decimal_of(quote.bid, quote.price_scale),
            buy_pip_value=view.pip_value,
            sell_pip_value=view.pip_value,
        ),
    )


def depth_of(instrument: Instrument, quote: Quote | None) -> Depth:
    """Return the one level that a quote is: the venue's largest order at each side."""
    if quote is None:
        return Depth(asks=[], bids=[])
    size = decimal_of(instrument.quantity_max, instrument.quantity_scale)
    return Depth(
        asks=[(decimal_of(quote.ask, quote.price_scale), size)],
        bids=[(decimal_of(quote.bid, quote.price_scale), size)],
    )


def symbol_columns(instruments: list[Instrument]) -> dict[str, Any]:
    """Return the symbols of the group as columns, one value for all where it is the same."""

    def column(read: Any) -> list[Any]:
        return [read(each) for each in instruments]

    return {
        "s": "ok",
        "symbol": column(lambda each: each.symbol.partition(":")[2]),
        "ticker": column(lambda each: each.symbol),
        "description": column(lambda each: each.description),
        "currency": column(lambda each: each.quote_currency),
        "base-currency": column(lambda each: each.base_currency or ""),
        "exchange-listed": column(lambda each: each.symbol.partition(":")[0]),
        "exchange-traded": column(lambda each: each.symbol.partition(":")[0]),
        "minmovement": column(lambda each: each.tick),
        "minmovement2": 0,
        "fractional": False,
        "pricescale": column(lambda each: int(10**each.price_scale)),
        "pointvalue": column(lambda each: each.multiplier),
        "has-intraday": True,
        "has-daily": True,
        "has-weekly-and-monthly": True,
        "has-no-volume": column(lambda each: each.kind == "forex"),
        "type": column(lambda each: each.kind),
        "is-cfd": False,
        "timezone": column(lambda each: each.time_zone),
        "session-regular": column(lambda each: each.session),
        # A list in a list would be the first symbol's alone.
        "supported-resolutions": ["1", "5", "15", "30", "60", "1D", "1W", "1M"],
        "intraday-multipliers": ["1"],
        "bar-source": "trade",
        "bar-fillgaps": False,
    }


def _text(value: object) -> str:
    return "" if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)
