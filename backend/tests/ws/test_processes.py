"""Two processes of one module on a real bus, and without it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.ws.conftest import MakeWorld, World

from trading_api.runtime.bus import Bus
from trading_api.testkit.bus import BusServer, eventually, started_bus

ORDERS = {"accountId": "acc_1"}
STREAM = "test:acc_1"


@pytest.fixture
async def pair(bus_server: BusServer, make_world: MakeWorld) -> AsyncIterator[tuple[World, World]]:
    buses = [await started_bus(bus_server) for _ in range(2)]
    one = make_world(bus=buses[0], instance="p1")
    two = make_world(bus=buses[1], instance="p2", journal=one.journal)
    yield one, two
    for bus in buses:
        await bus.stop()


def bus_of(world: World) -> Bus:
    assert world.hub._bus is not None
    return world.hub._bus


async def test_price_when_published_in_one_process_then_heard_once_in_each(
    pair: tuple[World, World],
) -> None:
    one, two = pair
    async with one.socket() as near, two.socket() as far, two.socket() as beside:
        for client in (near, far, beside):
            assert (await client.subscribe("ticks", {"symbols": ["A"]}))["status"] == "ok"
        for value in range(50):
            one.ticks.tick("A", value)
        for client in (near, far, beside):
            values = [each["payload"]["value"] for each in await client.updates(50)]
            assert values == list(range(50))
        await bus_of(one).settle()
        await bus_of(two).settle()
        for client in (near, far, beside):
            await client.request("ping")
            assert client.frames[-1]["type"] == "pong"
            assert sum(each["type"] == "ticks.update" for each in client.frames) == 50


async def test_event_when_committed_in_one_process_then_heard_once_in_each(
    pair: tuple[World, World],
) -> None:
    one, two = pair
    async with one.socket() as near, two.socket() as far:
        for client in (near, far):
            await client.subscribe("orders", ORDERS)
        for _ in range(20):
            one.hub.wake(STREAM, one.journal.append("acc_1", "orders"))
        for client in (near, far):
            assert [each["offset"] for each in await client.updates(21)] == list(range(21))


async def test_stream_when_reset_in_one_process_then_anew_in_each(
    pair: tuple[World, World],
) -> None:
    one, two = pair
    async with one.socket() as near, two.socket() as far:
        for client in (near, far):
            await client.subscribe("orders", ORDERS)
            await client.updates(1)
        one.journal.reset("acc_1", "e2")
        one.hub.reset(STREAM)
        for client in (near, far):
            assert (await client.updates(1))[0]["epoch"] == "e2"


async def test_subscriptions_when_many_then_one_on_the_bus_per_feed_and_process(
    pair: tuple[World, World],
) -> None:
    one, two = pair
    feed = "trading:{test}:frame:v1:ticks:A"
    wake = f"trading:{{test}}:wake:{STREAM}"
    async with one.socket() as first, one.socket() as second, two.socket() as third:
        for client in (first, second, third):
            await client.subscribe("ticks", {"symbols": ["A"]})
            await client.subscribe("ticks", {"symbols": ["A", "B"]})
            await client.subscribe("orders", ORDERS)
        counts = await bus_of(one).count_subscribers([feed, wake])
        assert counts == {feed: 2, wake: 2}
    await bus_of(one).settle()
    await bus_of(two).settle()
    assert await bus_of(one).count_subscribers([feed, wake]) == {feed: 0, wake: 0}


async def test_listeners_when_in_another_process_then_known_after_a_poll(
    pair: tuple[World, World],
) -> None:
    one, two = pair
    assert one.hub.has_listeners("ticks:A"), "not known yet counts as yes"
    await one.hub.poll()
    assert not one.hub.has_listeners("ticks:A")
    async with two.socket() as client:
        await client.subscribe("ticks", {"symbols": ["A"]})
        await one.hub.poll()
        assert one.hub.has_listeners("ticks:A")
    one.clock.advance(11)
    await one.hub.poll()
    assert one.hub.is_idle()


async def test_bus_when_it_dies_then_local_prices_go_on_and_events_come_by_polling(
    pair: tuple[World, World], bus_server: BusServer
) -> None:
    one, two = pair
    async with one.socket() as near, two.socket() as far:
        for client in (near, far):
            await client.subscribe("ticks", {"symbols": ["A"]})
            await client.subscribe("orders", ORDERS)
            await client.updates(1)
        two.ticks.values["A"] = 0
        epoch = one.hub.price_epoch
        bus_server.kill()
        await eventually(lambda: not bus_of(one).is_up and not bus_of(two).is_up)
        one.ticks.tick("A", 1)
        assert (await near.updates(1))[0]["payload"]["value"] == 1
        one.hub.wake(STREAM, one.journal.append("acc_1", "orders"))
        assert (await near.updates(1))[0]["offset"] == 1
        await two.hub.poll()
        assert (await far.updates(1))[0]["offset"] == 1

        one.journal.append("acc_1", "orders")
        bus_server.start()
        await eventually(lambda: bus_of(one).is_up and bus_of(two).is_up, within_seconds=15)
        # Coming back, each process looks by itself.
        for client in (near, far):
            assert (await client.updates(1))[0]["offset"] == 2
        assert one.hub.price_epoch != epoch
        # And the prices that may have been missed, without waiting for the next ones.
        for client, value in ((near, 1), (far, 0)):
            renewed = (await client.updates(1))[0]
            assert (renewed["snapshot"], renewed["payload"]["value"]) == (True, value)
        await bus_of(two).settle()
        one.ticks.tick("A", 2)
        for client in (near, far):
            assert (await _value(client)) == 2


async def test_subscribe_when_the_bus_is_down_then_served_all_the_same(
    pair: tuple[World, World], bus_server: BusServer
) -> None:
    one, _ = pair
    bus_server.kill()
    await eventually(lambda: not bus_of(one).is_up)
    async with one.socket() as client:
        await client.subscribe("orders", ORDERS)
        one.hub.wake(STREAM, one.journal.append("acc_1", "orders"))
        assert [each["offset"] for each in await client.updates(2)] == [0, 1]


async def test_poll_when_running_by_itself_then_a_lost_wake_up_costs_a_second(
    make_world: MakeWorld, bus_server: BusServer
) -> None:
    bus = Bus(f"unix://{bus_server.directory}/nobody.sock")
    await bus.start()
    world = make_world(bus=bus)
    async with world.socket() as client:
        await client.subscribe("orders", ORDERS)
        await client.updates(1)
        world.journal.append("acc_1", "orders")
        assert (await asyncio.wait_for(client.updates(1), 5))[0]["offset"] == 1
    await bus.stop()


async def _value(client: Any) -> int:
    while True:
        (update,) = await client.updates(1)
        if not update["topic"].startswith("orders"):
            return int(update["payload"]["value"])
