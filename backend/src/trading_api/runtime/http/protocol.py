"""Uvicorn's HTTP protocol with the express lane in front of ASGI.

A subclass of uvicorn's httptools protocol, so uvicorn is pinned exactly. An answer that is ready
is written at once, without a task, scope copies or ASGI messages; everything else of the
connection stays uvicorn's.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from trading_api.runtime.http.express import TRIED_KEY, ExpressAnswer, ExpressLane

_JOINED_MAX_BYTES = 16 * 1024
"""Up to here copying head and body into one buffer is cheaper than handing over two."""


class ExpressProtocol(HttpToolsProtocol):
    """One connection; serves any ASGI app, and the express lane of one that has it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lane = _lane_of(self.app)
        self._server_headers: list[tuple[bytes, bytes]] = []
        self._first_lines = b""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Behind other requests of a pipeline, or a client that doesn't read, the usual way waits.
        if (
            self._lane is not None
            and app is self.app
            and cycle.keep_alive
            and not self.flow.write_paused
            and not self.pipeline
        ):
            answer = self._lane.find(cycle.scope)
            if answer is not None:
                self._write_answer(cycle, answer)
                return
            cycle.scope[TRIED_KEY] = True  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, app)

    def _write_answer(self, cycle: RequestResponseCycle, answer: ExpressAnswer) -> None:
        body = answer.body
        if cycle.default_headers is not self._server_headers:
            # Uvicorn makes them anew each second, for the date.
            self._server_headers = cycle.default_headers
            lines = [name + b": " + value + b"\r\n" for name, value in self._server_headers]
            self._first_lines = STATUS_LINE[200] + b"".join(lines)
        varying = b"".join([name + b": " + value + b"\r\n" for name, value in answer.varying])
        head = b"%b%b%bcontent-length: %d\r\n\r\n" % (
            self._first_lines,
            answer.fixed,
            varying,
            len(body),
        )
        cycle.response_started = cycle.response_complete = True
        if len(body) <= _JOINED_MAX_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.writelines((head, body))
        cycle.on_response()


def _lane_of(app: Any) -> ExpressLane | None:
    """Find the lane of an app, through the middleware that uvicorn wraps it in."""
    for each in (app, getattr(app, "app", None)):
        lane = getattr(each, "express_lane", None)
        if isinstance(lane, ExpressLane):
            return lane
    return None
