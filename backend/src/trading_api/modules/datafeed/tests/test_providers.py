"""Providers: one leads, others follow; what fails is tried again and stops nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest

from trading_api.kernel.clock import to_us
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.adapters.providers import (
    ReplayProvider,
    SimulatedProvider,
    find_providers,
)
from trading_api.modules.datafeed.domain import live as live_module
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import Instrument
from trading_api.modules.datafeed.domain.tick import Fault, ProviderTick
from trading_api.modules.datafeed.ports import MarketDataProvider, ProviderContext
from trading_api.modules.datafeed.repository import MarketRepository
from trading_api.modules.datafeed.repository.bars import SeriesMismatchError
from trading_api.modules.datafeed.repository.checks import check_market_data
from trading_api.modules.datafeed.service import (
    DatafeedService,
    ProviderService,
    ProviderState,
    ProviderStatus,
)
from trading_api.modules.datafeed.tables import lease_rows
from trading_api.modules.datafeed.tests.builders import an_hourly_series
from trading_api.modules.datafeed.tests.conftest import an_instrument_service
from trading_api.modules.datafeed.tests.test_importing import equal
from trading_api.runtime.database import Database, Leases
from trading_api.runtime.database.leases import LeaseLostError
from trading_api.runtime.settings import ConfigurationError
from trading_api.testkit.bus import eventually
from trading_api.testkit.clocks import FixedClock

NOW = datetime(2026, 1, 5, 12, 0, 30, tzinfo=UTC)
MINUTE = int(NOW.timestamp()) // 60 * 60


class LocalBus:
    """Hands messages to the other processes' services at once, unless it is down."""

    def __init__(self) -> None:
        self.is_up = True
        self.hearers: list[tuple[object, Callable[[str, bytes], None]]] = []

    def of(self, owner: object) -> "LocalBus":
        beside = LocalBus()
        beside.publish = lambda channel, payload: self._send(owner, channel, payload)  # type: ignore[method-assign]
        return beside

    def publish(self, channel: str, payload: bytes) -> None:
        raise AssertionError("each process has its own end")

    def _send(self, owner: object, channel: str, payload: bytes) -> None:
        for other, hear in self.hearers:
            if self.is_up and other is not owner:
                hear(channel, payload)


class ScriptedProvider(MarketDataProvider):
    """Offers one instrument and tells what the test puts in."""

    name: ClassVar[str] = "scripted"

    def __init__(self, context: ProviderContext) -> None:
        self._inner = a_simulation(context, "ALPHA", "BETA")
        self.offered = 1
        self.changes: dict[str, Any] = {}
        self.ticks: asyncio.Queue[ProviderTick | Exception] = asyncio.Queue()
        self.backfills: list[tuple[int, int]] = []
        self.closed = 0

    async def instruments(self) -> Sequence[Instrument]:
        first, *others = list(await self._inner.instruments())[: self.offered]
        return [replace(first, **self.changes), *others]

    async def backfill(
        self, instrument: Instrument, *, from_time: int, to_time: int
    ) -> AsyncIterator[Columns]:
        self.backfills.append((from_time, to_time))
        rows = [(time, 10_000, 10_010, 9_990, 10_000, 5) for time in range(from_time, to_time, 60)]
        yield Columns.of_rows(rows)

    async def stream(
        self, instruments: Sequence[Instrument], tell: Callable[[ProviderTick], None]
    ) -> None:
        while True:
            told = await self.ticks.get()
            if isinstance(told, Exception):
                raise told
            tell(told)

    async def close(self) -> None:
        self.closed += 1

    def tell(self, price: str, at: datetime, size: int = 1, symbol: str = "SIM:ALPHA") -> None:
        self.ticks.put_nowait(ProviderTick(symbol, to_us(at), Decimal(price), Decimal(size)))


