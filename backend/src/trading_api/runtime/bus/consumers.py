"""Hands other modules' facts to this module's handlers: each at least once, in order per key.

Facts come from the producer's stream; from its database, over HTTP, where the stream has a gap or
the bus is away. Either way they are taken in by their sequence, so it doesn't matter which came
first. A cursor in this module's database tells up to where all is done; behind it, the inbox tells
what had its effect already.

A handler that raises is tried again, at most five times, then the fact is a dead letter; only
facts of the same key wait for it. What isn't the fact's fault (``UnavailableError``: a database or
another module is away) is tried until it works.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from trading_api.contracts.envelope import Envelope
from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import UnavailableError
from trading_api.runtime import context
from trading_api.runtime.bus import metrics
from trading_api.runtime.bus.bus import Bus, BusCommandError, BusUnavailableError, Word
from trading_api.runtime.bus.facts import (
    dead_stream_of,
    decode_entry,
    sequence_of,
    stream_of,
)
from trading_api.runtime.database.inbox import Inbox, delivery
from trading_api.runtime.database.leases import Lease
from trading_api.runtime.database.transactions import Database
from trading_api.runtime.facts import LIMIT_DEFAULT, FactsPage, facts_path
from trading_api.runtime.module import Consumer
from trading_api.runtime.peers import Peers

log = structlog.get_logger("consumers")

DELIVERIES_MAX = 5
RETRY_SECONDS = (0.1, 0.3, 1.0, 3.0)
"""Waits before the second to the fifth delivery."""

TRANSIENT_SECONDS_MAX = 5.0
HANDLERS_MAX = 32
"""Handlers at work at a time, all of different keys. A handler has its effect in
``Database.group``, so that those at work share one transaction, with a savepoint each; one that
took a connection of its own would leave none to the requests."""

HANDLER_SECONDS = 30.0
"""A delivery that takes longer has failed; it would keep others from working."""

OPEN_MAX = 2000
"""Facts taken in and not done; beyond it no more are read until some are."""

READ_COUNT = 256
BLOCK_SECONDS = 1.0
CLAIM_IDLE_SECONDS = 5.0
POLL_SECONDS = 1.0
"""How often the producer is asked while the bus is away."""

IDLE_POLL_SECONDS = 15.0
"""How often the producer is asked though all seems well: the last fact may have been lost."""

FLUSH_SECONDS = 0.1
CATCH_UP_SECONDS = 5.0
PURGE_SECONDS = 3600.0
ABANDONED_SECONDS = 3600.0
DEAD_LETTERS_LENGTH = 10_000


class Consumers:
    """Runs one module's handlers; ``run`` is the background task, under the module's lease.

    The lease makes one instance the reader, which is what keeps the order per key. Should two
    overlap for a moment, the inbox still lets each fact have one effect.

    Args:
        module: the consuming module, whose name is the group's.
        instance: this process's name within the group.
    """

    def __init__(
        self,
        *,
        module: str,
        instance: str,
        consumers: Sequence[Consumer],
        inbox: Inbox,
        database: Database,
        bus: Bus,
        peers: Peers,
        clock: Clock,
    ) -> None:
        self._module = module
        self._instance = instance
        self._inbox = inbox
        self._database = database
        self._bus = bus
        self._peers = peers
        self._clock = clock
        self._by_producer: dict[str, dict[str, list[Consumer]]] = {}
        for consumer in consumers:
            types = self._by_producer.setdefault(consumer.producer, {})
            types.setdefault(consumer.event.TYPE, []).append(consumer)
        self._is_reading = False

    async def run(self, _lease: Lease | None) -> None:
        """Read and handle until cancelled.

        Raises:
            UnavailableError: the database is away.
        """
        slots = asyncio.Semaphore(HANDLERS_MAX)
        dirty = asyncio.Event()
        async with self._database.snapshot() as snapshot:
            intakes = {
                producer: _Intake(
                    self,
                    producer=producer,
                    handlers=handlers,
                    slots=slots,
                    dirty=dirty,
                    cursor=await self._inbox.get_last_sequence(snapshot, producer=producer),
                )
                for producer, handlers in self._by_producer.items()
            }
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(intakes))
                group.create_task(self._keep_flushed(intakes, dirty))
                for intake in intakes.values():
                    group.create_task(self._keep_caught_up(intake))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._is_reading = False
            for intake in intakes.values():
                await intake.stop()
            # What was handled since the last flush would only be handled in vain again.
            with contextlib.suppress(UnavailableError):
                await self._flush(intakes)

    async def deliver(self, envelope: Envelope, consumers: Sequence[Consumer]) -> None:
        """Call the handlers of one fact with its identity in the context; raises what they do."""
        context.request_id.set(envelope.request_id)
        context.traceparent.set(envelope.traceparent)
        context.causation_id.set(envelope.id)
        delivery.set((envelope.producer, envelope.sequence))
        async with asyncio.timeout(HANDLER_SECONDS):
            for consumer in consumers:
                event = consumer.event.model_validate(envelope.data)
                await consumer.handle(envelope, event)

    async def bury(self, envelope: Envelope, error: Exception) -> None:
        """Keep a fact that every delivery of has failed, in the database and on the bus.

        Raises:
            UnavailableError: the database is away.
        """
        metrics.FACTS_DEAD.labels(self._module, envelope.producer).inc()
        log.error(
            "fact_dead",
            module=self._module,
            producer=envelope.producer,
            event_id=envelope.id,
            type=envelope.type,
            key=envelope.key,
            sequence=envelope.sequence,
            exc_info=error,
        )
        reason = f"{type(error).__name__}: {error}"
        async with self._database.transaction() as transaction:
            await self._inbox.bury(
                transaction,
                envelope=envelope,
                reason=reason,
                deliveries=DELIVERIES_MAX,
                failed_at=self._clock.now(),
            )
        command: tuple[Word, ...] = (
            *("XADD", dead_stream_of(self._module), "MAXLEN", "~", DEAD_LETTERS_LENGTH, "*"),
            *("envelope", envelope.model_dump_json(), "reason", reason),
        )
        with contextlib.suppress(BusUnavailableError, BusCommandError):
            await self._bus.call(*command)

    def note_handled(self, producer: str) -> None:
        """Count a fact whose handlers succeeded."""
        metrics.FACTS_CONSUMED.labels(self._module, producer).inc()

    def note_failed(self, envelope: Envelope, deliveries: int, error: Exception) -> None:
        """Count and tell that a delivery failed."""
        metrics.FACTS_FAILED.labels(self._module, envelope.producer).inc()
        log.warning(
            "fact_failed",
            module=self._module,
            event_id=envelope.id,
            type=envelope.type,
            delivery=deliveries,
            reason=f"{type(error).__name__}: {error}",
        )

    # From the bus

    async def _read(self, intakes: "Mapping[str, _Intake]") -> None:
        backoff_seconds = 0.1
        while True:
            try:
                await self._join(intakes)
                backoff_seconds = 0.1
                await self._read_streams(intakes)
            except BusUnavailableError:
                log.debug("consumers_without_bus", module=self._module)
            except BusCommandError as error:
                # NOGROUP: the server lost its streams; join anew.
                log.warning("consumers_refused", module=self._module, reason=str(error))
            finally:
                self._is_reading = False
            # From now on facts come from the producers, which must not wait for their next turn.
            for intake in intakes.values():
                intake.ask()
            await asyncio.sleep(backoff_seconds)
            backoff_seconds = min(backoff_seconds * 2, 5.0)

    async def _join(self, intakes: "Mapping[str, _Intake]") -> None:
        for producer, intake in intakes.items():
            key = stream_of(producer)
            try:
                # From the stream's end: what is before it comes by catching up, once and in order.
                await self._bus.call("XGROUP", "CREATE", key, self._module, "$", "MKSTREAM")
            except BusCommandError as error:
                if "BUSYGROUP" not in str(error):
                    raise
            await self._remove_abandoned(key)
            intake.ask()
        self._is_reading = True

    async def _remove_abandoned(self, key: str) -> None:
        for described in await self._bus.call("XINFO", "CONSUMERS", key, self._module):
            facts = dict(zip(described[::2], described[1::2], strict=True))
            is_abandoned = facts[b"idle"] > ABANDONED_SECONDS * 1000 and not facts[b"pending"]
            if is_abandoned and facts[b"name"] != self._instance.encode():
                await self._bus.call("XGROUP", "DELCONSUMER", key, self._module, facts[b"name"])

    async def _read_streams(self, intakes: "Mapping[str, _Intake]") -> None:
        by_key = {stream_of(producer).encode(): each for producer, each in intakes.items()}
        command: list[Word] = ["XREADGROUP", "GROUP", self._module, self._instance]
        command += ["COUNT", READ_COUNT, "BLOCK", int(BLOCK_SECONDS * 1000), "STREAMS"]
        command += [*by_key, *(">" for _ in by_key)]
        claimed_at = float("-inf")
        while True:
            now = self._clock.monotonic()
            if now - claimed_at >= CLAIM_IDLE_SECONDS:
                claimed_at = now
                for key, intake in by_key.items():
                    await self._claim(key, intake)
            for intake in intakes.values():
                await intake.wait_for_room()
            reply = await self._bus.call(*command, timeout_seconds=BLOCK_SECONDS + 1.0)
            for key, entries in reply or ():
                by_key[key].take_entries(entries)

    async def _claim(self, key: bytes, intake: "_Intake") -> None:
        """Take over what a predecessor was given and didn't acknowledge."""
        start: Word = "0-0"
        idle = int(CLAIM_IDLE_SECONDS * 1000)
        while True:
            reply = await self._bus.call(
                *("XAUTOCLAIM", key, self._module, self._instance, idle, start),
                *("COUNT", READ_COUNT),
            )
            intake.take_entries(reply[1])
            start = reply[0]
            if start == b"0-0":
                return
            await intake.wait_for_room()

    # From the producer

    async def _keep_caught_up(self, intake: "_Intake") -> None:
        purged_at = self._clock.monotonic()
        while True:
            await intake.wait_until_asked(IDLE_POLL_SECONDS if self._is_reading else POLL_SECONDS)
            try:
                page = await self._catch_up(intake)
            except UnavailableError as error:
                log.debug(
                    "catch_up_later",
                    module=self._module,
                    producer=intake.producer,
                    reason=error.message,
                )
                await asyncio.sleep(POLL_SECONDS)
                intake.ask()
                continue
            if self._clock.monotonic() - purged_at >= PURGE_SECONDS:
                purged_at = self._clock.monotonic()
                async with self._database.transaction() as transaction:
                    await self._inbox.remove_before(
                        transaction, producer=intake.producer, sequence=page.first
                    )

    async def _catch_up(self, intake: "_Intake") -> FactsPage:
        """Take in everything the producer has; return the last page."""
        while True:
            await intake.wait_for_room()
            after = intake.seen
            page = await self._ask(intake.producer, after)
            if page.last < after:
                await self._rewind(intake, last=page.last)
                continue
            if page.facts and page.facts[0].sequence > after + 1:
                log.warning(
                    "facts_missed",
                    module=self._module,
                    producer=intake.producer,
                    after=after,
                    first=page.facts[0].sequence,
                )
            for envelope in page.facts:
                intake.take(envelope)
            if len(page.facts) < LIMIT_DEFAULT:
                return page

    async def _ask(self, producer: str, after: int) -> FactsPage:
        answer = await self._peers.client(producer).get(
            facts_path(producer),
            params={"after": after, "limit": LIMIT_DEFAULT},
            timeout_seconds=CATCH_UP_SECONDS,
        )
        if answer.status_code != 200:
            raise UnavailableError(
                f"{producer} answered {answer.status_code} when asked for facts", module=producer
            )
        return FactsPage.model_validate_json(answer.content)

    async def _rewind(self, intake: "_Intake", *, last: int) -> None:
        log.warning(
            "producer_counts_anew",
            module=self._module,
            producer=intake.producer,
            seen=intake.seen,
            last=last,
        )
        async with self._database.transaction() as transaction:
            await self._inbox.rewind(transaction, producer=intake.producer)
        intake.rewind()

    # To the database

    async def _keep_flushed(self, intakes: "Mapping[str, _Intake]", dirty: asyncio.Event) -> None:
        while True:
            await dirty.wait()
            dirty.clear()
            # More is done meanwhile, and goes along in one commit.
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush(intakes)

    async def _flush(self, intakes: "Mapping[str, _Intake]") -> None:
        changed = {intake: intake.done for intake in intakes.values() if intake.is_dirty}
        if not changed:
            return
        async with self._database.transaction() as transaction:
            for intake, done in changed.items():
                await self._inbox.advance(transaction, producer=intake.producer, sequence=done)
        commands: list[tuple[Word, ...]] = []
        for intake, done in changed.items():
            intake.flushed = max(intake.flushed, done)
            metrics.FACTS_LAG.labels(self._module, intake.producer).set(intake.open_count)
            ids = intake.list_acknowledgeable()
            if ids:
                commands.append(("XACK", stream_of(intake.producer), self._module, *ids))
        # Unacknowledged entries come again, and are then known.
        with contextlib.suppress(BusUnavailableError):
            await self._bus.calls(commands, timeout_seconds=BLOCK_SECONDS)


