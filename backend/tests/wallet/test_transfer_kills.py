"""The process is really gone at each step of a transfer; after a restart it ends, money whole."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.wallet import transfer_worker

import trading_api
from trading_api.manager import backup, proofs
from trading_api.manager.surroundings import look_around
from trading_api.runtime.crash import EXIT_KILLED
from trading_api.testkit.migrated import migrate

MODULES = ("broker", "wallet")
POINTS = {
    "to_account": (
        "wallet.begin.before_commit",
        "wallet.begin.after_commit",
        "broker.credit.before_commit",
        "broker.credit.after_commit",
        "wallet.credit.after_answer",
        "wallet.take.before_commit",
        "wallet.take.after_commit",
    ),
    "to_wallet": (
        "wallet.begin.after_commit",
        "broker.hold.before_commit",
        "broker.hold.after_commit",
        "wallet.hold.after_answer",
        "wallet.give.before_commit",
        "wallet.give.after_commit",
        "broker.capture.before_commit",
        "broker.capture.after_commit",
        "wallet.capture.after_answer",
        "wallet.completed.before_commit",
        "wallet.completed.after_commit",
    ),
}
EVERY = [(direction, point) for direction, points in POINTS.items() for point in points]


@pytest.fixture
def around(database_url: str, environ: dict[str, str], tmp_path: Path) -> Any:
    is_sqlite = database_url.startswith("sqlite")
    urls = {
        f"{name.upper()}_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/{name}.db"
        if is_sqlite
        else database_url
        for name in MODULES
    }
    return look_around({**environ, **urls})


async def transfer(around: Any, direction: str, crash_at: str) -> tuple[int, str]:
    source = Path(trading_api.__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        transfer_worker.__file__,
        direction,
        env={
            **os.environ,
            **around.application,
            "PYTHONPATH": str(source),
            "TRADING_CRASH_AT": crash_at,
        },
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().strip().splitlines()[-1] if out else ""


async def recover(around: Any) -> int:
    """Restart, let the sweeper work, prove everything; return all customers' money."""
    process = backup.compose(MODULES, around)
    try:
        sweeper = process.hosted["wallet"].parts.tasks[0].run.__self__
        await asyncio.sleep(1.1)
        await sweeper.sweep()
        total = 0
        for name in MODULES:
            async with process.hosted[name].context.require_database().snapshot() as snapshot:
                total += await snapshot.scalar(
                    sa.text(f"SELECT sum(balance_minor) FROM {name}.ledger_accounts")
                )
                if name == "wallet":
                    waiting = "SELECT count(*) FROM wallet.transfers WHERE closed_at_us IS NULL"
                    assert await snapshot.scalar(sa.text(waiting)) == 0
    finally:
        await backup.close(process)
    assert [each for each in await proofs.prove(MODULES, around) if each.violations] == []
    return int(total)


async def walk(around: Any, steps: list[tuple[str, str]]) -> None:
    process = backup.compose(MODULES, around)
    for name in MODULES:
        database = process.hosted[name].context.require_database()
        await migrate(database, name)
    await backup.close(process)
    for direction, point in steps:
        code, said = await transfer(around, direction, point)
        assert code == EXIT_KILLED, f"{point}: {code} {said}"
        assert await recover(around) == 100_100_00, point
    code, said = await transfer(around, "to_account", "")
    assert (code, said) == (0, "201 completed")


async def test_transfer_when_killed_with_the_money_in_between_then_ends(around: Any) -> None:
    await walk(around, [("to_account", "broker.credit.after_commit")])


@pytest.mark.nightly
@pytest.mark.timeout(1800)
async def test_transfer_when_killed_at_every_step_then_ends(around: Any) -> None:
    await walk(around, EVERY)
