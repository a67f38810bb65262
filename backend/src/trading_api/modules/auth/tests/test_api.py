"""The HTTP surface, in process behind the real edge, with real keys and Argon2."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from trading_api.contracts.auth import REVOCATIONS_PATH, RevocationNotice
from trading_api.modules.auth import tables
from trading_api.modules.auth.tests.builders import PASSWORD
from trading_api.modules.auth.tests.hosts import BROWSER, Host, client_of, run_host
from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

BASE = "/api/v1/auth"
ANN = {"email": "Ann@Example.com", "password": PASSWORD, "full_name": "Ann Example"}
LOGIN = {"email": "ann@example.com", "password": PASSWORD}


@pytest.fixture
async def host(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[Host]:
    async with run_host(settings, environ, clock) as made:
        yield made


@pytest.fixture
async def client(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    """A caller that is no browser."""
    async with client_of(host) as made:
        yield made


@pytest.fixture
async def browser(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    """A browser on our own page."""
    async with client_of(host, **BROWSER) as made:
        yield made


async def sign_in(client: httpx.AsyncClient, **login: str) -> dict[str, Any]:
    await client.post(f"{BASE}/register", json={**ANN, **login})
    answer = await client.post(f"{BASE}/login", json={**LOGIN, **login})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_register_then_user_without_password(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/register", json=ANN)
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    user = answer.json()
    assert user.pop("id").startswith("usr_")
    assert user == {
        "email": "Ann@example.com",
        "full_name": "Ann Example",
        "picture": None,
        "roles": ["user"],
        "created_at": "2026-03-02T14:30:00Z",
        "last_login": None,
        "is_active": True,
    }
    again = await client.post(f"{BASE}/register", json={**ANN, "email": "ANN@example.com"})
    assert (again.status_code, again.json()["code"]) == (409, "auth.email.taken")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"email": "no address"}, "email"),
        ({"email": "a@b"}, "email"),
        ({"email": "a" * 300 + "@example.com"}, "email"),
        ({"email": 7}, "email"),
        ({"password": "4 me2"}, "password"),
        ({"password": "password1"}, "password"),
        ({"password": "x9" * 65}, "password"),
        ({"password": "Ann Example"}, "password"),
        ({"full_name": "a\u202eb"}, "full_name"),
        ({"full_name": "x" * 201}, "full_name"),
        ({"role": "admin"}, "role"),
        ({"roles": ["admin"]}, "roles"),
        ({"is_active": True}, "is_active"),
        ({"id": "usr_1"}, "id"),
    ],
)
async def test_register_when_field_breaks_a_rule_then_422_without_echo(
    client: httpx.AsyncClient, change: dict[str, Any], field: str
) -> None:
    answer = await client.post(f"{BASE}/register", json={**ANN, **change})
    assert answer.status_code == 422
    assert [each["field"] for each in answer.json()["errors"]] == [field]
    if field == "password":
        assert change["password"] not in answer.text


async def test_login_when_not_a_browser_then_tokens_in_the_body(client: httpx.AsyncClient) -> None:
    body = await sign_in(client)
    assert body["token_type"] == "bearer"
    assert body["expires_in"] == 300
    assert re.fullmatch(r"rt_[\w-]{43}", body["refresh_token"])
    assert "wallet:withdraw" in body["scope"].split()
    assert body["user"]["last_login"] == "2026-03-02T14:30:00Z"
    client.cookies.clear()
    me = await client.get(f"{BASE}/me", headers=bearer(body["access_token"]))
    assert (me.status_code, me.json()["email"]) == (200, "Ann@example.com")


async def test_login_when_browser_then_cookies_and_no_refresh_token_in_the_body(
    browser: httpx.AsyncClient,
) -> None:
    await browser.post(f"{BASE}/register", json=ANN)
    answer = await browser.post(f"{BASE}/login", json=LOGIN)
    assert "refresh_token" not in answer.json()
    set_cookies = answer.headers.get_list("set-cookie")
    by_name = {each.partition("=")[0]: each.lower() for each in set_cookies}
    assert by_name.keys() == {"access_token", "refresh_token", "device"}
    for name, cookie in by_name.items():
        assert "httponly" in cookie
        # The device's comes along when a provider sends the browser back.
        assert f"samesite={'lax' if name == 'device' else 'strict'}" in cookie
        assert "domain" not in cookie
        assert len(cookie) < 4096
    assert "path=/;" in by_name["access_token"]
    assert "path=/api/v1/auth;" in by_name["refresh_token"]
    assert "max-age=300;" in by_name["access_token"]
    me = await browser.get(f"{BASE}/me")
    assert me.status_code == 200


async def test_login_when_cookies_are_secure_then_prefixed_names(
    environ: dict[str, str], settings: PlatformSettings, clock: FixedClock
) -> None:
    secure = settings.model_copy(update={"cookie_secure": True})
    headers = {**BROWSER, "Origin": "https://trading.test"}
    async with run_host(secure, environ, clock) as host, client_of(host, **headers) as browser:
        browser.base_url = httpx.URL("https://trading.test")
        await browser.post(f"{BASE}/register", json=ANN)
        answer = await browser.post(f"{BASE}/login", json=LOGIN)
        set_cookies = {
            each.partition("=")[0]: each.lower() for each in answer.headers.get_list("set-cookie")
        }
        assert set_cookies.keys() == {
            "__Host-access_token",
            "__Secure-refresh_token",
            "__Secure-device",
        }
        assert all("; secure" in each for each in set_cookies.values())
        assert (await browser.get(f"{BASE}/me")).status_code == 200
        token = browser.cookies["__Host-access_token"]
        browser.cookies.clear()
        plain = await browser.get(f"{BASE}/me", headers={"Cookie": f"access_token={token}"})
        assert plain.status_code == 401


async def test_login_when_oauth2_form_then_same_tokens(client: httpx.AsyncClient) -> None:
    await client.post(f"{BASE}/register", json=ANN)
    form = {"grant_type": "password", "username": "ann@example.com", "password": PASSWORD}
    answer = await client.post(f"{BASE}/login", data=form)
    assert answer.status_code == 200
    assert answer.json()["access_token"].count(".") == 2


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"username=a&username=b&password=c", "application/x-www-form-urlencoded", 400),
        (b"username=a%00b&password=c", "application/x-www-form-urlencoded", 401),
        (b"username=ann@example.com&password=c%00d", "application/x-www-form-urlencoded", 422),
        (b"password=c", "application/x-www-form-urlencoded", 422),
        (b"grant_type=implicit&username=a&password=c", "application/x-www-form-urlencoded", 400),
        (b"username=a&password=c&is_admin=1", "application/x-www-form-urlencoded", 400),
        (b'{"email":"a@example.com","email":"b@example.com"}', "application/json", 400),
        (b'{"email":"a@example.com"}', "application/json", 422),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b"", "application/json", 422),
        (b'{"email":"a@example.com","password":"x"}', "text/plain", 415),
        (b'{"email":"ann@example.com","password":"a\\u0000b"}', "application/json", 422),
    ],
)
async def test_login_when_body_is_odd_then_refused(
    client: httpx.AsyncClient, content: bytes, content_type: str, status: int
) -> None:
    answer = await client.post(
        f"{BASE}/login", content=content, headers={"Content-Type": content_type}
    )
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_login_when_wrong_then_answers_do_not_differ(client: httpx.AsyncClient) -> None:
    await client.post(f"{BASE}/register", json=ANN)
    wrong = await client.post(f"{BASE}/login", json={**LOGIN, "password": "not this one"})
    unknown = await client.post(f"{BASE}/login", json={**LOGIN, "email": "bob@example.com"})
    long = await client.post(f"{BASE}/login", json={**LOGIN, "password": "x" * 500})
    assert wrong.status_code == unknown.status_code == long.status_code == 401
    assert "www-authenticate" in wrong.headers
    assert wrong.headers["cache-control"] == "no-store"
    bodies = [{**each.json(), "request_id": ""} for each in (wrong, unknown, long)]
    assert bodies[0] == bodies[1] == bodies[2]
    assert wrong.headers["content-length"] == unknown.headers["content-length"]


async def test_login_when_throttled_then_429_with_retry_after(
    client: httpx.AsyncClient, clock: FixedClock
) -> None:
    await client.post(f"{BASE}/register", json=ANN)
    statuses = [
        (await client.post(f"{BASE}/login", json={**LOGIN, "password": "wrong"})).status_code
        for _ in range(11)
    ]
    assert statuses == [401] * 10 + [429]
    refused = await client.post(f"{BASE}/login", json=LOGIN)
    assert refused.headers["retry-after"] == "90"
    clock.advance(90)
    assert (await client.post(f"{BASE}/login", json=LOGIN)).status_code == 200


async def test_login_when_old_cookie_is_no_good_then_still_signs_in(
    browser: httpx.AsyncClient, clock: FixedClock
) -> None:
    await sign_in(browser)
    clock.advance(301)
    browser.cookies.set("access_token", "a.b.c", domain="trading.test", path="/")
    assert (await browser.get(f"{BASE}/me")).status_code == 401
    assert (await browser.post(f"{BASE}/login", json=LOGIN)).status_code == 200


@pytest.mark.parametrize("path", ["/login", "/register", "/refresh-token", "/logout"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://trading.test.evil.example"},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://trading.test.evil.example"},
        {"Origin": "http://trading.test:8080"},
    ],
)
async def test_sign_in_when_from_another_site_then_refused(
    host: Host, browser: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    await sign_in(browser)
    body = {"/login": LOGIN, "/register": {**ANN, "email": "eve@example.com"}}.get(path, {})
    async with client_of(host, **headers) as evil:
        evil.cookies = browser.cookies
        answer = await evil.post(f"{BASE}{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "platform.request.cross_site")
    assert (await browser.get(f"{BASE}/me")).status_code == 200


async def test_cookie_when_caller_does_not_prove_its_site_then_unsafe_requests_are_refused(
    host: Host, browser: httpx.AsyncClient
) -> None:
    await sign_in(browser)
    async with client_of(host) as bare:
        bare.cookies = browser.cookies
        assert (await bare.get(f"{BASE}/me")).status_code == 200
        assert (await bare.patch(f"{BASE}/me", json={"full_name": "x"})).status_code == 403
        assert (await bare.post(f"{BASE}/refresh-token", json={})).status_code == 403
        assert (await bare.post(f"{BASE}/logout-all")).status_code == 403


async def test_refresh_when_browser_then_cookie_rotates(
    browser: httpx.AsyncClient, clock: FixedClock
) -> None:
    await sign_in(browser)
    first = browser.cookies["refresh_token"]
    clock.advance(240)
    answer = await browser.post(f"{BASE}/refresh-token")
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()
    assert browser.cookies["refresh_token"] != first
    clock.advance(61)
    assert (await browser.get(f"{BASE}/me")).status_code == 200


async def test_refresh_when_not_a_browser_then_by_body(client: httpx.AsyncClient) -> None:
    body = await sign_in(client)
    client.cookies.clear()
    answer = await client.post(
        f"{BASE}/refresh-token", json={"refresh_token": body["refresh_token"]}
    )
    assert answer.status_code == 200
    assert answer.json()["refresh_token"] != body["refresh_token"]


async def test_refresh_when_reused_then_401_and_access_token_dies_and_cookies_go(
    client: httpx.AsyncClient, clock: FixedClock
) -> None:
    body = await sign_in(client)
    client.cookies.clear()
    token = {"refresh_token": body["refresh_token"]}
    fresh = (await client.post(f"{BASE}/refresh-token", json=token)).json()
    clock.advance(11)
    client.cookies.clear()
    answer = await client.post(f"{BASE}/refresh-token", json=token)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.refresh_token.reused")
    cleared = [each for each in answer.headers.get_list("set-cookie") if "Max-Age=0" in each]
    assert len(cleared) == 2
    for dead in (body, fresh):
        refused = await client.get(f"{BASE}/me", headers=bearer(dead["access_token"]))
        assert refused.status_code == 401


@pytest.mark.parametrize("body", [{}, {"refresh_token": "rt_x"}, {"refresh_token": None}])
async def test_refresh_when_no_token_then_401(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    answer = await client.post(f"{BASE}/refresh-token", json=body)
    assert (answer.status_code, answer.json()["code"]) == (401, "auth.refresh_token.invalid")


async def test_refresh_when_cookie_twice_then_400(browser: httpx.AsyncClient) -> None:
    answer = await browser.post(
        f"{BASE}/refresh-token", headers={"Cookie": "refresh_token=a; refresh_token=b"}
    )
    assert (answer.status_code, answer.json()["code"]) == (
        400,
        "platform.principal.carriers_disagree",
    )


async def test_logout_then_access_token_and_refresh_token_are_refused(
    browser: httpx.AsyncClient,
) -> None:
    access = (await sign_in(browser))["access_token"]
    refresh = browser.cookies["refresh_token"]
    answer = await browser.post(f"{BASE}/logout")
    assert answer.status_code == 200
    assert "access_token" not in browser.cookies
    assert "refresh_token" not in browser.cookies
    assert (await browser.get(f"{BASE}/me", headers=bearer(access))).status_code == 401
    again = await browser.post(f"{BASE}/refresh-token", json={"refresh_token": refresh})
    assert (again.status_code, again.json()["code"]) == (401, "auth.session.ended")
    assert (await browser.post(f"{BASE}/logout")).status_code == 200


async def test_logout_all_then_other_devices_are_out_too(
    client: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    body = await sign_in(client)
    await sign_in(browser)
    assert (await browser.post(f"{BASE}/logout-all")).status_code == 200
    client.cookies.clear()
    refused = await client.get(f"{BASE}/me", headers=bearer(body["access_token"]))
    assert refused.status_code == 401


async def test_me_when_patched_then_only_known_fields(client: httpx.AsyncClient) -> None:
    body = await sign_in(client)
    client.cookies.clear()
    client.headers.update(bearer(body["access_token"]))
    answer = await client.patch(
        f"{BASE}/me", json={"full_name": "Ann B", "picture": "https://example.com/a.png"}
    )
    assert answer.status_code == 200
    assert (await client.get(f"{BASE}/me")).json()["full_name"] == "Ann B"
    for change in (
        {"roles": ["admin"]},
        {"email": "eve@example.com"},
        {"is_active": False},
        {"picture": "javascript:alert(1)"},
        {"picture": "http://example.com/a.png"},
    ):
        assert (await client.patch(f"{BASE}/me", json=change)).status_code == 422
    cleared = await client.patch(f"{BASE}/me", json={"picture": None})
    assert cleared.json()["picture"] is None
    assert cleared.json()["full_name"] == "Ann B"


async def test_sessions_when_listed_and_ended(
    client: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    body = await sign_in(client)
    client.cookies.clear()
    client.headers.update(bearer(body["access_token"]))
    await sign_in(browser)
    found = (await client.get(f"{BASE}/sessions")).json()
    assert [each["is_current"] for each in found].count(True) == 1
    other = next(each for each in found if not each["is_current"])
    assert other["user_agent"].startswith("Mozilla")
    assert other["address"] == "192.0.2.1"
    assert "hash" not in str(found)
    assert (await client.delete(f"{BASE}/sessions/{other['id']}")).status_code == 204
    assert (await browser.get(f"{BASE}/me")).status_code == 401
    assert (await client.delete(f"{BASE}/sessions/{other['id']}")).status_code == 404


async def test_sessions_when_of_another_user_then_like_unknown(
    host: Host, client: httpx.AsyncClient
) -> None:
    await sign_in(client)
    [mine] = (await client.get(f"{BASE}/sessions")).json()
    async with client_of(host) as bob:
        token = (await sign_in(bob, email="bob@example.com"))["access_token"]
        bob.cookies.clear()
        answers = [
            await bob.delete(f"{BASE}/sessions/{each}", headers=bearer(token))
            for each in (mine["id"], "ses_00000000000000000000000000")
        ]
    assert [each.status_code for each in answers] == [404, 404]
    bodies = [{**each.json(), "request_id": "", "instance": ""} for each in answers]
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("path", ["/verify", "/introspect"])
async def test_verify_then_tells_what_the_token_is_worth(
    client: httpx.AsyncClient, clock: FixedClock, path: str
) -> None:
    body = await sign_in(client)
    client.cookies.clear()
    good = bearer(body["access_token"])
    valid = (await client.get(f"{BASE}{path}", headers=good)).json()
    assert valid["active"] is True
    assert valid["status"] == "valid"
    assert valid["exp"] == int(clock.now().timestamp()) + 300
    assert valid["sub"] == body["user"]["id"]
    for headers in ({}, bearer("a.b.c"), bearer("")):
        answer = await client.get(f"{BASE}{path}", headers=headers)
        assert (answer.status_code, answer.json()) == (200, {"active": False, "status": "error"})
    await client.post(f"{BASE}/logout", headers=good)
    revoked = await client.get(f"{BASE}{path}", headers=good)
    assert (revoked.status_code, revoked.json()) == (200, {"active": False, "status": "revoked"})
    clock.advance(301)
    expired = await client.get(f"{BASE}{path}", headers=good)
    assert expired.json() == {"active": False, "status": "expired"}


async def test_keys_are_public_and_hold_nothing_private(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"{BASE}/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    [key] = answer.json()["keys"]
    assert key.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    assert key["alg"] == "RS256"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/me"),
        ("PATCH", "/me"),
        ("GET", "/sessions"),
        ("DELETE", "/sessions/ses_1"),
        ("POST", "/logout-all"),
    ],
)
async def test_private_routes_when_nobody_asks_then_401(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, f"{BASE}{path}")
    assert answer.status_code == 401
    assert "www-authenticate" in answer.headers


async def test_internal_route_when_not_a_module_then_refused(
    client: httpx.AsyncClient, settings: PlatformSettings, clock: FixedClock
) -> None:
    body = await sign_in(client)
    client.cookies.clear()
    assert (await client.get(REVOCATIONS_PATH)).status_code == 401
    as_user = await client.get(REVOCATIONS_PATH, headers=bearer(body["access_token"]))
    assert as_user.status_code == 403
    await client.post(f"{BASE}/logout", headers=bearer(body["access_token"]))
    service = ServiceTokens(settings=settings, module="broker", clock=clock).token()
    answer = await client.get(REVOCATIONS_PATH, headers=bearer(service))
    notice = RevocationNotice.model_validate_json(answer.content)
    assert len(notice.revoked) == 1
    by_cookie = await client.get(REVOCATIONS_PATH, headers={"Cookie": f"access_token={service}"})
    assert by_cookie.status_code == 401


async def test_admin_email_when_registered_then_admin(
    client: httpx.AsyncClient, host: Host
) -> None:
    body = await sign_in(client, email="boss@example.com")
    assert body["user"]["roles"] == ["admin", "user"]
    assert "gateway:manage" in body["scope"].split()
    async with host.database.snapshot() as transaction:
        audited = await transaction.all(
            sa.select(tables.audit_entries).order_by(tables.audit_entries.c.sequence)
        )
    assert [(row.action, row.outcome) for row in audited] == [
        ("user_register", "done"),
        ("login", "done"),
    ]
    assert all(row.request_id and row.address == "192.0.2.1" for row in audited)
