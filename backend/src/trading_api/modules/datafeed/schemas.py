"""Wire models of the native surface and of UDF, and their making from domain values.

Prices leave as JSON numbers: ticks divided by a power of ten, which gives the double nearest to
the exact decimal. Native times are milliseconds in answers, UDF's are seconds.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
from pydantic import ConfigDict, Field, StringConstraints

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.errors import FieldError, InvalidInputError
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.importing import ImportState
from trading_api.modules.datafeed.domain.instrument import (
    DIVIDEND_DECIMALS,
    AssetClass,
    Dividend,
    Exchange,
    Instrument,
    Quote,
)
from trading_api.modules.datafeed.domain.mark import (
    DividendMark,
    EventMark,
    ExecutionMark,
    SplitMark,
)
from trading_api.modules.datafeed.domain.selection import Selection, TextCache
from trading_api.modules.datafeed.domain.series import INTRADAY, Market
from trading_api.modules.datafeed.domain.text import Numbers, Scale
from trading_api.modules.datafeed.repository import ImportRecord
from trading_api.modules.datafeed.service import ProviderState, ProviderStatus
from trading_api.runtime.http import RequestModel, ResponseModel
from trading_api.runtime.http.wire import Symbol, WireDecimal

QUANTITY_RAW_MAX = 10**15
"""Largest quantity, raw; the broker's amounts stay within 64 bits."""

