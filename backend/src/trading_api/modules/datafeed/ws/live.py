"""The live feed: prices onto the bus from one process, frames to the listeners of each.

A price is a pure function of time here, so every process makes the frames of its own listeners
itself and they go on without the bus; the price messages for other modules come from the holder
of the lease alone.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from prometheus_client import Counter

from trading_api.contracts.datafeed import price_channel
from trading_api.kernel.clock import Clock, to_us
from trading_api.kernel.errors import TradingError
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.domain.demo import SLOT_US
from trading_api.modules.datafeed.ports import FrameSink, PricePublisher
from trading_api.modules.datafeed.service import TIME_MAX, DatafeedService
from trading_api.modules.datafeed.ws.v1 import BARS, QUOTES, bars_feed
from trading_api.runtime.database import Lease

log = structlog.get_logger("datafeed")

_SENT = Counter("datafeed_broadcasts_sent", "Frames made for listeners", ["route"])
_SKIPPED = Counter("datafeed_broadcasts_skipped", "Bar frames that would have changed nothing")
_ERRORS = Counter("datafeed_broadcast_errors", "Feeds that could not be served in a slot")
_PRICES = Counter("datafeed_prices_published", "Price messages for other modules")


async def wait_for_slot(clock: Clock) -> None:
    """Sleep until the next slot of half a second begins."""
    elapsed_us = to_us(clock.now()) % SLOT_US
    await asyncio.sleep((SLOT_US - elapsed_us) / 1_000_000)


class PriceFeed:
    """Publishes the quote of every tradable instrument twice a second, moved or not."""

    def __init__(self, *, service: DatafeedService, bus: PricePublisher, clock: Clock) -> None:
        self._service = service
        self._bus = bus
        self._clock = clock

    async def run(self, _: Lease | None) -> None:
        """Publish until cancelled."""
        while True:
            await self.publish()
            await wait_for_slot(self._clock)

    async def publish(self) -> None:
        """Publish the quotes of this slot; they are in this process's cache before they leave."""
        for quote in await self._service.tradable_quotes(now=self._clock.now()):
            self._bus.publish(price_channel(quote.instrument), quote.encode())
            _PRICES.inc()


class Broadcaster:
    """Makes the frames of the feeds that somebody in this process listens to.

    Args:
        bars_interval_us: time between two updates of a forming bar, microseconds; None: no bars.

    Attributes:
        sent: frames handed to the hub.
        skipped: bar frames not sent because nothing had changed.
        errors: feeds that could not be served in a slot.
    """

    def __init__(
        self,
        *,
        service: DatafeedService,
        hub: FrameSink,
        clock: Clock,
        bars_interval_us: int | None,
    ) -> None:
        self._service = service
        self._hub = hub
        self._clock = clock
        self._bars_interval_us = bars_interval_us
        self._bars: dict[str, _LiveBar] = {}
        self.sent = 0
        self.skipped = 0
        self.errors = 0

    async def run(self, _: Lease | None) -> None:
        """Broadcast until cancelled."""
        while True:
            await self.broadcast()
            await wait_for_slot(self._clock)

    async def broadcast(self) -> None:
        """Send what this slot brings; a feed that fails never stops the others."""
        listened = set(self._hub.listened())
        self._bars = {feed: bar for feed, bar in self._bars.items() if feed in listened}
        for feed in listened:
            route, _, rest = feed.partition(":")
            try:
                if route == QUOTES:
                    await self._send_quote(feed, rest)
                elif route == BARS and self._bars_interval_us is not None:
                    await self._send_bar(feed, rest)
            except TradingError:
                self.errors += 1
                _ERRORS.inc()
                log.warning("feed_failed", feed=feed, exc_info=True)

    async def _send_quote(self, feed: str, symbol: str) -> None:
        (quote,) = await self._service.quotes(symbols=[symbol], now=self._clock.now())
        if quote is not None:
            self._send(feed, schemas.quote_update(quote))

    async def newest_bar(self, symbol: str, resolution: str) -> Sequence[dict[str, Any]]:
        """Return the newest bar, which a subscription begins with; updates go on from there.

        Whoever listens already is told first how the bars before it ended, so that nobody misses
        an end and the newcomer gets none that is older than its beginning.

        Raises:
            InstrumentNotFoundError: no such symbol.
            ResolutionUnsupportedError: no such resolution, or finer than the data.
        """
        found = await self._newest(symbol, resolution, count=1)
        if not found or self._bars_interval_us is None:
            return found
        feed, newest = bars_feed(symbol, resolution), found[-1]
        live = self._bars.get(feed)
        if live is None:
            live = self._bars[feed] = _LiveBar()
            live.time, live.sent = newest["time"], newest
        elif live.time is not None and newest["time"] > live.time:
            await self._send_ended(feed, live, symbol, resolution, newest)
            self._send_changed(feed, live, newest)
        return found

    async def _send_bar(self, feed: str, rest: str) -> None:
        """Send the forming bar when it is due.

        When a new bar has begun, the final states of those before are sent first, in a slot of
        their own, since newer frames replace older ones on their way to a slow reader.
        """
        symbol, _, resolution = rest.rpartition(":")
        found = await self._newest(symbol, resolution, count=1)
        if not found:
            return
        newest, now_us = found[-1], to_us(self._clock.now())
        live = self._bars.setdefault(feed, _LiveBar())
        if live.time is not None and newest["time"] > live.time:
            live.due_us = now_us
            await self._send_ended(feed, live, symbol, resolution, newest)
        elif now_us >= live.due_us:
            live.time, live.due_us = newest["time"], now_us + (self._bars_interval_us or 0)
            self._send_changed(feed, live, newest)

    async def _send_ended(
        self, feed: str, live: "_LiveBar", symbol: str, resolution: str, newest: dict[str, Any]
    ) -> None:
        """Send how the bars ended from the last one that listeners saw up to the newest."""
        assert live.time is not None, "nobody saw any"
        since, live.time = live.time, newest["time"]
        # Mostly one; more where this process was held up for longer than a bar.
        bars = await self._newest(symbol, resolution, count=2)
        if bars[0]["time"] > since:
            bars = await self._newest(symbol, resolution, since=since // 1_000)
        for bar in bars:
            if since <= bar["time"] < newest["time"]:
                self._send_changed(feed, live, bar)

    async def _newest(
        self, symbol: str, resolution: str, *, count: int | None = None, since: int = 0
    ) -> list[dict[str, Any]]:
        answer = await self._service.bars(
            symbol=symbol,
            resolution=resolution,
            from_time=since,
            to_time=TIME_MAX,
            count_back=count,
            now=self._clock.now(),
        )
        return schemas.bar_views(answer.market.instrument, answer.selection.bars)

    def _send_changed(self, feed: str, live: "_LiveBar", bar: dict[str, Any]) -> None:
        if bar == live.sent:
            self.skipped += 1
            _SKIPPED.inc()
            return
        live.sent = bar
        self._send(feed, bar)

    def _send(self, feed: str, payload: Any) -> None:
        self._hub.publish_here(feed, orjson.dumps(payload))
        self.sent += 1
        _SENT.labels(feed.partition(":")[0]).inc()


class _LiveBar:
    """What the listeners of one bars feed last saw.

    Attributes:
        time: start of the bar they see forming, milliseconds; None before the first.
        due_us: when its next update is due, microseconds.
        sent: the last payload.
    """

    __slots__ = ("due_us", "sent", "time")

    def __init__(self) -> None:
        self.time: int | None = None
        self.due_us = 0
        self.sent: dict[str, Any] | None = None
