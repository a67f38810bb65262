"""A process's connection to Valkey or Redis."""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog

from trading_api.runtime.bus import metrics
from trading_api.runtime.bus.link import (
    COMMAND_SECONDS,
    Address,
    BusCommandError,
    BusUnavailableError,
    Link,
    Word,
    connect,
    pack,
    unavailable,
)

log = structlog.get_logger("bus")

Callback = Callable[[str, bytes], None]

QUEUE_SIZE_MAX = 10_000
"""Messages that wait while the server is away or slow; beyond it the oldest go."""

BACKOFF_SECONDS_MIN = 0.1
BACKOFF_SECONDS_MAX = 5.0
HEARTBEAT_SECONDS = 1.0
FAILURES_MAX = 5
"""Calls in a row without an answer after which the server counts as away."""


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

    Two connections are kept, each made anew after a loss with a back-off of 0.1 to 5 s: one for
    commands and publishing, one for subscriptions.

    Args:
        url: ``redis://…``, ``rediss://…`` or ``unix://…``.

    Raises:
        ValueError: the URL can't be read.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._address = Address.parse(url)
        self._commands: Link | None = None
        self._listener: Link | None = None
        self._callbacks: dict[str, list[Callback]] = {}
        self._queue: deque[bytes] = deque()
        self._is_flush_due = False
        self._failures = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._state_callbacks: list[Callable[[bool], None]] = []
        self._up = asyncio.Event()
        self._epoch = secrets.token_hex(8)

    @property
    def is_up(self) -> bool:
        """Tell whether the server answered lately, on both connections."""
        return self._up.is_set()

    @property
    def epoch(self) -> str:
        """An opaque name for the time in which no message was lost; anew after each loss."""
        return self._epoch

    async def start(self) -> None:
        """Connect in the background; returns at once, the server may come later."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(self._keep_commands(), name="bus-commands"),
                asyncio.create_task(self._keep_listener(), name="bus-listener"),
            ]

    async def stop(self) -> None:
        """Send what is queued and close every connection."""
        self._flush()
        if self._commands is not None and self.is_up:
            # A round trip: what was written before it has arrived.
            await asyncio.gather(self.call("PING"), return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def wait_until_up(self) -> None:
        """Wait for both connections, for ever if the server never comes."""
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
        self._queue.append(pack(b"PUBLISH", channel, payload))
        if not self._is_flush_due and self._commands is not None:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def subscribe(self, pattern: str, callback: Callback) -> Subscription:
        """Call back in the event loop for each message; kept over reconnects.

        Args:
            pattern: a channel's name, or with ``*``, ``?`` or ``[`` a pattern of names.
            callback: gets the channel and the payload; must be quick and not wait.
        """
        callbacks = self._callbacks.setdefault(pattern, [])
        callbacks.append(callback)
        if len(callbacks) == 1 and self._listener is not None:
            self._listener.write_pushed(_verb("SUBSCRIBE", pattern), pattern)
        return Subscription(self, pattern, callback)

    def unsubscribe(self, pattern: str, callback: Callback) -> None:
        """Take one callback off; see ``Subscription.close``."""
        callbacks = self._callbacks.get(pattern, [])
        if callback not in callbacks:
            return
        callbacks.remove(callback)
        if not callbacks:
            del self._callbacks[pattern]
            if self._listener is not None:
                self._listener.write_pushed(_verb("UNSUBSCRIBE", pattern), pattern)

    async def settle(self) -> None:
        """Wait until the server knows every subscription made so far and has what was published.

        Raises:
            BusUnavailableError: the bus is away.
        """
        self._flush()
        if self._listener is None:
            raise unavailable()
        await self._listener.call("PING")
        await self.call("PING")

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
        """Send one command and return its reply.

        Raises:
            BusUnavailableError: away, or no answer within ``timeout_seconds``.
            BusCommandError: the server refused it.
        """
        link = self._available()
        try:
            reply = await link.call(*command, timeout_seconds=timeout_seconds)
        except BusUnavailableError:
            self._note_failure(link)
            raise
        self._failures = 0
        return reply

    async def calls(
        self, commands: Sequence[Sequence[Word]], *, timeout_seconds: float = COMMAND_SECONDS
    ) -> list[Any]:
        """Send commands in one batch; a refusal comes back as ``hiredis.ReplyError`` in its place.

        Raises:
            BusUnavailableError: away, or not all answers within ``timeout_seconds``.
        """
        link = self._available()
        try:
            replies = await link.calls(commands, timeout_seconds=timeout_seconds)
        except BusUnavailableError:
            self._note_failure(link)
            raise
        self._failures = 0
        return replies

    async def open_link(self) -> Link:
        """Open a connection of one's own, for commands that block; the caller aborts it.

        Raises:
            BusUnavailableError: the server is away.
        """
        return await connect(self._address)

    def _available(self) -> Link:
        if self._commands is None or self._commands.lost.is_set():
            raise unavailable()
        return self._commands

    def _note_failure(self, link: Link) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            link.abort()

    def _flush(self) -> None:
        self._is_flush_due = False
        link = self._commands
        if link is None or not self._queue or not link.can_write:
            return
        metrics.BUS_PUBLISHED.inc(len(self._queue))
        link.write_unanswered(tuple(self._queue))
        self._queue.clear()

    async def _keep_commands(self) -> None:
        def gained(link: Link) -> None:
            self._failures = 0
            self._commands = link
            link.on_resume = self._flush
            self._flush()

        def lost() -> None:
            self._commands = None

        await self._keep(lambda: connect(self._address), gained, lost)

    async def _keep_listener(self) -> None:
        def gained(link: Link) -> None:
            self._listener = link
            for verb, names in self._by_verb().items():
                link.write_pushed(verb, *names)

        def lost() -> None:
            self._listener = None
            self._epoch = secrets.token_hex(8)
            metrics.BUS_EPOCHS.inc()

        await self._keep(lambda: connect(self._address, on_push=self._on_push), gained, lost)

    async def _keep(
        self,
        open_link: Callable[[], Any],
        gained: Callable[[Link], None],
        lost: Callable[[], None],
    ) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            try:
                link: Link = await open_link()
            except BusUnavailableError as error:
                log.debug("bus_connect_failed", reason=error.context.get("reason"))
                # Jitter, so that a fleet doesn't come back in one instant.
                await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311
                backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)
                continue
            backoff_seconds = BACKOFF_SECONDS_MIN
            try:
                gained(link)
                self._note_state()
                await self._watch(link)
            finally:
                link.abort()
                lost()
                self._note_state()

    async def _watch(self, link: Link) -> None:
        """Return when the connection is lost or the server doesn't answer on it."""
        while not link.lost.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await link.lost.wait()
            except TimeoutError:
                try:
                    await link.call("PING", timeout_seconds=HEARTBEAT_SECONDS)
                except (BusUnavailableError, BusCommandError):
                    return

    def _note_state(self) -> None:
        is_up = self._commands is not None and self._listener is not None
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

    def _by_verb(self) -> dict[str, list[str]]:
        verbs: dict[str, list[str]] = {}
        for pattern in self._callbacks:
            verbs.setdefault(_verb("SUBSCRIBE", pattern), []).append(pattern)
        return verbs

    def _on_push(self, push: list[Any]) -> None:
        kind = push[0]
        if kind == b"message":
            pattern = channel = push[1].decode()
        elif kind == b"pmessage":
            pattern, channel = push[1].decode(), push[2].decode()
        else:
            return
        metrics.BUS_RECEIVED.inc()
        for callback in tuple(self._callbacks.get(pattern, ())):
            try:
                callback(channel, push[-1])
            except Exception:
                log.exception("bus_callback_failed", channel=channel)


def _verb(verb: str, pattern: str) -> str:
    return f"P{verb}" if any(sign in pattern for sign in "*?[") else verb
