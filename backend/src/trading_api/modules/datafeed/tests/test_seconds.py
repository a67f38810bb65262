"""Bars of seconds: they add up to the minutes, live ones stay, old ones go."""

import asyncio
from datetime import timedelta
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.domain import aggregate
from trading_api.modules.datafeed.domain.aggregate import ALWAYS_OPEN
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns, Window
from trading_api.modules.datafeed.domain.demo import DemoMarket
from trading_api.modules.datafeed.domain.instrument import Exchange
from trading_api.modules.datafeed.domain.live import LiveMarket
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.selection import select
from trading_api.modules.datafeed.domain.series import Market, StoredSeries
from trading_api.modules.datafeed.domain.tick import Tick
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError
from trading_api.modules.datafeed.repository.checks import check_market_data
from trading_api.modules.datafeed.service import DatafeedService, ProviderState
from trading_api.modules.datafeed.tests.builders import (
    ANCHOR,
    a_demo_market,
    a_historical_market,
    a_series,
    an_hourly_series,
    an_instrument,
    seconds,
)
from trading_api.modules.datafeed.tests.conftest import NOW, PREFIX, ClientOf
from trading_api.modules.datafeed.tests.test_importing import equal
from trading_api.modules.datafeed.tests.test_live import RecordingSink, a_broadcaster
from trading_api.modules.datafeed.tests.test_providers import (
    MINUTE,
    LocalBus,
    Process,
    ScriptedProvider,
    a_context,
    clock,
)
from trading_api.runtime.database import Database
from trading_api.testkit.bus import eventually
from trading_api.testkit.clocks import FixedClock

__all__ = ["clock"]

DAY, HOUR = 86_400, 3_600
FOREVER = 2**37
markets = st.sampled_from([a_demo_market(), a_demo_market(an_hourly_series())])
instants = st.integers(ANCHOR * 2, (ANCHOR + 9 * DAY) * 2).map(lambda half: half * 500_000)
lengths = st.sampled_from(["1S", "2S", "5S", "8S", "15S", "45S"])


def bars_of(
    market: Market, resolution: str, now_us: int, *, start: int = 0, count: int | None = None
) -> Columns:
    window = Window(start, FOREVER, count)
    return market.bars(parse_resolution(resolution), window, now_us).bars


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("s", "1S"), ("15s", "15S"), ("60S", "1"), ("120s", "2"), ("45S", "45S")],
)
def test_seconds_are_spelled_in_any_case_and_whole_minutes_are_minutes(
    text: str, canonical: str
) -> None:
    assert str(parse_resolution(text)) == canonical


@pytest.mark.parametrize("text", ["0S", "7S", "59S", "90S", "SS", "1.5S"])
def test_seconds_divide_an_hour(text: str) -> None:
    with pytest.raises(ResolutionUnsupportedError):
        parse_resolution(text)


@settings(deadline=None, max_examples=30)
@given(market=markets, now=instants)
def test_seconds_of_the_demo_market_add_up_to_its_minutes(market: DemoMarket, now: int) -> None:
    start = now // 60_000_000 * 60 - 4_000 // 60 * 60
    fine = bars_of(market, "1S", now, start=start)
    minutes = bars_of(market, "1", now, start=start)
    assert (np.diff(fine.time) == 1).all()
    assert int(fine.time[-1]) == now // 1_000_000
    assert int(fine.close[-1]) == market.quote(now).last
    assert equal(aggregate.intraday(fine, 60, ALWAYS_OPEN), minutes)


