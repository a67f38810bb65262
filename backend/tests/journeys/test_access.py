"""Carriers, scopes and guests over every module, through nginx."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests.journeys.conftest import Person, sign_up
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from trading_api.testkit.fleet import Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

READ = ["auth:read", "broker:read", "datafeed:read", "wallet:read"]


async def make(person: Person, path: str, **body: Any) -> dict[str, Any]:
    answer = await person.client.post(f"/api/v1/auth/{path}", json={"name": "bot", **body})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def client_with(fleet: Fleet, key: str) -> httpx.AsyncClient:
    client = fleet.client()
    client.headers["X-API-Key"] = key
    return client


async def test_api_key_when_used_in_every_module_then_it_may_what_it_was_given(
    fleet: Fleet, person: Person
) -> None:
    made = await make(person, "api-keys", scopes=READ)
    async with client_with(fleet, made["key"]) as client:
        for path in (
            "/api/v1/auth/me",
            "/api/v1/broker/accounts",
            "/api/v1/wallet/transactions",
            "/api/v1/datafeed/search?query=A",
            "/api/v1/modules",
        ):
            answer = await client.get(path)
            assert answer.status_code == 200, f"{path}: {answer.text}"
        order = {"symbol": "DEMO:AAPL", "side": 1, "type": 2, "qty": 1}
        refused = [
            await client.post("/api/v1/broker/orders", json=order),
            await client.post("/api/v1/auth/api-keys", json={"name": "x", "scopes": READ}),
            await client.post("/api/v1/auth/logout-all"),
            await client.get("/api/v1/auth/sessions"),
        ]
        assert [each.status_code for each in refused] == [403] * 4
        in_address = await client.get(f"/api/v1/broker/accounts?api_key={made['key']}")
        assert in_address.status_code == 400
        assert in_address.json()["code"] == "platform.request.malformed"


async def test_api_key_when_revoked_then_its_sockets_close_and_it_is_refused(
    fleet: Fleet, person: Person
) -> None:
    made = await make(person, "api-keys", scopes=READ)
    account = (await person.get("/api/v1/broker/accounts"))[0]["id"]
    url = f"{fleet.ws_url}/api/v1/broker/ws"
    async with (
        connect(url, additional_headers={"X-API-Key": made["key"]}, proxy=None) as socket,
        connect(
            url,
            subprotocols=[Subprotocol("trading.v1"), Subprotocol(f"bearer.{made['key']}")],
            proxy=None,
        ) as other,
    ):
        for each in (socket, other):
            payload = {"accountId": account}
            await each.send(json.dumps({"type": "orders.subscribe", "payload": payload}))
            assert json.loads(await each.recv())["payload"]["status"] == "ok"
        deleted = await person.client.delete(f"/api/v1/auth/api-keys/{made['id']}")
        assert deleted.status_code == 204
        for each in (socket, other):
            with pytest.raises(ConnectionClosed) as closed:
                async with asyncio.timeout(5):
                    while True:
                        await each.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
    async with client_with(fleet, made["key"]) as client:
        assert (await client.get("/api/v1/broker/accounts")).status_code == 401
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"{url}?api_key={made['key']}", proxy=None):
            pass
    assert refused.value.response.status_code == 400


async def test_share_token_then_a_guest_sees_that_account_and_nothing_else(
    fleet: Fleet, person: Person
) -> None:
    opened = await person.client.post("/api/v1/broker/accounts", json={"name": "second"})
    assert opened.status_code == 201, opened.text
    first, second = [each["id"] for each in await person.get("/api/v1/broker/accounts")]
    token = (await make(person, "share-tokens", account_id=second))["token"]
    async with client_with(fleet, token) as guest:
        shown = await guest.get("/api/v1/broker/accounts")
        assert [each["id"] for each in shown.json()] == [second]
        for path in ("account", "orders", "orders/history", "positions", "executions"):
            for query, status in (
                ("", 200),
                (f"?accountId={second}", 200),
                (f"?accountId={first}", 404),
            ):
                answer = await guest.get(f"/api/v1/broker/{path}{query}")
                assert answer.status_code == status, f"{path}{query}: {answer.text}"
        for path in ("state", "events"):
            for account, status in ((second, 200), (first, 404)):
                answer = await guest.get(f"/api/v1/broker/accounts/{account}/{path}")
                assert answer.status_code == status, answer.text
        unknown = await guest.get("/api/v1/broker/account?accountId=acc_unknown")
        foreign = await guest.get(f"/api/v1/broker/account?accountId={first}")
        assert {**unknown.json(), "request_id": ""} == {**foreign.json(), "request_id": ""}
        order = {"symbol": "DEMO:AAPL", "side": 1, "type": 2, "qty": 1}
        assert (await guest.post("/api/v1/broker/orders", json=order)).status_code == 403
        for path in ("wallet/transactions", "auth/me", "auth/sessions"):
            assert (await guest.get(f"/api/v1/{path}")).status_code == 403, path
    async with connect(
        f"{fleet.ws_url}/api/v1/broker/ws", additional_headers={"X-API-Key": token}, proxy=None
    ) as socket:
        for account, wanted in ((second, "ok"), (first, "error")):
            payload = {"accountId": account}
            await socket.send(json.dumps({"type": "equity.subscribe", "payload": payload}))
            frame = json.loads(await socket.recv())
            while frame["type"] != "equity.subscribe.response":
                frame = json.loads(await socket.recv())
            assert frame["payload"]["status"] == wanted, frame
    async with sign_up(fleet) as stranger:
        mine = await make(stranger, "share-tokens", account_id=first)
        async with client_with(fleet, mine["token"]) as guest:
            assert (await guest.get("/api/v1/broker/account")).status_code == 404
            assert (await guest.get("/api/v1/broker/accounts")).json() == []
