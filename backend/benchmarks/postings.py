"""Postings per second of the ledger, with every check on, against pgbench on the same statements.

Each item is a deposit: an entry, two postings, a customer's state with sequence, running balance
and hash. pgbench runs what a database must do for it at the least: lock the account, insert entry
and postings into the same tables, update the account; 8 clients, prepared statements. The ledger is
loaded with 8, 64 and 256 in flight, each in a transaction of its own, in shared ones (`group`), and
by batches; then the wallet by deposits as its customers make them, with key, fact and events.
Afterwards every ledger is proven from scratch. Both databases write through to disk.
"""

import argparse
import asyncio
import contextlib
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.engine import URL

from benchmarks.harness import find_pgbench
from trading_api.kernel.clock import SystemClock
from trading_api.kernel.errors import TradingError
from trading_api.kernel.values import Money, currency
from trading_api.ledger.checks import check_ledger
from trading_api.ledger.domain import (
    AccountType,
    Book,
    Entry,
    EntryType,
    PostedEntry,
    credit,
    customer_account,
    debit,
    house_account,
)
from trading_api.ledger.engine import Ledger
from trading_api.modules.wallet.service import Verified
from trading_api.modules.wallet.tests.conftest import make_services
from trading_api.runtime.database import Database, Transaction
from trading_api.runtime.database.batches import Batches
from trading_api.runtime.database.migrations import upgrade
from trading_api.runtime.database.revisions import Migrations
from trading_api.testkit.ledgers import SCHEMA, TABLES, create_ledger
from trading_api.testkit.postgresql import create_database, drop_database, durable_server

ACCOUNTS = 1000
IN_FLIGHT = (8, 64, 256)
PGBENCH_CLIENTS = 8
POOL = 8
"""Transactions at once where each entry has its own: more would wait for a connection."""

USD = currency("USD")
WORLD = house_account(AccountType.EXTERNAL, USD, book=Book.DEMO)
CUSTOMERS = [
    customer_account(f"wal_{number}", USD, book=Book.DEMO, allows_negative=False)
    for number in range(ACCOUNTS)
]

_COLON = "chr(58)"
"""pgbench takes a colon for the beginning of a variable, in quotes too."""

_CUSTOMER = f"'wal_' || :n || {_COLON} || 'USD'"
_SCRIPT = f"""
\\set n random(0, {ACCOUNTS - 1})
BEGIN;
SELECT balance_minor, held_minor, last_sequence, last_hash FROM {SCHEMA}.ledger_accounts
 WHERE account_id = {_CUSTOMER} FOR UPDATE;
INSERT INTO {SCHEMA}.ledger_entries (entry_id, type, book, description, details, occurred_at_us,
 recorded_at_us) VALUES ('b' || :client_id || '-' || clock_timestamp(), 'DEPOSIT', 'demo', '',
 '{{}}', 1, 1) RETURNING entry_id \\gset
INSERT INTO {SCHEMA}.ledger_postings (entry_id, position, account_id, side, amount_minor, currency)
 VALUES (:entry_id, 0, 'external' || {_COLON} || 'demo' || {_COLON} || 'USD', 'DEBIT', 1, 'USD');
INSERT INTO {SCHEMA}.ledger_postings (entry_id, position, account_id, side, amount_minor, currency)
 VALUES (:entry_id, 1, {_CUSTOMER}, 'CREDIT', 1, 'USD');
UPDATE {SCHEMA}.ledger_accounts SET balance_minor = balance_minor + 1
 WHERE account_id = {_CUSTOMER};
COMMIT;
"""

_numbers = count()


def an_entry() -> Entry:
    number = next(_numbers)
    amount = Money(1, USD)
    account = CUSTOMERS[number * 7919 % ACCOUNTS]
    return Entry(
        entry_id=f"e{number:012d}",
        type=EntryType.DEPOSIT,
        postings=(debit(WORLD, amount), credit(account, amount)),
        occurred_at=datetime.now(UTC),
    )


async def load(post: Callable[[], Awaitable[Any]], in_flight: int, seconds: float) -> float:
    """Return postings of entries per second with so many callers that each wait for theirs."""
    deadline = time.perf_counter() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            await post()
            done += 1

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return done / (time.perf_counter() - began)


async def _post_one(post: Callable[[Entry], Awaitable[Any]]) -> None:
    await post(an_entry())


def ways(database: Database, ledger: Ledger) -> dict[str, Callable[[Entry], Awaitable[Any]]]:
    """Return the ways to post, by name."""

    async def write(
        transaction: Transaction, entries: Sequence[Entry]
    ) -> Sequence[PostedEntry | TradingError]:
        return await ledger.post_entries(transaction, entries, recorded_at=datetime.now(UTC))

    batches: Batches[Entry, PostedEntry] = Batches(database, write)

    turns = asyncio.Semaphore(POOL)

    async def alone(entry: Entry) -> None:
        async with turns, database.transaction() as transaction:
            await ledger.post_entry(transaction, entry, recorded_at=datetime.now(UTC))

    async def grouped(entry: Entry) -> None:
        async def command(transaction: Transaction) -> None:
            await ledger.post_entry(transaction, entry, recorded_at=datetime.now(UTC))

        await database.group(command)

    return {"own transaction": alone, "group": grouped, "batches": batches.submit}


