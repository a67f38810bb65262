"""Providers: one leads, others follow; what fails is tried again and stops nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

import numpy as np
import pytest

from trading_api.kernel.clock import to_us
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.adapters.providers import (
    ReplayProvider,
    SimulatedProvider,
    find_providers,
)
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import Instrument
from trading_api.modules.datafeed.domain.tick import Fault, ProviderTick
from trading_api.modules.datafeed.ports import MarketDataProvider, ProviderContext
from trading_api.modules.datafeed.repository import MarketRepository
from trading_api.modules.datafeed.service import (
    DatafeedService,
    ProviderService,
    ProviderState,
)
from trading_api.modules.datafeed.tables import lease_rows
from trading_api.modules.datafeed.tests.builders import an_hourly_series
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
        self._inner = a_simulation(context)
        self.ticks: asyncio.Queue[ProviderTick | Exception] = asyncio.Queue()
        self.backfills: list[tuple[int, int]] = []
        self.closed = 0

    async def instruments(self) -> Sequence[Instrument]:
        return list(await self._inner.instruments())[:1]

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

    def tell(self, price: str, at: datetime, size: int = 1) -> None:
        self.ticks.put_nowait(ProviderTick("SIM:ALPHA", to_us(at), Decimal(price), Decimal(size)))


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
