"""A migrated-like ledger on each database, and the small builders that the tests share."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from trading_api.kernel.values import Money, currency
from trading_api.ledger.domain import (
    AccountType,
    Book,
    Entry,
    EntryType,
    LedgerAccount,
    credit,
    customer_account,
    debit,
    house_account,
)
from trading_api.ledger.engine import Ledger
from trading_api.ledger.tables import LedgerTables, ledger_guard_ddl, ledger_tables
from trading_api.runtime.database import Database, module_metadata

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
SCHEMA = "ledger_test"
USD = currency("USD")
METADATA = module_metadata(SCHEMA)
TABLES = ledger_tables(METADATA)

EXTERNAL = house_account(AccountType.EXTERNAL, USD, book=Book.DEMO)
ALICE = customer_account("wal_alice", USD, book=Book.DEMO, allows_negative=False)
BOB = customer_account("wal_bob", USD, book=Book.DEMO, allows_negative=False)


def usd(minor: int) -> Money:
    return Money(minor, USD)


def a_deposit(entry_id: str, amount_minor: int, account: LedgerAccount = ALICE) -> Entry:
    return Entry(
        entry_id=entry_id,
        type=EntryType.DEPOSIT,
        postings=(debit(EXTERNAL, usd(amount_minor)), credit(account, usd(amount_minor))),
        occurred_at=NOW,
    )


def a_withdrawal(entry_id: str, amount_minor: int, account: LedgerAccount = ALICE) -> Entry:
    return Entry(
        entry_id=entry_id,
        type=EntryType.WITHDRAWAL,
        postings=(debit(account, usd(amount_minor)), credit(EXTERNAL, usd(amount_minor))),
        occurred_at=NOW,
    )


def a_transfer(
    entry_id: str, amount_minor: int, source: LedgerAccount, destination: LedgerAccount
) -> Entry:
    return Entry(
        entry_id=entry_id,
        type=EntryType.TRANSFER,
        postings=(debit(source, usd(amount_minor)), credit(destination, usd(amount_minor))),
        occurred_at=NOW,
    )


async def create_ledger(database: Database) -> None:
    await database.create_all(METADATA)
    async with database.transaction() as transaction:
        for statement in ledger_guard_ddl(database.dialect, SCHEMA):
            await transaction.execute(text(statement))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    else:
        url = os.environ.get("LEDGER_TEST_POSTGRESQL_URL", "")
        if not url:
            pytest.skip("no PostgreSQL")
    made = Database(url, schema=SCHEMA)
    if made.dialect == "postgresql":
        async with made.transaction() as transaction:
            await transaction.execute(text(f'DROP SCHEMA IF EXISTS "{SCHEMA}" CASCADE'))
    await create_ledger(made)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def tables() -> LedgerTables:
    return TABLES


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    made = Ledger(TABLES)
    async with database.transaction() as transaction:
        await made.open_accounts(transaction, [EXTERNAL, ALICE, BOB], created_at=NOW)
    return made