async def measure(url: str | URL, seconds: float) -> dict[tuple[str, int], float]:
    """Measure every way with every number in flight on one database, then prove the ledger."""
    database, ledger = Database(url, schema=SCHEMA), Ledger(TABLES)
    rates: dict[tuple[str, int], float] = {}
    try:
        await create_ledger(database)
        async with database.transaction() as transaction:
            await ledger.open_accounts(
                transaction, [WORLD, *CUSTOMERS], created_at=datetime.now(UTC)
            )
        posting = ways(database, ledger)
        for in_flight in IN_FLIGHT:
            for name, post in posting.items():
                rates[name, in_flight] = await load(partial(_post_one, post), in_flight, seconds)
        async with database.snapshot() as snapshot:
            assert await check_ledger(snapshot, TABLES) == []
    finally:
        await database.close()
    return rates


async def measure_deposits(url: str | URL, seconds: float) -> dict[tuple[str, int], float]:
    """Measure the wallet's deposits with every number in flight, then prove the wallets."""
    database, clock = Database(url, schema="wallet"), SystemClock()
    rates: dict[tuple[str, int], float] = {}
    try:
        await upgrade(database, Migrations.of_package("wallet", "trading_api.modules.wallet"))
        services = make_services(database, clock, lambda _stream, _sequence: None)

        async def deposit(number: int) -> None:
            await services.wallets.deposit(
                user_id=f"usr_{number % ACCOUNTS}",
                amount=Decimal(1),
                currency="USD",
                description="",
                idempotency_key=f"key-{number}",
                now=clock.now(),
            )

        await asyncio.gather(*(deposit(next(_numbers)) for _ in range(ACCOUNTS)))
        for in_flight in IN_FLIGHT:
            rates["wallet deposit", in_flight] = await load(
                lambda: deposit(next(_numbers)), in_flight, seconds
            )
        assert await services.operations.verify() == Verified()
    finally:
        await database.close()
    return rates


async def pgbench(url: URL, seconds: float) -> float:
    """Return pgbench's transactions per second on the same tables."""
    database, ledger = Database(url, schema=SCHEMA), Ledger(TABLES)
    try:
        await create_ledger(database)
        async with database.transaction() as transaction:
            await ledger.open_accounts(
                transaction, [WORLD, *CUSTOMERS], created_at=datetime.now(UTC)
            )
        return await asyncio.to_thread(_run_pgbench, url, seconds)
    finally:
        async with database.transaction() as transaction:
            await transaction.execute(text(f"DROP SCHEMA {SCHEMA} CASCADE"))
        await database.close()


def _run_pgbench(url: URL, seconds: float) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_SCRIPT)
        script.flush()
        done = subprocess.run(
            [
                find_pgbench(), "-n", "-f", script.name, "-c", str(PGBENCH_CLIENTS), "-j", "1",
                "-T", str(max(1, round(seconds))), "-M", "prepared",
                "-h", str(url.query.get("host") or url.host), "-p", str(url.port or 5432),
                "-U", str(url.username), str(url.database),
            ],
            env={**os.environ, "PGPASSWORD": str(url.password or "")},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, flags=re.MULTILINE)
    assert found is not None, done.stdout + done.stderr
    return float(found.group(1))


@contextlib.contextmanager
def a_database(server: URL) -> Iterator[URL]:
    """A fresh database on a server."""
    name = f"postings_{os.getpid()}"
    url = create_database(server, name)
    try:
        yield url
    finally:
        drop_database(server, name)


def _file(folder: str, name: str) -> str:
    return f"sqlite+aiosqlite:///{folder}/{name}.db"


async def run(seconds: float, rounds: int) -> None:
    """Measure in interleaved rounds and print medians."""
    base: list[float] = []
    found: dict[tuple[str, str, int], list[float]] = {}
    server = durable_server(Path(tempfile.mkdtemp(prefix="bench")))
    for _ in range(rounds):
        with a_database(server) as url:
            base.append(await pgbench(url, seconds))
            for key, rate in (await measure(url, seconds)).items():
                found.setdefault(("PostgreSQL", *key), []).append(rate)
        with a_database(server) as url:
            for key, rate in (await measure_deposits(url, seconds)).items():
                found.setdefault(("PostgreSQL", *key), []).append(rate)
        with tempfile.TemporaryDirectory(prefix="bench") as folder:
            for key, rate in (await measure(_file(folder, "l"), seconds)).items():
                found.setdefault(("SQLite", *key), []).append(rate)
            for key, rate in (await measure_deposits(_file(folder, "w"), seconds)).items():
                found.setdefault(("SQLite", *key), []).append(rate)
    tps = statistics.median(base)
    table = Table(title=f"Ledger entries per second; pgbench, 8 clients: {tps:,.0f} tps")
    for column in ("database", "way", *(f"{each} in flight" for each in IN_FLIGHT)):
        table.add_column(column, justify="right" if "flight" in column else "left")
    for kind in ("PostgreSQL", "SQLite"):
        for way in ("own transaction", "group", "batches", "wallet deposit"):
            cells = []
            for in_flight in IN_FLIGHT:
                rate = statistics.median(found[kind, way, in_flight])
                cells.append(f"{rate:,.0f} ({rate / tps:.2f})")
            table.add_row(kind, way, *cells)
    console = Console(record=True, width=110)
    console.print(table)
    console.print("In brackets: the ratio to pgbench; goals 2 / 5 / 5. Every ledger was proven.")
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    asyncio.run(run(arguments.seconds, arguments.rounds))


if __name__ == "__main__":
    main()
