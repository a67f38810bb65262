"""Facts from one module's commit to another module's effect, over a real bus."""

import asyncio
import random
import time
from datetime import timedelta

import httpx
import pytest
import sqlalchemy as sa

from trading_api.kernel.errors import UnavailableError
from trading_api.runtime import context
from trading_api.runtime.bus import Bus
from trading_api.runtime.bus.facts import dead_stream_of, get_stream_end, stream_of
from trading_api.runtime.database import Database
from trading_api.runtime.database.leases import LeaseLostError
from trading_api.runtime.database.outbox import RETENTION
from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.bus import BusServer, eventually, started_bus
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.facts import (
    CONSUMER,
    CONSUMER_METADATA,
    INBOX_TABLE,
    OUTBOX_TABLE,
    PRODUCER,
    PRODUCER_METADATA,
    Counted,
    Host,
    Publisher,
    Subscriber,
    a_host,
    consuming,
    ensure_once_in_order,
    relaying,
    until_cursor,
    until_effects,
)

STREAM = stream_of(PRODUCER)


async def is_acknowledged(bus: Bus) -> bool:
    return bool((await bus.call("XPENDING", STREAM, CONSUMER))[0] == 0)


async def list_sequences(publisher: Publisher) -> list[tuple[int, int | None]]:
    async with publisher.database.snapshot() as snapshot:
        rows = await snapshot.all(
            sa.select(OUTBOX_TABLE.c.id, OUTBOX_TABLE.c.sequence).order_by(OUTBOX_TABLE.c.id)
        )
    return [(row.id, row.sequence) for row in rows]


