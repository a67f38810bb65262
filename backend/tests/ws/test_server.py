"""The same socket behind a real server: the raw protocol and uvicorn's own."""

import asyncio
import json
from typing import Any

import pytest
from tests.ws.conftest import MakeWorld, World
from tests.ws.servers import PLAIN, RAW, StalledClient, serving
from websockets.exceptions import InvalidStatus

from trading_api.runtime.ws import Limits
from trading_api.runtime.ws.protocol import RawFrameProtocol
from trading_api.runtime.ws.sink import RawSink, SendTextSink
from trading_api.testkit.bus import eventually
from trading_api.testkit.ws import network_socket

ORDERS = {"accountId": "acc_1"}

both = pytest.mark.parametrize("options", [RAW, PLAIN], ids=["raw", "plain"])


@both
async def test_subscribe_when_on_a_real_server_then_frames_arrive_in_order(
    world: World, options: dict[str, Any]
) -> None:
    async with (
        serving(world.endpoint, options) as server,
        network_socket(server.url, token=world.tokens.token()) as client,
    ):
        (connection,) = world.endpoint.connections
        assert isinstance(connection.sink, RawSink if options is RAW else SendTextSink)
        await client.subscribe("ticks", {"symbols": ["A", "B"]})
        await client.subscribe("orders", ORDERS)
        await client.updates(1)
        for number in range(300):
            world.ticks.tick("A", number)
            world.ticks.tick("B", number)
            world.journal.append("acc_1", "orders", "é" * (number * 2))
        world.hub.wake("test:acc_1", 300)
        updates = await client.updates(900)
        by_symbol: dict[str, list[int]] = {"A": [], "B": []}
        for each in updates:
            if "offset" not in each:
                by_symbol[each["payload"]["symbol"]].append(each["payload"]["value"])
        assert by_symbol == {"A": list(range(300)), "B": list(range(300))}
        assert client.last_offsets[f"orders:{json.dumps(ORDERS, separators=(',', ':'))}"] == 300


@both
async def test_message_when_larger_than_64_kib_then_closed_1009(
    world: World, options: dict[str, Any]
) -> None:
    async with (
        serving(world.endpoint, options) as server,
        network_socket(server.url, token=world.tokens.token()) as client,
    ):
        await client.link.send(json.dumps({"type": "ping", "payload": {"x": "x" * 70_000}}))
        assert (await client.closed()).code == 1009
        await eventually(lambda: not world.endpoint.connections)


@both
async def test_frame_when_longer_than_64_kib_then_arrives_whole(
    world: World, options: dict[str, Any]
) -> None:
    async with (
        serving(world.endpoint, options) as server,
        network_socket(server.url, token=world.tokens.token()) as client,
    ):
        await client.subscribe("ticks", {"symbols": ["A"]})
        world.hub.publish("ticks:A", json.dumps({"symbol": "é" * 50_000, "value": 1}).encode())
        (update,) = await client.updates(1)
        assert len(update["payload"]["symbol"]) == 50_000


@both
async def test_handshake_when_full_then_503(make_world: MakeWorld, options: dict[str, Any]) -> None:
    world = make_world(limits=Limits(sockets_max=0))
    async with serving(world.endpoint, options) as server:
        with pytest.raises(InvalidStatus) as refused:
            async with network_socket(server.url, token=world.tokens.token()):
                pass
        assert refused.value.response.status_code == 503


@both
async def test_server_when_it_stops_then_1012_and_everything_is_freed(
    world: World, options: dict[str, Any]
) -> None:
    async with (
        serving(world.endpoint, options) as server,
        network_socket(server.url, token=world.tokens.token()) as client,
    ):
        await client.subscribe("ticks", {"symbols": ["A"]})
        server.server.should_exit = True
        assert (await client.closed()).code == 1012
    assert world.hub.is_idle()


async def test_client_when_it_vanishes_then_everything_is_freed(world: World) -> None:
    async with (
        serving(world.endpoint) as server,
        network_socket(server.url, token=world.tokens.token()) as client,
    ):
        await client.subscribe("ticks", {"symbols": ["A"]})
        client.link.connection.transport.abort()  # type: ignore[attr-defined]
        await eventually(world.hub.is_idle)


