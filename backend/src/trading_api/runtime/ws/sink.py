"""Where frames leave for one client: a bounded queue for what must arrive, slots for prices.

The hub writes to a ``Sink`` and never waits for it. ``RawSink`` hands prebuilt WebSocket frames to
the transport of our own server protocol; ``SendTextSink`` works on any ASGI server.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from trading_api.runtime.ws.frames import Batch, Frame, Key
from trading_api.runtime.ws.limits import CloseCode
from trading_api.runtime.ws.metrics import Counters

RAW_EXTENSION = "trading.raw"
"""Key in ``scope["extensions"]`` under which the server offers its ``RawLink``."""

_JOIN_SIZE = 64 * 1024


class Sink(Protocol):
    """The outbound side of one socket; nothing here waits.

    Attributes:
        close_code: of the first close from our side; None while there was none.
    """

    close_code: int | None

    @property
    def is_open(self) -> bool:
        """Tell whether frames are still accepted."""
        ...

    @property
    def queued_bytes(self) -> int:
        """Return the bytes that wait for this client in this process."""
        ...

    def send(self, frame: Frame) -> None:
        """Send a frame behind all sent before; over the bound the socket closes with 4008."""
        ...

    def put(self, batch: Batch) -> None:
        """Take prices: at once, or for a slow client into slots where the newest replaces.

        The caller has counted the frames as sent.
        """
        ...

    def gather(self, batch: Batch) -> bool:
        """Take prices as ``put`` does, but to be written together by ``flush``.

        Returns:
            True when ``flush`` must be called before the tick ends.
        """
        ...

    def flush(self) -> None:
        """Write what was gathered in this tick."""
        ...

    def forget(self, topic: str) -> None:
        """Discard waiting prices of a topic."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close the socket; later calls and frames are ignored."""
        ...


class RawLink(Protocol):
    """What a ``RawSink`` needs of the server's connection.

    Attributes:
        is_open: accepted, and no close frame sent or received: a text frame may be written.
        is_paused: the transport holds more than its high-water mark.
        on_writable: called when ``is_paused`` ends.
        write: hands bytes to the transport; may set ``is_paused``.
    """

    is_open: bool
    is_paused: bool
    on_writable: Callable[[], None] | None
    write: Callable[[bytes], None]

    def buffered_bytes(self) -> int:
        """Return what the transport holds."""
        ...

    def close(self, code: int, reason: str, abort_seconds: float) -> None:
        """Send a close frame, and drop the connection when the client doesn't take it."""
        ...


class _Parking:
    """Frames that wait for a slow client, in bounds."""

    __slots__ = ("bytes", "queue", "slots")

    def __init__(self) -> None:
        self.queue: deque[Frame] = deque()
        self.slots: dict[Key, Frame] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self.queue or self.slots)

    def push(self, frame: Frame) -> None:
        self.queue.append(frame)
        self.bytes += len(frame.body)

    def put(self, key: Key, frame: Frame) -> bool:
        """Set a slot; True when it held an older frame."""
        before = self.slots.get(key)
        self.slots[key] = frame
        self.bytes += len(frame.body) - (0 if before is None else len(before.body))
        return before is not None

    def pop(self) -> Frame:
        """Take the next frame: everything in order first, then the slots."""
        frame = self.queue.popleft() if self.queue else self.slots.pop(next(iter(self.slots)))
        self.bytes -= len(frame.body)
        return frame

    def forget(self, topic: str) -> int:
        keys = [key for key in self.slots if key[0] == topic]
        for key in keys:
            self.bytes -= len(self.slots.pop(key).body)
        return len(keys)

    def clear(self) -> int:
        count = len(self.queue) + len(self.slots)
        self.queue.clear()
        self.slots.clear()
        self.bytes = 0
        return count


class RawSink:
    """Writes prebuilt frames straight to the transport, one write per tick.

    Args:
        link: the server's connection.
        queue_size_max: bytes, the transport's own included.
        abort_seconds: how long a closed client may take to read what is left.
    """

    __slots__ = (
        "_abort_seconds",
        "_counters",
        "_link",
        "_parking",
        "_pending",
        "_queue_size_max",
        "close_code",
    )

    def __init__(
        self, link: RawLink, *, counters: Counters, queue_size_max: int, abort_seconds: float
    ) -> None:
        self._link = link
        self._counters = counters
        self._queue_size_max = queue_size_max
        self._abort_seconds = abort_seconds
        self._parking = _Parking()
        self._pending: list[bytes] = []
        self.close_code: int | None = None
        link.on_writable = self._resume

    @property
    def is_open(self) -> bool:
        """Tell whether frames are still accepted."""
        return self.close_code is None and self._link.is_open

    @property
    def queued_bytes(self) -> int:
        """Return the bytes that wait for this client in this process."""
        return self._parking.bytes + self._link.buffered_bytes()

    def send(self, frame: Frame) -> None:
        """Send a frame behind all sent before; over the bound the socket closes with 4008."""
        if not self.is_open:
            self._counters.dropped += 1
        elif self._link.is_paused:
            self._parking.push(frame)
            self._ensure_bounded()
        elif self._pending:
            self._pending.append(frame.raw)
            self._counters.sent += 1
        else:
            self._link.write(frame.raw)
            self._counters.sent += 1

    def put(self, batch: Batch) -> None:
        """Take prices: at once, or for a slow client into slots where the newest replaces."""
        link = self._link
        if link.is_open and not link.is_paused:
            link.write(batch.raw)
        else:
            self._park(batch)

    def gather(self, batch: Batch) -> bool:
        """Take prices as ``put`` does, but to be written together by ``flush``."""
        link = self._link
        if link.is_open and not link.is_paused:
            pending = self._pending
            pending.append(batch.raw)
            return len(pending) == 1
        self._park(batch)
        return False

    def flush(self) -> None:
        """Write what was gathered in this tick."""
        pending = self._pending
        if pending:
            data = pending[0] if len(pending) == 1 else b"".join(pending)
            pending.clear()
            if self._link.is_open:
                self._link.write(data)

    def forget(self, topic: str) -> None:
        """Discard waiting prices of a topic."""
        if self._parking.slots:
            self._counters.dropped += self._parking.forget(topic)

    def close(self, code: int, reason: str) -> None:
        """Close the socket; later calls and frames are ignored."""
        if self.close_code is not None:
            return
        self.flush()
        self.close_code = code
        self._link.on_writable = None
        self._counters.dropped += self._parking.clear()
        self._link.close(code, reason, self._abort_seconds)

    def _park(self, batch: Batch) -> None:
        counters = self._counters
        counters.sent -= len(batch.items)
        if not self.is_open:
            counters.dropped += len(batch.items)
            return
        for key, frame in batch.items:
            if self._parking.put(key, frame):
                counters.conflated += 1
        self._ensure_bounded()

    def _ensure_bounded(self) -> None:
        if self.queued_bytes > self._queue_size_max:
            self.close(CloseCode.TOO_SLOW, "slow: read faster, or subscribe to less")

    def _resume(self) -> None:
        link, parking = self._link, self._parking
        while parking and not link.is_paused and link.is_open:
            chunk, size = [], 0
            while parking and size < _JOIN_SIZE:
                raw = parking.pop().raw
                chunk.append(raw)
                size += len(raw)
            self._counters.sent += len(chunk)
            link.write(b"".join(chunk))


