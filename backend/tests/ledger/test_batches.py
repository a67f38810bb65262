"""Entries posted many at a time: the same outcomes as one by one, refused ones fail alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from trading_api.kernel.errors import DatabaseUnavailableError, TradingError
from trading_api.ledger.checks import check_ledger
from trading_api.ledger.domain import Entry, PostedEntry, reversal
from trading_api.ledger.engine import Decided
from trading_api.ledger.errors import (
    EntryAlreadyReversedError,
    EntryDiffersError,
    InsufficientFundsError,
    LedgerAccountNotFoundError,
    LedgerInvariantError,
)
from trading_api.runtime.database import Transaction
from trading_api.runtime.database.batches import Batches
from trading_api.testkit.ledgers import (
    ALICE,
    BOB,
    NOW,
    TABLES,
    a_deposit,
    a_transfer,
    a_withdrawal,
    usd,
)


@pytest.fixture
def batches(database, ledger):
    async def post(transaction: Transaction, entries: Sequence[Entry]):
        return await ledger.post_entries(transaction, entries, recorded_at=NOW)

    return Batches(database, post)


async def post_all(database, ledger, entries):
    async with database.transaction() as transaction:
        return await ledger.post_entries(transaction, entries, recorded_at=NOW)


async def ensure_proven(database, ledger, **totals: int) -> None:
    async with database.snapshot() as snapshot:
        assert await check_ledger(snapshot, TABLES) == []
        for name, account in (("alice", ALICE), ("bob", BOB)):
            balance = await ledger.get_balance(snapshot, account.account_id)
            assert balance.total == usd(totals.get(name, 0)), name


async def test_batch_when_some_are_refused_then_neighbours_stand_in_their_order(database, ledger):
    unknown = a_deposit("e6", 1, replace(BOB, account_id="wal_none:USD", owner_id="wal_none"))
    entries = [
        a_withdrawal("e0", 1),  # nothing there yet
        a_deposit("e1", 100),
        a_transfer("e2", 60, ALICE, BOB),
        a_withdrawal("e3", 50),  # 40 are left
        a_withdrawal("e4", 40),
        a_deposit("e1", 100),  # a repeat within the batch
        a_deposit("e1", 99),  # another body
        unknown,
        a_withdrawal("e5", 60, BOB),
    ]
    outcomes = await post_all(database, ledger, entries)
    kinds = [type(each).__name__ for each in outcomes]
    assert kinds == [
        InsufficientFundsError.__name__,
        *["PostedEntry"] * 2,
        InsufficientFundsError.__name__,
        *["PostedEntry"] * 2,
        EntryDiffersError.__name__,
        LedgerAccountNotFoundError.__name__,
        "PostedEntry",
    ]
    posted = [each for each in outcomes if isinstance(each, PostedEntry)]
    assert [each.is_replay for each in posted] == [False, False, False, True, False]
    alice = [p.posting_on(ALICE.account_id) for p in (posted[0], posted[1], posted[2])]
    assert [(each.sequence, each.running_balance_minor) for each in alice] == [
        (1, 100), (2, 40), (3, 0),
    ]  # fmt: skip
    await ensure_proven(database, ledger)
    again = await post_all(database, ledger, entries[1:3])
    assert [each.is_replay for each in again] == [True, True]
    await ensure_proven(database, ledger)


async def test_batch_when_one_by_one_then_the_same_hashes(database, ledger):
    entries = [a_deposit("e1", 100), a_transfer("e2", 30, ALICE, BOB), a_withdrawal("e3", 5)]
    outcomes = await post_all(database, ledger, entries)
    async with database.snapshot() as snapshot:
        for each in outcomes:
            stored = await ledger.get_entry(snapshot, each.entry.entry_id)
            assert stored == replace(each, states={})


async def test_batch_when_reversed_twice_within_then_once(database, ledger):
    (first,) = await post_all(database, ledger, [a_deposit("e1", 100)])
    undo = reversal(first, entry_id="r1", occurred_at=NOW, reason="")
    outcomes = await post_all(database, ledger, [undo, replace(undo, entry_id="r2")])
    assert isinstance(outcomes[1], EntryAlreadyReversedError)
    (third,) = await post_all(database, ledger, [replace(undo, entry_id="r3")])
    assert isinstance(third, EntryAlreadyReversedError)
    await ensure_proven(database, ledger)


async def test_withdrawals_when_100_wait_together_then_exactly_ten(database, ledger, batches):
    await batches.submit(a_deposit("d", 100))
    outcomes = await asyncio.gather(
        *(batches.submit(a_withdrawal(f"w{number}", 10)) for number in range(100)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, PostedEntry) for each in outcomes) == 10
    assert sum(isinstance(each, InsufficientFundsError) for each in outcomes) == 90
    await ensure_proven(database, ledger)


async def test_batches_when_the_handler_breaks_then_each_is_done_alone(database):
    sizes: list[int] = []

    async def handler(_transaction: Transaction, items: Sequence[int]) -> list[int | TradingError]:
        sizes.append(len(items))
        if 3 in items:
            raise RuntimeError("a broken item")
        return [item * 2 for item in items]

    made: Batches[int, int] = Batches(database, handler)
    outcomes = await asyncio.gather(
        *(made.submit(item) for item in range(5)), return_exceptions=True
    )
    assert [each for each in outcomes if isinstance(each, int)] == [0, 2, 4, 8]
    assert isinstance(outcomes[3], RuntimeError)
    assert sizes == [5, 1, 1, 1, 1, 1]


async def test_batches_when_the_database_goes_away_then_nothing_is_done_twice(database):
    sizes: list[int] = []

    async def handler(_transaction: Transaction, items: Sequence[int]) -> list[int | TradingError]:
        sizes.append(len(items))
        raise ConnectionResetError("the commit's answer is lost")

    made: Batches[int, int] = Batches(database, handler)
    outcomes = await asyncio.gather(
        *(made.submit(item) for item in range(5)), return_exceptions=True
    )
    assert [type(each) for each in outcomes] == [DatabaseUnavailableError] * 5
    assert sizes == [5]


async def decide(ledger, transaction, states, entries):
    """Return what was decided over states that each entry moves on."""
    before, posted = dict(states), []
    for entry in entries:
        posted.append(await ledger.decide_entry(transaction, entry, states, recorded_at=NOW))
        states |= posted[-1].states
    return Decided(tuple(posted), before)


async def test_decided_when_written_for_several_accounts_then_as_posted_one_by_one(
    database, ledger
):
    async with database.transaction() as transaction:
        decided = []
        for account in (ALICE, BOB):
            states = await ledger.lock_accounts(transaction, [account.account_id])
            entries = [
                a_deposit(f"{account.account_id}-{number}", 10 * number, account)
                for number in (1, 2, 3)
            ]
            decided.append(await decide(ledger, transaction, states, entries))
        await ledger.write_decided(transaction, decided)
    await ensure_proven(database, ledger, alice=60, bob=60)


async def test_decided_when_refused_then_nothing_is_decided(database, ledger):
    async with database.transaction() as transaction:
        states = await ledger.lock_accounts(transaction, [ALICE.account_id])
        with pytest.raises(InsufficientFundsError):
            await decide(ledger, transaction, states, [a_withdrawal("w1", 1)])
    await ensure_proven(database, ledger)


async def test_decided_when_over_states_that_are_not_stored_then_not_written(database, ledger):
    await post_all(database, ledger, [a_deposit("d1", 5, ALICE)])
    with pytest.raises(LedgerInvariantError):
        async with database.transaction() as transaction:
            states = await ledger.lock_accounts(transaction, [ALICE.account_id])
            stale = {
                each: replace(state, balance_minor=state.balance_minor + 100)
                for each, state in states.items()
            }
            decided = await decide(ledger, transaction, stale, [a_deposit("d2", 5, ALICE)])
            await ledger.write_decided(transaction, [decided])
    with pytest.raises(LedgerInvariantError, match="twice"):
        async with database.transaction() as transaction:
            states = await ledger.lock_accounts(transaction, [ALICE.account_id])
            once = await decide(ledger, transaction, states, [a_deposit("d3", 5, ALICE)])
            await ledger.write_decided(transaction, [once, once])
    await ensure_proven(database, ledger, alice=5)
