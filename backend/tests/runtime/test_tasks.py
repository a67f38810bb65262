"""Background tasks: restarts, and leases that let one instance alone do the work."""

import asyncio
from datetime import timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa

from trading_api.kernel.clock import SystemClock
from trading_api.kernel.errors import UnavailableError
from trading_api.runtime import tasks as tasks_module
from trading_api.runtime.database import Database, Lease, Leases
from trading_api.runtime.module import BackgroundTask
from trading_api.runtime.tasks import TaskRunner
from trading_api.testkit.bus import eventually
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.facts import PRODUCER_LEASES_TABLE

SHORT = timedelta(seconds=0.6)


def leases_of(database: Database, owner: str, *, duration: timedelta = SHORT) -> Leases:
    return Leases(
        PRODUCER_LEASES_TABLE,
        database=database,
        clock=SystemClock(),
        owner=owner,
        duration=duration,
    )


class Work:
    """A task that notes when it runs."""

    def __init__(self) -> None:
        self.starts: list[Lease | None] = []
        self.is_running = False

    async def run(self, lease: Lease | None) -> None:
        self.starts.append(lease)
        self.is_running = True
        try:
            await asyncio.Event().wait()
        finally:
            self.is_running = False


async def test_task_when_it_fails_then_it_starts_again_and_others_are_not_disturbed() -> None:
    attempts: list[float] = []

    async def fail(_lease: Lease | None) -> None:
        attempts.append(asyncio.get_running_loop().time())
        if len(attempts) < 4:
            raise (ValueError("planted") if len(attempts) % 2 else UnavailableError("planted"))

    steady = Work()
    runner = TaskRunner(
        [BackgroundTask("shaky", fail), BackgroundTask("steady", steady.run)],
        leases=None,
        clock=SystemClock(),
    )
    await runner.start()
    await runner.start()
    await eventually(lambda: len(attempts) == 4)
    waits = [later - earlier for earlier, later in pairwise(attempts)]
    assert 0.05 <= waits[0] <= waits[2]
    await eventually(lambda: not any(task.get_name() == "shaky" for task in asyncio.all_tasks()))
    assert steady.starts == [None]
    await runner.stop()
    assert not steady.is_running


async def test_back_off_when_failures_go_on_then_it_is_bounded() -> None:
    assert tasks_module.BACKOFF_SECONDS_MIN == 0.1
    assert tasks_module.BACKOFF_SECONDS_MAX == 30.0


async def test_runner_when_a_task_has_a_lease_but_the_module_no_leases_then_refused() -> None:
    with pytest.raises(AssertionError):
        TaskRunner(
            [BackgroundTask("alone", Work().run, lease="x")], leases=None, clock=SystemClock()
        )


async def test_lease_when_two_instances_want_it_then_one_works_and_the_other_takes_over(
    producer_database: Database,
) -> None:
    first, second = Work(), Work()
    runners = [
        TaskRunner(
            [BackgroundTask("alone", work.run, lease="alone")],
            leases=leases_of(producer_database, owner),
            clock=SystemClock(),
        )
        for owner, work in (("first", first), ("second", second))
    ]
    await runners[0].start()
    await eventually(lambda: first.is_running)
    await runners[1].start()
    # Longer than the lease lasts: it is renewed.
    await asyncio.sleep(2 * SHORT.total_seconds())
    assert first.is_running and not second.starts
    await runners[0].stop()
    assert not first.is_running
    await eventually(lambda: second.is_running)
    held = second.starts[0]
    assert held is not None and held.fencing == 2
    await runners[1].stop()


async def test_lease_when_another_takes_it_then_the_work_is_cancelled_and_waits_again(
    producer_database: Database,
) -> None:
    work = Work()
    runner = TaskRunner(
        [BackgroundTask("alone", work.run, lease="alone")],
        leases=leases_of(producer_database, "first"),
        clock=SystemClock(),
    )
    await runner.start()
    await eventually(lambda: work.is_running)
    async with producer_database.transaction() as transaction:
        # As another instance does after this one slept past its time.
        await transaction.execute(PRODUCER_LEASES_TABLE.update().values(owner="thief", fencing=9))
    await eventually(lambda: not work.is_running)
    await eventually(lambda: work.is_running)
    held = work.starts[-1]
    assert held is not None and held.fencing == 10
    await runner.stop()


async def test_lease_when_the_database_is_gone_then_the_work_ends_in_time_and_comes_back(
    producer_database: Database,
) -> None:
    work = Work()
    runner = TaskRunner(
        [BackgroundTask("alone", work.run, lease="alone")],
        leases=leases_of(producer_database, "first"),
        clock=SystemClock(),
    )
    await runner.start()
    await eventually(lambda: work.is_running)
    async with producer_database.transaction() as transaction:
        await transaction.execute(sa.text("ALTER TABLE broker.leases RENAME TO leases_away"))
    await eventually(lambda: not work.is_running)
    async with producer_database.transaction() as transaction:
        await transaction.execute(sa.text("ALTER TABLE broker.leases_away RENAME TO leases"))
    await eventually(lambda: work.is_running)
    await runner.stop()


async def test_lease_when_its_work_fails_then_another_instance_may_try(
    producer_database: Database,
) -> None:
    async def fail(_lease: Lease | None) -> None:
        raise ValueError("planted")

    work = Work()
    broken = TaskRunner(
        [BackgroundTask("alone", fail, lease="alone")],
        leases=leases_of(producer_database, "broken", duration=timedelta(seconds=60)),
        clock=SystemClock(),
    )
    await broken.start()
    able = leases_of(producer_database, "able", duration=timedelta(seconds=60))
    lease: Lease | None = None

    async def is_mine() -> bool:
        nonlocal lease
        lease = await able.acquire("alone")
        return lease is not None

    await eventually(is_mine)
    await broken.stop()
    assert work.starts == []


async def test_acquire_when_many_ask_at_once_then_one_gets_it(
    producer_database: Database,
) -> None:
    asked = [leases_of(producer_database, f"owner{number}") for number in range(8)]
    got = await asyncio.gather(*(each.acquire("new") for each in asked))
    assert sum(lease is not None for lease in got) == 1


async def test_release_when_already_lost_then_the_new_holder_keeps_it(
    producer_database: Database, clock: FixedClock
) -> None:
    first, second = (
        Leases(PRODUCER_LEASES_TABLE, database=producer_database, clock=clock, owner=owner)
        for owner in ("first", "second")
    )
    lost = await first.acquire("x")
    assert lost is not None
    clock.advance(5.001)
    held = await second.acquire("x")
    assert held is not None
    await first.release(lost)
    assert await first.renew([lost]) == []
    assert await second.renew([held]) == [held]
    assert await first.acquire("x") is None
    await second.release(held)
    assert await first.acquire("x") == Lease("x", "first", 3)
