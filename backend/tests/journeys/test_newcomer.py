"""What a newcomer does with curl and a WebSocket client, through nginx."""

import asyncio
import csv
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.journeys.conftest import PASSWORD, Person
from websockets.asyncio.client import ClientConnection

from trading_api.testkit.fleet import BACKEND, Fleet

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet")]

SOURCE_OF_2012 = BACKEND / "src/trading_api/modules/datafeed/tests/aapl_2012.csv"
"""Copied from the publisher's file, not made by our own packing."""

WORKING, FILLED, BUY, LIMIT, MARKET = 6, 2, 1, 1, 2


async def read_until(
    socket: ClientConnection, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = 15
) -> dict[str, Any]:
    async with asyncio.timeout(seconds):
        while True:
            message = json.loads(await socket.recv())
            assert message["type"] != "error", message
            if wanted(message):
                found: dict[str, Any] = message
                return found


async def subscribe(socket: ClientConnection, route: str, params: dict[str, Any]) -> dict[str, Any]:
    await socket.send(json.dumps({"type": f"{route}.subscribe", "payload": params}))
    answer = await read_until(socket, lambda m: m["type"] == f"{route}.subscribe.response")
    assert answer["payload"]["status"] == "ok", answer
    payload: dict[str, Any] = answer["payload"]
    return payload


