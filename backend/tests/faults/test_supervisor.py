"""``kill -9`` of supervisord: nobody is left behind, and a start brings everything back once."""

import asyncio
import signal
from collections import Counter

import psutil
import pytest
from tests.faults.conftest import Stage, now, until
from tests.faults.test_kills import CALLS_BEFORE, ROUNDS, prove_books, prove_everything
from tests.faults.workload import HEAL_SECONDS, Journal, Trader

from trading_api.manager import processes
from trading_api.manager.processes import ProcessRecord
from trading_api.testkit.bus import eventually

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(300),
]


async def test_supervisor_when_killed_then_nobody_is_left_behind_and_start_recovers(
    stage: Stage, traders: list[Trader], journal: Journal
):
    await until_busy(traders, journal, since=0.0)
    before = stage.all()
    kill_supervisor(stage)
    await eventually(lambda: stage.family() == [], within_seconds=HEAL_SECONDS)
    await start_again(stage, traders, journal, before)
    after = stage.all()
    assert "is up already" in await asyncio.to_thread(stage.fleet.start)
    assert stage.all() == after
    await prove_everything(stage, traders, journal)
    await prove_books(stage)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_supervisor_when_killed_and_started_at_once_then_nothing_runs_twice(
    stage: Stage, traders: list[Trader], journal: Journal
):
    for _ in range(ROUNDS):
        await until_busy(traders, journal, since=now())
        before = stage.all()
        kill_supervisor(stage)
        # What the dead one ran is still at its last requests.
        await start_again(stage, traders, journal, before)
    await prove_everything(stage, traders, journal)
    await prove_books(stage)


async def start_again(
    stage: Stage, traders: list[Trader], journal: Journal, before: dict[str, ProcessRecord]
) -> None:
    """Start, and check that it all works again, each program once."""
    await asyncio.to_thread(stage.fleet.start)
    await until_busy(traders, journal, since=now())
    await stage.until_healthy()
    assert [name for name, record in before.items() if processes.is_alive(record)] == []
    ensure_started_once(stage)


async def until_busy(traders: list[Trader], journal: Journal, *, since: float) -> None:
    await until(lambda: journal.count("broker", "wallet", since=since) >= CALLS_BEFORE, traders)


def kill_supervisor(stage: Stage) -> None:
    supervisor = stage.get("supervisord")
    assert processes.send(supervisor, signal.SIGKILL)
    processes.wait_gone([supervisor], timeout_seconds=5)


def ensure_started_once(stage: Stage) -> None:
    """Check that every process descends from the one supervisor, and each program has one."""
    supervisor = psutil.Process(stage.get("supervisord").pid)
    children = {each.pid for each in supervisor.children()}
    assert children == {record.pid for record in stage.all().values()}
    family = {each.pid for each in stage.family()}
    assert family == {supervisor.pid, *(each.pid for each in supervisor.children(recursive=True))}
    listeners = Counter(
        each.laddr.port
        for process in stage.family()
        for each in process.net_connections(kind="tcp")
        if each.status == psutil.CONN_LISTEN
    )
    # nginx's master and its one worker hold the same socket.
    assert set(listeners) == {stage.fleet.port}
