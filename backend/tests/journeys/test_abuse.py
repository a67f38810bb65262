"""What every operation of every module must refuse, read from what the platform says of itself."""

import re
from typing import Any

import httpx
import pytest
from tests.journeys.conftest import PASSWORD, Person, sign_up
from tests.journeys.operations import MODULES, UNSAFE, Operation, read_operations

from trading_api.testkit.fleet import Fleet

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.parametrize("fleet", ["sqlite"], indirect=True),
]

STOLEN = {"balance": 1, "role": "admin", "roles": ["admin"], "user_id": "usr_x", "is_admin": True}


@pytest.fixture
async def operations(person: Person) -> list[Operation]:
    return await read_operations(person.client)


async def test_operations_when_nobody_asks_then_401_unless_they_are_public(
    person: Person, visitor: httpx.AsyncClient, operations: list[Operation]
) -> None:
    for each in operations:
        method, path, options = each.request()
        answer = await visitor.request(method, path, **options)
        if each.is_public:
            assert answer.status_code < 500, str(each)
        else:
            assert answer.status_code == 401, f"{each}: {answer.text[:300]}"
            assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_operations_when_the_token_is_altered_then_401(
    person: Person, operations: list[Operation]
) -> None:
    head, payload, signature = person.token.split(".")
    person.client.headers["Authorization"] = f"Bearer {head}.{payload}.{signature[::-1]}"
    for each in operations:
        if not each.is_public:
            method, path, options = each.request()
            answer = await person.client.request(method, path, **options)
            assert answer.status_code == 401, f"{each}: {answer.text[:300]}"


async def test_operations_when_a_role_is_needed_then_a_user_is_refused(
    person: Person, operations: list[Operation]
) -> None:
    asked = 0
    for each in operations:
        if each.roles and not set(each.roles) & {"user"}:
            method, path, options = each.request()
            answer = await person.client.request(method, path, **options)
            assert answer.status_code == 403, f"{each}: {answer.text[:300]}"
            asked += 1
    assert asked >= 3


async def test_operations_when_a_key_lacks_the_scope_then_refused(
    person: Person, visitor: httpx.AsyncClient, operations: list[Operation]
) -> None:
    made = await person.client.post(
        "/api/v1/auth/api-keys", json={"name": "bot", "scopes": ["gateway:read"]}
    )
    visitor.headers["X-API-Key"] = made.json()["key"]
    scopes = set()
    for each in operations:
        if each.is_public:
            continue
        method, path, options = each.request()
        answer = await visitor.request(method, path, **options)
        if each.scope is not None or each.roles or not each.with_keys:
            assert answer.status_code == 403, f"{each}: {answer.text[:300]}"
            scopes.add(each.scope)
    assert {"broker:read", "broker:trade", "auth:manage", "wallet:read"} <= scopes


async def test_operations_when_fields_are_slipped_in_then_refused(
    person: Person, operations: list[Operation]
) -> None:
    before = (await person.client.get("/api/v1/auth/me")).json()
    for each in operations:
        if not each.has_json or not isinstance(each.body, dict):
            continue
        method, path, options = each.request()
        options["json"] = {**each.body, **STOLEN}
        answer = await person.client.request(method, path, **options)
        # Whoever may not come at all isn't told what the fields are.
        assert answer.status_code in (401, 403, 404, 409, 422), f"{each}: {answer.text[:300]}"
        if answer.status_code == 422 and not each.is_public:
            rules = {error["rule"] for error in answer.json()["errors"]}
            assert "extra_forbidden" in rules, f"{each}: {answer.text[:500]}"
    after = (await person.client.get("/api/v1/auth/me")).json()
    assert {**after, "last_login": None} == {**before, "last_login": None}


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Content-Type": "text/plain"}, b"{}"),
        ({"Content-Type": "application/x-yaml"}, b"a: 1"),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"\x1f\x8b"),
        ({}, b"{}"),
    ],
)
async def test_operations_when_the_body_is_of_another_type_then_415(
    person: Person, operations: list[Operation], headers: dict[str, str], content: bytes
) -> None:
    for each in operations:
        if each.has_json and not each.roles:
            method, path, _ = each.request()
            answer = await person.client.request(method, path, headers=headers, content=content)
            # An operator's operation looks at no body of a user.
            is_operators = (each.scope or "").endswith(":manage") and each.scope != "auth:manage"
            expected = 403 if is_operators else 415
            assert answer.status_code == expected, f"{each}: {answer.text[:300]}"


