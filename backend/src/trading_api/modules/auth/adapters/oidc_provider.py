"""An OpenID Connect provider, such as Google: where to send people, and what its answers prove.

The protocol's texts and claims are Authlib's; signatures are joserfc's. The provider's addresses
come from its discovery document, whose issuer must be the configured one (OpenID Connect
Discovery, section 4.3), and its keys from there; both are kept for a while. An unknown key is
looked for at most once in half a minute.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from trading_api.kernel.errors import UnavailableError
from trading_api.modules.auth.domain.external import ExternalUser
from trading_api.modules.auth.errors import ExternalSignInRefusedError

log = structlog.get_logger("auth")

TIMEOUT_SECONDS = 5.0
ANSWER_BYTES_MAX = 1024 * 1024
METADATA_SECONDS = 3600.0
KEY_REFETCH_SECONDS = 30.0
RETRY_SECONDS = 5.0
"""How long a provider that failed isn't asked; else people would wait for each failure in turn."""

LEEWAY_SECONDS = 30
TOKEN_LENGTH_MAX = 16 * 1024

_ALGORITHMS = ["RS256", "ES256", "PS256", "EdDSA"]
"""Asymmetric ones alone: with HS256 everybody who knows the client's secret could sign."""

GOOGLE_ISSUER = "https://accounts.google.com"

_VARIABLE = re.compile(
    r"OIDC_([A-Z][A-Z0-9]{0,31})_(ISSUER|CLIENT_ID|CLIENT_SECRET|SCOPES|DISCOVERY_URL)"
)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class OidcClient:
    """What an operator tells of a provider.

    Attributes:
        name: in our URLs.
        issuer: exactly as the provider writes it.
        discovery_url: of its metadata; None for the issuer's usual place.
    """

    name: str
    issuer: str
    client_id: str
    client_secret: str
    scopes: str = "openid email profile"
    discovery_url: str | None = None

    def ensure_safe(self, *, is_production: bool) -> None:
        """Check that the provider is asked over TLS; in development loopback will do.

        Raises:
            ValueError: it isn't.
        """
        for url in filter(None, (self.issuer, self.discovery_url)):
            _ensure_safe(url, allows_loopback=not is_production)


def read_clients(
    environ: Mapping[str, str], *, google_id: str, google_secret: str, is_production: bool
) -> list[OidcClient]:
    """Read ``OIDC_<NAME>_*`` from the environment, and add Google.

    Args:
        google_id: of our client there; "" for no Google.

    Raises:
        ValueError: one is incomplete or unsafe; names the variable, never its value.
    """
    fields: dict[str, dict[str, str]] = {}
    for variable, value in environ.items():
        found = _VARIABLE.fullmatch(variable.upper())
        if found is not None and value:
            fields.setdefault(found[1].lower(), {})[found[2].lower()] = value
    if google_id:
        google = fields.setdefault("google", {})
        google.setdefault("client_id", google_id)
        google.setdefault("client_secret", google_secret)
        google.setdefault("issuer", GOOGLE_ISSUER)
    clients = []
    for name, given in sorted(fields.items()):
        for needed in ("issuer", "client_id", "client_secret"):
            if not given.get(needed):
                raise ValueError(f"OIDC_{name.upper()}_{needed.upper()}: needed")
        client = OidcClient(name=name, **given)
        try:
            client.ensure_safe(is_production=is_production)
        except ValueError as error:
            raise ValueError(f"OIDC_{name.upper()}_ISSUER: {error}") from error
        clients.append(client)
    return clients


