"""A real uvicorn in this event loop, and clients that read or don't."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from websockets.client import ClientProtocol
from websockets.uri import parse_uri

from trading_api.runtime.ws import WebSocketEndpoint
from trading_api.runtime.ws.protocol import UVICORN_OPTIONS
from trading_api.testkit.bus import eventually

PATH = "/api/v1/test/ws"

RAW = UVICORN_OPTIONS
PLAIN = {**UVICORN_OPTIONS, "ws": "websockets-sansio"}
"""Uvicorn's own protocol: the sink sends through ASGI."""


class Server:
    """A listening server."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"ws://127.0.0.1:{port}{PATH}"


@asynccontextmanager
async def serving(
    endpoint: WebSocketEndpoint, options: dict[str, Any] = RAW
) -> AsyncIterator[Server]:
    """Serve an endpoint on a free loopback port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        endpoint,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        **options,
    )
    server = uvicorn.Server(config)
    # The test runner keeps its own handlers.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        yield Server(server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task


class StalledClient:
    """Makes the handshake and one subscription, then never reads again."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._protocol: ClientProtocol | None = None

    @classmethod
    async def connect(cls, server: Server, *, token: str, message: str) -> "StalledClient":
        small = socket.socket()
        # A small receive buffer, so that a few frames already back up.
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", server.port))
        reader, writer = await asyncio.open_connection(sock=small, limit=1024)
        client = cls(reader, writer)
        protocol = client._protocol = ClientProtocol(parse_uri(server.url))
        request = protocol.connect()
        request.headers["Authorization"] = f"Bearer {token}"
        protocol.send_request(request)
        writer.write(b"".join(protocol.data_to_send()))
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        protocol.send_text(message.encode())
        writer.write(b"".join(protocol.data_to_send()))
        await writer.drain()
        # Flow control of asyncio: with a limit of 1 KiB nothing more is read from the socket.
        return client

    async def ended(self) -> None:
        """Wait until the server dropped the connection, reading what is left."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(65536):
                pass
        self.writer.close()

    def close(self) -> None:
        self.writer.transport.abort()
