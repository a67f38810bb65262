"""The market as an endless stream of lines, newest quote wins for a slow reader."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import UTC, date

import structlog

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import TokenInvalidError, TradingError
from trading_api.kernel.values import decimal_of
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.domain.schedules import midnight_of
from trading_api.modules.broker.errors import StreamsExceededError
from trading_api.modules.broker.ports import MarketHistory, QuoteSource

log = structlog.get_logger("broker")

STREAMS_MAX = 4
"""Connections one user may have at once, as the dialect allows."""

PACE_SECONDS = 0.5
"""As often as the market moves; at most one second may be gathered."""

DAY_SECONDS = 60.0
"""A bar of today is read anew this often while somebody listens, for its volume and for quotes
that the bus lost."""

DAY_RETRY_SECONDS = 5.0
"""After a question without an answer nobody asks again for this long."""


Line = dict[str, object]
Batches = AsyncGenerator[list[Line], None]


@dataclass(slots=True)
class _Day:
    """A day's bar of an instrument: what history told of it, and every quote since.

    Attributes:
        begins: the UTC day.
    """

    begins: date
    open: float
    high: float
    low: float
    close: float
    volume: float = 0

    @property
    def start(self) -> int:
        """Return when it begins, seconds since 1970 UTC."""
        return int(midnight_of(self.begins).timestamp())

    def take(self, price: float) -> None:
        """Take a newer price."""
        self.high, self.low = max(self.high, price), min(self.low, price)
        self.close = price


@dataclass(slots=True)
class _Asker:
    """In whose name history is asked.

    Attributes:
        may_ask: not once it was refused.
    """

    credential: str | None
    may_ask: bool = True


class MarketStream:
    """Hands every listener the same lines: quotes, trades and daily bars of all instruments.

    A trade line shows the price that bars are built from, at the size of one unit: the market that
    is traded here tells no sizes.

    Args:
        pace_seconds: between two batches of one listener.
    """

    def __init__(
        self,
        *,
        quotes: QuoteSource,
        history: MarketHistory,
        clock: Clock,
        pace_seconds: float = PACE_SECONDS,
    ) -> None:
        self._history = history
        self._clock = clock
        self._pace_seconds = pace_seconds
        self._newest: dict[str, Quote] = {}
        self._days: dict[str, _Day] = {}
        # When to ask for a day's bar again, on the monotonic clock.
        self._ask_at: dict[str, float] = {}
        self._open: Counter[str] = Counter()
        self._is_ending = asyncio.Event()
        quotes.listen(self._take)

    async def open(self, *, user_id: str, credential: str | None) -> Batches:
        """Return the batches of lines from now on, without a snapshot and without an end.

        Args:
            credential: the user's ``Authorization``, with which history is asked.

        Raises:
            StreamsExceededError: the user has as many streams as one may have.
        """
        if self._open[user_id] >= STREAMS_MAX:
            raise StreamsExceededError(
                f"a user may have {STREAMS_MAX} streams at once", streams_max=STREAMS_MAX
            )
        batches = self._run(user_id, _Asker(credential))
        # Once begun it gives the user's place back, even where nobody ever reads from it.
        await anext(batches)
        return batches

    def end(self) -> None:
        """End every stream with its next batch: the process stops."""
        self._is_ending.set()

    async def _run(self, user_id: str, asker: _Asker) -> Batches:
        self._open[user_id] += 1
        try:
            seen = {symbol: quote.sequence for symbol, quote in self._newest.items()}
            yield []
            while not self._is_ending.is_set():
                lines: list[Line] = []
                for symbol, quote in sorted(self._newest.items()):
                    if seen.get(symbol) == quote.sequence:
                        continue
                    seen[symbol] = quote.sequence
                    lines += await self._lines_of(quote, asker)
                yield lines
                await self._pause()
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._is_ending.wait(), self._pace_seconds)
        except TimeoutError:
            return

    async def _lines_of(self, quote: Quote, asker: _Asker) -> list[Line]:
        at = int(quote.at.timestamp())
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
            {"f": "t", "id": quote.symbol, "p": _last(quote), "s": 1, "t": at},
        ]
        day = await self._day_of(quote, asker)
        if day is not None:
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

    async def _day_of(self, quote: Quote, asker: _Asker) -> _Day | None:
        """Return the bar of a quote's day; None where it isn't known."""
        symbol, today = quote.symbol, _day_at(quote)
        now = self._clock.monotonic()
        if asker.may_ask and now >= self._ask_at.get(symbol, now):
            # Said before the question, so that other listeners don't ask meanwhile.
            self._ask_at[symbol] = now + DAY_RETRY_SECONDS
            await self._read_day(symbol, today, asker)
        known = self._days.get(symbol)
        return known if known is not None and known.begins == today else None

    async def _read_day(self, symbol: str, today: date, asker: _Asker) -> None:
        start = int(midnight_of(today).timestamp())
        try:
            columns = await self._history.read(
                symbol=symbol,
                resolution="1D",
                from_=start,
                to=int(self._newest[symbol].at.timestamp()),
                credential=asker.credential,
            )
        except TokenInvalidError:
            # It has expired or may not read history; another listener's may do.
            asker.may_ask = False
            self._ask_at.pop(symbol, None)
            return
        except TradingError as error:
            log.warning("day_not_answered", symbol=symbol, reason=error.code)
            return
        newest, known = self._newest[symbol], self._days.get(symbol)
        if _day_at(newest) != today:
            # It ended meanwhile.
            return
        self._ask_at[symbol] = self._clock.monotonic() + DAY_SECONDS
        told = known or _begin_day(newest)
        if columns["t"] and columns["t"][-1] >= start:
            open_, high, low, close, volume = (columns[name][-1] for name in "ohlcv")
            told = _Day(today, open_, high, low, close, volume)
        if known is not None:
            # It may have seen quotes that history hadn't when it answered.
            told.take(known.high)
            told.take(known.low)
        told.take(_last(newest))
        self._days[symbol] = told

    def _take(self, quote: Quote) -> None:
        self._newest[quote.symbol] = quote
        known = self._days.get(quote.symbol)
        if known is None:
            return
        if known.begins == _day_at(quote):
            known.take(_last(quote))
        else:
            # Correct but for what the bus may have lost, until history is read.
            self._days[quote.symbol] = _begin_day(quote)
            self._ask_at.pop(quote.symbol, None)


def _begin_day(quote: Quote) -> _Day:
    last = _last(quote)
    return _Day(_day_at(quote), open=last, high=last, low=last, close=last)


def _last(quote: Quote) -> float:
    return float(decimal_of(quote.last or quote.bid, quote.price_scale))


def _day_at(quote: Quote) -> date:
    return quote.at.astimezone(UTC).date()
