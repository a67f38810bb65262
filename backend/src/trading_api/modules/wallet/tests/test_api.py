"""The wallet over HTTP: shapes, exact amounts, repeats, cursors, who may, and bad input."""

import asyncio
import json
from typing import Any

import pytest

from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.tests.conftest import EVERY_SCOPE


def problem(answer, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    return body


async def post_raw(client, path: str, body: str | bytes, **headers):
    return await client.post(
        path, content=body, headers={"Content-Type": "application/json", **headers}
    )


async def test_wallet_when_new_then_empty_with_and_without_slash(client):
    answers = [await client.get(path) for path in ("", "/")]
    body = answers[0].json()
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].json() == body
    assert body.pop("wallet_id").startswith("wal_")
    assert body == {
        "user_id": "usr_alice",
        "book": "demo",
        "balances": [{"currency": "USD", "total": "0.00", "held": "0.00", "available": "0.00"}],
        "balance_usd": "0.00",
        "reserved_usd": "0.00",
        "lifetime_deposits": "0.00",
        "lifetime_fees": "0.00",
        "created_at": "2026-03-02T14:30:00Z",
        "frozen": False,
    }


async def test_deposit_when_made_then_entry_and_balance(client):
    answer = await client.post(
        "/deposit", json={"amount": "250.10", "description": " first money "}
    )
    assert answer.status_code == 201, answer.text
    body = answer.json()
    assert body.pop("entry_id").startswith("ent_")
    assert body.pop("wallet_id").startswith("wal_")
    assert body == {
        "funding_id": None,
        "type": "DEPOSIT",
        "state": "posted",
        "currency": "USD",
        "amount": "250.10",
        "running_balance": "250.10",
        "sequence": 1,
        "description": "first money",
        "reference": None,
        "occurred_at": "2026-03-02T14:30:00Z",
    }
    wallet = (await client.get("")).json()
    assert (wallet["balance_usd"], wallet["lifetime_deposits"]) == ("250.10", "250.10")
    euros = (await client.get("", params={"currency": "EUR"})).json()
    assert [balance["currency"] for balance in euros["balances"]] == ["EUR"]


@pytest.mark.parametrize(
    ("amount", "running_balance"),
    [
        ('"10.5"', "10.50"),
        ("10.50", "10.50"),
        ("10", "10.00"),
        ("1e2", "100.00"),
        ("0.10000000", "0.10"),
        ('"10000000000000"', "10000000000000.00"),
    ],
)
async def test_deposit_when_amount_is_text_or_exact_number_then_taken(
    client, amount, running_balance
):
    answer = await post_raw(client, "/deposit", f'{{"amount": {amount}}}')
    assert answer.status_code == 201, answer.text
    assert answer.json()["running_balance"] == running_balance


async def test_deposit_when_named_amount_usd_then_taken(client):
    answer = await client.post("/deposit", json={"amount_usd": "7"})
    assert answer.json()["amount"] == "7.00"


BAD_BODIES = {
    '{"amount": NaN}': 422,
    '{"amount": Infinity}': 422,
    '{"amount": 1e309}': 422,
    '{"amount": 1e-400}': 422,
    '{"amount": "NaN"}': 422,
    '{"amount": "1e3"}': 422,
    '{"amount": "1e1000000"}': 422,
    '{"amount": "\uff11\uff12"}': 422,
    '{"amount": "1_000"}': 422,
    '{"amount": " 5 "}': 422,
    '{"amount": "+5"}': 422,
    '{"amount": "05"}': 422,
    '{"amount": "-0"}': 422,
    '{"amount": "-5"}': 422,
    '{"amount": -5}': 422,
    '{"amount": 0}': 422,
    '{"amount": "0.00"}': 422,
    '{"amount": "0.001"}': 422,
    '{"amount": 0.001}': 422,
    '{"amount": "10000000000000.01"}': 422,
    '{"amount": "999999999999999999"}': 422,
    '{"amount": ' + "9" * 400 + "}": 422,
    '{"amount": true}': 422,
    '{"amount": null}': 422,
    '{"amount": ["5"]}': 422,
    '{"amount": {"a": 1}}': 422,
    "{}": 422,
    "[]": 422,
    "5": 422,
    "null": 422,
    "": 422,
    '{"amount": "5", "amount_usd": "5"}': 422,
    '{"amount_usd": "5", "currency": "EUR"}': 422,
    '{"amount": "5", "currency": "usd"}': 422,
    '{"amount": "5", "currency": "DOGE"}': 422,
    '{"amount": "5", "currency": 5}': 422,
    '{"amount": "5", "balance": "1"}': 422,
    '{"amount": "5", "user_id": "usr_bob"}': 422,
    '{"amount": "5", "description": "a\\u0000b"}': 422,
    '{"amount": "5", "description": "\\ud800"}': 422,
    '{"amount": "5", "description": "' + "x" * 201 + '"}': 422,
    '{"amount": "5", "amount": "6"}': 400,
    '{"amount": "5"': 400,
    "\ufeff{}": 400,
}


