"""Journeys run over real fleets: every module its own process behind nginx, on both databases."""

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect

from trading_api.testkit.bus import BusServer
from trading_api.testkit.fleet import Fleet, free_port
from trading_api.testkit.postgresql import create_database, drop_database, session_server

PASSWORD = "a long enough pass phrase"


ON_ONE = [pytest.param("sqlite", marks=pytest.mark.nightly), "postgresql"]
"""For long tests of what hardly depends on the database: both at night, else the stricter one."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who signed up through the front door."""

    fleet: Fleet
    client: httpx.AsyncClient
    email: str
    user_id: str
    token: str

    async def get(self, path: str, **params: Any) -> Any:
        answer = await self.client.get(path, params=params)
        assert answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def connect(self, path: str) -> connect:
        return connect(
            self.fleet.ws_url + path,
            additional_headers={"Authorization": f"Bearer {self.token}"},
            open_timeout=10,
            proxy=None,
        )


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def fleet(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    """A running fleet; the second one differs by `DATABASE_URL` and `REDIS_URL` alone."""
    with contextlib.ExitStack() as stack:
        environ = stack.enter_context(_servers()) if request.param == "postgresql" else {}
        started = Fleet(tmp_path_factory.mktemp("fleet"), free_port(), environ)
        stack.callback(started.stop)
        started.start()
        yield started


@contextlib.contextmanager
def _servers() -> Iterator[dict[str, str]]:
    server, name = session_server(), f"journeys_{os.getpid()}"
    database = create_database(server, name)
    bus = BusServer()
    bus.start()
    try:
        url = database.render_as_string(hide_password=False)
        yield {"DATABASE_URL": url, "REDIS_URL": bus.url}
    finally:
        bus.remove()
        drop_database(server, name)


@pytest.fixture
async def visitor(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the front door that nobody has signed in."""
    async with fleet.client() as client:
        yield client


@pytest.fixture
async def person(fleet: Fleet) -> AsyncIterator[Person]:
    """Somebody who signed up and logged in with a bearer token."""
    async with sign_up(fleet) as found:
        yield found


class sign_up:  # noqa: N801 - reads as the verb it is
    """Register and log in a new person; the client sends the bearer token from then on."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._client = fleet.client()

    async def __aenter__(self) -> Person:
        email = f"{uuid4().hex[:12]}@example.com"
        body = {"email": email, "password": PASSWORD, "full_name": "Ada Trader"}
        registered = await self._client.post("/api/v1/auth/register", json=body)
        assert registered.status_code == 201, registered.text
        login = await self._client.post(
            "/api/v1/auth/login", json={"email": email, "password": PASSWORD}
        )
        assert login.status_code == 200, login.text
        token = login.json()["access_token"]
        self._client.cookies.clear()
        self._client.headers["Authorization"] = f"Bearer {token}"
        return Person(self._fleet, self._client, email, registered.json()["id"], token)

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()


__all__ = ["ON_ONE", "PASSWORD", "ClientConnection", "Person", "sign_up"]
