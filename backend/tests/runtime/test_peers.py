"""Calls between modules keep nothing of the users they are made for."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.peers import Peers
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock


async def test_cookie_of_one_call_does_not_come_with_the_next(
    settings: PlatformSettings, clock: FixedClock
) -> None:
    cookies: list[str | None] = []

    async def sign_in(scope: Scope, receive: Receive, send: Send) -> None:
        cookies.append(Request(scope).headers.get("cookie"))
        response = Response("{}")
        response.set_cookie("access_token", "of the first user")
        await response(scope, receive, send)

    tokens = ServiceTokens(settings=settings, module="broker", clock=clock)
    peers = Peers(settings=settings, tokens=tokens)
    peers.add_local(("auth",), sign_in)
    client = peers.client("auth")
    try:
        for _ in range(2):
            await client.post("/login")
    finally:
        await peers.close()
    assert cookies == [None, None]
