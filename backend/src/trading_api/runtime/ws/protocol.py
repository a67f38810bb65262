"""Uvicorn's WebSocket protocol with a way past ASGI for frames that are encoded already.

A subclass of uvicorn's sans-I/O protocol, so uvicorn and websockets are pinned exactly. Raw
frames are unmasked text frames (RFC 6455 section 5); they are written only between the accept and
the close, and everything else of the connection stays uvicorn's.

Run with ``uvicorn.run(app, **UVICORN_OPTIONS)``.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from trading_api.runtime.ws.limits import CloseCode, Limits
from trading_api.runtime.ws.sink import RAW_EXTENSION
from trading_api.runtime.ws.socket import restart_reason

PING_SECONDS = 25.0
PONG_SECONDS = 8.0

UVICORN_OPTIONS: dict[str, Any] = {
    "ws": "trading_api.runtime.ws.protocol:RawFrameProtocol",
    "ws_ping_interval": PING_SECONDS,
    "ws_ping_timeout": PONG_SECONDS,
    "ws_max_size": Limits().message_size_max,
    # Compression costs three times the memory of a connection.
    "ws_per_message_deflate": False,
}
"""What uvicorn must be told so that the limits of ``Limits`` hold on the wire."""


class RawFrameProtocol(WebSocketsSansIOProtocol):
    """One connection; a ``RawLink`` for the sink, found in the scope's extensions.

    Attributes:
        is_open: accepted, and no close frame sent or received.
        is_paused: the transport holds more than its high-water mark.
        on_writable: called when that ends.
        write: hands bytes to the transport; may set ``is_paused``.
    """

    write: Callable[[bytes], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_open = False
        self.is_paused = False
        self.on_writable: Callable[[], None] | None = None
        self.close_timeout = Limits().abort_seconds
        self._abort_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        super().connection_made(transport)
        self.write = self.transport.write

    def buffered_bytes(self) -> int:
        """Return what the transport holds."""
        return 0 if self.disconnected else self.transport.get_write_buffer_size()

    def close(self, code: int, reason: str, abort_seconds: float) -> None:
        """Send a close frame, and drop the connection when the client doesn't take it."""
        if self.is_open:
            self._send_close(code, reason)
            # The app goes on as if the client had left.
            self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
            if self.read_paused:
                # The client's own close frame is still to come.
                self.read_paused = False
                self.transport.resume_reading()
            self.close_timer = self.loop.call_later(abort_seconds, self.transport.abort)

    def handle_connect(self, event: Request) -> None:
        """Offer the raw link to the app."""
        super().handle_connect(event)
        if self.response.status_code == 101:
            cast("dict[str, Any]", self.scope["extensions"])[RAW_EXTENSION] = self

    def pause_writing(self) -> None:
        """Mark the client as slow."""
        super().pause_writing()
        self.is_paused = True

    def resume_writing(self) -> None:
        """Let what waited for this client go on."""
        super().resume_writing()
        self.is_paused = False
        if self.on_writable is not None:
            self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.is_open = False
        self.on_writable = None
        if self._abort_timer is not None:
            self._abort_timer.cancel()
            self._abort_timer = None
        super().connection_lost(exc)

    def eof_received(self) -> None:
        """Write nothing more to a client that has closed its side."""
        self.is_open = False
        super().eof_received()

    def shutdown(self) -> None:
        """Close with 1012 when the server ends."""
        if self.is_open:
            self.stop_keepalive()
            reason = restart_reason()
            self._send_close(CloseCode.RESTART, reason)
            self.queue.put_nowait(
                {"type": "websocket.disconnect", "code": CloseCode.RESTART, "reason": reason}
            )
            self.transport.close()
        else:
            super().shutdown()
        self._abort_if_stalled()

    def keepalive_timeout(self) -> None:
        """Close a client that doesn't answer pings."""
        self.is_open = False
        super().keepalive_timeout()
        self._abort_if_stalled()

    def handle_close(self, event: Any) -> None:
        """Answer the client's close frame."""
        self.is_open = False
        super().handle_close(event)
        self._abort_if_stalled()

    def handle_parser_exception(self) -> None:
        """Close a client that breaks the protocol."""
        self.is_open = False
        super().handle_parser_exception()
        self._abort_if_stalled()

    async def send(self, message: Any) -> None:
        """Send an ASGI event; a close that the client doesn't read ends with an abort."""
        if message["type"] == "websocket.close":
            self.is_open = False
        await super().send(message)
        if message["type"] == "websocket.accept":
            self.is_open = not (self.close_sent or self.disconnected or self.transport.is_closing())
        elif message["type"] == "websocket.close":
            self._abort_if_stalled()

    def _send_close(self, code: int, reason: str) -> None:
        self.is_open = False
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True

    def _abort_if_stalled(self) -> None:
        """Drop a closing connection whose client doesn't read; it would stay for minutes."""
        if not self.disconnected and self._abort_timer is None:
            self._abort_timer = self.loop.call_later(self.close_timeout, self.transport.abort)
