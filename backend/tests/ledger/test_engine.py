"""The engine on each database: effects, repeats, refusals, guards, races for the last cent."""

import asyncio
from collections.abc import Awaitable, Iterable
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from trading_api.kernel.clock import to_us
from trading_api.kernel.values import currency
from trading_api.ledger.checks import check_ledger
from trading_api.ledger.domain import (
    BALANCE_MINOR_MAX,
    Book,
    Entry,
    EntryType,
    HoldRequest,
    HoldState,
    credit,
    customer_account,
    debit,
    reversal,
)
from trading_api.ledger.engine import Ledger, LinePosition
from trading_api.ledger.errors import (
    CaptureExceedsHoldError,
    EntryAlreadyReversedError,
    EntryDiffersError,
    HoldAlreadyCapturedError,
    HoldAlreadyExpiredError,
    HoldAlreadyVoidedError,
    HoldDiffersError,
    HoldNotFoundError,
    InsufficientFundsError,
    LedgerAccountNotFoundError,
    LedgerInvariantError,
)
from trading_api.runtime.database import Database
from trading_api.testkit.ledgers import (
    ALICE,
    BOB,
    EXTERNAL,
    NOW,
    TABLES,
    a_deposit,
    a_transfer,
    a_withdrawal,
    usd,
)

T = TypeVar("T")


async def post(database: Database, ledger: Ledger, entry: Entry):
    async with database.transaction() as transaction:
        return await ledger.post_entry(transaction, entry, recorded_at=NOW)


async def balance(database: Database, ledger: Ledger, account=ALICE) -> tuple[int, int, int]:
    async with database.snapshot() as transaction:
        found = await ledger.get_balance(transaction, account.account_id)
    return found.total.minor, found.held.minor, found.available.minor


