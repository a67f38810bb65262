"""The hub of one module in one process: who listens to what, and how a frame reaches them.

Two kinds of messages. Prices: the newest wins, encoded once per topic, one slot per slow reader,
nothing awaited. Events of a gapless stream: a wake-up says "news up to N", the hub reads the
module's own table once per stream and hands every event to each subscription in order.

Across processes both travel by the bus; without it local readers lose nothing: prices are
delivered here, and subscribed streams are read once a second.
"""

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from trading_api.kernel.clock import Clock, SystemClock
from trading_api.kernel.errors import (
    InvalidInputError,
    NotFoundError,
    TradingError,
    UnavailableError,
)
from trading_api.runtime.bus import Bus, BusUnavailableError
from trading_api.runtime.bus import Subscription as BusSubscription
from trading_api.runtime.http.wire import RequestModel
from trading_api.runtime.identity import Principal
from trading_api.runtime.ws.channel import EventChannel, PriceChannel, Snapshot, StreamEvent
from trading_api.runtime.ws.frames import Batch, Frame, Key, TopicEncoder, encode_json
from trading_api.runtime.ws.limits import CloseCode, Limits
from trading_api.runtime.ws.metrics import METRICS, Counters
from trading_api.runtime.ws.sink import Sink

log = structlog.get_logger(__name__)

READ_LIMIT = 200
"""Events per read of a stream: bounds the answer, while a burst still costs few reads."""

READERS_MAX = 4
"""Streams read at the same time; below the database pool, so requests keep connections."""

HELD_EVENTS_MAX = 2000
"""Events kept for a subscription whose snapshot is being made; over it they are read again."""

POLL_SECONDS = 1.0
"""How often subscribed streams are read while the bus is down."""

QUIET_POLLS = 30
"""While the bus is up a lost wake-up costs at most this many polls."""

INTEREST_SECONDS = 10.0
"""How long a question for a feed's remote readers keeps being asked again."""

_MakeSnapshot = Callable[[], Awaitable[Sequence[Any]]]

_NAME = re.compile(r"[A-Za-z0-9._:/=+{}-]{1,200}")


@dataclass(frozen=True, slots=True)
class Recover:
    """Where a reconnecting client stood on a topic."""

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class Opened:
    """What a new subscription is answered with.

    Attributes:
        epoch: of prices or of the stream.
        offset: where the topic stands for this client: of the snapshot, or what it recovers from;
            None for prices.
        recovered: whether what it missed follows instead of a snapshot; None if it didn't ask.
    """

    epoch: str
    offset: int | None
    recovered: bool | None


class _PriceTopic:
    __slots__ = ("encoder", "feeds", "held", "keys", "name", "renewing", "sinks", "snapshot")

    def __init__(
        self, name: str, route: str, feeds: tuple[str, ...], snapshot: _MakeSnapshot
    ) -> None:
        self.name = name
        self.feeds = feeds
        self.snapshot = snapshot
        self.renewing: dict[Key, Frame] | None = None
        self.keys: dict[str, Key] = {feed: (name, feed) for feed in feeds}
        self.encoder = TopicEncoder(route, name)
        self.sinks: dict[Sink, None] = {}
        self.held: set[PriceSubscription] = set()


class PriceSubscription:
    """One socket's subscription of a price topic."""

    __slots__ = ("channel", "held", "params", "sink", "snapshot", "topic")

    def __init__(self, channel: PriceChannel[Any], params: RequestModel, sink: Sink) -> None:
        self.channel = channel
        self.params = params
        self.sink = sink
        self.topic: _PriceTopic | None = None
        self.held: dict[Key, Frame] = {}
        self.snapshot: list[Frame] = []


class _Stream:
    __slots__ = ("generation", "is_reading", "listening", "must_look", "name", "position",
                 "reader", "readers", "wanted")  # fmt: skip

    def __init__(self, name: str, reader: EventChannel[Any]) -> None:
        self.name = name
        self.reader = reader
        self.readers: set[EventSubscription] = set()
        self.position: int | None = None
        self.wanted = 0
        self.generation = 0
        self.must_look = False
        self.is_reading = False
        self.listening: BusSubscription | None = None


