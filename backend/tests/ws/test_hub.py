"""Snapshots without gap or repetition, resume, renewal, conflation."""

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tests.ws.builders import Journal
from tests.ws.conftest import MakeWorld, World

from trading_api.kernel.errors import DatabaseUnavailableError
from trading_api.runtime.ws import Limits, StreamEvent, WebSocketMetrics
from trading_api.runtime.ws.frames import Batch, Frame
from trading_api.runtime.ws.hub import HELD_EVENTS_MAX, PriceSubscription
from trading_api.testkit.bus import eventually
from trading_api.testkit.ws import SocketClient

ORDERS = {"accountId": "acc_1"}
STREAM = "test:acc_1"


def lines_of(frames: list[dict[str, Any]], route: str) -> list[str]:
    """Return the state that a client has who applied every frame."""
    lines: list[str] = []
    for frame in frames:
        if frame["type"] != f"{route}.update":
            continue
        payload: Mapping[str, Any] = frame["payload"]
        if payload.get("snapshot"):
            lines = [line["text"] for line in payload["payload"]]
        else:
            lines.append(payload["payload"]["text"])
    return lines


def lines_in(journal: Journal, route: str) -> list[str]:
    return [each.payload["text"] for each in journal.events["acc_1"] if each.route == route]


async def test_event_when_committed_while_the_snapshot_is_made_then_told_once(
    world: World, client: SocketClient
) -> None:
    world.journal.append("acc_1", "orders")
    world.journal.snapshot_gate.shut()
    subscribing = asyncio.create_task(client.subscribe("orders", ORDERS))
    await world.journal.snapshot_gate.reached.wait()
    world.hub.wake(STREAM, world.journal.append("acc_1", "orders"))
    world.journal.snapshot_gate.open()
    assert (await subscribing)["offset"] == 1
    snapshot, update = await client.updates(2)
    assert (snapshot["offset"], update["offset"], update["previous_offset"]) == (1, 2, 1)


async def test_snapshot_when_older_than_what_others_have_heard_then_the_gap_is_read(
    world: World, client: SocketClient
) -> None:
    # The first registers and waits; the second takes over the stream and hears events; only then
    # does the first, with its older snapshot, begin.
    world.journal.snapshot_gate.shut()
    first = asyncio.create_task(client.subscribe("orders", ORDERS))
    await world.journal.snapshot_gate.reached.wait()
    original, world.journal.snapshot_gate = (
        world.journal.snapshot_gate,
        type(world.journal.snapshot_gate)(),
    )
    for _ in range(3):
        world.journal.append("acc_1", "orders")
    async with world.socket() as other:
        assert (await other.subscribe("orders", ORDERS))["offset"] == 3
        world.hub.wake(STREAM, world.journal.append("acc_1", "orders"))
        await other.updates(2)
        original.open()
        assert (await first)["offset"] == 0
        updates = await client.updates(5)
        assert [each["offset"] for each in updates] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(20))
async def test_clients_when_commits_wakes_and_subscribes_interleave_then_none_misses_or_repeats(
    make_world: MakeWorld, seed: int
) -> None:
    choose = random.Random(seed)
    world = make_world(limits=Limits(messages_per_second_max=10_000))
    journal = world.journal
    done: list[tuple[str, list[dict[str, Any]]]] = []

    async def stir() -> None:
        for _ in range(150):
            for _ in range(choose.randrange(4)):
                offset = journal.append("acc_1", choose.choice(["orders", "fills", "other"]))
                if choose.random() < 0.7:
                    world.hub.wake(STREAM, offset)
            for gate in (journal.snapshot_gate, journal.read_gate):
                gate.open() if choose.random() < 0.5 else gate.shut()
            for _ in range(choose.randrange(6)):
                await asyncio.sleep(0)
        journal.snapshot_gate.open()
        journal.read_gate.open()

    async def watch() -> None:
        for _ in range(choose.randrange(20)):
            await asyncio.sleep(0)
        async with world.socket() as client:
            for route in choose.sample(["orders", "fills"], k=choose.choice([1, 2])):
                await client.subscribe(route, ORDERS)
            if choose.random() < 0.5:
                await client.subscribe("orders", ORDERS)
            await stirred.wait()
            world.hub.wake(STREAM, len(journal.events["acc_1"]))
            subscribed = {topic.partition(":")[0] for topic in client.last_offsets}
            for route in subscribed:
                while lines_of(client.frames, route) != lines_in(journal, route):
                    await client.next()
            done.append(("", client.frames))

    stirred = asyncio.Event()
    watchers = [asyncio.create_task(watch()) for _ in range(6)]
    await stir()
    stirred.set()
    await asyncio.gather(*watchers)
    assert len(done) == 6


