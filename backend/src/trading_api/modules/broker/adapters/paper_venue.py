"""The paper venue: it fills on the quotes that are there, in sizes that a market could bear."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from trading_api.modules.broker.domain.instrument import COST_SCALE, PPM, Instrument, Quote
from trading_api.modules.broker.domain.matching import Depth, Match, match
from trading_api.modules.broker.domain.order import Order
from trading_api.modules.broker.domain.session import parse_hours


@dataclass(frozen=True, slots=True)
class PaperModel:
    """How the paper venue fills.

    Attributes:
        seed: of everything random.
        volume_by_kind: what trades around one quote, whole units of the quote currency, by kind of
            instrument; 0 or absent: without limit.
        participation_ppm: share of it that one order may take of one quote.
        impact_ppm: how much worse the price gets for all of that.
        latency: between acceptance and the venue.
        latency_jitter: added to it at most, evenly.
    """

    seed: int = 0
    volume_by_kind: Mapping[str, int] | None = None
    participation_ppm: int = PPM
    impact_ppm: int = 0
    latency: timedelta = timedelta()
    latency_jitter: timedelta = timedelta()


class PaperVenue:
    """A venue of our own making; every account trades against the house."""

    def __init__(self, model: PaperModel) -> None:
        self._model = model

    def is_open(self, instrument: Instrument, at: datetime) -> bool:
        """Tell whether an instrument trades at an instant; hours nobody understands never end."""
        try:
            return parse_hours(instrument.session, instrument.time_zone).is_open(at)
        except ValueError:
            return True

    def compute_delay(self, order: Order) -> timedelta:
        """Return the latency of an order: the fixed part and its share of the jitter."""
        jitter = self._model.latency_jitter
        if jitter:
            jitter = jitter * self._draw(order.ingest_sequence, 0) // PPM
        return self._model.latency + jitter

    def meet(
        self, order: Order, quote: Quote, instrument: Instrument, *, is_new: bool = False
    ) -> Match:
        """Decide what a fresh quote does to an open order."""
        return match(order, quote, self._depth(order, quote, instrument), is_new=is_new)

    def _depth(self, order: Order, quote: Quote, instrument: Instrument) -> Depth:
        """Return what the order may take: its share of a volume between half and one and a half."""
        model = self._model
        volume = (model.volume_by_kind or {}).get(instrument.kind, 0)
        if not volume:
            return Depth(tick=instrument.tick)
        drawn = PPM // 2 + self._draw(order.ingest_sequence, quote.sequence)
        value = volume * drawn * model.participation_ppm // PPM**2 * int(10**COST_SCALE)
        price = quote.touch(order.side) * instrument.multiplier
        shift = COST_SCALE - instrument.price_scale - instrument.quantity_scale
        quantity = value // (price * 10**shift) if shift >= 0 else value * 10**-shift // price
        steps = max(1, int(quantity) // instrument.quantity_step)
        return Depth(steps * instrument.quantity_step, model.impact_ppm, instrument.tick)

    def _draw(self, ingest_sequence: int, quote_sequence: int) -> int:
        """Return an even number below a million that only the seed and the two sequences decide."""
        text = f"{self._model.seed}:{ingest_sequence}:{quote_sequence}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") % PPM
