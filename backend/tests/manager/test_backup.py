"""Backup under load, restore, proof: on both databases, with money on its way between modules."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from trading_api.kernel.clock import SystemClock
from trading_api.manager import backup, proofs
from trading_api.manager.surroundings import look_around
from trading_api.runtime.database import Database
from trading_api.runtime.database.leases import LeaseLostError
from trading_api.runtime.database.restored import RESTORED_TYPE, SEQUENCE_GAP
from trading_api.testkit.bus import eventually
from trading_api.testkit.http import access_token
from trading_api.testkit.migrated import migrate

MODULES = ("broker", "wallet")
CLOCK = SystemClock()


def quiet(_what: str, _done: int, _total: int) -> None:
    pass


@pytest.fixture
def around(database_url: str, environ: dict[str, str], tmp_path: Path) -> Any:
    urls = {f"{name.upper()}_DATABASE_URL": database_url for name in MODULES}
    if database_url.startswith("sqlite"):
        urls = {
            f"{name.upper()}_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
            for name in MODULES
        }
    return look_around({**environ, **urls})


@pytest.fixture
async def process(around: Any) -> AsyncIterator[Any]:
    made = backup.compose(MODULES, around)
    for name in MODULES:
        database = made.hosted[name].context.require_database()
        await migrate(database, name)
    yield made
    await backup.close(made)


@pytest.fixture
async def client(process: Any) -> AsyncIterator[httpx.AsyncClient]:
    token = access_token(
        process._settings, CLOCK, scopes=["wallet:read", "wallet:trade", "broker:read"]
    )
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=process),
        base_url="http://tests/api/v1",
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
    ) as made:
        yield made


async def transfer(client: httpx.AsyncClient, source: str, destination: str) -> int:
    body = {"from": source, "to": destination, "amount": "1.00"}
    return (await client.post("/wallet/transfers", json=body)).status_code


async def totals(process: Any) -> dict[str, int]:
    """Return the customers' money of both ledgers, and what clearing says is on its way."""
    found: dict[str, int] = {}
    for name in MODULES:
        database: Database = process.hosted[name].context.require_database()
        async with database.snapshot() as snapshot:
            found[name] = int(
                await snapshot.scalar(
                    sa.text(f"SELECT sum(balance_minor) FROM {name}.ledger_accounts")
                )
            )
    return found


async def test_backup_when_money_moves_then_restored_copy_is_proven_at_one_instant(
    process: Any, client: httpx.AsyncClient, around: Any, tmp_path: Path
) -> None:
    account_id = (await client.get("/broker/accounts")).json()[0]["id"]
    assert (await client.post("/wallet/deposit", json={"amount": "1000"})).status_code == 201
    stop = asyncio.Event()

    async def move(source: str, destination: str) -> int:
        count = 0
        while not stop.is_set():
            count += await transfer(client, source, destination) in (201, 202)
        return count

    moving = [
        asyncio.create_task(move("wallet", account_id)),
        asyncio.create_task(move(account_id, "wallet")),
        asyncio.create_task(move("wallet", account_id)),
    ]
    while not await transfer(client, "wallet", account_id):
        pass
    folder = await backup.back_up(process, tmp_path / "backup", now=CLOCK.now(), progress=quiet)
    stop.set()
    assert sum(await asyncio.gather(*moving)) > 0
    after = await totals(process)
    assert sum(after.values()) == 1000_00 + 100_000_00
    epochs = (await client.get("/broker/accounts")).json()[0]["epoch"]
    found = await backup.restore(process, folder, progress=quiet)
    assert found.violations == {"broker": [], "wallet": []}
    assert (await client.get("/broker/accounts")).json()[0]["epoch"] != epochs
    for name in MODULES:
        assert found.sequences[name] >= SEQUENCE_GAP
        database = process.hosted[name].context.require_database()
        outbox = process.hosted[name].parts.outbox
        async with database.transaction() as transaction:
            marker = await transaction.first(
                sa.select(outbox.table).where(outbox.table.c.type == RESTORED_TYPE)
            )
            assert marker.sequence == found.sequences[name]
    # What was on its way at that instant goes on, and ends; nothing was lost or made.
    services = process.hosted["wallet"].parts.tasks[0].run.__self__
    await asyncio.sleep(1.1)
    await services.sweep()
    assert sum((await totals(process)).values()) == 1000_00 + 100_000_00
    assert await transfer(client, "wallet", account_id) == 201
    assert [each for each in await proofs.prove(MODULES, around) if each.violations] == []
    async with process.hosted["wallet"].context.require_database().transaction() as transaction:
        outbox = process.hosted["wallet"].parts.outbox
        await outbox.number(transaction, limit=100)
        newest = await transaction.scalar(sa.select(sa.func.max(outbox.table.c.sequence)))
    assert newest > found.sequences["wallet"]
    # The same copy once more: what was published in between keeps its numbers.
    lease = await process.hosted["wallet"].parts.leases.acquire("relay")
    with pytest.raises(backup.BackupError, match="still run on the database of wallet"):
        await backup.restore(process, folder, progress=quiet, patience_seconds=0)
    await process.hosted["wallet"].parts.leases.release(lease)
    second = await backup.restore(process, folder, progress=quiet)
    assert second.sequences["wallet"] > newest
    assert (second.violations, second.not_checked) == (found.violations, ())