Description = Annotated[str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
Branch = Annotated[str, StringConstraints(min_length=1, max_length=64, strip_whitespace=True)]

SymbolText = Annotated[str, StringConstraints(min_length=1, max_length=64)]
ResolutionText = Annotated[str, StringConstraints(min_length=1, max_length=8)]
CalendarCode = Annotated[str, StringConstraints(pattern="^[A-Z0-9_]{2,20}$")]
FilterText = Annotated[str, StringConstraints(max_length=64)]

RESOLUTIONS = [*map(str, INTRADAY), "1D", "1W", "1M"]
"""What the chart's resolution menu offers; each symbol says which of them it has."""

_HISTORY_HEADS = (b'{"s":"ok","t":[', b'],"o":[', b'],"h":[', b'],"l":[', b'],"c":[', b'],"v":[')


class ExchangeView(ResponseModel):
    """One choice of the exchange filter; an empty value means all."""

    value: str
    name: str
    desc: str


class SymbolTypeView(ResponseModel):
    """One choice of the asset class filter; an empty value means all."""

    name: str
    value: str


class ConfigView(ResponseModel):
    """What the datafeed can do, in the chart's words."""

    supports_search: bool = True
    supports_group_request: bool = False
    supports_marks: bool = True
    supports_timescale_marks: bool = True
    supports_time: bool = True
    supported_resolutions: list[str] = Field(default_factory=lambda: list(RESOLUTIONS))
    exchanges: list[ExchangeView]
    symbols_types: list[SymbolTypeView]


_EXCHANGE_NAMES = {
    Exchange.DEMO: "Simulation on shifted real prices, live",
    Exchange.HIST: "Real history, end of day",
    Exchange.SIM: "Seeded simulation, live",
    Exchange.REPLAY: "Stored history played live",
    Exchange.CRYPTO: "Crypto exchanges, live",
}
_TYPE_NAMES = {
    AssetClass.STOCK: "Stocks",
    AssetClass.FOREX: "Forex",
    AssetClass.CRYPTO: "Crypto",
    AssetClass.FUTURES: "Futures",
    AssetClass.INDEX: "Indices",
}


def config_view(instruments: Sequence[Instrument]) -> ConfigView:
    """Return the configuration; its filters offer what there is."""
    exchanges = {each.exchange for each in instruments}
    types = {each.asset_class for each in instruments}
    return ConfigView(
        exchanges=[
            ExchangeView(value="", name="All exchanges", desc=""),
            *(
                ExchangeView(value=each.value, name=each.value, desc=text)
                for each, text in _EXCHANGE_NAMES.items()
                if each in exchanges
            ),
        ],
        symbols_types=[
            SymbolTypeView(name="All types", value=""),
            *(
                SymbolTypeView(name=text, value=each.value)
                for each, text in _TYPE_NAMES.items()
                if each in types
            ),
        ],
    )


class SymbolMatchView(ResponseModel):
    """One search result."""

    symbol: str = Field(description="ticker within its exchange")
    full_name: str
    description: str
    exchange: str
    ticker: str = Field(description="what bars and quotes are asked with")
    type: str


class SymbolInfoView(ResponseModel):
    """Everything that a chart needs to know of a symbol; nothing is left to its defaults."""

    name: str
    ticker: str
    full_name: str
    description: str
    long_description: str
    type: str
    session: str
    session_display: str
    session_holidays: str = ""
    corrections: str = ""
    timezone: str
    exchange: str
    listed_exchange: str
    minmov: int = 1
    minmove2: int
    pricescale: int
    fractional: bool = False
    pointvalue: int = 1
    format: Literal["price"] = "price"
    has_intraday: bool
    has_daily: bool = True
    has_weekly_and_monthly: bool = True
    has_seconds: bool
    seconds_multipliers: list[str] = Field(description="bars of so many seconds are offered")
    has_ticks: bool = False
    has_empty_bars: bool = False
    intraday_multipliers: list[str]
    supported_resolutions: list[str]
    volume_precision: int
    visible_plots_set: Literal["ohlcv"] = "ohlcv"
    data_status: Literal["streaming", "endofday"]
    delay: int = Field(description="0 live, -1 end of day")
    expired: bool = False
    currency_code: str
    original_currency_code: str
    sector: str | None = Field(None, description="absent where it has none")
    industry: str | None = Field(None, description="absent where it has none")


class InstrumentView(ResponseModel):
    """An instrument as traders and operators see it; quantities in units, prices as decimals."""

    symbol: str
    exchange: str
    ticker: str
    description: str
    type: AssetClass
    base_currency: str | None
    currency: str
    price_decimals: int
    tick_size: str
    quantity_step: str
    quantity_max: str
    lot_size: str
    session: str
    timezone: str
    tradable: bool
    volume_decimals: int
    quantity_decimals: int
    spread_ticks: int = Field(description="distance of bid and ask in ticks")
    multiplier: int = Field(description="currency units per unit and whole price point")
    calendar: str | None = Field(description="exchange calendar of its holidays, such as XNYS")
    session_holidays: str = Field(description="YYYYMMDD by comma")
    corrections: str = Field(description="days with other hours, as charts write them")
    sector: str | None
    industry: str | None
    series: str = Field(description="the stored series behind it")
    version: int = Field(description="1 as first listed, one more with every change")


class InstrumentRequest(RequestModel):
    """An instrument to list over a stored series."""

    exchange: Exchange
    ticker: Annotated[str, StringConstraints(min_length=1, max_length=20, to_upper=True)]
    description: Description
    type: AssetClass
    base_currency: Annotated[str, StringConstraints(pattern="^[A-Z0-9]{3,8}$")] | None = None
    currency: Annotated[str, StringConstraints(pattern="^[A-Z0-9]{3,8}$")] = "USD"
    price_decimals: int = Field(ge=0, le=10)
    volume_decimals: int = Field(0, ge=0, le=8)
    spread_ticks: int = Field(0, ge=0, le=1_000_000)
    ask_is_last: bool = Field(False, description="the series is the ask's; else the last price's")
    quantity_decimals: int = Field(0, ge=0, le=8)
    quantity_step: WireDecimal = Decimal(1)
    quantity_max: WireDecimal = Decimal(1_000_000)
    lot_size: WireDecimal = Decimal(1)
    multiplier: int = Field(1, ge=1, le=1_000_000)
    session: Annotated[str, StringConstraints(min_length=4, max_length=64)] = "24x7"
    timezone: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "Etc/UTC"
    calendar: CalendarCode | None = None
    sector: Branch | None = None
    industry: Branch | None = None
    series: Annotated[str, StringConstraints(min_length=1, max_length=64)]
    tradable: bool = False

    def instrument(self) -> Instrument:
        """Return the instrument that is asked for.

        Raises:
            InvalidInputError: a quantity has more decimals than the instrument.
        """
        decimals = self.quantity_decimals
        return Instrument(
            exchange=self.exchange,
            ticker=self.ticker,
            description=self.description,
            asset_class=self.type,
            base_currency=self.base_currency,
            quote_currency=self.currency,
            price_decimals=self.price_decimals,
            volume_decimals=self.volume_decimals,
            spread_ticks=self.spread_ticks,
            ask_is_last=self.ask_is_last,
            quantity_decimals=decimals,
            quantity_step=_raw("quantity_step", self.quantity_step, decimals),
            quantity_max=_raw("quantity_max", self.quantity_max, decimals),
            lot_size=_raw("lot_size", self.lot_size, decimals),
            multiplier=self.multiplier,
            session=self.session,
            time_zone=self.timezone,
            calendar=self.calendar,
            sector=self.sector,
            industry=self.industry,
            series_id=self.series,
            tradable=self.tradable,
        )


class InstrumentChangeRequest(RequestModel):
    """Fields to change; those left out stay. What prices and holdings rest on can't change."""

    description: Description | None = None
    spread_ticks: int | None = Field(None, ge=0, le=1_000_000)
    tradable: bool | None = None
    calendar: CalendarCode | None = Field(None, description="null takes the holidays away")
    sector: Branch | None = None
    industry: Branch | None = None
    version: int | None = Field(None, ge=1, description="refuse unless it still is this one")

    def changes(self) -> dict[str, Any]:
        """Return the new values by the instrument's attribute, only those sent.

        Raises:
            InvalidInputError: null where a value is needed.
        """
        sent = {name: getattr(self, name) for name in self.model_fields_set if name != "version"}
        for name in ("description", "spread_ticks", "tradable"):
            if name in sent and sent[name] is None:
                raise _field_error(name, "null", f"{name} can't be null")
        return sent


class DividendRequest(RequestModel):
    """What a share paid."""

    ex_date: date = Field(description="first trading day without it")
    amount: WireDecimal = Field(description="of one share, in the instrument's currency")


class DividendsRequest(RequestModel):
    """All dividends of an instrument; those it had and that aren't named go."""

    dividends: list[DividendRequest] = Field(max_length=500)
    version: int | None = Field(None, ge=1, description="refuse unless the instrument has this one")

    def found(self) -> list[Dividend]:
        """Return them.

        Raises:
            InvalidInputError: an amount has more decimals than are kept, or isn't positive.
        """
        return [
            Dividend(
                int(datetime(*each.ex_date.timetuple()[:3], tzinfo=UTC).timestamp()),
                _raw("amount", each.amount, DIVIDEND_DECIMALS),
            )
            for each in self.dividends
        ]


class DividendView(ResponseModel):
    """What a share paid."""

    ex_date: date = Field(description="first trading day without it")
    amount: str = Field(description="of one share, exact decimal")
    currency: str


class ExecutionMarkView(ResponseModel):
    """A mark on a bar: one of the user's own executions."""

    id: str
    time: int = Field(description="start of the bar it belongs to, seconds")
    color: str
    text: str
    label: str
    labelFontColor: str  # noqa: N815 - the chart's name
    minSize: int  # noqa: N815


class TimescaleMarkView(ResponseModel):
    """A mark under the time scale: a split or a dividend."""

    id: str
    time: int = Field(description="start of the bar it belongs to, seconds")
    color: str
    label: str
    tooltip: list[str]
    shape: Literal["circle"] = "circle"


class MarkView(ResponseModel):
    """A mark of either kind, for clients that draw their own."""

    id: str
    kind: Literal["execution", "split", "dividend"]
    bar_time: int = Field(description="start of the bar it belongs to, milliseconds")
    time: int = Field(description="when it happened, milliseconds")
    side: Literal["buy", "sell"] | None = None
    quantity: str | None = Field(None, description="exact decimal")
    price: str | None = Field(None, description="exact decimal")
    is_closing: bool | None = Field(None, description="it reduced or closed a position")
    ratio: int | None = Field(None, description="new shares for an old one")
    amount: str | None = Field(None, description="dividend of a share, exact decimal")
    currency: str | None = Field(None, description="of the dividend")


class BarView(ResponseModel):
    """One bar."""

    time: int = Field(description="start, milliseconds since 1970 UTC; from 1D up 00:00 UTC")
    open: float
    high: float
    low: float
    close: float
    volume: float


class BarsView(ResponseModel):
    """Bars of a window, ascending."""

    bars: list[BarView]
    no_data: bool = Field(description="true: the window holds no bar")
    next_time: int | None = Field(
        description="where there is no bar: start of the nearest earlier one, milliseconds; "
        "null with `no_data` means that nothing earlier exists"
    )


class ProviderView(ResponseModel):
    """How a provider of market data is, as this process sees it."""

    name: str
    state: ProviderState = Field(
        description="standby: another process runs it; static: it has no live prices"
    )
    instruments: int
    ticks: int = Field(description="believed since this process began")
    dropped: dict[str, int] = Field(description="ticks not believed, by reason")
    bars: int = Field(description="minutes stored by this process")
    lag_ms: int | None = Field(description="age of the newest tick; null before the first")
    failures: int
    last_error: str | None
    retry_at: datetime | None = Field(description="while it is backing off")


class BadLineView(ResponseModel):
    """A line of a file that can't become a bar."""

    line: int
    reason: str


class ImportView(ResponseModel):
    """An import of a file of bars."""

    id: str
    series: str
    resolution: str
    source: str
    source_sha256: str
    state: ImportState = Field(
        description="RUNNING also means interrupted: send the same file again"
    )
    bars: int = Field(description="good ones in the file so far")
    lines: int = Field(description="read so far")
    bad_count: int
    bad_lines: list[BadLineView] = Field(description="the first 1,000 of them")


class QuoteValues(ResponseModel):
    """Values of a quote, in the chart's names; absent where the symbol is unknown."""

    ch: float | None = Field(None, description="change since the previous close")
    chp: float | None = Field(None, description="the same in percent")
    short_name: str | None = None
    exchange: str | None = None
    description: str | None = None
    original_name: str | None = None
    lp: float | None = Field(None, description="last price")
    ask: float | None = None
    bid: float | None = None
    spread: float | None = None
    open_price: float | None = None
    high_price: float | None = None
    low_price: float | None = None
    prev_close_price: float | None = None
    volume: float | None = None


class QuoteView(ResponseModel):
    """Quote of one symbol asked for."""

    s: Literal["ok", "error"]
    n: str = Field(description="the symbol as it was asked")
    v: QuoteValues


class UdfErrorView(ResponseModel):
    """Every error of the UDF surface."""

    s: Literal["error"]
    errmsg: str
    code: str = Field(description="stable, dotted; decide on this")


class UdfHistoryView(ResponseModel):
    """Bars as columns of one length, ascending; columns are there with ``ok`` alone."""

    model_config = ConfigDict(populate_by_name=True)

    s: Literal["ok", "no_data"]
    t: list[int] | None = Field(None, description="starts, seconds since 1970 UTC")
    o: list[float] | None = None
    h: list[float] | None = None
    l: list[float] | None = None  # noqa: E741 - UDF's name
    c: list[float] | None = None
    v: list[float] | None = None
    next_time: int | None = Field(
        None,
        alias="nextTime",
        description="start of the nearest earlier bar, seconds; absent with `no_data` where "
        "nothing earlier exists",
    )


class UdfQuotesView(ResponseModel):
    """Quotes of the symbols asked for."""

    s: Literal["ok"]
    d: list[QuoteView]


class QuotesRequest(RequestModel):
    """Which symbols to quote."""

    symbols: list[SymbolText] = Field(min_length=1, max_length=500)


class QueryModel(RequestModel):
    """Base of parameters in a URL; unknown ones are ignored, charts add their own."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class BarsQuery(QueryModel):
    """Parameters of the bars route; times in seconds since 1970 UTC."""

    symbol: SymbolText
    resolution: ResolutionText
    from_time: int = Field(
        default=0, description="first bar's earliest start, inclusive; ignored with `count_back`"
    )
    to_time: int | None = Field(default=None, description="exclusive end; now where absent")
    count_back: int | None = Field(
        default=None, description="exactly so many bars before `to_time`, at most 5,000"
    )


class MarksQuery(QueryModel):
    """Parameters of UDF's marks; times in seconds since 1970 UTC, both inclusive."""

    symbol: SymbolText
    from_time: int = Field(default=0, validation_alias="from")
    to_time: int = Field(validation_alias="to")
    resolution: ResolutionText = "1D"


class HistoryQuery(QueryModel):
    """Parameters of UDF's history; times in seconds since 1970 UTC."""

    symbol: SymbolText
    resolution: ResolutionText
    from_time: int = Field(default=0, validation_alias="from")
    to_time: int = Field(validation_alias="to")
    countback: int | None = Field(default=None, description="wins over `from`; 0 means absent")


class BarsParams(RequestModel):
    """A subscription to the bars of one symbol."""

    symbol: Symbol
    resolution: ResolutionText


class BarUpdate(BarView):
    """The forming bar, or the final state of the one before it."""


class QuotesParams(RequestModel):
    """A subscription to the quotes of some symbols."""

    symbols: list[Symbol] = Field(default_factory=list, max_length=500)
    fast_symbols: list[Symbol] = Field(default_factory=list, max_length=500)


def symbol_match(instrument: Instrument) -> dict[str, Any]:
    """Return a search result."""
    return {
        "symbol": instrument.ticker,
        "full_name": instrument.symbol,
        "description": instrument.description,
        "exchange": instrument.exchange.value,
        "ticker": instrument.symbol,
        "type": instrument.asset_class.value,
    }


def symbol_info(market: Market) -> SymbolInfoView:
    """Return a symbol's information, complete."""
    instrument, resolutions = market.instrument, market.resolutions()
    intraday = [each for each in resolutions if each.isdigit()]
    seconds = [each.removesuffix("S") for each in resolutions if each.endswith("S")]
    live = instrument.exchange is not Exchange.HIST
    return SymbolInfoView(
        name=instrument.ticker,
        ticker=instrument.symbol,
        full_name=instrument.symbol,
        description=instrument.description,
        long_description=instrument.description,
        type=instrument.asset_class.value,
        session=instrument.session,
        session_display=instrument.session,
        session_holidays=instrument.session_holidays,
        corrections=instrument.session_corrections,
        timezone=instrument.time_zone,
        exchange=instrument.exchange.value,
        listed_exchange=instrument.exchange.value,
        minmov=instrument.tick,
        minmove2=10 if instrument.asset_class is AssetClass.FOREX else 0,
        pricescale=instrument.price_scale,
        pointvalue=instrument.multiplier,
        has_intraday=bool(intraday),
        has_seconds=bool(seconds),
        seconds_multipliers=seconds,
        intraday_multipliers=intraday,
        supported_resolutions=resolutions,
        volume_precision=instrument.volume_decimals,
        data_status="streaming" if live else "endofday",
        delay=0 if live else -1,
        currency_code=instrument.quote_currency,
        original_currency_code=instrument.quote_currency,
        sector=instrument.sector,
        industry=instrument.industry,
    )


def instrument_view(instrument: Instrument) -> InstrumentView:
    """Return an instrument for traders and operators."""
    tick = _decimal_text(instrument.tick, instrument.price_decimals)
    decimals = instrument.quantity_decimals
    return InstrumentView(
        symbol=instrument.symbol,
        exchange=instrument.exchange.value,
        ticker=instrument.ticker,
        description=instrument.description,
        type=instrument.asset_class,
        base_currency=instrument.base_currency,
        currency=instrument.quote_currency,
        price_decimals=instrument.price_decimals,
        tick_size=tick,
        quantity_step=_decimal_text(instrument.quantity_step, decimals),
        quantity_max=_decimal_text(instrument.quantity_max, decimals),
        lot_size=_decimal_text(instrument.lot_size, decimals),
        session=instrument.session,
        timezone=instrument.time_zone,
        tradable=instrument.tradable,
        volume_decimals=instrument.volume_decimals,
        quantity_decimals=decimals,
        spread_ticks=instrument.spread_ticks,
        multiplier=instrument.multiplier,
        calendar=instrument.calendar,
        session_holidays=instrument.session_holidays,
        corrections=instrument.session_corrections,
        sector=instrument.sector,
        industry=instrument.industry,
        series=instrument.series_id,
        version=instrument.version,
    )


_BUY_COLOR, _SELL_COLOR, _SPLIT_COLOR, _DIVIDEND_COLOR = "#26a69a", "#ef5350", "#5b7fff", "#9c6ade"


def dividend_view(dividend: Dividend, instrument: Instrument) -> DividendView:
    """Return a dividend."""
    return DividendView(
        ex_date=_day_of(dividend.time),
        amount=_amount_text(dividend),
        currency=instrument.quote_currency,
    )


def udf_execution_mark(mark: ExecutionMark) -> dict[str, Any]:
    """Return an execution as UDF's mark."""
    execution = mark.execution
    verb = "Bought" if execution.is_buy else "Sold"
    at = execution.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    return {
        "id": execution.id,
        "time": mark.bar_time,
        "color": _BUY_COLOR if execution.is_buy else _SELL_COLOR,
        "text": f"{verb} {execution.quantity:f} at {execution.price:f}, {at}",
        "label": "B" if execution.is_buy else "S",
        "labelFontColor": "#ffffff",
        "minSize": 14,
    }


def udf_split_mark(mark: SplitMark) -> dict[str, Any]:
    """Return a split as UDF's mark under the time scale."""
    day = _day_of(mark.split.time).isoformat()
    return {
        "id": f"split-{mark.split.time}",
        "time": mark.bar_time,
        "color": _SPLIT_COLOR,
        "label": "S",
        "tooltip": [f"Split {mark.split.ratio}:1", f"first day at the new price: {day}"],
        "shape": "circle",
    }


def udf_event_mark(mark: EventMark) -> dict[str, Any]:
    """Return a split or a dividend as UDF's mark under the time scale."""
    if isinstance(mark, SplitMark):
        return udf_split_mark(mark)
    day = _day_of(mark.dividend.time).isoformat()
    return {
        "id": f"dividend-{mark.dividend.time}",
        "time": mark.bar_time,
        "color": _DIVIDEND_COLOR,
        "label": "D",
        "tooltip": [
            f"Dividend {_amount_text(mark.dividend)} {mark.currency} a share",
            f"first day without it: {day}",
        ],
        "shape": "circle",
    }


def mark_views(
    executions: Sequence[ExecutionMark], events: Sequence[EventMark]
) -> list[dict[str, Any]]:
    """Return marks of all kinds for the native surface, in the order of their bars."""
    views: list[dict[str, Any]] = [
        {
            "id": each.execution.id,
            "kind": "execution",
            "bar_time": each.bar_time * 1_000,
            "time": int(each.execution.at.timestamp() * 1_000),
            "side": "buy" if each.execution.is_buy else "sell",
            "quantity": f"{each.execution.quantity:f}",
            "price": f"{each.execution.price:f}",
            "is_closing": each.execution.is_closing,
        }
        for each in executions
    ]
    views += [
        {
            "id": f"split-{each.split.time}",
            "kind": "split",
            "bar_time": each.bar_time * 1_000,
            "time": each.split.time * 1_000,
            "ratio": each.split.ratio,
        }
        for each in events
        if isinstance(each, SplitMark)
    ]
    views += [
        {
            "id": f"dividend-{each.dividend.time}",
            "kind": "dividend",
            "bar_time": each.bar_time * 1_000,
            "time": each.dividend.time * 1_000,
            "amount": _amount_text(each.dividend),
            "currency": each.currency,
        }
        for each in events
        if isinstance(each, DividendMark)
    ]
    return sorted(views, key=lambda view: (view["bar_time"], view["time"]))


def provider_view(status: ProviderStatus, *, now: datetime) -> ProviderView:
    """Return how a provider is."""
    last_us, retry_us = status.last_tick_us, status.retry_at_us
    return ProviderView(
        name=status.name,
        state=status.state,
        instruments=status.instruments,
        ticks=status.ticks,
        dropped={str(fault): number for fault, number in sorted(status.dropped.items())},
        bars=status.bars,
        lag_ms=None if last_us is None else max(0, (to_us(now) - last_us) // 1_000),
        failures=status.failures,
        last_error=status.last_error,
        retry_at=None if retry_us is None else from_us(retry_us),
    )


def import_view(record: ImportRecord) -> ImportView:
    """Return an import for operators."""
    return ImportView(
        id=record.id,
        series=record.series_id,
        resolution=record.resolution,
        source=record.source,
        source_sha256=record.source_sha256,
        state=record.state,
        bars=record.bar_count,
        lines=record.reached.line,
        bad_count=record.bad_count,
        bad_lines=[BadLineView(line=each.line, reason=each.reason) for each in record.bad_lines],
    )


def quote_view(asked: str, quote: Quote | None) -> dict[str, Any]:
    """Return the quote of one symbol as it was asked; an unknown one is an error of its own."""
    if quote is None:
        return {"s": "error", "n": asked, "v": {}}
    instrument = quote.instrument
    scale = instrument.price_scale
    before = quote.previous_close
    change = 0 if before is None else quote.last - before
    return {
        "s": "ok",
        "n": asked,
        "v": {
            "ch": change / scale,
            "chp": round(change * 100 / before, 2) if before else 0.0,
            "short_name": instrument.ticker,
            "exchange": instrument.exchange.value,
            "description": instrument.description,
            "original_name": instrument.symbol,
            "lp": quote.last / scale,
            "ask": quote.ask / scale,
            "bid": quote.bid / scale,
            "spread": (quote.ask - quote.bid) / scale,
            "open_price": quote.day_open / scale,
            "high_price": quote.day_high / scale,
            "low_price": quote.day_low / scale,
            "prev_close_price": (quote.day_open if before is None else before) / scale,
            "volume": _shifted(quote.day_volume, instrument.volume_decimals),
        },
    }


def quote_update(quote: Quote) -> dict[str, Any]:
    """Return a quote as a WebSocket update; ``n`` is the full symbol, however it was asked."""
    return quote_view(quote.instrument.symbol, quote)


Pieces = list[bytes | memoryview]
"""An answer in pieces; those of finished texts are views of them."""


def encode_bars(instrument: Instrument, selection: Selection, texts: TextCache) -> Pieces:
    """Encode the native answer of the bars route."""
    if not selection.parts:
        next_time = None if selection.next_time is None else selection.next_time * 1_000
        return [orjson.dumps({"bars": [], "no_data": True, "next_time": next_time})]
    scale = _scale(instrument)
    pieces: Pieces = [b'{"bars":[']
    for part in selection.parts:
        pieces += (texts.rows(part, scale), b",")
    pieces[-1] = b'],"no_data":false,"next_time":null}'
    return pieces


def bar_views(instrument: Instrument, bars: Columns) -> list[dict[str, Any]]:
    """Return bars as JSON-ready objects, times in milliseconds."""
    columns = (column.tolist() for column in _wire_columns(instrument, bars))
    return [
        {"time": t, "open": o, "high": h, "low": lo, "close": c, "volume": v}
        for t, o, h, lo, c, v in zip(*columns, strict=True)
    ]


def encode_history(instrument: Instrument, selection: Selection, texts: TextCache) -> Pieces:
    """Encode UDF's answer: columns, or ``no_data`` with the time of the nearest earlier bar."""
    if not selection.parts:
        answer: dict[str, Any] = {"s": "no_data"}
        if selection.next_time is not None:
            answer["nextTime"] = selection.next_time
        return [orjson.dumps(answer)]
    scale = _scale(instrument)
    columns = [texts.columns(part, scale) for part in selection.parts]
    pieces: Pieces = []
    for head, column in zip(_HISTORY_HEADS, zip(*columns, strict=True), strict=True):
        pieces.append(head)
        for text in column:
            pieces += (text, b",")
        pieces.pop()
    pieces.append(b"]}")
    return pieces


def encode_symbol_columns(views: list[SymbolInfoView]) -> bytes:
    """Encode UDF's symbol_info: one array per field, names with hyphens."""
    columns: dict[str, list[Any]] = {
        "symbol": [view.name for view in views],
        "full-name": [view.full_name for view in views],
        "currency-code": [view.currency_code for view in views],
        "exchange-listed": [view.listed_exchange for view in views],
        "exchange-traded": [view.exchange for view in views],
        "minmovement": [view.minmov for view in views],
        "minmovement2": [view.minmove2 for view in views],
        "session-regular": [view.session for view in views],
    }
    for name in (
        "ticker",
        "description",
        "type",
        "timezone",
        "pricescale",
        "fractional",
        "pointvalue",
        "has_intraday",
        "has_daily",
        "has_weekly_and_monthly",
        "has_empty_bars",
        "has_seconds",
        "seconds_multipliers",
        "intraday_multipliers",
        "supported_resolutions",
        "volume_precision",
        "visible_plots_set",
        "session_holidays",
        "corrections",
    ):
        columns[name.replace("_", "-")] = [getattr(view, name) for view in views]
    return orjson.dumps(columns)


def _wire_columns(instrument: Instrument, bars: Columns) -> list[Numbers]:
    """Return time in milliseconds, the four prices, the volume."""
    scale = _scale(instrument)
    return [bars.time * 1_000, *scale.prices(bars), scale.volumes(bars.volume)]


def _scale(instrument: Instrument) -> Scale:
    return Scale(instrument.price_decimals, instrument.volume_decimals)


def _raw(field: str, value: Decimal, decimals: int) -> int:
    raw = value.scaleb(decimals)
    if raw != raw.to_integral_value() or not 0 < raw <= QUANTITY_RAW_MAX:
        raise _field_error(field, "quantity", f"must be positive with at most {decimals} decimals")
    return int(raw)


def _day_of(time: int) -> date:
    return datetime.fromtimestamp(time, UTC).date()


def _amount_text(dividend: Dividend) -> str:
    return f"{Decimal(dividend.amount).scaleb(-DIVIDEND_DECIMALS).normalize():f}"


def _decimal_text(raw: int, decimals: int) -> str:
    return f"{Decimal(raw).scaleb(-decimals):f}"


def _field_error(field: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError(message, errors=[FieldError(field, rule, message)])


def _shifted(value: int, decimals: int) -> float:
    return value / 10**decimals if decimals else value
