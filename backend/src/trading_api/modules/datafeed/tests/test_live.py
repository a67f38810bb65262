"""The live feed: prices for the modules, frames for who listens, bars that history confirms."""

import asyncio
from datetime import timedelta
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from trading_api.contracts.datafeed import PRICE_PATTERN, Quote, price_channel
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.errors import (
    InstrumentNotFoundError,
    ResolutionUnsupportedError,
)
from trading_api.modules.datafeed.service import DatafeedService
from trading_api.modules.datafeed.tests.conftest import NOW
from trading_api.modules.datafeed.ws.live import Broadcaster, PriceFeed
from trading_api.modules.datafeed.ws.v1 import BarsChannel, QuotesChannel
from trading_api.runtime.bus import Bus
from trading_api.runtime.http import Access
from trading_api.testkit.clocks import FixedClock


class RecordingSink:
    """Keeps what is published, by feed or channel."""

    def __init__(self, *feeds: str) -> None:
        self.feeds = set(feeds)
        self.sent: list[tuple[str, bytes]] = []

    def listened(self) -> set[str]:
        return self.feeds

    def publish_here(self, feed: str, payload: bytes) -> None:
        self.sent.append((feed, payload))

    def publish(self, channel: str, payload: bytes) -> None:
        self.sent.append((channel, payload))

    def payloads(self, feed: str) -> list[Any]:
        return [orjson.loads(payload) for name, payload in self.sent if name == feed]


def a_broadcaster(
    service: DatafeedService,
    sink: RecordingSink,
    clock: FixedClock,
    *,
    interval_us: int | None = 2_000_000,
) -> Broadcaster:
    return Broadcaster(service=service, hub=sink, clock=clock, bars_interval_us=interval_us)


async def test_every_tradable_price_is_published_in_each_slot_even_unchanged(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    sink = RecordingSink()
    feed = PriceFeed(service=service, bus=sink, clock=market_clock)
    for _ in range(4):
        await feed.publish()
        market_clock.advance(0.5)
    channels = {channel for channel, _ in sink.sent}
    assert len(channels) == 7
    assert price_channel("DEMO:AAPL") in channels
    for channel in channels:
        quotes = [Quote.decode(payload) for name, payload in sink.sent if name == channel]
        sequences = [quote.sequence for quote in quotes]
        assert sequences == list(range(sequences[0], sequences[0] + 4))


async def test_what_is_published_is_what_the_route_answers_then(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    sink = RecordingSink("quotes:DEMO:MSFT")
    await a_broadcaster(service, sink, market_clock).broadcast()
    (quote,) = await service.quotes(symbols=["MSFT"], now=market_clock.now())
    assert quote is not None
    assert sink.payloads("quotes:DEMO:MSFT") == [schemas.quote_update(quote)]


async def test_nothing_is_made_for_nobody(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    sink = RecordingSink()
    broadcaster = a_broadcaster(service, sink, market_clock)
    await broadcaster.broadcast()
    assert (sink.sent, broadcaster.sent) == ([], 0)


@pytest.mark.parametrize("resolution", ["1", "3"])
async def test_live_bars_equal_what_history_answers_later(
    service: DatafeedService, market_clock: FixedClock, resolution: str
) -> None:
    feed = f"bars:DEMO:AAPL:{resolution}"
    sink = RecordingSink(feed)
    broadcaster = a_broadcaster(service, sink, market_clock)
    for _ in range(10 * 120):
        await broadcaster.broadcast()
        market_clock.advance(0.5)
    last_seen = {update["time"]: update for update in sink.payloads(feed)}
    times = sorted(last_seen)
    closed = times[:-1]
    assert len(closed) >= 10 // int(resolution) - 1
    answer = await service.bars(
        symbol="AAPL",
        resolution=resolution,
        from_time=closed[0] // 1_000,
        to_time=closed[-1] // 1_000 + 1,
        count_back=None,
        now=market_clock.now() + timedelta(days=30),
    )
    history = schemas.bar_views(answer.market.instrument, answer.selection.bars)
    assert [last_seen[time] for time in closed] == history


async def test_forming_bars_are_paced_and_never_go_back(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    feed = "bars:DEMO:AAPL:60"
    sink = RecordingSink(feed)
    broadcaster = a_broadcaster(service, sink, market_clock)
    for _ in range(60):
        await broadcaster.broadcast()
        market_clock.advance(0.5)
    updates = sink.payloads(feed)
    assert 10 <= len(updates) <= 15
    assert [u["volume"] for u in updates] == sorted(u["volume"] for u in updates)
    assert [u["high"] for u in updates] == sorted(u["high"] for u in updates)


async def test_bars_can_be_switched_off_and_a_vanished_symbol_hurts_nobody(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    sink = RecordingSink("bars:DEMO:AAPL:1", "bars:DEMO:GONE:1", "quotes:DEMO:AAPL")
    await a_broadcaster(service, sink, market_clock, interval_us=None).broadcast()
    assert {feed for feed, _ in sink.sent} == {"quotes:DEMO:AAPL"}
    broadcaster = a_broadcaster(service, sink, market_clock)
    await broadcaster.broadcast()
    assert broadcaster.errors == 1
    assert {feed for feed, _ in sink.sent} == {"quotes:DEMO:AAPL", "bars:DEMO:AAPL:1"}


async def test_channels_check_symbols_and_name_canonical_feeds(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    access = Access.scope("datafeed:read")
    broadcaster = a_broadcaster(service, RecordingSink(), market_clock)
    bars = BarsChannel(
        service=service,
        clock=market_clock,
        access=access,
        newest_bar=broadcaster.newest_bar,
    )
    quotes = QuotesChannel(service=service, clock=market_clock, access=access)
    params = schemas.BarsParams(symbol="aapl", resolution="1h")
    await bars.authorize(None, params)
    assert bars.feeds(params) == ["bars:DEMO:AAPL:60"]
    (bar,) = await bars.snapshot(None, params)
    assert bar["time"] == int(NOW.timestamp()) // 3_600 * 3_600_000
    schemas.BarUpdate.model_validate(bar)
    many = schemas.QuotesParams(symbols=["AAPL", "DEMO:AAPL"], fast_symbols=["hist:ibm"])
    await quotes.authorize(None, many)
    assert quotes.feeds(many) == ["quotes:DEMO:AAPL", "quotes:HIST:IBM"]
    snapshot = await quotes.snapshot(None, many)
    assert [each["n"] for each in snapshot] == ["DEMO:AAPL", "HIST:IBM"]
    for each in snapshot:
        schemas.QuoteView.model_validate(each)
    with pytest.raises(InstrumentNotFoundError):
        await quotes.authorize(None, schemas.QuotesParams(symbols=["NOPE"]))
    with pytest.raises(ResolutionUnsupportedError):
        await bars.authorize(None, schemas.BarsParams(symbol="HIST:IBM", resolution="1"))
    with pytest.raises(ValidationError):
        schemas.BarsParams(symbol="A\0", resolution="1")


async def test_prices_reach_the_other_modules_over_the_bus(
    service: DatafeedService, market_clock: FixedClock, bus: Bus
) -> None:
    arrived: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    bus.subscribe(PRICE_PATTERN, lambda *message: arrived.put_nowait(message))
    await bus.settle()
    await PriceFeed(service=service, bus=bus, clock=market_clock).publish()
    async with asyncio.timeout(10):
        received = [await arrived.get() for _ in range(7)]
    quotes = [Quote.decode(payload) for _, payload in received]
    assert [channel for channel, _ in received] == [price_channel(q.instrument) for q in quotes]
    assert quotes == await service.tradable_quotes(now=market_clock.now())
