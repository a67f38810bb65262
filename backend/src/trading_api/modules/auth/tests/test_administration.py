"""What admins see and do over HTTP, and operators at the host."""

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from trading_api.modules.auth.commands import commands
from trading_api.modules.auth.domain import Role
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.errors import LastAdminError, UserNotFoundError
from trading_api.modules.auth.service import AuthServices
from trading_api.modules.auth.tables import users
from trading_api.modules.auth.tests.builders import PASSWORD, an_email
from trading_api.modules.auth.tests.hosts import Host, client_of, run_host
from trading_api.runtime.module import Command
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

BASE = "/api/v1/auth"
BOSS = "boss@example.com"


@pytest.fixture
async def host(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[Host]:
    async with run_host(settings, environ, clock) as made:
        yield made


@pytest.fixture
async def boss(host: Host) -> AsyncIterator[httpx.AsyncClient]:
    """The admin's client."""
    async with client_of(host) as client:
        await as_user(client, BOSS)
        yield client


@pytest.fixture
async def ann(host: Host, boss: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(host) as client:
        await as_user(client, "ann@example.com")
        yield client


async def as_user(client: httpx.AsyncClient, email: str) -> None:
    await client.post(f"{BASE}/register", json={"email": email, "password": PASSWORD})
    answer = await client.post(f"{BASE}/login", json={"email": email, "password": PASSWORD})
    client.cookies.clear()
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


async def id_of(client: httpx.AsyncClient) -> str:
    return str((await client.get(f"{BASE}/me")).json()["id"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/users"),
        ("GET", "/users/usr_x"),
        ("PATCH", "/users/usr_x"),
        ("GET", "/audit"),
    ],
)
async def test_routes_when_not_an_admin_then_403(
    ann: httpx.AsyncClient, method: str, path: str
) -> None:
    content = b"{}" if method == "PATCH" else None
    headers = {"Content-Type": "application/json"}
    answer = await ann.request(method, BASE + path, content=content, headers=headers)
    assert answer.status_code == 403


async def test_users_then_paged_and_searched(
    boss: httpx.AsyncClient, ann: httpx.AsyncClient
) -> None:
    first = await boss.get(f"{BASE}/users", params={"limit": 1})
    assert [each["email"] for each in first.json()] == [BOSS]
    cursor = first.headers["X-Next-Cursor"]
    second = await boss.get(f"{BASE}/users", params={"limit": 1, "cursor": cursor})
    assert [each["email"] for each in second.json()] == ["ann@example.com"]
    assert "X-Next-Cursor" not in second.headers
    found = await boss.get(f"{BASE}/users", params={"email": "ANN@"})
    assert [each["id"] for each in found.json()] == [await id_of(ann)]
    other = await boss.get(f"{BASE}/users", params={"email": "x", "cursor": cursor})
    assert other.status_code == 422
    assert "password_hash" not in first.text


async def test_user_when_disabled_then_out_at_once_and_back_when_enabled(
    boss: httpx.AsyncClient, ann: httpx.AsyncClient
) -> None:
    path = f"{BASE}/users/{await id_of(ann)}"
    assert (await boss.patch(path, json={"is_active": False})).json()["is_active"] is False
    assert (await ann.get(f"{BASE}/me")).status_code == 401
    login = {"email": "ann@example.com", "password": PASSWORD}
    assert (await ann.post(f"{BASE}/login", json=login)).status_code == 403
    assert (await boss.patch(path, json={"is_active": True})).json()["is_active"] is True
    assert (await ann.post(f"{BASE}/login", json=login)).status_code == 200


async def test_user_when_given_roles_then_signs_in_anew_with_them(
    boss: httpx.AsyncClient, ann: httpx.AsyncClient
) -> None:
    path = f"{BASE}/users/{await id_of(ann)}"
    changed = await boss.patch(path, json={"roles": ["user", "operator"]})
    assert changed.json()["roles"] == ["operator", "user"]
    assert (await ann.get(f"{BASE}/me")).status_code == 401
    refused: tuple[dict[str, Any], ...] = (
        {"roles": ["king"]},
        {"roles": []},
        {"is_admin": True},
        {"is_active": "no"},
    )
    for bad in refused:
        assert (await boss.patch(path, json=bad)).status_code == 422
    assert (await boss.patch(f"{BASE}/users/usr_x", json={})).status_code == 404


async def test_admin_when_the_last_one_then_stays(boss: httpx.AsyncClient) -> None:
    path = f"{BASE}/users/{await id_of(boss)}"
    for change in ({"is_active": False}, {"roles": ["user"]}):
        refused = await boss.patch(path, json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "auth.user.last_admin")


async def test_audit_then_paged_filtered_and_chained(
    boss: httpx.AsyncClient, ann: httpx.AsyncClient
) -> None:
    ann_id = await id_of(ann)
    await boss.patch(f"{BASE}/users/{ann_id}", json={"roles": ["user", "master"]})
    page = await boss.get(f"{BASE}/audit", params={"limit": 2})
    newest, before = page.json()
    assert (newest["action"], newest["object"]) == ("user_change", f"user:{ann_id}")
    assert (newest["actor_id"], newest["detail"]) == (
        await id_of(boss),
        "roles user → master,user",
    )
    assert newest["before_hash"] != newest["after_hash"]
    assert before["sequence"] == newest["sequence"] - 1
    older = await boss.get(
        f"{BASE}/audit", params={"limit": 500, "cursor": page.headers["X-Next-Cursor"]}
    )
    assert [each["sequence"] for each in older.json()] == list(range(before["sequence"] - 1, 0, -1))
    mine = await boss.get(f"{BASE}/audit", params={"actor_id": ann_id, "action": "login"})
    assert [each["outcome"] for each in mine.json()] == ["done"]


async def test_two_admins_when_they_demote_each_other_at_once_then_one_stays(
    service: AuthServices, clock: FixedClock, database: Any
) -> None:
    ids = []
    for name in ("a", "b"):
        made = await service.registration.register(
            email=an_email(f"{name}@example.com"),
            password=PASSWORD,
            full_name="",
            caller=Caller(""),
            now=clock.now(),
            roles=frozenset({Role.ADMIN}),
        )
        ids.append(made.id)
    found = await asyncio.gather(
        *(
            service.administration.change_user(
                caller=Caller("", other),
                user_id=each,
                roles=frozenset({Role.USER}),
                is_active=None,
                now=clock.now(),
            )
            for each, other in zip(ids, reversed(ids), strict=True)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(each, LastAdminError) for each in found) == 1
    async with database.snapshot() as transaction:
        roles = [row.roles for row in await transaction.all(sa.select(users.c.roles))]
    assert sorted(roles) == ["admin", "user"]
    with pytest.raises(UserNotFoundError):
        await service.administration.change_user(
            caller=Caller(""), user_id="usr_x", roles=None, is_active=None, now=clock.now()
        )


class Piped(io.StringIO):
    """Standard input that is no terminal."""

    def isatty(self) -> bool:
        return False


@pytest.fixture
def verbs(host: Host, settings: PlatformSettings, clock: FixedClock) -> Command:
    return commands(host.service, settings=settings, clock=clock)[0]


async def test_operator_when_shows_resets_and_ends_then_it_is_done(
    verbs: Command,
    ann: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await verbs.run(["show", "Ann@example.com"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["email"], shown["second_factor"]) == ("ann@example.com", False)
    assert await verbs.run(["sessions", "ann@example.com"]) == 0
    assert capsys.readouterr().out.startswith("ses_")
    assert await verbs.run(["sessions", "ann@example.com", "--end"]) == 0
    assert capsys.readouterr().out == "1 ended\n"
    assert (await ann.get(f"{BASE}/me")).status_code == 401
    monkeypatch.setattr(sys, "stdin", Piped("another battery staple\n"))
    assert await verbs.run(["password", "ann@example.com"]) == 0
    login = {"email": "ann@example.com", "password": "another battery staple"}
    assert (await ann.post(f"{BASE}/login", json=login)).status_code == 200
    assert await verbs.run(["show", "nobody@example.com"]) == 1
