"""Tokens that must not be believed, and requests that must not be acted on."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from trading_api.kernel.errors import (
    CarriersDisagreeError,
    CrossSiteRequestError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.runtime.identity import AUDIENCE, Identity, ServiceTokens
from trading_api.runtime.secrets import (
    JWKS_FILE,
    PRIVATE_KEY_FILE,
    ensure_secrets,
    rotate_signing_key,
)
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock


class Forge:
    """Writes tokens with a host's own key, right or wrong in one point."""

    def __init__(self, directory: Path, clock: FixedClock) -> None:
        pem = (directory / PRIVATE_KEY_FILE).read_bytes()
        self.key = RSAKey.import_key(pem, {"use": "sig", "alg": "RS256"})
        self.key.ensure_kid()
        self.clock = clock

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(self.clock.now().timestamp())
        claims = {
            "iss": "trading-api",
            "aud": AUDIENCE,
            "sub": "usr_ann",
            "sid": "ses_one",
            "jti": "jti_one",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "roles": ["user"],
            "scopes": ["broker:trade"],
        }
        return {name: value for name, value in {**claims, **changes}.items() if value is not None}

    def header(self, **changes: Any) -> dict[str, Any]:
        header = {"alg": "RS256", "kid": self.key.kid, "typ": "at+jwt"}
        return {name: value for name, value in {**header, **changes}.items() if value is not None}

    def token(self, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        return self.signed(self.header(**(header or {})), self.claims(**claims))

    def signed(self, header: Mapping[str, Any] | str, claims: Mapping[str, Any] | str) -> str:
        """Sign anything at all with RS256."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        content = f"{encode(header)}.{encode(claims)}"
        private_key = self.key.private_key
        assert private_key is not None
        signature = private_key.sign(content.encode(), PKCS1v15(), SHA256())
        return f"{content}.{encode(signature)}"


def encode(content: Any) -> str:
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    raw = content.encode() if isinstance(content, str) else content
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.fixture
def identity(settings: PlatformSettings, clock: FixedClock) -> Identity:
    return Identity(settings=settings, clock=clock)


@pytest.fixture
def forge(settings: PlatformSettings, clock: FixedClock) -> Forge:
    return Forge(settings.secrets_directory, clock)


def scope_of(
    method: str = "GET", *, kind: str = "http", **headers: str | list[str]
) -> dict[str, Any]:
    listed = []
    for name, values in headers.items():
        for value in [values] if isinstance(values, str) else values:
            listed.append((name.replace("_", "-").encode(), value.encode("latin-1")))
    return {"type": kind, "method": method, "path": "/", "headers": listed}


async def test_verify_when_ours_then_principal_as_the_claims_tell(
    identity: Identity, forge: Forge, clock: FixedClock
) -> None:
    principal = await identity.verify(forge.token())
    assert (principal.user_id, principal.session_id) == ("usr_ann", "ses_one")
    assert principal.roles == {"user"}
    assert principal.scopes == {"broker:trade"}
    assert principal.carrier == "bearer"
    assert principal.expires_at_seconds == int(clock.now().timestamp()) + 300
    as_cookie = await identity.verify(forge.token(), carrier="cookie")
    assert as_cookie.carrier == "cookie"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "None"},
        {"alg": "nOnE"},
        {"alg": "HS256"},
        {"alg": "RS384"},
        {"alg": "PS256"},
        {"alg": "ES256"},
        {"alg": "EdDSA"},
        {"alg": None},
        {"alg": ["RS256"]},
        {"typ": "JWT"},
        {"typ": "AT+JWT"},
        {"typ": "application/at+jwt"},
        {"typ": "svc+jwt"},
        {"typ": None},
        {"kid": None},
        {"kid": ""},
        {"kid": "../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"kid": 7},
        {"kid": ["x"]},
        {"crit": ["exp"]},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
        {"cty": "JWT"},
    ],
)
async def test_verify_when_header_is_another_then_refused(
    identity: Identity, forge: Forge, header: dict[str, Any]
) -> None:
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.token(header=header))


@pytest.mark.parametrize("algorithm", ["HS256", "RS256"])
async def test_verify_when_signed_with_the_public_key_as_a_secret_then_refused(
    identity: Identity, forge: Forge, algorithm: str
) -> None:
    public = forge.key.as_pem(private=False)
    content = f"{encode(forge.header(alg=algorithm))}.{encode(forge.claims())}"
    forged = hmac.digest(public, content.encode(), hashlib.sha256)
    with pytest.raises(TokenInvalidError):
        await identity.verify(f"{content}.{encode(forged)}")


async def test_verify_when_signed_by_another_key_of_that_id_then_refused(
    identity: Identity, forge: Forge
) -> None:
    key = RSAKey.generate_key(2048, {"alg": "RS256"})
    token = jwt.encode(forge.header(), forge.claims(), key, algorithms=["RS256"])
    with pytest.raises(TokenInvalidError):
        await identity.verify(token)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "somebody-else"},
        {"iss": None},
        {"aud": "other-api"},
        {"aud": [AUDIENCE]},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sid": None},
        {"sid": ""},
        {"jti": None},
        {"exp": None},
        {"exp": "1772462000"},
        {"exp": 1e308},
        {"exp": -1},
        {"exp": True},
        {"exp": 1772461800.5},
        {"exp": 2**70},
        {"iat": None},
        {"iat": "now"},
        {"nbf": None},
        {"nbf": {}},
        {"roles": "admin"},
        {"roles": [["admin"]]},
        {"roles": {"admin": 1}},
        {"scopes": "broker:trade"},
        {"scopes": [1]},
    ],
)
async def test_verify_when_claim_is_odd_then_refused(
    identity: Identity, forge: Forge, claims: dict[str, Any]
) -> None:
    right = forge.claims()
    odd = {**right, **claims}
    odd = {name: value for name, value in odd.items() if value is not None}
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.signed(forge.header(), odd))


@pytest.mark.parametrize(
    ("seconds", "is_good"),
    [({"iat": 30, "nbf": 30}, True), ({"iat": 31}, False), ({"nbf": 31}, False)],
)
async def test_verify_when_clocks_differ_then_half_a_minute_is_forgiven(
    identity: Identity, forge: Forge, clock: FixedClock, seconds: dict[str, int], is_good: bool
) -> None:
    now = int(clock.now().timestamp())
    times: dict[str, Any] = {name: now + each for name, each in seconds.items()}
    token = forge.token(**times)
    if is_good:
        await identity.verify(token)
    else:
        with pytest.raises(TokenInvalidError):
            await identity.verify(token)


async def test_verify_when_it_lives_too_long_then_refused_in_production(
    settings: PlatformSettings, forge: Forge, clock: FixedClock
) -> None:
    now = int(clock.now().timestamp())
    production = Identity(
        settings=settings.model_copy(update={"environment": "production"}), clock=clock
    )
    await production.verify(forge.token(exp=now + 600))
    with pytest.raises(TokenInvalidError):
        await production.verify(forge.token(exp=now + 601))
    development = Identity(settings=settings, clock=clock)
    await development.verify(forge.token(exp=now + 12 * 3600))
    with pytest.raises(TokenInvalidError):
        await development.verify(forge.token(exp=now + 12 * 3600 + 1))


async def test_verify_when_expired_then_refused_though_it_was_cached(
    identity: Identity, forge: Forge, clock: FixedClock
) -> None:
    token = forge.token()
    clock.advance(299)
    await identity.verify(token)
    clock.advance(1)
    with pytest.raises(TokenInvalidError) as refused:
        await identity.verify(token)
    assert refused.value.context["reason"] == "expired"


async def test_verify_when_any_character_is_changed_then_refused(
    identity: Identity, forge: Forge
) -> None:
    token = forge.token()
    await identity.verify(token)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for position, character in enumerate(token):
        # The neighbour in the alphabet differs in the lowest bits, which decoders drop.
        changed = "A" if character == "." else alphabet[alphabet.index(character) ^ 1]
        with pytest.raises(TokenInvalidError):
            await identity.verify(token[:position] + changed + token[position + 1 :])


async def test_verify_when_bytes_are_the_same_but_not_the_text_then_refused(
    identity: Identity, forge: Forge
) -> None:
    header, claims, signature = forge.token().split(".")
    for token in (
        f"{header}.{claims}.{signature}=",
        f"{header}.{claims}.{signature}==",
        f"{header}.{claims}.{signature}\n",
        f" {header}.{claims}.{signature}",
        f"{header}=.{claims}.{signature}",
        f"{header}.{claims}.{signature[:8]}!{signature[8:]}",
        f"{header}.{claims}.",
        f"{header}.{claims}",
        f"{header}.{claims}.{signature}.",
        f"{header}..{claims}.{signature}.x",
        f".{claims}.{signature}",
        "..",
        "",
        "a.b.c",
        "\x00.\x00.\x00",
        "ä.ö.ü",
        "\ud800.a.b",
    ):
        with pytest.raises(TokenInvalidError):
            await identity.verify(token)


async def test_verify_when_a_name_is_there_twice_then_refused(
    identity: Identity, forge: Forge
) -> None:
    claims = json.dumps(forge.claims())
    twice = claims[:-1] + ', "sub": "usr_eve"}'
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.signed(forge.header(), twice))
    header = json.dumps(forge.header())
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.signed(header[:-1] + ', "alg": "RS256"}', claims))


@pytest.mark.parametrize("header", ["[]", "null", "7", '"x"', "{", "\xff", "[" * 3000])
async def test_verify_when_header_is_no_object_then_refused(
    identity: Identity, forge: Forge, header: str
) -> None:
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.signed(header, forge.claims()))


async def test_verify_when_over_8_kib_then_refused_unread(identity: Identity, forge: Forge) -> None:
    with pytest.raises(TokenInvalidError) as refused:
        await identity.verify(forge.token(padding="x" * 8192))
    assert refused.value.message == "the token is not accepted"
    with pytest.raises(TokenInvalidError):
        await identity.verify("x" * 2_000_000)


async def test_verify_when_jwe_of_five_parts_then_refused(identity: Identity) -> None:
    with pytest.raises(TokenInvalidError):
        await identity.verify(".".join([encode({"alg": "dir", "enc": "A128GCM"})] * 5))


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_verify_when_key_is_of_another_kind_then_its_own_algorithm_works(
    settings: PlatformSettings, clock: FixedClock, forge: Forge, algorithm: str
) -> None:
    from joserfc.jwk import OKPKey

    key: Any
    if algorithm == "ES256":
        key = ECKey.generate_key("P-256", {"use": "sig", "alg": algorithm}, auto_kid=True)
    else:
        key = OKPKey.generate_key("Ed25519", {"use": "sig", "alg": algorithm}, auto_kid=True)

    async def fetch() -> Mapping[str, Any]:
        return {"keys": [key.as_dict(private=False)]}

    identity = Identity(settings=settings, clock=clock, fetch_keys=fetch)
    header = forge.header(alg=algorithm, kid=key.kid)
    token = jwt.encode(header, forge.claims(), key, algorithms=[algorithm])
    assert (await identity.verify(token)).user_id == "usr_ann"
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.token(header={"kid": key.kid}))


async def test_keys_when_set_holds_secret_or_private_ones_then_they_verify_nothing(
    settings: PlatformSettings, clock: FixedClock, forge: Forge
) -> None:
    own = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)

    async def fetch() -> Mapping[str, Any]:
        return {
            "keys": [
                {"kty": "oct", "k": encode(b"x" * 32), "kid": "shared", "alg": "HS256"},
                own.as_dict(private=True),
            ]
        }

    identity = Identity(settings=settings, clock=clock, fetch_keys=fetch)
    token = jwt.encode(forge.header(kid=own.kid), forge.claims(), own, algorithms=["RS256"])
    with pytest.raises(TokenInvalidError):
        await identity.verify(token)


async def test_keys_when_id_is_unknown_then_asked_for_once_in_thirty_seconds(
    settings: PlatformSettings, clock: FixedClock, forge: Forge
) -> None:
    asked = 0

    async def fetch() -> Mapping[str, Any]:
        nonlocal asked
        asked += 1
        return {"keys": []}

    identity = Identity(settings=settings, clock=clock, fetch_keys=fetch)
    for n in range(100):
        with pytest.raises(TokenInvalidError):
            await identity.verify(forge.token(header={"kid": f"unknown-{n}"}))
    assert asked == 1
    clock.advance(30)
    with pytest.raises(TokenInvalidError):
        await identity.verify(forge.token(header={"kid": "unknown"}))
    assert asked == 2


async def test_keys_when_many_wait_then_one_question_answers_all(
    settings: PlatformSettings, clock: FixedClock, forge: Forge
) -> None:
    asked = 0
    answer = asyncio.Event()

    async def fetch() -> Mapping[str, Any]:
        nonlocal asked
        asked += 1
        await answer.wait()
        return {"keys": [forge.key.as_dict(private=False)]}

    elsewhere = settings.model_copy(update={"trading_local_dir": Path("/nonexistent")})
    identity = Identity(settings=elsewhere, clock=clock, fetch_keys=fetch)
    waiting = [asyncio.ensure_future(identity.verify(forge.token(jti=str(n)))) for n in range(10)]
    await asyncio.sleep(0)
    answer.set()
    assert {each.user_id for each in await asyncio.gather(*waiting)} == {"usr_ann"}
    assert asked == 1


async def test_keys_when_auth_is_away_then_unavailable_and_good_ones_stay_good(
    settings: PlatformSettings, clock: FixedClock, forge: Forge
) -> None:
    is_there, asked = False, 0

    async def fetch() -> Mapping[str, Any]:
        nonlocal asked
        if not is_there:
            asked += 1
            clock.advance(2)  # it hangs
            raise UnavailableError("away")
        return {"keys": [forge.key.as_dict(private=False)]}

    elsewhere = settings.model_copy(update={"trading_local_dir": Path("/nonexistent")})
    identity = Identity(settings=elsewhere, clock=clock, fetch_keys=fetch)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await identity.verify(forge.token())
    assert asked == 1, "who waited for the failure doesn't wait for another one"
    is_there = True
    clock.advance(1)
    await identity.verify(forge.token(jti="a"))
    is_there = False
    clock.advance(400)
    await identity.verify(forge.token(jti="b"))


async def test_keys_when_rotated_then_both_verify_until_the_old_one_retires(
    environ: dict[str, str], settings: PlatformSettings, clock: FixedClock, tmp_path: Path
) -> None:
    local = tmp_path / "rotating"
    ensure_secrets(local / "secrets")
    own = settings.model_copy(update={"trading_local_dir": local})
    identity = Identity(settings=own, clock=clock)
    old = Forge(own.secrets_directory, clock)
    await identity.verify(old.token())
    now = int(clock.now().timestamp())
    rotate_signing_key(own.secrets_directory, now_seconds=now, overlap_seconds=200)
    new = Forge(own.secrets_directory, clock)
    assert new.key.kid != old.key.kid
    cached = old.token(jti="cached")
    await identity.verify(new.token())
    await identity.verify(cached)
    clock.advance(199)
    await identity.verify(cached)
    clock.advance(1)
    for token in (cached, old.token(jti="fresh")):
        with pytest.raises(TokenInvalidError):
            await identity.verify(token)
    await identity.verify(new.token(jti="fresh"))


async def test_keys_when_one_leaked_then_without_overlap_even_cached_tokens_are_refused(
    settings: PlatformSettings, clock: FixedClock, tmp_path: Path
) -> None:
    local = tmp_path / "leaking"
    ensure_secrets(local / "secrets")
    own = settings.model_copy(update={"trading_local_dir": local})
    identity = Identity(settings=own, clock=clock)
    token = Forge(own.secrets_directory, clock).token()
    await identity.verify(token)
    now = int(clock.now().timestamp())
    rotate_signing_key(own.secrets_directory, now_seconds=now, overlap_seconds=0)
    clock.advance(5)
    with pytest.raises(TokenInvalidError):
        await identity.verify(token)


async def test_keys_when_file_is_broken_then_unavailable(
    settings: PlatformSettings, clock: FixedClock, forge: Forge, tmp_path: Path
) -> None:
    local = tmp_path / "broken"
    (local / "secrets").mkdir(parents=True)
    (local / "secrets" / JWKS_FILE).write_text('{"keys": [')
    own = settings.model_copy(update={"trading_local_dir": local})
    with pytest.raises(UnavailableError):
        await Identity(settings=own, clock=clock).verify(forge.token())


async def test_revoke_then_cached_token_is_refused_and_listeners_hear_it_once(
    identity: Identity, forge: Forge, clock: FixedClock
) -> None:
    heard: list[str] = []
    identity.on_revoke(heard.append)
    token = forge.token()
    await identity.verify(token)
    until = int(clock.now().timestamp()) + 300
    identity.revoke("ses_one", until_seconds=until)
    identity.revoke("ses_one", until_seconds=until - 100)
    with pytest.raises(TokenInvalidError) as refused:
        await identity.verify(token)
    assert refused.value.context["reason"] == "revoked"
    await identity.verify(forge.token(sid="ses_two"))
    assert heard == ["ses_one"]


async def test_revoke_when_its_tokens_have_expired_then_forgotten(
    identity: Identity, clock: FixedClock
) -> None:
    now = int(clock.now().timestamp())
    identity.revoke("ses_one", until_seconds=now + 60)
    clock.advance(59)
    identity.revoke("ses_two", until_seconds=now + 1000)
    assert identity.is_revoked("ses_one")
    clock.advance(31)
    identity.revoke("ses_three", until_seconds=now + 1000)
    assert not identity.is_revoked("ses_one")
    assert identity.is_revoked("ses_two")


async def test_service_token_then_only_as_bearer_and_only_of_its_own_module(
    settings: PlatformSettings, identity: Identity, clock: FixedClock
) -> None:
    token = ServiceTokens(settings=settings, module="broker", clock=clock).token(
        acting_for="usr_ann"
    )
    principal = await identity.verify(token)
    assert (principal.carrier, principal.session_id) == ("service", "broker")
    assert principal.user_id == "usr_ann"
    assert principal.roles == {"service"}
    with pytest.raises(TokenInvalidError):
        await identity.verify(token, carrier="cookie")
    key = ECKey.import_key((settings.secrets_directory / "service_broker.pem").read_bytes())
    now = int(clock.now().timestamp())
    claims = {
        "iss": "trading-api",
        "aud": AUDIENCE,
        "sub": "",
        "sid": "broker",
        "jti": "x",
        "iat": now,
        "nbf": now,
        "exp": now + 60,
    }
    header = {"alg": "ES256", "typ": "svc+jwt", "kid": "svc-broker"}

    def signed(head: dict[str, Any], body: dict[str, Any]) -> str:
        return jwt.encode({**header, **head}, {**claims, **body}, key, algorithms=["ES256"])

    await identity.verify(signed({}, {}))
    for head, body in (
        ({}, {"sid": "wallet"}),
        ({}, {"exp": now + 61}),
        ({}, {"aud": "x"}),
        ({"kid": "svc-wallet"}, {"sid": "wallet"}),
        ({"typ": "at+jwt"}, {}),
        ({"jku": "https://evil.example"}, {}),
    ):
        with pytest.raises(TokenInvalidError):
            await identity.verify(signed(head, body))


async def test_authenticate_when_nothing_is_sent_then_nobody(identity: Identity) -> None:
    assert await identity.authenticate(scope_of()) is None
    assert await identity.authenticate(scope_of(authorization="Basic YTpi")) is None
    assert await identity.authenticate(scope_of(cookie="other=1; xaccess_token=2")) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"cookie": "access_token=a; access_token=b"},
        {"cookie": ["access_token=a", "access_token=b"]},
        {"authorization": ["Bearer a", "Bearer b"]},
        {"x_api_key": ["a", "b"]},
        {"origin": ["http://a", "http://b"]},
    ],
)
async def test_authenticate_when_sent_twice_then_refused(
    identity: Identity, headers: dict[str, Any]
) -> None:
    with pytest.raises(CarriersDisagreeError):
        await identity.authenticate(scope_of(**headers))


async def test_authenticate_when_two_carriers_then_they_must_agree(
    identity: Identity, forge: Forge
) -> None:
    ann, eve = forge.token(), forge.token(sub="usr_eve", sid="ses_eve")
    principal = await identity.authenticate(
        scope_of("POST", authorization=f"Bearer {ann}", cookie=f"access_token={ann}")
    )
    assert principal is not None
    assert principal.carrier == "bearer"
    with pytest.raises(CarriersDisagreeError):
        await identity.authenticate(
            scope_of(authorization=f"Bearer {ann}", cookie=f"access_token={eve}")
        )
    leftover = await identity.authenticate(
        scope_of(authorization=f"Bearer {ann}", cookie="access_token=a.b.c")
    )
    assert leftover is not None
    with pytest.raises(TokenInvalidError):
        await identity.authenticate(
            scope_of(authorization="Bearer a.b.c", cookie=f"access_token={ann}")
        )


async def test_authenticate_when_api_keys_are_not_served_then_refused(identity: Identity) -> None:
    with pytest.raises(TokenInvalidError):
        await identity.authenticate(scope_of(x_api_key="tp_live_x"))


@pytest.mark.parametrize(
    ("method", "headers", "is_allowed"),
    [
        ("GET", {}, True),
        ("HEAD", {"sec_fetch_site": "cross-site"}, True),
        ("POST", {}, False),
        ("POST", {"sec_fetch_site": "same-origin"}, True),
        ("POST", {"sec_fetch_site": "none"}, True),
        ("POST", {"sec_fetch_site": "same-site"}, False),
        ("POST", {"sec_fetch_site": "cross-site"}, False),
        ("DELETE", {"origin": "http://our.test"}, True),
        ("DELETE", {"origin": "https://our.test"}, True),
        ("DELETE", {"origin": "http://our.test:81"}, False),
        ("DELETE", {"origin": "http://our.test.evil.example"}, False),
        ("DELETE", {"origin": "ftp://our.test"}, False),
        ("PUT", {"origin": "null"}, False),
        ("PATCH", {"origin": "https://console.example"}, True),
        ("PATCH", {"origin": "https://console.example.evil"}, False),
        ("TRACE", {}, False),
    ],
)
async def test_authenticate_when_cookie_then_unsafe_requests_need_our_own_site(
    settings: PlatformSettings,
    clock: FixedClock,
    forge: Forge,
    method: str,
    headers: dict[str, str],
    is_allowed: bool,
) -> None:
    listed = settings.model_copy(update={"cors_origins": "https://console.example"})
    identity = Identity(settings=listed, clock=clock)
    cookie = f"access_token={forge.token()}"
    scope = scope_of(method, host="our.test", cookie=cookie, **headers)
    if is_allowed:
        assert await identity.authenticate(scope) is not None
    else:
        with pytest.raises(CrossSiteRequestError):
            await identity.authenticate(scope)


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [("http://our.test", True), (None, False), ("null", False), ("http://evil.example", False)],
)
async def test_authenticate_when_socket_by_cookie_then_needs_our_origin(
    identity: Identity, forge: Forge, origin: str | None, is_allowed: bool
) -> None:
    headers = {"host": "our.test", "cookie": f"access_token={forge.token()}"}
    if origin is not None:
        headers["origin"] = origin
    scope = scope_of(kind="websocket", sec_fetch_site="same-origin", **headers)
    if is_allowed:
        assert await identity.authenticate(scope) is not None
    else:
        with pytest.raises(CrossSiteRequestError):
            await identity.authenticate(scope)


async def test_cookie_when_secure_then_plain_name_and_plain_origin_count_for_nothing(
    settings: PlatformSettings, clock: FixedClock, forge: Forge
) -> None:
    secure = settings.model_copy(update={"cookie_secure": True})
    identity = Identity(settings=secure, clock=clock)
    token = forge.token()
    assert await identity.authenticate(scope_of(cookie=f"access_token={token}")) is None
    assert await identity.authenticate(scope_of(cookie=f"__Host-access_token={token}")) is not None
    with pytest.raises(CrossSiteRequestError):
        await identity.authenticate(
            scope_of(
                "POST",
                cookie=f"__Host-access_token={token}",
                host="our.test",
                origin="http://our.test",
            )
        )


async def test_cache_when_full_then_what_is_used_stays_and_the_rest_still_verifies(
    identity: Identity, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trading_api.runtime.identity.CACHE_SIZE_MAX", 2)
    tokens = [forge.token(jti=str(n)) for n in range(4)]
    for token in tokens:
        await identity.verify(token)
    assert len(identity._cache) == 2
    used = tokens[2].encode()
    assert identity.find_verified({b"authorization": b"Bearer " + used}) is not None
    await identity.verify(forge.token(jti="another"))
    assert identity.find_verified({b"authorization": b"Bearer " + used}) is not None
    for token in tokens:
        assert (await identity.verify(token)).user_id == "usr_ann"
