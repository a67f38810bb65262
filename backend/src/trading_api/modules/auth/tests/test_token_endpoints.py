"""Introspection and revocation of every kind of token, through the edge."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from trading_api.modules.auth.tests.hosts import PREFIX, Host, client_of, run_host
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

LOGIN = {"email": "ann@example.com", "password": "correct horse battery"}


@pytest.fixture
async def host(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[Host]:
    async with run_host(settings, environ, clock) as made:
        yield made


@pytest.fixture
async def client(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(host) as made:
        yield made


async def sign_up(client: httpx.AsyncClient, email: str = LOGIN["email"]) -> dict[str, Any]:
    person = {**LOGIN, "email": email}
    await client.post(f"{PREFIX}/register", json=person)
    answer = await client.post(f"{PREFIX}/login", json=person)
    assert answer.status_code == 200, answer.text
    client.cookies.clear()
    found: dict[str, Any] = answer.json()
    return found


async def introspect(client: httpx.AsyncClient, token: str, by: str) -> Any:
    answer = await client.post(
        f"{PREFIX}/introspect", data={"token": token}, headers={"Authorization": f"Bearer {by}"}
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def make_key(client: httpx.AsyncClient, by: str) -> str:
    answer = await client.post(
        f"{PREFIX}/api-keys",
        json={"name": "bot", "scopes": ["broker:read"]},
        headers={"Authorization": f"Bearer {by}"},
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["key"])


async def test_introspect_when_good_and_one_s_own_then_described(
    client: httpx.AsyncClient,
) -> None:
    ann = await sign_up(client)
    token = ann["access_token"]
    key = await make_key(client, token)
    access = await introspect(client, token, token)
    assert access["active"] and access["token_type"] == "Bearer"
    assert access["sub"] == ann["user"]["id"] and "wallet:withdraw" in access["scope"].split()
    refresh = await introspect(client, ann["refresh_token"], token)
    assert (refresh["token_type"], refresh["sid"]) == ("refresh_token", access["sid"])
    assert (await introspect(client, key, token))["scope"] == "broker:read"


async def test_introspect_when_bad_or_another_s_then_exactly_inactive(
    client: httpx.AsyncClient, clock: FixedClock
) -> None:
    ann, bob = await sign_up(client), await sign_up(client, "bob@example.com")
    by = bob["access_token"]
    key = await make_key(client, ann["access_token"])
    for bad in (
        ann["access_token"],
        ann["refresh_token"],
        key,
        by[:-4] + "AAAA",
        "x" * 8192,
        "tp_live_x",
        "-",
    ):
        assert await introspect(client, bad, by) == {"active": False}, bad
    clock.advance(299)
    assert (await introspect(client, by, by))["active"]
    clock.advance(1)
    fresh = (await sign_up(client, "bob@example.com"))["access_token"]
    assert await introspect(client, by, fresh) == {"active": False}


@pytest.mark.parametrize(
    ("content", "status"),
    [("", 400), ("token=", 400), ("token=a&token=b", 400), ("token=" + "x" * 8193, 400)],
)
async def test_introspect_when_the_form_is_odd_then_refused(
    client: httpx.AsyncClient, content: str, status: int
) -> None:
    token = (await sign_up(client))["access_token"]
    answer = await client.post(
        f"{PREFIX}/introspect",
        content=content,
        headers={
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    assert answer.status_code == status


async def test_introspect_when_nobody_asks_then_401(client: httpx.AsyncClient) -> None:
    token = (await sign_up(client))["access_token"]
    answer = await client.post(f"{PREFIX}/introspect", data={"token": token})
    assert answer.status_code == 401


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_revoke_when_a_session_s_token_then_all_of_the_session_ends(
    client: httpx.AsyncClient, kind: str
) -> None:
    ann = await sign_up(client)
    other = (await sign_up(client))["access_token"]
    for _ in range(2):
        answer = await client.post(f"{PREFIX}/revoke", data={"token": ann[kind]})
        assert (answer.status_code, answer.content) == (200, b"{}")
    for dead in (ann["access_token"], ann["refresh_token"]):
        assert await introspect(client, dead, other) == {"active": False}
    assert (await introspect(client, other, other))["active"]


async def test_revoke_when_a_key_then_it_is_dead_and_its_owner_stays_signed_in(
    client: httpx.AsyncClient, host: Host
) -> None:
    token = (await sign_up(client))["access_token"]
    key = await make_key(client, token)
    answer = await client.post(f"{PREFIX}/revoke", data={"token": key, "token_type_hint": "x"})
    assert answer.status_code == 200
    assert await introspect(client, key, token) == {"active": False}


@pytest.mark.parametrize("token", ["unknown", "tp_live_x", "a.b.c", "x" * 8192])
async def test_revoke_when_unknown_then_200(client: httpx.AsyncClient, token: str) -> None:
    assert (await client.post(f"{PREFIX}/revoke", data={"token": token})).status_code == 200
