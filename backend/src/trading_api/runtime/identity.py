"""Who is asking: tokens verified in-process with the platform's public keys, and cached.

Verification keys are read from this host's ``jwks.json``; where that is absent they are asked
from auth. So every module starts and serves while auth is down.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry

from trading_api.kernel.clock import Clock
from trading_api.kernel.credentials import CREDENTIAL_PREFIX
from trading_api.kernel.errors import (
    CarriersDisagreeError,
    CrossSiteRequestError,
    MalformedRequestError,
    PermissionDeniedError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.runtime.secrets import SERVICE_JWKS_FILE, SIGNING_ALGORITHMS, read_key_set
from trading_api.runtime.settings import PlatformSettings

Carrier = Literal["cookie", "bearer", "api_key", "service"]

AUDIENCE = "trading-api"
LEEWAY_SECONDS = 30
TOKEN_LENGTH_MAX = 8192
CACHE_SIZE_MAX = 10_000
KEY_REFETCH_SECONDS = 30
KEY_RETRY_SECONDS = 1
KEY_RECHECK_SECONDS = 5
KEY_SET_SECONDS = 300
SERVICE_TOKEN_SECONDS = 60
SERVICE_TOKENS_MAX = 1000
ACCESS_TOKEN_SECONDS_MAX = 600
DEVELOPMENT_TOKEN_SECONDS_MAX = 12 * 3600
"""Tokens that `users token` issues for work on a module without auth; never in production."""

TokenStatus = Literal["valid", "expired", "revoked", "error"]

_FOREVER = 2**53
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PART = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SECRET_IN_QUERY = re.compile(
    rb"tp_(?:live|share)_|(?:^|&)(?:access_token|refresh_token|api_key|apikey|x-api-key)=",
    re.IGNORECASE,
)
_ONCE = frozenset({b"authorization", b"x-api-key", b"origin", b"host", b"sec-fetch-site"})


def holds_credential(query_string: bytes) -> bool:
    """Tell whether a credential stands in an address, where logs and histories keep it."""
    return bool(query_string) and _SECRET_IN_QUERY.search(query_string) is not None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Attributes:
        user_id: the user; for a service, the user it acts for, or "" for itself.
        session_id: the sign-in that the token belongs to; for a service its module's name, for an
            API key the key's id.
        carrier: how the credential came.
        expires_at_seconds: Unix seconds at which the credential ends.
        account_id: the only trading account that the bearer of a share token may see; None for
            everybody else.
    """

    user_id: str
    session_id: str
    roles: frozenset[str]
    scopes: frozenset[str]
    carrier: Carrier
    expires_at_seconds: int
    account_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Key:
    """A public key and the Unix second at which it stops verifying; None for no end."""

    key: Any
    retires_at: int | None


FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]
ResolveApiKey = Callable[[str, Mapping[str, Any]], Awaitable[Principal]]


