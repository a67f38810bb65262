"""The market as datafeed serves it: quotes from the bus into a cache, by HTTP where that is old."""

import asyncio
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

import httpx
import structlog
from pydantic import ValidationError

from trading_api.contracts import datafeed as contract
from trading_api.kernel.clock import Clock, from_us
from trading_api.kernel.errors import UnavailableError
from trading_api.modules.broker.domain.instrument import QUOTE_AGE_MAX, Instrument, Quote
from trading_api.modules.broker.errors import MarketUnavailableError
from trading_api.modules.broker.ports import REFRESH_AGE
from trading_api.runtime.bus import Bus, Subscription
from trading_api.runtime.peers import PeerClient

log = structlog.get_logger("broker")

ASK_TIMEOUT_SECONDS = 1.0
ASK_PAUSE_SECONDS = 0.25
"""After a question without an answer nobody asks again for this long."""

SYMBOLS_MAX = 200
"""Symbols of one question; the market has fewer."""

INSTRUMENTS_SECONDS = 60.0
"""How long instruments are believed; their rules change with a release of datafeed."""


class DatafeedQuotes:
    """Quotes of every tradable instrument.

    Args:
        client: asks datafeed's internal routes.
    """

    def __init__(self, *, bus: Bus, client: PeerClient, clock: Clock) -> None:
        self._bus = bus
        self._client = client
        self._clock = clock
        self._quotes: dict[str, Quote] = {}
        self._callbacks: list[Callable[[Quote], None]] = []
        self._subscription: Subscription | None = None
        self._asking = asyncio.Lock()
        self._asked_in_vain_at: float | None = None
        self._newest_at: datetime | None = None

    def start(self) -> None:
        """Begin to listen to the bus; it may come up later."""
        self._subscription = self._bus.subscribe(contract.PRICE_PATTERN, self._on_message)

    def stop(self) -> None:
        """Stop listening; harmless when repeated."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    @property
    def is_pushed(self) -> bool:
        """Tell whether quotes come by themselves: whether the bus is up."""
        return self._bus.is_up

    @property
    def is_live(self) -> bool:
        """Tell whether any instrument has a fresh quote."""
        return self._newest_at is not None and self._clock.now() - self._newest_at < QUOTE_AGE_MAX

    def find(self, symbol: str) -> Quote | None:
        """Return the newest quote known, however old; None where none ever came."""
        return self._quotes.get(symbol)

    async def refresh(
        self, symbols: Collection[str], *, older_than: timedelta = REFRESH_AGE
    ) -> None:
        """Ask datafeed for quotes that are older than that; never raises.

        One question asks for every instrument seen so far that is as old, so that what an account
        holds beside the one it trades is fresh too.
        """
        if not self._old(symbols, older_than):
            return
        async with self._asking:
            # Whoever held the lock before may have asked for the same.
            if not self._old(symbols, older_than) or self._is_pausing():
                return
            wanted = self._old({*symbols, *self._quotes}, older_than)[:SYMBOLS_MAX]
            try:
                response = await self._client.get(
                    "/internal/v1/datafeed/quotes",
                    params={"symbols": ",".join(wanted)},
                    timeout_seconds=ASK_TIMEOUT_SECONDS,
                )
                response.raise_for_status()
                answer = contract.QuotesAnswer.model_validate_json(response.content)
            except (UnavailableError, ValidationError, httpx.HTTPStatusError) as error:
                self._asked_in_vain_at = self._clock.monotonic()
                log.warning("quotes_not_answered", reason=type(error).__name__)
                return
        self._asked_in_vain_at = None
        for each in answer.quotes:
            self._take(each)

    def listen(self, callback: Callable[[Quote], None]) -> None:
        """Call back for each newer quote, in the order they came."""
        self._callbacks.append(callback)

    def _is_pausing(self) -> bool:
        last = self._asked_in_vain_at
        return last is not None and self._clock.monotonic() - last < ASK_PAUSE_SECONDS

    def _old(self, symbols: Collection[str], older_than: timedelta) -> list[str]:
        limit = self._clock.now() - older_than
        return sorted(
            symbol
            for symbol in symbols
            if (quote := self._quotes.get(symbol)) is None or quote.at < limit
        )

    def _on_message(self, _channel: str, payload: bytes) -> None:
        try:
            self._take(contract.Quote.decode(payload))
        except ValueError:
            log.warning("quote_not_readable")

    def _take(self, published: contract.Quote) -> None:
        if not published.tradable:
            return
        known = self._quotes.get(published.instrument)
        if known is not None and published.sequence <= known.sequence:
            return
        quote = Quote(
            symbol=published.instrument,
            bid=published.bid,
            ask=published.ask,
            price_scale=published.scale,
            sequence=published.sequence,
            at=from_us(published.at_us),
            last=published.last,
        )
        self._quotes[quote.symbol] = quote
        self._newest_at = max(quote.at, self._newest_at or quote.at)
        for callback in self._callbacks:
            callback(quote)


class DatafeedInstruments:
    """Instruments, asked for all at once and believed for a minute."""

    def __init__(self, *, client: PeerClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: dict[str, Instrument] | None = None
        self._asked_at = 0.0
        self._asking = asyncio.Lock()

    async def find(self, symbol: str) -> Instrument | None:
        """Return an instrument by its full symbol; None where there is none.

        Raises:
            MarketUnavailableError: datafeed never answered so far.
        """
        return (await self._load()).get(symbol)

    async def list_tradable(self) -> list[Instrument]:
        """Return what the venue takes orders on, by symbol.

        Raises:
            MarketUnavailableError: datafeed never answered so far.
        """
        known = await self._load()
        return [each for _, each in sorted(known.items()) if each.tradable]

    async def _load(self) -> dict[str, Instrument]:
        async with self._asking:
            if self._known is None or self._is_old():
                await self._ask()
        assert self._known is not None, "else asking raised"
        return self._known

    def _is_old(self) -> bool:
        return self._clock.monotonic() - self._asked_at >= INSTRUMENTS_SECONDS

    async def _ask(self) -> None:
        try:
            response = await self._client.get(
                "/internal/v1/datafeed/instruments", timeout_seconds=ASK_TIMEOUT_SECONDS
            )
            response.raise_for_status()
            answer = contract.InstrumentsAnswer.model_validate_json(response.content)
        except (UnavailableError, ValidationError, httpx.HTTPStatusError) as error:
            if self._known is not None:
                # Old rules are better than none; ask again at the next use after a pause.
                self._asked_at = self._clock.monotonic() - INSTRUMENTS_SECONDS + ASK_PAUSE_SECONDS
                return
            raise MarketUnavailableError(
                "the market can't be asked right now", retry_after_seconds=1
            ) from error
        self._known = {each.instrument: _instrument_of(each) for each in answer.instruments}
        self._asked_at = self._clock.monotonic()


def _instrument_of(published: contract.Instrument) -> Instrument:
    return Instrument(
        symbol=published.instrument,
        description=published.description,
        kind=published.kind,
        base_currency=published.base_currency,
        quote_currency=published.quote_currency,
        price_scale=published.price_scale,
        tick=published.tick,
        quantity_scale=published.quantity_scale,
        quantity_step=published.quantity_step,
        quantity_max=published.quantity_max,
        lot_size=published.lot_size,
        multiplier=published.multiplier,
        tradable=published.tradable,
        session=published.session,
        time_zone=published.time_zone,
    )
