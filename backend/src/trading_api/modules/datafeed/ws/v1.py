"""Channels of version 1: ``bars`` and ``quotes``; newest wins, no offsets."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.service import TIME_MAX, DatafeedService
from trading_api.runtime.http import Access, RequestModel
from trading_api.runtime.identity import Principal
from trading_api.runtime.ws import PriceChannel

NewestBar = Callable[[str, str], Awaitable[Sequence[Any]]]
"""Returns the newest bar of a full symbol and a canonical resolution, in a list."""

BARS = "bars"
QUOTES = "quotes"


def bars_feed(symbol: str, resolution: str) -> str:
    """Return the feed of one instrument's bars, such as ``bars:DEMO:AAPL:1``."""
    return f"{BARS}:{symbol}:{resolution}"


def quotes_feed(symbol: str) -> str:
    """Return the feed of one instrument's quotes, such as ``quotes:DEMO:AAPL``."""
    return f"{QUOTES}:{symbol}"


class BarsChannel(PriceChannel[schemas.BarsParams]):
    """The forming bar of one symbol and resolution, and each bar's final state."""

    route: ClassVar[str] = BARS
    params: ClassVar[type[RequestModel]] = schemas.BarsParams
    update: ClassVar[type[BaseModel]] = schemas.BarUpdate

    def __init__(
        self, *, service: DatafeedService, clock: Clock, access: Access, newest_bar: NewestBar
    ) -> None:
        self.access = access  # type: ignore[misc]
        self._service = service
        self._clock = clock
        self._newest_bar = newest_bar

    async def authorize(self, principal: Principal | None, params: schemas.BarsParams) -> None:
        """Check that symbol and resolution exist.

        Raises:
            InstrumentNotFoundError: no such symbol.
            ResolutionUnsupportedError: no such resolution, or finer than the data.
        """
        await self._service.bars(
            symbol=params.symbol,
            resolution=params.resolution,
            from_time=0,
            to_time=TIME_MAX,
            count_back=1,
            now=self._clock.now(),
        )

    def feeds(self, params: schemas.BarsParams) -> Sequence[str]:
        """Return the one feed, symbol and resolution in canonical spelling."""
        symbol = self._service.symbol_of(symbol=params.symbol)
        return [bars_feed(symbol, str(parse_resolution(params.resolution)))]

    async def snapshot(
        self, principal: Principal | None, params: schemas.BarsParams
    ) -> Sequence[Any]:
        """Return the newest bar."""
        symbol = self._service.symbol_of(symbol=params.symbol)
        return await self._newest_bar(symbol, str(parse_resolution(params.resolution)))


class QuotesChannel(PriceChannel[schemas.QuotesParams]):
    """Quotes of a set of symbols; each symbol is a feed of its own, encoded once for all."""

    route: ClassVar[str] = QUOTES
    params: ClassVar[type[RequestModel]] = schemas.QuotesParams
    update: ClassVar[type[BaseModel]] = schemas.QuoteView

    def __init__(self, *, service: DatafeedService, clock: Clock, access: Access) -> None:
        self.access = access  # type: ignore[misc]
        self._service = service
        self._clock = clock

    async def authorize(self, principal: Principal | None, params: schemas.QuotesParams) -> None:
        """Check that every symbol exists.

        Raises:
            InstrumentNotFoundError: one of them doesn't.
        """
        self._symbols(params)

    def feeds(self, params: schemas.QuotesParams) -> Sequence[str]:
        """Return one feed per symbol, in canonical spelling."""
        return [quotes_feed(symbol) for symbol in self._symbols(params)]

    async def snapshot(
        self, principal: Principal | None, params: schemas.QuotesParams
    ) -> Sequence[Any]:
        """Return the quote of every symbol."""
        symbols = self._symbols(params)
        quotes = await self._service.quotes(symbols=symbols, now=self._clock.now())
        return [schemas.quote_update(quote) for quote in quotes if quote]

    def _symbols(self, params: schemas.QuotesParams) -> list[str]:
        """Return the full symbols, each once."""
        asked = (*params.symbols, *params.fast_symbols)
        return list(dict.fromkeys(self._service.symbol_of(symbol=symbol) for symbol in asked))
