"""Our side of OpenID Connect against a real provider, and against one that is tampered with."""

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from tests.auth.providers import (
    UNRESERVED,
    ManInTheMiddle,
    Provider,
    code_of,
    give_consent,
    strangers_key,
)

from trading_api.kernel.errors import UnavailableError
from trading_api.modules.auth.adapters import oidc_provider
from trading_api.modules.auth.adapters.oidc_provider import OidcClient, OidcProvider
from trading_api.modules.auth.domain.external import (
    ExternalUser,
    nonce_of,
    safe_next,
    verifier_of,
)
from trading_api.modules.auth.errors import ExternalSignInRefusedError

REDIRECT = "http://trading.test/api/v1/auth/oauth/mock/callback"
STATE = "tk_state"
BINDING = "a browser's own secret"
NONCE = nonce_of(BINDING, STATE)
VERIFIER = verifier_of(BINDING, STATE)

Alter = Callable[[dict[str, Any], dict[str, Any], str], str]


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    made.wait()
    yield made
    made.stop()


@pytest.fixture
def client(provider: Provider) -> OidcClient:
    return OidcClient(
        name="mock", issuer=provider.url, client_id="trading", client_secret="not a secret"
    )


@pytest.fixture
def middle() -> ManInTheMiddle:
    return ManInTheMiddle()


@pytest.fixture
def ours(client: OidcClient, middle: ManInTheMiddle) -> OidcProvider:
    return OidcProvider(client, allows_loopback=True, unix_seconds=time.time, transport=middle)


async def ask(ours: OidcProvider, *, subject: str = "ann") -> dict[str, str]:
    """Go to the provider's page, sign in there, and return what it answers."""
    url = await ours.authorization_url(
        redirect_uri=REDIRECT, state=STATE, nonce=NONCE, verifier=VERIFIER
    )
    return code_of(await give_consent(url, subject=subject))


async def exchange(ours: OidcProvider, code: str, **changes: Any) -> ExternalUser:
    options: dict[str, Any] = {
        "issuer": None,
        "redirect_uri": REDIRECT,
        "verifier": VERIFIER,
        "nonce": NONCE,
    }
    return await ours.exchange(code=code, **{**options, **changes})


async def test_exchange_then_the_person_as_the_provider_knows_them(
    ours: OidcProvider, provider: Provider, middle: ManInTheMiddle
) -> None:
    answer = await ask(ours)
    assert answer["state"] == STATE
    assert await exchange(ours, answer["code"]) == ExternalUser(
        issuer=provider.url,
        subject="ann",
        email="ann@example.com",
        is_email_verified=True,
        full_name="Ann Ternal",
        picture="https://pictures.example.com/ann.png",
    )
    sent = middle.exchanged[0]
    assert sent["code_verifier"] == VERIFIER and UNRESERVED.fullmatch(VERIFIER)


async def test_authorization_then_code_flow_with_pkce_s256(ours: OidcProvider) -> None:
    url = await ours.authorization_url(
        redirect_uri=REDIRECT, state=STATE, nonce=NONCE, verifier=VERIFIER
    )
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    digest = hashlib.sha256(VERIFIER.encode()).digest()
    assert asked == {
        "response_type": "code",
        "client_id": "trading",
        "redirect_uri": REDIRECT,
        "scope": "openid email profile",
        "state": STATE,
        "nonce": NONCE,
        "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
        "code_challenge_method": "S256",
    }


@pytest.mark.parametrize(("subject", "email"), [("bob", "bob@example.com"), ("noemail", None)])
async def test_exchange_when_the_address_is_not_verified_then_it_says_so(
    ours: OidcProvider, subject: str, email: str | None
) -> None:
    found = await exchange(ours, (await ask(ours, subject=subject))["code"])
    assert (found.subject, found.email, found.is_email_verified) == (subject, email, False)