class Process:
    """One datafeed process over the shared database."""

    def __init__(
        self,
        database: Database,
        bus: LocalBus,
        clock: FixedClock,
        providers: Mapping[str, MarketDataProvider],
        name: str,
    ) -> None:
        self.market = DatafeedService(
            database=database,
            repository=MarketRepository(),
            history=BundledHistory(),
            seconds_kept=3_600,
        )
        self.leases = Leases(lease_rows, database=database, clock=clock, owner=name)
        self.service = ProviderService(
            providers=providers,
            database=database,
            market=self.market,
            leases=self.leases,
            bus=bus.of(self),
            clock=clock,
            history_seconds=3_600,
        )
        bus.hearers.append(
            (self, lambda channel, told: self.service.hear(channel=channel, payload=told))
        )

    async def minutes(self, clock: FixedClock) -> Columns:
        answer = await self.market.bars(
            symbol="SIM:ALPHA", resolution="1", from_time=0, to_time=2**37, count_back=5_000,
            now=clock.now(),
        )  # fmt: skip
        return answer.selection.bars


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW)


def a_simulation(context: ProviderContext, *symbols: str) -> SimulatedProvider:
    return SimulatedProvider(context, symbols=symbols or ("ALPHA",))


def a_replay(context: ProviderContext) -> ReplayProvider:
    return ReplayProvider(context, series_ids=["eurusd-60"], speed=60)


def a_context(clock: FixedClock) -> ProviderContext:
    series = an_hourly_series(hours=50)
    return ProviderContext(
        environ={}, clock=clock, seed="tests",
        find_series=lambda series_id: series if series_id == "eurusd-60" else None,
    )  # fmt: skip


