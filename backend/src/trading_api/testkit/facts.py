"""Two small modules for tests of the runtime: one publishes facts, the other has their effects."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar

import sqlalchemy as sa
from fastapi import FastAPI

from trading_api.contracts.envelope import Envelope, Event
from trading_api.kernel.clock import Clock, SystemClock
from trading_api.kernel.ids import UuidV7Ids
from trading_api.runtime.bus import Bus
from trading_api.runtime.bus.consumers import Consumers
from trading_api.runtime.bus.relay import Relay
from trading_api.runtime.database import (
    Database,
    Inbox,
    Lease,
    Leases,
    Outbox,
    Transaction,
    inbox,
    leases,
    module_metadata,
    outbox,
)
from trading_api.runtime.facts import facts_router
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import Edge
from trading_api.runtime.http.routing import add_routes
from trading_api.runtime.identity import Identity, ServiceTokens
from trading_api.runtime.module import Consumer
from trading_api.runtime.peers import Peers
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.bus import eventually

PRODUCER = "broker"
CONSUMER = "wallet"

PRODUCER_METADATA = module_metadata(PRODUCER)
OUTBOX_TABLE = outbox.table(PRODUCER_METADATA)
PRODUCER_LEASES_TABLE = leases.table(PRODUCER_METADATA)

CONSUMER_METADATA = module_metadata(CONSUMER)
INBOX_TABLE = inbox.table(CONSUMER_METADATA)
CONSUMER_LEASES_TABLE = leases.table(CONSUMER_METADATA)
EFFECTS = sa.Table(
    "effects",
    CONSUMER_METADATA,
    sa.Column("place", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger, nullable=False),
)


class Counted(Event):
    """A fact that the consumer handles."""

    TYPE: ClassVar[str] = "broker.number.counted"
    number: int


class Unheard(Event):
    """A fact that nobody handles."""

    TYPE: ClassVar[str] = "broker.number.muttered"


class Publisher:
    """The publishing module: its outbox, its facts endpoint, its relays."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        owner: str = "publisher",
        clock: Clock | None = None,
    ) -> None:
        self.database = database
        self.bus = bus
        self.clock = clock or SystemClock()
        self.outbox = Outbox(OUTBOX_TABLE, producer=PRODUCER, ids=UuidV7Ids(), clock=self.clock)
        self.leases = Leases(
            PRODUCER_LEASES_TABLE, database=database, clock=self.clock, owner=owner,
            duration=timedelta(seconds=60),
        )  # fmt: skip

    def a_relay(self) -> Relay:
        """Build a relay that has seen nothing yet."""
        return Relay(
            outbox=self.outbox,
            database=self.database,
            leases=self.leases,
            bus=self.bus,
            clock=self.clock,
        )

    async def a_lease(self) -> Lease:
        """Take the relay's lease."""
        lease = await self.leases.acquire("relay")
        assert lease is not None
        return lease

    async def add(self, numbers: Sequence[int], *, key: str = "") -> None:
        """Publish each number in a transaction of its own; the key is its last digit."""
        for number in numbers:
            async with self.database.transaction() as transaction:
                await self.add_in(transaction, number, key=key)

    async def add_in(self, transaction: Transaction, number: int, *, key: str = "") -> str:
        """Publish one number in the caller's transaction."""
        return await self.outbox.add(
            transaction,
            Counted(number=number),
            key=key or str(number % 10),
            occurred_at=self.clock.now(),
        )

    async def mutter(self) -> None:
        """Publish a fact that nobody handles."""
        async with self.database.transaction() as transaction:
            await self.outbox.add(transaction, Unheard(), key="x", occurred_at=self.clock.now())


Before = Callable[[Counted], Awaitable[None]]


