"""Who is asking: tokens verified in-process with the platform's public keys, and cached.

Verification keys are read from this host's ``jwks.json``; where that is absent they are asked
from auth. So every module starts and serves while auth is down.
"""

import base64
import binascii
import hashlib
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import (
    CarriersDisagreeError,
    CrossSiteRequestError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.runtime.secrets import JWKS_FILE, SERVICE_JWKS_FILE
from trading_api.runtime.settings import PlatformSettings

Carrier = Literal["cookie", "bearer", "api_key", "service"]

AUDIENCE = "trading-api"
LEEWAY_SECONDS = 30
TOKEN_LENGTH_MAX = 8192
CACHE_SIZE_MAX = 10_000
KEY_REFETCH_SECONDS = 30
SERVICE_TOKEN_SECONDS = 60
ALGORITHMS = ("RS256", "ES256", "EdDSA")

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Attributes:
        user_id: the user; for a service, the user it acts for, or "" for itself.
        session_id: the sign-in that the token belongs to; for a service its module's name.
        carrier: how the credential came.
        expires_at_seconds: Unix seconds at which the credential ends.
    """

    user_id: str
    session_id: str
    roles: frozenset[str]
    scopes: frozenset[str]
    carrier: Carrier
    expires_at_seconds: int


FetchKeys = Callable[[], Awaitable[Mapping[str, Any]]]
ResolveApiKey = Callable[[str], Awaitable[Principal]]


class Identity:
    """Authenticates requests and WebSocket handshakes of one process.

    Args:
        fetch_keys: asks auth for its JWKS; used where the file lacks the key.
        resolve_api_key: asks auth whose key it is; None where API keys aren't served yet.
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
        self._keys: dict[str, Any] = {}
        self._keys_asked_at: float | None = None
        self._keys_stamp: tuple[int, int] | None = None
        self._service_keys: dict[str, Any] = {}
        self._cache: OrderedDict[bytes, Principal] = OrderedDict()
        self._revoked: dict[str, int] = {}
        secure = settings.uses_secure_cookies
        self.access_cookie = "__Host-access_token" if secure else "access_token"

    async def authenticate(self, scope: Mapping[str, Any]) -> Principal | None:
        """Find the principal of an ASGI HTTP or WebSocket scope; None where there is nobody.

        Raises:
            TokenInvalidError: a credential is there but not accepted.
            CarriersDisagreeError: two credentials name different principals.
            CrossSiteRequestError: a cookie came with an unsafe request from another site.
        """
        headers = _headers_of(scope)
        found: list[Principal] = []
        authorization = headers.get(b"authorization")
        if authorization is not None:
            kind, _, token = authorization.partition(" ")
            if kind.lower() == "bearer":
                found.append(await self.verify(token.strip(), carrier="bearer"))
        api_key = headers.get(b"x-api-key")
        if api_key is not None:
            if self._resolve_api_key is None:
                raise TokenInvalidError("this API key is not accepted")
            found.append(await self._resolve_api_key(api_key))
        cookie = self._cookie(headers.get(b"cookie"))
        if cookie is not None and not found:
            self._ensure_same_site(scope, headers)
            found.append(await self.verify(cookie, carrier="cookie"))
        elif cookie is not None:
            # A browser's leftover cookie of an expired session never spoils another credential.
            beside = await self._verify_or_none(cookie)
            if beside is not None:
                found.append(beside)
        if len({each.user_id for each in found}) > 1:
            raise CarriersDisagreeError("the request's credentials belong to two users; send one")
        return found[0] if found else None

    async def verify(self, token: str, *, carrier: Carrier = "bearer") -> Principal:
        """Verify an access or service token.

        Raises:
            TokenInvalidError: not ours, expired, revoked, of another type, or over 8 KiB.
        """
        if not token or len(token) > TOKEN_LENGTH_MAX:
            raise TokenInvalidError("the token is not accepted")
        digest = hashlib.blake2b(token.encode("utf-8", "replace"), digest_size=16).digest()
        principal = self._cache.get(digest)
        now_seconds = int(self._clock.now().timestamp())
        if principal is None:
            principal = await self._verify_signature(token, carrier)
            self._cache[digest] = principal
            if len(self._cache) > CACHE_SIZE_MAX:
                self._cache.popitem(last=False)
        if principal.expires_at_seconds <= now_seconds:
            self._cache.pop(digest, None)
            raise TokenInvalidError("the token has expired; refresh it or log in", reason="expired")
        if principal.session_id in self._revoked:
            raise TokenInvalidError("this sign-in was ended; log in again", reason="revoked")
        if principal.carrier not in (carrier, "service"):
            return _carried(principal, carrier)
        return principal

    def revoke(self, session_id: str, *, until_seconds: int) -> None:
        """Refuse a session's tokens from now on; forgotten once they have expired anyway."""
        self._revoked[session_id] = until_seconds
        now_seconds = int(self._clock.now().timestamp())
        for expired in [each for each, end in self._revoked.items() if end < now_seconds]:
            del self._revoked[expired]

    def is_revoked(self, session_id: str) -> bool:
        """Tell whether a session's tokens are refused."""
        return session_id in self._revoked

    def forget_cached(self) -> None:
        """Drop every cached verification and key, after keys changed."""
        self._cache.clear()
        self._keys.clear()
        self._keys_stamp = None

    async def _verify_or_none(self, token: str) -> Principal | None:
        try:
            return await self.verify(token, carrier="cookie")
        except TokenInvalidError:
            return None

    async def _verify_signature(self, token: str, carrier: Carrier) -> Principal:
        header = _unverified_header(token)
        if header.get("typ") == "svc+jwt":
            return self._verify_service(token, header)
        if header.get("typ") != "at+jwt" or header.get("alg") not in ALGORITHMS:
            raise TokenInvalidError("the token is not an access token of this platform")
        if header.keys() - {"typ", "alg", "kid"}:
            raise TokenInvalidError("the token's header holds what we don't issue")
        key = await self._key(str(header.get("kid", "")))
        claims = _decode(token, key, [str(header["alg"])])
        self._ensure_claims(claims)
        return Principal(
            user_id=claims["sub"],
            session_id=claims["sid"],
            roles=frozenset(claims.get("roles", ())),
            scopes=frozenset(claims.get("scopes", ())),
            carrier=carrier,
            expires_at_seconds=claims["exp"],
        )

    def _verify_service(self, token: str, header: Mapping[str, Any]) -> Principal:
        kid = str(header.get("kid", ""))
        if kid not in self._service_keys:
            path = self._settings.secrets_directory / SERVICE_JWKS_FILE
            self._service_keys = _read_jwks(path)
        key = self._service_keys.get(kid)
        if key is None or header.get("alg") != "ES256":
            raise TokenInvalidError("the service token is not of this platform")
        claims = _decode(token, key, ["ES256"])
        self._ensure_claims(claims)
        return Principal(
            user_id=claims["sub"],
            session_id=claims["sid"],
            roles=frozenset({"service"}),
            scopes=frozenset(claims.get("scopes", ())),
            carrier="service",
            expires_at_seconds=claims["exp"],
        )

    def _ensure_claims(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now().timestamp()
        numbers = [claims.get(name) for name in ("exp", "iat", "nbf")]
        if not all(isinstance(each, int) and not isinstance(each, bool) for each in numbers):
            raise TokenInvalidError("the token lacks its times")
        expires, issued, not_before = (int(each) for each in numbers if each is not None)
        if issued > now + LEEWAY_SECONDS or not_before > now + LEEWAY_SECONDS:
            raise TokenInvalidError("the token is from the future")
        if expires <= now:
            raise TokenInvalidError("the token has expired; refresh it or log in", reason="expired")
        if claims.get("iss") != self._settings.jwt_issuer or claims.get("aud") != AUDIENCE:
            raise TokenInvalidError("the token was issued for something else")
        if not all(isinstance(claims.get(name), str) for name in ("sub", "sid", "jti")):
            raise TokenInvalidError("the token lacks its subject")

    async def _key(self, kid: str) -> Any:
        path = self._settings.secrets_directory / JWKS_FILE
        if kid not in self._keys:
            stamp = _stamp(path)
            if stamp is not None and stamp != self._keys_stamp:
                self._keys_stamp = stamp
                self._keys = _read_jwks(path)
        if kid not in self._keys and self._fetch_keys is not None and self._may_ask():
            try:
                self._keys |= _import_jwks(await self._fetch_keys())
            except UnavailableError as error:
                raise TokenInvalidError("the token can't be verified right now") from error
        key = self._keys.get(kid)
        if key is None:
            raise TokenInvalidError("the token was signed with a key we don't know")
        return key

    def _may_ask(self) -> bool:
        now = self._clock.monotonic()
        if self._keys_asked_at is not None and now - self._keys_asked_at < KEY_REFETCH_SECONDS:
            return False
        self._keys_asked_at = now
        return True

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
        return scheme in ("http", "https") and host != "" and host == headers.get(b"host")


class ServiceTokens:
    """Makes the short tokens by which a process shows the others which module it is."""

    def __init__(self, *, settings: PlatformSettings, module: str, clock: Clock) -> None:
        self._settings = settings
        self._module = module
        self._clock = clock
        self._key: ECKey | None = None
        self._made: dict[str, tuple[str, int]] = {}

    def token(self, *, acting_for: str = "") -> str:
        """Return a token, made anew when less than half of its minute is left.

        Args:
            acting_for: the user in whose name the module asks; "" for itself.
        """
        now = int(self._clock.now().timestamp())
        kept = self._made.get(acting_for)
        if kept is not None and kept[1] - now > SERVICE_TOKEN_SECONDS // 2:
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
        if len(self._made) > 1000:
            self._made.clear()
        self._made[acting_for] = (token, now + SERVICE_TOKEN_SECONDS)
        return token


def _headers_of(scope: Mapping[str, Any]) -> dict[bytes, str]:
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name == b"cookie" and name in headers:
            headers[name] += "; " + value.decode("latin-1")
        elif name in (b"authorization", b"x-api-key") and name in headers:
            raise CarriersDisagreeError(f"the header {name.decode()} was sent twice")
        else:
            headers[name] = value.decode("latin-1")
    return headers


def _unverified_header(token: str) -> Mapping[str, Any]:

    parts = token.split(".")
    if len(parts) != 3:
        raise TokenInvalidError("the token is not a signed token")
    try:
        raw = base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4))
        header = json.loads(raw)
    except (binascii.Error, ValueError, RecursionError) as error:
        raise TokenInvalidError("the token is not a signed token") from error
    if not isinstance(header, dict):
        raise TokenInvalidError("the token is not a signed token")
    return header


def _decode(token: str, key: Any, algorithms: list[str]) -> dict[str, Any]:
    try:
        return dict(jwt.decode(token, key, algorithms=algorithms).claims)
    except (JoseError, ValueError, KeyError, TypeError) as error:
        raise TokenInvalidError("the token's signature is not ours") from error


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _read_jwks(path: Path) -> dict[str, Any]:
    try:
        return _import_jwks(json.loads(path.read_text()))
    except FileNotFoundError:
        return {}


def _import_jwks(document: Mapping[str, Any]) -> dict[str, Any]:
    keys = KeySet.import_key_set({"keys": list(document["keys"])})
    return {str(key.kid): key for key in keys.keys}


def _carried(principal: Principal, carrier: Carrier) -> Principal:
    return Principal(
        principal.user_id,
        principal.session_id,
        principal.roles,
        principal.scopes,
        carrier,
        principal.expires_at_seconds,
    )
