"""Limits, frozen wallets, confirmation, cooling off, exchange, statements, holds, corrections."""

import asyncio
import csv
import io
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.kernel.errors import UnavailableError
from trading_api.kernel.values import Money, currency
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.rails import make_rail
from trading_api.modules.wallet.consumers import Sweeper
from trading_api.modules.wallet.domain import Limits, Rate, WalletLimits
from trading_api.modules.wallet.domain.exchange import convert
from trading_api.modules.wallet.errors import AmountTooSmallError
from trading_api.modules.wallet.service import Verified, WithdrawalPolicy
from trading_api.modules.wallet.settings import WalletSettings
from trading_api.modules.wallet.tests.builders import FakeRates
from trading_api.modules.wallet.tests.conftest import NOW, make_services
from trading_api.modules.wallet.tests.test_service import ALICE, balances, deposit
from trading_api.runtime.settings import ConfigurationError

USD, EUR = currency("USD"), currency("EUR")
OPERATOR = {"scopes": ["wallet:read"], "roles": ["operator"]}


def usd(text: str) -> Money:
    return Money.parse(text, USD)


def only_usd(text: str) -> dict[str, Money]:
    return {"USD": usd(text)}


async def ensure_proven(client_of) -> None:
    operator = client_of("usr_op", **OPERATOR)
    assert (await operator.post("/verify")).json()["violations"] == []
    for each in (await operator.get("/trial-balance")).json():
        assert Decimal(each["difference"]) == 0
        assert each["debit"] == each["credit"]


async def test_limits_when_exceeded_then_each_has_its_code_and_numbers(client_of):
    limits = WalletLimits(
        deposit=Limits(only_usd("5"), only_usd("100"), only_usd("150")),
        withdrawal=Limits(daily=only_usd("50")),
    )
    client = client_of(limits=limits)
    few = await client.post("/deposit", json={"amount": "4.99"})
    assert (few.status_code, few.json()["code"]) == (422, "wallet.amount.below_minimum")
    assert few.json()["context"] == {"requested": "4.99", "minimum": "5.00", "currency": "USD"}
    much = await client.post("/deposit", json={"amount": "100.01"})
    assert (much.status_code, much.json()["code"]) == (422, "wallet.amount.above_maximum")
    for amount in ("100", "50"):
        assert (await client.post("/deposit", json={"amount": amount})).status_code == 201
    full = await client.post("/deposit", json={"amount": "5"})
    assert (full.status_code, full.json()["code"]) == (409, "wallet.limit.daily_exceeded")
    assert full.json()["context"] == {
        "limit": "150.00", "used": "150.00", "left": "0.00", "requested": "5.00", "currency": "USD",
    }  # fmt: skip
    taken = await asyncio.gather(
        *(client.post("/withdraw", json={"amount": "10"}) for _ in range(10))
    )
    assert sorted(each.status_code for each in taken) == [201] * 5 + [409] * 5
    assert (
        await client.post("/deposit", json={"amount": "1", "currency": "EUR"})
    ).status_code == 201
    await ensure_proven(client_of)


async def test_wallet_when_frozen_then_its_customer_moves_nothing(client_of):
    client, operator = client_of(), client_of("usr_op", **OPERATOR)
    await client.post("/deposit", json={"amount": "10"})
    wallet_id = (await client.get("")).json()["wallet_id"]
    path = f"/wallets/{wallet_id}"
    assert (await client.post(f"{path}/freeze", json={"reason": "x"})).status_code == 403
    assert (await operator.post(f"{path}/freeze", json={"reason": "x"})).json()["frozen"]
    for path_, body in (
        ("/deposit", {"amount": "1"}),
        ("/withdraw", {"amount": "1"}),
        ("/exchange", {"from": "USD", "to": "EUR", "amount": "1"}),
    ):
        refused = await client.post(path_, json=body)
        assert (refused.status_code, refused.json()["code"]) == (409, "wallet.wallet.frozen"), path_
    assert (await client.get("")).json()["frozen"]
    assert not (await operator.post(f"{path}/unfreeze")).json()["frozen"]
    assert (await client.post("/withdraw", json={"amount": "1"})).status_code == 201
    assert (await operator.post("/wallets/wal_none/unfreeze")).status_code == 404
    assert (await client.get("/acts")).status_code == 403
    acts = (await operator.get("/acts", params={"subject": wallet_id})).json()
    assert [(each["by"], each["kind"], each["reason"]) for each in acts] == [
        ("usr_op", "wallet_unfrozen", ""),
        ("usr_op", "wallet_frozen", "x"),
    ]


