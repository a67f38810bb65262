"""What is left after a failure at any step, and after ``kill -9``."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import trading_api
from trading_api.modules.broker import tables
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.tests import crash_worker
from trading_api.modules.broker.tests.builders import SELL, FakeMarket, a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

ACKNOWLEDGED_BEFORE_KILL = 25
STEPS = ("add_order", "add_execution", "save_position", "add_events", "save_account")


class BreakingRepository(BrokerRepository):
    """Fails at one step, after having done it."""

    def __init__(self) -> None:
        self.breaks_at: str | None = None

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in STEPS or name != super().__getattribute__("breaks_at"):
            return found

        async def done_then_broken(*arguments: Any, **options: Any) -> None:
            await found(*arguments, **options)
            raise RuntimeError(name)

        return done_then_broken


@pytest.fixture
def repository() -> BreakingRepository:
    return BreakingRepository()


async def everything(venue: Venue) -> dict[str, list[Any]]:
    async with venue.database.snapshot() as snapshot:
        return {
            table.name: [tuple(row) for row in await snapshot.all(sa.select(table))]
            for table in tables.metadata.sorted_tables
        }


async def test_failure_at_any_step_of_a_fill_leaves_not_a_byte(
    database: Database, clock: FixedClock, market: FakeMarket, repository: BreakingRepository
) -> None:
    venue = build_venue(database, clock, market, repository=repository)
    await venue.place(a_ticket(10))
    for step in STEPS:
        before = await everything(venue)
        repository.breaks_at = step
        with pytest.raises(RuntimeError, match=step):
            await venue.place(a_ticket(4, side=SELL), client_order_id=step, key=step)
        repository.breaks_at = None
        assert await everything(venue) == before, step
    await venue.verify()
    # Ids and keys of what never happened are free.
    placed = await venue.place(a_ticket(4, side=SELL), client_order_id=STEPS[0], key=STEPS[0])
    assert not placed.is_replay
    await venue.verify()


async def test_a_broken_order_never_fails_its_neighbours(
    database: Database, clock: FixedClock, market: FakeMarket, repository: BreakingRepository
) -> None:
    venue = build_venue(database, clock, market, repository=repository)
    await venue.state()
    outcomes = await asyncio.gather(
        *(venue.place(a_ticket(1 if number % 3 else 10**6)) for number in range(12)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Exception) for each in outcomes) == 4
    await venue.verify()


async def test_acknowledged_orders_survive_kill_9(
    database: Database, database_url: str, clock: FixedClock, market: FakeMarket
) -> None:
    venue = build_venue(database, clock, market)
    source = str(Path(trading_api.__file__).parents[1])
    for run in ("one", "two"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            crash_worker.__file__,
            database_url,
            run,
            env={**os.environ, "PYTHONPATH": source},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        acknowledged: list[str] = []
        async with asyncio.timeout(90):
            while len(acknowledged) < ACKNOWLEDGED_BEFORE_KILL:
                line = (await process.stdout.readline()).decode().strip()
                assert line or process.returncode is None
                # Its log goes the same way.
                if line.startswith(run):
                    acknowledged.append(line)
        process.kill()
        await process.wait()
        for client_order_id in acknowledged:
            found = await venue.reports.list_orders(
                user_id=USER, account_id=None, client_order_id=client_order_id, now=venue.now
            )
            assert len(found.orders) == 1, client_order_id
        assert await venue.matching.reconcile(now=venue.now) == 0
        await venue.verify()