async def test_backup_when_broken_or_elsewhere_then_refused(
    process: Any, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    await client.post("/wallet/deposit", json={"amount": "10"})
    folder = await backup.back_up(process, tmp_path / "b", now=CLOCK.now(), progress=quiet)
    with pytest.raises(backup.BackupError, match="isn't empty"):
        await backup.back_up(process, folder, now=CLOCK.now(), progress=quiet)
    manifest = json.loads((folder / "backup.json").read_text())
    wallet = next(each for each in manifest["modules"] if each["module"] == "wallet")
    wallet["revision"] = "0001"
    (folder / "backup.json").write_text(json.dumps(manifest))
    with pytest.raises(backup.BackupError, match="wallet was at revision 0001"):
        await backup.restore(process, folder, progress=quiet)
    name = next(each for each in wallet["files"] if "entries" in each or each.endswith(".db"))
    (folder / name).write_bytes(b"x" + (folder / name).read_bytes()[1:])
    with pytest.raises(backup.BackupError, match="isn't as it was written"):
        backup.read_manifest(folder)
    (folder / name).unlink()
    with pytest.raises(backup.BackupError, match="lacks"):
        backup.read_manifest(folder)
    with pytest.raises(backup.BackupError, match="no whole backup"):
        backup.read_manifest(tmp_path)
    (tmp_path / "backup.json").write_text('{"modules": [{"module": "wallet"}]}')
    with pytest.raises(backup.BackupError, match="isn't understood"):
        backup.read_manifest(tmp_path)
    # Nothing of that touched the databases.
    assert (await client.get("/wallet")).json()["balance_usd"] == "10.00"


async def test_backup_when_one_file_is_busy_then_the_others_are_written_meanwhile(
    tmp_path: Path,
) -> None:
    paths = {name: tmp_path / f"{name}.db" for name in ("first", "second")}
    with ExitStack() as stack:
        one, other = (backup._connect(stack, paths[name]) for name in paths)
        for each in (one, other):
            each.execute("PRAGMA journal_mode = WAL")
            each.execute("CREATE TABLE t (v)")
        other.execute("BEGIN IMMEDIATE")
        (tmp_path / "copy").mkdir()
        copying = asyncio.create_task(
            asyncio.to_thread(backup._copy_files, paths, tmp_path / "copy", quiet)
        )
        one.execute("PRAGMA busy_timeout = 0")

        def is_taken() -> bool:
            try:
                one.execute("INSERT INTO t VALUES (1)")
            except sqlite3.OperationalError:
                return True
            return False

        await eventually(is_taken)
        one.execute("PRAGMA busy_timeout = 2000")
        one.execute("INSERT INTO t VALUES (2)")
        assert not copying.done()
        other.execute("COMMIT")
        await copying
        copied = backup._connect(stack, tmp_path / "copy" / "first.db")
        assert copied.execute("SELECT max(v) FROM t").fetchone() == (2,)


async def test_restore_when_a_relay_survived_it_then_it_lost_its_lease(
    process: Any, tmp_path: Path
) -> None:
    leases = process.hosted["wallet"].parts.leases
    survivor = await leases.acquire("relay")
    folder = await backup.back_up(process, tmp_path / "b", now=CLOCK.now(), progress=quiet)
    await leases.release(survivor)
    await backup.restore(process, folder, progress=quiet, patience_seconds=0)
    async with process.hosted["wallet"].context.require_database().transaction() as transaction:
        with pytest.raises(LeaseLostError):
            await leases.ensure_held(transaction, survivor)


async def test_verify_when_a_ledger_is_edited_then_its_module_and_proof_are_named(
    process: Any, client: httpx.AsyncClient, around: Any
) -> None:
    await client.post("/wallet/deposit", json={"amount": "10"})
    found = await proofs.prove(MODULES, around)
    assert [(each.module, each.proof) for each in found if each.violations] == []
    assert {id_ for each in found for id_ in each.ids} >= {"L1", "L14", "O1", "P2", "T1", "W5"}
    async with process.hosted["wallet"].context.require_database().transaction() as transaction:
        await transaction.execute(
            sa.text("UPDATE wallet.ledger_accounts SET balance_minor = 1 WHERE is_customer")
        )
    broken = [each.to_dict() for each in await proofs.prove(MODULES, around) if each.violations]
    assert [(each["module"], each["proof"]) for each in broken] == [("wallet", "ledger")]
    assert {each["id"] for each in broken[0]["violations"]} >= {"L3"}
