"""A migrated wallet database of each kind, and the service on it."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.sandbox_rail import SandboxRail
from trading_api.modules.wallet.ports import PaymentRail
from trading_api.modules.wallet.repository import WalletRepository
from trading_api.modules.wallet.service import WalletService
from trading_api.modules.wallet.settings import WalletSettings
from trading_api.runtime.database import Database, Idempotency, Inbox, Outbox
from trading_api.runtime.database.migrations import Migrations, upgrade

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


class FixedClock:
    def __init__(self) -> None:
        self.instant = NOW

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return (self.instant - NOW).total_seconds()

    def advance(self, length: timedelta) -> None:
        self.instant += length


class Wakes:
    """Keeps what was woken, as the hub would be told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def __call__(self, stream: str, sequence: int) -> None:
        self.seen.append((stream, sequence))


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/wallet.db"
    else:
        url = os.environ.get("LEDGER_TEST_POSTGRESQL_URL", "")
        if not url:
            pytest.skip("no PostgreSQL")
    made = Database(url, schema="wallet")
    if made.dialect == "postgresql":
        async with made.transaction() as transaction:
            await transaction.execute(text("DROP SCHEMA IF EXISTS wallet CASCADE"))
    await upgrade(made, Migrations.of_package("wallet", "trading_api.modules.wallet"))
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


def make_service(
    database: Database, clock: FixedClock, wakes: Wakes, rail: PaymentRail
) -> WalletService:
    ids = UuidV7Ids()
    return WalletService(
        database=database,
        repository=WalletRepository(),
        outbox=Outbox(tables.outbox_table, producer="wallet", ids=ids, clock=clock),
        inbox=Inbox(tables.inbox_table),
        idempotency=Idempotency(tables.idempotency_table, clock=clock),
        ids=ids,
        rail=rail,
        currencies=WalletSettings().known_currencies(),
        wake=wakes,
    )


@pytest.fixture
def service(database: Database, clock: FixedClock, wakes: Wakes) -> WalletService:
    return make_service(database, clock, wakes, SandboxRail())


@pytest.fixture
def manual_service(database: Database, clock: FixedClock, wakes: Wakes) -> WalletService:
    return make_service(database, clock, wakes, ManualRail())
