"""A ledger on tables of its own, and entries in short, for tests of whatever keeps money."""

from datetime import UTC, datetime

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
from trading_api.ledger.tables import ledger_guard_ddl, ledger_tables
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
    """Return cents of US dollars."""
    return Money(minor, USD)


def a_deposit(entry_id: str, amount_minor: int, account: LedgerAccount = ALICE) -> Entry:
    """Return an entry from the world to a customer."""
    return _entry(entry_id, EntryType.DEPOSIT, amount_minor, EXTERNAL, account)


def a_withdrawal(entry_id: str, amount_minor: int, account: LedgerAccount = ALICE) -> Entry:
    """Return an entry from a customer to the world."""
    return _entry(entry_id, EntryType.WITHDRAWAL, amount_minor, account, EXTERNAL)


def a_transfer(
    entry_id: str, amount_minor: int, source: LedgerAccount, destination: LedgerAccount
) -> Entry:
    """Return an entry from one customer to another."""
    return _entry(entry_id, EntryType.TRANSFER, amount_minor, source, destination)


async def create_ledger(database: Database) -> None:
    """Make the tables and their guards in an empty database of the schema `SCHEMA`."""
    await database.create_all(METADATA)
    async with database.transaction() as transaction:
        for statement in ledger_guard_ddl(database.dialect, SCHEMA):
            await transaction.execute(text(statement))


def _entry(
    entry_id: str,
    entry_type: EntryType,
    amount_minor: int,
    source: LedgerAccount,
    destination: LedgerAccount,
) -> Entry:
    return Entry(
        entry_id=entry_id,
        type=entry_type,
        postings=(debit(source, usd(amount_minor)), credit(destination, usd(amount_minor))),
        occurred_at=NOW,
    )