class OidcProvider:
    """Speaks with one provider.

    Args:
        allows_loopback: plain HTTP to this host is fine, in development.
        transport: the usual one where None.
        unix_seconds: the clock that tokens are judged by.
    """

    def __init__(
        self,
        client: OidcClient,
        *,
        allows_loopback: bool,
        unix_seconds: Callable[[], float],
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._client = client
        self._allows_loopback = allows_loopback
        self._unix_seconds = unix_seconds
        self._transport = transport
        self._metadata: dict[str, Any] = {}
        self._metadata_at = 0.0
        self._keys: KeySet | None = None
        self._keys_at = 0.0
        self._retry_at = 0.0
        self._turn = asyncio.Lock()

    @property
    def name(self) -> str:
        """The provider's name in our URLs."""
        return self._client.name

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, verifier: str
    ) -> str:
        """Return where to send a browser: the code flow with PKCE S256.

        Raises:
            UnavailableError: the provider can't be asked where that is.
        """
        metadata = await self._load_metadata()
        url: str = prepare_grant_uri(
            metadata["authorization_endpoint"],
            client_id=self._client.client_id,
            response_type="code",
            redirect_uri=redirect_uri,
            scope=self._client.scopes,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return url

    async def exchange(
        self, *, code: str, issuer: str | None, redirect_uri: str, verifier: str, nonce: str
    ) -> ExternalUser:
        """Exchange a code for an ID token, and return whom it names.

        Args:
            issuer: ``iss`` of the answer (RFC 9207), None where it had none.

        Raises:
            ExternalSignInRefusedError: the provider refuses the code, or its token isn't good.
            UnavailableError: the provider doesn't answer.
        """
        metadata = await self._load_metadata()
        says_issuer = metadata.get("authorization_response_iss_parameter_supported") is True
        if issuer != self._client.issuer and (issuer is not None or says_issuer):
            raise ExternalSignInRefusedError("the answer came from another provider")
        answer = await self._request(
            "POST",
            metadata["token_endpoint"],
            data={
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": redirect_uri,
                "code_verifier": verifier,
            },
            auth=(self._client.client_id, self._client.client_secret),
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise ExternalSignInRefusedError("the provider did not accept this sign-in")
        return await self.verify_id_token(
            token, nonce=nonce, access_token=answer.get("access_token")
        )

    async def verify_id_token(
        self,
        token: str,
        *,
        nonce: str | None,
        access_token: object = None,
        age_seconds_max: int | None = None,
    ) -> ExternalUser:
        """Return whom an ID token of this provider for us names.

        Args:
            nonce: it must repeat; None where none was asked for.
            access_token: what came beside it, which it must match where it says so.
            age_seconds_max: how old it may be; None for its own end alone.

        Raises:
            ExternalSignInRefusedError: it is forged, expired, or for somebody else.
            UnavailableError: the provider's keys can't be had.
        """
        if len(token) > TOKEN_LENGTH_MAX:
            raise ExternalSignInRefusedError("the provider's token is not accepted")
        header, claims = await self._verify_signature(token)
        options = {"iss": {"essential": True, "value": self._client.issuer}}
        parameters: dict[str, object] = {"client_id": self._client.client_id}
        if nonce is not None:
            parameters["nonce"] = nonce
        if isinstance(access_token, str):
            parameters["access_token"] = access_token
        found = CodeIDToken(claims, header, options=options, params=parameters)
        now = int(self._unix_seconds())
        try:
            found.validate(now=now, leeway=LEEWAY_SECONDS)
            audience = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
            if audience != [self._client.client_id]:
                # A token for several clients could be passed on to us by one of the others.
                raise ValueError("for another client")
            issued_at = int(claims["iat"])
            if not isinstance(claims["sub"], str) or not claims["sub"]:
                raise ValueError("about nobody")
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ExternalSignInRefusedError("the provider's token is not accepted") from error
        if age_seconds_max is not None and now - issued_at > age_seconds_max + LEEWAY_SECONDS:
            raise ExternalSignInRefusedError("the provider's token is too old; sign in again")
        return _user(claims)

    async def _verify_signature(self, token: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a token's header and claims.

        Raises:
            ExternalSignInRefusedError: its signature isn't the provider's.
        """
        keys = await self._load_keys(is_fresh_wanted=False)
        for is_last in (False, True):
            try:
                found = jwt.decode(token, keys, algorithms=_ALGORITHMS)
            except (JoseError, ValueError, TypeError, KeyError) as error:
                newer = None if is_last else await self._load_keys(is_fresh_wanted=True)
                if newer is None or newer is keys:
                    message = "the provider's token is not accepted"
                    raise ExternalSignInRefusedError(message) from error
                keys = newer
            else:
                return dict(found.header), dict(found.claims)
        raise AssertionError("both rounds return or raise")

    async def _load_metadata(self) -> dict[str, Any]:
        async with self._turn:
            now = time.monotonic()
            is_old = now - self._metadata_at >= METADATA_SECONDS
            if (is_old or not self._metadata) and now >= self._retry_at:
                try:
                    self._metadata = await self._ask_metadata()
                    self._metadata_at = now
                except (UnavailableError, ExternalSignInRefusedError, ValueError) as error:
                    self._note_failure("metadata", error)
            if not self._metadata:
                raise _unavailable()
            return self._metadata

    async def _ask_metadata(self) -> dict[str, Any]:
        url = self._client.discovery_url
        if url is None:
            url = self._client.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = await self._request("GET", url)
        if found.get("issuer") != self._client.issuer:
            raise UnavailableError("the provider calls itself by another name")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _ensure_safe(str(found.get(name)), allows_loopback=self._allows_loopback)
        return found

    async def _load_keys(self, *, is_fresh_wanted: bool) -> KeySet:
        metadata = await self._load_metadata()
        async with self._turn:
            now = time.monotonic()
            age_max = KEY_REFETCH_SECONDS if is_fresh_wanted else METADATA_SECONDS
            is_old = now - self._keys_at >= age_max
            if (is_old or self._keys is None) and now >= self._retry_at:
                try:
                    document = await self._request("GET", metadata["jwks_uri"])
                    self._keys, self._keys_at = _public_keys(document), now
                except (
                    UnavailableError,
                    ExternalSignInRefusedError,
                    JoseError,
                    ValueError,
                    KeyError,
                    TypeError,
                ) as error:
                    self._note_failure("keys", error)
            if self._keys is None:
                raise _unavailable()
            return self._keys

    def _note_failure(self, what: str, error: Exception) -> None:
        """Have what was had before stand for a while."""
        log.warning("provider_failed", provider=self.name, what=what, reason=str(error)[:200])
        self._retry_at = time.monotonic() + RETRY_SECONDS

    async def _request(self, method: str, url: str, **options: Any) -> dict[str, Any]:
        """Ask the provider; a refusal of it is a refusal of the sign-in.

        Raises:
            ExternalSignInRefusedError: it answered 4xx.
            UnavailableError: it didn't answer in time, or nonsense.
        """
        try:
            async with (
                httpx.AsyncClient(
                    transport=self._transport,
                    timeout=TIMEOUT_SECONDS,
                    follow_redirects=False,
                    trust_env=False,
                ) as client,
                asyncio.timeout(TIMEOUT_SECONDS),
                client.stream(method, url, **options) as answer,
            ):
                content = b""
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > ANSWER_BYTES_MAX:
                        raise _unavailable()
        except (httpx.HTTPError, TimeoutError) as error:
            raise _unavailable() from error
        if 400 <= answer.status_code < 500:
            raise ExternalSignInRefusedError("the provider did not accept this sign-in")
        if answer.status_code != 200:
            raise _unavailable()
        try:
            found = json.loads(content)
        except ValueError as error:
            raise _unavailable() from error
        if not isinstance(found, dict):
            raise _unavailable()
        return found


def _user(claims: Mapping[str, Any]) -> ExternalUser:
    email, picture, name = claims.get("email"), claims.get("picture"), claims.get("name")
    return ExternalUser(
        issuer=claims["iss"],
        subject=claims["sub"],
        email=email if isinstance(email, str) else None,
        # The text "true" of some providers is no proof.
        is_email_verified=claims.get("email_verified") is True,
        full_name=name if isinstance(name, str) else "",
        picture=picture if isinstance(picture, str) and picture.startswith("https://") else None,
    )


def _public_keys(document: Mapping[str, Any]) -> KeySet:
    public = [each for each in document["keys"] if each["kty"] in ("RSA", "EC", "OKP")]
    return KeySet.import_key_set({"keys": public})


def _ensure_safe(url: str, *, allows_loopback: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname and not parts.username:
        return
    if parts.scheme == "http" and parts.hostname in _LOOPBACK and allows_loopback:
        return
    raise ValueError(f"a provider is asked by https: {url[:200]!r}")


def _unavailable() -> UnavailableError:
    return UnavailableError(
        "the sign-in provider doesn't answer; try again, or use a password", retry_after_seconds=5
    )