async def all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Run coroutines ten at a time: as many as the pool has connections, so that rows contend."""
    places = asyncio.Semaphore(10)

    async def in_place(each: Awaitable[T]) -> T:
        async with places:
            return await each

    return await asyncio.gather(*(in_place(each) for each in work))


async def assert_proven(database: Database) -> None:
    async with database.snapshot() as transaction:
        assert await check_ledger(transaction, TABLES) == []


async def dump(database: Database) -> list[tuple[object, ...]]:
    async with database.snapshot() as transaction:
        return [
            tuple(row)
            for table in (TABLES.accounts, TABLES.entries, TABLES.postings, TABLES.holds)
            for row in await transaction.all(select(table).order_by(*table.primary_key.columns))
        ]


def a_hold(hold_id: str, amount_minor: int, **changes) -> HoldRequest:
    return HoldRequest(
        hold_id=hold_id,
        account_id=ALICE.account_id,
        amount=usd(amount_minor),
        opened_at=NOW,
        **changes,
    )


async def test_deposit_when_posted_then_customer_and_world_move(database, ledger):
    posted = await post(database, ledger, a_deposit("e1", 10_050))
    line = posted.posting_on(ALICE.account_id)
    assert (line.sequence, line.running_balance_minor) == (1, 10_050)
    world = posted.posting_on(EXTERNAL.account_id)
    assert (world.sequence, world.running_balance_minor, world.chain_hash) == (None, None, None)
    assert await balance(database, ledger) == (10_050, 0, 10_050)
    assert await balance(database, ledger, EXTERNAL) == (-10_050, 0, -10_050)
    await assert_proven(database)


async def test_repeat_when_same_body_then_first_entry_and_no_change(database, ledger):
    first = await post(database, ledger, a_deposit("e1", 100))
    await post(database, ledger, a_withdrawal("e2", 100))
    before = await dump(database)
    again = await post(database, ledger, a_deposit("e1", 100))
    spent = await post(database, ledger, a_withdrawal("e2", 100))
    assert again.is_replay
    assert spent.is_replay
    assert again.postings == first.postings
    assert await dump(database) == before


async def test_repeat_when_other_body_then_field_named_and_no_change(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    before = await dump(database)
    with pytest.raises(EntryDiffersError) as raised:
        await post(database, ledger, a_deposit("e1", 101))
    assert [each.field for each in raised.value.errors] == [
        "postings.0.amount",
        "postings.1.amount",
    ]
    with pytest.raises(EntryDiffersError) as raised:
        await post(database, ledger, a_deposit("e1", 100, BOB))
    assert [each.field for each in raised.value.errors] == ["postings.1.account_id"]
    assert await dump(database) == before


async def test_withdrawal_when_above_available_then_refused_and_no_change(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    before = await dump(database)
    with pytest.raises(InsufficientFundsError) as raised:
        await post(database, ledger, a_withdrawal("e2", 101))
    assert raised.value.context["required_minor"] == 101
    assert raised.value.context["available_minor"] == 100
    assert await dump(database) == before


async def test_entry_when_account_unknown_then_not_found(database, ledger):
    stranger = customer_account("wal_x", currency("USD"), book=Book.DEMO, allows_negative=False)
    with pytest.raises(LedgerAccountNotFoundError):
        await post(database, ledger, a_deposit("e1", 100, stranger))


async def test_entry_when_books_mix_then_bug_is_stopped(database, ledger):
    funded = customer_account("wal_f", currency("USD"), book=Book.FUNDED, allows_negative=False)
    async with database.transaction() as transaction:
        await ledger.open_accounts(transaction, [funded], created_at=NOW)
    with pytest.raises(LedgerInvariantError, match="crosses books"):
        await post(database, ledger, a_deposit("e1", 100, funded))


async def test_account_when_opened_again_then_kept_and_other_identity_is_stopped(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    async with database.transaction() as transaction:
        await ledger.open_accounts(transaction, [ALICE], created_at=NOW)
    assert await balance(database, ledger) == (100, 0, 100)
    other = customer_account("wal_alice", currency("USD"), book=Book.DEMO, allows_negative=True)
    with pytest.raises(LedgerInvariantError, match="another identity"):
        async with database.transaction() as transaction:
            await ledger.open_accounts(transaction, [other], created_at=NOW)


async def test_account_when_negative_allowed_then_loss_posts_below_zero(database, ledger):
    trading = customer_account("acc_1", currency("USD"), book=Book.DEMO, allows_negative=True)
    async with database.transaction() as transaction:
        await ledger.open_accounts(transaction, [trading], created_at=NOW)
    await post(database, ledger, a_withdrawal("e1", 70, trading))
    assert await balance(database, ledger, trading) == (-70, 0, -70)
    with pytest.raises(InsufficientFundsError):
        async with database.transaction() as transaction:
            request = HoldRequest("h1", trading.account_id, usd(1), NOW)
            await ledger.open_hold(transaction, request)
    await assert_proven(database)


async def test_entry_when_two_postings_on_one_account_then_each_has_its_place(database, ledger):
    await post(database, ledger, a_deposit("e1", 1_000))
    entry = Entry(
        entry_id="e2",
        type=EntryType.EXCHANGE,
        postings=(
            credit(ALICE, usd(11_000)),
            debit(EXTERNAL, usd(11_000)),
            debit(ALICE, usd(10)),
            credit(EXTERNAL, usd(10)),
        ),
        occurred_at=NOW,
        details={"rate": "1.1000"},
    )
    posted = await post(database, ledger, entry)
    lines = [p for p in posted.postings if p.sequence is not None]
    assert [(p.sequence, p.running_balance_minor) for p in lines] == [(2, 12_000), (3, 11_990)]
    async with database.snapshot() as transaction:
        stored = await ledger.get_entry(transaction, "e2")
    assert stored == posted
    await assert_proven(database)


async def test_balance_when_many_largest_amounts_then_house_sum_is_exact(database, ledger):
    largest = 10**15
    trading = customer_account("acc_1", currency("USD"), book=Book.DEMO, allows_negative=True)
    async with database.transaction() as transaction:
        await ledger.open_accounts(transaction, [trading], created_at=NOW)
    count = BALANCE_MINOR_MAX // largest
    assert count == 1000
    for number in range(3):
        await post(database, ledger, a_deposit(f"e{number}", largest - number, trading))
    assert await balance(database, ledger, EXTERNAL) == (-3 * largest + 3, 0, -3 * largest + 3)


async def test_reversal_when_posted_then_mirrors_once(database, ledger):
    posted = await post(database, ledger, a_deposit("e1", 100))
    undo = reversal(posted, entry_id="e2", occurred_at=NOW, reason="typing error")
    await post(database, ledger, undo)
    assert await balance(database, ledger) == (0, 0, 0)
    assert (await post(database, ledger, undo)).is_replay
    again = reversal(posted, entry_id="e3", occurred_at=NOW, reason="typing error")
    with pytest.raises(EntryAlreadyReversedError):
        await post(database, ledger, again)
    await assert_proven(database)


async def test_hold_when_captured_in_part_then_rest_is_released(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 60))
    assert await balance(database, ledger) == (100, 60, 40)
    with pytest.raises(InsufficientFundsError):
        await post(database, ledger, a_withdrawal("e2", 41))
    async with database.transaction() as transaction:
        await ledger.capture_hold(transaction, "h1", a_withdrawal("e3", 25), recorded_at=NOW)
    assert await balance(database, ledger) == (75, 0, 75)
    async with database.snapshot() as transaction:
        ended = await ledger.get_hold(transaction, "h1")
    assert (ended.state, ended.captured_minor, ended.entry_id) == (HoldState.POSTED, 25, "e3")
    await assert_proven(database)


async def test_hold_when_opened_again_then_one_hold_and_other_body_refused(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 60))
    before = await dump(database)
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 60))
    with pytest.raises(HoldDiffersError) as raised:
        async with database.transaction() as transaction:
            await ledger.open_hold(transaction, a_hold("h1", 61))
    assert [each.field for each in raised.value.errors] == ["amount"]
    assert await dump(database) == before


async def test_hold_when_ended_then_second_end_is_refused_and_changes_nothing(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    ends = {
        "h1": HoldAlreadyVoidedError,
        "h2": HoldAlreadyExpiredError,
        "h3": HoldAlreadyCapturedError,
    }
    async with database.transaction() as transaction:
        for hold_id in ends:
            await ledger.open_hold(transaction, a_hold(hold_id, 10))
        await ledger.void_hold(transaction, "h1", closed_at=NOW)
        await ledger.expire_hold(transaction, "h2", closed_at=NOW)
        await ledger.capture_hold(transaction, "h3", a_withdrawal("e2", 10), recorded_at=NOW)
    before = await dump(database)
    for hold_id, error in ends.items():
        with pytest.raises(error):
            async with database.transaction() as transaction:
                await ledger.void_hold(transaction, hold_id, closed_at=NOW)
        with pytest.raises(error):
            async with database.transaction() as transaction:
                entry = a_withdrawal(f"again-{hold_id}", 10)
                await ledger.capture_hold(transaction, hold_id, entry, recorded_at=NOW)
    async with database.transaction() as transaction:
        entry = a_withdrawal("e2", 10)
        assert (await ledger.capture_hold(transaction, "h3", entry, recorded_at=NOW)).is_replay
    assert await dump(database) == before
    await assert_proven(database)


async def test_capture_when_too_much_too_late_or_unknown_then_refused(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    soon = NOW + timedelta(seconds=1)
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 10, expires_at=soon))
    before = await dump(database)
    with pytest.raises(CaptureExceedsHoldError):
        async with database.transaction() as transaction:
            await ledger.capture_hold(transaction, "h1", a_withdrawal("e2", 11), recorded_at=NOW)
    with pytest.raises(HoldAlreadyExpiredError):
        async with database.transaction() as transaction:
            await ledger.capture_hold(transaction, "h1", a_withdrawal("e2", 10), recorded_at=soon)
    with pytest.raises(HoldNotFoundError):
        async with database.transaction() as transaction:
            await ledger.capture_hold(transaction, "h9", a_withdrawal("e2", 10), recorded_at=NOW)
    assert await dump(database) == before


async def test_lines_when_paged_then_newest_first_without_gap_or_repeat(database, ledger):
    for number in range(1, 8):
        await post(database, ledger, a_deposit(f"e{number}", number))
    await post(database, ledger, a_withdrawal("w1", 1))
    seen: list[int] = []
    below = None
    async with database.snapshot() as transaction:
        while True:
            page = await ledger.list_entries(transaction, [ALICE.account_id], limit=3, below=below)
            if not page:
                break
            seen += [line.sequence for line in page]
            last = page[-1]
            below = LinePosition(to_us(last.recorded_at), last.account_id, last.sequence)
        withdrawals = await ledger.list_entries(
            transaction, [ALICE.account_id], limit=9, types=[EntryType.WITHDRAWAL]
        )
        sums = await ledger.sum_changes(transaction, [ALICE.account_id])
    assert seen == [8, 7, 6, 5, 4, 3, 2, 1]
    assert [(line.change.minor, line.running_balance.minor) for line in withdrawals] == [(-1, 27)]
    assert {key[1]: value.minor for key, value in sums.items()} == {
        EntryType.DEPOSIT: 28,
        EntryType.WITHDRAWAL: -1,
    }


async def test_recording_instant_when_clock_steps_back_then_never_runs_backwards(database, ledger):
    await post(database, ledger, a_deposit("e1", 1))
    async with database.transaction() as transaction:
        posted = await ledger.post_entry(
            transaction, a_deposit("e2", 1), recorded_at=NOW - timedelta(hours=1)
        )
    assert posted.recorded_at == NOW


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {}ledger_entries SET description = 'x'",
        "DELETE FROM {}ledger_entries",
        "UPDATE {}ledger_postings SET amount_minor = amount_minor + 1",
        "DELETE FROM {}ledger_postings",
        "DELETE FROM {}ledger_holds",
        "UPDATE {}ledger_holds SET amount_minor = amount_minor + 1",
        "UPDATE {}ledger_holds SET expires_at_us = 7",
        "DELETE FROM {}ledger_accounts",
        "UPDATE {}ledger_accounts SET owner_id = 'mallory' WHERE is_customer",
        "UPDATE {}ledger_accounts SET allows_negative = true",
    ],
)
async def test_stored_rows_when_changed_by_sql_then_database_refuses(database, ledger, statement):
    await post(database, ledger, a_deposit("e1", 100))
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 60))
    before = await dump(database)
    with pytest.raises(DBAPIError, match=r"append-only|keeps its"):
        async with database.transaction() as transaction:
            await transaction.execute(text(statement.format("ledger_test.")))
    assert await dump(database) == before


@pytest.mark.parametrize(
    "values",
    [{"balance_minor": 59}, {"held_minor": 101}, {"held_minor": -1}, {"balance_minor": 2 * 10**18}],
)
async def test_account_when_available_or_range_broken_by_sql_then_refused(database, ledger, values):
    await post(database, ledger, a_deposit("e1", 100))
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 60))
    with pytest.raises(DBAPIError, match="ck_ledger_accounts_"):
        async with database.transaction() as transaction:
            await transaction.execute(
                update(TABLES.accounts)
                .where(TABLES.accounts.c.account_id == ALICE.account_id)
                .values(values)
            )


async def test_withdrawals_when_100_race_for_100_then_exactly_ten_of_ten_succeed(database, ledger):
    await post(database, ledger, a_deposit("e0", 10_000))

    async def withdraw(number: int) -> bool:
        async def command(transaction) -> None:
            await ledger.post_entry(transaction, a_withdrawal(f"w{number}", 1_000), recorded_at=NOW)

        try:
            await database.run(command)
        except InsufficientFundsError:
            return False
        return True

    outcomes = await all_of(withdraw(number) for number in range(100))
    assert sum(outcomes) == 10
    assert await balance(database, ledger) == (0, 0, 0)
    await assert_proven(database)


async def test_same_entry_when_50_race_then_one_effect_and_all_get_it(database, ledger):
    async def deposit(number: int):
        # Half of them name another account, so that the row locks don't order the rivals.
        account = ALICE if number % 2 else BOB

        async def command(transaction):
            return await ledger.post_entry(
                transaction, a_deposit("e1", 500, account), recorded_at=NOW
            )

        try:
            return await database.run(command)
        except EntryDiffersError:
            return None

    outcomes = await all_of(deposit(number) for number in range(50))
    posted = [outcome for outcome in outcomes if outcome is not None]
    assert len(posted) == 25
    assert sum(not each.is_replay for each in posted) == 1
    totals = [await balance(database, ledger, account) for account in (ALICE, BOB)]
    assert sorted(totals) == [(0, 0, 0), (500, 0, 500)]
    await assert_proven(database)


async def test_transfers_when_crossing_in_parallel_then_money_is_conserved(database, ledger):
    await post(database, ledger, a_deposit("a", 1_000))
    await post(database, ledger, a_deposit("b", 1_000, BOB))

    async def transfer(number: int) -> None:
        pair = (ALICE, BOB) if number % 2 else (BOB, ALICE)

        async def command(transaction) -> None:
            entry = a_transfer(f"t{number}", 1 + number * 7 % 90, *pair)
            await ledger.post_entry(transaction, entry, recorded_at=NOW)

        await database.run(command)

    await all_of(transfer(number) for number in range(40))
    alice, bob = [await balance(database, ledger, account) for account in (ALICE, BOB)]
    assert alice[0] + bob[0] == 2_000
    await assert_proven(database)


async def test_captures_when_racing_for_one_hold_then_one_wins(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))
    async with database.transaction() as transaction:
        await ledger.open_hold(transaction, a_hold("h1", 60))

    async def capture(number: int) -> bool:
        async def command(transaction) -> None:
            entry = a_withdrawal(f"c{number}", 60)
            await ledger.capture_hold(transaction, "h1", entry, recorded_at=NOW)

        try:
            await database.run(command)
        except HoldAlreadyCapturedError:
            return False
        return True

    outcomes = await all_of(capture(number) for number in range(20))
    assert sum(outcomes) == 1
    assert await balance(database, ledger) == (40, 0, 40)
    await assert_proven(database)


async def test_group_when_one_command_is_refused_then_neighbours_stand(database, ledger):
    await post(database, ledger, a_deposit("e1", 100))

    async def withdraw(number: int, amount_minor: int) -> bool:
        async def command(transaction) -> None:
            entry = a_withdrawal(f"w{number}", amount_minor)
            await ledger.post_entry(transaction, entry, recorded_at=NOW)

        try:
            await database.group(command)
        except InsufficientFundsError:
            return False
        return True

    outcomes = await asyncio.gather(
        *(withdraw(number, amount) for number, amount in enumerate([50, 200, 30, 80, 20]))
    )
    assert outcomes == [True, False, True, False, True]
    assert await balance(database, ledger) == (0, 0, 0)
    await assert_proven(database)
