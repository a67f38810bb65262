"""Routes of leverage, resets, kill switches and performance: shapes, roles, whose account."""

import httpx
import pytest

from trading_api.modules.broker.tests.test_api import ClientOf, client, make_client
from trading_api.testkit.clocks import FixedClock

__all__ = ["client", "make_client"]


@pytest.fixture
async def account_id(client: httpx.AsyncClient) -> str:
    answer = await client.get("/account")
    return str(answer.json()["accountId"])


async def test_leverage_reset_and_performance(
    client: httpx.AsyncClient, account_id: str, clock: FixedClock
) -> None:
    info = (await client.get("/leverage/info?symbol=AAPL&side=buy&orderType=2")).json()
    assert (info["leverage"], info["min"], info["max"], info["step"]) == (5, 1, 5, 1)
    wanted = {"symbol": "AAPL", "leverage": 2}
    preview = (await client.post("/leverage/preview", json=wanted)).json()
    assert (preview["errors"], preview["infos"][0]) == ([], "Leverage: 2:1")
    assert (await client.put("/leverage/set", json=wanted)).json() == {"leverage": 2}
    refused = await client.put("/leverage/set", json={**wanted, "leverage": 6})
    assert (refused.status_code, refused.json()["code"]) == (422, "broker.leverage.invalid")

    clock.advance(1)
    await client.post("/orders", json={"symbol": "DEMO:AAPL", "type": 2, "side": 1, "qty": 10})
    found = (await client.get(f"/accounts/{account_id}/performance")).json()
    assert (found["pl"], found["exposure"], found["flows"]) == (-1.2, 1999, 0)
    assert [each["symbol"] for each in found["bySymbol"]] == ["DEMO:AAPL"]
    before = (await client.get("/accounts")).json()[0]
    after = await client.post(f"/accounts/{account_id}/reset", headers={"Idempotency-Key": "r"})
    assert after.status_code == 200
    assert after.json()["epoch"] != before["epoch"]
    again = await client.post(f"/accounts/{account_id}/reset", headers={"Idempotency-Key": "r"})
    assert (again.json(), again.headers["Idempotent-Replayed"]) == (after.json(), "true")
    assert (await client.get("/positions")).json() == []


async def test_only_operators_turn_switches(
    make_client: ClientOf, client: httpx.AsyncClient, account_id: str
) -> None:
    operator = make_client("usr_operator", roles=("operator",))
    halt = {"state": "HALTED", "reason": "drill"}
    for path in ("/controls/platform", f"/controls/accounts/{account_id}"):
        assert (await client.put(path, json=halt)).status_code == 403
        turned = await operator.put(path, json=halt)
        assert turned.status_code == 200
        order = {"symbol": "DEMO:AAPL", "type": 2, "side": 1, "qty": 1}
        refused = await client.post("/orders", json=order)
        assert (refused.status_code, refused.json()["code"]) == (409, "broker.trading.halted")
        await operator.put(path, json={"state": "ACTIVE", "reason": "over"})
    shown = (await operator.get("/controls/platform")).json()
    assert (shown["state"], shown["changedBy"]) == ("ACTIVE", "usr_operator")
    unknown = await operator.put("/controls/accounts/acc_nope", json=halt)
    assert unknown.status_code == 404


async def test_accounts_of_others_look_like_none(make_client: ClientOf, account_id: str) -> None:
    stranger = make_client("usr_stranger")
    theirs = f"accountId={account_id}"
    leverage = {"symbol": "AAPL", "leverage": 2}
    calls: list[tuple[str, str, object]] = [
        ("GET", f"/accounts/{account_id}/state", None),
        ("GET", f"/accounts/{account_id}/events", None),
        ("GET", f"/accounts/{account_id}/performance", None),
        ("POST", f"/accounts/{account_id}/reset", None),
        ("GET", f"/leverage/info?symbol=AAPL&{theirs}", None),
        ("PUT", f"/leverage/set?{theirs}", leverage),
        ("POST", f"/leverage/preview?{theirs}", leverage),
        ("GET", f"/orders?{theirs}", None),
        ("GET", f"/positions?{theirs}", None),
        ("GET", f"/executions?{theirs}", None),
    ]
    for method, path, body in calls:
        answer = await stranger.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (
            404, "broker.account.not_found",
        ), path  # fmt: skip
