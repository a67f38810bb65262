"""Signing in by a provider, from the browser's first click to its cookies; auth as it is served."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.auth.providers import Provider, code_of, give_consent
from tests.auth.test_revocation import process

from trading_api.app import ProcessApp
from trading_api.modules.auth.adapters.oidc_provider import GOOGLE_ISSUER, read_clients
from trading_api.modules.auth.tables import tickets
from trading_api.runtime.settings import ConfigurationError

SITE = "http://trading.test"
BASE = "/api/v1/auth"
NAVIGATION = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "User-Agent": "Firefox"}
LOGIN = {"email": "ann@example.com", "password": "correct horse battery"}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    made = Provider()
    made.wait()
    yield made
    made.stop()


@dataclass
class Site:
    """Auth's process and a browser that visits it."""

    app: ProcessApp
    browser: httpx.AsyncClient

    def other_browser(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.app),
            base_url=SITE,
            headers=NAVIGATION,
            timeout=10,
        )

    async def begin(self, name: str = "mock", **query: str) -> str:
        answer = await self.browser.get(f"{BASE}/oauth/{name}/login", params=query)
        assert answer.status_code == 302, answer.text
        assert answer.headers["cache-control"] == "no-store"
        return str(answer.headers["location"])

    async def arrive(self, subject: str = "ann", **query: str) -> dict[str, str]:
        """Sign in at the provider; return what it sends back."""
        return code_of(await give_consent(await self.begin(**query), subject=subject))

    async def finish(
        self, answer: dict[str, str], name: str = "mock", browser: httpx.AsyncClient | None = None
    ) -> httpx.Response:
        path = f"{BASE}/oauth/{name}/callback"
        return await (browser or self.browser).get(path, params=answer)

    async def me(self) -> dict[str, Any]:
        answer = await self.browser.get(f"{BASE}/me")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
async def site(environ: dict[str, str], provider: Provider) -> AsyncIterator[Site]:
    environ |= {"AUTH_SITE_URL": SITE, "REDIS_URL": "unix:///nowhere.sock"}
    for name in ("OIDC_MOCK", "OIDC_OTHER", "OIDC_GOOGLE"):
        environ |= {
            f"{name}_ISSUER": provider.url,
            f"{name}_CLIENT_ID": "trading",
            f"{name}_CLIENT_SECRET": "not a secret",
        }
    async with process("auth", environ) as app:
        found = Site(app, None)  # type: ignore[arg-type]
        async with found.other_browser() as browser:
            found.browser = browser
            yield found


async def test_sign_in_then_cookies_and_back_to_where_it_began(site: Site) -> None:
    answer = await site.finish(await site.arrive(next="/trade?x=1"))
    assert (answer.status_code, answer.headers["location"]) == (303, "/trade?x=1"), answer.text
    cookies = answer.headers.get_list("set-cookie")
    for name, same_site in (("access_token", "strict"), ("refresh_token", "strict")):
        [cookie] = [each for each in cookies if each.startswith(f"{name}=")]
        assert "HttpOnly" in cookie and f"SameSite={same_site}" in cookie
    me = await site.me()
    assert (me["email"], me["full_name"]) == ("ann@example.com", "Ann Ternal")
    assert (await site.finish(await site.arrive())).headers["location"] == "/"
    assert (await site.me())["id"] == me["id"]


async def test_begin_then_the_journey_s_cookie_is_lax_and_no_secret_is_in_the_address(
    site: Site,
) -> None:
    answer = await site.browser.get(f"{BASE}/oauth/mock/login")
    [cookie] = answer.headers.get_list("set-cookie")
    assert "SameSite=lax" in cookie and "HttpOnly" in cookie and "Max-Age=600" in cookie
    binding = cookie.partition("=")[2].partition(";")[0]
    asked = code_of(answer.headers["location"])
    assert asked["redirect_uri"] == f"{SITE}{BASE}/oauth/mock/callback"
    assert asked["code_challenge_method"] == "S256"
    assert binding not in answer.headers["location"]
    database = site.app.hosted["auth"].context.require_database()
    async with database.snapshot() as transaction:
        rows = await transaction.all(tickets.select())
    stored = "|".join(str(value) for row in rows for value in row)
    assert binding not in stored and asked["state"] not in stored


@pytest.mark.parametrize(
    "path",
    ["//evil.example", "/\\evil.example", "https://evil.example", "https:evil.example", "evil"],
)
async def test_begin_when_it_would_end_elsewhere_then_refused(site: Site, path: str) -> None:
    answer = await site.browser.get(f"{BASE}/oauth/mock/login", params={"next": path})
    assert answer.status_code == 400
    assert "location" not in answer.headers


async def test_begin_when_nobody_knows_the_provider_then_404(site: Site) -> None:
    assert (await site.browser.get(f"{BASE}/oauth/nobody/login")).status_code == 404
    listed = await site.browser.get(f"{BASE}/oauth/providers")
    assert listed.json() == {"providers": ["google", "mock", "other"]}


async def test_finish_when_another_browser_comes_then_refused(site: Site) -> None:
    answer = await site.arrive()
    async with site.other_browser() as victim:
        await victim.get(f"{BASE}/oauth/mock/login")
        for browser in (victim, site.browser):
            # The first try used the state up, so even its own browser is late.
            refused = await site.finish(answer, browser=browser)
            assert refused.status_code == 400, refused.text
            assert "location" not in refused.headers
            assert not any(
                "access_token" in each for each in refused.headers.get_list("set-cookie")
            )