async def test_withdrawal_when_large_then_confirmed_separately_or_expires(
    client_of, clock, database, wakes
):
    policy = WithdrawalPolicy(confirm_from=only_usd("50"), confirm_within=timedelta(minutes=5))
    client, other = client_of(policy=policy), client_of("usr_bob", policy=policy)
    await client.post("/deposit", json={"amount": "200"})
    assert (await client.post("/withdraw", json={"amount": "49.99"})).status_code == 201
    asked = await client.post("/withdraw", json={"amount": "50"})
    assert (asked.status_code, asked.json()["state"]) == (202, "unconfirmed")
    funding = f"/fundings/{asked.json()['funding_id']}"
    assert (await client.get("")).json()["reserved_usd"] == "50.00"
    assert (await other.post(f"{funding}/confirm")).status_code == 404
    settled = await client.post(f"{funding}/confirm")
    assert (settled.status_code, settled.json()["state"]) == (200, "settled")
    again = await client.post(f"{funding}/confirm")
    assert (again.status_code, again.json()["code"]) == (409, "wallet.funding.closed")
    late = (await client.post("/withdraw", json={"amount": "60"})).json()["funding_id"]
    assert (await client.post("/withdraw", json={"amount": "40.02"})).status_code == 409
    clock.advance(5 * 60)
    assert (await client.post(f"/fundings/{late}/confirm")).status_code == 409
    services = make_services(database, clock, wakes, policy=policy)
    assert await services.wallets.close_due_fundings(now=clock.now()) == 1
    assert (await client.get("")).json()["reserved_usd"] == "0.00"
    await ensure_proven(client_of)


async def test_withdrawal_when_destination_is_new_then_cools_off(client_of, clock, database, wakes):
    policy = WithdrawalPolicy(cooling_off=timedelta(hours=24))
    client = client_of(policy=policy)
    await client.post("/deposit", json={"amount": "100"})
    missing = await client.post("/withdraw", json={"amount": "1"})
    assert missing.json()["code"] == "wallet.withdrawal.destination_missing"
    body = {"amount": "10", "destination": "DE02 1203 0000 0000 2020 51"}
    first = await client.post("/withdraw", json=body)
    assert (first.status_code, first.json()["state"]) == (202, "pending")
    taken_back = await client.post("/withdraw", json=body)
    cancel = await client.post(f"/fundings/{taken_back.json()['funding_id']}/cancel")
    assert cancel.json()["state"] == "canceled"
    operator = client_of("usr_op", **OPERATOR, policy=policy)
    early = await operator.post(f"/fundings/{first.json()['funding_id']}/settle")
    assert (early.status_code, early.json()["code"]) == (409, "wallet.funding.cooling_off")
    services = make_services(database, clock, wakes, policy=policy)
    sweeper = Sweeper(
        wallets=services.wallets,
        transfers=services.transfers,
        operations=services.operations,
        clock=clock,
    )
    await sweeper.sweep()
    assert await balances(services.wallets) == {"USD": ("100.00", "10.00", "90.00")}
    clock.advance(24 * 3600)
    await sweeper.sweep()
    assert await balances(services.wallets) == {"USD": ("90.00", "0.00", "90.00")}
    known = await services.wallets.withdraw(
        user_id=ALICE, amount=Decimal(1), currency="USD", description="", idempotency_key=None,
        now=clock.now(), destination=body["destination"],
    )  # fmt: skip
    assert known.is_settled
    assert await services.operations.verify() == Verified()


