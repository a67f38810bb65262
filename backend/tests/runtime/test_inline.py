"""SQLite on the event loop: quick statements there, slow ones in a thread, cancelled ones whole."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from trading_api.kernel.errors import DatabaseBusyError
from trading_api.runtime.database import Database, Transaction, inline, module_metadata
from trading_api.testkit.bus import eventually

METADATA = module_metadata("shop")
ITEMS = sa.Table("items", METADATA, sa.Column("id", sa.BigInteger, primary_key=True))

SLOW = sa.text(
    "SELECT sum(v), :mark FROM (WITH RECURSIVE n(v) AS "
    "(SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 300000) SELECT v FROM n)"
)
"""Far more than ``INLINE_SECONDS`` of SQLite's work."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path}/shop.db", schema="shop")
    await made.create_all(METADATA)
    yield made
    await made.close()


@pytest.fixture
def offloaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that work was handed to."""
    names: list[str] = []

    def note(threads: ThreadPoolExecutor) -> None:
        submit = threads.submit

        def noted(work: Callable[..., object], *args: object) -> Future[object]:
            def run() -> object:
                names.append(threading.current_thread().name)
                return work(*args)

            return submit(run)

        monkeypatch.setattr(threads, "submit", noted)

    note(inline._threads)
    note(inline._writers)
    return names


async def count(database: Database) -> int:
    async with database.snapshot() as snapshot:
        found: int = await snapshot.scalar(sa.select(sa.func.count()).select_from(ITEMS))
    return found


async def test_quick_statements_stay_on_the_loop_and_the_commit_leaves_it(
    database: Database, offloaded: list[str]
) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), [{"id": number} for number in range(100)])
        assert (await transaction.all(sa.select(ITEMS).limit(2)))[1].id == 1
        assert offloaded == []
    assert len(offloaded) == 1
    assert await count(database) == 100
    assert len(offloaded) == 1


async def test_commit_when_every_thread_reads_then_it_waits_for_none(database: Database) -> None:
    has_committed = threading.Event()
    readers = [inline._threads.submit(has_committed.wait, 10) for _ in range(4)]
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), {"id": 1})
    is_any_done = any(each.done() for each in readers)
    has_committed.set()
    assert not is_any_done


async def test_long_list_of_rows_is_written_in_a_thread(
    database: Database, offloaded: list[str]
) -> None:
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), [{"id": number} for number in range(1000)])
        assert len(offloaded) == 1
        await transaction.execute(ITEMS.delete().where(ITEMS.c.id >= 500))
        assert len(offloaded) == 2
    assert await count(database) == 500


async def test_select_when_it_takes_long_then_the_loop_goes_on(
    database: Database, offloaded: list[str]
) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), {"id": 1})
        before = turns
        row = await transaction.first(SLOW, {"mark": "kept"})
        assert turns > before
        assert row is not None and tuple(row) == (300000 * 300001 // 2, "kept")
        assert len(offloaded) == 1
    turning.cancel()
    assert await count(database) == 1


async def test_select_when_its_task_is_cancelled_then_the_transaction_ends_whole(
    database: Database,
) -> None:
    begun = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(ITEMS.insert(), {"id": 1})
            begun.set()
            await transaction.first(SLOW, {"mark": ""})
            await asyncio.sleep(0)
            raise AssertionError("its next wait is cancelled")

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count(database) == 0
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), {"id": 2})
    assert await count(database) == 1


async def test_select_when_a_timeout_ends_then_it_is_a_timeout(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01), database.transaction() as transaction:
            await transaction.first(SLOW, {"mark": ""})
            await asyncio.sleep(10)
    assert await count(database) == 0


async def test_transaction_when_another_process_writes_then_it_waits_beside_the_loop(
    database: Database, tmp_path: Path, offloaded: list[str]
) -> None:
    other = sqlite3.connect(tmp_path / "shop.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    async def write() -> None:
        async with database.transaction() as transaction:
            await transaction.execute(ITEMS.insert(), {"id": 1})

    writing = asyncio.create_task(write())
    await eventually(lambda: bool(offloaded))
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    await writing
    assert await count(database) == 1


async def test_transaction_when_another_process_writes_for_too_long_then_busy(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(transaction: Transaction) -> None:
        connection = transaction.connection.sync_connection
        assert connection is not None
        driver = connection.connection.driver_connection
        assert isinstance(driver, inline.InlineConnection)
        driver.busy_milliseconds = 20

    async with database.transaction() as transaction:
        impatient(transaction)
    other = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusyError):
        async with database.transaction():
            pass
    other.execute("ROLLBACK")
    other.close()
    async with database.transaction() as transaction:
        await transaction.execute(ITEMS.insert(), {"id": 1})
    assert await count(database) == 1
