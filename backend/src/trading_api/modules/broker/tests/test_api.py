"""The HTTP surface: shapes, identity, idempotency, refusals, numbers."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest

from trading_api.modules.broker.api.v1 import build_router
from trading_api.modules.broker.tests.builders import FakeMarket
from trading_api.modules.broker.tests.conftest import Venue
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token, client_of

PREFIX = "/api/v1/broker"
SCOPES = ("broker:read", "broker:trade")
MARKET_BUY = {"symbol": "DEMO:AAPL", "type": 2, "side": 1, "qty": 10}

ClientOf = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def make_client(
    venue: Venue, settings: PlatformSettings, clock: FixedClock
) -> AsyncIterator[ClientOf]:
    clients: list[httpx.AsyncClient] = []
    router = build_router(
        accounts=venue.accounts,
        orders=venue.orders,
        positions=venue.positions,
        reports=venue.reports,
        leverage=venue.leverage,
        resets=venue.resets,
        controls=venue.controls,
        performance=venue.performance,
        clock=clock,
        cursors=Cursors(b"secret", purpose="broker.lists"),
    )

    def make(
        user_id: str | None = "usr_trader",
        scopes: tuple[str, ...] = SCOPES,
        roles: tuple[str, ...] = (),
    ) -> httpx.AsyncClient:
        token = (
            None
            if user_id is None
            else access_token(settings, clock, user_id=user_id, scopes=scopes, roles=roles)
        )
        clients.append(
            client_of(router, prefix=PREFIX, settings=settings, clock=clock, token=token)
        )
        return clients[-1]

    yield make
    for each in clients:
        await each.aclose()


@pytest.fixture
def client(make_client: ClientOf) -> httpx.AsyncClient:
    return make_client()


async def place(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    body = {name: value for name, value in (MARKET_BUY | changes).items() if value is not None}
    return await client.post("/orders", json=body)


async def test_market_order_shows_everywhere(client: httpx.AsyncClient) -> None:
    answer = await place(client, clientOrderId="first")
    assert answer.status_code == 200
    order_id = answer.json()["orderId"]
    assert "Idempotent-Replayed" not in answer.headers

    order = (await client.get(f"/orders/{order_id}")).json()
    assert (order["status"], order["state"], order["type"], order["side"]) == (2, "FILLED", 2, 1)
    assert (order["qty"], order["filledQty"], order["leavesQty"], order["avgPrice"]) == (
        10, 10, 0, 200,
    )  # fmt: skip
    assert "limitPrice" not in order
    assert (await client.get("/orders?clientOrderId=first")).json() == [order]
    assert (await client.get("/orders")).json() == [order]

    (position,) = (await client.get("/positions")).json()
    assert (position["id"], position["qty"], position["side"]) == ("DEMO:AAPL", 10, 1)
    assert (position["avgPrice"], position["markPrice"], position["unrealizedPl"]) == (
        200, 199.9, -1,
    )  # fmt: skip

    (execution,) = (await client.get("/executions")).json()
    assert (execution["orderId"], execution["price"], execution["commission"]) == (
        order_id, 200, 0.2,
    )  # fmt: skip
    assert execution["quote"]["ask"] == 200

    state = (await client.get("/account")).json()
    assert (state["balance"], state["equity"], state["marginUsed"]) == (99999.8, 99998.8, 399.8)
    events = await client.get(f"/accounts/{state['accountId']}/events")
    assert [each["sequence"] for each in events.json()] == list(range(1, 7))
    assert [each["type"] for each in events.json()] == [
        "cash", "order", "execution", "order", "position", "cash",
    ]  # fmt: skip
    assert events.headers["X-Account-Offset"] == "6"
    later = await client.get(f"/accounts/{state['accountId']}/events?since=4")
    assert [each["sequence"] for each in later.json()] == [5, 6]
    assert (await client.get(f"/accounts/{state['accountId']}/state")).json() == state


async def test_numbers_are_written_and_read_exactly(
    client: httpx.AsyncClient, market: FakeMarket
) -> None:
    market.quote("0.00000", "1.09999", "DEMO:EURUSD")
    raw = b'{"symbol":"EURUSD","type":1,"side":1,"qty":"100000","limitPrice":1.10000}'
    answer = await client.post("/orders", content=raw, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200
    text = (await client.get(f"/orders/{answer.json()['orderId']}")).text
    assert '"avgPrice":1.09999,' in text
    assert '"limitPrice":1.1,' in text


async def test_repeat_is_answered_alike_and_says_so(client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await client.post("/orders", json=MARKET_BUY, headers=headers)
    again = await client.post("/orders", json={**MARKET_BUY, "qty": "10"}, headers=headers)
    assert again.json() == first.json()
    assert again.headers["Idempotent-Replayed"] == "true"
    other = await client.post("/orders", json={**MARKET_BUY, "qty": 11}, headers=headers)
    assert other.status_code == 422
    assert [each["field"] for each in other.json()["errors"]] == ["qty"]


async def test_limit_order_can_be_changed_and_canceled(client: httpx.AsyncClient) -> None:
    order_id = (await place(client, type="limit", limitPrice=150)).json()["orderId"]
    changed = await client.put(f"/orders/{order_id}", json={"qty": 20, "limitPrice": "151.5"})
    assert changed.json()["success"] is True
    order = (await client.get(f"/orders/{order_id}")).json()
    assert (order["status"], order["qty"], order["limitPrice"]) == (6, 20, 151.5)
    assert (await client.delete(f"/orders/{order_id}")).json()["success"] is True
    order = (await client.get(f"/orders/{order_id}")).json()
    assert (order["status"], order["message"]["type"]) == (1, "information")
    closed = await client.put(f"/orders/{order_id}", json={"qty": 30})
    assert (closed.status_code, closed.json()["code"]) == (409, "broker.order.closed")


async def test_position_is_closed_in_parts(client: httpx.AsyncClient) -> None:
    await place(client)
    part = await client.delete("/positions/DEMO:AAPL?amount=4")
    assert part.status_code == 200, part.text
    assert [each["qty"] for each in (await client.get("/positions")).json()] == [6]
    await client.delete("/positions/aapl")
    assert (await client.get("/positions")).json() == []
    gone = await client.delete("/positions/DEMO:AAPL")
    assert (gone.status_code, gone.json()["code"]) == (404, "broker.position.not_found")


async def test_history_is_paged_by_cursor(client: httpx.AsyncClient) -> None:
    placed = [(await place(client)).json()["orderId"] for _ in range(5)]
    seen, url = [], "/orders/history?limit=2"
    while True:
        page = await client.get(url)
        seen += [each["id"] for each in page.json()]
        cursor = page.headers.get("X-Next-Cursor")
        if cursor is None:
            break
        url = f"/orders/history?limit=2&cursor={cursor}"
    assert seen == placed[::-1]
    assert (await client.get(url + "&symbol=AAPL")).status_code == 422
    fills = await client.get("/executions?limit=3")
    rest = await client.get(f"/executions?limit=3&cursor={fills.headers['X-Next-Cursor']}")
    assert len(fills.json()) == 3
    assert len(rest.json()) == 2


async def test_preview_tells_cost_and_refusal(client: httpx.AsyncClient) -> None:
    fits = (await client.post("/orders/preview", json=MARKET_BUY)).json()
    assert fits["errors"] == []
    assert fits["sections"][0]["rows"][0] == {"title": "Price at most", "value": "200.20"}
    too_big = (await client.post("/orders/preview", json={**MARKET_BUY, "qty": 5000})).json()
    assert "margin" in too_big["errors"][0]
    assert (await client.get("/orders")).json() == []


async def test_instrument_shows_its_rules(client: httpx.AsyncClient) -> None:
    found = (await client.get("/instruments/eurusd")).json()
    assert (found["symbol"], found["minTick"], found["pipSize"]) == ("DEMO:EURUSD", 0.00001, 0.0001)
    assert (found["leverage"], found["qty"]["min"]) == ("30:1", 1)
    assert found["quote"]["ask"] == 1.1
    assert (await client.get("/instruments/DEMO:NONE")).status_code == 404


async def test_accounts_are_opened_and_named(client: httpx.AsyncClient) -> None:
    (first,) = (await client.get("/accounts")).json()
    opened = await client.post("/accounts", json={"name": "Tests"})
    assert (opened.status_code, opened.json()["name"]) == (201, "Tests")
    second = opened.json()["id"]
    await client.post(f"/orders?accountId={second}", json=MARKET_BUY)
    assert (await client.get("/positions")).json() == []
    assert len((await client.get("/positions", headers={"X-Account-Id": second})).json()) == 1
    both = await client.get(f"/positions?accountId={first['id']}", headers={"X-Account-Id": second})
    assert both.status_code == 422


async def test_somebody_else_s_things_don_t_exist(make_client: ClientOf) -> None:
    mine, theirs = make_client(), make_client("usr_other")
    order_id = (await place(mine, type=1, limitPrice=150)).json()["orderId"]
    account_id = (await mine.get("/account")).json()["accountId"]
    await theirs.get("/account")
    for method, path, body in [
        ("GET", f"/orders/{order_id}", None),
        ("PUT", f"/orders/{order_id}", {"qty": 1}),
        ("DELETE", f"/orders/{order_id}", None),
        ("GET", f"/account?accountId={account_id}", None),
        ("GET", f"/orders?accountId={account_id}", None),
        ("GET", f"/accounts/{account_id}/state", None),
        ("GET", f"/accounts/{account_id}/events", None),
        ("POST", f"/orders?accountId={account_id}", MARKET_BUY),
        ("DELETE", f"/positions/DEMO:AAPL?accountId={account_id}", None),
    ]:
        answer = await theirs.request(method, path, json=body)
        assert answer.status_code == 404, (method, path, answer.text)
    assert (await mine.get(f"/orders/{order_id}")).json()["status"] == 6


async def test_scopes_are_needed(make_client: ClientOf) -> None:
    assert (await make_client(None).get("/orders")).status_code == 401
    reader = make_client(scopes=("broker:read",))
    assert (await reader.get("/orders")).status_code == 200
    assert (await place(reader)).status_code == 403


async def test_stale_quote_is_a_503_to_be_repeated(
    client: httpx.AsyncClient, clock: FixedClock
) -> None:
    clock.advance(3)
    answer = await place(client)
    assert (answer.status_code, answer.json()["code"]) == (503, "broker.order.stale_quote")
    assert answer.headers["Retry-After"] == "1"


async def test_margin_refusal_names_the_numbers(client: httpx.AsyncClient) -> None:
    answer = await place(client, qty=5000)
    assert (answer.status_code, answer.json()["code"]) == (409, "broker.order.insufficient_margin")
    assert answer.json()["context"]["available"] == "100000.00"


BAD_ORDERS: list[tuple[Mapping[str, Any], str]] = [
    ({"qty": 0}, "qty"),
    ({"qty": -1}, "qty"),
    ({"qty": "-0"}, "qty"),
    ({"qty": 1.5}, "qty"),
    ({"qty": "1e3"}, "qty"),
    ({"qty": "NaN"}, "qty"),
    ({"qty": True}, "qty"),
    ({"qty": [1]}, "qty"),
    ({"qty": None}, "qty"),
    ({"qty": 999_999_999_999_999_999}, "qty"),
    ({"qty": "0.00000001"}, "qty"),
    ({"side": 0}, "side"),
    ({"side": "up"}, "side"),
    ({"side": True}, "side"),
    ({"side": 1.5}, "side"),
    ({"type": 5}, "type"),
    ({"type": None}, "type"),
    ({"type": 1}, "limitPrice"),
    ({"type": 1, "limitPrice": "199.955"}, "limitPrice"),
    ({"type": 1, "limitPrice": 0}, "limitPrice"),
    ({"type": 1, "limitPrice": "999999999999999999"}, "limitPrice"),
    ({"limitPrice": 100}, "limitPrice"),
    ({"type": 3}, "stopPrice"),
    ({"stopPrice": 100}, "stopPrice"),
    ({"symbol": "HIST:AAPL"}, "symbol"),
    ({"symbol": "DEMO:NONE"}, "symbol"),
    ({"symbol": ""}, "symbol"),
    ({"symbol": "A" * 500}, "symbol"),
    ({"symbol": "AAPL'; DROP TABLE orders"}, "symbol"),
    ({"duration": {"type": "GTD"}}, "duration.datetime"),
    ({"duration": {"type": "GTD", "datetime": 1}}, "duration.datetime"),
    ({"duration": {"type": "GTD", "datetime": "soon"}}, "duration.datetime"),
    ({"duration": {"type": "GTD", "datetime": 10**17}}, "duration.datetime"),
    ({"duration": {"type": "GTC", "datetime": 1_800_000_000_000}}, "duration.datetime"),
    ({"duration": {"type": "FOREVER"}}, "duration.type"),
    ({"clientOrderId": ""}, "clientOrderId"),
    ({"clientOrderId": "a" * 65}, "clientOrderId"),
    ({"clientOrderId": "ü"}, "clientOrderId"),
    ({"takeProfitt": 1}, "takeProfitt"),
]


async def test_bad_orders_name_the_field_and_change_nothing(client: httpx.AsyncClient) -> None:
    for changes, field in BAD_ORDERS:
        body = {**MARKET_BUY, **changes}
        answer = await client.post(
            "/orders", json={name: value for name, value in body.items() if value is not None}
        )
        assert answer.status_code == 422, (changes, answer.text)
        assert field in [each["field"] for each in answer.json()["errors"]], (changes, answer.text)
    assert (await client.get("/orders")).json() == []


async def test_bad_parameters_are_refused(client: httpx.AsyncClient) -> None:
    for path in [
        "/orders?accountId=" + "x" * 65,
        "/orders?clientOrderId=%20",
        "/orders/history?limit=0",
        "/orders/history?limit=99999999999999999999",
        "/orders/history?cursor=abc",
        "/orders/history?symbol=%27",
        "/accounts/acc_x/events?since=-1",
        "/accounts/acc_x/events?since=9223372036854775808",
        "/instruments/%F0%9F%92%A9",
    ]:
        answer = await client.get(path)
        assert answer.status_code == 422, (path, answer.text)


async def test_strange_ids_are_not_found(client: httpx.AsyncClient) -> None:
    for order_id in ["nope", "ord_%01", "%2e%2e", "'--", "%EF%BF%BD"]:
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"/orders/{order_id}")
            assert answer.status_code == 404, (order_id, answer.text)


async def test_brackets_go_round_by_http(make_client: ClientOf, venue: Venue) -> None:
    client = make_client()
    placed = await client.post(
        "/orders",
        json={
            "symbol": "AAPL",
            "type": 1,
            "side": 1,
            "qty": 10,
            "limitPrice": 195,
            "takeProfit": "210",
            "trailingStopPips": 100,
            "stopType": 1,
        },
    )
    assert placed.status_code == 200, placed.text
    order_id = placed.json()["orderId"]
    orders = {each["id"]: each for each in (await client.get("/orders")).json()}
    entry = orders.pop(order_id)
    assert (entry["takeProfit"], entry["trailingStopPips"], entry["stopType"]) == (210, 100, 1)
    assert {(each["status"], each["parentId"], each["parentType"]) for each in orders.values()} == {
        (3, order_id, 1)
    }
    patched = await client.put(
        f"/orders/{order_id}", json={"trailingStopPips": None, "stopLoss": 190}
    )
    assert patched.status_code == 200, patched.text
    assert (await client.get(f"/orders/{order_id}")).json()["stopLoss"] == 190

    venue.clock.advance(0.5)
    await venue.meet(venue.market.quote("194.00", "194.10"))
    (position,) = (await client.get("/positions")).json()
    assert (position["takeProfit"], position["stopLoss"]) == (210, 190)
    bad = await client.put("/positions/AAPL/brackets", json={"takeProfit": 190})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["field"] == "takeProfit"
    assert (await client.put("/positions/DEMO:AAPL/brackets", json={})).status_code == 200
    assert (await client.put("/positions/DEMO:EURUSD/brackets", json={})).status_code == 404
    turned = await client.post("/positions/AAPL/reverse")
    assert turned.status_code == 200
    assert [(each["side"], each["qty"]) for each in (await client.get("/positions")).json()] == [
        (-1, 10)
    ]
    assert len((await client.get("/executions/AAPL")).json()) == 2
    await venue.verify()


async def test_orders_are_canceled_by_symbol_and_side(make_client: ClientOf) -> None:
    client = make_client()
    for side, price in ((1, 150), (1, 151), (-1, 250)):
        order = {"symbol": "AAPL", "type": 1, "side": side, "qty": 1, "limitPrice": price}
        assert (await client.post("/orders", json=order)).status_code == 200
    answer = await client.delete("/orders", params={"symbol": "AAPL", "side": "-1"})
    assert (answer.status_code, len(answer.json()["orderIds"])) == (200, 1), answer.text
    answer = await client.delete("/orders", params={"side": "buy"})
    assert len(answer.json()["orderIds"]) == 2
    assert (await client.delete("/orders", params={"side": "2"})).status_code == 422


async def test_confirmed_order_is_the_one_that_was_previewed(make_client: ClientOf) -> None:
    client = make_client()
    order = {"symbol": "AAPL", "type": 2, "side": 1, "qty": 10, "stopLoss": 190}
    preview = (await client.post("/orders/preview", json=order)).json()
    titles = [row["title"] for section in preview["sections"] for row in section["rows"]]
    assert {"Commission", "Margin"} <= set(titles)
    assert preview["warnings"] == []
    confirmed = {**order, "confirmId": preview["confirmId"]}
    assert (await client.post("/orders", json={**confirmed, "qty": 11})).status_code == 422
    assert (await client.post("/orders", json=confirmed)).status_code == 200
    turning = {**order, "side": -1, "qty": 12, "stopLoss": 210}
    preview = (await client.post("/orders/preview", json=turning)).json()
    assert ["other side" in each for each in preview["warnings"]] == [True]


REASONS: dict[str, tuple[dict[str, Any], int]] = {
    "unknown symbol": ({"symbol": "NOPE"}, 1),
    "closed to trading": ({"symbol": "HIST:AAPL"}, 1),
    "quantity": ({"qty": "1.5"}, 13),
    "price step": ({"type": 1, "limitPrice": "190.001"}, 18),
    "expired": ({"type": 1, "limitPrice": 190, "duration": {"type": "GTD", "datetime": 1}}, 4),
    "unsupported": ({"postOnly": True}, 11),
    "buying power": ({"qty": 5000}, 3),
    "nothing to close": ({"isClose": True}, 99),
}


@pytest.mark.parametrize("case", REASONS)
async def test_refused_orders_carry_fix_reasons(make_client: ClientOf, case: str) -> None:
    changes, expected = REASONS[case]
    order = {"symbol": "AAPL", "type": 2, "side": 1, "qty": 10, **changes}
    answer = await make_client().post("/orders", json=order)
    assert answer.status_code in (409, 422), answer.text
    assert answer.json()["context"]["ordRejReason"] == expected, answer.text


async def test_hedging_account_by_http(make_client: ClientOf, venue: Venue) -> None:
    client = make_client()
    opened = await client.post("/accounts", json={"name": "both", "positionMode": "HEDGING"})
    of: dict[str, Any] = {"headers": {"X-Account-Id": opened.json()["id"]}}
    for side in (1, -1):
        order = {"symbol": "AAPL", "type": 2, "side": side, "qty": 10}
        assert (await client.post("/orders", json=order, **of)).status_code == 200
    long, short = sorted((await client.get("/positions", **of)).json(), key=lambda p: -p["side"])
    closing = {"symbol": "AAPL", "type": 2, "side": -1, "qty": 10, "isClose": True}
    assert (await client.post("/orders", json=closing, **of)).status_code == 422
    assert (
        await client.post("/orders", json={**closing, "positionId": long["id"]}, **of)
    ).status_code == 200
    assert (await client.delete(f"/positions/{short['id']}", **of)).status_code == 200
    assert (await client.get("/positions", **of)).json() == []
    # Somebody else's position isn't there.
    assert (await make_client("usr_other").delete(f"/positions/{short['id']}")).status_code == 404
    await venue.verify()
