"""What datafeed publishes: quotes and facts on the bus, and what its internal routes answer.

Quotes are prices, not facts: at most once, the newest wins, no outbox. One pub/sub channel per
instrument, ``price_channel(instrument)``. A tradable instrument is published at least every 500 ms
whether or not its price moved (the repeat is the heartbeat); older than ``STALE_AFTER_US`` means
nobody should trade on it.

Internal routes for other modules (service identity only):

* ``GET /internal/v1/datafeed/quotes?symbols=DEMO:AAPL,DEMO:EURUSD`` → ``QuotesAnswer``
* ``GET /internal/v1/datafeed/instruments[?symbols=…]`` → ``InstrumentsAnswer``
"""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from trading_api.contracts.envelope import Event
from trading_api.kernel.values import Price, Quantity

PRICE_PATTERN = "trading:{datafeed}:price:*"
"""Pub/sub pattern that matches every instrument's quotes."""

QUOTE_INTERVAL_US = 500_000
"""A tradable instrument's quotes are never further apart than this, in microseconds."""

STALE_AFTER_US = 2_000_000
"""Age in microseconds from which a quote is stale: no fills, no margin on it."""


def price_channel(instrument: str) -> str:
    """Return the pub/sub channel of one instrument, such as ``DEMO:AAPL``."""
    return f"trading:{{datafeed}}:price:{instrument}"


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Quote(_Message):
    """The best prices of one instrument at one instant.

    Attributes:
        instrument: full symbol, exchange first, such as ``DEMO:AAPL``.
        exchange: the part before the colon.
        symbol: the part after the colon.
        scale: decimals of the three prices: 2 means that raw 43047 is 430.47.
        bid: what a seller gets, raw integer at ``scale``; positive, never above ``ask``.
        ask: what a buyer pays, raw.
        last: the price that bars are built from, raw.
        sequence: grows with every quote of the instrument, the same on every instance; a repeated
            or smaller one is old news.
        at_us: the instant the quote holds from, microseconds since 1970 UTC.
        tradable: whether orders may fill on it (HIST never is).
        previous_close: last price at the end of the previous UTC day, raw; None at the first day.
    """

    instrument: str
    exchange: str
    symbol: str
    scale: int
    bid: int
    ask: int
    last: int
    sequence: int
    at_us: int
    tradable: bool
    previous_close: int | None = None

    def bid_price(self) -> Price:
        """Return the bid as an exact price."""
        return Price(self.bid, self.scale)

    def ask_price(self) -> Price:
        """Return the ask as an exact price."""
        return Price(self.ask, self.scale)

    def last_price(self) -> Price:
        """Return the last price as an exact price."""
        return Price(self.last, self.scale)

    def encode(self) -> bytes:
        """Return the JSON bytes that travel on the bus."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes) -> "Quote":
        """Return the quote of bus bytes.

        Raises:
            ValueError: the bytes are not a quote.
        """
        return cls.model_validate_json(data)


class Instrument(_Message):
    """What may be traded or charted, as other modules need to know it.

    Attributes:
        instrument: full symbol, such as ``DEMO:AAPL``.
        exchange: ``DEMO`` or ``HIST``.
        symbol: the ticker within the exchange.
        description: one line for people.
        kind: asset class; also names the margin and commission class.
        base_currency: what a unit is a unit of where that is a currency (EUR of EURUSD), else None.
        quote_currency: currency of its prices.
        price_scale: decimals of its prices; the tick is ``tick`` at that scale.
        tick: smallest price step, raw.
        quantity_scale: decimals of its quantities.
        quantity_step: smallest quantity step, raw; also the smallest order.
        quantity_max: largest order, raw.
        lot_size: units of one lot, raw; for display, orders are in units.
        multiplier: units of the quote currency per unit and whole price point; 1 for spot.
        tradable: whether the venue takes orders on it.
        session: trading hours in ``time_zone`` in the chart's notation, such as ``24x7``.
        time_zone: IANA name.
    """

    instrument: str
    exchange: str
    symbol: str
    description: str
    kind: Literal["stock", "forex", "crypto", "futures", "index"]
    base_currency: str | None
    quote_currency: str
    price_scale: int
    tick: int
    quantity_scale: int
    quantity_step: int
    quantity_max: int
    lot_size: int
    multiplier: int
    tradable: bool
    session: str
    time_zone: str

    def quantity_step_value(self) -> Quantity:
        """Return the smallest step as an exact quantity."""
        return Quantity(self.quantity_step, self.quantity_scale)


class QuotesAnswer(_Message):
    """Answer of the internal quotes route.

    Attributes:
        quotes: one per known instrument asked for, in the order asked.
        unknown: the symbols that name no instrument.
    """

    quotes: list[Quote]
    unknown: list[str]


class InstrumentsAnswer(_Message):
    """Answer of the internal instruments route; fields as in ``QuotesAnswer``."""

    instruments: list[Instrument]
    unknown: list[str]


class InstrumentChanged(Event):
    """An operator listed, changed or retired an instrument; the key is its symbol.

    Attributes:
        instrument: full symbol.
        change: what was done.
        version: the instrument's version from now on, its sequence among its changes.
        changed_by: user id of the operator.
        before: the changed fields as they were, by name; empty when it was listed.
        after: the same fields as they are; empty when it was retired.
    """

    TYPE: ClassVar[str] = "datafeed.instrument.changed"

    instrument: str
    change: Literal["listed", "changed", "retired"]
    version: int
    changed_by: str
    before: dict[str, str | int | bool | None]
    after: dict[str, str | int | bool | None]
