"""Money through the front door: in, over to a trading account and back, exchanged, stated, out."""

import asyncio
import csv
import io
from decimal import Decimal
from typing import Any

import pytest
from tests.journeys.conftest import Person

pytestmark = pytest.mark.fleet


async def post(person: Person, path: str, status: int, **body: Any) -> Any:
    answer = await person.client.post(f"/api/v1/wallet{path}", json=body)
    assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
    return answer.json()


async def cash(person: Person, account_id: str) -> Decimal:
    state = await person.get(f"/api/v1/broker/accounts/{account_id}/state")
    return Decimal(str(state["balance"]))


async def test_money_goes_to_a_trading_account_and_back(person: Person) -> None:
    account_id = (await person.get("/api/v1/broker/accounts"))[0]["id"]
    before = await cash(person, account_id)
    await post(person, "/deposit", 201, amount="1000.00")
    there = await post(
        person, "/transfers", 201, **{"from": "wallet", "to": account_id, "amount": "250.00"}
    )
    assert there["state"] == "completed"
    assert await cash(person, account_id) == before + 250
    back = await post(
        person, "/transfers", 201, **{"from": account_id, "to": "wallet", "amount": "50.00"}
    )
    assert back["state"] == "completed"
    assert await cash(person, account_id) == before + 200
    assert (await person.get("/api/v1/wallet"))["balance_usd"] == "800.00"
    events = await person.get(f"/api/v1/broker/accounts/{account_id}/events")
    told = [each["cash"] for each in events if each["type"] == "cash"]
    moved = {each["reference"]: Decimal(str(each["change"])) for each in told}
    assert moved[there["transfer_id"]] == 250
    assert moved[back["transfer_id"]] == -50
    listed = await person.get("/api/v1/wallet/transfers")
    assert [each["transfer_id"] for each in listed] == [back["transfer_id"], there["transfer_id"]]
    nobody = await post(
        person, "/transfers", 404, **{"from": "wallet", "to": "acc_x", "amount": "1"}
    )
    assert nobody["code"] == "wallet.transfer.account_not_found"
    short = await post(
        person, "/transfers", 409, **{"from": account_id, "to": "wallet", "amount": "9999999"}
    )
    assert short["code"] == "wallet.transfer.insufficient_cash"


async def test_money_is_exchanged_and_stated(person: Person) -> None:
    await post(person, "/deposit", 201, amount="500")
    rates = {
        (each["base"], each["quote"]): each for each in await person.get("/api/v1/wallet/rates")
    }
    assert ("EUR", "USD") in rates
    done = await post(person, "/exchange", 201, **{"from": "USD", "to": "EUR", "amount": "100"})
    assert 70 < Decimal(done["received"]) < 100
    answer = await person.client.get("/api/v1/wallet/statement", params={"format": "csv"})
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    closing = {each["currency"]: each for each in rows if each["row"] == "closing"}
    assert closing["USD"]["balance"] == "400.00"
    assert closing["EUR"]["balance"] == done["received"]
    assert {each["description"] for each in closing.values()} == {"proven"}


async def test_a_hundred_withdrawals_of_ten_from_a_hundred_give_exactly_ten(person: Person) -> None:
    await post(person, "/deposit", 201, amount="100")
    answers = await asyncio.gather(
        *(
            person.client.post("/api/v1/wallet/withdraw", json={"amount": "10"}, timeout=60)
            for _ in range(100)
        )
    )
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [201] * 10 + [409] * 90
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {
        "wallet.balance.insufficient_funds"
    }
    assert (await person.get("/api/v1/wallet"))["balance_usd"] == "0.00"
