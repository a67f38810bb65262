"""One raw connection to Valkey or Redis: commands out, replies back in order.

The protocol is spoken here with hiredis alone: a message read or written this way costs about a
fifth of what a general client takes for it, and prices are most of what a process reads.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis

from trading_api.kernel.errors import ErrorCode, UnavailableError

COMMAND_SECONDS = 0.25
"""No caller waits longer for an answer; the database goes on without the bus."""

_WRITE_BUFFER_BYTES = 1 << 20

Word = str | bytes | int
Push = Callable[[list[Any]], None]


class BusErrorCode(ErrorCode):
    """Stable codes of this room."""

    UNAVAILABLE = "platform.bus.unavailable"


class BusUnavailableError(UnavailableError):
    """The bus is away or didn't answer in time; whether it acted is unknown."""

    code = BusErrorCode.UNAVAILABLE
    title = "Bus unavailable"


class BusCommandError(Exception):
    """The server refused a command: ours is wrong, or its state isn't what we thought."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the server is and how to sign in.

    Attributes:
        path: Unix socket; "" for TCP.
        database: number of the logical database.
    """

    path: str
    host: str
    port: int
    is_tls: bool
    username: str
    password: str
    database: int

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read ``redis://``, ``rediss://`` or ``unix://``.

        Raises:
            ValueError: another scheme, or no socket path.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss", "unix"):
            raise ValueError("the bus needs a URL of redis://, rediss:// or unix://")
        is_unix = parts.scheme == "unix"
        if is_unix and not parts.path:
            raise ValueError("a unix:// URL of the bus needs a path")
        number = parse_qs(parts.query).get("db", [""])[0]
        if not number and not is_unix:
            number = parts.path.strip("/")
        return cls(
            path=unquote(parts.path) if is_unix else "",
            host=parts.hostname or "localhost",
            port=parts.port or 6379,
            is_tls=parts.scheme == "rediss",
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=int(number or 0),
        )


class Link(asyncio.Protocol):
    """A connection; made by ``connect``, ended by ``abort`` or by the server.

    Args:
        on_push: gets what the server sends unasked (messages of subscriptions).
    """

    def __init__(self, on_push: Push | None = None) -> None:
        self._on_push = on_push
        self._reader = hiredis.Reader()
        self._waiting: deque[asyncio.Future[Any] | None] = deque()
        self._transport: asyncio.WriteTransport | None = None
        self._loop = asyncio.get_running_loop()
        self.lost = asyncio.Event()
        self.can_write = False
        self.on_resume: Callable[[], None] | None = None

    async def call(self, *command: Word, timeout_seconds: float = COMMAND_SECONDS) -> Any:
        """Send one command and return its reply.

        Raises:
            BusUnavailableError: no reply in time, or the connection broke.
            BusCommandError: the server refused it.
        """
        reply = (await self.calls([command], timeout_seconds=timeout_seconds))[0]
        if isinstance(reply, hiredis.ReplyError):
            raise BusCommandError(str(reply))
        return reply

    async def calls(
        self, commands: Sequence[Sequence[Word]], *, timeout_seconds: float = COMMAND_SECONDS
    ) -> list[Any]:
        """Send commands in one write; refusals come back as ``hiredis.ReplyError`` in their place.

        Raises:
            BusUnavailableError: not all replies came in time, or the connection broke.
        """
        if not commands:
            return []
        if self._transport is None or self.lost.is_set():
            raise unavailable()
        replies: list[asyncio.Future[Any]] = [self._loop.create_future() for _ in commands]
        self._waiting.extend(replies)
        self._transport.write(b"".join([pack(*command) for command in commands]))

        # Not asyncio.timeout: in a loop that was held up it fires although the reply is there.
        def expire() -> None:
            if not last.done():
                last.set_exception(unavailable())

        last = replies[-1]
        timer = self._loop.call_later(timeout_seconds, expire)
        try:
            await last
        finally:
            timer.cancel()
            for each in replies:
                each.cancel()
        return [each.result() for each in replies]

    def write_unanswered(self, packed: Sequence[bytes]) -> None:
        """Send packed commands whose replies nobody reads."""
        if self._transport is None or self.lost.is_set():
            return
        self._waiting.extend(repeat(None, len(packed)))
        self._transport.write(b"".join(packed))

    def write_pushed(self, *command: Word) -> None:
        """Send a command that the server answers by pushes, such as SUBSCRIBE."""
        if self._transport is not None and not self.lost.is_set():
            self._transport.write(pack(*command))

    def abort(self) -> None:
        """Close without waiting for anything."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; called by the event loop."""
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self.can_write = True

    def pause_writing(self) -> None:
        """Note that the server reads too slowly."""
        self.can_write = False

    def resume_writing(self) -> None:
        """Note that the server reads again."""
        self.can_write = True
        if self.on_resume is not None:
            self.on_resume()

    def data_received(self, data: bytes) -> None:
        """Hand replies to their callers and pushes to the callback."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.PushNotification):
                    if self._on_push is not None:
                        self._on_push(reply)
                    continue
                waiting = self._waiting.popleft()
                if waiting is not None and not waiting.done():
                    waiting.set_result(reply)
        except (hiredis.ProtocolError, IndexError):
            # Not our protocol, or a reply nobody asked for: nothing after it can be trusted.
            self.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        """Fail whoever waits."""
        self.can_write = False
        self.lost.set()
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting is not None and not waiting.done():
                waiting.set_exception(unavailable())
                # Of a pipeline only the last reply is awaited; the others must not complain.
                waiting.exception()


async def connect(
    address: Address, *, on_push: Push | None = None, timeout_seconds: float = 1.0
) -> Link:
    """Connect, sign in, choose the database and see one answer.

    Raises:
        BusUnavailableError: the server is away, frozen, still loading or refuses us.
    """
    loop = asyncio.get_running_loop()

    def make() -> Link:
        return Link(on_push)

    link: Link | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            if address.path:
                _, link = await loop.create_unix_connection(make, address.path)
            else:
                tls = ssl.create_default_context() if address.is_tls else None
                _, link = await loop.create_connection(make, address.host, address.port, ssl=tls)
            for command in _greeting(address, wants_pushes=on_push is not None):
                await link.call(*command, timeout_seconds=timeout_seconds)
    except (OSError, TimeoutError, BusCommandError, BusUnavailableError) as error:
        if link is not None:
            link.abort()
        raise unavailable(str(error)) from error
    except BaseException:
        if link is not None:
            link.abort()
        raise
    return link


def pack(*command: Word) -> bytes:
    """Encode one command."""
    # Its annotation takes a tuple for one element.
    return cast("bytes", hiredis.pack_command(command))  # type: ignore[arg-type]


def unavailable(reason: str = "") -> BusUnavailableError:
    """Return the error of a bus that isn't there."""
    return BusUnavailableError("the bus does not answer", retry_after_seconds=1, reason=reason)


def _greeting(address: Address, *, wants_pushes: bool) -> list[tuple[Word, ...]]:
    commands: list[tuple[Word, ...]] = []
    if address.password:
        user = (address.username,) if address.username else ()
        commands.append(("AUTH", *user, address.password))
    if wants_pushes:
        # With protocol 3 messages are marked as such and never mistaken for replies.
        commands.append(("HELLO", 3))
    if address.database:
        commands.append(("SELECT", address.database))
    commands.append(("PING",))
    return commands