class SendTextSink:
    """Sends through ASGI ``send`` from one task, so that nobody else waits for this client.

    Args:
        send: the ASGI callable of this socket.
        on_aborted: called when a closed client doesn't read and the socket must be given up.
    """

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        *,
        counters: Counters,
        queue_size_max: int,
        abort_seconds: float,
        on_aborted: Callable[[], None],
    ) -> None:
        self._send = send
        self._counters = counters
        self._queue_size_max = queue_size_max
        self._abort_seconds = abort_seconds
        self._on_aborted = on_aborted
        self._parking = _Parking()
        self._sending_bytes = 0
        self.close_code: int | None = None
        self._close_reason = ""
        self._is_gone = False
        self._wake = asyncio.Event()
        self._writer = asyncio.get_running_loop().create_task(self._write())
        self._abort: asyncio.TimerHandle | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether frames are still accepted."""
        return self.close_code is None and not self._is_gone

    @property
    def queued_bytes(self) -> int:
        """Return the bytes that wait for this client in this process."""
        return self._parking.bytes + self._sending_bytes

    def send(self, frame: Frame) -> None:
        """Send a frame behind all sent before; over the bound the socket closes with 4008."""
        if not self.is_open:
            self._counters.dropped += 1
            return
        self._parking.push(frame)
        self._ensure_bounded()
        self._wake.set()

    def put(self, batch: Batch) -> None:
        """Take prices: at once, or for a slow client into slots where the newest replaces."""
        self._counters.sent -= len(batch.items)
        if not self.is_open:
            self._counters.dropped += len(batch.items)
        elif self._sending_bytes:
            # The writer is inside a send that did not complete at once: the client is behind.
            for key, frame in batch.items:
                if self._parking.put(key, frame):
                    self._counters.conflated += 1
        else:
            for _, frame in batch.items:
                self._parking.push(frame)
        self._ensure_bounded()
        self._wake.set()

    def gather(self, batch: Batch) -> bool:
        """Take prices as ``put`` does."""
        self.put(batch)
        return False

    def flush(self) -> None:
        """Do nothing: the writer task writes."""

    def forget(self, topic: str) -> None:
        """Discard waiting prices of a topic."""
        self._counters.dropped += self._parking.forget(topic)

    def close(self, code: int, reason: str) -> None:
        """Close the socket; later calls and frames are ignored."""
        if self.close_code is not None:
            return
        self.close_code, self._close_reason = code, reason
        if code == CloseCode.TOO_SLOW:
            self._counters.dropped += self._parking.clear()
        self._wake.set()
        if not self._is_gone:
            self._abort = asyncio.get_running_loop().call_later(self._abort_seconds, self._give_up)

    async def finish(self) -> None:
        """End the writer; the socket is over."""
        self._is_gone = True
        self._counters.dropped += self._parking.clear()
        if self._abort is not None:
            self._abort.cancel()
        self._writer.cancel()
        await asyncio.gather(self._writer, return_exceptions=True)

    def _ensure_bounded(self) -> None:
        if self.queued_bytes > self._queue_size_max:
            self.close(CloseCode.TOO_SLOW, "slow: read faster, or subscribe to less")

    def _give_up(self) -> None:
        self._writer.cancel()
        self._on_aborted()

    async def _write(self) -> None:
        try:
            while True:
                while not self._parking:
                    if self.close_code is not None:
                        await self._send(
                            {
                                "type": "websocket.close",
                                "code": self.close_code,
                                "reason": self._close_reason,
                            }
                        )
                        return
                    self._wake.clear()
                    await self._wake.wait()
                frame = self._parking.pop()
                self._sending_bytes = len(frame.body)
                await self._send({"type": "websocket.send", "text": frame.text})
                self._sending_bytes = 0
                self._counters.sent += 1
        except (OSError, RuntimeError):
            # The client left between two frames; receive() tells the socket's own task.
            self._is_gone = True
            self._counters.dropped += self._parking.clear() + 1
        finally:
            self._sending_bytes = 0