@pytest.mark.parametrize("path", ["/deposit", "/withdraw"])
async def test_funding_when_body_is_bad_then_problem_and_nothing_changed(client, path):
    await client.post("/deposit", json={"amount": "100"})
    before = (await client.get("")).json(), (await client.get("/transactions")).json()
    for body, status in BAD_BODIES.items():
        answer = await post_raw(client, path, body)
        assert answer.status_code == status, f"{body[:60]}: {answer.text}"
        assert answer.headers["content-type"] == "application/problem+json"
        assert "Traceback" not in answer.text
        assert json.loads(answer.text)["code"].count(".") >= 2
    assert ((await client.get("")).json(), (await client.get("/transactions")).json()) == before


async def test_amount_when_out_of_range_or_too_fine_then_stable_code_names_field(client):
    answer = await client.post("/deposit", json={"amount": "999999999999999999"})
    body = problem(answer, 422, "platform.amount.out_of_range")
    assert [each["field"] for each in body["errors"]] == ["amount"]
    answer = await client.post("/deposit", json={"amount": "0.001"})
    body = problem(answer, 422, "wallet.amount.not_exact")
    assert [each["field"] for each in body["errors"]] == ["amount"]
    problem(await client.post("/deposit", json={"amount": "0"}), 422, "wallet.amount.not_positive")


async def test_withdrawal_when_not_covered_then_409_with_the_numbers(client):
    await client.post("/deposit", json={"amount": "100"})
    answer = await client.post("/withdraw", json={"amount": "100.01"})
    body = problem(answer, 409, "wallet.balance.insufficient_funds")
    assert body["context"] == {"required": "100.01", "available": "100.00", "currency": "USD"}
    assert "wal_" not in answer.text
    answer = await client.post("/withdraw", json={"amount": "100"})
    assert (answer.status_code, answer.json()["amount"]) == (201, "-100.00")


async def test_key_when_repeated_then_replayed_and_other_body_refused(client):
    headers = {"Idempotency-Key": "k-1"}
    first = await client.post("/deposit", json={"amount": "5"}, headers=headers)
    again = await client.post("/deposit", json={"amount": "5.00"}, headers=headers)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert (again.status_code, again.json()) == (201, first.json())
    other = await client.post("/deposit", json={"amount": "6"}, headers=headers)
    body = problem(other, 422, "platform.idempotency.key_reused")
    assert [each["field"] for each in body["errors"]] == ["amount"]
    assert (await client.get("")).json()["balance_usd"] == "5.00"
    for key in ("", "x" * 256, "a b"):
        answer = await client.post(
            "/deposit", json={"amount": "5"}, headers={"Idempotency-Key": key}
        )
        assert answer.status_code == 422, answer.text


async def test_withdrawals_when_100_race_over_http_then_exactly_ten(client):
    await client.post("/deposit", json={"amount": "100"})
    answers = await asyncio.gather(
        *(client.post("/withdraw", json={"amount": "10"}) for _ in range(100))
    )
    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(201), statuses.count(409)) == (10, 90)
    assert (await client.get("")).json()["balance_usd"] == "0.00"


async def test_transactions_when_paged_then_every_line_once_with_running_balance(client, clock):
    for number in range(1, 8):
        await client.post("/deposit", json={"amount": number})
        clock.advance(1)
    await client.post("/withdraw", json={"amount": "3"})
    seen, cursor = [], None
    while True:
        answer = await client.get(
            "/transactions", params={"limit": 3, **({"cursor": cursor} if cursor else {})}
        )
        assert answer.status_code == 200, answer.text
        seen += answer.json()
        cursor = answer.headers.get("x-next-cursor")
        if cursor is None:
            break
    assert [entry["sequence"] for entry in seen] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert [entry["running_balance"] for entry in seen][:3] == ["25.00", "28.00", "21.00"]
    only = await client.get("/transactions", params={"type": "WITHDRAWAL"})
    assert [entry["amount"] for entry in only.json()] == ["-3.00"]
    ranged = await client.get(
        "/transactions", params={"from": "2026-03-02T14:30:01Z", "to": "2026-03-02T14:30:03Z"}
    )
    assert [entry["sequence"] for entry in ranged.json()] == [3, 2]