async def test_one_process_leads_and_another_shows_the_same(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    leader = Process(empty_database, bus, clock, {"scripted": provider}, "a")
    follower = Process(empty_database, bus, clock, {"scripted": provider}, "b")
    lease = await leader.leases.acquire("provider-scripted")
    running = asyncio.create_task(leader.service.run(name="scripted", lease=lease))
    try:
        await eventually(
            lambda: leader.service._status["scripted"].state is ProviderState.STREAMING
        )
        assert provider.backfills == [(MINUTE - 3_600, MINUTE)]
        await follower.market.load()
        provider.tell("100.50", NOW)
        provider.tell("101.00", NOW, 4)
        provider.tell("NaN", NOW)
        await eventually(lambda: sum(leader.service._status["scripted"].dropped.values()) == 1)
        for process in (leader, follower):
            newest = (await process.minutes(clock))[-1:]
            assert [int(each[0]) for each in newest.arrays()] == [
                MINUTE, 10_050, 10_100, 10_050, 10_100, 5
            ]  # fmt: skip
        statuses = {each.name: each for each in await leader.service.list_providers()}
        status = statuses["scripted"]
        assert (status.ticks, status.instruments, dict(status.dropped)) == (
            2, 1, {Fault.NOT_FINITE: 1}
        )  # fmt: skip
        clock.advance(31)
        await eventually(lambda: leader.service._status["scripted"].bars == 1)
        third = Process(empty_database, bus, clock, {"scripted": provider}, "c")
        await third.market.load()
        bars = [await each.minutes(clock) for each in (leader, follower, third)]
        assert len(bars[0]) == 61
        assert equal(bars[0], bars[1])
        assert equal(bars[0], bars[2])
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert provider.closed == 1
    assert leader.service._status["scripted"].state is ProviderState.STANDBY


async def test_a_follower_that_missed_a_minute_reads_it_from_the_database(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    leader = Process(empty_database, bus, clock, {"scripted": provider}, "a")
    follower = Process(empty_database, bus, clock, {"scripted": provider}, "b")
    lease = await leader.leases.acquire("provider-scripted")
    running = asyncio.create_task(leader.service.run(name="scripted", lease=lease))
    following = asyncio.create_task(follower.service.follow())
    try:
        await eventually(
            lambda: leader.service._status["scripted"].state is ProviderState.STREAMING
        )
        await follower.market.load()
        bus.is_up = False
        provider.tell("100.50", NOW)
        await eventually(lambda: leader.service._status["scripted"].ticks == 1)
        clock.advance(60)
        await eventually(lambda: leader.service._status["scripted"].bars == 1)
        bus.is_up = True
        provider.tell("102.00", clock.now())
        await eventually(lambda: leader.service._status["scripted"].ticks == 2)
        clock.advance(60)
        await eventually(lambda: leader.service._status["scripted"].bars == 2)

        async def are_equal() -> bool:
            return equal(await follower.minutes(clock), await leader.minutes(clock))

        await eventually(are_equal)
        assert len(await follower.minutes(clock)) == 62
    finally:
        for task in (running, following):
            task.cancel()
        await asyncio.gather(running, following, return_exceptions=True)


async def test_a_failing_provider_backs_off_and_the_other_goes_on(
    empty_database: Database, clock: FixedClock
) -> None:
    broken, fine = (
        ScriptedProvider(a_context(clock)),
        a_simulation(a_context(clock), "BETA"),
    )
    process = Process(
        empty_database, LocalBus(), clock, {"scripted": broken, "simulated": fine}, "a"
    )
    tasks = []
    for name in ("scripted", "simulated"):
        lease = await process.leases.acquire(f"provider-{name}")
        tasks.append(asyncio.create_task(process.service.run(name=name, lease=lease)))
    statuses = process.service._status
    try:
        broken.ticks.put_nowait(ConnectionError("the exchange hung up"))
        await eventually(lambda: statuses["scripted"].state is ProviderState.BACKING_OFF)
        status = statuses["scripted"]
        assert (status.failures, status.last_error) == (
            1, "ConnectionError: the exchange hung up"
        )  # fmt: skip
        assert status.retry_at_us == to_us(NOW) + 1_000_000
        await eventually(lambda: statuses["simulated"].ticks > 0)
        await eventually(lambda: statuses["scripted"].state is ProviderState.STREAMING)
        assert broken.closed == 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_lost_the_lease_stores_nothing(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    first = Process(empty_database, bus, clock, {"scripted": provider}, "a")
    second = Process(empty_database, bus, clock, {"scripted": provider}, "b")
    lease = await first.leases.acquire("provider-scripted")
    assert lease is not None
    clock.advance(60)
    assert await second.leases.acquire("provider-scripted") is not None
    (instrument,) = await provider.instruments()
    with pytest.raises(LeaseLostError):
        await first.service._backfill("scripted", provider, instrument, lease)
    await first.market.load()
    assert first.market.find_live(symbol="SIM:ALPHA") is None


@asynccontextmanager
async def streaming(process: Process) -> AsyncIterator[ProviderStatus]:
    """Have a process lead its provider until the block ends; give how it began."""
    lease = await process.leases.acquire("provider-scripted")
    running = asyncio.create_task(process.service.run(name="scripted", lease=lease))
    statuses = process.service._status
    try:
        await eventually(lambda: statuses["scripted"].state is ProviderState.STREAMING)
        yield statuses["scripted"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def has_reached(process: Process, **counts: int) -> bool:
    status = process.service._status["scripted"]
    return all(getattr(status, name) == count for name, count in counts.items())


async def retire(process: Process, database: Database, clock: FixedClock) -> None:
    desk = an_instrument_service(database, process.market, clock)
    await desk.retire_instrument(
        symbol="SIM:ALPHA", version=None, operator_id="usr_o", now=clock.now()
    )


async def test_a_retired_instrument_ends_and_the_provider_s_others_go_on(
    empty_database: Database, clock: FixedClock
) -> None:
    provider = ScriptedProvider(a_context(clock))
    provider.offered = 2
    process = Process(empty_database, LocalBus(), clock, {"scripted": provider}, "a")
    statuses = process.service._status
    async with streaming(process):
        provider.tell("100.50", NOW)
        provider.tell("100.50", NOW, symbol="SIM:BETA")
        await eventually(lambda: statuses["scripted"].ticks == 2)
        await retire(process, empty_database, clock)
        provider.tell("100.50", NOW)
        provider.tell("100.50", NOW, symbol="SIM:BETA")
        await eventually(lambda: statuses["scripted"].ticks == 3)
        assert dict(statuses["scripted"].dropped) == {Fault.UNKNOWN_SYMBOL: 1}
        clock.advance(31)
        await eventually(lambda: statuses["scripted"].bars == 1)
        assert statuses["scripted"].failures == 0
    # Started again, it is left out; so is it where it was all that there is.
    async with streaming(process) as status:
        assert (status.instruments, status.last_error) == (1, "SIM:ALPHA: it was retired")
    provider.offered = 1
    with pytest.raises(LookupError, match="it was retired"):
        await process.service._feed("scripted", provider, None)


@pytest.mark.parametrize("change", [{"price_decimals": 3}, {"volume_decimals": 2}])
async def test_an_instrument_of_other_decimals_than_its_bars_is_refused(
    empty_database: Database, clock: FixedClock, change: dict[str, int]
) -> None:
    provider = ScriptedProvider(a_context(clock))
    provider.offered = 2
    process = Process(empty_database, LocalBus(), clock, {"scripted": provider}, "a")
    async with streaming(process):
        before = await process.minutes(clock)
    clock.advance(600)
    provider.changes = change
    async with streaming(process) as status:
        assert status.instruments == 1
        assert status.last_error is not None
        assert "SIM:ALPHA: sim-alpha-1 has bars of 1 with 2 and 0 decimals" in status.last_error
        assert equal(await process.minutes(clock), before)
    async with empty_database.snapshot() as snapshot:
        assert await check_market_data(snapshot) == []
    # Nor between the look and the write.
    (instrument, _) = await provider.instruments()
    with pytest.raises(SeriesMismatchError):
        await process.service._store(instrument, before[-1:], None, clock.now())


async def test_minutes_are_stored_without_reading_every_instrument(
    empty_database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider(a_context(clock))
    process = Process(empty_database, LocalBus(), clock, {"scripted": provider}, "a")
    statuses = process.service._status
    async with streaming(process):
        listed: list[object] = []
        monkeypatch.setattr(MarketRepository, "add_instruments", listed.append)
        provider.tell("100.50", NOW)
        await eventually(lambda: statuses["scripted"].ticks == 1)
        clock.advance(31)
        await eventually(lambda: statuses["scripted"].bars == 1)
        assert listed == []


async def test_who_leads_one_provider_reads_what_it_missed_of_another(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    other = a_simulation(a_context(clock), "GAMMA")
    both = {"scripted": provider, "simulated": other}
    leader = Process(empty_database, bus, clock, both, "a")
    second = Process(empty_database, bus, clock, both, "b")
    lease = await second.leases.acquire("provider-simulated")
    tasks = [
        asyncio.create_task(second.service.run(name="simulated", lease=lease)),
        asyncio.create_task(second.service.follow()),
    ]
    try:
        await eventually(
            lambda: second.service._status["simulated"].state is ProviderState.STREAMING
        )
        async with streaming(leader):
            # It learns of an instrument by its first tick.
            provider.tell("100.50", NOW)

            async def knows() -> bool:
                return second.market.find_live(symbol="SIM:ALPHA") is not None

            await eventually(knows)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_slow_load_never_replaces_what_a_later_one_read(
    empty_database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider(a_context(clock))
    process = Process(empty_database, LocalBus(), clock, {"scripted": provider}, "a")
    async with streaming(process):
        pass
    load = MarketRepository.load
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(self: MarketRepository, transaction: Any) -> Any:
        found = await load(self, transaction)
        if not began.is_set():
            began.set()
            await go_on.wait()
        return found

    monkeypatch.setattr(MarketRepository, "load", slowly)
    slow = asyncio.create_task(process.market.load())
    await began.wait()
    desk = an_instrument_service(empty_database, process.market, clock)
    change = asyncio.create_task(
        desk.change_instrument(
            symbol="SIM:ALPHA", changes={"spread_ticks": 8}, version=None, operator_id="usr_o",
            now=clock.now(),
        )
    )  # fmt: skip
    # Long enough for a load that doesn't wait; one that does can't end before.
    await asyncio.wait([change], timeout=0.5)
    go_on.set()
    await asyncio.gather(slow, change)
    assert (await process.market.resolve(symbol="SIM:ALPHA")).instrument.spread_ticks == 8


async def test_a_live_market_that_grew_long_reads_what_is_stored(
    empty_database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_module, "SETTLED_MINUTES_MAX", 3)
    provider = ScriptedProvider(a_context(clock))
    process = Process(empty_database, LocalBus(), clock, {"scripted": provider}, "a")
    async with streaming(process):
        market = process.market.find_live(symbol="SIM:ALPHA")
        assert market is not None
        for minute in range(1, 5):
            provider.tell("100.50", clock.now())
            await eventually(partial(has_reached, process, ticks=minute))
            clock.advance(60)
            await eventually(partial(has_reached, process, bars=minute))
        before = await process.minutes(clock)
        assert market.is_long
        assert await process.market.settle() == 1
        assert (market.is_long, len(market.series.bars)) == (False, len(before))
        assert equal(await process.minutes(clock), before)
        assert await process.market.settle() == 0


async def first_tick(provider: MarketDataProvider, instrument: Instrument) -> ProviderTick:
    """Return what a provider tells first."""
    told: asyncio.Queue[ProviderTick] = asyncio.Queue()
    stream = asyncio.create_task(provider.stream([instrument], told.put_nowait))
    tick = await told.get()
    stream.cancel()
    await asyncio.gather(stream, return_exceptions=True)
    return tick


@pytest.mark.parametrize("make", [a_simulation, a_replay])
async def test_what_streams_is_what_a_later_backfill_says(
    make: Callable[[ProviderContext], MarketDataProvider], clock: FixedClock
) -> None:
    provider = make(a_context(clock))
    instrument = (await provider.instruments())[0]
    at = datetime.fromtimestamp(MINUTE, UTC)
    clock.jump((at - clock.now()).total_seconds())
    prices: list[int] = []
    scale = 10**instrument.price_decimals
    for _ in range(120):
        tick = await first_tick(provider, instrument)
        assert tick.at_us == to_us(clock.now())
        prices.append(int(tick.price * scale))
        clock.advance(0.5)
    (bars,) = [
        each async for each in provider.backfill(instrument, from_time=MINUTE, to_time=MINUTE + 60)
    ]
    assert [int(column[0]) for column in bars.arrays()[:5]] == [
        MINUTE, prices[0], max(prices), min(prices), prices[-1]
    ]  # fmt: skip
    # And once more from the same seed.
    again = make(a_context(clock))
    twin = (await again.instruments())[0]
    (same,) = [each async for each in again.backfill(twin, from_time=MINUTE, to_time=MINUTE + 60)]
    assert equal(*(Columns(*each.arrays()[:5], volume=np.zeros(1, int)) for each in (bars, same)))


def test_unknown_providers_stop_the_start(clock: FixedClock) -> None:
    built_in: dict[str, Callable[[ProviderContext], MarketDataProvider]] = {
        "replay": a_replay,
        "simulated": a_simulation,
    }
    with pytest.raises(ConfigurationError, match="there is no 'nasdaq'; known are replay, sim"):
        find_providers(["nasdaq"], a_context(clock), built_in=built_in)
    with pytest.raises(ConfigurationError, match="twice"):
        find_providers(["replay", "replay"], a_context(clock), built_in=built_in)
    assert list(
        find_providers(["replay", "simulated"], a_context(clock), built_in=built_in)
    ) == [
        "replay", "simulated"
    ]  # fmt: skip
