"""The outermost layer of a process's HTTP: ids, limits, errors, headers and metrics.

One pure ASGI function around everything, so a request pays for it once. It is the only place
that turns exceptions into answers.
"""

import re
import time
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trading_api.kernel.errors import (
    DeadlineExceededError,
    MalformedRequestError,
    TradingError,
)
from trading_api.kernel.ids import IdSource
from trading_api.runtime import context
from trading_api.runtime.http.access import IDENTITY_KEY
from trading_api.runtime.http.body import LIMIT_BYTES, BodyTooLargeError
from trading_api.runtime.http.problems import ErrorShape, problem_of, response_of
from trading_api.runtime.http.quotas import LIMITER_KEY, VERDICT_KEY, rate_headers
from trading_api.runtime.http.routing import BODY_LIMIT_KEY, ROUTE_KEY
from trading_api.runtime.identity import Identity
from trading_api.runtime.rates import RateLimiter

log = structlog.get_logger("http")

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{8,64}", re.ASCII)
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)

_REQUESTS = Counter(
    "http_requests_total", "Requests by route template and status", ["method", "route", "status"]
)
_SECONDS = Histogram(
    "http_request_seconds",
    "Time to the end of the answer, by route template",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)

_API_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
_API_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


@lru_cache(maxsize=4096)
def _metrics_of(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    # Finding a labelled child costs more than counting with it.
    return _REQUESTS.labels(method, route, status), _SECONDS.labels(method, route)


def _observe(method: str, route: str, status: int, seconds: float) -> None:
    requests, durations = _metrics_of(method, route, status)
    requests.inc()
    durations.observe(seconds)


class Edge:
    """Wraps the process's routes.

    Args:
        inner: everything behind the edge; receives paths without a trailing slash.
        error_shapes: how errors look below a path prefix, where not as problem+json.
        limiter: charges the quotas; None for no quotas.
    """

    def __init__(
        self,
        inner: ASGIApp,
        *,
        identity: Identity,
        ids: IdSource,
        error_shapes: Mapping[str, ErrorShape],
        limiter: RateLimiter | None = None,
    ) -> None:
        self._inner = inner
        self._identity = identity
        self._ids = ids
        self._error_shapes = dict(error_shapes)
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one HTTP request; whatever goes wrong becomes an answer."""
        started = time.perf_counter()
        exchange = _Exchange(send, scope, is_head=scope["method"] == "HEAD")
        headers = _first_headers(scope)
        request_id = headers.get(b"x-request-id", "")
        if _REQUEST_ID.fullmatch(request_id) is None:
            request_id = self._ids.new("req")
        exchange.request_id = request_id
        context.request_id.set(request_id)
        traceparent = headers.get(b"traceparent", "")
        context.traceparent.set(traceparent if _TRACEPARENT.fullmatch(traceparent) else None)
        scope[IDENTITY_KEY] = self._identity
        scope[LIMITER_KEY] = self._limiter
        scope[BODY_LIMIT_KEY] = LIMIT_BYTES
        path = scope["path"]
        if exchange.is_head:
            # HEAD is GET without the body (RFC 9110, 9.3.2), on every path that has a GET.
            scope["method"] = "GET"
        try:
            _ensure_readable(scope)
            _ensure_in_time(headers)
            if len(path) > 1 and path.endswith("/"):
                scope["path"] = path.rstrip("/") or "/"
            await self._inner(scope, _limited(scope, receive, headers), exchange.send)
        except Exception as error:  # noqa: BLE001 - the one place that answers for all errors
            await self._answer_error(error, scope, receive, exchange)
        finally:
            _observe(
                scope["method"],
                scope.get(ROUTE_KEY, "unmatched"),
                exchange.status,
                time.perf_counter() - started,
            )

    async def _answer_error(
        self, error: Exception, scope: Scope, receive: Receive, exchange: "_Exchange"
    ) -> None:
        expected = isinstance(error, TradingError | RequestValidationError | HTTPException)
        if expected:
            log.info("request_refused", path=scope["path"], error=getattr(error, "code", None))
        else:
            log.error("request_failed", path=scope["path"], method=scope["method"], exc_info=error)
        if exchange.has_started:
            # Half an answer is on its way; only ending the connection tells the client.
            raise error
        problem = problem_of(error, path=scope["path"], request_id=exchange.request_id)
        shape = self._shape_of(scope["path"])
        response: Response = response_of(problem, error=error) if shape is None else shape(problem)
        await response(scope, receive, exchange.send)

    def _shape_of(self, path: str) -> ErrorShape | None:
        for prefix, shape in self._error_shapes.items():
            if path == prefix or path.startswith(prefix + "/"):
                return shape
        return None


class _Exchange:
    """One answer on its way out: adds the headers that every answer has."""

    __slots__ = ("_scope", "_send", "has_started", "is_head", "request_id", "status")

    def __init__(self, send: Send, scope: Scope, *, is_head: bool) -> None:
        self._send = send
        self._scope = scope
        self.is_head = is_head
        self.has_started = False
        self.request_id = ""
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_started = True
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            present = {name for name, _ in headers}
            headers += [each for each in _API_HEADERS if each[0] not in present]
            if _API_POLICY[0] not in present:
                headers.append(_API_POLICY)
            if b"cache-control" not in present:
                headers.append((b"cache-control", b"no-store"))
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
            verdict = self._scope.get(VERDICT_KEY)
            if verdict is not None:
                headers += rate_headers(verdict)
            message["headers"] = headers
        elif self.is_head:
            message = {**message, "body": b""}
        await self._send(message)


def _first_headers(scope: Scope) -> dict[bytes, str]:
    wanted = (b"x-request-id", b"traceparent", b"x-request-deadline", b"content-length")
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in wanted and name not in found:
            found[name] = value.decode("latin-1")
    return found


def _ensure_readable(scope: MutableMapping[str, Any]) -> None:
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        raise MalformedRequestError("the address holds a NUL character")
    try:
        scope["path"].encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedRequestError("the address is not UTF-8") from error


def _ensure_in_time(headers: Mapping[bytes, str]) -> None:
    """Refuse work whose caller has given up; the header holds Unix milliseconds."""
    deadline = headers.get(b"x-request-deadline")
    if deadline is None:
        return
    if not (deadline.isascii() and deadline.isdigit() and len(deadline) <= 15):
        raise MalformedRequestError("X-Request-Deadline must be Unix milliseconds")
    if int(deadline) <= datetime.now(UTC).timestamp() * 1000:
        raise DeadlineExceededError("the request's deadline has passed; nothing changed")


def _limited(scope: Scope, receive: Receive, headers: Mapping[bytes, str]) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        limit: int = scope[BODY_LIMIT_KEY]
        declared = headers.get(b"content-length", "0")
        if declared.isdigit() and int(declared) > limit:
            raise BodyTooLargeError(f"the body may have {limit} bytes", limit_bytes=limit)
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLargeError(f"the body may have {limit} bytes", limit_bytes=limit)
        return message

    return limited
