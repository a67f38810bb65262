"""A process's connections to Valkey or Redis: redis-py's, kept alive and never waited for long."""

import asyncio
import contextlib
import math
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import DecorrelatedJitterBackoff
from redis.connection import HiredisRespSerializer
from redis.exceptions import RedisError, ResponseError

from trading_api.kernel.errors import ErrorCode, UnavailableError
from trading_api.runtime.bus import metrics

log = structlog.get_logger("bus")

Callback = Callable[[str, bytes], None]
Word = str | bytes | int
T = TypeVar("T")

COMMAND_SECONDS = 0.25
"""No caller waits longer for an answer; the database goes on without the bus."""

QUEUE_SIZE_MAX = 10_000
"""Messages that wait while the server is away or slow; beyond it the oldest go."""

CONNECTIONS_MAX = 32
"""Calls at a time; more wait for their turn within their own time limit."""

BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 5.0
CONNECT_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0

_pack: Callable[..., list[bytes]] = HiredisRespSerializer().pack


class BusErrorCode(ErrorCode):
    """Stable codes of this room."""

    UNAVAILABLE = "platform.bus.unavailable"


class BusUnavailableError(UnavailableError):
    """The bus is away or didn't answer in time; whether it acted is unknown."""

    code = BusErrorCode.UNAVAILABLE
    title = "Bus unavailable"


class BusCommandError(Exception):
    """The server refused a command: ours is wrong, or its state isn't what we thought."""


class Subscription:
    """A standing subscription; ends with ``close``."""

    __slots__ = ("_bus", "_callback", "pattern")

    def __init__(self, bus: "Bus", pattern: str, callback: Callback) -> None:
        self._bus = bus
        self._callback = callback
        self.pattern = pattern

    def close(self) -> None:
        """Stop listening; harmless when repeated."""
        self._bus.unsubscribe(self.pattern, self._callback)


