"""API keys and share tokens in every process: asked of auth, remembered for seconds.

The secret never leaves the process that it came to: auth is asked with its hash. An answer is good
for five seconds, so whatever changes about a key, its owner or the owner's roles is in force
within them; a revocation comes over the bus besides, and closes sockets. While auth is away, what
it said last stands for a while: longer for reading than for acting.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import structlog
from pydantic import ValidationError

from trading_api.contracts.auth import API_KEYS_PATH, ApiKeyAnswer, ApiKeyQuestion
from trading_api.kernel.clock import Clock
from trading_api.kernel.credentials import Credential, parse_credential
from trading_api.kernel.errors import (
    PermissionDeniedError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.runtime.identity import Principal
from trading_api.runtime.peers import PeerClient

log = structlog.get_logger("identity")

FRESH_SECONDS = 5.0
READ_SECONDS = 300.0
"""How long a key may read on while auth is away."""

ACT_SECONDS = 60.0
"""How long it may change something, or open a socket."""

RETRY_SECONDS = 1.0
"""How long auth isn't asked after it failed; else requests would wait for each failure in turn."""

CACHE_SIZE_MAX = 10_000

_FOREVER = 2**53
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REFUSED = "this API key is not accepted"


@dataclass(slots=True)
class _Known:
    """What auth said of a key, and when; None where it knows no such key."""

    answer: ApiKeyAnswer | None = None
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    asked_at: float | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class ApiKeys:
    """Resolves keys for one process.

    Args:
        auth: the module that knows them.
    """

    def __init__(self, *, auth: PeerClient, clock: Clock) -> None:
        self._auth = auth
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._retry_at: float | None = None

    async def resolve(self, text: str, scope: Mapping[str, Any]) -> Principal:
        """Return whom a key stands for.

        Args:
            scope: of the request or handshake that it came with.

        Raises:
            TokenInvalidError: unknown, expired, revoked, or its owner is switched off.
            PermissionDeniedError: it may not be used from this address.
            UnavailableError: auth is away and hasn't told about it lately.
        """
        credential = parse_credential(text)
        if credential is None:
            raise TokenInvalidError(_REFUSED)
        known = self._known_of(credential)
        if self._is_wanted(known):
            async with known.turn:
                if self._is_wanted(known):
                    await self._ask(credential, known)
        self._ensure_stands(known, seconds=READ_SECONDS if _is_reading(scope) else ACT_SECONDS)
        answer = known.answer
        if answer is None:
            raise TokenInvalidError(_REFUSED)
        now_seconds = int(self._clock.now().timestamp())
        if answer.expires_at_seconds is not None and answer.expires_at_seconds <= now_seconds:
            raise TokenInvalidError("this API key has expired", reason="expired")
        if known.networks and not _is_within(scope, known.networks):
            raise PermissionDeniedError("this API key may not be used from this address")
        return Principal(
            user_id=answer.user_id,
            session_id=answer.key_id,
            roles=frozenset(answer.roles),
            scopes=frozenset(answer.scopes),
            carrier="api_key",
            expires_at_seconds=answer.expires_at_seconds or _FOREVER,
            account_id=answer.account_id,
        )

    def _known_of(self, credential: Credential) -> _Known:
        name = (credential.id, credential.secret_hash)
        known = self._known.setdefault(name, _Known())
        self._known.move_to_end(name)
        if len(self._known) > CACHE_SIZE_MAX:
            self._known.popitem(last=False)
        return known

    def _is_wanted(self, known: _Known) -> bool:
        """Tell whether auth is to be asked: its answer is old, and it didn't fail just now."""
        now = self._clock.monotonic()
        if known.asked_at is not None and now - known.asked_at < FRESH_SECONDS:
            return False
        return self._retry_at is None or now >= self._retry_at

    def _ensure_stands(self, known: _Known, *, seconds: float) -> None:
        """Check that auth's last answer is fresh, or stands while auth is away.

        Raises:
            UnavailableError: it is older than so many seconds, or there is none.
        """
        if known.asked_at is not None:
            age = self._clock.monotonic() - known.asked_at
            if age < max(seconds, FRESH_SECONDS):
                return
        raise UnavailableError(
            "the API key can't be verified while auth is away",
            retry_after_seconds=1,
            module="auth",
        )

    async def _ask(self, credential: Credential, known: _Known) -> None:
        """Ask auth, and remember what it says or that it failed."""
        question = ApiKeyQuestion(key_id=credential.id, secret_hash=credential.secret_hash)
        if self._retry_at is not None:
            # One looks whether auth is back; the others don't wait for it.
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS
        try:
            response = await self._auth.post(API_KEYS_PATH, json=question.model_dump())
            if response.status_code not in (200, 404):
                raise UnavailableError(f"auth answered {response.status_code}", module="auth")
            found = response.status_code == 200
            answer = ApiKeyAnswer.model_validate_json(response.content) if found else None
        except (UnavailableError, ValidationError) as error:
            log.warning("api_key_unverified", reason=str(error)[:200])
            self._retry_at = self._clock.monotonic() + RETRY_SECONDS
            return
        self._retry_at = None
        known.answer = answer
        known.networks = tuple(ip_network(each) for each in answer.ip_allow) if answer else ()
        known.asked_at = self._clock.monotonic()


def _is_reading(scope: Mapping[str, Any]) -> bool:
    return scope["type"] == "http" and scope["method"] in _SAFE_METHODS


def _is_within(scope: Mapping[str, Any], networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    client = scope.get("client")
    try:
        address = ip_address(client[0]) if client else None
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    found = address if mapped is None else mapped
    return found is not None and any(found in each for each in networks)
