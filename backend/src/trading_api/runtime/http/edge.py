"""The outermost layer of a process's HTTP: ids, limits, errors, headers and metrics.

One pure ASGI function around everything, so a request pays for it once. It is the only place
that turns exceptions into answers.
"""

import re
import time
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
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
from trading_api.runtime.http.metrics import REQUESTS
from trading_api.runtime.http.problems import ErrorShape, problem_of, response_of
from trading_api.runtime.http.quotas import LIMITER_KEY, VERDICT_KEY, rate_headers
from trading_api.runtime.http.routing import BODY_LIMIT_KEY, ROUTE_KEY
from trading_api.runtime.identity import Identity
from trading_api.runtime.rates import RateLimiter

log = structlog.get_logger("http")

_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

API_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
"""What every answer carries that doesn't say otherwise."""

_API_HEADER_NAMES = frozenset(name for name, _ in API_HEADERS)


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
        is_head = scope["method"] == "HEAD"
        if is_head:
            # HEAD is GET without the body (RFC 9110, 9.3.2), on every path that has a GET. The
            # server keeps its own scope: by the method it knows that no body follows.
            scope = {**scope, "method": "GET"}
        exchange = _Exchange(send, scope, is_head=is_head)
        headers = _first_headers(scope)
        named = headers.get(b"x-request-id", b"")
        is_ours = context.REQUEST_ID.fullmatch(named) is not None
        request_id = named.decode("ascii") if is_ours else self._ids.new("req")
        exchange.request_id = request_id
        context.request_id.set(request_id)
        parent = headers.get(b"traceparent")
        is_trace = parent is not None and _TRACEPARENT.fullmatch(parent) is not None
        context.traceparent.set(parent.decode("ascii") if parent and is_trace else None)
        scope[IDENTITY_KEY] = self._identity
        scope[LIMITER_KEY] = self._limiter
        scope[BODY_LIMIT_KEY] = LIMIT_BYTES
        path = scope["path"]
        try:
            _ensure_readable(scope)
            _ensure_in_time(headers)
            if len(path) > 1 and path.endswith("/"):
                scope["path"] = path.rstrip("/") or "/"
            await self._inner(scope, _limited(scope, receive, headers), exchange.send)
        except Exception as error:  # noqa: BLE001 - the one place that answers for all errors
            await self._answer_error(error, scope, receive, exchange)
        finally:
            route = REQUESTS.of(scope["method"], scope.get(ROUTE_KEY, "unmatched"))
            route.observe(exchange.status, time.perf_counter() - started)

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
            if present.isdisjoint(_API_HEADER_NAMES):
                headers += API_HEADERS
            else:
                headers += [each for each in API_HEADERS if each[0] not in present]
            headers.append((b"x-request-id", self.request_id.encode("ascii")))
            verdict = self._scope.get(VERDICT_KEY)
            if verdict is not None:
                headers += rate_headers(verdict)
            message["headers"] = headers
        elif self.is_head:
            message = {**message, "body": b""}
        await self._send(message)


def _first_headers(scope: Scope) -> dict[bytes, bytes]:
    """Return the headers by name, of one sent twice the first."""
    listed = scope["headers"]
    found: dict[bytes, bytes] = dict(listed)
    return found if len(found) == len(listed) else dict(reversed(listed))


def _ensure_readable(scope: MutableMapping[str, Any]) -> None:
    path = scope["path"]
    if "\x00" in path or b"%00" in scope["query_string"]:
        raise MalformedRequestError("the address holds a NUL character")
    if path.isascii():
        return
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MalformedRequestError("the address is not UTF-8") from error


def _ensure_in_time(headers: Mapping[bytes, bytes]) -> None:
    """Refuse work whose caller has given up; the header holds Unix milliseconds."""
    deadline = headers.get(b"x-request-deadline")
    if deadline is None:
        return
    if not (deadline.isdigit() and len(deadline) <= 15):
        raise MalformedRequestError("X-Request-Deadline must be Unix milliseconds")
    if int(deadline) <= datetime.now(UTC).timestamp() * 1000:
        raise DeadlineExceededError("the request's deadline has passed; nothing changed")


def _limited(scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        limit: int = scope[BODY_LIMIT_KEY]
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise BodyTooLargeError(f"the body may have {limit} bytes", limit_bytes=limit)
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > limit:
                raise BodyTooLargeError(f"the body may have {limit} bytes", limit_bytes=limit)
        return message

    return limited
