"""Charges each request to a quota, and tells the caller where it stands.

Who is charged: the signed-in user, and beside it the API key it came with; without a sign-in, or
where a sign-in is attempted, the client's address as nginx saw it. Other modules aren't charged.

The headers are those of draft-ietf-httpapi-ratelimit-headers: ``RateLimit-Policy`` says what the
quota is, ``RateLimit`` what is left (``r``) and in how many seconds it is whole again, or when
nothing is left, when the next request goes through (``t``).
"""

from collections.abc import MutableMapping
from functools import lru_cache
from typing import Any

from trading_api.kernel.addresses import network_of
from trading_api.kernel.errors import RateLimitedError
from trading_api.runtime.identity import Principal
from trading_api.runtime.rates import RateClass, RateLimiter, Verdict

LIMITER_KEY = "trading.rates"
VERDICT_KEY = "trading.rate_verdict"

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


async def charge(
    scope: MutableMapping[str, Any], rate_class: RateClass, principal: Principal | None
) -> None:
    """Charge one request to its quotas.

    Raises:
        RateLimitedError: one of them is used up.
    """
    limiter: RateLimiter | None = scope.get(LIMITER_KEY)
    if limiter is None or (principal is not None and principal.carrier == "service"):
        return
    is_guarded = rate_class == "login" or scope["method"] not in _SAFE_METHODS
    if principal is not None:
        if principal.carrier == "api_key":
            who = f"key:{principal.session_id}"
            _judge(scope, await limiter.take(who, rate_class, is_guarded=is_guarded))
        who = f"user:{principal.user_id}"
        _judge(scope, await limiter.take(who, rate_class, is_guarded=is_guarded))
    if principal is None or rate_class == "login":
        address = client_address(scope)
        if address:
            who = f"address:{network_of(address)}"
            _judge(scope, await limiter.take(who, rate_class, is_guarded=is_guarded))


def rate_headers(verdict: Verdict) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a caller where it stands."""
    state = f'"{verdict.rate.name}";r={verdict.remaining};t={verdict.wait_seconds}'
    return [
        (b"ratelimit-policy", _policy(verdict.rate.name, verdict.rate.limit, _period(verdict))),
        (b"ratelimit", state.encode("ascii")),
    ]


def client_address(scope: MutableMapping[str, Any]) -> str:
    """Return the client's address as the trusted proxy told it; "" where there is none."""
    client = scope.get("client")
    return client[0] if client else ""


def _judge(scope: MutableMapping[str, Any], verdict: Verdict | None) -> None:
    if verdict is None:
        return
    before: Verdict | None = scope.get(VERDICT_KEY)
    if before is None or not verdict.is_allowed or verdict.remaining < before.remaining:
        scope[VERDICT_KEY] = verdict
    if not verdict.is_allowed:
        raise RateLimitedError(
            f"too many requests of the class {verdict.rate.name}; "
            f"try again in {verdict.wait_seconds} s",
            retry_after_seconds=verdict.wait_seconds,
            policy=verdict.rate.name,
            limit=verdict.rate.limit,
            period_seconds=verdict.rate.period_seconds,
        )


def _period(verdict: Verdict) -> int:
    return verdict.rate.period_seconds


@lru_cache(maxsize=64)
def _policy(name: str, limit: int, period_seconds: int) -> bytes:
    return f'"{name}";q={limit};w={period_seconds}'.encode("ascii")