async def test_cursor_when_edited_or_of_others_then_refused(client_of):
    client, other = client_of(), client_of("usr_bob")
    for number in range(1, 4):
        await client.post("/deposit", json={"amount": number})
    page = await client.get("/transactions", params={"limit": 1})
    cursor = page.headers["x-next-cursor"]
    flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
    for asker, changes in (
        (client, {"cursor": flipped}),
        (client, {"cursor": "garbage"}),
        (client, {"cursor": "é"}),
        (client, {"cursor": "x" * 512}),
        (client, {"cursor": cursor, "type": "DEPOSIT"}),
        (client, {"cursor": cursor, "currency": "USD"}),
        (other, {"cursor": cursor}),
    ):
        answer = await asker.get("/transactions", params={"limit": 1, **changes})
        problem(answer, 422, "platform.cursor.invalid")


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": 10**9},
        {"limit": "x"},
        {"type": "NOPE"},
        {"currency": "NOPE"},
        {"from": "yesterday"},
        {"from": "2026-03-02T14:30:01"},
        {"to": "1e18"},
        {"from": "2026-03-03T00:00:00Z", "to": "2026-03-02T00:00:00Z"},
        {"cursor": "x" * 513},
    ],
)
async def test_transactions_when_parameters_are_bad_then_422(client, params):
    answer = await client.get("/transactions", params=params)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_access_when_nobody_or_wrong_scope_then_refused(client_of):
    nobody, reader, module = client_of(None), client_of(scopes=["wallet:read"]), None
    module = client_of(None, module="broker")
    for method, path in (
        ("GET", ""),
        ("GET", "/transactions"),
        ("POST", "/deposit"),
        ("POST", "/withdraw"),
        ("GET", "/fundings"),
        ("POST", "/fundings/fnd_1/settle"),
    ):
        answer = await nobody.request(method, path, json={"amount": "1"})
        problem(answer, 401, "platform.principal.unauthenticated")
        assert (await module.request(method, path, json={"amount": "1"})).status_code == 403
    for path in ("/deposit", "/withdraw"):
        answer = await reader.post(path, json={"amount": "1"})
        problem(answer, 403, "platform.principal.forbidden")
    customer = client_of()
    for method, path in (("GET", "/fundings"), ("POST", "/fundings/fnd_1/settle")):
        problem(await customer.request(method, path), 403, "platform.principal.forbidden")


async def test_users_when_two_then_apart(client_of):
    alice, bob = client_of(), client_of("usr_bob")
    await alice.post("/deposit", json={"amount": "5"})
    assert (await bob.get("")).json()["balance_usd"] == "0.00"
    assert (await bob.get("/transactions")).json() == []


async def test_manual_rail_when_operator_settles_then_posted(client_of):
    rail = ManualRail()
    customer = client_of(rail=rail)
    operator = client_of("usr_op", scopes=EVERY_SCOPE, roles=["operator"], rail=rail)
    answer = await customer.post("/deposit", json={"amount": "40"})
    body = answer.json()
    assert (answer.status_code, body["state"], body["entry_id"]) == (202, "pending", None)
    assert (await customer.get("")).json()["balance_usd"] == "0.00"
    waiting = (await operator.get("/fundings")).json()
    assert [each["funding_id"] for each in waiting] == [body["funding_id"]]
    settle = f"/fundings/{body['funding_id']}/settle"
    settled = await operator.post(settle)
    assert (settled.status_code, settled.json()["state"]) == (200, "settled")
    problem(await operator.post(settle), 409, "wallet.funding.closed")
    missing = await operator.post("/fundings/fnd_missing/refuse")
    problem(missing, 404, "wallet.funding.not_found")
    wallet = (await customer.get("")).json()
    assert (wallet["book"], wallet["balance_usd"]) == ("funded", "40.00")
    taken = (await customer.post("/withdraw", json={"amount": "15"})).json()
    assert (await customer.get("")).json()["reserved_usd"] == "15.00"
    await operator.post(f"/fundings/{taken['funding_id']}/refuse")
    assert (await customer.get("")).json()["reserved_usd"] == "0.00"