async def test_finish_when_something_is_missing_or_another_s_then_refused(site: Site) -> None:
    for change in (
        {"state": ""},
        {"state": "tk_" + "A" * 43},
        {"code": ""},
        {"code": "invented"},
        {"iss": "https://evil.example"},
    ):
        answer = await site.finish({**await site.arrive(), **change})
        assert answer.status_code == 400, change
        assert answer.json()["code"] == "auth.external.refused"
    answer = await site.finish(await site.arrive(), name="other")
    assert answer.status_code == 400
    refused = {"error": "access_denied", "state": (await site.arrive())["state"]}
    assert (await site.finish(refused)).status_code == 400


async def test_finish_when_it_is_repeated_then_refused(site: Site) -> None:
    answer = await site.arrive()
    assert (await site.finish(answer)).status_code == 303
    assert (await site.finish(answer)).status_code == 400


async def test_finish_when_a_journey_is_planted_beside_then_refused(site: Site) -> None:
    answer = await site.arrive()
    planted = "; ".join(["journey=x", f"journey={site.browser.cookies['journey']}"])
    async with site.other_browser() as browser:
        refused = await browser.get(
            f"{BASE}/oauth/mock/callback", params=answer, headers={"Cookie": planted}
        )
    assert refused.status_code == 400
    assert refused.json()["code"] == "platform.principal.carriers_disagree"


@pytest.mark.parametrize("subject", ["bob", "noemail"])
async def test_finish_when_the_provider_does_not_vouch_then_nobody_is_connected(
    site: Site, subject: str
) -> None:
    answer = await site.finish(await site.arrive(subject))
    assert answer.status_code == 409
    assert answer.json()["code"] == "auth.external.email_refused"


async def test_finish_when_somebody_registered_with_the_address_then_not_connected(
    site: Site,
) -> None:
    """Whoever registers with a stranger's address must not share what the stranger does later."""
    registered = await site.browser.post(f"{BASE}/register", json=LOGIN)
    assert registered.status_code == 201
    answer = await site.finish(await site.arrive())
    assert answer.status_code == 409
    assert answer.json()["code"] == "auth.external.email_refused"


async def test_google_token_when_good_then_signed_in_once(site: Site, provider: Provider) -> None:
    token = await id_token(site, provider)
    answer = await site.browser.post(f"{BASE}/login", json={"google_token": token}, headers=API)
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"]["email"] == "ann@example.com"
    again = await site.browser.post(f"{BASE}/login", json={"google_token": token}, headers=API)
    assert (again.status_code, again.json()["code"]) == (400, "auth.external.refused")
    head, payload, signature = token.split(".")
    for bad in (f"{head}.{payload}.{signature[:-4]}AAAA", f"{head}.{payload}.", "x", "a.b.c"):
        refused = await site.browser.post(f"{BASE}/login", json={"google_token": bad}, headers=API)
        assert refused.status_code == 400, bad


API = {"Sec-Fetch-Site": "same-origin", "Origin": SITE}


async def id_token(site: Site, provider: Provider) -> str:
    """Get an ID token from the provider as Google's own script would."""
    answer = await site.arrive(name="google")
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        found = await client.post(
            f"{provider.url}/oauth2/token",
            data={
                "grant_type": "authorization_code",
                "code": answer["code"],
                "redirect_uri": f"{SITE}{BASE}/oauth/google/callback",
            },
            auth=("trading", "not a secret"),
        )
    return str(found.json()["id_token"])


def test_clients_when_named_in_the_environment_then_read_and_google_needs_no_issuer() -> None:
    environ = {
        "OIDC_CORP_ISSUER": "https://login.corp.example",
        "OIDC_CORP_CLIENT_ID": "a",
        "OIDC_CORP_CLIENT_SECRET": "b",
        "OIDC_CORP_SCOPES": "openid email",
    }
    corp, google = read_clients(
        environ, google_id="ours", google_secret="secret", is_production=True
    )
    assert (corp.name, corp.issuer, corp.scopes) == (
        "corp",
        "https://login.corp.example",
        "openid email",
    )
    assert (google.name, google.issuer, google.client_id) == ("google", GOOGLE_ISSUER, "ours")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"OIDC_X_CLIENT_SECRET": ""}, "OIDC_X_CLIENT_SECRET"),
        ({"OIDC_X_ISSUER": ""}, "OIDC_X_ISSUER"),
        ({"OIDC_X_ISSUER": "http://login.example"}, "OIDC_X_ISSUER"),
        ({"GOOGLE_CLIENT_ID": "ours"}, "OIDC_GOOGLE_CLIENT_SECRET"),
    ],
)
async def test_start_when_a_provider_is_half_configured_then_refused_by_name(
    environ: dict[str, str], changes: dict[str, str], named: str
) -> None:
    whole = {
        "OIDC_X_ISSUER": "https://login.example",
        "OIDC_X_CLIENT_ID": "a",
        "OIDC_X_CLIENT_SECRET": "sesame",
    }
    with pytest.raises(ConfigurationError) as refused:
        async with process("auth", environ | whole | changes):
            pass
    assert named in str(refused.value) and "sesame" not in str(refused.value)
