"""The express lane answers exactly what the usual way answers, or nothing."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import RSAKey
from prometheus_client import REGISTRY
from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.errors import NotFoundError
from trading_api.kernel.ids import UuidV7Ids
from trading_api.runtime.http import Access, ModuleRouter
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import API_HEADERS, Edge
from trading_api.runtime.http.express import Express, ExpressLane, Pieces
from trading_api.runtime.http.routing import add_routes, express_routes
from trading_api.runtime.identity import Identity, Principal, ServiceTokens
from trading_api.runtime.secrets import PRIVATE_KEY_FILE
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.bus import eventually
from trading_api.testkit.clocks import FixedClock

PREFIX = "/api/v1/test"
ID = "X-Request-ID: the-same-id"


class App:
    """An app with three routes that may be ready; counts what the usual way served."""

    def __init__(self, identity: Identity) -> None:
        self.served = 0
        self.router = ModuleRouter()
        for path, access in (
            ("/mine", Access.scope("test:read")),
            ("/all", Access.public()),
            ("/staff", Access.roles("operator")),
        ):
            self._declare(path, access)
        app = FastAPI(openapi_url=None, redirect_slashes=False)
        hot = add_routes(app, self.router, prefix=PREFIX)
        edge = Edge(
            Dispatch({PREFIX: app}, hot), identity=identity, ids=UuidV7Ids(), error_shapes={}
        )
        self.express_lane = ExpressLane(identity=identity, headers=API_HEADERS)
        self.express_lane.add(express_routes(self.router, prefix=PREFIX))
        self._served = Express(edge, self.express_lane)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._served(scope, receive, send)

    def _declare(self, path: str, access: Access) -> None:
        def answer(query_string: bytes, principal: Principal | None) -> bytes:
            if b"missing" in query_string:
                raise NotFoundError("no such thing")
            who = principal.user_id if principal else "nobody"
            size = 40_000 if b"large" in query_string else 1
            return f'"{who} {query_string.decode()}"'.encode() * size

        def find(query_string: bytes, principal: Principal | None) -> bytes | Pieces | None:
            found = answer(query_string, principal)
            if b"pieces" in query_string:
                return [memoryview(found)[at : at + 7_000] for at in range(0, len(found), 7_000)]
            return None if b"unready" in query_string else found

        async def hot(request: Request, principal: Principal | None) -> Response:
            self.served += 1
            body = answer(request.scope["query_string"], principal)
            return Response(body, media_type="application/json")

        async def read() -> None:
            """Document the hot handler."""

        self.router.get(path, access=access, hot=hot, express=find, name=path)(read)


class Usual(App):
    """The same without the lane."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self.express_lane = ExpressLane(identity=identity, headers=API_HEADERS)
        self._served = Express(self._served._inner, self.express_lane)


@contextlib.asynccontextmanager
async def serving(app: Any, protocol: str, *, idle_seconds: int = 5) -> AsyncIterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=protocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=idle_seconds,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


class Endless:
    """Answers without an end, until it drains."""

    def __init__(self) -> None:
        self._ending = asyncio.Event()

    def drain(self) -> None:
        self._ending.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await self._ending.wait()
        await send({"type": "http.response.body", "body": b"last"})


EXPRESS = "trading_api.runtime.http.protocol:ExpressProtocol"


@pytest.fixture
def identity(settings: PlatformSettings, clock: FixedClock) -> Identity:
    return Identity(settings=settings, clock=clock)


@pytest.fixture
async def express(identity: Identity) -> AsyncIterator[tuple[App, int]]:
    app = App(identity)
    async with serving(app, EXPRESS) as port:
        yield app, port


@pytest.fixture
async def usual(identity: Identity) -> AsyncIterator[int]:
    async with serving(Usual(identity), "httptools") as port:
        yield port


def a_token(settings: PlatformSettings, clock: FixedClock, **changes: Any) -> str:
    key = RSAKey.import_key((settings.secrets_directory / PRIVATE_KEY_FILE).read_bytes())
    now = int(clock.now().timestamp())
    claims = {
        "iss": "trading-api", "aud": "trading-api", "sub": "usr_ann", "sid": "ses_ann", "jti": "j",
        "iat": now, "nbf": now, "exp": now + 300, "scopes": ["test:read"], "roles": ["user"],
    } | changes  # fmt: skip
    header = {"alg": "RS256", "typ": "at+jwt", "kid": key.thumbprint()}
    return jwt.encode(header, claims, key, algorithms=["RS256"])