class Identity:
    """Authenticates requests and WebSocket handshakes of one process.

    Args:
        fetch_keys: asks auth for its JWKS; used where the file lacks the key.
        resolve_api_key: tells whose key it is that came with a scope; None for no keys.
    """

    def __init__(
        self,
        *,
        settings: PlatformSettings,
        clock: Clock,
        fetch_keys: FetchKeys | None = None,
        resolve_api_key: ResolveApiKey | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._fetch_keys = fetch_keys
        self._resolve_api_key = resolve_api_key
        self._file_keys = _KeyFile(settings.key_set_path, clock)
        self._service_keys = _KeyFile(settings.secrets_directory / SERVICE_JWKS_FILE, clock)
        self._fetched_keys: dict[str, _Key] = {}
        self._fetched_at: float | None = None
        self._may_ask_at = 0.0
        self._asking = asyncio.Lock()
        self._cache: OrderedDict[bytes, tuple[Principal, int]] = OrderedDict()
        self._revoked: dict[str, int] = {}
        self._revoked_pruned_at_seconds = 0
        self._listeners: list[Callable[[str], None]] = []
        self._token_seconds_max = access_token_seconds_max(settings)
        secure = settings.uses_secure_cookies
        self.access_cookie = "__Host-access_token" if secure else "access_token"
        self._access_cookie_name = self.access_cookie.encode("ascii")

    @property
    def clock(self) -> Clock:
        """The clock that tokens are judged by."""
        return self._clock

    async def authenticate(self, scope: Mapping[str, Any]) -> Principal | None:
        """Find the principal of an ASGI HTTP or WebSocket scope; None where there is nobody.

        Raises:
            TokenInvalidError: a credential is there but not accepted.
            UnavailableError: the key that would tell can't be had right now.
            CarriersDisagreeError: two credentials name different principals.
            CrossSiteRequestError: a cookie came with an unsafe request from another site.
            MalformedRequestError: a credential stands in the address.
            PermissionDeniedError: an API key came from an address that it isn't allowed from.
        """
        if holds_credential(scope.get("query_string", b"")):
            raise MalformedRequestError(
                "a credential never goes into an address, which is logged; send it as a header, "
                "and replace this one"
            )
        headers = _headers_of(scope)
        found: list[Principal] = []
        authorization = headers.get(b"authorization")
        if authorization is not None:
            token = _bearer(authorization)
            if token is not None:
                found.append(await self.verify_credential(token, scope))
        api_key = headers.get(b"x-api-key")
        if api_key is not None:
            found.append(await self._verify_api_key(api_key, scope))
        cookie = self._cookie(headers.get(b"cookie"))
        if cookie is not None and not found:
            self._ensure_same_site(scope, headers)
            found.append(await self.verify(cookie, carrier="cookie"))
        elif cookie is not None:
            # A browser's leftover cookie of an expired session never spoils another credential.
            beside = await self._verify_or_none(cookie)
            if beside is not None:
                found.append(beside)
        if len({(each.user_id, each.account_id) for each in found}) > 1:
            raise CarriersDisagreeError("the request's credentials belong to two users; send one")
        return found[0] if found else None

    async def verify_credential(self, text: str, scope: Mapping[str, Any]) -> Principal:
        """Verify what came as a bearer: a token, or an API key where a header is hard to set.

        Args:
            scope: of the request or handshake that it came with.

        Raises:
            TokenInvalidError: it isn't accepted.
            PermissionDeniedError: an API key came from an address that it isn't allowed from.
            UnavailableError: whoever would know can't be asked.
        """
        if text.startswith(CREDENTIAL_PREFIX):
            return await self._verify_api_key(text, scope)
        return await self.verify(text)

    async def verify(self, token: str, *, carrier: Carrier = "bearer") -> Principal:
        """Verify an access token, or as a bearer a service token.

        Raises:
            TokenInvalidError: not ours, expired, revoked, of another type, or over 8 KiB.
            UnavailableError: its key can't be had right now.
        """
        if not token or len(token) > TOKEN_LENGTH_MAX:
            raise TokenInvalidError("the token is not accepted")
        digest, cached = self._find_cached(token.encode("utf-8", "replace"))
        now_seconds = int(self._clock.now().timestamp())
        if cached is None:
            cached = await self._verify_signature(token, carrier)
            self._cache[digest] = cached
            if len(self._cache) > CACHE_SIZE_MAX:
                self._cache.popitem(last=False)
        principal, key_retires_at = cached
        if principal.expires_at_seconds <= now_seconds:
            self._cache.pop(digest, None)
            raise TokenInvalidError("the token has expired; refresh it or log in", reason="expired")
        if key_retires_at <= now_seconds:
            self._cache.pop(digest, None)
            raise TokenInvalidError("the token was signed with a key we don't know")
        if principal.session_id in self._revoked:
            raise TokenInvalidError("this sign-in was ended; log in again", reason="revoked")
        if principal.carrier == "service" and carrier != "bearer":
            raise TokenInvalidError("a service token comes as a bearer")
        if principal.carrier not in (carrier, "service"):
            return replace(principal, carrier=carrier)
        return principal

    def find_verified(self, headers: Mapping[bytes, bytes]) -> Principal | None:
        """Return the principal of a credential that was verified before and still holds.

        For safe methods alone, since it looks at no origin. Asks nobody and refuses nothing: None
        says that ``authenticate`` has to tell.

        Args:
            headers: of a request that sent none twice.
        """
        authorization, cookie = headers.get(b"authorization"), headers.get(b"cookie")
        if b"x-api-key" in headers or len(authorization or cookie or b"") > TOKEN_LENGTH_MAX:
            return None
        carrier: Carrier = "bearer"
        if authorization is not None:
            if authorization[:7] != b"Bearer " or self._names_access_cookie(cookie):
                return None
            token = authorization[7:]
        else:
            carrier, token = "cookie", self._only_access_cookie(cookie)
        _, cached = self._find_cached(token)
        if cached is None:
            return None
        principal, key_retires_at = cached
        now_seconds = int(self._clock.now().timestamp())
        if principal.expires_at_seconds <= now_seconds or key_retires_at <= now_seconds:
            return None
        if principal.session_id in self._revoked or principal.carrier == "service":
            return None
        return principal if principal.carrier == carrier else replace(principal, carrier=carrier)

    def _find_cached(self, token: bytes) -> tuple[bytes, tuple[Principal, int] | None]:
        # The cache keeps digests, so that memory holds no token longer than its request.
        now = self._clock.monotonic()
        if self._file_keys.is_changed(now) or self._service_keys.is_changed(now):
            self._cache.clear()
        digest = hashlib.blake2b(token, digest_size=32).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            self._cache.move_to_end(digest)
        return digest, cached

    def _names_access_cookie(self, header: bytes | None) -> bool:
        return header is not None and self._access_cookie_name in header

    def _only_access_cookie(self, header: bytes | None) -> bytes:
        if not self._names_access_cookie(header) or header is None:
            return b""
        before, _, after = header.partition(self._access_cookie_name + b"=")
        if self._access_cookie_name in after or before.strip()[-1:] not in (b"", b";"):
            return b""
        return after.partition(b";")[0].strip()

    async def inspect(self, scope: Mapping[str, Any]) -> tuple[Principal | None, TokenStatus]:
        """Tell what a request's own token is worth, without refusing the request.

        Raises:
            CarriersDisagreeError: it was sent twice.
            UnavailableError: its key can't be had right now.
        """
        headers = _headers_of(scope)
        token = _bearer(headers.get(b"authorization", "")) or headers.get(b"x-api-key")
        cookie = self._cookie(headers.get(b"cookie")) if token is None else None
        try:
            if token is not None:
                return await self.verify_credential(token, scope), "valid"
            if cookie is not None:
                return await self.verify(cookie, carrier="cookie"), "valid"
            return None, "error"
        except PermissionDeniedError:
            return None, "error"
        except TokenInvalidError as error:
            reason = error.context.get("reason")
            if reason == "expired":
                return None, "expired"
            return None, "revoked" if reason == "revoked" else "error"

    def ensure_own_site(self, scope: Mapping[str, Any], *, has_cookie: bool = False) -> None:
        """Check that a browser's unsafe request comes from our own pages or an allowed origin.

        For routes that sign somebody in or act on a cookie which ``authenticate`` doesn't know.

        Args:
            has_cookie: the request acts on a cookie, so that it must prove its origin; without
                one, a caller that shows no sign of being a browser needs no proof.

        Raises:
            CrossSiteRequestError: it comes from elsewhere, or doesn't prove otherwise.
        """
        headers = _headers_of(scope)
        if has_cookie or b"sec-fetch-site" in headers or b"origin" in headers:
            self._ensure_same_site(scope, headers)

    def revoke(self, session_id: str, *, until_seconds: int) -> None:
        """Refuse a session's tokens from now on; forgotten once they have expired anyway.

        Tells the listeners the first time; idempotent.
        """
        now_seconds = int(self._clock.now().timestamp())
        if now_seconds - self._revoked_pruned_at_seconds >= KEY_REFETCH_SECONDS:
            self._revoked_pruned_at_seconds = now_seconds
            self._revoked = {each: end for each, end in self._revoked.items() if end >= now_seconds}
        is_news = session_id not in self._revoked
        self._revoked[session_id] = max(until_seconds, self._revoked.get(session_id, 0))
        if is_news:
            for listener in self._listeners:
                listener(session_id)

    def on_revoke(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with the id of each session that ends, such as to close sockets."""
        self._listeners.append(listener)

    def is_revoked(self, session_id: str) -> bool:
        """Tell whether a session's tokens are refused."""
        return session_id in self._revoked

    async def _verify_api_key(self, text: str, scope: Mapping[str, Any]) -> Principal:
        if self._resolve_api_key is None:
            raise TokenInvalidError("this API key is not accepted")
        principal = await self._resolve_api_key(text, scope)
        if principal.session_id in self._revoked:
            raise TokenInvalidError("this API key was revoked", reason="revoked")
        return principal

    async def _verify_or_none(self, token: str) -> Principal | None:
        try:
            return await self.verify(token, carrier="cookie")
        except TokenInvalidError:
            return None

    async def _verify_signature(self, token: str, carrier: Carrier) -> tuple[Principal, int]:
        """Return the principal and the Unix second until which the key vouches for it."""
        header = _unverified_header(token)
        kind, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
        if header.keys() != {"typ", "alg", "kid"} or not isinstance(kid, str):
            raise TokenInvalidError("the token's header isn't one that we write")
        if kind == "svc+jwt" and algorithm == "ES256":
            return self._verify_service(token, kid), _FOREVER
        if kind != "at+jwt" or algorithm not in SIGNING_ALGORITHMS:
            raise TokenInvalidError("the token is not an access token of this platform")
        key = await self._key(kid)
        claims = _decode(token, key.key, algorithm)
        self._ensure_claims(claims, self._token_seconds_max)
        if not claims["sub"] or not claims["sid"]:
            raise TokenInvalidError("the token lacks its subject")
        principal = Principal(
            user_id=claims["sub"],
            session_id=claims["sid"],
            roles=_names(claims, "roles"),
            scopes=_names(claims, "scopes"),
            carrier=carrier,
            expires_at_seconds=claims["exp"],
        )
        return principal, _FOREVER if key.retires_at is None else key.retires_at

    def _verify_service(self, token: str, kid: str) -> Principal:
        key = self._service_keys.get(kid)
        if key is None:
            raise TokenInvalidError("the service token is not of this platform")
        claims = _decode(token, key.key, "ES256")
        self._ensure_claims(claims, SERVICE_TOKEN_SECONDS)
        if kid != f"svc-{claims['sid']}":
            raise TokenInvalidError("the service token names another module than signed it")
        return Principal(
            user_id=claims["sub"],
            session_id=claims["sid"],
            roles=frozenset({"service"}),
            scopes=_names(claims, "scopes"),
            carrier="service",
            expires_at_seconds=claims["exp"],
        )

    def _ensure_claims(self, claims: Mapping[str, Any], seconds_max: int) -> None:
        now = self._clock.now().timestamp()
        numbers = [claims.get(name) for name in ("exp", "iat", "nbf")]
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in numbers):
            raise TokenInvalidError("the token lacks its times")
        expires, issued, not_before = (int(each) for each in numbers if each is not None)
        if issued > now + LEEWAY_SECONDS or not_before > now + LEEWAY_SECONDS:
            raise TokenInvalidError("the token is from the future")
        if expires <= now:
            raise TokenInvalidError("the token has expired; refresh it or log in", reason="expired")
        if expires - issued > seconds_max:
            raise TokenInvalidError("the token lives longer than we issue any")
        if claims.get("iss") != self._settings.jwt_issuer or claims.get("aud") != AUDIENCE:
            raise TokenInvalidError("the token was issued for something else")
        if not all(isinstance(claims.get(name), str) for name in ("sub", "sid", "jti")):
            raise TokenInvalidError("the token lacks its subject")

    async def _key(self, kid: str) -> _Key:
        key = self._file_keys.get(kid)
        if key is None and self._fetch_keys is not None:
            key = await self._fetched_key(kid, self._fetch_keys)
        if key is None:
            raise TokenInvalidError("the token was signed with a key we don't know")
        return key

    async def _fetched_key(self, kid: str, fetch_keys: FetchKeys) -> _Key | None:
        # Whoever comes while the set is being asked for waits for that one answer.
        async with self._asking:
            key = _usable(self._fetched_keys.get(kid), self._clock)
            is_wanted = key is None or self._is_key_set_old()
            if is_wanted and self._clock.monotonic() >= self._may_ask_at:
                try:
                    self._fetched_keys = _import_jwks(await fetch_keys())
                    self._fetched_at = self._clock.monotonic()
                    self._may_ask_at = self._fetched_at + KEY_REFETCH_SECONDS
                except (UnavailableError, JoseError, ValueError, KeyError, TypeError):
                    # Keys that were good stay so; it is asked again soon, but not by those who
                    # waited for this: one after the other they would wait for each failure.
                    self._fetched_at = None
                    self._may_ask_at = self._clock.monotonic() + KEY_RETRY_SECONDS
                key = _usable(self._fetched_keys.get(kid), self._clock)
            if key is None and self._fetched_at is None:
                raise UnavailableError(
                    "the token can't be verified while auth is away",
                    retry_after_seconds=1,
                    module="auth",
                )
            return key

    def _is_key_set_old(self) -> bool:
        now = self._clock.monotonic()
        return self._fetched_at is None or now - self._fetched_at >= KEY_SET_SECONDS

    def _cookie(self, header: str | None) -> str | None:
        if header is None or self.access_cookie not in header:
            return None
        values = [
            part.partition("=")[2].strip()
            for part in header.split(";")
            if part.partition("=")[0].strip() == self.access_cookie
        ]
        if len(values) > 1:
            raise CarriersDisagreeError(f"the cookie {self.access_cookie} was sent twice")
        return values[0] if values and values[0] else None

    def _ensure_same_site(self, scope: Mapping[str, Any], headers: Mapping[bytes, str]) -> None:
        if scope["type"] == "http" and scope["method"] in _SAFE_METHODS:
            return
        site = headers.get(b"sec-fetch-site")
        origin = headers.get(b"origin")
        if origin is not None and self._is_allowed_origin(origin, headers):
            return
        if site in ("same-origin", "none") and scope["type"] == "http":
            return
        raise CrossSiteRequestError(
            "a cookie sign-in may act only from our own origin; call from there, or send a bearer"
        )

    def _is_allowed_origin(self, origin: str, headers: Mapping[bytes, str]) -> bool:
        if origin in self._settings.allowed_origins:
            return True
        scheme, _, host = origin.partition("://")
        schemes = ("https",) if self._settings.uses_secure_cookies else ("http", "https")
        return scheme in schemes and host != "" and host == headers.get(b"host")


class _KeyFile:
    """A JWKS file, read again when it changed, looked at no more than every few seconds."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._keys: dict[str, _Key] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked_at: float | None = None

    def get(self, kid: str) -> _Key | None:
        """Return a key that verifies now; None where there is none of that id."""
        if kid not in self._keys:
            self._look(self._clock.monotonic())
        return _usable(self._keys.get(kid), self._clock)

    def is_changed(self, now: float) -> bool:
        """Tell whether the file changed since it was asked last; looks every few seconds."""
        if self._looked_at is not None and now - self._looked_at < KEY_RECHECK_SECONDS:
            return False
        return self._look(now)

    def _look(self, now: float) -> bool:
        self._looked_at = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return False
        try:
            self._keys = _import_jwks(read_key_set(self._path)) if stamp else {}
        except FileNotFoundError:
            self._keys = {}
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"the key set {self._path.name} can't be read", retry_after_seconds=5
            ) from error
        self._stamp = stamp
        return True


def access_token_seconds_max(settings: PlatformSettings) -> int:
    """Return how long an access token may live to be accepted here."""
    return ACCESS_TOKEN_SECONDS_MAX if settings.is_production else DEVELOPMENT_TOKEN_SECONDS_MAX


class ServiceTokens:
    """Makes the short tokens by which a process shows the others which module it is."""

    def __init__(self, *, settings: PlatformSettings, module: str, clock: Clock) -> None:
        self._settings = settings
        self._module = module
        self._clock = clock
        self._key: ECKey | None = None
        self._made: OrderedDict[str, tuple[str, int]] = OrderedDict()

    def token(self, *, acting_for: str = "") -> str:
        """Return a token, made anew when less than half of its minute is left.

        Args:
            acting_for: the user in whose name the module asks; "" for itself.
        """
        now = int(self._clock.now().timestamp())
        kept = self._made.get(acting_for)
        if kept is not None and kept[1] - now > SERVICE_TOKEN_SECONDS // 2:
            self._made.move_to_end(acting_for)
            return kept[0]
        if self._key is None:
            path = self._settings.secrets_directory / f"service_{self._module}.pem"
            self._key = ECKey.import_key(path.read_bytes())
        claims = {
            "iss": self._settings.jwt_issuer,
            "aud": AUDIENCE,
            "sub": acting_for,
            "sid": self._module,
            "jti": f"{self._module}-{now}",
            "iat": now,
            "nbf": now,
            "exp": now + SERVICE_TOKEN_SECONDS,
        }
        header = {"alg": "ES256", "typ": "svc+jwt", "kid": f"svc-{self._module}"}
        token = jwt.encode(header, claims, self._key, algorithms=["ES256"])
        self._made[acting_for] = (token, now + SERVICE_TOKEN_SECONDS)
        self._made.move_to_end(acting_for)
        if len(self._made) > SERVICE_TOKENS_MAX:
            self._made.popitem(last=False)
        return token


def _headers_of(scope: Mapping[str, Any]) -> dict[bytes, str]:
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name == b"cookie" and name in headers:
            headers[name] += "; " + value.decode("latin-1")
        elif name in _ONCE and name in headers:
            raise CarriersDisagreeError(f"the header {name.decode()} was sent twice")
        else:
            headers[name] = value.decode("latin-1")
    return headers


def _bearer(authorization: str) -> str | None:
    kind, _, token = authorization.partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _unverified_header(token: str) -> Mapping[str, Any]:
    parts = token.split(".")
    if len(parts) != 3:
        raise TokenInvalidError("the token is not a signed token")
    header, _claims, _signature = (_canonical(part) for part in parts)
    return _object(header)


def _canonical(part: str) -> bytes:
    """Decode base64url of which no other text decodes to the same bytes."""
    if _PART.fullmatch(part) is None:
        raise TokenInvalidError("the token is not a signed token")
    try:
        content = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error as error:
        raise TokenInvalidError("the token is not a signed token") from error
    if base64.urlsafe_b64encode(content).rstrip(b"=") != part.encode():
        raise TokenInvalidError("the token is not a signed token")
    return content


def _object(content: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name twice")
        return found

    try:
        found = json.loads(content, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise TokenInvalidError("the token is not a signed token") from error
    if not isinstance(found, dict):
        raise TokenInvalidError("the token is not a signed token")
    return found


def _decode(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    # The key says what it is for; a token can't choose another algorithm for it.
    if (key.alg or algorithm) != algorithm:
        raise TokenInvalidError("the token's signature is not ours")
    try:
        jwt.decode(token, key, algorithms=[algorithm])
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise TokenInvalidError("the token's signature is not ours") from error
    return _object(_canonical(token.split(".")[1]))


def _names(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    found = claims.get(claim, [])
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise TokenInvalidError(f"the token's {claim} are no list of names")
    return frozenset(found)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino


def _import_jwks(document: Mapping[str, Any]) -> dict[str, _Key]:
    found: dict[str, _Key] = {}
    for public in document["keys"]:
        if public["kty"] not in ("RSA", "EC", "OKP") or "d" in public:
            continue  # a symmetric or private key has no business in a public set
        retires_at = public.get("retires_at")
        key = JWKRegistry.import_key({k: v for k, v in public.items() if k != "retires_at"})
        found[str(public["kid"])] = _Key(key, None if retires_at is None else int(retires_at))
    return found


def _usable(key: _Key | None, clock: Clock) -> _Key | None:
    if key is None or key.retires_at is None or key.retires_at > clock.now().timestamp():
        return key
    return None
