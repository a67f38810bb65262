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
from trading_api.modules.broker.domain.order import Order
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.service.apart import FAILURES
from trading_api.modules.broker.tests import crash_point, crash_worker
from trading_api.modules.broker.tests.builders import AAPL, BUY, SELL, FakeMarket, a_ticket
from trading_api.modules.broker.tests.conftest import USER, Venue, build_venue
from trading_api.runtime.database import Database, Transaction
from trading_api.testkit.clocks import FixedClock

ACKNOWLEDGED_BEFORE_KILL = 25
STEPS = ("add_order", "add_execution", "save_position", "add_events", "save_account")


class BreakingRepository(BrokerRepository):
    """Fails at one step, after having done it; counts how often."""

    def __init__(self) -> None:
        self.breaks_at: str | None = None
        self.count = 0

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in STEPS or name != super().__getattribute__("breaks_at"):
            return found

        async def done_then_broken(*arguments: Any, **options: Any) -> None:
            await found(*arguments, **options)
            self.count += 1
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


class OneBrokenRepository(BrokerRepository):
    """Can't store what becomes of the orders of some accounts."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.attempts = 0

    async def save_order(self, transaction: Transaction, order: Order) -> None:
        if order.account_id in self.broken:
            self.attempts += 1
            raise RuntimeError("broken")
        await super().save_order(transaction, order)

    async def save_position(self, transaction: Transaction, position: Position) -> None:
        if position.account_id in self.broken:
            raise RuntimeError("broken")
        await super().save_position(transaction, position)


async def test_account_that_fails_stops_no_other(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    repository = OneBrokenRepository()
    venue = build_venue(database, clock, market, repository=repository)
    accounts = {}
    for user_id in ("usr_1", "usr_2", "usr_3"):
        (account,) = await venue.accounts.list_accounts(user_id=user_id, now=venue.now)
        accounts[user_id] = account.account_id
        await venue.place(a_ticket(2_000, limit="200"), user_id=user_id)
        await venue.place(a_ticket(1, limit="120"), user_id=user_id)
        await venue.place(a_ticket(1, limit="195"), user_id=user_id)

    async def list_open() -> list[int]:
        found = []
        for user_id in accounts:
            listing = await venue.reports.list_orders(
                user_id=user_id, account_id=None, now=venue.now
            )
            found.append(len([each for each in listing.orders if each.is_open]))
        return found

    def count(work: str) -> float:
        value: float = FAILURES.labels(work)._value.get()
        return value

    failed = {work: count(work) for work in ("matching", "margin")}
    repository.broken = {accounts["usr_1"]}
    assert await venue.meet(market.quote("194.80", "194.90")) == 2
    # With the others and alone.
    assert (await list_open(), repository.attempts) == ([2, 1, 1], 2)
    market.quote("140.00", "140.10")
    lease = await venue.lease()
    assert await venue.margin.watch(lease=lease, now=venue.now) == 2
    assert await list_open() == [2, 0, 0]
    assert [count(work) - failed[work] for work in failed] == [1, 1]
    async with venue.database.transaction() as transaction:
        await transaction.execute(tables.positions.update().values(reserved_minor=1))
    assert await venue.matching.reconcile(now=venue.now) == 2
    repository.broken = set()
    assert await venue.matching.reconcile(now=venue.now) == 1
    assert await venue.meet(market.quote("140.00", "140.10")) == 1
    assert await venue.margin.watch(lease=lease, now=venue.now) == 1
    assert await list_open() == [0, 0, 0]
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


POINTS = ("add_order", "add_execution", "save_position", "save_account", "after_commit")
"""Order inserted, filled, margin moved, all written but not committed, committed but not told."""


async def die_at(point: str, url: str, client_order_id: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        crash_point.__file__,
        url,
        client_order_id,
        point,
        env={**os.environ, "PYTHONPATH": str(Path(trading_api.__file__).parents[1])},
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(90):
        assert await process.wait() == crash_point.KILLED


async def prove_point(venue: Venue, url: str, point: str, number: int) -> None:
    """Die, start anew, ask what became of the order, and ask for it once more."""
    client_order_id = f"{point}-{number}"
    await die_at(point, url, client_order_id)
    assert await venue.matching.reconcile(now=venue.now) == 0
    await venue.verify()
    found = await venue.reports.list_orders(
        user_id=USER, account_id=None, client_order_id=client_order_id, now=venue.now
    )
    assert len(found.orders) == (point == "after_commit")
    placed = await venue.place(
        a_ticket(10, take_profit="210", stop_loss="190"),
        client_order_id=client_order_id,
        key=client_order_id,
    )
    assert placed.is_replay is (point == "after_commit")
    await venue.verify()
    outbox = tables.outbox_table
    async with venue.database.snapshot() as snapshot:
        facts = await snapshot.all(
            sa.select(outbox.c.type).where(outbox.c.data.contains(client_order_id))
        )
    assert sorted(fact.type for fact in facts) == [
        "broker.execution.recorded",
        "broker.order.accepted",
        "broker.order.filled",
    ]


@pytest.mark.parametrize("point", ["save_account", "after_commit"])
async def test_order_exists_in_full_or_not_at_all_whenever_the_process_dies(
    database: Database, database_url: str, clock: FixedClock, market: FakeMarket, point: str
) -> None:
    await prove_point(build_venue(database, clock, market), database_url, point, 1)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("point", POINTS)
async def test_order_exists_in_full_or_not_at_all_many_times(
    database: Database, database_url: str, clock: FixedClock, market: FakeMarket, point: str
) -> None:
    venue = build_venue(database, clock, market)
    for number in range(int(os.environ.get("FAULT_ROUNDS", "20"))):
        await prove_point(venue, database_url, point, number)
        await venue.close(AAPL)


async def test_positions_and_worth_are_the_same_after_a_restart(
    database: Database, clock: FixedClock, market: FakeMarket
) -> None:
    venue = build_venue(database, clock, market)
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    await venue.place(a_ticket(5, limit="195"))
    before, written = await venue.state(), await everything(venue)
    # Quotes that would fill both the limit and the stop, and nobody there to match them.
    clock.advance(1)
    missed = market.quote("180.00", "180.10")
    clock.advance(5)
    market.quote("199.90", "200.00")

    again = build_venue(database, clock, market)
    assert await again.matching.reconcile(now=again.now) == 0
    await again.meet(missed)
    await again.meet(market.quotes[AAPL])
    after = await again.state()
    assert (after.valuation, after.positions) == (before.valuation, before.positions)
    now_written = await everything(again)
    del written["leases"], now_written["leases"]
    assert now_written == written


async def test_start_mends_what_should_never_be(venue: Venue) -> None:
    await venue.place(a_ticket(10, take_profit="210", stop_loss="190"))
    async with venue.database.transaction() as transaction:
        for statement in (
            "UPDATE broker.orders SET quantity = 12 WHERE bracket_role = 'TAKE_PROFIT'",
            "UPDATE broker.orders SET parent_id = 'DEMO:X' WHERE bracket_role = 'STOP_LOSS'",
            "UPDATE broker.positions SET reserved_minor = 5",
        ):
            await transaction.execute(sa.text(statement))
    assert {each.id for each in await venue.reports.verify()} >= {"O8", "O12"}
    assert await venue.matching.reconcile(now=venue.now) == 3
    left = {each.id for each in await venue.reports.verify()}
    assert not left & {"O8", "O12"}, left
    assert await venue.matching.reconcile(now=venue.now) == 0


async def test_two_instances_serve_one_account_as_one(
    database: Database, database_url: str, clock: FixedClock, market: FakeMarket
) -> None:
    here = build_venue(database, clock, market)
    await here.state()
    other = Database(database_url, schema="broker")
    try:
        there = build_venue(other, clock, market)
        outcomes = await asyncio.gather(
            *(
                venue.place(
                    a_ticket(1 + number % 4, take_profit="210", side=SELL if number % 3 else BUY)
                    if number % 3 == 0
                    else a_ticket(1 + number % 4, side=SELL),
                    client_order_id=f"same-{number}",
                )
                for number in range(12)
                for venue in (here, there)
            )
        )
        assert sum(each.is_replay for each in outcomes) == 12
        assert len({each.order_id for each in outcomes}) == 12
        clock.advance(0.5)
        quote = market.quote("199.00", "199.10")
        # Whoever loses the race for a lease's first row gets none; here both are to match at once.
        await here.lease()
        await asyncio.gather(here.meet(quote), there.meet(quote))
        assert await there.state() == await here.state()
        await there.verify()
    finally:
        await other.close()