async def test_exchange_when_the_code_is_used_again_or_invented_then_refused(
    ours: OidcProvider,
) -> None:
    code = (await ask(ours))["code"]
    await exchange(ours, code)
    for bad in (code, "invented"):
        with pytest.raises(ExternalSignInRefusedError):
            await exchange(ours, bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "another"},
        {"redirect_uri": REDIRECT + "/x"},
        {"issuer": "https://evil.example"},
        {"issuer": ""},
    ],
)
async def test_exchange_when_something_does_not_match_then_refused(
    ours: OidcProvider, changes: dict[str, str]
) -> None:
    code = (await ask(ours))["code"]
    with pytest.raises(ExternalSignInRefusedError):
        await exchange(ours, code, **changes)


async def test_exchange_when_the_provider_promises_its_name_then_it_must_be_there(
    ours: OidcProvider, provider: Provider, middle: ManInTheMiddle
) -> None:
    def promise(metadata: dict[str, Any]) -> None:
        metadata["authorization_response_iss_parameter_supported"] = True

    middle.alter_metadata = promise
    with pytest.raises(ExternalSignInRefusedError):
        await exchange(ours, (await ask(ours))["code"])
    code = (await ask(ours))["code"]
    assert (await exchange(ours, code, issuer=provider.url)).subject == "ann"


_OTHER = strangers_key()


def _resigned(header: dict[str, Any], claims: dict[str, Any], **changes: Any) -> str:
    return jwt.encode({**header, **changes}, claims, _OTHER, algorithms=["RS256"])


def _unsigned(header: dict[str, Any], claims: dict[str, Any], token: str) -> str:
    empty = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return f"{empty}.{token.split('.')[1]}."


def _by_secret(header: dict[str, Any], claims: dict[str, Any], token: str) -> str:
    key = OctKey.import_key("not a secret")
    return jwt.encode({"alg": "HS256"}, claims, key, algorithms=["HS256"])


def _flipped(header: dict[str, Any], claims: dict[str, Any], token: str) -> str:
    head, payload, signature = token.split(".")
    other = "A" if payload[20] != "A" else "B"
    return f"{head}.{payload[:20]}{other}{payload[21:]}.{signature}"


def _embedded(header: dict[str, Any], claims: dict[str, Any], token: str) -> str:
    return _resigned(header, claims, jwk=_OTHER.as_dict(private=False))


@pytest.mark.parametrize(
    "alter",
    [
        pytest.param(lambda h, c, t: _resigned(h, c), id="signed by a stranger"),
        pytest.param(lambda h, c, t: _resigned(h, c, kid="stranger"), id="with a stranger's kid"),
        pytest.param(_embedded, id="with the stranger's key inside"),
        pytest.param(_unsigned, id="not signed"),
        pytest.param(_by_secret, id="signed with the client's secret"),
        pytest.param(_flipped, id="one character changed"),
        pytest.param(lambda h, c, t: "", id="empty"),
        pytest.param(lambda h, c, t: "a.b.c", id="nonsense"),
        pytest.param(lambda h, c, t: t + "A" * 20_000, id="too long"),
    ],
)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_exchange_when_the_token_is_forged_then_refused(
    ours: OidcProvider, middle: ManInTheMiddle, alter: Alter
) -> None:
    code = (await ask(ours))["code"]
    middle.alter_token = alter
    with pytest.raises(ExternalSignInRefusedError):
        await exchange(ours, code)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["trading", "another"], "azp": "trading"},
        {"aud": None},
        {"azp": "another"},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"exp": 1},
        {"exp": None},
        {"exp": "never"},
        {"iat": None},
        {"iat": 2**40},
        {"nonce": None},
        {"nonce": "another"},
        {"at_hash": "another"},
    ],
)
async def test_exchange_when_a_claim_is_another_then_refused_though_it_is_signed(
    ours: OidcProvider, middle: ManInTheMiddle, changes: dict[str, Any]
) -> None:
    middle.extra_keys = [_OTHER.as_dict(private=False)]

    def alter(header: dict[str, Any], claims: dict[str, Any], token: str) -> str:
        changed = {k: v for k, v in {**claims, **changes}.items() if v is not None}
        return _resigned({"alg": "RS256"}, changed, kid="stranger")

    code = (await ask(ours))["code"]
    middle.alter_token = alter
    with pytest.raises(ExternalSignInRefusedError):
        await exchange(ours, code)
    # The same without the change is accepted, so it was the change.
    changes = {}
    assert (await exchange(ours, (await ask(ours))["code"])).subject == "ann"


