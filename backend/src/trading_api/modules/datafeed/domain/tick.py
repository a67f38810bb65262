"""Ticks of a live market, and which of them are believed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

RAW_MAX = 10**15
OLD_US = 60_000_000
"""A tick that took longer than a minute says nothing about now."""

EARLY_US = 5_000_000
"""Clocks differ; a tick further ahead than this comes from a wrong one."""

BAND_PERCENT = 10
"""A price further from the last one than this needs confirmation."""

CONFIRMATIONS = 2
"""So many more ticks must agree with a price outside the band."""

SPIKE_FACTOR = 1_000
"""A price this many times the last one, either way, is never believed."""


class Fault(StrEnum):
    """Why a tick is dropped; names of a metric's labels."""

    NOT_FINITE = "not_finite"
    NOT_POSITIVE = "not_positive"
    CROSSED = "crossed"
    SPIKE = "spike"
    UNCONFIRMED = "unconfirmed"
    OLD = "old"
    EARLY = "early"
    OUT_OF_RANGE = "out_of_range"
    UNKNOWN_SYMBOL = "unknown_symbol"


@dataclass(frozen=True, slots=True)
class ProviderTick:
    """A trade or a quote as a provider tells it, unchecked.

    Attributes:
        symbol: full symbol of the instrument.
        at_us: when it happened, microseconds since 1970 UTC.
        price: last price; NaN and worse are possible.
        size: what was traded, in units; 0 for a quote alone.
        bid: best bid; None where it isn't known.
        ask: best ask; None where it isn't known.
    """

    symbol: str
    at_us: int
    price: Decimal
    size: Decimal = Decimal(0)
    bid: Decimal | None = None
    ask: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick that is believed, prices in ticks of the instrument.

    Attributes:
        symbol: full symbol of the instrument.
        at_us: when it happened, microseconds since 1970 UTC.
        last: last price, raw, positive.
        size: volume at the instrument's volume decimals.
        bid: raw, positive, not above ``ask``.
        ask: raw.
    """

    symbol: str
    at_us: int
    last: int
    size: int
    bid: int
    ask: int


class TickGate:
    """Lets the believable ticks of one instrument through and counts the others.

    Args:
        price_decimals: of the instrument.
        volume_decimals: of the instrument.
        spread: distance of bid and ask, raw, where a tick names none; may be changed later.
        tick: smallest step of the instrument's prices, raw.
        last: last known price, raw; None at the beginning.
        last_us: when that was.
    """

    def __init__(
        self,
        *,
        price_decimals: int,
        volume_decimals: int,
        spread: int,
        tick: int = 1,
        last: int | None = None,
        last_us: int = 0,
    ) -> None:
        self._price_decimals = price_decimals
        self._volume_decimals = volume_decimals
        self.spread = spread
        self._tick = tick
        self._last = last
        self._last_us = last_us
        self._candidate = 0
        self._confirmed = 0
        self._dropped: Counter[Fault] = Counter()

    @property
    def dropped(self) -> Mapping[Fault, int]:
        """How many ticks were dropped, by reason."""
        return self._dropped

    def admit(self, told: ProviderTick, *, now_us: int) -> Tick | None:
        """Return the tick, or None where it is dropped and counted."""
        found = self._judged(told, now_us)
        if isinstance(found, Fault):
            self._dropped[found] += 1
            return None
        self._last, self._last_us = found.last, found.at_us
        return found

    def _judged(self, told: ProviderTick, now_us: int) -> Tick | Fault:
        numbers = [told.price, told.size, *(x for x in (told.bid, told.ask) if x is not None)]
        if not all(number.is_finite() for number in numbers):
            return Fault.NOT_FINITE
        prices = [told.price, *numbers[2:]]
        if min(prices) <= 0 or told.size < 0:
            return Fault.NOT_POSITIVE
        if max(number.adjusted() for number in numbers if number) > 15 - self._price_decimals:
            return Fault.OUT_OF_RANGE
        last, bid, ask = (self._raw(price) for price in (told.price, told.bid, told.ask))
        if last is None or last <= 0:
            return Fault.NOT_POSITIVE
        if bid is None or ask is None:
            half = self.spread // self._tick // 2 * self._tick
            bid = max(last - half, 1)
            ask = last - half + self.spread
        if bid > ask or bid <= 0:
            return Fault.CROSSED
        if told.at_us < self._last_us or told.at_us < now_us - OLD_US:
            return Fault.OLD
        if told.at_us > now_us + EARLY_US:
            return Fault.EARLY
        fault = self._jump(last)
        if fault is not None:
            return fault
        size = int(told.size.scaleb(self._volume_decimals))
        if size > RAW_MAX or ask > RAW_MAX:
            return Fault.OUT_OF_RANGE
        return Tick(told.symbol, told.at_us, last, size, bid, ask)

    def _jump(self, last: int) -> Fault | None:
        """Return a fault for a price too far away that others haven't confirmed yet."""
        before = self._last
        if before is None or abs(last - before) * 100 <= before * BAND_PERCENT:
            self._confirmed = 0
            self._candidate = 0
            return None
        if last >= before * SPIKE_FACTOR or before >= last * SPIKE_FACTOR:
            return Fault.SPIKE
        agrees = abs(last - self._candidate) * 100 <= self._candidate * BAND_PERCENT
        self._confirmed = self._confirmed + 1 if self._candidate and agrees else 0
        self._candidate = last
        if self._confirmed < CONFIRMATIONS:
            return Fault.UNCONFIRMED
        self._confirmed = self._candidate = 0
        return None

    def _raw(self, price: Decimal | None) -> int | None:
        """Return a price in ticks, rounded half to even."""
        return None if price is None else round(price.scaleb(self._price_decimals))