async def test_exchange_when_made_then_both_legs_and_spread_balance(client_of):
    client = client_of(fee_ppm=1000)
    await client.post("/deposit", json={"amount": "1000", "currency": "EUR"})
    rate = (await client.get("/rates")).json()[0]
    assert (rate["base"], rate["quote"], rate["fresh"]) == ("EUR", "USD", True)
    assert (rate["bid"], rate["ask"]) == ("1.09790100", "1.10210210")
    sold = {"from": "EUR", "to": "USD", "amount": "100.00"}
    first = await client.post("/exchange", json=sold, headers={"Idempotency-Key": "k"})
    assert first.status_code == 201, first.text
    body = first.json()
    # Mid 1.1000; the customer gets the bid 1.0990 less 0.1 %, cut off at the cent.
    assert (body["received"], body["spread"]) == ("109.79", "0.21")
    again = await client.post("/exchange", json=sold, headers={"Idempotency-Key": "k"})
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == body
    held = {each["currency"]: each["total"] for each in (await client.get("")).json()["balances"]}
    assert held == {"EUR": "900.00", "USD": "109.79"}
    back = await client.post("/exchange", json={"from": "USD", "to": "EUR", "amount": "109.79"})
    assert back.status_code == 201
    assert Decimal(back.json()["received"]) < 100
    page = (await client.get("/transactions", params={"type": "EXCHANGE"})).json()
    assert len({each["entry_id"] for each in page}) == 2
    await ensure_proven(client_of)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"from": "USD", "to": "EUR", "amount": "1", "minimum": "0.95"}, 409, "rate_moved"),
        ({"from": "USD", "to": "USD", "amount": "1"}, 422, "same_currency"),
        ({"from": "USD", "to": "BTC", "amount": "1"}, 409, "not_quoted"),
    ],
)
async def test_exchange_when_refused_then_nothing_moves(client_of, body, status, code):
    client = client_of()
    await client.post("/deposit", json={"amount": "10"})
    refused = await client.post("/exchange", json=body)
    assert (refused.status_code, refused.json()["code"]) == (status, f"wallet.exchange.{code}")
    assert (await client.get("")).json()["balance_usd"] == "10.00"


