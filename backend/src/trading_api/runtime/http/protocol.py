"""Uvicorn's HTTP protocol with the express lane in front of ASGI.

A subclass of uvicorn's httptools protocol, so uvicorn is pinned exactly. An answer that is ready
is written as soon as the request's headers are read, without a cycle, a task, scope copies or ASGI
messages; everything else of the connection stays uvicorn's.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from trading_api.runtime.http.express import TRIED_KEY, ExpressAnswer, ExpressLane

_JOINED_MAX_BYTES = 16 * 1024
"""Up to here copying head and body into one buffer is cheaper than handing over several."""

_UNBUFFERED = b"x-accel-buffering: no\r\n\r\n"
"""Tells nginx to pass on what is kept in memory here anyway, rather than to gather it once more;
nginx takes the line out."""


class _Answered:
    """What stands for the cycle of a request that the lane answered."""

    response_complete = True
    keep_alive = True

    class message_event:  # noqa: N801 - named as in uvicorn's cycle
        """Nobody waits for it."""

        @staticmethod
        def set() -> None:
            """Wake nobody."""


_ANSWERED: Any = _Answered()


class ExpressProtocol(HttpToolsProtocol):
    """One connection; serves any ASGI app, and the express lane of one that has it.

    An app may have a method ``drain`` too: the server was told to stop.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The lane knows absolute paths, and no limit of connections.
        is_plain = not self.root_path and self.limit_concurrency is None
        self._lane: ExpressLane | None = _find(self.app, "express_lane") if is_plain else None
        self._server_headers: list[tuple[bytes, bytes]] = []
        self._first_lines = b""
        self._answered_at: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Let the app end answers without an end; the server waits for all of them."""
        drain = _find(self.app, "drain")
        if drain is not None:
            drain()
        super().shutdown()

    def on_headers_complete(self) -> None:
        """Answer a request at once where the answer is ready, else as uvicorn does."""
        cycle: RequestResponseCycle | None = self.cycle
        # Behind other requests of a pipeline, or a client that doesn't read, the usual way waits.
        if (
            self._lane is not None
            and (cycle is None or cycle.response_complete)
            and not self.flow.write_paused
            and not self.pipeline
            and self.parser.get_method() == b"GET"
            and self.parser.get_http_version() == "1.1"
            and self.parser.should_keep_alive()
            and not self.transport.is_closing()
        ):
            answer = self._lane.find_raw(self.url, self.headers)
            if answer is not None:
                self.cycle = _ANSWERED
                self._write_answer(answer)
                self._wait_for_next()
                return
            self.scope[TRIED_KEY] = True  # type: ignore[literal-required]
        super().on_headers_complete()

    def _write_answer(self, answer: ExpressAnswer) -> None:
        if self.server_state.default_headers is not self._server_headers:
            # Uvicorn makes them anew each second, for the date.
            self._server_headers = self.server_state.default_headers
            lines = [name + b": " + value + b"\r\n" for name, value in self._server_headers]
            self._first_lines = STATUS_LINE[200] + b"".join(lines)
        varying = b"".join([name + b": " + value + b"\r\n" for name, value in answer.varying])
        head = b"%b%b%bcontent-length: %d\r\n" % (
            self._first_lines,
            answer.fixed,
            varying,
            answer.length,
        )
        if answer.length <= _JOINED_MAX_BYTES:
            self.transport.write(b"".join((head, b"\r\n", *answer.pieces)))
        else:
            self.transport.writelines((head, _UNBUFFERED, *answer.pieces))

    def _wait_for_next(self) -> None:
        """Do what uvicorn does behind an answer, with one timer for many idle moments."""
        self.server_state.total_requests += 1
        self._answered_at = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._check_idle)

    def _unset_keepalive_if_required(self) -> None:
        # Uvicorn calls it whenever bytes arrive or it arms its own timer.
        self._answered_at = None
        super()._unset_keepalive_if_required()

    def _check_idle(self) -> None:
        self._idle_timer = None
        if self._answered_at is None:
            return
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._check_idle)
        else:
            self.timeout_keep_alive_handler()


def _find(app: Any, name: str) -> Any:
    """Return an attribute of the app, behind the middleware that uvicorn wraps it in, or None."""
    return getattr(app, name, None) or getattr(getattr(app, "app", None), name, None)
