"""A WebSocket client for tests that checks every frame it sees.

A frame whose ``previous_offset`` isn't the last offset seen on its topic is a hole and fails the
test, and so does an offset that doesn't grow. Works in-process on an ASGI callable, where the
reader can be stalled, and over the network.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

TIMEOUT_SECONDS = 10.0
"""Longer than any answer takes on a busy machine; a test that waits it out has failed."""


class SocketClosedError(Exception):
    """The server closed the socket."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class HandshakeRefusedError(Exception):
    """The server answered the handshake with an HTTP response."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"{status} {body[:200]!r}")
        self.status = status
        self.headers = headers
        self.body = body


class Link(Protocol):
    """A connection that carries text both ways."""

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        ...

    async def receive(self) -> str:
        """Return the next text; raises SocketClosedError."""
        ...

    async def close(self) -> None:
        """Close from this side."""
        ...


class SocketClient:
    """Speaks the platform's envelope and checks the order of what arrives.

    Attributes:
        frames: every frame received so far, decoded.
        last_offsets: by topic, the offset of the newest frame.
        subprotocol: what the server chose.
    """

    def __init__(self, link: Link, *, subprotocol: str | None = None) -> None:
        self.link = link
        self.subprotocol = subprotocol
        self.frames: list[dict[str, Any]] = []
        self.last_offsets: dict[str, int] = {}
        self._unread: deque[dict[str, Any]] = deque()
        self._next_id = 0

    async def send(self, kind: str, payload: Any = None, *, id_: Any = None) -> None:
        """Send one envelope."""
        envelope: dict[str, Any] = {"type": kind, "payload": payload or {}}
        if id_ is not None:
            envelope["id"] = id_
        await self.link.send(json.dumps(envelope))

    async def request(self, kind: str, payload: Any = None) -> dict[str, Any]:
        """Send an operation and return its response's payload; updates before it are kept."""
        self._next_id += 1
        id_ = f"t{self._next_id}"
        await self.send(kind, payload, id_=id_)
        while True:
            frame = await self._receive()
            if frame.get("id") == id_:
                return dict(frame["payload"])
            self._unread.append(frame)

    async def subscribe(
        self,
        route: str,
        params: Mapping[str, Any],
        *,
        recover: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Subscribe and return the response's payload."""
        beside = {} if recover is None else {"recover": dict(recover)}
        return await self.request(f"{route}.subscribe", {**params, **beside})

    async def unsubscribe(self, route: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Unsubscribe and return the response's payload."""
        return await self.request(f"{route}.unsubscribe", dict(params))

    async def next(self) -> dict[str, Any]:
        """Return the next frame that no request was waiting for.

        Raises:
            SocketClosedError: there is none, the server closed.
        """
        return self._unread.popleft() if self._unread else await self._receive()

    async def updates(self, count: int) -> list[dict[str, Any]]:
        """Return the payloads of the next updates; other frames between them fail the test."""
        found = []
        for _ in range(count):
            frame = await self.next()
            assert frame["type"].endswith(".update"), frame
            found.append(frame["payload"])
        return found

    async def closed(self) -> SocketClosedError:
        """Read until the server closes, and return how."""
        try:
            while True:
                await self.next()
        except SocketClosedError as error:
            return error

    async def close(self) -> None:
        """Close from this side."""
        await self.link.close()

    async def _receive(self) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            text = await self.link.receive()
        frame: dict[str, Any] = json.loads(text)
        assert frame.keys() <= {"type", "id", "payload"}, frame
        self.frames.append(json.loads(text))
        self._check_order(frame)
        return frame

    def _check_order(self, frame: Mapping[str, Any]) -> None:
        kind, payload = str(frame["type"]), frame["payload"]
        topic, offset = payload.get("topic"), payload.get("offset")
        if kind.endswith(".subscribe.response") and offset is not None:
            self.last_offsets[topic] = offset
        elif kind.endswith(".update") and offset is not None:
            last = self.last_offsets[topic]
            if payload.get("snapshot"):
                self.last_offsets[topic] = offset
                return
            assert payload["previous_offset"] == last, f"hole behind {last}: {frame}"
            assert offset > last, f"{offset} again, behind {last}: {frame}"
            self.last_offsets[topic] = offset


class AsgiLink:
    """Runs an ASGI callable in-process for one socket.

    Attributes:
        is_done: the callable returned.
    """

    def __init__(
        self,
        app: AsgiApp,
        path: str,
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        self._scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
            "subprotocols": list(subprotocols),
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
            "state": {},
            "extensions": dict(extensions or {"websocket.http.response": {}}),
        }
        self._app = app
        self._inbound: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._outbound: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._reads = asyncio.Event()
        self._reads.set()
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> str | None:
        """Run the handshake; returns the chosen subprotocol.

        Raises:
            HandshakeRefusedError: the server answered instead of accepting.
        """
        self._inbound.put_nowait({"type": "websocket.connect"})
        self._task = asyncio.create_task(self._run())
        first = await self._next()
        if first["type"] == "websocket.http.response.start":
            body = await self._next()
            await self._task
            headers = {name.decode(): value.decode() for name, value in first["headers"]}
            raise HandshakeRefusedError(first["status"], headers, body["body"])
        if first["type"] == "websocket.close":
            self._inbound.put_nowait({"type": "websocket.disconnect", "code": 1006})
            await self._task
            raise HandshakeRefusedError(403, {}, b"")
        assert first["type"] == "websocket.accept", first
        chosen: str | None = first.get("subprotocol")
        return chosen

    def stall(self) -> None:
        """Stop reading: the server's ``send`` doesn't return any more."""
        self._reads.clear()

    def go_on(self) -> None:
        """Read again."""
        self._reads.set()

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        key = "text" if isinstance(message, str) else "bytes"
        self._inbound.put_nowait({"type": "websocket.receive", key: message})

    async def receive(self) -> str:
        """Return the next text; raises SocketClosedError."""
        message = await self._next()
        if message["type"] == "websocket.close":
            raise SocketClosedError(message.get("code", 1000), message.get("reason", ""))
        return str(message["text"])

    async def close(self) -> None:
        """Close from this side and wait until the server has cleaned up."""
        self._reads.set()
        self._is_closed = True
        self._inbound.put_nowait({"type": "websocket.disconnect", "code": 1000})
        if self._task is not None:
            await asyncio.wait_for(self._task, TIMEOUT_SECONDS)

    async def _next(self) -> dict[str, Any]:
        return await self._outbound.get()

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._inbound.get, self._from_server)
        finally:
            self._outbound.put_nowait({"type": "websocket.close", "code": 1006})

    async def _from_server(self, message: dict[str, Any]) -> None:
        await self._reads.wait()
        if self._is_closed:
            raise OSError("the client is gone")
        if message["type"] == "websocket.close":
            self._is_closed = True
            self._inbound.put_nowait(
                {"type": "websocket.disconnect", "code": message.get("code", 1000)}
            )
        self._outbound.put_nowait(message)


class NetworkLink:
    """A socket of the ``websockets`` client."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: str | bytes) -> None:
        """Send one message."""
        await self.connection.send(message)

    async def receive(self) -> str:
        """Return the next text; raises SocketClosedError."""
        try:
            received = await self.connection.recv()
        except ConnectionClosed as error:
            found = error.rcvd
            raise SocketClosedError(
                found.code if found else 1006, found.reason if found else ""
            ) from None
        assert isinstance(received, str), "the server sends text only"
        return received

    async def close(self) -> None:
        """Close from this side."""
        await self.connection.close()


@asynccontextmanager
async def asgi_socket(
    app: AsgiApp,
    path: str = "/api/v1/test/ws",
    *,
    token: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
) -> AsyncIterator[SocketClient]:
    """Open a socket in-process; closed, and the server's part ended, at the end."""
    bearer = [] if token is None else [("authorization", f"Bearer {token}")]
    link = AsgiLink(app, path, [*headers, *bearer], subprotocols)
    chosen = await link.open()
    client = SocketClient(link, subprotocol=chosen)
    try:
        yield client
    finally:
        await link.close()


@asynccontextmanager
async def network_socket(
    url: str,
    *,
    unix_path: str | None = None,
    token: str | None = None,
    headers: Sequence[tuple[str, str]] = (),
    subprotocols: Sequence[str] = (),
    **options: Any,
) -> AsyncIterator[SocketClient]:
    """Open a socket over the network.

    Args:
        url: ``ws://host:port/path``; with ``unix_path`` the host is only a header.
        options: for the ``websockets`` client.
    """
    bearer = [] if token is None else [("Authorization", f"Bearer {token}")]
    arguments: dict[str, Any] = {
        "additional_headers": [*headers, *bearer],
        "subprotocols": [Subprotocol(each) for each in subprotocols] or None,
        "compression": None,
        **options,
    }
    opened = (
        connect(url, **arguments)
        if unix_path is None
        else unix_connect(unix_path, url, **arguments)
    )
    async with opened as connection:
        yield SocketClient(NetworkLink(connection), subprotocol=connection.subprotocol)
