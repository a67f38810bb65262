"""Puts a module's committed facts in order and onto its stream on the bus.

It numbers what its lease guards, and publishes from the stream's own end on: what the stream has
lost it gets again, what it already has it refuses. With the bus down facts wait in the database,
numbered, where consumers ask for them over HTTP.
"""

import asyncio

import structlog
from redis.exceptions import ResponseError

from trading_api.kernel.clock import Clock
from trading_api.runtime.bus import metrics
from trading_api.runtime.bus.bus import Bus, BusCommandError, BusUnavailableError
from trading_api.runtime.bus.facts import (
    STREAM_LENGTH,
    add_command,
    get_stream_end,
    wake_channel_of,
)
from trading_api.runtime.database.leases import Lease, Leases
from trading_api.runtime.database.outbox import RETENTION, Outbox
from trading_api.runtime.database.transactions import Database, Transaction

log = structlog.get_logger("relay")

POLL_SECONDS = 0.2
"""Between looks for what other instances committed, while the bus can't tell of it."""

IDLE_SECONDS = 1.0
"""The same while it can: a word that was lost is made up for."""

BATCH_SIZE = 500
PUBLISH_SECONDS = 2.0
"""Nobody waits for a batch, so it may take longer than a call of a request."""

STREAM_CHECK_SECONDS = 5.0
PURGE_SECONDS = 3600.0


class Relay:
    """Relays one module's outbox; ``run`` is the background task, under the module's lease."""

    def __init__(
        self, *, outbox: Outbox, database: Database, leases: Leases, bus: Bus, clock: Clock
    ) -> None:
        self._outbox = outbox
        self._database = database
        self._leases = leases
        self._bus = bus
        self._clock = clock
        self._producer = outbox.producer
        self._wake = asyncio.Event()
        self._is_running = False
        # Up to where the stream has everything; None while that isn't known.
        self._published: int | None = None
        self._sent = 0
        self._floor = 0
        outbox.on_added(self.wake)

    def wake(self) -> None:
        """Tell that facts were committed here: to this relay, or the instance that relays."""
        if self._is_running:
            self._wake.set()
        else:
            self._bus.publish(wake_channel_of(self._producer), b"")

    async def run(self, lease: Lease | None) -> None:
        """Relay until cancelled.

        Raises:
            LeaseLostError: another instance relays now.
            UnavailableError: the database is away.
        """
        assert lease is not None, "the relay runs under a lease"
        subscription = self._bus.subscribe(
            wake_channel_of(self._producer), lambda _channel, _payload: self._wake.set()
        )
        self._is_running = True
        self._published = None
        checked_at = purged_at = self._clock.monotonic()
        try:
            while True:
                self._wake.clear()
                is_behind = await self.step(lease)
                now = self._clock.monotonic()
                if now - checked_at >= STREAM_CHECK_SECONDS:
                    self._published, checked_at = None, now
                if now - purged_at >= PURGE_SECONDS:
                    await self._purge(lease)
                    purged_at = now
                if not is_behind:
                    await self._wait()
        finally:
            self._is_running = False
            subscription.close()

    async def step(self, lease: Lease) -> bool:
        """Number and publish one batch; tell whether more may wait that can be dealt with now.

        Raises:
            LeaseLostError: another instance relays now.
            UnavailableError: the database is away.
        """
        is_behind = await self._number(lease)
        if not self._bus.is_up:
            self._published = None
            return is_behind
        try:
            if self._published is None:
                self._published = await self._find_end()
            return await self._publish(self._published) or is_behind
        except BusUnavailableError:
            self._published = None
        except BusCommandError as error:
            self._published = None
            log.error("relay_refused", producer=self._producer, reason=str(error))
        return is_behind

    async def _number(self, lease: Lease) -> bool:
        async with self._database.snapshot() as snapshot:
            if not await self._outbox.has_unnumbered(snapshot):
                return False

        async def number(transaction: Transaction) -> int:
            await self._leases.ensure_held(transaction, lease)
            return await self._outbox.number(transaction, limit=BATCH_SIZE, floor=self._floor)

        # Together with the requests that wait for a commit just now, rather than against them.
        return await self._database.group(number) == BATCH_SIZE

    async def _find_end(self) -> int:
        """Return from where on the stream lacks facts."""
        end = await get_stream_end(self._bus, self._producer)
        async with self._database.snapshot() as snapshot:
            _, last = await self._outbox.get_range(snapshot)
        if end > last:
            # The database is older than the stream, as after a restore: never use a number twice.
            log.warning("outbox_behind_stream", producer=self._producer, last=last, end=end)
            self._floor = end
        if end < self._sent:
            log.warning("stream_lost_facts", producer=self._producer, sent=self._sent, end=end)
            metrics.FACTS_REPUBLISHED.labels(self._producer).inc()
        return max(end, last - STREAM_LENGTH)

    async def _publish(self, published: int) -> bool:
        async with self._database.snapshot() as snapshot:
            envelopes = await self._outbox.list_after(
                snapshot, sequence=published, limit=BATCH_SIZE
            )
        if not envelopes:
            metrics.OUTBOX_BACKLOG.labels(self._producer).set(0)
            return False
        replies = await self._bus.calls(
            [add_command(envelope) for envelope in envelopes], timeout_seconds=PUBLISH_SECONDS
        )
        for reply in replies:
            # "equal or smaller": the stream has it, from us before a crash or from a predecessor.
            if isinstance(reply, ResponseError) and "equal or smaller" not in str(reply):
                raise BusCommandError(str(reply))
        self._published = self._sent = envelopes[-1].sequence
        metrics.FACTS_PUBLISHED.labels(self._producer).inc(len(envelopes))
        return len(envelopes) == BATCH_SIZE

    async def _wait(self) -> None:
        if not self._bus.is_up:
            await self._note_backlog()
        try:
            async with asyncio.timeout(IDLE_SECONDS if self._bus.is_up else POLL_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _note_backlog(self) -> None:
        async with self._database.snapshot() as snapshot:
            _, last = await self._outbox.get_range(snapshot)
        metrics.OUTBOX_BACKLOG.labels(self._producer).set(last - self._sent)

    async def _purge(self, lease: Lease) -> None:
        async with self._database.transaction() as transaction:
            await self._leases.ensure_held(transaction, lease)
            removed = await self._outbox.remove_older_than(
                transaction, instant=self._clock.now() - RETENTION
            )
        log.info("facts_purged", producer=self._producer, count=removed)