async def test_wake_when_a_burst_is_longer_than_a_read_then_all_of_it_arrives(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("orders", ORDERS)
    for _ in range(450):
        world.journal.append("acc_1", "orders")
    world.hub.wake(STREAM, 450)
    updates = await client.updates(451)
    assert updates[-1]["offset"] == 450


async def test_snapshot_when_more_events_come_meanwhile_than_are_held_then_they_are_read_again(
    world: World, client: SocketClient
) -> None:
    async with world.socket() as other:
        await other.subscribe("fills", ORDERS)
        world.journal.snapshot_gate.shut()
        subscribing = asyncio.create_task(client.subscribe("orders", ORDERS))
        await world.journal.snapshot_gate.reached.wait()
        total = HELD_EVENTS_MAX + 5
        for _ in range(total):
            world.journal.append("acc_1", "orders", "")
        world.hub.wake(STREAM, total)
        await eventually(lambda: world.hub._streams[STREAM].position == total)
        world.journal.snapshot_gate.open()
        await subscribing
        assert (await client.updates(total + 1))[-1]["offset"] == total


# Resume


async def test_recover_when_events_are_kept_then_exactly_what_was_missed(world: World) -> None:
    async with world.socket() as client:
        answer = await client.subscribe("orders", ORDERS)
        world.hub.wake(STREAM, world.journal.append("acc_1", "orders"))
        await client.updates(2)
        last = client.last_offsets[answer["topic"]]
    for route in ("orders", "fills", "orders"):
        world.journal.append("acc_1", route)
    async with world.socket() as client:
        recover = {"epoch": answer["epoch"], "offset": last}
        answer = await client.subscribe("orders", ORDERS, recover=recover)
        assert answer["recovered"] is True
        assert answer["offset"] == 1
        world.hub.wake(STREAM, world.journal.append("acc_1", "orders"))
        updates = await client.updates(3)
        assert not any(each.get("snapshot") for each in updates)
        places = [(each["previous_offset"], each["offset"]) for each in updates]
        assert places == [(1, 2), (2, 4), (4, 5)]


async def test_recover_when_nothing_was_missed_then_nothing_is_sent(
    world: World, client: SocketClient
) -> None:
    world.journal.append("acc_1", "orders")
    recover = {"epoch": "e1", "offset": 1}
    assert (await client.subscribe("orders", ORDERS, recover=recover))["recovered"] is True
    await client.request("ping")
    assert [each["type"] for each in client.frames] == ["orders.subscribe.response", "pong"]


@pytest.mark.parametrize(
    ("recover", "kept_from"),
    [
        ({"epoch": "e0", "offset": 3}, 1),
        ({"epoch": "e1", "offset": 9}, 1),
        ({"epoch": "e1", "offset": 1}, 4),
        ({"epoch": "e1", "offset": 0}, 1),
    ],
    ids=["another epoch", "ahead of us", "no longer kept", "too many"],
)
async def test_recover_when_impossible_then_told_so_and_given_the_state(
    make_world: MakeWorld, recover: dict[str, Any], kept_from: int
) -> None:
    world = make_world(limits=Limits(recovered_events_max=4))
    for _ in range(5):
        world.journal.append("acc_1", "orders")
    world.journal.kept_from = kept_from
    async with world.socket() as client:
        answer = await client.subscribe("orders", ORDERS, recover=recover)
        assert (answer["recovered"], answer["offset"], answer["epoch"]) == (False, 5, "e1")
        (snapshot,) = await client.updates(1)
        assert snapshot["snapshot"] is True


async def test_recover_when_prices_then_always_the_state(
    world: World, client: SocketClient
) -> None:
    world.ticks.values["A"] = 1
    recover = {"epoch": world.hub.price_epoch, "offset": 0}
    answer = await client.subscribe("ticks", {"symbols": ["A"]}, recover=recover)
    assert answer["recovered"] is False
    assert (await client.updates(1))[0]["snapshot"] is True


# Trouble


async def test_stream_when_its_epoch_changes_then_every_reader_gets_the_new_state(
    world: World, client: SocketClient
) -> None:
    async with world.socket() as other:
        for each in (client, other):
            for _ in range(2):
                world.journal.append("acc_1", "orders")
            await each.subscribe("orders", ORDERS)
            await each.updates(1)
        world.journal.reset("acc_1", "e2")
        world.hub.reset(STREAM)
        for each in (client, other):
            snapshot = (await each.updates(1))[0] if each is other else None
            while snapshot is None or snapshot.get("epoch") != "e2":
                (snapshot,) = await each.updates(1)
            assert (snapshot["snapshot"], snapshot["offset"]) == (True, 0)
        world.hub.wake(STREAM, world.journal.append("acc_1", "orders", "anew"))
        for each in (client, other):
            (update,) = await each.updates(1)
            assert (update["offset"], update["payload"]["text"]) == (1, "anew")


async def test_stream_when_reset_while_a_snapshot_is_made_then_the_new_state_follows(
    world: World, client: SocketClient
) -> None:
    world.journal.append("acc_1", "orders")
    world.journal.snapshot_gate.shut()
    subscribing = asyncio.create_task(client.subscribe("orders", ORDERS))
    await world.journal.snapshot_gate.reached.wait()
    world.journal.reset("acc_1", "e2")
    world.hub.reset(STREAM)
    await asyncio.sleep(0)
    world.journal.snapshot_gate.open()
    await subscribing
    (snapshot,) = await client.updates(1)
    assert (snapshot["epoch"], snapshot["offset"]) == ("e2", 0)
    world.hub.wake(STREAM, world.journal.append("acc_1", "orders"))
    assert (await client.updates(1))[0]["offset"] == 1


async def test_stream_when_events_are_gone_then_the_state_instead_of_a_hole(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("orders", ORDERS)
    await client.updates(1)
    for _ in range(5):
        world.journal.append("acc_1", "orders")
    world.journal.kept_from = 4
    world.hub.wake(STREAM, 5)
    (snapshot,) = await client.updates(1)
    assert (snapshot["snapshot"], snapshot["offset"]) == (True, 5)


async def test_stream_when_the_database_is_away_then_told_after_it_is_back(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("orders", ORDERS)
    await client.updates(1)
    world.journal.failure = DatabaseUnavailableError("away")
    world.hub.wake(STREAM, world.journal.append("acc_1", "orders"))
    await eventually(lambda: world.hub.counters.errors == 1)
    world.journal.failure = None
    await world.hub.poll()
    assert (await client.updates(1))[0]["offset"] == 1


async def test_wake_when_repeated_late_or_ahead_then_nothing_is_told_twice(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("orders", ORDERS)
    world.journal.append("acc_1", "orders")
    for sequence in (1, 1, 0, 7, 1):
        world.hub.wake(STREAM, sequence)
        await asyncio.sleep(0)
    world.journal.append("acc_1", "orders")
    await world.hub.poll()
    assert [each["offset"] for each in await client.updates(3)] == [0, 1, 2]
    await client.request("ping")
    assert client.frames[-1]["type"] == "pong"


async def test_hub_when_a_read_returns_a_hole_then_the_state_instead(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("orders", ORDERS)
    await client.updates(1)
    world.journal.events["acc_1"] = [
        StreamEvent(2, "orders", {"text": "two"}),
    ]
    world.hub.wake(STREAM, 2)
    (snapshot,) = await client.updates(1)
    assert snapshot["snapshot"] is True


# Prices


class ListSink:
    """Keeps what it is sent."""

    close_code: int | None = None
    is_open = True
    queued_bytes = 0

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def send(self, frame: Frame) -> None:
        self.frames.append(frame)

    def put(self, batch: Batch) -> None:
        self.frames += [frame for _, frame in batch.items]

    def gather(self, batch: Batch) -> bool:
        self.put(batch)
        return False

    def flush(self) -> None:
        pass

    def forget(self, topic: str) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        self.close_code = code


async def test_price_when_published_before_the_subscribe_then_not_behind_the_snapshot(
    world: World,
) -> None:
    async def open_(sink: ListSink) -> PriceSubscription:
        params = world.ticks.params(symbols=("A",))
        subscription, _ = await world.hub.open_prices(
            world.ticks, None, params, topic="t", sink=sink
        )
        world.hub.begin(subscription)
        return subscription

    first, second = ListSink(), ListSink()
    subscriptions = [await open_(first)]
    # All in one turn of the event loop.
    world.ticks.tick("A", 1)
    world.ticks.tick("A", 2)
    subscriptions.append(await open_(second))
    world.ticks.tick("A", 3)
    await asyncio.sleep(0)
    values = [json.loads(frame.body)["payload"]["payload"]["value"] for frame in second.frames]
    assert values == [2, 3]
    assert len(first.frames) == 3
    for subscription in subscriptions:
        world.hub.close(subscription)


async def test_price_when_published_while_the_snapshot_is_made_then_the_newest_follows(
    world: World, client: SocketClient
) -> None:
    world.ticks.values.update(A=1, B=1)
    world.ticks.gate.shut()
    subscribing = asyncio.create_task(client.subscribe("ticks", {"symbols": ["A", "B"]}))
    await world.ticks.gate.reached.wait()
    for value in (2, 3):
        world.ticks.tick("A", value)
    world.ticks.gate.open()
    await subscribing
    world.ticks.tick("B", 2)
    payloads = [each["payload"] for each in await client.updates(4)]
    assert payloads == [
        {"symbol": "A", "value": 1},
        {"symbol": "B", "value": 1},
        {"symbol": "A", "value": 3},
        {"symbol": "B", "value": 2},
    ]


async def test_prices_when_the_bus_is_back_then_the_present_ones_and_what_came_meanwhile(
    world: World, client: SocketClient
) -> None:
    world.ticks.values.update(A=1)
    await client.subscribe("ticks", {"symbols": ["A"]})
    await client.updates(1)
    world.ticks.gate.shut()
    world.hub._on_bus_state(True)
    await world.ticks.gate.reached.wait()
    for value in (2, 3):
        world.ticks.tick("A", value)
    world.ticks.gate.open()
    found = await client.updates(2)
    assert [each.get("snapshot", False) for each in found] == [True, False]
    assert [each["payload"]["value"] for each in found] == [1, 3]
    world.ticks.tick("A", 4)
    assert (await client.updates(1))[0]["payload"]["value"] == 4


async def test_price_when_nobody_listens_then_skipped(world: World) -> None:
    world.ticks.tick("A", 1)
    assert world.hub.counters.skipped == 1
    assert not world.hub.has_listeners("ticks:A")
    async with world.socket() as client:
        await client.subscribe("ticks", {"symbols": ["A"]})
        assert world.hub.has_listeners("ticks:A")


async def test_price_when_many_share_a_topic_then_encoded_once(world: World) -> None:
    async with world.socket() as one, world.socket() as two:
        for client in (one, two):
            await client.subscribe("ticks", {"symbols": ["A"]})
        (topic,) = world.hub._topics.values()
        encoded = 0
        update = topic.encoder.update

        class Counting:
            def update(self, payload: bytes) -> Any:
                nonlocal encoded
                encoded += 1
                return update(payload)

        topic.encoder = Counting()  # type: ignore[assignment]
        world.ticks.tick("A", 1)
        await one.updates(1)
        await two.updates(1)
        assert encoded == 1


async def test_price_when_a_reader_stalls_then_only_its_newest_waits(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("ticks", {"symbols": ["A", "B"]})
    client.link.stall()  # type: ignore[attr-defined]
    for value in range(1000):
        world.ticks.tick("A", value)
        world.ticks.tick("B", -value)
        await asyncio.sleep(0)
    assert world.hub.counters.conflated > 1900
    assert max(world.hub.counters.queued_bytes()) < 1000
    client.link.go_on()  # type: ignore[attr-defined]
    seen: dict[str, int] = {}
    while seen != {"A": 999, "B": -999}:
        payload = (await client.updates(1))[0]["payload"]
        assert abs(payload["value"]) >= abs(seen.get(payload["symbol"], 0))
        seen[payload["symbol"]] = payload["value"]


async def test_price_when_unsubscribed_by_a_stalled_reader_then_its_slots_are_freed(
    world: World,
) -> None:
    async with world.socket() as client:
        await client.subscribe("ticks", {"symbols": ["A"]})
        client.link.stall()  # type: ignore[attr-defined]
        for value in range(3):
            world.ticks.tick("A", value)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        await client.send("ticks.unsubscribe", {"symbols": ["A"]}, id_="u")
        await eventually(world.hub.is_idle)
        client.link.go_on()  # type: ignore[attr-defined]
        values = []
        while (frame := await client.next()).get("id") != "u":
            values.append(frame["payload"]["payload"]["value"])
        assert 2 not in values
        assert max(world.hub.counters.queued_bytes()) == 0


async def test_prices_when_slots_outgrow_the_queue_then_closed_4008(
    make_world: MakeWorld,
) -> None:
    world = make_world(limits=Limits(queue_size_max=10_000, abort_seconds=0.05))
    async with world.socket() as client:
        symbols = [f"S{number}" for number in range(100)]
        await client.subscribe("ticks", {"symbols": symbols})
        client.link.stall()  # type: ignore[attr-defined]
        for symbol in symbols:
            world.hub.publish(
                f"ticks:{symbol}", json.dumps({"symbol": symbol, "pad": "x" * 900}).encode()
            )
            await asyncio.sleep(0)
        await eventually(lambda: world.hub.counters.closed == {4008: 1})
        assert world.hub.is_idle()


@pytest.mark.parametrize("symbol", ["*", "[A]", "A?", "a b", "é", "A" * 200])
async def test_feed_when_its_name_is_a_pattern_then_refused(
    world: World, client: SocketClient, symbol: str
) -> None:
    answer = await client.subscribe("ticks", {"symbols": ["A", symbol]})
    assert answer["error"]["status"] == 422
    assert world.hub.is_idle()


def test_metrics_when_scraped_then_counts_by_module() -> None:
    metrics = WebSocketMetrics()
    registry = CollectorRegistry()
    registry.register(metrics)
    counters = metrics.counters("test")
    counters.sent, counters.conflated = 5, 2
    counters.count_close(4008)
    counters.observe_fanout(0.003)
    text = generate_latest(registry).decode()
    assert 'trading_ws_frames_total{module="test",outcome="sent"} 5.0' in text
    assert 'trading_ws_frames_total{module="test",outcome="conflated"} 2.0' in text
    assert 'trading_ws_closed_total{code="4008",module="test"} 1.0' in text
    assert 'trading_ws_fanout_seconds_bucket{le="0.005",module="test"} 1.0' in text
