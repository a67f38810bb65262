"""Processes find one another in the live registry, and lose those that fell silent."""

from trading_api.kernel.clock import to_us
from trading_api.runtime.announce import REGISTRY_KEY, Announcement, ProcessRegistry, ProcessState
from trading_api.runtime.bus import Bus
from trading_api.testkit.bus import BusServer, eventually, started_bus
from trading_api.testkit.clocks import FixedClock


def a_registry(bus: Bus, clock: FixedClock, process: str) -> ProcessRegistry:
    now_us = to_us(clock.now())

    async def find_state() -> ProcessState:
        return "ready"

    own = Announcement(
        instance=f"{process}@host:1",
        process=process,
        modules={process.removesuffix("_0"): ["v1"]},
        version="1.0.0",
        address="",
        started_at_us=now_us,
        heartbeat_at_us=now_us,
        state="starting",
    )
    return ProcessRegistry(bus=bus, clock=clock, own=own, find_state=find_state)


async def test_processes_when_announced_then_all_see_all(bus: Bus, clock: FixedClock) -> None:
    broker, wallet = (a_registry(bus, clock, name) for name in ("broker_0", "wallet_0"))
    await broker.announce()
    await wallet.announce()
    for registry in (broker, wallet):
        found = await registry.list_processes()
        assert [(each.process, each.state) for each in found] == [
            ("broker_0", "ready"),
            ("wallet_0", "ready"),
        ]
        assert found[0].modules == {"broker": ["v1"]}


async def test_process_when_silent_then_lost_and_after_a_minute_forgotten(
    bus: Bus, clock: FixedClock
) -> None:
    broker, wallet = (a_registry(bus, clock, name) for name in ("broker_0", "wallet_0"))
    await broker.announce()
    clock.advance(8)
    await wallet.announce()
    assert [each.state for each in await wallet.list_processes()] == ["lost", "ready"]
    clock.advance(60)
    await wallet.announce()
    assert [each.process for each in await wallet.list_processes()] == ["wallet_0"]
    assert await bus.call("HLEN", REGISTRY_KEY) == 1


async def test_process_when_withdrawn_then_gone_at_once(bus: Bus, clock: FixedClock) -> None:
    broker, wallet = (a_registry(bus, clock, name) for name in ("broker_0", "wallet_0"))
    await broker.announce()
    await broker.withdraw()
    assert [each.process for each in await wallet.list_processes()] == ["wallet_0"]


async def test_registry_when_an_entry_is_garbage_then_it_is_removed(
    bus: Bus, clock: FixedClock
) -> None:
    await bus.call("HSET", REGISTRY_KEY, "bad", b"{}")
    wallet = a_registry(bus, clock, "wallet_0")
    assert [each.process for each in await wallet.list_processes()] == ["wallet_0"]
    assert await bus.call("HLEN", REGISTRY_KEY) == 0


async def test_registry_when_the_bus_is_away_then_others_are_unknown(
    bus_server: BusServer, clock: FixedClock
) -> None:
    bus = await started_bus(bus_server)
    broker, wallet = (a_registry(bus, clock, name) for name in ("broker_0", "wallet_0"))
    await broker.announce()
    await wallet.announce()
    await wallet.list_processes()
    bus_server.kill()
    await eventually(lambda: not bus.is_up)
    await wallet.announce()
    found = await wallet.list_processes()
    assert [(each.process, each.state) for each in found] == [
        ("broker_0", "unknown"),
        ("wallet_0", "ready"),
    ]
    await bus.stop()