class Subscriber:
    """The consuming module: its handler claims the inbox and writes one effect."""

    def __init__(self, database: Database, bus: Bus, peers: Peers) -> None:
        self.database = database
        self.bus = bus
        self.peers = peers
        self.inbox = Inbox(INBOX_TABLE)
        self.before: Before | None = None
        self.after: Before | None = None
        self.deliveries: list[int] = []

    def consumers(self, *, instance: str = "subscriber") -> Consumers:
        """Build a runner of the handler."""
        return Consumers(
            module=CONSUMER,
            instance=instance,
            consumers=[Consumer(producer=PRODUCER, event=Counted, handle=self.handle)],
            inbox=self.inbox,
            database=self.database,
            bus=self.bus,
            peers=self.peers,
            clock=SystemClock(),
        )

    async def handle(self, envelope: Envelope, event: Counted) -> None:
        """Have the effect once; ``before`` and ``after`` are where tests let it fail."""
        self.deliveries.append(event.number)
        if self.before is not None:
            await self.before(event)

        async def command(transaction: Transaction) -> None:
            if await self.inbox.claim(transaction, consumer="count", event_id=envelope.id):
                await transaction.execute(
                    EFFECTS.insert(), {"key": envelope.key, "number": event.number}
                )

        await self.database.group(command)
        if self.after is not None:
            await self.after(event)

    async def list_effects(self) -> list[tuple[str, int]]:
        """Return key and number of every effect, in their order."""
        async with self.database.snapshot() as snapshot:
            rows = await snapshot.all(
                sa.select(EFFECTS.c.key, EFFECTS.c.number).order_by(EFFECTS.c.place)
            )
        return [(row.key, row.number) for row in rows]

    async def get_cursor(self) -> int:
        """Return the inbox's cursor."""
        async with self.database.snapshot() as snapshot:
            return await self.inbox.get_last_sequence(snapshot, producer=PRODUCER)

    async def count_dead(self) -> int:
        """Count the dead letters."""
        async with self.database.snapshot() as snapshot:
            return await self.inbox.count_dead_letters(snapshot)


@asynccontextmanager
async def running(
    work: Callable[[Any], Awaitable[None]], lease: Lease | None
) -> AsyncIterator[Any]:
    """Run a background task as the runner does; a failure of it fails the test."""
    task = asyncio.ensure_future(work(lease))
    try:
        yield task
    finally:
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=10)
        assert done, "the task does not end when it is cancelled"
    if not task.cancelled():
        task.result()


@asynccontextmanager
async def relaying(publisher: Publisher) -> AsyncIterator[Any]:
    """Relay the publisher's facts for a while."""
    async with running(publisher.a_relay().run, await publisher.a_lease()) as task:
        yield task


@asynccontextmanager
async def consuming(subscriber: Subscriber, *, instance: str = "one") -> AsyncIterator[Any]:
    """Handle facts for a while."""
    async with running(subscriber.consumers(instance=instance).run, None) as task:
        yield task


async def until_effects(
    subscriber: Subscriber, count: int, *, within_seconds: float = 20.0
) -> list[tuple[str, int]]:
    """Wait for so many effects; return them in their order."""

    async def are_there() -> bool:
        return len(await subscriber.list_effects()) >= count

    await eventually(are_there, within_seconds=within_seconds)
    return await subscriber.list_effects()


async def until_cursor(subscriber: Subscriber, sequence: int) -> None:
    """Wait until all facts up to a sequence are done with."""

    async def is_there() -> bool:
        return await subscriber.get_cursor() >= sequence

    await eventually(is_there, within_seconds=20)


def ensure_once_in_order(effects: Sequence[tuple[str, int]], numbers: Sequence[int]) -> None:
    """Check that every number had one effect, and those of one key in their order."""
    assert sorted(number for _, number in effects) == sorted(numbers)
    by_key: dict[str, list[int]] = {}
    for key, number in effects:
        by_key.setdefault(key, []).append(number)
    for of_key in by_key.values():
        assert of_key == sorted(of_key)


class Host:
    """Serves the publisher's facts, or is down."""

    def __init__(self, app: Any, peers: Peers) -> None:
        self.app = app
        self.peers = peers

    def go_down(self) -> None:
        """Stop serving."""
        self.peers._local.clear()

    def come_up(self) -> None:
        """Serve again."""
        self.peers.add_local((PRODUCER,), self.app)


def a_host(settings: PlatformSettings, producer_database: Database) -> Host:
    """Serve the publisher's facts as a process does."""
    clock = SystemClock()

    async def no_keys() -> dict[str, Any]:
        return {"keys": []}

    app = FastAPI(openapi_url=None)
    facts = Outbox(OUTBOX_TABLE, producer=PRODUCER, ids=UuidV7Ids(), clock=clock)
    hot = add_routes(app, facts_router(facts, producer_database), prefix="")
    peers = Peers(
        settings=settings,
        tokens=ServiceTokens(settings=settings, module=CONSUMER, clock=clock),
    )
    edge = Edge(
        Dispatch({f"/internal/v1/{PRODUCER}": app}, hot),
        identity=Identity(settings=settings, clock=clock, fetch_keys=no_keys),
        ids=UuidV7Ids(),
        error_shapes={},
    )
    made = Host(edge, peers)
    made.come_up()
    return made
