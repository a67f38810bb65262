"""What can be traded, on which terms, and the quote it trades at."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from trading_api.kernel.values import Currency
from trading_api.modules.broker.domain.arithmetic import divide_half_even, divide_up, rescale
from trading_api.modules.broker.domain.conversion import Conversion
from trading_api.modules.broker.domain.limits import RiskLimits
from trading_api.modules.broker.domain.quote import QUOTE_AGE_MAX as QUOTE_AGE_MAX
from trading_api.modules.broker.domain.quote import OrderSide as OrderSide
from trading_api.modules.broker.domain.quote import Quote as Quote
from trading_api.modules.broker.domain.schedules import FinancingRate

COST_SCALE = 8
"""Decimals of cost and of results before they become cents (10^-8 of the quote currency)."""

VALUE_RAW_MAX = 10**18
"""Largest value of an order or position in 10^-8 of its currency, and in raw quantity times raw
price: both stay inside 63 bits, sums included."""

PPM = 1_000_000
"""Rates are whole parts per million."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """What may be traded or charted.

    Attributes:
        symbol: with its exchange, ``DEMO:AAPL``.
        description: one line for people.
        kind: ``stock``, ``forex``, ``crypto``, ``futures`` or ``index``.
        base_currency: of a unit, where a unit is money (EUR of EURUSD); else None.
        quote_currency: code of the currency of its prices.
        price_scale: decimals of its prices.
        tick: smallest step of a price, raw.
        quantity_scale: decimals of its quantities.
        quantity_step: smallest order and smallest step, raw.
        quantity_max: largest order, raw.
        lot_size: units of a lot, for display.
        multiplier: quote currency per unit and whole price point.
        tradable: whether the paper venue takes orders on it.
        session: trading hours in the chart's notation.
        time_zone: IANA name.
    """

    symbol: str
    description: str
    kind: str
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

    @property
    def pip(self) -> int:
        """Return a pip, raw: ten ticks in forex, else one."""
        return self.tick * 10 if self.kind == "forex" else self.tick


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms an account trades an instrument; kept with the position.

    Attributes:
        symbol: the instrument.
        price_scale: decimals of its prices.
        quantity_scale: decimals of its quantities.
        multiplier: quote currency per unit and whole price point.
        leverage: value that one unit of margin carries, such as 5 for 5:1.
        commission_ppm: commission in parts per million of the traded value.
        currency: of margin and money: the account's own.
        conversion: from the currency of prices, at the rate of the last fill or acceptance; None
            where prices are in the account's currency.
    """

    symbol: str
    price_scale: int
    quantity_scale: int
    multiplier: int
    leverage: int
    commission_ppm: int
    currency: Currency
    conversion: Conversion | None = None

    def at(self, quotes: Mapping[str, Quote]) -> "Terms":
        """Return the terms at the newest rate there is."""
        if self.conversion is None:
            return self
        return replace(self, conversion=self.conversion.at(quotes.get(self.conversion.pair)))

    def to_account(self, value: int) -> int:
        """Return 10^-8 of the currency of prices in 10^-8 of the account's, without a spread."""
        return value if self.conversion is None else self.conversion.convert_middle(value)

    def compute_value(self, quantity: int, price: int) -> int:
        """Return quantity · price · multiplier, 10^-8 of the currency of prices, signed."""
        raw = quantity * price * self.multiplier
        return rescale(raw, self.price_scale + self.quantity_scale, COST_SCALE)

    def compute_margin(self, quantity: int, price: int) -> int:
        """Return the margin of |quantity| at a price in minor units, rounded up."""
        value = self.to_account(self.compute_value(abs(quantity), price))
        return divide_up(value, self.leverage * self._per_minor())

    def compute_commission(self, quantity: int, price: int) -> int:
        """Return the commission of a fill in minor units, rounded up as what a customer owes."""
        value = self.to_account(self.compute_value(abs(quantity), price))
        return divide_up(value * self.commission_ppm, PPM * self._per_minor())

    def to_minor(self, value: int) -> int:
        """Convert a result, 10^-8 of the currency of prices, to minor units, half-even, once.

        In another currency profits convert at the bid, losses at the ask.
        """
        if self.conversion is None:
            return divide_half_even(value, self._per_minor())
        return self.conversion.convert(value, self._per_minor())

    def to_minor_middle(self, value: int) -> int:
        """Convert the same without the spread."""
        if self.conversion is None:
            return divide_half_even(value, self._per_minor())
        return self.conversion.convert_middle(value, self._per_minor())

    def _per_minor(self) -> int:
        return int(10 ** (COST_SCALE - self.currency.scale))


@dataclass(frozen=True, slots=True)
class Policy:
    """The house's terms by kind of instrument.

    Attributes:
        leverage_by_kind: such as ``{"stock": 5}``; a kind without one can't be traded.
        commission_ppm_by_kind: parts per million of the traded value; absent means none.
        slippage_cap_ppm: how much worse than the market a market or stop order may fill, in the
            price that its margin is reserved for.
        financing_by_kind: what holding overnight costs; absent means nothing.
        limits: what any one account may do.
    """

    leverage_by_kind: dict[str, int]
    commission_ppm_by_kind: dict[str, int]
    slippage_cap_ppm: int
    financing_by_kind: Mapping[str, FinancingRate] = field(default_factory=dict)
    limits: RiskLimits = field(default_factory=RiskLimits)

    def leverage_of(self, instrument: Instrument, leverages: Mapping[str, int]) -> int:
        """Return what is in force: what the user chose, at most what the house allows."""
        highest = self.leverage_by_kind.get(instrument.kind, 1)
        return min(highest, leverages.get(instrument.symbol, highest))

    def terms_of(
        self,
        instrument: Instrument,
        currency: Currency,
        leverages: Mapping[str, int] = MappingProxyType({}),
        conversion: Conversion | None = None,
    ) -> Terms:
        """Return the terms of a tradable instrument on an account with those leverages."""
        return Terms(
            symbol=instrument.symbol,
            price_scale=instrument.price_scale,
            quantity_scale=instrument.quantity_scale,
            multiplier=instrument.multiplier,
            leverage=self.leverage_of(instrument, leverages),
            commission_ppm=self.commission_ppm_by_kind.get(instrument.kind, 0),
            currency=currency,
            conversion=conversion,
        )


def full_symbol(text: str) -> str:
    """Return the full symbol of what a client wrote: a bare ticker is the demo market's."""
    return text if ":" in text else f"DEMO:{text}"