async def test_keys_when_unknown_ones_come_then_asked_once_in_half_a_minute(
    ours: OidcProvider, middle: ManInTheMiddle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stranger(header: dict[str, Any], claims: dict[str, Any], token: str) -> str:
        return _resigned(header, claims, kid="stranger")

    middle.alter_token = stranger
    for _ in range(3):
        with pytest.raises(ExternalSignInRefusedError):
            await exchange(ours, (await ask(ours))["code"])
    assert middle.key_requests == 1
    monkeypatch.setattr(oidc_provider, "KEY_REFETCH_SECONDS", 0.0)
    middle.extra_keys = [_OTHER.as_dict(private=False)]
    assert (await exchange(ours, (await ask(ours))["code"])).subject == "ann"
    assert middle.key_requests == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("issuer", "https://evil.example"),
        ("token_endpoint", "http://169.254.169.254/latest"),
        ("jwks_uri", "file:///etc/passwd"),
        ("authorization_endpoint", "https://user@evil.example/"),
    ],
)
async def test_metadata_when_it_leads_elsewhere_then_the_provider_is_not_used(
    ours: OidcProvider, middle: ManInTheMiddle, name: str, value: str
) -> None:
    middle.alter_metadata = lambda metadata: metadata.update({name: value})
    with pytest.raises(UnavailableError):
        await ask(ours)


@pytest.mark.parametrize(("retry_seconds", "count"), [(600.0, 1), (0.0, 3)])
async def test_provider_when_away_then_unavailable_and_not_asked_again_at_once(
    client: OidcClient, monkeypatch: pytest.MonkeyPatch, retry_seconds: float, count: int
) -> None:
    asked = 0

    async def away(request: httpx.Request) -> httpx.Response:
        nonlocal asked
        asked += 1
        raise httpx.ConnectTimeout("away", request=request)

    monkeypatch.setattr(oidc_provider, "RETRY_SECONDS", retry_seconds)
    ours = OidcProvider(
        client, allows_loopback=True, unix_seconds=time.time, transport=httpx.MockTransport(away)
    )
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await ask(ours)
    assert asked == count


@pytest.mark.parametrize(
    ("issuer", "is_production", "is_safe"),
    [
        ("https://accounts.google.com", True, True),
        ("http://127.0.0.1:9400", False, True),
        ("http://127.0.0.1:9400", True, False),
        ("http://provider.example", False, False),
        ("https://user@provider.example", False, False),
        ("ftp://provider.example", False, False),
    ],
)
def test_client_when_its_issuer_is_not_safe_then_refused(
    client: OidcClient, issuer: str, is_production: bool, is_safe: bool
) -> None:
    made = replace(client, issuer=issuer)
    if is_safe:
        made.ensure_safe(is_production=is_production)
        return
    with pytest.raises(ValueError, match="https"):
        made.ensure_safe(is_production=is_production)


@pytest.mark.parametrize(
    ("path", "safe"),
    [
        (None, "/"),
        ("/", "/"),
        ("/trade/DEMO:AAPL?resolution=1&x=%20", "/trade/DEMO:AAPL?resolution=1&x=%20"),
        ("//evil.example", None),
        ("/\\evil.example", None),
        ("/\t/evil.example", None),
        ("https://evil.example", None),
        ("https:evil.example", None),
        ("javascript:alert(1)", None),
        ("evil", None),
        ("", None),
        ("/a\r\nSet-Cookie: x=1", None),
        ("/" + "a" * 2000, None),
    ],
)
def test_next_when_it_could_lead_elsewhere_then_refused(path: str | None, safe: str | None) -> None:
    assert safe_next(path) == safe
