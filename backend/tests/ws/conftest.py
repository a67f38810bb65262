from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
from tests.ws.builders import (
    FillsChannel,
    Journal,
    OrdersChannel,
    PublicTicksChannel,
    TicksChannel,
    TokenMaker,
)

from trading_api.runtime.identity import Identity
from trading_api.runtime.settings import PlatformSettings
from trading_api.runtime.ws import Channel, Hub, Limits, WebSocketEndpoint
from trading_api.runtime.ws.asyncapi import asyncapi_of
from trading_api.runtime.ws.metrics import Counters
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.ws import SocketClient, asgi_socket


@dataclass
class World:
    """One process's socket with everything behind it."""

    hub: Hub
    endpoint: WebSocketEndpoint
    identity: Identity
    ticks: TicksChannel
    journal: Journal
    clock: FixedClock
    tokens: TokenMaker

    def socket(self, **options: Any) -> AbstractAsyncContextManager[SocketClient]:
        if not options.keys() & {"token", "headers", "subprotocols"}:
            options["token"] = self.tokens.token()
        return asgi_socket(self.endpoint, **options)


MakeWorld = Callable[..., World]


@pytest.fixture
def tokens(settings: PlatformSettings, clock: FixedClock) -> TokenMaker:
    return TokenMaker(settings, clock)


@pytest.fixture
async def make_world(
    settings: PlatformSettings, clock: FixedClock, tokens: TokenMaker
) -> AsyncIterator[MakeWorld]:
    made: list[World] = []

    def make(
        *, bus: Any = None, limits: Limits | None = None, instance: str = "p1", **given: Any
    ) -> World:
        journal = given.get("journal") or Journal()
        limits = limits or Limits()
        hub = Hub(
            module="test",
            instance=instance,
            bus=bus,
            clock=clock,
            limits=limits,
            counters=Counters(),
        )
        identity = Identity(settings=settings, clock=clock)
        ticks = TicksChannel(hub)
        channels: list[Channel[Any]] = [
            ticks,
            PublicTicksChannel(hub),
            OrdersChannel(journal),
            FillsChannel(journal),
        ]
        endpoint = WebSocketEndpoint(
            channels, hub=hub, identity=identity, settings=settings, clock=clock, limits=limits
        )
        made.append(World(hub, endpoint, identity, ticks, journal, clock, tokens))
        return made[-1]

    yield make
    for world in made:
        await world.endpoint.close_all()
        assert world.hub.is_idle(), "a subscription outlived its socket"
        assert world.hub.counters.subscriptions == 0
        await world.hub.stop()


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
async def client(world: World) -> AsyncIterator[SocketClient]:
    """A signed-in socket, every frame of which is checked against the AsyncAPI document."""
    async with world.socket() as found:
        yield found
    document = asyncapi_of("test", "v1", list(world.endpoint.channels.values()))
    for frame in found.frames:
        message = document["components"]["messages"][frame["type"]]
        schema = {**message["payload"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(frame)