async def until(check: Callable[[], Any], *, seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


async def test_sign_in_when_by_cookie_then_browser_needs_no_token(fleet: Fleet, person: Person):
    async with fleet.client() as browser:
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        login = await browser.post(
            "/api/v1/auth/login", json={"email": person.email, "password": PASSWORD}
        )
        assert login.status_code == 200
        assert "refresh_token" not in login.json()
        me = await browser.get("/api/v1/auth/me")
        assert me.json()["email"] == person.email
        assert (await browser.post("/api/v1/auth/logout")).status_code == 200
        assert (await browser.get("/api/v1/auth/me")).status_code == 401


async def test_history_when_hist_then_equals_the_source(person: Person):
    matches = await person.get("/api/v1/datafeed/search", user_input="AAPL")
    assert "HIST:AAPL" in {match["full_name"] for match in matches}
    bars = (
        await person.get(
            "/api/v1/datafeed/bars",
            symbol="HIST:AAPL",
            resolution="1D",
            from_time=1325376000,
            to_time=1356998400,
        )
    )["bars"]
    with SOURCE_OF_2012.open() as file:
        rows = list(csv.DictReader(file))
    assert len(bars) == len(rows) == 250
    for bar, row in zip(bars, rows, strict=True):
        day = time.strftime("%Y-%m-%d", time.gmtime(bar["time"] // 1000))
        assert day == row["date"]
        for field in ("open", "high", "low", "close", "volume"):
            assert Decimal(str(bar[field])) == Decimal(row[field])


async def test_history_when_demo_then_ends_this_minute_and_has_no_future(person: Person):
    now = int(time.time())
    answer = await person.get(
        "/api/v1/datafeed/bars",
        symbol="DEMO:AAPL",
        resolution="1",
        from_time=now - 3600,
        to_time=now + 600,
    )
    times = [bar["time"] // 1000 for bar in answer["bars"]]
    assert times == list(range(times[0], times[0] + 60 * len(times), 60))
    assert now - 60 <= times[-1] <= int(time.time())


async def test_udf_when_asked_as_a_chart_does_then_answers_in_its_dialect(
    visitor: httpx.AsyncClient, person: Person
):
    config = (await visitor.get("/api/v1/datafeed/udf/config")).json()
    assert config["supports_search"] is True
    assert (await visitor.get("/api/v1/datafeed/udf/time")).text.isdigit()
    refused = (await visitor.get("/api/v1/datafeed/udf/symbols?symbol=AAPL")).json()
    assert refused["s"] == "error"
    symbol = await person.get("/api/v1/datafeed/udf/symbols", symbol="AAPL")
    assert symbol["minmov"] == 1
    assert "s" not in symbol
    found = await person.get(
        "/api/v1/datafeed/udf/search", query="AAPL", limit=30, type="", exchange=""
    )
    assert isinstance(found, list)
    history = await person.get(
        "/api/v1/datafeed/udf/history",
        symbol=symbol["ticker"],
        resolution="5",
        countback=300,
        **{"from": 0, "to": int(time.time())},
    )
    assert history["s"] == "ok"
    assert len(history["t"]) == 300


async def test_socket_when_subscribed_then_prices_move(person: Person):
    async with person.connect("/api/v1/datafeed/ws") as socket:
        await subscribe(socket, "bars", {"symbol": "AAPL", "resolution": "1"})
        await subscribe(socket, "quotes", {"symbols": ["AAPL", "EURUSD"], "fast_symbols": []})
        bar = await read_until(socket, lambda m: m["type"] == "bars.update")
        assert bar["payload"]["topic"].startswith("bars:")
        seen: set[str] = set()
        while len(seen) < 3:
            message = await read_until(socket, lambda m: m["type"] == "quotes.update")
            seen.add(json.dumps(message["payload"]["payload"], sort_keys=True))


async def test_orders_when_placed_then_fill_only_where_the_quote_allows(person: Person):
    quote = (await person.client.post("/api/v1/datafeed/quotes", json={"symbols": ["AAPL"]})).json()
    ask = Decimal(str(quote[0]["v"]["ask"]))
    account = (await until(lambda: _accounts(person)))[0]["id"]
    async with person.connect("/api/v1/broker/ws") as socket:
        first = await subscribe(socket, "orders", {"accountId": account})

        placed = await person.client.post(
            "/api/v1/broker/orders",
            json={"symbol": "AAPL", "side": BUY, "type": MARKET, "qty": 10, "clientOrderId": "m1"},
        )
        assert placed.status_code == 200, placed.text
        order_id = placed.json()["orderId"]
        again = await person.client.post(
            "/api/v1/broker/orders",
            json={"symbol": "AAPL", "side": BUY, "type": MARKET, "qty": 10, "clientOrderId": "m1"},
        )
        assert again.json() == placed.json()
        assert again.headers["Idempotent-Replayed"] == "true"
        order = await until(lambda: _order(person, order_id, FILLED))
        assert order["filledQty"] == 10
        executions = await person.get("/api/v1/broker/executions")
        assert [each["orderId"] for each in executions] == [order_id]
        assert abs(Decimal(str(executions[0]["price"])) - ask) < ask / 10
        positions = await person.get("/api/v1/broker/positions")
        assert [(each["id"], each["qty"], each["side"]) for each in positions] == [
            ("DEMO:AAPL", 10, 1)
        ]
        update = await read_until(
            socket,
            lambda m: (
                m["type"] == "orders.update"
                and not m["payload"].get("snapshot")
                and m["payload"]["payload"].get("status") == FILLED
            ),
        )
        assert update["payload"]["payload"]["id"] == order_id
        assert update["payload"]["offset"] > update["payload"]["previous_offset"]

        far = (ask * Decimal("0.75")).quantize(Decimal("0.01"))
        resting = await person.client.post(
            "/api/v1/broker/orders",
            json={"symbol": "AAPL", "side": BUY, "type": LIMIT, "qty": 5, "limitPrice": str(far)},
        )
        assert resting.status_code == 200, resting.text
        assert await _order(person, resting.json()["orderId"], WORKING)
        near = (ask * Decimal("1.25")).quantize(Decimal("0.01"))
        marketable = await person.client.post(
            "/api/v1/broker/orders",
            json={"symbol": "AAPL", "side": BUY, "type": LIMIT, "qty": 5, "limitPrice": str(near)},
        )
        assert marketable.status_code == 200, marketable.text
        bought = await until(lambda: _order(person, marketable.json()["orderId"], FILLED))
        assert Decimal(str(bought["avgPrice"])) <= near
        assert await _order(person, resting.json()["orderId"], WORKING)
        canceled = await person.client.delete(f"/api/v1/broker/orders/{resting.json()['orderId']}")
        assert canceled.status_code == 200, canceled.text

    state = await person.get(f"/api/v1/broker/accounts/{account}/state")
    assert Decimal(str(state["balance"])) > 0
    events = await _events(person, account)
    assert [each["sequence"] for each in events] == list(range(1, len(events) + 1))
    async with person.connect("/api/v1/broker/ws") as socket:
        resumed = await subscribe(
            socket,
            "orders",
            {"accountId": account, "recover": {"epoch": first["epoch"], "offset": first["offset"]}},
        )
        assert resumed["recovered"] is True


async def test_wallet_when_deposited_then_ledger_shows_it(person: Person):
    before = await person.get("/api/v1/wallet")
    headers = {"Idempotency-Key": "first"}
    body = {"amount": "100.00", "currency": "USD"}
    deposit = await person.client.post("/api/v1/wallet/deposit", json=body, headers=headers)
    assert deposit.status_code == 201, deposit.text
    repeated = await person.client.post("/api/v1/wallet/deposit", json=body, headers=headers)
    assert repeated.json()["entry_id"] == deposit.json()["entry_id"]
    withdrawn = await person.client.post("/api/v1/wallet/withdraw", json={"amount": "40.50"})
    assert withdrawn.status_code == 201, withdrawn.text
    refused = await person.client.post("/api/v1/wallet/withdraw", json={"amount": "1000000"})
    assert refused.status_code == 409
    after = await person.get("/api/v1/wallet")
    assert Decimal(after["balance_usd"]) - Decimal(before["balance_usd"]) == Decimal("59.50")
    lines = await person.get("/api/v1/wallet/transactions")
    assert [line["amount"] for line in lines] == ["-40.50", "100.00"]
    assert lines[0]["running_balance"] == after["balance_usd"]


async def test_platform_when_asked_then_shows_every_module_healthy(
    visitor: httpx.AsyncClient, fleet: Fleet
):
    async def healthy() -> Any:
        answer = (await visitor.get("/health")).json()
        return answer if answer["status"] == "healthy" else None

    health = await until(healthy)
    assert set(health["modules"]) >= {"auth", "broker", "datafeed", "gateway", "wallet"}
    assert {each["status"] for each in health["modules"].values()} == {"healthy"}
    merged = (await visitor.get("/openapi.json")).json()
    assert "/api/v1/broker/orders" in merged["paths"]
    page = await visitor.get("/docs", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert "http://" not in page.text.replace(fleet.url, "")
    assert "https://" not in page.text


async def test_front_door_when_internal_paths_asked_then_has_none(visitor: httpx.AsyncClient):
    for path in ("/metrics", "/internal/v1/broker/facts", "/livez", "/readyz"):
        assert (await visitor.get(path)).status_code in (403, 404), path


async def _accounts(person: Person) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await person.get("/api/v1/broker/accounts")
    return found


async def _order(person: Person, order_id: str, status: int) -> dict[str, Any] | None:
    order: dict[str, Any] = await person.get(f"/api/v1/broker/orders/{order_id}")
    return order if order["status"] == status else None


async def _events(person: Person, account: str) -> list[dict[str, Any]]:
    found = await person.get(f"/api/v1/broker/accounts/{account}/events", since=0)
    events: list[dict[str, Any]] = found if isinstance(found, list) else found["events"]
    return events