@both
async def test_prices_when_a_reader_stalls_then_conflated_for_it_alone_and_never_older(
    make_world: MakeWorld, options: dict[str, Any]
) -> None:
    world = make_world()
    symbols = [f"S{number}" for number in range(20)]
    subscribe = json.dumps({"type": "ticks.subscribe", "payload": {"symbols": symbols}})
    async with serving(world.endpoint, options) as server:
        stalled = await StalledClient.connect(server, token=world.tokens.token(), message=subscribe)
        async with network_socket(server.url, token=world.tokens.token("usr_b")) as client:
            await client.subscribe("ticks", {"symbols": symbols})
            await eventually(lambda: world.hub.counters.subscriptions == 2)
            rounds, padding = 200, "x" * 2000
            for number in range(rounds):
                for symbol in symbols:
                    payload = {"symbol": symbol, "value": number, "padding": padding}
                    world.hub.publish(f"ticks:{symbol}", json.dumps(payload).encode())
                values = [each["payload"]["value"] for each in await client.updates(20)]
                assert values == [number] * 20
            counters = world.hub.counters
            assert counters.conflated > 0
            assert len(world.endpoint.connections) == 2
            assert max(counters.queued_bytes()) <= world.hub.limits.queue_size_max
        stalled.close()
        await eventually(world.hub.is_idle)


@both
async def test_prices_when_the_reader_goes_on_then_it_ends_with_the_newest(
    world: World, options: dict[str, Any]
) -> None:
    async with (
        serving(world.endpoint, options) as server,
        network_socket(server.url, token=world.tokens.token(), max_queue=1) as client,
    ):
        await client.subscribe("ticks", {"symbols": ["A", "B"]})
        padding = "x" * 30_000
        for number in range(1, 501):
            for symbol in ("A", "B"):
                payload = {"symbol": symbol, "value": number, "padding": padding}
                world.hub.publish(f"ticks:{symbol}", json.dumps(payload).encode())
            # One turn of the loop: the client's library reads until its own buffers are full.
            await asyncio.sleep(0)
        assert world.hub.counters.conflated > 0
        seen: dict[str, list[int]] = {"A": [], "B": []}
        while any(values[-1:] != [500] for values in seen.values()):
            (update,) = await client.updates(1)
            seen[update["payload"]["symbol"]].append(update["payload"]["value"])
        for values in seen.values():
            assert values == sorted(set(values)), "an older value came behind a newer one"
            assert len(values) < 500


@both
async def test_events_when_a_reader_stalls_then_closed_and_dropped_within_seconds(
    make_world: MakeWorld, options: dict[str, Any]
) -> None:
    world = make_world(limits=Limits(abort_seconds=0.2))
    subscribe = json.dumps({"type": "orders.subscribe", "payload": ORDERS})
    async with serving(world.endpoint, options) as server:
        stalled = await StalledClient.connect(server, token=world.tokens.token(), message=subscribe)
        async with network_socket(server.url, token=world.tokens.token()) as client:
            await client.subscribe("orders", ORDERS)
            await client.updates(1)
            await eventually(lambda: world.hub.counters.subscriptions == 2)
            sent = 0
            while len(world.endpoint.connections) == 2:
                assert sent < 500, "the stalled client was never closed"
                offset = world.journal.append("acc_1", "orders", "x" * 20_000)
                world.hub.wake("test:acc_1", offset)
                await client.updates(1)
                assert max(world.hub.counters.queued_bytes()) <= 1024 * 1024
                sent += 1
                if world.hub.counters.dropped:
                    await eventually(lambda: len(world.endpoint.connections) == 1)
            await eventually(lambda: world.hub.counters.closed == {4008: 1})
            assert world.hub.counters.subscriptions == 1
            if options is RAW:
                await asyncio.wait_for(stalled.ended(), 5)
            # Uvicorn's own protocol keeps such a connection until its buffers drain.
            stalled.close()


async def test_protocol_when_refused_then_no_raw_link_is_offered(world: World) -> None:
    async with serving(world.endpoint) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 4")
        writer.close()
    assert RawFrameProtocol.handle_connect.__doc__
