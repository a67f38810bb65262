"""Routes that are built when they are first asked for."""

import httpx
import pytest
from fastapi import FastAPI
from fastapi.exceptions import FastAPIError
from starlette.routing import Match

from trading_api.runtime.http.late import LateRoute


async def answer(number: int) -> int:
    return number + 1


class Opaque:
    """What no validator can be made for."""


async def answer_wrongly(number: Opaque) -> int:
    return 1


@pytest.fixture
def app() -> FastAPI:
    made = FastAPI()
    made.router.route_class = LateRoute
    made.add_api_route("/things/{number}", answer, methods=["GET"])
    return made


def test_route_when_only_searched_then_not_built(app: FastAPI) -> None:
    route = app.routes[-1]
    scope = {"type": "http", "method": "GET", "path": "/other"}
    assert route.matches(scope)[0] is Match.NONE
    assert "dependant" not in vars(route)


async def test_route_when_asked_then_serves_as_any_other(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://tests") as client:
        assert (await client.get("/things/41")).json() == 42
        assert (await client.get("/things/x")).status_code == 422
        assert (await client.post("/things/1")).status_code == 405
    assert "/things/{number}" in app.openapi()["paths"]


def test_route_when_its_endpoint_cant_be_served_then_says_so_each_time() -> None:
    route = LateRoute("/", answer_wrongly, methods=["GET"])
    for _ in range(2):
        with pytest.raises(FastAPIError):
            route.complete()
    assert not hasattr(LateRoute("/", answer, methods=["GET"]), "nonsense")