class _Intake:
    """Facts of one producer on their way through: taken in by sequence, done in any order.

    Attributes:
        seen: the last sequence taken in.
        flushed: the cursor as the database has it.
    """

    def __init__(
        self,
        runner: Consumers,
        *,
        producer: str,
        handlers: Mapping[str, Sequence[Consumer]],
        slots: asyncio.Semaphore,
        dirty: asyncio.Event,
        cursor: int,
    ) -> None:
        self.producer = producer
        self.seen = self.flushed = cursor
        self._runner = runner
        self._handlers = handlers
        self._slots = slots
        self._dirty = dirty
        self._open: dict[int, Envelope] = {}
        self._unacknowledged: dict[int, bytes] = {}
        self._lanes: dict[str, deque[Envelope]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._asked = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def done(self) -> int:
        """The sequence up to which all is done."""
        return next(iter(self._open)) - 1 if self._open else self.seen

    @property
    def is_dirty(self) -> bool:
        """Tell whether the database's cursor, or the stream's, is behind."""
        return self.done > self.flushed or any(
            sequence <= self.flushed for sequence in self._unacknowledged
        )

    @property
    def open_count(self) -> int:
        """Facts taken in and not done."""
        return len(self._open)

    def ask(self) -> None:
        """Ask the producer for what is missing, soon."""
        self._asked.set()

    async def wait_until_asked(self, timeout_seconds: float) -> None:
        """Return when ``ask`` was called, or when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._asked.wait()
        self._asked.clear()

    async def wait_for_room(self) -> None:
        """Wait while too many facts are open."""
        await self._room.wait()

    def take_entries(self, entries: Sequence[list[Any] | None]) -> None:
        """Take in stream entries as far as they follow on; a gap is asked for at the producer."""
        for entry in entries:
            if entry is None:  # trimmed away while it was pending
                continue
            sequence = sequence_of(entry[0])
            self._unacknowledged[sequence] = entry[0]
            if sequence <= self.seen:
                self._dirty.set()
                continue
            envelope = decode_entry(entry)
            if sequence == self.seen + 1 and envelope is not None:
                self.take(envelope)
            else:
                self.ask()

    def take(self, envelope: Envelope) -> None:
        """Take in the next fact; what was taken before is passed over."""
        if envelope.sequence <= self.seen:
            return
        self.seen = envelope.sequence
        if envelope.type not in self._handlers:
            self._dirty.set()
            return
        self._open[envelope.sequence] = envelope
        if len(self._open) >= OPEN_MAX:
            self._room.clear()
        lane = self._lanes.get(envelope.key)
        if lane is not None:
            lane.append(envelope)
            return
        self._lanes[envelope.key] = deque((envelope,))
        worker = asyncio.create_task(self._work(envelope.key))
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)

    def rewind(self) -> None:
        """Begin anew at 0; what is under way ends by itself."""
        self.seen = self.flushed = 0
        self._open.clear()
        self._unacknowledged.clear()
        self._room.set()

    def list_acknowledgeable(self) -> list[bytes]:
        """Return the ids of entries that the database's cursor has passed, and forget them."""
        passed = [number for number in self._unacknowledged if number <= self.flushed]
        return [self._unacknowledged.pop(number) for number in passed]

    async def stop(self) -> None:
        """Cancel what is under way; it comes again."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _work(self, key: str) -> None:
        lane = self._lanes[key]
        try:
            while lane:
                await self._handle(lane[0])
                self._finish(lane.popleft())
        finally:
            del self._lanes[key]

    def _finish(self, envelope: Envelope) -> None:
        # After a rewind another fact may have that sequence.
        if self._open.get(envelope.sequence) is envelope:
            del self._open[envelope.sequence]
        if len(self._open) < OPEN_MAX:
            self._room.set()
        self._dirty.set()

    async def _handle(self, envelope: Envelope) -> None:
        """Deliver until it succeeds or is buried; raises nothing but cancellation."""
        deliveries = 0
        transient_seconds = RETRY_SECONDS[0]
        while True:
            try:
                async with self._slots:
                    await self._runner.deliver(envelope, self._handlers[envelope.type])
            except UnavailableError as error:
                if transient_seconds == RETRY_SECONDS[0]:
                    self._runner.note_failed(envelope, deliveries, error)
                await asyncio.sleep(transient_seconds)
                transient_seconds = min(transient_seconds * 2, TRANSIENT_SECONDS_MAX)
            except Exception as error:  # noqa: BLE001 - counted, told and buried
                deliveries += 1
                self._runner.note_failed(envelope, deliveries, error)
                if deliveries >= DELIVERIES_MAX:
                    await self._bury(envelope, error)
                    return
                await asyncio.sleep(RETRY_SECONDS[deliveries - 1])
            else:
                self._runner.note_handled(self.producer)
                return

    async def _bury(self, envelope: Envelope, error: Exception) -> None:
        while True:
            try:
                await self._runner.bury(envelope, error)
            except UnavailableError:
                await asyncio.sleep(TRANSIENT_SECONDS_MAX)
            else:
                return