async def test_operations_when_a_cookie_comes_from_another_site_then_refused(
    fleet: Fleet, person: Person, operations: list[Operation]
) -> None:
    cookie = f"access_token={person.token}"
    foreign: tuple[dict[str, str], ...] = (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "X-HTTP-Method-Override": "GET"},
        {},
    )
    async with fleet.client() as browser:
        for each in operations:
            if each.is_public or each.method not in UNSAFE:
                continue
            for headers in foreign:
                method, path, options = each.request()
                options["headers"] = {**options.get("headers", {}), "Cookie": cookie, **headers}
                answer = await browser.request(method, path, **options)
                assert answer.status_code == 403, f"{each} {headers}: {answer.text[:300]}"
                assert answer.json()["code"] == "platform.request.cross_site", str(each)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    "origin", ["null", "https://evil.example", "http://trading.test.evil.example", "http://"]
)
async def test_origin_when_it_is_not_ours_then_no_answer_may_be_read(
    person: Person, module: str, origin: str
) -> None:
    path = f"/api/v1/{module}/health"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    for answer in (
        await person.client.get(path, headers={"Origin": origin}),
        await person.client.options(path, headers=asked),
    ):
        named = [name for name in answer.headers if name.startswith("access-control-allow")]
        assert named == [], answer.headers


@pytest.mark.parametrize("module", MODULES)
async def test_answers_then_they_carry_what_browsers_must_know(person: Person, module: str) -> None:
    for path in (f"/api/v1/{module}/health", f"/api/v1/{module}/nothing-here"):
        headers = (await person.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert re.fullmatch(r"nginx", headers.get("server", "nginx"))


async def test_cookie_when_sent_twice_then_400(person: Person, fleet: Fleet) -> None:
    for cookie in (
        f"access_token={person.token}; access_token={person.token}",
        f"access_token={person.token}; access_token=planted",
    ):
        async with fleet.client() as browser:
            answer = await browser.get("/api/v1/auth/me", headers={"Cookie": cookie})
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] == "platform.principal.carriers_disagree"


async def test_headers_when_they_claim_to_be_somebody_then_they_count_for_nothing(
    visitor: httpx.AsyncClient, person: Person
) -> None:
    claims = {
        "X-User-Id": person.user_id,
        "X-User-Roles": "admin",
        "X-User-Scopes": "broker:trade",
        "X-Internal-Token": "x",
        "X-Original-URL": "/internal/v1/auth/revocations",
        "X-Forwarded-User": person.user_id,
    }
    answer = await visitor.get("/api/v1/auth/me", headers=claims)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "agent", ["x" * 7000, "\x1b[31mred", "a%0d%0aSet-Cookie: x=1", '"}{"event":"forged"']
)
async def test_user_agent_when_it_is_hostile_then_the_answer_is_as_usual(
    fleet: Fleet, agent: str
) -> None:
    async with sign_up(fleet) as person:
        answer = await person.client.post(
            "/api/v1/auth/login",
            json={"email": person.email, "password": PASSWORD},
            headers=[(b"User-Agent", agent.encode("latin-1"))],
        )
        # Control characters are no header's (RFC 9110, 5.5).
        assert answer.status_code == (400 if "\x1b" in agent else 200), answer.text
        sessions: list[dict[str, Any]] = (await person.client.get("/api/v1/auth/sessions")).json()
        assert all(len(each["user_agent"]) <= 512 for each in sessions)