async def ask(port: int, raw: bytes, *, count: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """Send bytes and read so many answers; what may differ is left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    answers = []
    try:
        writer.write(raw)
        for _ in range(count):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            lines = [line.split(": ", 1) for line in head[1:] if line]
            headers = {name.lower(): value for name, value in lines}
            headers.pop("date", None)
            # A word between us and nginx.
            headers.pop("x-accel-buffering", None)
            length = 0 if raw.startswith(b"HEAD") else int(headers["content-length"])
            answers.append((int(head[0].split()[1]), headers, await reader.readexactly(length)))
    finally:
        writer.close()
        await writer.wait_closed()
    return answers


def a_request(
    *headers: str, method: str = "GET", path: str = "/mine", version: str = "1.1"
) -> bytes:
    lines = [f"{method} {PREFIX}{path} HTTP/{version}", "Host: tests", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


@pytest.fixture
def bearer(settings: PlatformSettings, clock: FixedClock) -> str:
    return f"Authorization: Bearer {a_token(settings, clock)}"


async def test_ready_answer_when_the_token_was_verified_before_then_the_app_isnt_asked(
    express: tuple[App, int], bearer: str
) -> None:
    app, port = express
    first, second = [await ask(port, a_request(ID, bearer, path="/mine?q=1")) for _ in range(2)]
    assert app.served == 1
    assert first == second
    assert second[0][2] == b'"usr_ann q=1"'


async def test_ready_answer_when_a_credential_stands_in_the_address_then_refused(
    express: tuple[App, int], bearer: str
) -> None:
    _app, port = express
    for path, status in (("/all", 200), ("/all?api_key=x", 400)):
        [(answered, _, _)] = await ask(port, a_request(ID, bearer, path=path))
        assert answered == status


async def test_ready_answer_when_the_connection_stays_idle_then_it_is_closed(
    identity: Identity, bearer: str
) -> None:
    app = App(identity)
    async with serving(app, EXPRESS, idle_seconds=0) as port:
        await ask(port, a_request(ID, bearer))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(a_request(ID, bearer))
        async with asyncio.timeout(5):
            assert b" 200 " in await reader.read()
        writer.close()
        await writer.wait_closed()
    assert app.served == 1


async def test_endless_answer_when_the_server_stops_then_it_ends() -> None:
    async with asyncio.timeout(10):
        async with serving(Endless(), EXPRESS) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(a_request())
            await reader.readuntil(b"first")
        assert (await reader.read()).endswith(b"last\r\n0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_ready_answers_when_pipelined_behind_a_slow_one_then_in_order(
    express: tuple[App, int], bearer: str
) -> None:
    _app, port = express
    await ask(port, a_request(ID, bearer))
    wanted = ["/mine?unready", *(f"/mine?q={number}" for number in range(200)), "/all?unready"]
    raw = b"".join(a_request(ID, bearer, path=path) for path in wanted)
    answers = await ask(port, raw, count=len(wanted))
    assert [body for _, _, body in answers] == [
        f'"usr_ann {path.partition("?")[2]}"'.encode() for path in wanted
    ]


async def test_large_answers_when_the_client_doesnt_read_then_they_wait(
    express: tuple[App, int], bearer: str
) -> None:
    _, port = express
    await ask(port, a_request(ID, bearer))
    raw = a_request(ID, bearer, path="/mine?large") * 20
    answers = await ask(port, raw, count=20)
    assert {(status, len(body)) for status, _, body in answers} == {(200, 15 * 40_000)}


async def test_ready_answer_when_the_session_ends_then_refused(
    express: tuple[App, int], identity: Identity, bearer: str, clock: FixedClock
) -> None:
    _, port = express
    raw = a_request(ID, bearer)
    assert [(await ask(port, raw))[0][0] for _ in range(2)] == [200, 200]
    identity.revoke("ses_ann", until_seconds=int(clock.now().timestamp()) + 600)
    assert (await ask(port, raw))[0][0] == 401


async def test_ready_answer_when_the_token_expires_then_refused(
    express: tuple[App, int], bearer: str, clock: FixedClock
) -> None:
    _, port = express
    raw = a_request(ID, bearer)
    assert [(await ask(port, raw))[0][0] for _ in range(2)] == [200, 200]
    clock.advance(301)
    assert (await ask(port, raw))[0][0] == 401


async def test_ready_answer_when_the_keys_cannot_be_read_then_answered_as_usual(
    express: tuple[App, int], settings: PlatformSettings, bearer: str, clock: FixedClock
) -> None:
    app, port = express
    raw = a_request(ID, bearer)
    assert [(await ask(port, raw))[0][0] for _ in range(2)] == [200, 200]
    served = app.served
    whole = settings.key_set_path.read_bytes()
    try:
        settings.key_set_path.write_text("{")
        clock.advance(5)
        assert (await ask(port, raw))[0][0] == 200
        assert app.served == served + 1
    finally:
        settings.key_set_path.write_bytes(whole)


async def test_ready_answers_are_counted(express: tuple[App, int], bearer: str) -> None:
    _, port = express

    def count(name: str) -> float:
        labels = {"method": "GET", "route": f"{PREFIX}/mine"}
        if name == "http_requests_total":
            labels["status"] = "200"
        return REGISTRY.get_sample_value(name, labels) or 0

    names = ("http_requests_total", "http_request_seconds_count")
    before = [count(name) for name in names]
    for _ in range(3):
        await ask(port, a_request(ID, bearer))
    assert [count(name) for name in names] == [each + 3 for each in before]


@pytest.fixture
def tokens(settings: PlatformSettings, clock: FixedClock) -> list[str]:
    return [
        a_token(settings, clock),
        a_token(settings, clock, scopes=[]),
        a_token(settings, clock, sub="usr_bob", sid="ses_bob", roles=["operator"]),
        a_token(settings, clock, exp=int(clock.now().timestamp()) - 1),
        ServiceTokens(settings=settings, module="broker", clock=clock).token(acting_for="usr_ann"),
        "nonsense",
    ]


@pytest.fixture
async def warm(express: tuple[App, int], tokens: list[str]) -> int:
    """An express lane that has seen every token."""
    _, port = express
    for token in tokens:
        await ask(port, a_request(ID, f"Authorization: Bearer {token}"))
    return port


COOKIE = "access_token"

EXTRAS = [
    "X-Api-Key: tp_live_x",
    "Origin: https://evil.example",
    "Sec-Fetch-Site: cross-site",
    "X-Request-Deadline: 1",
    "X-Request-Deadline: 99999999999999",
    "X-Request-Deadline: soon",
    "X-Request-ID: another-id-1",
    "Content-Length: 0",
    "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Range: bytes=0-1",
    "Connection: close",
    "Accept: text/html",
]

PATHS = [
    "/mine",
    "/all",
    "/staff",
    "/mine/",
    "/other",
    "/mine?unready",
    "/all?missing",
    "/all?a=%00",
    "/all?a=1&api_key=x",
]


ADDRESSES = [
    "/mine?pieces",
    "/mine?large&pieces",
    "/mine?",
    "/mine?a?b=%2F/:;@$'\"{}|^`<>[]",
    "/mine?a#frag",
    "/mine#frag?a",
    "/min%65?a",
    "//mine",
    "/./mine",
    "/mine?ä",
    "/mine?\x7f",
    "http://tests" + PREFIX + "/mine?a",
]


async def test_any_address_is_answered_as_the_usual_way_answers_it(
    warm: int, usual: int, bearer: str
) -> None:
    for path in ADDRESSES:
        raw = a_request(ID, bearer, path=path)
        if path.startswith("http"):
            raw = raw.replace(PREFIX.encode(), b"", 1)
        assert await ask(warm, raw) == await ask(usual, raw), path


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
async def test_any_request_is_answered_as_the_usual_way_answers_it(
    warm: int,
    usual: int,
    tokens: list[str],
    data: st.DataObject,
) -> None:
    token = st.one_of(st.just(tokens[0]), st.sampled_from(tokens))
    bearer = token.map(lambda each: f"Authorization: Bearer {each}")
    credential = st.one_of(
        bearer,
        bearer,
        token.map(lambda each: f"Cookie: access_token={each}"),
        token.map(lambda each: f"Cookie: theme=dark; access_token={each} ; a=b"),
        token.map(lambda each: f"authorization: bearer  {each}"),
        st.tuples(token, token).map(lambda two: f"Cookie: {COOKIE}={two[0]}; {COOKIE}={two[1]}"),
        st.tuples(token, token).map(lambda two: f"Cookie: x{COOKIE}={two[0]}; {COOKIE}={two[1]}"),
        st.sampled_from(["Cookie: theme=dark", "Cookie: access_token=", "Authorization: Basic Yg"]),
    )
    headers = [
        *data.draw(st.lists(credential, min_size=1, max_size=2)),
        *data.draw(st.lists(st.sampled_from(EXTRAS), max_size=1)),
    ]
    method = data.draw(st.sampled_from(["GET", "GET", "GET", "HEAD", "DELETE"]))
    version = data.draw(st.sampled_from(["1.1", "1.1", "1.0"]))
    path = data.draw(st.sampled_from(PATHS))
    raw = a_request(ID, *headers, method=method, path=path, version=version)
    expected = await ask(usual, raw)
    assert await ask(warm, raw) == expected
    assert await ask(warm, raw) == expected
