"""Instruments: what can be charted, and on DEMO traded."""

from dataclasses import dataclass
from enum import StrEnum


class Exchange(StrEnum):
    """Where an instrument is listed here."""

    DEMO = "DEMO"
    """Shifted real history, continued live; open 24x7; the paper broker trades it."""

    HIST = "HIST"
    """The bundled series as they are; static; not tradable."""

    SIM = "SIM"
    """A seeded simulation, streamed like a real market."""

    REPLAY = "REPLAY"
    """Stored history played live at some speed."""

    CRYPTO = "CRYPTO"
    """Crypto exchanges, live; tickers such as ``BINANCE.BTCUSDT``."""


LIVE_EXCHANGES = frozenset({Exchange.SIM, Exchange.REPLAY, Exchange.CRYPTO})
"""Whose instruments a provider feeds."""


class AssetClass(StrEnum):
    """What kind of thing an instrument is; names its margin and commission class too."""

    STOCK = "stock"
    FOREX = "forex"
    CRYPTO = "crypto"
    FUTURES = "futures"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One instrument of one exchange.

    Attributes:
        exchange: where it is listed here.
        ticker: its name within the exchange, upper case.
        description: one line for people; DEMO says that it is a simulation.
        asset_class: its kind.
        base_currency: the currency that a unit is one of, for forex; else None.
        quote_currency: currency of its prices.
        price_decimals: decimals of its prices.
        volume_decimals: decimals of its volumes.
        spread_ticks: distance of bid and ask in ticks; 0 where there is no book to imitate.
        ask_is_last: the series is the ask's (EURUSD); otherwise the last price lies between.
        quantity_step: smallest order quantity and step, raw.
        quantity_max: largest order quantity, raw.
        lot_size: units of a lot, raw, for display.
        session: trading hours in the chart's notation, local to ``time_zone``.
        time_zone: IANA name.
        series_id: the stored series behind it.
        tradable: whether the paper venue takes orders on it.
        calendar: code of the exchange calendar that its holidays come from; None: no calendar.
        session_holidays: weekdays without a session, ``YYYYMMDD`` by comma.
        session_corrections: days with other hours, ``0930-1300:20251128;…``.
        multiplier: units of the quote currency per unit and whole price point; 1 for spot.
        quantity_decimals: decimals of its quantities; step, largest and lot are at that scale.
        sector: such as ``Technology``; None where it has none.
        industry: finer than the sector; None where it has none.
        version: 1 as first listed, one more with every change.
        tick: smallest step of its prices, in units of the last decimal: 25 for 0.25.
    """

    exchange: Exchange
    ticker: str
    description: str
    asset_class: AssetClass
    base_currency: str | None
    quote_currency: str
    price_decimals: int
    volume_decimals: int
    spread_ticks: int
    ask_is_last: bool
    quantity_step: int
    quantity_max: int
    lot_size: int
    session: str
    time_zone: str
    series_id: str
    tradable: bool
    calendar: str | None = None
    session_holidays: str = ""
    session_corrections: str = ""
    multiplier: int = 1
    quantity_decimals: int = 0
    sector: str | None = None
    industry: str | None = None
    version: int = 1
    tick: int = 1

    @property
    def symbol(self) -> str:
        """Full symbol, such as ``DEMO:AAPL``."""
        return f"{self.exchange}:{self.ticker}"

    @property
    def spread(self) -> int:
        """Distance of bid and ask, raw."""
        return self.spread_ticks * self.tick

    @property
    def price_scale(self) -> int:
        """Raw value of one whole unit of price, as charts call it: 100 for two decimals."""
        return int(10**self.price_decimals)


DIVIDEND_DECIMALS = 8
"""Decimals of a dividend's amount."""


@dataclass(frozen=True, slots=True)
class Dividend:
    """What a share paid.

    Attributes:
        time: 00:00 UTC of the ex-date, the first trading day without it, seconds.
        amount: of one share, in 10^-8 of the instrument's currency, positive.
    """

    time: int
    amount: int


@dataclass(frozen=True, slots=True)
class Quote:
    """The prices of an instrument at one instant, in ticks.

    Attributes:
        instrument: whose.
        bid: what a seller gets.
        ask: what a buyer pays; never below the bid.
        last: the price that bars are built from.
        sequence: number of the half-second slot since 1970; equal on every process.
        at_us: start of that slot, microseconds since 1970 UTC.
        day_open: open of the current day's bar.
        day_high: highest of the day so far.
        day_low: lowest of the day so far.
        day_volume: volume of the day so far, at the instrument's volume decimals.
        previous_close: last price of the day before; None on the first day.
    """

    instrument: Instrument
    bid: int
    ask: int
    last: int
    sequence: int
    at_us: int
    day_open: int
    day_high: int
    day_low: int
    day_volume: int
    previous_close: int | None


def search_rank(instrument: Instrument, text: str) -> tuple[int, int, int] | None:
    """Return how well an instrument matches upper-cased ``text``: smaller is better, None: not.

    Matches of the ticker come before matches of the description, earlier positions before later
    ones, as TradingView's sample server ranks; a text with a colon is matched with the exchange.
    """
    demo_first = 0 if instrument.exchange is Exchange.DEMO else 1
    if not text:
        return (0, 0, demo_first)
    name = instrument.symbol if ":" in text else instrument.ticker
    position = name.find(text)
    if position >= 0:
        return (0 if name == text else 1, position, demo_first)
    position = instrument.description.upper().find(text)
    if position >= 0:
        return (2, position, demo_first)
    return None
