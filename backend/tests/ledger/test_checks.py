"""Each proof must be able to fail: bugs are planted in the stored rows and must be found."""

import pytest
from sqlalchemy import text

from trading_api.ledger.checks import check_ledger
from trading_api.ledger.domain import HoldRequest, reversal
from trading_api.ledger.engine import Ledger
from trading_api.runtime.database import Database
from trading_api.testkit.ledgers import ALICE, BOB, NOW, SCHEMA, TABLES, a_deposit, a_transfer, usd

PLANTED = {
    "L1": "UPDATE {}ledger_postings SET amount_minor = 99 WHERE entry_id = 'e1' AND position = 0",
    "L2": "UPDATE {}ledger_postings SET amount_minor = 99 WHERE entry_id = 'e1' AND position = 0",
    "L3": "UPDATE {}ledger_accounts SET balance_minor = 71 WHERE account_id = 'wal_alice:USD'",
    "L4": "UPDATE {}ledger_accounts SET held_minor = 9 WHERE account_id = 'wal_alice:USD'",
    "L6": "UPDATE {}ledger_holds SET entry_id = 'e1' WHERE hold_id = 'h2'",
    "L8": "UPDATE {}ledger_entries SET reverses_entry_id = 'e2' WHERE entry_id = 'e4'",
    "L11": "UPDATE {}ledger_entries SET book = 'funded' WHERE entry_id = 'e1'",
    "L12": "UPDATE {}ledger_accounts SET scale = 3 WHERE account_id = 'wal_bob:USD'",
    "L13": "UPDATE {}ledger_postings SET sequence = 9 WHERE entry_id = 'e2' AND position = 0",
    "L14": "UPDATE {}ledger_entries SET description = 'x' WHERE entry_id = 'e1'",
}


async def _disarm(database: Database) -> None:
    """Take away every trigger and constraint, as somebody with the owner's rights could."""
    async with database.transaction() as transaction:
        if database.dialect == "postgresql":
            for table in ("entries", "postings", "holds", "accounts"):
                await transaction.execute(
                    text(f"ALTER TABLE {SCHEMA}.ledger_{table} DISABLE TRIGGER ALL")
                )
            rows = await transaction.all(
                text(
                    "SELECT conrelid::regclass AS owner, conname AS name FROM pg_constraint"
                    " WHERE connamespace = CAST(:schema AS regnamespace) AND contype IN ('c', 'u')"
                    " AND conname NOT LIKE '%account_id_currency'"
                ),
                {"schema": SCHEMA},
            )
            for row in rows:
                await transaction.execute(
                    text(f'ALTER TABLE {row.owner} DROP CONSTRAINT "{row.name}" CASCADE')
                )
            return
        for row in await transaction.all(
            text("SELECT name FROM ledger_test.sqlite_master WHERE type = 'trigger'")
        ):
            await transaction.execute(text(f"DROP TRIGGER ledger_test.{row.name}"))
        await transaction.execute(text("PRAGMA ignore_check_constraints = ON"))


@pytest.fixture
async def busy_ledger(database: Database, ledger: Ledger) -> Database:
    async with database.transaction() as transaction:
        first = await ledger.post_entry(transaction, a_deposit("e1", 100), recorded_at=NOW)
        await ledger.post_entry(transaction, a_transfer("e2", 30, ALICE, BOB), recorded_at=NOW)
        await ledger.post_entry(transaction, a_deposit("e3", 100), recorded_at=NOW)
        undo = reversal(first, entry_id="e4", occurred_at=NOW, reason="")
        await ledger.post_entry(transaction, undo, recorded_at=NOW)
        for hold_id in ("h1", "h2"):
            request = HoldRequest(hold_id, ALICE.account_id, usd(5), NOW)
            await ledger.open_hold(transaction, request)
        await ledger.void_hold(transaction, "h2", closed_at=NOW)
    return database


async def _violations(database: Database) -> set[str]:
    async with database.snapshot() as transaction:
        return {violation.id for violation in await check_ledger(transaction, TABLES)}


async def test_check_when_nothing_is_wrong_then_nothing_is_found(busy_ledger):
    assert await _violations(busy_ledger) == set()


async def test_check_when_triggers_are_gone_then_found(busy_ledger):
    await _disarm(busy_ledger)
    assert await _violations(busy_ledger) == {"L8"}


@pytest.mark.parametrize("invariant", PLANTED)
async def test_check_when_bug_is_planted_then_found(busy_ledger, invariant):
    await _disarm(busy_ledger)
    async with busy_ledger.transaction() as transaction:
        await transaction.execute(text(PLANTED[invariant].format(f"{SCHEMA}.")))
    async with busy_ledger.snapshot() as transaction:
        found = await check_ledger(transaction, TABLES)
    assert invariant in {each.id for each in found if not each.subject.startswith("tr_")}


async def test_check_when_posting_is_removed_then_several_proofs_fail(busy_ledger):
    await _disarm(busy_ledger)
    async with busy_ledger.transaction() as transaction:
        await transaction.execute(
            text(f"DELETE FROM {SCHEMA}.ledger_postings WHERE entry_id = 'e3' AND position = 1")
        )
    assert {"L1", "L2", "L3", "L13"} <= await _violations(busy_ledger)
