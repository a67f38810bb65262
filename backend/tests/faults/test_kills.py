"""``kill -9`` of each process under load: it comes back, and what clients were told stays true."""

import asyncio
import os
import random
import signal
from typing import Any
from uuid import uuid4

import psutil
import pytest
from tests.faults.conftest import MODULES, Stage, now, until
from tests.faults.workload import Call, Journal, Trader
from tests.journeys.conftest import sign_up

from trading_api.manager import processes
from trading_api.runtime.bus.bus import COMMAND_SECONDS

pytestmark = [
    pytest.mark.fleet,
    pytest.mark.xdist_group("fleet"),
    pytest.mark.timeout(300),
]

CALLS_BEFORE, CALLS_AFTER = 12, 8
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "20"))


async def test_processes_when_each_is_killed_then_come_back_and_nothing_is_lost_or_doubled(
    stage: Stage, traders: list[Trader], journal: Journal
):
    for target in stage.targets:
        before = [trader.socket.connections for trader in traders]
        await kill_under_load(target, stage, traders, journal, calls_before=CALLS_BEFORE)
        cuts = 1 if target in {"broker", "nginx"} else 0
        after = [trader.socket.connections for trader in traders]
        assert after == [each + cuts for each in before], target
    await prove_everything(stage, traders, journal)
    for kept in ("orders", "deposits"):
        writes = [each for trader in traders for each in getattr(trader, kept)]
        assert any(each.unknown for each in writes), "no answer was lost, so nothing was shown"
    await prove_books(stage)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_processes_when_killed_at_many_instants_then_nothing_is_lost_or_doubled(
    stage: Stage, traders: list[Trader], journal: Journal
):
    seed = os.environ.get("FAULT_SEED") or uuid4().hex
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    targets = [target for target in stage.targets for _ in range(ROUNDS)]
    chance.shuffle(targets)
    for target in targets:
        calls_before = chance.randrange(1, 60)
        await kill_under_load(target, stage, traders, journal, calls_before=calls_before)
    await prove_everything(stage, traders, journal)
    await prove_books(stage)


async def test_bus_when_frozen_then_orders_go_on_and_health_tells(
    stage: Stage, traders: list[Trader], journal: Journal
):
    await until(lambda: journal.count("broker") >= CALLS_BEFORE, traders)
    freeze_bus(stage)
    try:
        frozen_at = now()
        assert await stage.until_health("degraded", bus="down") == 200
        degraded_at = now()
        seen = [len(trader.socket.seen) for trader in traders]
        wanted = 20
        await until(lambda: journal.count("broker", since=degraded_at) >= wanted, traders)
        await until(
            lambda: all(
                len(trader.socket.seen) > before
                for trader, before in zip(traders, seen, strict=True)
            ),
            traders,
        )
        thawed_at = now()
        async with sign_up(stage.fleet) as newcomer:
            assert len(await newcomer.get("/api/v1/broker/accounts")) == 1
            assert (await newcomer.get("/api/v1/wallet"))["wallet_id"]
    finally:
        thaw_bus(stage)
    await stage.until_healthy()
    during = journal.of(*MODULES, since=frozen_at, until=thawed_at)
    assert [call for call in during if call.outcome != "done"] == []
    for name in ("order", "deposit"):
        # Nobody waits for the bus on a request's way: that would take 250 ms, each time.
        calls = [each for each in during if each.name == name and each.began > degraded_at]
        assert min(call.seconds for call in calls) < COMMAND_SECONDS
    await prove_everything(stage, traders, journal)
    assert {trader.socket.connections for trader in traders} == {1}


async def kill_under_load(
    target: str, stage: Stage, traders: list[Trader], journal: Journal, *, calls_before: int
) -> None:
    """Kill a process while it works for somebody, and wait until it works again."""
    watched = target if target in MODULES else "broker"
    began = now()
    await until(
        lambda: (
            journal.count(watched, since=began) >= calls_before and journal.in_flight[watched] > 0
        ),
        traders,
    )
    before = stage.all()
    kill(target, stage)
    killed_at = now()
    revive(target, stage)
    await until(lambda: is_back(target, stage, before), traders)
    ready_at = await until_served(target, stage, traders, journal)

    after = stage.all()
    assert {**before, target: None} == {**after, target: None}, "the others were left alone"
    if target in stage.programs:
        parent = psutil.Process(after[target].pid).ppid()
        assert parent == stage.get("supervisord").pid
    others = [name for name in MODULES if name != target]
    outage = journal.of(*others, since=killed_at, until=ready_at)
    if target != "nginx":
        assert {call.module for call in outage if call.outcome == "done"} == set(others)
        assert [call for call in outage if not is_excused(call, target)] == []


def is_excused(call: Call, target: str) -> bool:
    """Say whether a call to another module may have failed: without prices nothing is traded."""
    if call.outcome == "done":
        return True
    return target == "datafeed" and call.name == "order" and call.said.startswith("503")


async def until_served(target: str, stage: Stage, traders: list[Trader], journal: Journal) -> float:
    back_at = now()
    wanted = [target] if target in MODULES else list(MODULES)
    await until(
        lambda: all(journal.count(each, since=back_at) >= CALLS_AFTER for each in wanted), traders
    )
    ready_at = now()
    await until(lambda: all(trader.socket.is_open for trader in traders), traders)
    await stage.until_healthy()
    if target == "datafeed":
        # Prices come again, so orders are taken again.
        await until(
            lambda: any(
                call.name == "order" and call.outcome == "done"
                for call in journal.of("broker", since=ready_at)
            ),
            traders,
        )
    return ready_at


async def prove_everything(stage: Stage, traders: list[Trader], journal: Journal) -> None:
    """End the load; everything acknowledged is there once, and nobody logged an error."""
    await asyncio.gather(*(trader.settle() for trader in traders))
    for trader in traders:
        await trader.prove()
    assert [call for call in journal.calls if call.outcome == "refused"] == []
    assert journal.faults == []
    assert stage.errors() == []


async def prove_books(stage: Stage) -> None:
    """Run the commands that prove every row of the broker and of the wallet's ledger."""
    verbs = ("verify-broker", "verify-ledger")
    verified = await asyncio.gather(
        *(asyncio.to_thread(stage.fleet.manage, verb) for verb in verbs)
    )
    for done in verified:
        assert done.returncode == 0, done.stdout + done.stderr
        assert " 0 violations" in done.stdout


def kill(target: str, stage: Stage) -> None:
    """End a process as ``kill -9`` does."""
    if target == "bus" and stage.bus is not None:
        stage.bus.kill()
    else:
        assert processes.send(stage.get(target), signal.SIGKILL)


def revive(target: str, stage: Stage) -> None:
    """Start again what no supervisor of ours runs."""
    if target == "bus" and stage.bus is not None:
        stage.bus.start()


def is_back(target: str, stage: Stage, before: dict[str, Any]) -> bool:
    return target not in stage.programs or stage.find(target) not in {None, before[target]}


def find_bus(stage: Stage) -> int:
    return stage.get("bus").pid if stage.bus is None else stage.bus.pid


def freeze_bus(stage: Stage) -> None:
    os.kill(find_bus(stage), signal.SIGSTOP)


def thaw_bus(stage: Stage) -> None:
    os.kill(find_bus(stage), signal.SIGCONT)
