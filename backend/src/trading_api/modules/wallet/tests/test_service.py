"""Use cases on each database: money in, money out, repeats, races, rails, the stream, the proof."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select, text, update

from trading_api.contracts.wallet import EntryPosted
from trading_api.kernel.errors import AmountOutOfRangeError, IdempotencyKeyReusedError
from trading_api.kernel.values import Money
from trading_api.kernel.values import currency as known_currency
from trading_api.ledger.domain import EntryType
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.domain import (
    FundingState,
    Limits,
    Receipt,
    WalletEventKind,
    WalletLimits,
)
from trading_api.modules.wallet.errors import (
    AmountNotExactError,
    AmountNotPositiveError,
    CurrencyNotSupportedError,
    DailyLimitError,
    FundingClosedError,
    FundingNotFoundError,
    InsufficientFundsError,
    RangeInvertedError,
    WalletFrozenError,
)
from trading_api.modules.wallet.service import Verified
from trading_api.modules.wallet.tests.conftest import NOW, make_services
from trading_api.runtime import context

ALICE = "usr_alice"
BOB = "usr_bob"


async def deposit(service, amount="100.00", *, user_id=ALICE, currency="USD", key=None, now=NOW):
    return await service.deposit(
        user_id=user_id,
        amount=Decimal(amount),
        currency=currency,
        description="",
        idempotency_key=key,
        now=now,
    )


async def withdraw(service, amount, *, user_id=ALICE, currency="USD", key=None, now=NOW):
    return await service.withdraw(
        user_id=user_id,
        amount=Decimal(amount),
        currency=currency,
        description="",
        idempotency_key=key,
        now=now,
    )


async def balances(service, user_id=ALICE) -> dict[str, tuple[str, str, str]]:
    summary = await service.get_summary(user_id=user_id, currency=None, now=NOW)
    return {
        each.total.currency.code: (str(each.total), str(each.held), str(each.available))
        for each in summary.balances
    }


async def transactions(service, **changes):
    arguments = {
        "user_id": ALICE,
        "limit": 50,
        "below": None,
        "types": (),
        "currency": None,
        "from_": None,
        "to": None,
        "now": NOW,
        **changes,
    }
    return await service.list_transactions(**arguments)


async def dump(database) -> list[tuple[object, ...]]:
    async with database.snapshot() as transaction:
        return [
            tuple(row)
            for table in tables.metadata.sorted_tables
            for row in await transaction.all(select(table).order_by(*table.primary_key.columns))
        ]


async def test_wallet_when_first_asked_for_then_opened_empty_in_the_demo_book(services, service):
    summary = await service.get_summary(user_id=ALICE, currency=None, now=NOW)
    assert summary.wallet.book == "demo"
    assert await balances(service) == {"USD": ("0.00", "0.00", "0.00")}
    again = await service.get_summary(user_id=ALICE, currency=None, now=NOW)
    assert again.wallet == summary.wallet
    assert await services.operations.verify() == Verified()


async def test_wallet_when_registration_is_told_twice_then_opened_once(service, database):
    for _ in range(2):
        await service.open_wallet(user_id=ALICE, event_id="evt_1", now=NOW)
    before = await dump(database)
    await service.get_summary(user_id=ALICE, currency=None, now=NOW)
    assert await dump(database) == before


async def test_wallet_when_opened_by_ten_at_once_then_one(service):
    summaries = await asyncio.gather(
        *(service.get_summary(user_id=ALICE, currency=None, now=NOW) for _ in range(10))
    )
    assert len({summary.wallet.wallet_id for summary in summaries}) == 1


async def test_deposit_when_settled_then_balance_fact_and_stream_agree(
    services, service, database, wakes
):
    receipt = await deposit(service, "100.5")
    assert (str(receipt.amount), str(receipt.running_balance)) == ("100.50", "100.50")
    assert (receipt.state, receipt.sequence) == (FundingState.SETTLED, 1)
    assert await balances(service) == {"USD": ("100.50", "0.00", "100.50")}
    async with database.snapshot() as transaction:
        facts = await transaction.all(select(tables.outbox_table))
    assert [(fact.type, fact.key_sequence) for fact in facts] == [("wallet.entry.posted", 1)]
    event = EntryPosted.model_validate_json(facts[0].data)
    assert (event.user_id, event.entry_id) == (ALICE, receipt.entry_id)
    assert (event.amount_minor, event.balance_minor, event.scale) == (10_050, 10_050, 2)
    wallet, events = await service.list_events(user_id=ALICE, after=0, limit=10)
    assert [(each.sequence, each.kind) for each in events] == [
        (1, WalletEventKind.ENTRY),
        (2, WalletEventKind.BALANCE),
    ]
    assert events[0].line.entry_id == receipt.entry_id
    assert wallet.last_event_sequence == 2
    assert wakes.seen == [(f"wallet:{ALICE}", 2)]
    assert await services.operations.verify() == Verified()


async def test_fundings_when_they_wait_together_then_each_has_its_own_outcome(
    services, service, database
):
    await deposit(service, "100", key="first")
    frozen = await deposit(service, "5", user_id=BOB)
    await services.operations.freeze(
        wallet_id=frozen.wallet_id, reason="check", operator_id="usr_op", now=NOW
    )

    async def named(name, ask):
        context.request_id.set(name)
        return await ask

    asks = {
        "one": deposit(service, "1"),
        "in": deposit(service, "10", key="k1"),
        "again": deposit(service, "10", key="k1"),
        "earlier": deposit(service, "100", key="first"),
        "too much": withdraw(service, "500", key="k2"),
        "too much again": withdraw(service, "500", key="k2"),
        "frozen": deposit(service, "1", user_id=BOB, key="k3"),
        "new": deposit(service, "7", user_id="usr_new", currency="EUR"),
        "out": withdraw(service, "111", key="k4"),
        "nothing left": withdraw(service, "0.01"),
    }
    done = await asyncio.gather(
        *(asyncio.create_task(named(name, ask)) for name, ask in asks.items()),
        return_exceptions=True,
    )
    found: dict[str, Any] = dict(zip(asks, done, strict=True))
    errors = {name: type(each) for name, each in found.items() if isinstance(each, Exception)}
    assert errors == {
        "too much": InsufficientFundsError,
        "too much again": InsufficientFundsError,
        "frozen": WalletFrozenError,
        "nothing left": InsufficientFundsError,
    }
    assert found["again"] == replace(found["in"], is_replay=True)
    assert (found["earlier"].is_replay, found["earlier"].sequence) == (True, 1)
    assert (str(found["out"].running_balance), found["out"].sequence) == ("0.00", 4)
    assert await balances(service, "usr_new") == {
        "EUR": ("7.00", "0.00", "7.00"),
        "USD": ("0.00", "0.00", "0.00"),
    }
    async with database.snapshot() as snapshot:
        keys = await snapshot.all(select(tables.idempotency_table.c.key).order_by("key"))
        facts = await snapshot.all(
            select(tables.outbox_table.c.request_id, tables.outbox_table.c.data)
            .where(tables.outbox_table.c.request_id.is_not(None))
            .order_by(tables.outbox_table.c.request_id)
        )
    assert [row.key for row in keys] == ["first", "k1", "k4"]
    named_facts = {row.request_id: EntryPosted.model_validate_json(row.data) for row in facts}
    assert {name: each.amount_minor for name, each in named_facts.items()} == {
        "one": 1_00, "in": 10_00, "new": 7_00, "out": -111_00,
    }  # fmt: skip
    # What was refused left its key to the next.
    await deposit(service, "2", key="k9")
    assert (await withdraw(service, "1.50", key="k2")).is_settled
    assert await services.operations.verify() == Verified()


async def test_fundings_when_those_together_depend_on_one_another_then_as_one_by_one(
    database, clock, wakes
):
    most = {"USD": Money(100_00, known_currency("USD"))}
    limits = WalletLimits(withdrawal=Limits(daily=most))
    services = make_services(database, clock, wakes, limits=limits)
    service = services.wallets
    await deposit(service, "50")
    before = await dump(database)

    async def together(*asks):
        done = await asyncio.gather(*asks, return_exceptions=True)
        return [type(each) for each in done]

    # Not covered, so the second mustn't count against the day's limit of those behind it.
    asks = (withdraw(service, amount) for amount in ("20", "60", "25", "56"))
    assert await together(*asks) == [Receipt, InsufficientFundsError, Receipt, DailyLimitError]
    # Nothing is left of what was opened for a refused one.
    strangers = (withdraw(service, "1", user_id="usr_new"), withdraw(service, "1", currency="EUR"))
    refused = [InsufficientFundsError, InsufficientFundsError]
    assert await together(*strangers, deposit(service, "1")) == [*refused, Receipt]
    keyed = (deposit(service, amount, key="k") for amount in ("3", "4"))
    assert await together(*keyed) == [Receipt, IdempotencyKeyReusedError]
    assert await balances(service) == {"USD": ("9.00", "0.00", "9.00")}
    # An entry, two postings, two events and a fact each, and one key.
    assert len(await dump(database)) == len(before) + 4 * 6 + 1
    assert await services.operations.verify() == Verified()


async def test_withdrawal_when_covered_then_taken_else_refused_without_a_trace(service, database):
    await deposit(service, "100")
    receipt = await withdraw(service, "30")
    assert (str(receipt.amount), str(receipt.running_balance)) == ("-30.00", "70.00")
    before = await dump(database)
    with pytest.raises(InsufficientFundsError) as raised:
        await withdraw(service, "70.01", key="w1")
    assert raised.value.context == {"required": "70.01", "available": "70.00", "currency": "USD"}
    with pytest.raises(InsufficientFundsError):
        await withdraw(service, "1", currency="EUR")
    assert await dump(database) == before
    await withdraw(service, "70", key="w1")
    assert await balances(service) == {"USD": ("0.00", "0.00", "0.00")}


@pytest.mark.parametrize(
    ("amount", "currency", "error"),
    [
        ("0", "USD", AmountNotPositiveError),
        ("-1", "USD", AmountNotPositiveError),
        ("0.001", "USD", AmountNotExactError),
        ("1.5", "JPY", AmountNotExactError),
        ("10000000000000.01", "USD", AmountOutOfRangeError),
        ("999999999999999999", "USD", AmountOutOfRangeError),
        ("1", "XXX", CurrencyNotSupportedError),
        ("1", "usd", CurrencyNotSupportedError),
    ],
)
async def test_deposit_when_amount_is_bad_then_named_and_no_trace(
    service, database, amount, currency, error
):
    before = await dump(database)
    with pytest.raises(error) as raised:
        await deposit(service, amount, currency=currency)
    assert [each.field for each in raised.value.errors] in (["amount"], ["currency"])
    assert await dump(database) == before


async def test_deposit_when_largest_amount_then_exact(services, service):
    receipt = await deposit(service, "10000000000000.00")
    assert str(receipt.running_balance) == "10000000000000.00"
    bitcoin = await deposit(service, "0.00000001", currency="BTC")
    assert str(bitcoin.running_balance) == "0.00000001"
    assert await services.operations.verify() == Verified()


async def test_request_when_repeated_with_key_then_first_receipt_and_one_effect(service, database):
    first = await deposit(service, "10.5", key="k1")
    before = await dump(database)
    later = NOW + timedelta(minutes=5)
    again = await deposit(service, "10.50", key="k1", now=later)
    assert again.is_replay
    assert again.freeze() == first.freeze()
    with pytest.raises(IdempotencyKeyReusedError) as raised:
        await deposit(service, "10.51", key="k1")
    assert [each.field for each in raised.value.errors] == ["amount"]
    assert await dump(database) == before
    assert not (await deposit(service, "1", key="k1", user_id=BOB)).is_replay
    assert not (await withdraw(service, "1", key="k1")).is_replay


async def test_request_when_50_repeat_at_once_then_one_effect(service):
    receipts = await asyncio.gather(*(deposit(service, "10", key="k1") for _ in range(50)))
    assert len({receipt.entry_id for receipt in receipts}) == 1
    assert sum(not receipt.is_replay for receipt in receipts) == 1
    assert await balances(service) == {"USD": ("10.00", "0.00", "10.00")}


async def test_withdrawals_when_100_race_for_100_then_exactly_ten_of_ten(services, service):
    await deposit(service, "100")
    outcomes = await asyncio.gather(
        *(withdraw(service, "10", key=f"w{number}") for number in range(100)),
        return_exceptions=True,
    )
    refused = [each for each in outcomes if isinstance(each, InsufficientFundsError)]
    assert (len(outcomes) - len(refused), len(refused)) == (10, 90)
    assert await balances(service) == {"USD": ("0.00", "0.00", "0.00")}
    page = await transactions(service)
    assert [str(line.running_balance) for line in page.lines] == [
        *(f"{number}0.00" if number else "0.00" for number in range(10)),
        "100.00",
    ]
    assert await services.operations.verify() == Verified()


async def test_transactions_when_paged_over_currencies_then_each_line_once(service, clock):
    for number in range(1, 6):
        now = NOW + timedelta(seconds=number)
        await deposit(service, number, now=now)
        await deposit(service, number, currency="EUR", now=now)
    await withdraw(service, 2, now=NOW + timedelta(seconds=9))
    seen, below = [], None
    while True:
        page = await transactions(service, limit=3, below=below)
        seen += page.lines
        below = page.next_position
        if below is None:
            break
    assert len(seen) == len({line.entry_id for line in seen}) == 11
    assert [line.recorded_at for line in seen] == sorted(
        (line.recorded_at for line in seen), reverse=True
    )
    only = await transactions(service, types=[EntryType.WITHDRAWAL])
    assert [str(line.change) for line in only.lines] == ["-2.00"]
    euros = await transactions(
        service,
        currency="EUR",
        from_=NOW + timedelta(seconds=2),
        to=NOW + timedelta(seconds=4),
    )
    assert [str(line.running_balance) for line in euros.lines] == ["6.00", "3.00"]
    with pytest.raises(RangeInvertedError):
        await transactions(service, from_=NOW, to=NOW - timedelta(seconds=1))


async def test_users_when_two_then_neither_sees_the_other(service):
    await deposit(service, "5")
    assert await balances(service, BOB) == {"USD": ("0.00", "0.00", "0.00")}
    assert (await transactions(service, user_id=BOB)).lines == ()
    _, events = await service.list_events(user_id=BOB, after=0, limit=10)
    assert events == []


async def test_manual_deposit_when_settled_then_posted_once(services, manual_service):
    receipt = await deposit(manual_service, "50", key="d1")
    assert (receipt.state, receipt.entry_id) == (FundingState.PENDING, None)
    assert (await deposit(manual_service, "50", key="d1")).funding_id == receipt.funding_id
    assert await balances(manual_service) == {"USD": ("0.00", "0.00", "0.00")}
    waiting = await manual_service.list_pending_fundings(limit=10)
    assert [each.funding_id for each in waiting] == [receipt.funding_id]
    settled = await manual_service.settle_funding(
        funding_id=receipt.funding_id, operator_id="usr_op", now=NOW
    )
    assert settled.state is FundingState.SETTLED
    assert await balances(manual_service) == {"USD": ("50.00", "0.00", "50.00")}
    for close in (manual_service.settle_funding, manual_service.refuse_funding):
        with pytest.raises(FundingClosedError):
            await close(funding_id=receipt.funding_id, operator_id="usr_op", now=NOW)
    with pytest.raises(FundingNotFoundError):
        await manual_service.settle_funding(funding_id="fnd_x", operator_id="usr_op", now=NOW)
    summary = await manual_service.get_summary(user_id=ALICE, currency="USD", now=NOW)
    assert (summary.wallet.book, str(summary.lifetime_deposits)) == ("funded", "50.00")
    assert await services.operations.verify() == Verified()


async def test_manual_withdrawal_when_refused_or_settled_then_hold_ends(
    services, manual_service, wakes
):
    first = await deposit(manual_service, "50")
    await manual_service.settle_funding(funding_id=first.funding_id, operator_id="op", now=NOW)
    one = await withdraw(manual_service, "30")
    assert await balances(manual_service) == {"USD": ("50.00", "30.00", "20.00")}
    with pytest.raises(InsufficientFundsError):
        await withdraw(manual_service, "20.01")
    await manual_service.refuse_funding(funding_id=one.funding_id, operator_id="op", now=NOW)
    assert await balances(manual_service) == {"USD": ("50.00", "0.00", "50.00")}
    two = await withdraw(manual_service, "45")
    await manual_service.settle_funding(funding_id=two.funding_id, operator_id="op", now=NOW)
    assert await balances(manual_service) == {"USD": ("5.00", "0.00", "5.00")}
    wallet, events = await manual_service.list_events(user_id=ALICE, after=0, limit=100)
    assert [each.sequence for each in events] == list(range(1, wallet.last_event_sequence + 1))
    assert [str(each.balance.available) for each in events] == [
        *("50.00", "50.00"),
        "20.00",
        "50.00",
        "5.00",
        *("5.00", "5.00"),
    ]
    assert wakes.seen[-1] == (f"wallet:{ALICE}", wallet.last_event_sequence)
    assert await services.operations.verify() == Verified()


async def test_verify_when_a_stream_event_is_missing_then_found(services, service, database):
    await deposit(service, "5")
    async with database.transaction() as transaction:
        await transaction.execute(text("DELETE FROM wallet.wallet_events WHERE kind = 'entry'"))
    assert {violation.id for violation in (await services.operations.verify()).violations} == {
        "W1",
        "W2",
    }


async def test_verify_when_a_balance_is_edited_then_found(services, service, database):
    await deposit(service, "5")
    async with database.transaction() as transaction:
        await transaction.execute(
            update(tables.ledger.accounts)
            .values(balance_minor=501)
            .where(tables.ledger.accounts.c.is_customer)
        )
    assert {violation.id for violation in (await services.operations.verify()).violations} == {"L3"}
