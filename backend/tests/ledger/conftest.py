"""A ledger with its guards on each database."""

from collections.abc import AsyncIterator

import pytest

from trading_api.ledger.engine import Ledger
from trading_api.runtime.database import Database
from trading_api.testkit.ledgers import ALICE, BOB, EXTERNAL, NOW, SCHEMA, TABLES, create_ledger


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, schema=SCHEMA)
    try:
        await create_ledger(made)
        yield made
    finally:
        await made.close()


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    made = Ledger(TABLES)
    async with database.transaction() as transaction:
        await made.open_accounts(transaction, [EXTERNAL, ALICE, BOB], created_at=NOW)
    return made
