"""API keys in another process than auth's: revoked within seconds, known for a while without it."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.auth.test_revocation import IN_FORCE_SECONDS, LOGIN, process

from trading_api.app import ProcessApp
from trading_api.kernel.credentials import new_credential
from trading_api.kernel.errors import (
    CarriersDisagreeError,
    MalformedRequestError,
    PermissionDeniedError,
    TokenInvalidError,
    UnavailableError,
)
from trading_api.runtime import api_keys
from trading_api.testkit.bus import BusServer

Json = dict[str, Any]


def scope_of(
    method: str = "GET", address: str = "203.0.113.7", query: bytes = b"", **headers: str
) -> Mapping[str, Any]:
    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return {
        "type": "http",
        "method": method,
        "client": (address, 1),
        "query_string": query,
        "headers": named,
    }


class Hosts:
    """Auth and another process that asks it."""

    def __init__(self, auth: ProcessApp, other: ProcessApp, client: httpx.AsyncClient) -> None:
        self.auth, self.other, self._client = auth, other, client

    async def call(self, method: str, path: str, body: Json | None = None, **headers: str) -> Any:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        answer = await self._client.request(method, f"/api/v1/auth{path}", json=body, headers=named)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    async def make(self, token: str, **changes: Any) -> Json:
        body = {"name": "bot", "scopes": ["broker:read"], **changes}
        made: Json = await self.call("POST", "/api-keys", body, authorization=f"Bearer {token}")
        return made

    async def is_refused(self, key: str) -> bool:
        try:
            await self.other.identity.authenticate(scope_of(x_api_key=key))
        except TokenInvalidError:
            return True
        return False


@contextlib.asynccontextmanager
async def hosts(environ: dict[str, str]) -> AsyncIterator[tuple[Hosts, str]]:
    async with process("auth", environ) as auth, process("gateway", environ) as other:
        other.peers.add_local(("auth",), auth)
        transport = httpx.ASGITransport(app=auth)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://trading.test", timeout=10
        ) as client:
            found = Hosts(auth, other, client)
            await found.call("POST", "/register", dict(LOGIN))
            token = (await found.call("POST", "/login", dict(LOGIN)))["access_token"]
            client.cookies.clear()
            yield found, token


@pytest.fixture
def without_bus(environ: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return environ | {"REDIS_URL": f"unix://{tmp_path}/nobody.sock"}


@pytest.mark.parametrize("is_bus_there", [True, False])
async def test_revoke_then_refused_in_another_process_within_five_seconds(
    environ: dict[str, str], bus_server: BusServer, tmp_path: Path, is_bus_there: bool
) -> None:
    environ |= {"REDIS_URL": bus_server.url if is_bus_there else f"unix://{tmp_path}/nobody.sock"}
    async with hosts(environ) as (found, token):
        key = await found.make(token)
        assert not await found.is_refused(key["key"])
        began = time.monotonic()
        await found.call("DELETE", f"/api-keys/{key['id']}", authorization=f"Bearer {token}")
        while not await found.is_refused(key["key"]):
            assert time.monotonic() - began < IN_FORCE_SECONDS
            await asyncio.sleep(0.02)
        # Its sockets are closed by this.
        while not found.other.identity.is_revoked(key["id"]):
            assert time.monotonic() - began < IN_FORCE_SECONDS
            await asyncio.sleep(0.02)


async def test_authenticate_when_auth_is_away_then_what_it_said_last_stands_for_a_while(
    without_bus: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(without_bus) as (found, token):
        key = (await found.make(token))["key"]
        other = (await found.make(token))["key"]
        assert not await found.is_refused(key)
        asked = 0

        async def away(scope: Any, receive: Any, send: Any) -> None:
            nonlocal asked
            asked += 1
            raise httpx.ConnectError("away")

        found.other.peers.add_local(("auth",), away)
        await found.other.peers.close()
        monkeypatch.setattr(api_keys, "FRESH_SECONDS", 0.0)
        monkeypatch.setattr(api_keys, "RETRY_SECONDS", 600.0)
        identity = found.other.identity
        for method in ("GET", "POST"):
            principal = await identity.authenticate(scope_of(method, x_api_key=key))
            assert principal is not None and principal.scopes == {"broker:read"}
        monkeypatch.setattr(api_keys, "ACT_SECONDS", 0.0)
        with pytest.raises(UnavailableError):
            await identity.authenticate(scope_of("POST", x_api_key=key))
        assert await identity.authenticate(scope_of("GET", x_api_key=key)) is not None
        monkeypatch.setattr(api_keys, "READ_SECONDS", 0.0)
        with pytest.raises(UnavailableError):
            await identity.authenticate(scope_of("GET", x_api_key=key))
        with pytest.raises(UnavailableError):
            await identity.authenticate(scope_of("GET", x_api_key=other))
        assert asked == 1, "nobody waits for a failure that was met just now"
        # Keys that are used stay known, however many others come.
        monkeypatch.setattr(api_keys, "READ_SECONDS", 600.0)
        monkeypatch.setattr(api_keys, "CACHE_SIZE_MAX", 2)
        for _ in range(4):
            assert await identity.authenticate(scope_of(x_api_key=key)) is not None
            stranger = new_credential("live", os.urandom)[0]
            with pytest.raises(UnavailableError):
                await identity.authenticate(scope_of(x_api_key=stranger))


async def test_authenticate_when_from_another_network_then_refused(
    without_bus: dict[str, str],
) -> None:
    async with hosts(without_bus) as (found, token):
        made = await found.make(token, ip_allow=["203.0.113.0/24", "2001:db8::/32"])
        for address in ("203.0.113.200", "::ffff:203.0.113.9", "2001:db8::1"):
            scope = scope_of(address=address, x_api_key=made["key"])
            assert await found.other.identity.authenticate(scope) is not None
        for address in ("203.0.114.1", "127.0.0.1", "2001:db9::1", "nonsense"):
            with pytest.raises(PermissionDeniedError):
                await found.other.identity.authenticate(
                    scope_of(address=address, x_api_key=made["key"])
                )


async def test_authenticate_when_carriers_disagree_or_a_secret_is_in_the_address_then_refused(
    without_bus: dict[str, str],
) -> None:
    async with hosts(without_bus) as (found, token):
        key = (await found.make(token))["key"]
        body = {"account_id": "acc_1", "name": "guest"}
        shared = await found.call("POST", "/share-tokens", body, authorization=f"Bearer {token}")
        identity = found.other.identity
        both = scope_of(authorization=f"Bearer {token}", x_api_key=key)
        principal = await identity.authenticate(both)
        assert principal is not None and principal.carrier == "bearer"
        guest = await identity.authenticate(scope_of(authorization=f"Bearer {shared['token']}"))
        assert guest is not None and (guest.carrier, guest.account_id) == ("api_key", "acc_1")
        with pytest.raises(CarriersDisagreeError):
            await identity.authenticate(
                scope_of(authorization=f"Bearer {token}", x_api_key=shared["token"])
            )
        for query in (f"a=1&x={key}", "access_token=x", "API_KEY=1", f"t={shared['token']}"):
            with pytest.raises(MalformedRequestError):
                await identity.authenticate(scope_of(query=query.encode(), x_api_key=key))
        for bad in (key[:-1], key + "0", "tp_live_", "", key.lower()):
            with pytest.raises(TokenInvalidError):
                await identity.authenticate(scope_of(x_api_key=bad))