@settings(deadline=None, max_examples=30)
@given(market=markets, resolution=lengths, now=instants, count=st.integers(1, 3_000))
def test_longer_bars_of_seconds_are_built_of_single_ones(
    market: DemoMarket, resolution: str, now: int, count: int
) -> None:
    length = parse_resolution(resolution).seconds
    count = min(count, 4_000 // length)
    coarse = bars_of(market, resolution, now, count=count)
    assert len(coarse) == count
    fine = bars_of(market, "1S", now, start=int(coarse.time[0]))
    assert equal(aggregate.intraday(fine, length, ALWAYS_OPEN), coarse)


@settings(deadline=None, max_examples=15)
@given(market=markets, resolution=lengths, now=instants)
def test_what_was_seen_of_a_second_is_what_history_answers(
    market: DemoMarket, resolution: str, now: int
) -> None:
    now = now // 1_000_000 * 1_000_000 + 500_000
    seen = bars_of(market, resolution, now, count=50)
    window = Window(int(seen.time[0]), int(seen.time[-1]))
    later = market.bars(parse_resolution(resolution), window, now + 30 * HOUR * 10**6).bars
    assert equal(seen[:-1], later)


def test_a_long_answer_is_prepared_in_small_parts() -> None:
    prepared, plain = a_demo_market(), a_demo_market()
    now, length = (ANCHOR + 5 * DAY) * 10**6 + 777, parse_resolution("45S")
    window = Window(0, FOREVER, 5_000)
    parts = sum(1 for _ in prepared.prepare(length, window, now))
    assert parts >= 30
    assert sum(1 for _ in prepared.prepare(length, window, now)) == 0
    answers = [each.bars(length, window, now).bars for each in (prepared, plain)]
    assert equal(*answers)
    assert list(prepared.prepare(parse_resolution("1"), window, now)) == []


def test_the_demo_market_has_seconds_from_its_beginning_and_none_before() -> None:
    market = a_demo_market()
    now, start = (ANCHOR + DAY) * 10**6, market.start_time
    first = market.bars(parse_resolution("5S"), Window(0, start + 60, 5_000), now)
    assert (int(first.bars.time[0]), len(first)) == (start, 12)
    before = market.bars(parse_resolution("5S"), Window(0, start), now)
    assert (len(before), before.next_time) == (0, None)


def test_imported_seconds_are_served_at_every_resolution() -> None:
    rows = [(ANCHOR + second, 100, 101, 99, 100, 1) for second in range(150)]
    market = a_historical_market(
        a_series(rows, resolution="1S"), instrument=an_instrument(exchange=Exchange.HIST)
    )
    assert market.resolutions()[:7] == ["1S", "5S", "10S", "15S", "30S", "45S", "1"]
    assert bars_of(market, "1", FOREVER * 10**6).volume.tolist() == [60, 60, 30]
    assert bars_of(market, "45S", FOREVER * 10**6).volume.tolist() == [45, 45, 45, 15]
    with pytest.raises(ResolutionUnsupportedError):
        bars_of(a_historical_market(a_series(rows, resolution="1")), "30S", FOREVER)


START = seconds("2026-01-05T14:30")


def a_live_market(kept: int = HOUR, *, session: str = "0930-1600") -> LiveMarket:
    instrument = an_instrument(exchange=Exchange.SIM, session=session, time_zone="America/New_York")
    rows = [(START - 60, 100, 100, 100, 100, 1)]
    series = StoredSeries("sim-a-1", parse_resolution("1"), 2, 0, Columns.of_rows(rows))
    return LiveMarket(instrument, series, seconds_kept=kept)


moves = st.lists(
    st.tuples(st.integers(0, 5 * 60 * 4), st.integers(90, 110), st.integers(0, 3)),
    min_size=1,
    max_size=60,
).map(sorted)
"""Quarters of seconds, prices, sizes."""


def play(market: LiveMarket, told: list[tuple[int, int, int]]) -> None:
    for quarter, price, size in told:
        at_us = START * 1_000_000 + quarter * 250_000
        market.apply(Tick("SIM:A", at_us, price, size, price - 1, price + 1))


def seconds_of(told: list[tuple[int, int, int]]) -> Columns:
    time = np.array([START + quarter // 4 for quarter, _, _ in told])
    price = np.array([price for _, price, _ in told])
    size = np.array([size for _, _, size in told])
    return aggregate.merge(Columns(time, price, price, price, price, size), time, time)


@settings(deadline=None, max_examples=60)
@given(told=moves, resolution=lengths, to=st.integers(-9, 400), count=st.integers(1, 400))
def test_live_seconds_are_those_of_the_ticks_and_add_up_to_the_minutes(
    told: list[tuple[int, int, int]], resolution: str, to: int, count: int
) -> None:
    market = a_live_market()
    play(market, told)
    now_us = START * 1_000_000 + told[-1][0] * 250_000
    fine, length = seconds_of(told), parse_resolution(resolution)
    assert equal(bars_of(market, "1S", now_us), fine)
    minutes = bars_of(market, "1", now_us, start=START)
    assert equal(aggregate.intraday(fine, 60, ALWAYS_OPEN), minutes)
    # Any window is what it would be of all the bars at once: no seam, nothing twice.
    everything = aggregate.intraday(fine, length.seconds, market._session)
    for window in (Window(0, START + to, count), Window(START + to - count, START + to)):
        end = min(window.to_time, now_us // 1_000_000 + 1)
        expected = select(everything, Window(window.from_time, end, window.count_back))
        found = market.bars(length, window, now_us)
        assert equal(found.bars, expected.bars)
        assert found.next_time == expected.next_time


@settings(deadline=None, max_examples=30)
@given(told=moves)
def test_a_follower_that_missed_ticks_takes_the_leaders_seconds(
    told: list[tuple[int, int, int]],
) -> None:
    leader, follower = a_live_market(), a_live_market()
    play(leader, told)
    play(follower, told[::2])
    end = START + 6 * 60
    leader.close_until(end * 1_000_000)
    closed = leader.closed_since(START - 60)
    for row in zip(*(column.tolist() for column in closed.arrays()), strict=True):
        of_minute = leader.seconds_of(Columns.of_rows([row]))
        rows = zip(*(column.tolist() for column in of_minute.arrays()), strict=True)
        follower.take_closed(row, list(rows))
    for resolution in ("1S", "15S", "1"):
        mine, theirs = (bars_of(each, resolution, end * 10**6) for each in (leader, follower))
        assert equal(mine, theirs)


def test_old_seconds_go_and_the_answer_says_that_nothing_is_left() -> None:
    market = a_live_market(kept=120)
    play(market, [(second * 4, 100, 1) for second in range(0, 601, 20)])
    now_us = (START + 600) * 1_000_000
    kept = bars_of(market, "1S", now_us)
    assert kept.time.tolist() == list(range(START + 480, START + 601, 20))
    length = parse_resolution("1S")
    before = market.bars(length, Window(START, START + 480), now_us)
    assert (len(before), before.next_time) == (0, None)
    gap = market.bars(length, Window(START + 501, START + 519), now_us)
    assert (len(gap), gap.next_time) == (0, START + 500)
    forming = market.bars(length, Window(START + 601, START + 700), now_us)
    assert (len(forming), forming.next_time) == (0, START + 600)
    assert not market.is_closed(length, START, now_us)


def test_a_minute_of_the_providers_own_has_no_seconds() -> None:
    market = a_live_market()
    play(market, [(4, 100, 1), (300, 101, 1)])
    stored = [(START - 60, 100, 100, 100, 100, 1), (START, 99, 105, 98, 100, 50)]
    series = StoredSeries("sim-a-1", parse_resolution("1"), 2, 0, Columns.of_rows(stored))
    market.absorb(series, EMPTY)
    now_us = (START + 80) * 1_000_000
    assert bars_of(market, "1S", now_us).time.tolist() == [START + 75]


def test_a_market_that_keeps_no_seconds_says_so() -> None:
    market = a_live_market(kept=0)
    play(market, [(4, 100, 1)])
    assert "1S" not in market.resolutions()
    with pytest.raises(ResolutionUnsupportedError):
        bars_of(market, "15S", (START + 2) * 10**6)
    info = schemas.symbol_info(market)
    assert (info.has_seconds, info.seconds_multipliers) == (False, [])


async def test_leader_follower_and_a_restart_show_the_same_seconds(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    leader = Process(empty_database, bus, clock, {"scripted": provider}, "a")
    follower = Process(empty_database, bus, clock, {"scripted": provider}, "b")
    lease = await leader.leases.acquire("provider-scripted")
    running = asyncio.create_task(leader.service.run(name="scripted", lease=lease))
    try:
        status = leader.service._status

        def has(what: str, count: int) -> bool:
            return bool(getattr(status["scripted"], what) == count)

        await eventually(lambda: status["scripted"].state is ProviderState.STREAMING)
        await follower.market.load()
        for price, later in (("100.50", 0.2), ("101.00", 0.3), ("100.25", 4.0)):
            clock.advance(later)
            provider.tell(price, clock.now())
        await eventually(lambda: status["scripted"].ticks == 3)
        wanted = [[MINUTE + 30, 10_050, 10_100, 10_050, 10_100, 2],
                  [MINUTE + 34, 10_025, 10_025, 10_025, 10_025, 1]]  # fmt: skip
        for process in (leader, follower):
            assert await seconds_in(process, clock) == wanted
        clock.advance(30)
        await eventually(lambda: status["scripted"].bars == 1)
        third = Process(empty_database, bus, clock, {"scripted": provider}, "c")
        await third.market.load()
        for process in (leader, follower, third):
            assert await seconds_in(process, clock) == wanted
        async with empty_database.snapshot() as snapshot:
            assert await check_market_data(snapshot) == []
        # Two hours on, what was kept for one is gone.
        for hours in (1, 2):
            clock.advance(3_600)
            provider.tell("100.75", clock.now())
            ticks, bars = 3 + hours, 1 + hours
            await eventually(partial(has, "ticks", ticks))
            clock.advance(60)
            await eventually(partial(has, "bars", bars))
        fourth = Process(empty_database, bus, clock, {"scripted": provider}, "d")
        await fourth.market.load()
        kept = await seconds_in(fourth, clock)
        assert kept == await seconds_in(leader, clock)
        assert len(kept) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def seconds_in(process: Process, clock: FixedClock) -> list[list[int]]:
    answer = await process.market.bars(
        symbol="SIM:ALPHA", resolution="1S", from_time=0, to_time=FOREVER, count_back=5_000,
        now=clock.now(),
    )  # fmt: skip
    rows: list[list[int]] = np.stack(answer.selection.bars.arrays(), axis=1).tolist()
    return rows


@pytest.mark.parametrize("resolution", ["1S", "15S"])
async def test_no_bar_is_missed_when_the_loop_is_held_up_for_longer_than_one(
    service: DatafeedService, market_clock: FixedClock, resolution: str
) -> None:
    feed = f"bars:DEMO:AAPL:{resolution}"
    sink = RecordingSink(feed)
    broadcaster = a_broadcaster(service, sink, market_clock)
    (first,) = await broadcaster.newest_bar("DEMO:AAPL", resolution)
    for pause in (0.5, 0.5, 7.0, 0.5, 40.0, 0.5, 1.5, 0.5) * 3:
        market_clock.advance(pause)
        await broadcaster.broadcast()
    updates = [first, *sink.payloads(feed)]
    times = [update["time"] for update in updates]
    assert times == sorted(times)
    last_seen = {update["time"]: update for update in updates}
    answer = await service.bars(
        symbol="AAPL", resolution=resolution, from_time=times[0] // 1_000,
        to_time=times[-1] // 1_000, count_back=None, now=market_clock.now() + timedelta(hours=2),
    )  # fmt: skip
    history = schemas.bar_views(answer.market.instrument, answer.selection.bars)
    closed = [time for time in sorted(last_seen) if time < times[-1]]
    assert [last_seen[time] for time in closed] == history


async def test_a_newcomer_never_hears_of_bars_before_its_first(
    service: DatafeedService, market_clock: FixedClock
) -> None:
    feed = "bars:DEMO:AAPL:1S"
    sink = RecordingSink(feed)
    broadcaster = a_broadcaster(service, sink, market_clock)
    await broadcaster.newest_bar("DEMO:AAPL", "1S")
    market_clock.advance(3)
    (second,) = await broadcaster.newest_bar("DEMO:AAPL", "1S")
    # Those who listen already hear of the three ends at once, the newcomer goes on from here.
    earlier = [update["time"] for update in sink.payloads(feed)]
    assert earlier[-1] == second["time"]
    assert len(set(earlier)) == 4
    sink.sent.clear()
    for _ in range(6):
        market_clock.advance(0.5)
        await broadcaster.broadcast()
    assert min(update["time"] for update in sink.payloads(feed)) >= second["time"]


async def test_a_new_leader_learns_what_others_heard_of_the_forming_minute(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    first, second, fresh = (
        Process(empty_database, bus, clock, {"scripted": provider}, name) for name in "abc"
    )
    lease = await first.leases.acquire("provider-scripted")
    running = asyncio.create_task(first.service.run(name="scripted", lease=lease))
    led = first.service._status
    await eventually(lambda: led["scripted"].state is ProviderState.STREAMING)
    await second.market.load()
    for price in ("100.50", "101.00", "100.25"):
        clock.advance(1)
        provider.tell(price, clock.now())
    await eventually(lambda: led["scripted"].ticks == 3)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    bus.hearers = [each for each in bus.hearers if each[0] is not first]
    clock.advance(6)
    lease = await fresh.leases.acquire("provider-scripted")
    running = asyncio.create_task(fresh.service.run(name="scripted", lease=lease))
    try:
        status = fresh.service._status
        await eventually(lambda: status["scripted"].state is ProviderState.STREAMING)
        provider.tell("99.75", clock.now())
        await eventually(lambda: status["scripted"].ticks == 1)
        assert len(await seconds_in(second, clock)) == 4
        assert await seconds_in(fresh, clock) == await seconds_in(second, clock)
        assert equal(await fresh.minutes(clock), await second.minutes(clock))
        clock.advance(30)
        await eventually(lambda: status["scripted"].bars == 1)
        assert len(await seconds_in(second, clock)) == 4
        async with empty_database.snapshot() as snapshot:
            assert await check_market_data(snapshot) == []
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_process_that_came_late_asks_how_the_forming_minute_began(
    empty_database: Database, clock: FixedClock
) -> None:
    provider, bus = ScriptedProvider(a_context(clock)), LocalBus()
    leader = Process(empty_database, bus, clock, {"scripted": provider}, "a")
    lease = await leader.leases.acquire("provider-scripted")
    running = asyncio.create_task(leader.service.run(name="scripted", lease=lease))
    late = Process(empty_database, bus, clock, {"scripted": provider}, "b")
    following = None
    try:
        status = leader.service._status
        await eventually(lambda: status["scripted"].state is ProviderState.STREAMING)
        for price in ("100.50", "101.00", "100.25"):
            clock.advance(1)
            provider.tell(price, clock.now())
        await eventually(lambda: status["scripted"].ticks == 3)
        await late.market.load()
        assert await seconds_in(late, clock) == []
        following = asyncio.create_task(late.service.follow())

        async def are_equal() -> bool:
            mine, theirs = [await seconds_in(each, clock) for each in (leader, late)]
            return mine == theirs and equal(await leader.minutes(clock), await late.minutes(clock))

        await eventually(are_equal)
        # And goes on from there.
        clock.advance(1)
        provider.tell("100.75", clock.now())
        await eventually(lambda: status["scripted"].ticks == 4)
        assert await are_equal()
        assert len(await seconds_in(late, clock)) == 4
    finally:
        for task in (running, following):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


async def test_charts_are_offered_seconds_and_get_them(client_of: ClientOf) -> None:
    client = client_of("datafeed:read")
    config = (await client.get(f"{PREFIX}/udf/config")).json()
    info = (await client.get(f"{PREFIX}/udf/symbols", params={"symbol": "DEMO:AAPL"})).json()
    offered = [f"{each}S" for each in info["seconds_multipliers"]]
    assert offered == ["1S", "5S", "10S", "15S", "30S", "45S"]
    assert set(offered) <= set(config["supported_resolutions"]) & set(info["supported_resolutions"])
    now = int(NOW.timestamp())
    answers = {}
    for resolution, count in (("1S", 1_800), ("15S", 120), ("1", 30)):
        query: dict[str, str | int] = {"symbol": "AAPL", "resolution": resolution, "from": 0}
        query |= {"to": now // 60 * 60, "countback": count}
        answer = (await client.get(f"{PREFIX}/udf/history", params=query)).json()
        assert (answer["s"], len(answer["t"])) == ("ok", count)
        answers[resolution] = answer
    for fine, step in (("1S", 60), ("15S", 4)):
        found, minutes = answers[fine], answers["1"]
        assert found["t"][::step] == minutes["t"]
        assert found["o"][::step] == minutes["o"]
        assert found["c"][step - 1 :: step] == minutes["c"]
        parts = [slice(start, start + step) for start in range(0, len(found["t"]), step)]
        assert [max(found["h"][part]) for part in parts] == minutes["h"]
        assert [min(found["l"][part]) for part in parts] == minutes["l"]
        assert [sum(found["v"][part]) for part in parts] == minutes["v"]
    info = (await client.get(f"{PREFIX}/udf/symbols", params={"symbol": "HIST:AAPL"})).json()
    assert (info["has_seconds"], info["seconds_multipliers"]) == (False, [])
    refused = await client.get(
        f"{PREFIX}/udf/history?symbol=HIST:AAPL&resolution=1S&from=0&to={now}"
    )
    assert refused.json()["code"] == "datafeed.resolution.unsupported"
