"""The express lane: answers of hot routes that are at hand when the request comes.

A route may declare beside its handler a function that finds its answer, or joins it from finished
pieces, without waiting for anything. The lane asks it only when nothing about the request is in
doubt: an exact path, no unusual header, a credential that was verified before and still holds,
access granted, a unit of the quota at hand. It never refuses and never fails; at any doubt the
request goes the usual way, which answers the same. So every rule of security lives in the usual
way alone, and the lane only repeats its last step.

``runtime.http.protocol`` asks the lane before ASGI begins, ``Express`` under other servers.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from trading_api.runtime.context import REQUEST_ID
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.metrics import REQUESTS, RouteDurations
from trading_api.runtime.http.quotas import rate_headers
from trading_api.runtime.identity import Identity, Principal, holds_credential
from trading_api.runtime.rates import RateClass, RateLimiter

Pieces = Sequence[bytes | memoryview]
"""A body in pieces, so that what is kept in memory is sent without a copy."""

FindAnswer = Callable[[bytes, Principal | None], bytes | Pieces | None]
"""Query string and principal to the body of a 200; None where the handler has to make it.

What it raises counts as None: the handler will meet the same error and answer it.
"""

TRIED_KEY = "trading.express_tried"
"""In a scope that the protocol has shown to the lane already."""

_TARGETS_MAX = 4096
_TARGET_LENGTH_MAX = 512
_TARGET = re.compile(rb"(/[!-\"$->@-~]*)(?:\?([!-\"$-~]*))?")
"""A path and a query of printable ASCII; any other address goes the usual way."""

_UNUSUAL = frozenset(
    {
        b"x-api-key",
        b"x-request-deadline",
        b"origin",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"range",
        b"upgrade",
    }
)
"""Headers whose request goes the usual way."""


@dataclass(frozen=True, slots=True)
class ExpressRoute:
    """One GET route with answers that may be ready.

    Attributes:
        template: its path as metrics name it; without parameters.
        rate_class: what it is charged as.
        media_type: of every answer.
    """

    template: str
    access: Access
    rate_class: RateClass
    find: FindAnswer
    media_type: bytes = b"application/json"


class ExpressAnswer:
    """An answer of status 200.

    Attributes:
        fixed: header lines that are the same for all answers of the route, each with its end.
        headers: the same lines as ASGI has them.
        varying: the other headers, without the length.
        pieces: the body.
        length: of the body in bytes.
    """

    __slots__ = ("fixed", "headers", "length", "pieces", "varying")

    def __init__(
        self,
        fixed: bytes,
        headers: tuple[tuple[bytes, bytes], ...],
        varying: list[tuple[bytes, bytes]],
        body: bytes | Pieces,
    ) -> None:
        self.fixed = fixed
        self.headers = headers
        self.varying = varying
        self.pieces: Pieces = (body,) if isinstance(body, bytes) else body
        self.length = sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True)
class _Entry:
    route: ExpressRoute
    durations: RouteDurations
    fixed: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class ExpressLane:
    """Looks for ready answers of one process.

    Args:
        headers: what every answer carries, as the edge adds it.
        limiter: charges the quotas, as the edge does; None for no quotas.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        headers: tuple[tuple[bytes, bytes], ...],
        limiter: RateLimiter | None = None,
    ) -> None:
        self._identity = identity
        self._limiter = limiter
        self._common = headers
        self._routes: dict[str, _Entry] = {}
        self._targets: dict[bytes, tuple[_Entry, bytes]] = {}

    def add(self, routes: Mapping[str, ExpressRoute]) -> None:
        """Serve routes by absolute path."""
        for path, route in routes.items():
            assert "{" not in path, f"the express lane takes no parameters: {path}"
            assert route.rate_class != "login", f"{path} is charged to its address as well"
            headers = ((b"content-type", route.media_type), *self._common)
            fixed = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
            durations = REQUESTS.of("GET", route.template)
            self._routes[path] = _Entry(route, durations, fixed, headers)

    def find(self, scope: Mapping[str, Any]) -> ExpressAnswer | None:
        """Return the ready answer to an HTTP request; None where it goes the usual way."""
        entry = self._routes.get(scope["path"])
        if entry is None or scope["method"] != "GET":
            return None
        query_string = scope["query_string"]
        if _is_unusual(query_string):
            return None
        return self._find(entry, query_string, scope["headers"])

    def find_raw(
        self, address: bytes, headers: Sequence[tuple[bytes, bytes]]
    ) -> ExpressAnswer | None:
        """Return the ready answer to a GET request that no ASGI scope was made for.

        Args:
            address: path and query as they stand in the request line.
            headers: names in lower case.
        """
        target = self._targets.get(address)
        if target is None:
            target = self._read_target(address)
            if target is None:
                return None
        return self._find(*target, headers)

    def _read_target(self, address: bytes) -> tuple[_Entry, bytes] | None:
        matched = _TARGET.fullmatch(address)
        if matched is None:
            return None
        entry = self._routes.get(matched[1].decode("ascii"))
        query_string = matched[2] or b""
        if entry is None or _is_unusual(query_string):
            return None
        target = entry, query_string
        if len(address) <= _TARGET_LENGTH_MAX:
            if len(self._targets) >= _TARGETS_MAX:
                self._targets.clear()
            self._targets[address] = target
        return target

    def _find(
        self, entry: _Entry, query_string: bytes, listed: Sequence[tuple[bytes, bytes]]
    ) -> ExpressAnswer | None:
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(listed)
        if len(headers) != len(listed) or not _UNUSUAL.isdisjoint(headers):
            return None
        request_id = headers.get(b"x-request-id")
        if request_id is None or REQUEST_ID.fullmatch(request_id) is None:
            return None
        route, limiter = entry.route, self._limiter
        try:
            principal = self._identity.find_verified(headers)
            if principal is None:
                return None
            who = f"user:{principal.user_id}"
            if limiter is not None and not limiter.has_at_hand(who, route.rate_class):
                return None
            route.access.ensure_allows(principal)
            body = route.find(query_string, principal)
        except Exception:  # noqa: BLE001 - whatever it is, the usual way meets and answers it
            return None
        if body is None:
            return None
        verdict = None if limiter is None else limiter.take_at_hand(who, route.rate_class)
        entry.durations.observe(200, time.perf_counter() - started)
        varying = [(b"x-request-id", request_id)]
        if verdict is not None:
            varying += rate_headers(verdict)
        return ExpressAnswer(entry.fixed, entry.headers, varying, body)


def _is_unusual(query_string: bytes) -> bool:
    return b"%00" in query_string or holds_credential(query_string)


class Express:
    """The lane as the outermost ASGI layer, for servers that don't ask it themselves."""

    def __init__(self, inner: ASGIApp, lane: ExpressLane) -> None:
        self._inner = inner
        self._lane = lane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer where it is ready, else let the app make it."""
        answer = None if TRIED_KEY in scope else self._lane.find(scope)
        if answer is None:
            await self._inner(scope, receive, send)
            return
        length = (b"content-length", str(answer.length).encode("ascii"))
        headers = [*answer.headers, length, *answer.varying]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"".join(answer.pieces)})