async def test_facts_when_all_is_well_then_each_has_its_effect_once_and_in_order(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    await publisher.add(range(50))
    async with relaying(publisher), consuming(subscriber):
        await publisher.add(range(50, 150))
        effects = await until_effects(subscriber, 150)
        await until_cursor(subscriber, 150)
        ensure_once_in_order(effects, range(150))
        assert await bus.call("XLEN", STREAM) == 150
        await eventually(lambda: is_acknowledged(bus))
    assert sorted(subscriber.deliveries) == list(range(150))


async def test_facts_when_many_of_different_keys_wait_then_they_share_transactions(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    commits = 0

    def count(_connection: sa.Connection) -> None:
        nonlocal commits
        commits += 1

    sa.event.listen(subscriber.database.engine.sync_engine, "commit", count)
    async with publisher.database.transaction() as transaction:
        for number in range(200):
            await publisher.add_in(transaction, number, key=f"key {number}")
    async with relaying(publisher), consuming(subscriber):
        await until_effects(subscriber, 200)
    assert sorted(number for _, number in await subscriber.list_effects()) == list(range(200))
    assert commits < 60


async def test_facts_when_committed_then_they_arrive_within_tens_of_milliseconds(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    arrived = asyncio.Event()

    async def note(_event: Counted) -> None:
        arrived.set()

    subscriber.before = note
    async with relaying(publisher), consuming(subscriber):
        seconds = []
        for number in range(10):
            arrived.clear()
            await publisher.add([number])
            began = time.monotonic()
            await arrived.wait()
            seconds.append(time.monotonic() - began)
    # Without the wake-ups each would wait for a poll of 200 ms.
    assert sorted(seconds)[5] < 0.15


async def test_facts_when_nobody_handles_their_type_then_the_cursor_passes_them(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    async with relaying(publisher), consuming(subscriber):
        await publisher.mutter()
        await publisher.add([1])
        await publisher.mutter()
        await until_cursor(subscriber, 3)
        assert await subscriber.list_effects() == [("1", 1)]
        await eventually(lambda: is_acknowledged(bus))


@pytest.mark.parametrize("keeps_data", [True, False])
async def test_facts_when_the_bus_is_killed_again_and_again_then_none_is_lost_or_doubled(
    keeps_data: bool,
    bus_server: BusServer,
    producer_database: Database,
    consumer_database: Database,
    host: Host,
) -> None:
    bus = await started_bus(bus_server)
    publisher = Publisher(producer_database, bus)
    subscriber = Subscriber(consumer_database, bus, host.peers)
    async with relaying(publisher), consuming(subscriber):
        for step in range(3):
            await publisher.add(range(step * 40, step * 40 + 20))
            bus_server.kill()
            if not keeps_data:
                bus_server.forget()
            await publisher.add(range(step * 40 + 20, step * 40 + 40))
            bus_server.start()
            await asyncio.wait_for(bus.wait_until_up(), 6)
        effects = await until_effects(subscriber, 120)
        await until_cursor(subscriber, 120)
        ensure_once_in_order(effects, range(120))

        async def is_republished() -> bool:
            return bool(await bus.call("XLEN", STREAM) == 120)

        await eventually(is_republished, within_seconds=10)
    assert len(await subscriber.list_effects()) == 120
    await bus.stop()


async def test_facts_when_the_bus_dies_for_good_then_they_go_on_over_http_within_seconds(
    bus_server: BusServer, producer_database: Database, consumer_database: Database, host: Host
) -> None:
    bus = await started_bus(bus_server)
    publisher = Publisher(producer_database, bus)
    subscriber = Subscriber(consumer_database, bus, host.peers)
    async with relaying(publisher), consuming(subscriber):
        await publisher.add(range(5))
        await until_cursor(subscriber, 5)
        bus_server.kill()
        await publisher.add(range(5, 10))
        ensure_once_in_order(await until_effects(subscriber, 10, within_seconds=4), range(10))
    await bus.stop()


async def test_facts_when_there_is_no_bus_at_all_then_they_come_over_http(
    producer_database: Database, consumer_database: Database, host: Host
) -> None:
    bus = Bus("unix:///nowhere/bus.sock")
    await bus.start()
    publisher = Publisher(producer_database, bus)
    subscriber = Subscriber(consumer_database, bus, host.peers)
    async with relaying(publisher), consuming(subscriber):
        await publisher.add(range(30))
        effects = await until_effects(subscriber, 30)
        await publisher.add(range(30, 60))
        effects = await until_effects(subscriber, 60)
        await until_cursor(subscriber, 60)
    ensure_once_in_order(effects, range(60))
    await bus.stop()


async def test_facts_when_the_server_forgets_its_streams_then_none_is_lost_or_doubled(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    async with relaying(publisher), consuming(subscriber):
        for step in range(3):
            await publisher.add(range(step * 30, step * 30 + 15))
            await bus.call("FLUSHALL")
            await publisher.add(range(step * 30 + 15, step * 30 + 30))
        ensure_once_in_order(await until_effects(subscriber, 90), range(90))
        await until_cursor(subscriber, 90)


async def test_facts_when_the_stream_is_torn_and_redelivered_then_as_in_a_clean_run(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    chance = random.Random(7)
    async with relaying(publisher), consuming(subscriber):
        await publisher.add([0])
        await until_effects(subscriber, 1)
        for number in range(1, 120):
            await publisher.add([number])
            if chance.random() < 0.3:
                await bus.call("XDEL", STREAM, f"{chance.randint(1, 120)}-0")
            if chance.random() < 0.1:
                await bus.call("XGROUP", "SETID", STREAM, CONSUMER, chance.choice(["0", "$"]))
        ensure_once_in_order(await until_effects(subscriber, 120), range(120))
        await until_cursor(subscriber, 120)
        await eventually(lambda: is_acknowledged(bus))


async def test_facts_when_the_consumer_is_cut_off_after_its_commit_then_no_second_effect(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    committed = asyncio.Event()

    async def hang(_event: Counted) -> None:
        committed.set()
        await asyncio.Event().wait()

    subscriber.after = hang
    await publisher.add(range(20))
    async with relaying(publisher):
        async with consuming(subscriber, instance="first"):
            await asyncio.wait_for(committed.wait(), 5)
        cut_off_after = len(await subscriber.list_effects())
        assert 0 < cut_off_after < 20
        subscriber.after = None
        async with consuming(subscriber, instance="second"):
            ensure_once_in_order(await until_effects(subscriber, 20), range(20))
            await until_cursor(subscriber, 20)
    assert len(subscriber.deliveries) > 20


async def test_facts_when_the_producer_is_down_then_the_stream_alone_will_do(
    publisher: Publisher, subscriber: Subscriber, host: Host, bus: Bus
) -> None:
    async with consuming(subscriber, instance="first"), relaying(publisher):
        await publisher.add(range(10))
        await until_cursor(subscriber, 10)
    host.go_down()
    async with relaying(publisher):
        await publisher.add(range(10, 30))

        async def is_published() -> bool:
            return await get_stream_end(bus, PRODUCER) == 30

        await eventually(is_published)
    async with consuming(subscriber, instance="second"):
        ensure_once_in_order(await until_effects(subscriber, 30), range(30))


async def test_fact_when_its_handler_always_raises_then_dead_after_five_and_others_go_on(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    async def refuse(event: Counted) -> None:
        if event.number == 5:
            raise ValueError("planted")

    subscriber.before = refuse
    async with relaying(publisher), consuming(subscriber):
        await publisher.add([1], key="well")
        await until_effects(subscriber, 1)
        await publisher.add([5, 15, 25], key="sick")
        began = time.monotonic()
        await publisher.add([2, 3, 4], key="well")
        await until_effects(subscriber, 4)
        assert time.monotonic() - began < 1.0
        effects = await until_effects(subscriber, 6)
        assert effects[4:] == [("sick", 15), ("sick", 25)]
        await until_cursor(subscriber, 7)
        await eventually(lambda: is_acknowledged(bus))
    assert subscriber.deliveries.count(5) == 5
    assert await subscriber.count_dead() == 1
    assert await bus.call("XLEN", dead_stream_of(CONSUMER)) == 1


async def test_fact_when_its_handler_misses_something_then_it_is_tried_until_it_is_there(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    async def miss(event: Counted) -> None:
        if subscriber.deliveries.count(event.number) <= 6:
            raise UnavailableError("planted")

    subscriber.before = miss
    async with relaying(publisher), consuming(subscriber):
        await publisher.add([1])
        await until_effects(subscriber, 1)
    assert subscriber.deliveries == [1] * 7
    assert await subscriber.count_dead() == 0


async def test_fact_when_handled_then_its_ids_are_in_the_context(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    found: list[tuple[str | None, str | None]] = []

    async def note(_event: Counted) -> None:
        found.append((context.request_id.get(), context.causation_id.get()))

    subscriber.before = note
    token = context.request_id.set("req_from_http")
    async with publisher.database.transaction() as transaction:
        event_id = await publisher.add_in(transaction, 1)
    context.request_id.reset(token)
    async with relaying(publisher), consuming(subscriber):
        await until_effects(subscriber, 1)
    assert found == [("req_from_http", event_id)]


async def test_claim_when_made_by_a_handler_then_it_knows_what_it_is_a_claim_of(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    await publisher.add([1, 2])
    async with relaying(publisher), consuming(subscriber):
        await until_effects(subscriber, 2)
    async with subscriber.database.transaction() as transaction:
        rows = await transaction.all(sa.select(INBOX_TABLE.c.producer, INBOX_TABLE.c.sequence))
        assert sorted(map(tuple, rows)) == [(PRODUCER, 1), (PRODUCER, 2)]
        assert await subscriber.inbox.remove_before(transaction, producer=PRODUCER, sequence=2) == 1


async def test_facts_when_the_producers_database_is_new_then_they_still_have_effects(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    async with relaying(publisher), consuming(subscriber):
        await publisher.add(range(10))
        await until_cursor(subscriber, 10)
    async with publisher.database.transaction() as transaction:
        await transaction.execute(OUTBOX_TABLE.delete())
    await bus.call("FLUSHALL")
    async with relaying(publisher):
        await publisher.add(range(10, 15))
        async with consuming(subscriber):
            ensure_once_in_order(await until_effects(subscriber, 15), range(15))


async def test_relay_when_the_stream_is_ahead_of_the_database_then_no_number_is_used_twice(
    publisher: Publisher, subscriber: Subscriber, bus: Bus
) -> None:
    await publisher.add(range(10))
    relay, lease = publisher.a_relay(), await publisher.a_lease()
    await relay.step(lease)
    async with publisher.database.transaction() as transaction:
        await transaction.execute(OUTBOX_TABLE.delete().where(OUTBOX_TABLE.c.sequence > 6))
    restored = publisher.a_relay()
    await restored.step(lease)
    await publisher.add([10])
    await restored.step(lease)
    assert (await list_sequences(publisher))[-1][1] == 11
    assert await get_stream_end(bus, PRODUCER) == 11


@pytest.mark.postgresql
async def test_relay_when_a_transaction_commits_late_then_its_fact_is_not_lost(
    postgresql_url: str, settings: PlatformSettings, bus: Bus
) -> None:
    producer_database = Database(postgresql_url, schema=PRODUCER)
    consumer_database = Database(postgresql_url, schema=CONSUMER)
    await producer_database.create_all(PRODUCER_METADATA)
    await consumer_database.create_all(CONSUMER_METADATA)
    host = a_host(settings, producer_database)
    publisher = Publisher(producer_database, bus)
    subscriber = Subscriber(consumer_database, bus, host.peers)
    async with relaying(publisher), consuming(subscriber):
        async with publisher.database.transaction() as early:
            await publisher.add_in(early, 1)
            # Its row is written now, not at the end with the commit.
            await early.flush()
            async with publisher.database.transaction() as late:
                await publisher.add_in(late, 2)
            # The second has its row number behind the first and is already published.
            assert await until_effects(subscriber, 1) == [("2", 2)]
        assert await until_effects(subscriber, 2) == [("2", 2), ("1", 1)]
    assert await list_sequences(publisher) == [(1, 2), (2, 1)]
    await host.peers.close()
    await producer_database.close()
    await consumer_database.close()


async def test_relay_when_it_died_before_noting_what_it_published_then_no_entry_is_doubled(
    publisher: Publisher, bus: Bus
) -> None:
    lease = await publisher.a_lease()
    await publisher.add(range(5))
    await publisher.a_relay().step(lease)
    await publisher.add(range(5, 8))
    successor = publisher.a_relay()
    successor._published = 2
    await successor.step(lease)
    assert await bus.call("XLEN", STREAM) == 8


async def test_relay_when_its_lease_went_to_another_then_it_numbers_nothing(
    producer_database: Database, bus: Bus, clock: FixedClock
) -> None:
    first = Publisher(producer_database, bus, owner="first", clock=clock)
    second = Publisher(producer_database, bus, owner="second", clock=clock)
    lost = await first.a_lease()
    assert await second.leases.acquire("relay") is None
    clock.advance(61)
    held = await second.a_lease()
    assert held.fencing == lost.fencing + 1
    await first.add([1])
    with pytest.raises(LeaseLostError):
        await first.a_relay().step(lost)
    assert await list_sequences(first) == [(1, None)]
    await second.a_relay().step(held)
    assert await list_sequences(first) == [(1, 1)]


async def test_relay_when_another_instance_commits_then_it_is_woken_over_the_bus(
    publisher: Publisher, producer_database: Database, subscriber: Subscriber
) -> None:
    arrived = asyncio.Event()

    async def note(_event: Counted) -> None:
        arrived.set()

    subscriber.before = note
    other = Publisher(producer_database, publisher.bus, owner="other")
    other.a_relay()  # stands by
    async with relaying(publisher), consuming(subscriber):
        await until_cursor(subscriber, 0)
        seconds = []
        for number in range(10):
            arrived.clear()
            await other.add([number])
            began = time.monotonic()
            await asyncio.wait_for(arrived.wait(), 5)
            seconds.append(time.monotonic() - began)
    assert sorted(seconds)[5] < 0.15


async def test_purge_when_facts_are_past_their_retention_then_all_but_the_newest_go(
    producer_database: Database, bus: Bus, clock: FixedClock
) -> None:
    publisher = Publisher(producer_database, bus, clock=clock)
    lease = await publisher.a_lease()
    await publisher.add(range(3))
    await publisher.a_relay().step(lease)
    clock.advance((RETENTION + timedelta(days=1)).total_seconds())
    await publisher.add([3])
    async with producer_database.transaction() as transaction:
        removed = await publisher.outbox.remove_older_than(
            transaction, instant=clock.now() - RETENTION
        )
    assert removed == 2
    await publisher.a_relay().step(await publisher.a_lease())
    assert await list_sequences(publisher) == [(3, 3), (4, 4)]


async def test_endpoint_when_asked_by_a_module_then_pages_and_nobody_else_gets_any(
    publisher: Publisher, host: Host, settings: PlatformSettings
) -> None:
    await publisher.add(range(5))
    await publisher.a_relay().step(await publisher.a_lease())
    path = f"/internal/v1/{PRODUCER}/facts"
    client = host.peers.client(PRODUCER)
    page = (await client.get(path, params={"after": 1, "limit": 2})).json()
    assert [fact["sequence"] for fact in page["facts"]] == [2, 3]
    assert (page["first"], page["last"]) == (1, 5)
    assert (await client.get(path, params={"after": 5})).json()["facts"] == []
    for wrong in ({"after": -1}, {"limit": 0}, {"limit": 1001}, {"after": "x"}, {"after": 2**63}):
        assert (await client.get(path, params=wrong)).status_code == 422
    transport = httpx.ASGITransport(app=host.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x", timeout=5) as anyone:
        assert (await anyone.get(path)).status_code == 401
        token = ServiceTokens(settings=settings, module=CONSUMER, clock=publisher.clock).token()
        headers = {"Authorization": f"Bearer {token}"}
        assert (await anyone.get(path, headers=headers)).status_code == 200


async def test_task_when_the_database_refuses_then_the_failure_is_the_tasks(
    publisher: Publisher, subscriber: Subscriber
) -> None:
    async with subscriber.database.transaction() as transaction:
        await transaction.execute(sa.text(f"DROP TABLE {CONSUMER}.inbox_cursors"))
    with pytest.raises(Exception, match="inbox_cursors"):
        await subscriber.consumers().run(None)
