"""Instruments' rules and quotes on the wire."""

from fractions import Fraction

from pydantic import (
    Field,
)

from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.instrument import (
    Instrument,
    Policy,
    Quote,
)
from trading_api.modules.broker.domain.order import (
    TimeInForce,
)
from trading_api.modules.broker.schemas.wire import (
    Milliseconds,
    Number,
    View,
    ms_of,
    rounded,
)


class QuoteView(View):
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
            time=ms_of(quote.at),
        )


class QuantityRules(View):
    """What sizes an order may have."""

    min: Number
    max: Number
    step: Number
    default: Number


class InstrumentView(View):
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
        pip = decimal_of(instrument.pip, instrument.price_scale)
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
            margin_rate=rounded(Fraction(1, leverage)),
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
