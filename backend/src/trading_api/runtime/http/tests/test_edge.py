"""The edge, routing and problems together, over a small app of their own."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trading_api.kernel.errors import NotFoundError
from trading_api.kernel.ids import UuidV7Ids
from trading_api.runtime.http import Access, CurrentPrincipal, ModuleRouter, RequestModel
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import Edge
from trading_api.runtime.http.problems import Problem
from trading_api.runtime.http.routing import add_routes
from trading_api.runtime.http.wire import StrictInt, Symbol, WireDecimal
from trading_api.runtime.identity import Identity, Principal
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock


class Ticket(RequestModel):
    symbol: Symbol
    quantity: WireDecimal
    count: StrictInt = 1


def build(identity: Identity) -> Edge:
    router = ModuleRouter(tags=["test"])

    @router.post("/tickets", access=Access.public(), status_code=201)
    async def create(ticket: Ticket) -> dict[str, Any]:
        return {"symbol": ticket.symbol, "quantity": str(ticket.quantity)}

    @router.get("/me", access=Access.scope("test:read"))
    async def me(principal: CurrentPrincipal) -> dict[str, str]:
        return {"user": principal.user_id}

    @router.post("/act", access=Access.user())
    async def act(principal: CurrentPrincipal) -> dict[str, str]:
        return {"user": principal.user_id}

    async def hot_item(request: Request, principal: Principal | None) -> Response:
        assert principal is None
        return JSONResponse({"item": request.path_params["item_id"]})

    @router.get("/items/{item_id}/state", access=Access.public(), hot=hot_item)
    async def get_item(item_id: str) -> dict[str, str]:
        """Document the hot handler."""
        return {"item": item_id}

    @router.get("/missing", access=Access.public())
    async def missing() -> None:
        raise NotFoundError("no such thing", thing="x")

    @router.get("/broken", access=Access.public())
    async def broken() -> None:
        raise RuntimeError("secret detail")

    @router.get("/internal", access=Access.internal())
    async def internal() -> None:
        return None

    dialect = ModuleRouter(error_shape=_dialect_error)

    @dialect.get("/time", access=Access.public())
    async def time(at: int) -> int:
        return at

    router.include(dialect, prefix="/dialect")
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    hot = add_routes(app, router, prefix="/api/v1/test")
    shapes = {f"/api/v1/test{prefix}": shape for prefix, shape in router.error_shapes.items()}
    return Edge(
        Dispatch({"/api/v1/test": app}, hot),
        identity=identity,
        ids=UuidV7Ids(),
        error_shapes=shapes,
    )


def _dialect_error(problem: Problem) -> Response:
    return JSONResponse({"s": "error", "errmsg": problem.detail})


@pytest.fixture
def identity(settings: PlatformSettings, clock: FixedClock) -> Identity:
    return Identity(settings=settings, clock=clock)


@pytest.fixture
async def client(identity: Identity) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=build(identity))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test.local/api/v1/test", timeout=5
    ) as client:
        yield client


def a_token(settings: PlatformSettings, clock: FixedClock, **changes: Any) -> str:
    key = RSAKey.import_key((settings.secrets_directory / "jwt_private.pem").read_bytes())
    now = int(clock.now().timestamp())
    claims = {
        "iss": "trading-api", "aud": "trading-api", "sub": "usr_1", "sid": "ses_1", "jti": "j",
        "iat": now, "nbf": now, "exp": now + 300, "scopes": ["test:read"], "roles": ["user"],
    } | changes  # fmt: skip
    header = {"alg": "RS256", "typ": "at+jwt", "kid": key.thumbprint()}
    return jwt.encode(header, claims, key, algorithms=["RS256"])


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ('{"symbol": "aapl", "quantity": "1.5"}', 201, None),
        ('{"symbol": "AAPL", "quantity": 1.5}', 201, None),
        ('{"symbol": "AAPL", "quantity": true}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": "1e309"}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": "\uff11\uff12"}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": "1_000"}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": " 5 "}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": "-0"}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": "NaN"}', 422, "quantity"),
        ('{"symbol": "AAPL", "quantity": "1", "count": true}', 422, "count"),
        ('{"symbol": "AAPL", "quantity": "1", "count": "1"}', 422, "count"),
        ('{"symbol": "AAPL", "quantity": "1", "is_admin": true}', 422, "is_admin"),
        ('{"symbol": "\u0410APL", "quantity": "1"}', 422, "symbol"),
        ('{"symbol": "AAPL"}', 422, "quantity"),
        ('{"symbol": "A", "symbol": "B", "quantity": "1"}', 400, "symbol"),
        ("[]", 422, ""),
        ("{", 400, None),
    ],
)
async def test_body_when_sent_then_read_strictly(
    client: httpx.AsyncClient, body: str, status: int, field: str | None
) -> None:
    answer = await client.post(
        "/tickets", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == status, answer.text
    if status != 201:
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["request_id"] == answer.headers["x-request-id"]
        if field is not None:
            assert [each["field"] for each in problem["errors"]] == [field]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("text/plain", 415), ("", 415), ("application/x-www-form-urlencoded", 415)],
)
async def test_body_of_another_type_is_refused(
    client: httpx.AsyncClient, content_type: str, status: int
) -> None:
    answer = await client.post("/tickets", content=b"{}", headers={"Content-Type": content_type})
    assert answer.status_code == status


async def test_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b"x" * 1024

    declared = await client.post("/tickets", content=b"x" * 65_537)
    streamed = await client.post("/tickets", content=stream())
    assert (declared.status_code, streamed.status_code) == (413, 413)


async def test_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await client.post("/tickets", content=b"x", headers=headers)).status_code == 415


async def test_paths_answer_with_and_without_trailing_slash(client: httpx.AsyncClient) -> None:
    assert (await client.get("/items/7/state")).json() == {"item": "7"}
    assert (await client.get("/items/7/state/")).json() == {"item": "7"}
    assert (await client.get("/missing/")).status_code == 404


async def test_head_answers_as_get_without_a_body(client: httpx.AsyncClient) -> None:
    head, full = await client.head("/items/7/state"), await client.get("/items/7/state")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == full.headers["content-length"]


async def test_unknown_path_and_method_are_problems(client: httpx.AsyncClient) -> None:
    nowhere = await client.get("/nowhere")
    outside = await client.get("http://test.local/else")
    method = await client.delete("/missing")
    assert (nowhere.status_code, outside.status_code, method.status_code) == (404, 404, 405)
    assert nowhere.json()["code"] == outside.json()["code"] == "platform.resource.not_found"
    assert method.headers["allow"] == "GET"


async def test_unexpected_error_tells_only_the_request_id(client: httpx.AsyncClient) -> None:
    answer = await client.get("/broken", headers={"X-Request-ID": "abcdefgh-1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["request_id"] == answer.headers["x-request-id"] == "abcdefgh-1"


async def test_request_id_when_malformed_is_replaced(client: httpx.AsyncClient) -> None:
    answer = await client.get("/missing", headers={"X-Request-ID": "no spaces allowed"})
    assert answer.headers["x-request-id"].startswith("req_")


async def test_dialect_has_its_own_error_shape(client: httpx.AsyncClient) -> None:
    wrong, nowhere = await client.get("/dialect/time?at=x"), await client.get("/dialect/nothing")
    assert wrong.json()["s"] == nowhere.json()["s"] == "error"


async def test_nul_in_the_address_is_malformed(client: httpx.AsyncClient) -> None:
    assert (await client.get("/missing?x=%00")).status_code == 400
    assert (await client.get("/missing%00")).status_code == 400


async def test_deadline_that_passed_is_unavailable(client: httpx.AsyncClient) -> None:
    late = await client.get("/missing", headers={"X-Request-Deadline": "1000"})
    assert (late.status_code, late.json()["code"]) == (503, "platform.request.deadline_exceeded")


async def test_access_is_enforced(
    client: httpx.AsyncClient, settings: PlatformSettings, clock: FixedClock
) -> None:
    token = a_token(settings, clock)
    bare = a_token(settings, clock, scopes=[], jti="k")
    signed_in = {"Authorization": f"Bearer {token}"}
    assert (await client.get("/me")).status_code == 401
    assert (await client.get("/me", headers=signed_in)).json() == {"user": "usr_1"}
    scopeless = await client.get("/me", headers={"Authorization": f"Bearer {bare}"})
    assert (scopeless.status_code, scopeless.json()["context"]["scope"]) == (403, "test:read")
    assert (await client.get("/internal", headers=signed_in)).status_code == 403


async def test_cookie_acts_only_from_its_own_site(
    client: httpx.AsyncClient, settings: PlatformSettings, clock: FixedClock
) -> None:
    cookie = {"Cookie": f"access_token={a_token(settings, clock)}"}
    cross = await client.post("/act", headers={**cookie, "Sec-Fetch-Site": "cross-site"})
    silent = await client.post("/act", headers=cookie)
    foreign = await client.post("/act", headers={**cookie, "Origin": "http://test.local.evil"})
    same = await client.post("/act", headers={**cookie, "Sec-Fetch-Site": "same-origin"})
    origin = await client.post("/act", headers={**cookie, "Origin": "http://test.local"})
    assert [each.status_code for each in (cross, silent, foreign, same, origin)] == [
        403, 403, 403, 200, 200,
    ]  # fmt: skip


async def test_security_headers_are_on_every_answer(client: httpx.AsyncClient) -> None:
    for answer in (await client.get("/items/1/state"), await client.get("/broken")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