class EventSubscription:
    """One socket's subscription of an event topic.

    Attributes:
        last: offset of the last frame sent on this topic, or of its snapshot.
        held: events since registration, while the snapshot is being made; None once live.
        covered_from: the held events are all those behind this offset; None until known.
    """

    __slots__ = ("channel", "covered_from", "encoder", "generation", "held", "is_resumed", "last",
                 "missed", "params", "principal", "sink", "snapshot", "stream", "topic",
                 "upto")  # fmt: skip

    def __init__(
        self,
        channel: EventChannel[Any],
        principal: Principal,
        params: RequestModel,
        topic: str,
        sink: Sink,
    ) -> None:
        self.channel = channel
        self.principal = principal
        self.params = params
        self.topic = topic
        self.sink = sink
        self.encoder = TopicEncoder(channel.route, topic)
        self.stream: _Stream | None = None
        self.held: list[StreamEvent] | None = []
        self.covered_from: int | None = None
        self.snapshot: Snapshot | None = None
        self.missed: list[StreamEvent] = []
        self.generation = 0
        self.is_resumed = False
        self.last = 0
        self.upto = 0


Subscription = PriceSubscription | EventSubscription


class Hub:
    """Carries prices and account events to the subscriptions of this process.

    Args:
        module: names the bus channels; hubs of the same module in other processes are heard.
        instance: unique among all processes that ever lived; tells our own messages apart.
        bus: None where there are no other processes.
    """

    def __init__(
        self,
        *,
        module: str,
        instance: str,
        bus: Bus | None = None,
        clock: Clock | None = None,
        limits: Limits | None = None,
        counters: Counters | None = None,
    ) -> None:
        self.module = module
        self.limits = limits or Limits()
        self.counters = counters or METRICS.counters(module)
        self._origin = instance.encode() + b" "
        # The instance's own name tells host and process id, which is nobody's business.
        self._public_name = hashlib.blake2b(instance.encode(), digest_size=8).hexdigest()
        self._bus = bus
        self._clock = clock or SystemClock()
        self._frame_prefix = f"trading:{{{module}}}:frame:v1:"
        self._wake_prefix = f"trading:{{{module}}}:wake:"
        self._topics: dict[str, _PriceTopic] = {}
        self._feeds: dict[str, dict[_PriceTopic, None]] = {}
        self._listening: dict[str, BusSubscription] = {}
        self._dirty: list[tuple[str, bytes]] = []
        self._dirty_since = 0.0
        self._streams: dict[str, _Stream] = {}
        self._readers = asyncio.Semaphore(READERS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._poller: asyncio.Task[None] | None = None
        self._polls = 0
        if bus is not None:
            bus.on_state(self._on_bus_state)
        self._interest: dict[str, float] = {}
        self._remote: dict[str, int] = {}

    async def stop(self) -> None:
        """End every task and every subscription of the bus."""
        tasks = [*self._tasks, *([self._poller] if self._poller else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._poller = None
        for listening in self._listening.values():
            listening.close()
        self._listening.clear()
        for stream in self._streams.values():
            if stream.listening is not None:
                stream.listening.close()
                stream.listening = None

    # Prices

    @property
    def price_epoch(self) -> str:
        """Return the epoch of prices: changes when the bus is lost, and with the process."""
        return self._public_name if self._bus is None else f"{self._public_name}.{self._bus.epoch}"

    def publish(self, feed: str, payload: bytes) -> None:
        """Send a price update of a feed to whoever listens, here and in other processes.

        Costs the publisher an append; it goes out at the end of this turn of the event loop,
        together with whatever else was published in it.

        Args:
            feed: such as ``quotes:DEMO:AAPL``.
            payload: the update as JSON, encoded once.
        """
        # The bus would keep it while it is away, and bring old prices behind newer ones.
        if self._bus is not None and self._bus.is_up:
            self._bus.publish(self._frame_prefix + feed, self._origin + payload)
        self._deliver(feed, payload)

    def publish_here(self, feed: str, payload: bytes) -> None:
        """Send a price update to the listeners of this process alone, without the bus.

        For feeds that every process of the module can compute for itself.
        """
        self._deliver(feed, payload)

    def listened(self) -> Collection[str]:
        """Return the feeds that somebody in this process listens to right now.

        A producer asks before it makes a frame, so that nothing is encoded for nobody.
        """
        return self._feeds.keys()

    def has_listeners(self, feed: str) -> bool:
        """Tell whether anybody listens to a feed, here or in another process.

        What other processes want is known about a second late; until it is first known the
        answer is yes.
        """
        if feed in self._feeds:
            return True
        if self._bus is None or not self._bus.is_up:
            return False
        self._interest[feed] = self._clock.monotonic()
        self._ensure_polling()
        return self._remote.get(feed, 1) > 0

    async def open_prices(
        self,
        channel: PriceChannel[Any],
        principal: Principal | None,
        params: RequestModel,
        *,
        topic: str,
        sink: Sink,
        recover: Recover | None = None,
    ) -> tuple[PriceSubscription, Opened]:
        """Register a subscription and take its snapshot; ``begin`` sets it going.

        Registered first, so that no update between the two is lost; the newest of each feed is
        held until ``begin``.

        Raises:
            UnavailableError: the module took too long.
        """
        subscription = PriceSubscription(channel, params, sink)
        feeds = tuple(dict.fromkeys(_safe(feed) for feed in channel.feeds(params)))
        # What was published before belongs to the snapshot, not behind it.
        self._flush()
        found = self._topics.get(topic)
        is_new = found is None
        if found is None:
            # What one may see all may: a topic's name holds all that its state depends on.
            make = partial(channel.snapshot, principal, params)
            found = self._topics[topic] = _PriceTopic(topic, channel.route, feeds, make)
            for feed in feeds:
                self._listen_to_feed(feed, found)
        subscription.topic = found
        found.held.add(subscription)
        self.counters.subscriptions += 1
        try:
            async with asyncio.timeout(self.limits.snapshot_timeout_seconds):
                if is_new:
                    await self._settle()
                payloads = await channel.snapshot(principal, params)
            subscription.snapshot = [found.encoder.snapshot(each) for each in payloads]
        except BaseException as error:
            self.close(subscription)
            if isinstance(error, TimeoutError):
                raise UnavailableError("the snapshot takes too long; try again") from error
            raise
        recovered = None if recover is None else False
        return subscription, Opened(self.price_epoch, None, recovered)

    # Events

    def wake(self, stream: str, sequence: int) -> None:
        """Tell that a stream has events up to ``sequence``; call it after the commit."""
        if self._bus is not None:
            self._bus.publish(self._wake_prefix + stream, self._origin + b"%d" % sequence)
        self._wake_local(stream, sequence)

    def reset(self, stream: str) -> None:
        """Tell that a stream began anew with another epoch; every reader gets a snapshot."""
        if self._bus is not None:
            self._bus.publish(self._wake_prefix + stream, self._origin + b"reset")
        self._reset_local(stream)

    async def open_events(
        self,
        channel: EventChannel[Any],
        principal: Principal,
        params: RequestModel,
        *,
        topic: str,
        sink: Sink,
        recover: Recover | None = None,
    ) -> tuple[EventSubscription, Opened]:
        """Register a subscription and take its snapshot; ``begin`` sets it going.

        Args:
            recover: where the client stood; it gets exactly what it missed, or a snapshot when
                the epoch changed, the events are gone or too many.

        Raises:
            UnavailableError: the module took too long.
        """
        subscription = EventSubscription(channel, principal, params, topic, sink)
        name = _safe(channel.stream(principal, params))
        stream = self._streams.get(name)
        is_new = stream is None
        if stream is None:
            stream = self._streams[name] = _Stream(name, channel)
            if self._bus is not None:
                stream.listening = self._bus.subscribe(self._wake_prefix + name, self._on_bus_wake)
        self._ensure_polling()
        subscription.stream = stream
        subscription.covered_from = stream.position
        stream.readers.add(subscription)
        self.counters.subscriptions += 1
        try:
            async with asyncio.timeout(self.limits.snapshot_timeout_seconds):
                if is_new:
                    await self._settle()
                recovered = await self._catch_up(subscription, stream, recover)
        except BaseException as error:
            self.close(subscription)
            if isinstance(error, TimeoutError):
                raise UnavailableError("the snapshot takes too long; try again") from error
            raise
        assert subscription.snapshot is not None
        return subscription, Opened(
            subscription.snapshot.epoch,
            subscription.last,
            None if recover is None else recovered,
        )

    # Both

    def begin(self, subscription: Subscription) -> None:
        """Send the snapshot, or what was missed, then what came meanwhile; live from now on."""
        if isinstance(subscription, PriceSubscription):
            self._begin_prices(subscription)
        else:
            self._begin_events(subscription)

    def close(self, subscription: Subscription) -> None:
        """End a subscription; the last one of a feed or stream ends its bus subscription."""
        if isinstance(subscription, PriceSubscription):
            self._close_prices(subscription)
        else:
            self._close_events(subscription)

    def is_idle(self) -> bool:
        """Tell whether nothing is subscribed, here and on the bus."""
        return not (self._topics or self._feeds or self._listening or self._streams)

    def _begin_prices(self, subscription: PriceSubscription) -> None:
        topic, sink = subscription.topic, subscription.sink
        if topic is None:
            return
        self._flush()
        for frame in subscription.snapshot:
            sink.send(frame)
        subscription.snapshot = []
        topic.held.discard(subscription)
        topic.sinks[sink] = None
        if subscription.held:
            self.counters.sent += len(subscription.held)
            sink.put(Batch(list(subscription.held.items())))
            subscription.held = {}

    def _close_prices(self, subscription: PriceSubscription) -> None:
        topic = subscription.topic
        if topic is None:
            return
        subscription.topic = None
        self.counters.subscriptions -= 1
        topic.held.discard(subscription)
        topic.sinks.pop(subscription.sink, None)
        subscription.sink.forget(topic.name)
        if topic.sinks or topic.held:
            return
        del self._topics[topic.name]
        for feed in topic.feeds:
            topics = self._feeds[feed]
            del topics[topic]
            if not topics:
                del self._feeds[feed]
                listening = self._listening.pop(feed, None)
                if listening is not None:
                    listening.close()

    def _listen_to_feed(self, feed: str, topic: _PriceTopic) -> None:
        topics = self._feeds.setdefault(feed, {})
        topics[topic] = None
        if self._bus is not None and feed not in self._listening:
            self._listening[feed] = self._bus.subscribe(
                self._frame_prefix + feed, self._on_bus_frame
            )

    def _on_bus_frame(self, channel: str, payload: bytes) -> None:
        origin, _, body = payload.partition(b" ")
        if origin == self._origin[:-1]:
            return
        self._deliver(channel[len(self._frame_prefix) :], body)

    def _deliver(self, feed: str, payload: bytes) -> None:
        if feed not in self._feeds:
            self.counters.skipped += 1
            return
        if not self._dirty:
            self._dirty_since = self._clock.monotonic()
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty.append((feed, payload))

    def _flush(self) -> None:
        """Write everything published in this turn: one batch per topic, one write per client."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, []
        items: dict[_PriceTopic, list[tuple[Key, Frame]]] = {}
        for feed, payload in dirty:
            for topic in self._feeds.get(feed, ()):
                frame = topic.encoder.update(payload)
                items.setdefault(topic, []).append((topic.keys[feed], frame))
        sent = 0
        touched: list[Sink] = []
        for topic, frames in items.items():
            if topic.renewing is not None:
                # They follow the snapshot that is being made.
                topic.renewing.update(frames)
                for subscription in topic.held:
                    subscription.held.update(frames)
                continue
            batch = Batch(frames)
            sent += len(frames) * len(topic.sinks)
            if len(items) == 1:
                for sink in topic.sinks:
                    sink.put(batch)
            else:
                touched += [sink for sink in topic.sinks if sink.gather(batch)]
            for subscription in topic.held:
                subscription.held.update(frames)
        for sink in touched:
            sink.flush()
        self.counters.sent += sent
        self.counters.observe_fanout(self._clock.monotonic() - self._dirty_since)

    def _wake_local(self, name: str, sequence: int) -> None:
        stream = self._streams.get(name)
        if stream is None:
            self.counters.skipped += 1
            return
        stream.wanted = max(stream.wanted, sequence)
        self._read_if_behind(stream)

    def _reset_local(self, name: str) -> None:
        stream = self._streams.get(name)
        if stream is not None:
            self._spawn(self._resync(stream))

    def _on_bus_wake(self, channel: str, payload: bytes) -> None:
        origin, _, what = payload.partition(b" ")
        if origin == self._origin[:-1]:
            return
        name = channel[len(self._wake_prefix) :]
        if what == b"reset":
            self._reset_local(name)
        elif what.isdigit():
            self._wake_local(name, int(what))

    def _read_if_behind(self, stream: _Stream) -> None:
        position = stream.position
        if position is None or stream.is_reading:
            return
        if stream.wanted > position or stream.must_look:
            stream.is_reading = True
            self._spawn(self._read(stream))

    async def _read(self, stream: _Stream) -> None:
        try:
            async with self._readers:
                while self._is_live(stream) and stream.position is not None:
                    stream.must_look = False
                    after = stream.position
                    events = await stream.reader.read(stream.name, after=after, limit=READ_LIMIT)
                    if stream.position != after:
                        continue
                    if not events:
                        return
                    _ensure_contiguous(events, after)
                    self._dispatch(stream, events)
                    if stream.wanted <= stream.position and len(events) < READ_LIMIT:
                        return
        except NotFoundError:
            log.warning("stream_events_gone", stream=stream.name, after=stream.position)
            self._spawn(self._resync(stream))
        except TradingError as error:
            # The poll asks again; the database is away or busy.
            self.counters.errors += 1
            log.warning("stream_read_failed", stream=stream.name, reason=error.message)
        finally:
            stream.is_reading = False
            if stream.must_look:
                self._read_if_behind(stream)

    def _dispatch(self, stream: _Stream, events: Sequence[StreamEvent]) -> None:
        for event in events:
            payload: bytes | None = None
            made: dict[tuple[str, int], Frame] = {}
            for subscription in stream.readers:
                if subscription.channel.route != event.route:
                    continue
                if subscription.held is not None:
                    subscription.held.append(event)
                    if len(subscription.held) > HELD_EVENTS_MAX:
                        subscription.held.clear()
                        subscription.covered_from = event.offset
                    continue
                if event.offset <= subscription.upto:
                    continue
                if payload is None:
                    payload = encode_json(event.payload)
                key = (subscription.topic, subscription.last)
                frame = made.get(key)
                if frame is None:
                    frame = made[key] = subscription.encoder.event(
                        payload, offset=event.offset, previous_offset=subscription.last
                    )
                subscription.sink.send(frame)
                subscription.last = event.offset
            stream.position = event.offset

    async def _catch_up(
        self, subscription: EventSubscription, stream: _Stream, recover: Recover | None
    ) -> bool:
        """Take the snapshot and the events up to where the held ones begin."""
        channel = subscription.channel
        subscription.generation = stream.generation
        snapshot = await channel.snapshot(subscription.principal, subscription.params)
        subscription.snapshot = snapshot
        subscription.last = subscription.upto = snapshot.offset
        subscription.missed = []
        is_resumable = (
            recover is not None
            and recover.epoch == snapshot.epoch
            and snapshot.offset - self.limits.recovered_events_max
            <= recover.offset
            <= snapshot.offset
        )
        if recover is not None and is_resumable:
            try:
                missed = await self._events_between(stream, recover.offset, snapshot.offset)
            except NotFoundError:
                is_resumable = False
            else:
                subscription.missed = missed
                subscription.last = recover.offset
        while (subscription.covered_from or 0) > subscription.upto:
            target = subscription.covered_from or 0
            subscription.missed += await self._events_between(stream, subscription.upto, target)
            subscription.upto = target
        subscription.is_resumed = is_resumable
        return is_resumable

    async def _events_between(self, stream: _Stream, after: int, upto: int) -> list[StreamEvent]:
        """Return every event in (after, upto].

        Raises:
            NotFoundError: some of them are gone.
        """
        found: list[StreamEvent] = []
        while after < upto:
            limit = min(READ_LIMIT, upto - after)
            events = await stream.reader.read(stream.name, after=after, limit=limit)
            if not events:
                raise NotFoundError("events of this stream are missing")
            _ensure_contiguous(events, after)
            found += [event for event in events if event.offset <= upto]
            after = events[-1].offset
        return found

    def _begin_events(self, subscription: EventSubscription) -> None:
        stream, snapshot = subscription.stream, subscription.snapshot
        held = subscription.held
        if stream is None or snapshot is None or held is None:
            return
        if subscription.generation != stream.generation:
            # The stream began anew while this snapshot was made.
            self._spawn(self._renew(stream, [subscription]))
            return
        sink, encoder = subscription.sink, subscription.encoder
        if not subscription.is_resumed:
            sink.send(
                encoder.snapshot(snapshot.payload, epoch=snapshot.epoch, offset=snapshot.offset)
            )
        later = [event for event in held if event.offset > subscription.upto]
        for event in (*subscription.missed, *later):
            if event.route == subscription.channel.route:
                sink.send(
                    encoder.event(
                        encode_json(event.payload),
                        offset=event.offset,
                        previous_offset=subscription.last,
                    )
                )
                subscription.last = event.offset
        subscription.held = None
        subscription.missed = []
        subscription.snapshot = None
        if stream.position is None:
            stream.position = subscription.upto
            for other in stream.readers:
                if other.held is not None and other.covered_from is None:
                    other.covered_from = stream.position
        self._read_if_behind(stream)

    def _close_events(self, subscription: EventSubscription) -> None:
        stream = subscription.stream
        if stream is None:
            return
        subscription.stream = None
        self.counters.subscriptions -= 1
        stream.readers.discard(subscription)
        if stream.readers:
            return
        if self._is_live(stream):
            del self._streams[stream.name]
        if stream.listening is not None:
            stream.listening.close()
            stream.listening = None
        if not self._streams and not self._interest and self._poller is not None:
            self._poller.cancel()
            self._poller = None

    async def _resync(self, stream: _Stream) -> None:
        """Give every reader of a stream a fresh snapshot: its events can't be told one by one."""
        stream.generation += 1
        stream.position = None
        stream.wanted = 0
        # Those whose snapshot is being made see the generation when they begin.
        readers = [each for each in stream.readers if each.held is None]
        for subscription in readers:
            subscription.held = []
        await self._renew(stream, readers)

    async def _renew(self, stream: _Stream, readers: Sequence[EventSubscription]) -> None:
        for subscription in readers:
            if subscription.stream is None:
                continue
            subscription.held = []
            subscription.covered_from = stream.position
            try:
                async with self._readers:
                    await self._catch_up(subscription, stream, None)
            except TradingError as error:
                self.counters.errors += 1
                log.warning("stream_renewal_failed", stream=stream.name, reason=error.message)
                subscription.sink.close(
                    CloseCode.SERVER_FAULT, "the stream can't be continued; subscribe again"
                )
            else:
                self._begin_events(subscription)

    def _on_bus_state(self, is_up: bool) -> None:
        if is_up:
            self._look_at_all()
            for topic in self._topics.values():
                self._spawn(self._renew_prices(topic))

    async def _renew_prices(self, topic: _PriceTopic) -> None:
        """Tell a topic's readers the present prices: the bus may have lost the newest ones."""
        async with self._readers:
            await self._settle()
            if topic.renewing is not None or self._topics.get(topic.name) is not topic:
                return
            # What was published before belongs to the snapshot, not behind it.
            self._flush()
            topic.renewing = {}
            frames: list[Frame] = []
            try:
                async with asyncio.timeout(self.limits.snapshot_timeout_seconds):
                    frames = [topic.encoder.snapshot(each) for each in await topic.snapshot()]
            except (TradingError, TimeoutError):
                # The next change tells them.
                self.counters.errors += 1
                log.warning("prices_not_renewed", topic=topic.name, exc_info=True)
            finally:
                self._flush()
                later, topic.renewing = topic.renewing, None
        batch = Batch(list(later.items())) if later else None
        self.counters.sent += len(later) * len(topic.sinks)
        for sink in topic.sinks:
            # What still waits for a slow reader is older than the snapshot.
            sink.forget(topic.name)
            for frame in frames:
                sink.send(frame)
            if batch is not None:
                sink.put(batch)

    def _look_at_all(self) -> None:
        for stream in list(self._streams.values()):
            stream.must_look = True
            self._read_if_behind(stream)

    def _ensure_polling(self) -> None:
        """Poll while there is something to look after; an idle hub has no task."""
        if self._poller is None or self._poller.done():
            work = self._poll_while_needed()
            self._poller = asyncio.get_running_loop().create_task(work)

    async def _poll_while_needed(self) -> None:
        while self._streams or self._interest:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.poll()
            except Exception:
                self.counters.errors += 1
                log.exception("hub_poll_failed", module=self.module)

    async def poll(self) -> None:
        """Look at streams whose wake-ups the bus may have lost; done every second."""
        self._polls += 1
        bus = self._bus
        if bus is not None and (not bus.is_up or self._polls % QUIET_POLLS == 0):
            self._look_at_all()
        for stream in list(self._streams.values()):
            # A read that failed, or found less than a wake-up told of, is done again.
            self._read_if_behind(stream)
        if bus is not None and self._interest:
            await self._ask_for_remote_listeners(bus)

    async def _ask_for_remote_listeners(self, bus: Bus) -> None:
        since = self._clock.monotonic() - INTEREST_SECONDS
        for feed in [feed for feed, at in self._interest.items() if at < since]:
            del self._interest[feed]
            self._remote.pop(feed, None)
        names = {self._frame_prefix + feed: feed for feed in self._interest}
        counts = await bus.count_subscribers(names)
        self._remote = {feed: counts.get(name, 0) for name, feed in names.items()}

    async def _settle(self) -> None:
        """Wait until the bus knows what we listen to, so that nothing is lost in between."""
        if self._bus is not None and self._bus.is_up:
            try:
                await self._bus.settle()
            except BusUnavailableError:
                log.debug("bus_did_not_settle", module=self.module)

    def _is_live(self, stream: _Stream) -> bool:
        return self._streams.get(stream.name) is stream

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.counters.errors += 1
            log.error("hub_task_failed", module=self.module, exc_info=task.exception())


def _ensure_contiguous(events: Sequence[StreamEvent], after: int) -> None:
    for event in events:
        if event.offset != after + 1:
            raise NotFoundError("events of this stream are missing", after=after)
        after = event.offset


def _safe(name: str) -> str:
    """Refuse names that the bus would read as a pattern; parts of them come from clients."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError("there can be no topic of this name")
    return name