async def test_exchange_when_repeated_without_prices_then_the_first_answer(client_of, clock):
    rates = FakeRates(clock)
    client = client_of(rates=rates)
    await client.post("/deposit", json={"amount": "10"})
    sold = {"from": "USD", "to": "EUR", "amount": "1"}
    first = await client.post("/exchange", json=sold, headers={"Idempotency-Key": "k"})
    assert first.status_code == 201, first.text

    async def list_rates() -> list[Rate]:
        raise UnavailableError("away", retry_after_seconds=1)

    rates.list_rates = list_rates  # type: ignore[method-assign]
    again = await client.post("/exchange", json=sold, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (201, first.json())
    other = {**sold, "amount": "2"}
    reused = await client.post("/exchange", json=other, headers={"Idempotency-Key": "k"})
    assert reused.json()["code"] == "platform.idempotency.key_reused"
    assert (await client.post("/exchange", json=sold)).status_code == 503


async def test_exchange_when_price_is_old_or_money_is_funded_then_refused(client_of, clock):
    client = client_of(rates=FakeRates(clock, age=timedelta(seconds=3)))
    await client.post("/deposit", json={"amount": "10"})
    sold = {"from": "USD", "to": "EUR", "amount": "1"}
    assert (await client.post("/exchange", json=sold)).status_code == 503
    funded = client_of(rail=ManualRail())
    refused = await funded.post("/exchange", json=sold)
    assert (refused.status_code, refused.json()["code"]) == (409, "wallet.exchange.not_quoted")
    assert (await funded.get("/rates")).json() == []


@given(
    minor=st.integers(1, 10**12),
    bid=st.integers(1, 10**7),
    spread=st.integers(0, 10**5),
    fee_ppm=st.integers(0, 100_000),
    is_base=st.booleans(),
)
def test_conversion_when_any_then_parts_add_up_and_never_better_than_mid(
    minor, bid, spread, fee_ppm, is_base
):
    sold, bought = (EUR, USD) if is_base else (USD, EUR)
    rate = Rate("DEMO:EURUSD", "EUR", "USD", bid, bid + spread, 5, NOW, True)
    try:
        found = convert(Money(minor, sold), bought, rate, fee_ppm=fee_ppm)
    except AmountTooSmallError:
        return
    assert found.net + found.spread == found.gross
    assert found.net.minor > 0
    assert found.spread.minor >= 0
    exact = minor * found.price
    assert found.net.minor <= exact
    assert exact - found.net.minor < 1 or found.net == found.gross


async def test_statement_when_made_then_sums_prove_themselves_as_json_and_csv(client_of, clock):
    client = client_of()
    await client.post("/deposit", json={"amount": "100", "description": "=1+1"})
    clock.advance(60)
    begin = clock.now().isoformat()
    await client.post("/withdraw", json={"amount": "30"})
    await client.post("/deposit", json={"amount": "5"})
    clock.advance(60)
    end = clock.now().isoformat()
    await client.post("/deposit", json={"amount": "1000"})
    found = (await client.get("/statement", params={"from": begin, "to": end})).json()
    (section,) = found["sections"]
    assert section["proven"]
    sums = [section[name] for name in ("opening", "credits", "debits", "closing")]
    assert sums == ["100.00", "5.00", "30.00", "75.00"]
    assert [each["amount"] for each in section["entries"]] == ["-30.00", "5.00"]
    answer = await client.get("/statement", params={"format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [each["row"] for each in rows] == [
        "opening",
        "entry",
        "entry",
        "entry",
        "credits",
        "debits",
        "closing",
    ]
    assert rows[1]["description"] == "'=1+1"
    assert rows[-1]["balance"] == "75.00"
    assert rows[-1]["description"] == "proven"
    bad = await client.get("/statement", params={"from": end, "to": begin})
    assert bad.json()["code"] == "wallet.range.inverted"


async def test_holds_when_operators_use_them_then_end_once(client_of, clock, database, wakes):
    client, operator = client_of(), client_of("usr_op", **OPERATOR)
    await client.post("/deposit", json={"amount": "100"})
    body = {"user_id": ALICE, "amount": "40", "hold_id": "hld_1", "reference": "sub_1"}
    assert (await client.post("/holds", json=body)).status_code == 403
    for _ in range(2):
        opened = await operator.post("/holds", json=body)
        assert (opened.status_code, opened.json()["state"]) == (201, "pending")
    assert (await client.get("")).json()["reserved_usd"] == "40.00"
    assert (await client.post("/withdraw", json={"amount": "61"})).status_code == 409
    much = await operator.post("/holds/hld_1/capture", json={"amount": "40.01"})
    assert much.json()["code"] == "ledger.hold.capture_exceeds_amount"
    won = await asyncio.gather(
        *(operator.post("/holds/hld_1/capture", json={"amount": str(n)}) for n in range(1, 9))
    )
    assert sorted(each.status_code for each in won) == [200] + [409] * 7
    assert {each.json().get("code") for each in won if each.status_code == 409} == {
        "ledger.hold.already_captured"
    }
    void = await operator.post("/holds/hld_1/void")
    assert void.json()["code"] == "ledger.hold.already_captured"
    await operator.post("/holds", json={**body, "hold_id": "hld_2", "expires_in_seconds": 60})
    await operator.post("/holds", json={**body, "hold_id": "hld_3", "amount": "1"})
    assert (await operator.post("/holds/hld_3/void")).json()["state"] == "voided"
    clock.advance(60)
    services = make_services(database, clock, wakes)
    assert await services.operations.expire_holds(now=clock.now()) == 1
    late = await operator.post("/holds/hld_2/capture", json={})
    assert late.json()["code"] == "ledger.hold.already_expired"
    assert (await operator.post("/holds/hld_9/void")).status_code == 404
    too_long = await operator.post("/holds", json={**body, "expires_in_seconds": 91 * 86400})
    assert too_long.status_code == 422
    # Refusals and repeats are no acts.
    acts = (await operator.get("/acts")).json()
    assert [(each["by"], each["kind"], each["subject"]) for each in reversed(acts)] == [
        ("usr_op", "hold_opened", "hld_1"),
        ("usr_op", "hold_captured", "hld_1"),
        ("usr_op", "hold_opened", "hld_2"),
        ("usr_op", "hold_opened", "hld_3"),
        ("usr_op", "hold_voided", "hld_3"),
    ]
    await ensure_proven(client_of)


async def test_hold_when_it_is_a_withdrawals_then_operators_leave_it(client_of, database):
    policy = WithdrawalPolicy(confirm_from=only_usd("1"))
    client, operator = client_of(policy=policy), client_of("usr_op", **OPERATOR)
    await client.post("/deposit", json={"amount": "100"})
    await client.post("/withdraw", json={"amount": "10"})
    async with database.snapshot() as snapshot:
        row = await snapshot.first(tables.fundings.select())
    refused = await operator.post(f"/holds/{row.hold_id}/void")
    assert (refused.status_code, refused.json()["code"]) == (409, "wallet.hold.owned")


async def test_entry_when_reversed_then_once_and_told(client_of, services):
    client, operator = client_of(), client_of("usr_op", **OPERATOR)
    entry_id = (await client.post("/deposit", json={"amount": "10"})).json()["entry_id"]
    path, why = f"/entries/{entry_id}/reverse", {"reason": "wrong customer"}
    assert (await client.post(path, json=why)).status_code == 403
    outcomes = await asyncio.gather(*(operator.post(path, json=why) for _ in range(5)))
    assert sorted(each.status_code for each in outcomes) == [201] + [409] * 4
    undone = next(each.json() for each in outcomes if each.status_code == 201)
    assert (undone["type"], undone["reverses_entry_id"]) == ("REVERSAL", entry_id)
    again = await operator.post(f"/entries/{undone['entry_id']}/reverse", json=why)
    assert again.json()["code"] == "wallet.entry.not_reversible"
    spent = (await client.post("/deposit", json={"amount": "10"})).json()["entry_id"]
    await client.post("/withdraw", json={"amount": "10"})
    short = await operator.post(f"/entries/{spent}/reverse", json=why)
    assert short.json()["code"] == "wallet.balance.insufficient_funds"
    assert (await operator.post("/entries/ent_none/reverse", json=why)).status_code == 404
    page = (await client.get("/transactions")).json()
    assert [each["type"] for each in page] == ["WITHDRAWAL", "DEPOSIT", "REVERSAL", "DEPOSIT"]
    (act,) = (await operator.get("/acts")).json()
    assert (act["kind"], act["subject"], act["reason"]) == (
        "entry_reversed", entry_id, "wrong customer",
    )  # fmt: skip
    await ensure_proven(client_of)


async def test_fees_when_asked_then_say_what_exchange_costs(client_of):
    found = (await client_of(fee_ppm=2500).get("/fees")).json()
    assert {each["operation"]: each["ppm"] for each in found} == {
        "DEPOSIT": 0, "WITHDRAWAL": 0, "TRANSFER": 0, "EXCHANGE": 2500,
    }  # fmt: skip


async def test_deposit_when_services_are_plain_then_proven(services):
    await deposit(services.wallets)
    assert await services.operations.verify() == Verified()


def test_settings_when_amounts_are_bad_then_each_is_named():
    settings = WalletSettings(deposit_maximum="USD=10.00, EUR=9")
    assert settings.amounts("deposit_maximum") == {
        "USD": usd("10"), "EUR": Money.parse("9", EUR),
    }  # fmt: skip
    with pytest.raises(ConfigurationError) as caught:
        WalletSettings(deposit_maximum="XXX=1,USD=0.001").amounts("deposit_maximum")
    assert len(caught.value.mistakes) == 2


def test_rail_when_unknown_then_start_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match="known: manual, sandbox"):
        make_rail("carrier-pigeon")
