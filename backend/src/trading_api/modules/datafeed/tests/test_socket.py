"""Channels over the real endpoint and hub: response, snapshot, updates, nothing for nobody."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from trading_api.modules.datafeed.service import DatafeedService
from trading_api.modules.datafeed.tests.conftest import token_of
from trading_api.modules.datafeed.ws.live import Broadcaster
from trading_api.modules.datafeed.ws.v1 import BarsChannel, QuotesChannel
from trading_api.runtime.http import Access
from trading_api.runtime.identity import Identity
from trading_api.runtime.settings import PlatformSettings
from trading_api.runtime.ws import Channel, Hub, WebSocketEndpoint
from trading_api.runtime.ws.asyncapi import asyncapi_of
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.ws import SocketClient, asgi_socket


@dataclass
class Stage:
    """The module's socket of one process, and what feeds it."""

    hub: Hub
    endpoint: WebSocketEndpoint
    broadcaster: Broadcaster
    clock: FixedClock
    settings: PlatformSettings

    def socket(self, *scopes: str) -> AbstractAsyncContextManager[SocketClient]:
        return asgi_socket(self.endpoint, token=token_of(self.settings, self.clock, *scopes))

    async def tick(self) -> None:
        """Let half a second pass and send what it brings."""
        self.clock.advance(0.5)
        await self.broadcaster.broadcast()


@pytest.fixture
async def stage(
    service: DatafeedService, host_settings: PlatformSettings, market_clock: FixedClock
) -> AsyncIterator[Stage]:
    hub = Hub(module="datafeed", instance="tests", clock=market_clock)
    access = Access.scope("datafeed:read")
    broadcaster = Broadcaster(
        service=service, hub=hub, clock=market_clock, bars_interval_us=2_000_000
    )
    channels: list[Channel[Any]] = [
        BarsChannel(
            service=service,
            clock=market_clock,
            access=access,
            newest_bar=broadcaster.newest_bar,
        ),
        QuotesChannel(service=service, clock=market_clock, access=access),
    ]
    identity = Identity(settings=host_settings, clock=market_clock)
    endpoint = WebSocketEndpoint(
        channels, hub=hub, identity=identity, settings=host_settings, clock=market_clock
    )
    yield Stage(hub, endpoint, broadcaster, market_clock, host_settings)
    await endpoint.close_all()
    assert hub.is_idle()
    await hub.stop()


async def first_updates(client: SocketClient, count: int) -> list[dict[str, Any]]:
    return [update["payload"] for update in await client.updates(count)]


async def test_quotes_of_a_set_arrive_per_symbol_and_move(stage: Stage) -> None:
    async with stage.socket("datafeed:read") as client:
        answer = await client.subscribe("quotes", {"symbols": ["AAPL"], "fast_symbols": ["MSFT"]})
        assert answer["status"] == "ok"
        assert answer["topic"] == 'quotes:{"fast_symbols":["MSFT"],"symbols":["AAPL"]}'
        assert [each["n"] for each in await first_updates(client, 2)] == ["DEMO:AAPL", "DEMO:MSFT"]
        prices = set()
        for _ in range(10):
            await stage.tick()
            for quote in await first_updates(client, 2):
                prices.add((quote["n"], quote["v"]["lp"]))
        assert len(prices) > 4


async def test_bars_are_sent_first_as_they_stand_then_as_they_form(stage: Stage) -> None:
    async with stage.socket("datafeed:read") as client:
        await client.subscribe("bars", {"symbol": "DEMO:AAPL", "resolution": "1"})
        (first,) = await first_updates(client, 1)
        assert first["time"] % 60_000 == 0
        for _ in range(9):
            await stage.tick()
        later = await first_updates(client, 2)
        assert {bar["time"] for bar in later} == {first["time"]}
        assert [bar["volume"] for bar in (first, *later)] == sorted(
            bar["volume"] for bar in (first, *later)
        )


async def test_every_frame_is_as_the_document_says(stage: Stage) -> None:
    async with stage.socket("datafeed:read") as client:
        await client.subscribe("quotes", {"symbols": ["AAPL", "HIST:EURUSD"]})
        await client.subscribe("bars", {"symbol": "EURUSD", "resolution": "1D"})
        refused = await client.subscribe("bars", {"symbol": "NOPE", "resolution": "1"})
        assert refused["status"] == "error"
        await stage.tick()
        await client.updates(6)
    document = asyncapi_of("datafeed", "v1", list(stage.endpoint.channels.values()))
    for frame in client.frames:
        message = document["components"]["messages"][frame["type"]]
        schema = {**message["payload"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(frame)


async def test_nothing_is_made_once_the_last_reader_left(stage: Stage) -> None:
    async with stage.socket("datafeed:read") as client:
        await client.subscribe("quotes", {"symbols": ["AAPL"]})
        await client.unsubscribe("quotes", {"symbols": ["AAPL"]})
        await stage.tick()
        assert stage.broadcaster.sent == 0


async def test_without_the_scope_no_prices(stage: Stage) -> None:
    async with stage.socket("broker:trade") as client:
        answer = await client.subscribe("quotes", {"symbols": ["AAPL"]})
        assert answer["status"] == "error"