class Bus:
    """Publishes and listens; survives the server's absence.

    Two connections are kept, one to publish and one to listen, and made anew after a loss with a
    back-off of 0.1 to 5 s: on a single one, with RESP3, the server sets aside 16 KiB for each
    message that a client sends itself. Calls take theirs from a pool, and may block.

    Args:
        url: ``redis://…``, ``rediss://…`` or ``unix://…``, with redis-py's options.

    Raises:
        ValueError: the URL can't be read.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Times are limited here, for a whole call; redis-py would limit each read.
        options: dict[str, Any] = {
            "max_connections": CONNECTIONS_MAX,
            "timeout": None,
            "socket_connect_timeout": CONNECT_SECONDS,
            **parse_url(url),
            "socket_timeout": None,
            "protocol": 2,
            "decode_responses": False,
            # Telling the server redis-py's version costs 5 ms on each attempt: its metadata is
            # read anew.
            "driver_info": None,
        }
        self._pool = BlockingConnectionPool(**options)
        self._client = Redis.from_pool(self._pool)
        # Replies as the server sends them, whatever redis-py makes of a command's.
        self._client.response_callbacks.clear()
        self._backoff = DecorrelatedJitterBackoff(cap=BACKOFF_SECONDS_MAX, base=BACKOFF_SECONDS_MIN)
        self._callbacks: dict[str, list[Callback]] = {}
        self._are_callbacks_new = False
        self._queue: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._asked: asyncio.Event | None = None
        self._task: asyncio.Task[None] | None = None
        self._state_callbacks: list[Callable[[bool], None]] = []
        self._up = asyncio.Event()
        self._epoch = secrets.token_hex(8)

    @property
    def is_up(self) -> bool:
        """Tell whether the server answered lately, to messages and to calls."""
        return self._up.is_set()

    @property
    def epoch(self) -> str:
        """An opaque name for the time in which no message was lost; anew after each loss."""
        return self._epoch

    async def start(self) -> None:
        """Connect in the background; returns at once, the server may come later."""
        if self._task is None:
            # Whatever ends a connection, a mistake of ours too, is followed by the next one.
            retry = Retry(self._backoff, -1, supported_errors=(Exception,))  # type: ignore[arg-type]
            self._task = asyncio.create_task(
                retry.call_with_retry(self._live, self._note_loss), name="bus"
            )

    async def stop(self) -> None:
        """Send what is queued and close every connection."""
        if self._task is None:
            return
        with contextlib.suppress(BusUnavailableError):
            # A round trip: what was written before it has arrived.
            await self.settle()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        with contextlib.suppress(RedisError):
            await self._client.aclose()

    async def wait_until_up(self) -> None:
        """Wait for the server, for ever if it never comes."""
        await self._up.wait()

    def on_state(self, callback: Callable[[bool], None]) -> None:
        """Call back with True when the bus comes up and with False when it is lost."""
        self._state_callbacks.append(callback)

    def publish(self, channel: str, payload: bytes) -> None:
        """Queue a message for the next batch; never raises, never waits.

        Messages keep their order. While the server is away the newest 10,000 are kept.
        """
        if len(self._queue) >= QUEUE_SIZE_MAX:
            self._queue.popleft()
            metrics.BUS_DROPPED.inc()
        self._queue += _pack("PUBLISH", channel, payload)
        self._wake.set()

    def subscribe(self, pattern: str, callback: Callback) -> Subscription:
        """Call back in the event loop for each message; kept over reconnects.

        Args:
            pattern: a channel's name, or with ``*``, ``?`` or ``[`` a pattern of names.
            callback: gets the channel and the payload; must be quick and not wait.
        """
        callbacks = self._callbacks.setdefault(pattern, [])
        callbacks.append(callback)
        if len(callbacks) == 1:
            self._are_callbacks_new = True
            self._wake.set()
        return Subscription(self, pattern, callback)

    def unsubscribe(self, pattern: str, callback: Callback) -> None:
        """Take one callback off; see ``Subscription.close``."""
        callbacks = self._callbacks.get(pattern, [])
        if callback not in callbacks:
            return
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[pattern]
            self._are_callbacks_new = True
            self._wake.set()

    async def settle(self) -> None:
        """Wait until the server knows every subscription made so far and has what was published.

        Raises:
            BusUnavailableError: the bus is away.
        """
        self._ensure_up()
        await _answer_of(self._ping(), COMMAND_SECONDS)

    async def count_subscribers(self, channels: Iterable[str]) -> dict[str, int]:
        """Count who listens to each channel by its exact name, in all processes.

        While the server doesn't answer, only this process's own subscriptions are counted.
        Subscriptions by pattern are not.
        """
        names = list(channels)
        if not names:
            return {}
        try:
            reply = await self.call("PUBSUB", "NUMSUB", *names)
        except (BusUnavailableError, BusCommandError):
            return {name: len(self._callbacks.get(name, ())) for name in names}
        return dict(zip(names, reply[1::2], strict=True))

    async def call(self, *command: Word, timeout_seconds: float = COMMAND_SECONDS) -> Any:
        """Send one command, which may block, and return its reply as RESP2 has it.

        Raises:
            BusUnavailableError: away, or no answer within ``timeout_seconds``.
            BusCommandError: the server refused it.
        """
        self._ensure_up()
        work = self._client.execute_command(*command)  # type: ignore[no-untyped-call]
        return await _answer_of(work, timeout_seconds)

    async def calls(
        self, commands: Sequence[Sequence[Word]], *, timeout_seconds: float = COMMAND_SECONDS
    ) -> list[Any]:
        """Send commands in one batch; a refusal comes back as a ``ResponseError`` in its place.

        Raises:
            BusUnavailableError: away, or not all answers within ``timeout_seconds``.
        """
        self._ensure_up()
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        work: Coroutine[Any, Any, list[Any]] = pipeline.execute(raise_on_error=False)
        return await _answer_of(work, timeout_seconds)

    def _ensure_up(self) -> None:
        if not self.is_up:
            raise _unavailable()

    async def _live(self) -> None:
        """Connect, publish and listen; returns by an exception only."""
        make: Callable[[], AbstractConnection] = self._pool.make_connection
        publishing, listening = make(), make()
        pongs = asyncio.Semaphore(0)
        try:
            for connection in (publishing, listening):
                work = connection.connect()  # type: ignore[no-untyped-call]
                await _answer_of(work, CONNECT_SECONDS)
            self._are_callbacks_new = True
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._read(publishing, pongs))
                    group.create_task(self._read(listening, pongs))
                    group.create_task(self._write(publishing, listening, pongs))
                    await self._keep_asking()
            finally:
                self._epoch = secrets.token_hex(8)
                metrics.BUS_EPOCHS.inc()
        finally:
            await publishing.disconnect(nowait=True)
            await listening.disconnect(nowait=True)
            self._set_up(False)

    async def _note_loss(self, error: Exception) -> None:
        causes = error.exceptions if isinstance(error, ExceptionGroup) else (error,)
        if all(isinstance(cause, RedisError | BusUnavailableError) for cause in causes):
            log.debug("bus_lost", reasons=[str(cause) for cause in causes])
        else:
            log.error("bus_failed", exc_info=error)

    async def _read(self, connection: AbstractConnection, pongs: asyncio.Semaphore) -> None:
        while True:
            try:
                reply = await connection.read_response(timeout=math.inf, disconnect_on_error=False)
            except ResponseError as error:
                log.warning("bus_refused", reason=str(error))
                continue
            if isinstance(reply, int):  # how many have heard what was published
                continue
            if reply == b"PONG" or reply[0] == b"pong":
                pongs.release()
            else:
                self._on_message(reply)

    async def _write(
        self,
        publishing: AbstractConnection,
        listening: AbstractConnection,
        pongs: asyncio.Semaphore,
    ) -> None:
        known: set[str] = set()
        while True:
            asked, self._asked = self._asked, None
            ping = _pack("PING") if asked else []
            if asked or self._are_callbacks_new:
                self._are_callbacks_new = False
                wanted = set(self._callbacks)
                gone = _change("UNSUBSCRIBE", known - wanted)
                added = _change("SUBSCRIBE", wanted - known)
                known = wanted
                await listening.send_packed_command(gone + added + ping)
            if asked or self._queue:
                batch = [*self._queue, *ping]
                metrics.BUS_PUBLISHED.inc(len(self._queue))
                self._queue.clear()
                await publishing.send_packed_command(batch)
            if asked:
                await pongs.acquire()
                await pongs.acquire()
                asked.set()
            await self._wake.wait()
            self._wake.clear()

    async def _ping(self) -> None:
        """Wait until the server has answered on both connections to all that was to be sent."""
        if self._asked is None:
            self._asked = asyncio.Event()
            self._wake.set()
        await self._asked.wait()

    async def _keep_asking(self) -> None:
        """Be up for as long as the server answers; returns by an exception only."""
        while True:
            await _answer_of(self._ping(), HEARTBEAT_SECONDS)
            await _answer_of(self._client.ping(), HEARTBEAT_SECONDS)
            self._backoff.reset()
            self._set_up(True)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _set_up(self, is_up: bool) -> None:
        if is_up == self._up.is_set():
            return
        metrics.BUS_UP.set(is_up)
        if is_up:
            self._up.set()
            log.info("bus_up")
        else:
            self._up.clear()
            log.warning("bus_down")
        for callback in self._state_callbacks:
            try:
                callback(is_up)
            except Exception:
                log.exception("bus_state_callback_failed")

    def _on_message(self, reply: list[Any]) -> None:
        kind = reply[0]
        if kind == b"message":
            pattern = channel = reply[1].decode()
        elif kind == b"pmessage":
            pattern, channel = reply[1].decode(), reply[2].decode()
        else:
            return
        metrics.BUS_RECEIVED.inc()
        for callback in tuple(self._callbacks.get(pattern, ())):
            try:
                callback(channel, reply[-1])
            except Exception:
                log.exception("bus_callback_failed", channel=channel)


async def _answer_of(work: Awaitable[T], timeout_seconds: float) -> T:
    """Return what the server answers within a time.

    Raises:
        BusUnavailableError: no answer, or no connection.
        BusCommandError: the server refused the command.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=timeout_seconds * 0.9)
        if not task.done():
            # A loop that was held up finds the time over before it reads what came meanwhile.
            await asyncio.wait((task,), timeout=timeout_seconds * 0.1)
        if not task.done():
            raise _unavailable(f"no answer within {timeout_seconds} s")
        return task.result()
    except ResponseError as error:
        raise BusCommandError(str(error)) from error
    except RedisError as error:
        raise _unavailable(str(error)) from error
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _unavailable(reason: str = "") -> BusUnavailableError:
    return BusUnavailableError("the bus does not answer", retry_after_seconds=1, reason=reason)


def _change(verb: str, patterns: Iterable[str]) -> list[bytes]:
    packed: list[bytes] = []
    for pattern in patterns:
        is_name = not any(sign in pattern for sign in "*?[")
        packed += _pack(verb if is_name else f"P{verb}", pattern)
    return packed
