"""The market as an endless stream of lines, newest quote wins for a slow reader."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import RateLimitedError, UnavailableError
from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.errors import StreamsExceededError
from trading_api.modules.broker.ports import MarketHistory, QuoteSource

STREAMS_MAX = 4
"""Connections one user may have at once, as the dialect allows."""

PACE_SECONDS = 0.5
"""As often as the market moves; at most one second may be gathered."""


Line = dict[str, object]


class _Day:
    """Today's bar of an instrument, kept by its quotes once its beginning was read."""

    def __init__(self, begins: date, start: int, columns: dict[str, list[float]]) -> None:
        self.begins = begins
        self.start = start
        self.open, self.high = columns["o"][-1], columns["h"][-1]
        self.low, self.close = columns["l"][-1], columns["c"][-1]
        self.volume = (columns["v"] or [0])[-1]

    def take(self, price: float) -> None:
        """Take a newer price."""
        self.high, self.low = max(self.high, price), min(self.low, price)
        self.close = price


class MarketStream:
    """Hands every listener the same lines: quotes, trades and daily bars of all instruments.

    A trade line shows the price that bars are built from, at the size of one unit: the market that
    is traded here tells no sizes.
    """

    def __init__(self, *, quotes: QuoteSource, history: MarketHistory, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self._newest: dict[str, Quote] = {}
        self._days: dict[str, _Day] = {}
        self._open: Counter[str] = Counter()
        quotes.listen(self._take)

    def open(self, *, user_id: str, credential: str | None) -> AsyncIterator[list[Line]]:
        """Return the batches of lines from now on, without a snapshot and without an end.

        Raises:
            StreamsExceededError: the user has as many streams as one may have.
        """
        if self._open[user_id] >= STREAMS_MAX:
            raise StreamsExceededError(
                f"a user may have {STREAMS_MAX} streams at once", streams_max=STREAMS_MAX
            )
        self._open[user_id] += 1
        return self._run(user_id, credential)

    async def _run(self, user_id: str, credential: str | None) -> AsyncIterator[list[Line]]:
        seen = {symbol: quote.sequence for symbol, quote in self._newest.items()}
        try:
            while True:
                lines: list[Line] = []
                for symbol, quote in sorted(self._newest.items()):
                    if seen.get(symbol) == quote.sequence:
                        continue
                    seen[symbol] = quote.sequence
                    lines += await self._lines_of(quote, credential)
                yield lines
                await asyncio.sleep(PACE_SECONDS)
        finally:
            self._open[user_id] -= 1

    async def _lines_of(self, quote: Quote, credential: str | None) -> list[Line]:
        at = int(quote.at.timestamp())
        last = float(decimal_of(quote.last or quote.bid, quote.price_scale))
        lines: list[Line] = [
            {
                "f": "q",
                "id": quote.symbol,
                "t": at,
                "ap": float(decimal_of(quote.ask, quote.price_scale)),
                "as": 1,
                "bp": float(decimal_of(quote.bid, quote.price_scale)),
                "bs": 1,
            },
            {"f": "t", "id": quote.symbol, "p": last, "s": 1, "t": at},
        ]
        day = await self._day_of(quote, credential)
        if day is not None:
            day.take(last)
            lines.append(
                {
                    "f": "d",
                    "id": quote.symbol,
                    "o": day.open,
                    "h": day.high,
                    "l": day.low,
                    "c": day.close,
                    "v": day.volume,
                    "t": day.start,
                }
            )
        return lines

    async def _day_of(self, quote: Quote, credential: str | None) -> _Day | None:
        today = quote.at.astimezone(UTC).date()
        known = self._days.get(quote.symbol)
        if known is not None and known.begins == today:
            return known
        now = int(quote.at.timestamp())
        try:
            columns = await self._history.read(
                symbol=quote.symbol,
                resolution="1D",
                from_=now - 86_400,
                to=now,
                credential=credential,
            )
        except (UnavailableError, RateLimitedError):
            return None
        if not columns["t"]:
            return None
        made = self._days[quote.symbol] = _Day(today, columns["t"][-1], columns)
        return made

    def _take(self, quote: Quote) -> None:
        self._newest[quote.symbol] = quote
