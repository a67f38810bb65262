"""What a provider tells is believed only where it can be true."""

import dataclasses
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.domain import aggregate
from trading_api.modules.datafeed.domain.columns import Columns, Window
from trading_api.modules.datafeed.domain.instrument import Exchange
from trading_api.modules.datafeed.domain.live import SETTLED_MINUTES_MAX, LiveMarket
from trading_api.modules.datafeed.domain.resolution import Resolution, parse_resolution
from trading_api.modules.datafeed.domain.selection import select
from trading_api.modules.datafeed.domain.series import HistoricalMarket, StoredSeries
from trading_api.modules.datafeed.domain.tick import Fault, ProviderTick, Tick, TickGate
from trading_api.modules.datafeed.tests.builders import an_instrument, seconds
from trading_api.modules.datafeed.tests.test_importing import equal

NOW_US = seconds("2026-01-05T12:00") * 1_000_000


def a_gate(last: int | None = 10_000) -> TickGate:
    return TickGate(price_decimals=2, volume_decimals=0, spread=2, last=last, last_us=0)


def told(price: str, **changes: object) -> ProviderTick:
    values: dict[str, object] = {"symbol": "SIM:A", "at_us": NOW_US, "price": Decimal(price)}
    return ProviderTick(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tick", "fault"),
    [
        (told("NaN"), Fault.NOT_FINITE),
        (told("Infinity"), Fault.NOT_FINITE),
        (told("100", bid=Decimal("NaN"), ask=Decimal(101)), Fault.NOT_FINITE),
        (told("0"), Fault.NOT_POSITIVE),
        (told("-100"), Fault.NOT_POSITIVE),
        (told("0.001"), Fault.NOT_POSITIVE),
        (told("100", size=Decimal(-1)), Fault.NOT_POSITIVE),
        (told("100", bid=Decimal("100.01"), ask=Decimal("100.00")), Fault.CROSSED),
        (told("100000"), Fault.SPIKE),
        (told("0.1"), Fault.SPIKE),
        (told("120"), Fault.UNCONFIRMED),
        (told("1e30"), Fault.OUT_OF_RANGE),
        (told("100", at_us=NOW_US - 61_000_000), Fault.OLD),
        (told("100", at_us=NOW_US + 6_000_000), Fault.EARLY),
    ],
)
def test_a_bad_tick_is_dropped_and_counted(tick: ProviderTick, fault: Fault) -> None:
    gate = a_gate()
    assert gate.admit(tick, now_us=NOW_US) is None
    assert dict(gate.dropped) == {fault: 1}
    good = gate.admit(told("100.5", size=Decimal(3)), now_us=NOW_US)
    assert good == Tick("SIM:A", NOW_US, 10_050, 3, 10_049, 10_051)


def test_a_jump_is_believed_after_two_more_ticks_agree() -> None:
    gate = a_gate()
    prices = ["120", "121", "100", "120", "120.5", "119.9", "120.1"]
    admitted = [gate.admit(told(price), now_us=NOW_US) is not None for price in prices]
    assert admitted == [False, False, True, False, False, True, True]
    # A thousand times is never believed, however often it is repeated.
    assert [gate.admit(told("200000"), now_us=NOW_US) for _ in range(9)] == [None] * 9


def test_a_tick_older_than_the_last_one_is_dropped() -> None:
    gate = a_gate()
    assert gate.admit(told("100"), now_us=NOW_US)
    assert gate.admit(told("100", at_us=NOW_US - 1), now_us=NOW_US) is None
    assert gate.dropped[Fault.OLD] == 1


START = seconds("2026-01-05T14:30")
"""A Monday, 09:30 in New York."""


def a_live_market(minutes: int = 500, *, session: str = "0930-1600") -> LiveMarket:
    instrument = an_instrument(exchange=Exchange.SIM, session=session, time_zone="America/New_York")
    random = np.random.default_rng(3)
    rows = []
    for index in range(minutes):
        # Of each of the days before 390 minutes, the last ones before the start's session.
        day, minute = divmod(minutes - 1 - index, 390)
        time = START - 86_400 * (day + 3) + (389 - minute) * 60
        close = 10_000 + int(random.integers(-50, 50))
        rows.append((time, close, close + 5, close - 5, close, 10))
    series = StoredSeries("sim-a-1", Resolution(1, parse_resolution("1").unit), 2, 0,
                          Columns.of_rows(rows))  # fmt: skip
    return LiveMarket(instrument, series)


def minutes_of(moves: list[tuple[int, int, int]]) -> Columns:
    """Return the minutes of ticks of (second behind START, price, size) in ascending order."""
    second, price, size = np.array(moves, dtype=np.int64).T
    starts = (START + second) // 60 * 60
    return aggregate.merge(Columns(starts, price, price, price, price, size), starts, starts)


ticks = st.lists(
    st.tuples(st.integers(0, 400 * 60), st.integers(9_500, 10_500), st.integers(0, 9)),
    min_size=1,
    max_size=80,
).map(sorted)


@settings(max_examples=60, deadline=None)
@given(moves=ticks, resolution=st.sampled_from(["1", "5", "60", "1D", "1W", "1M"]))
def test_live_bars_are_what_history_answers_later(
    moves: list[tuple[int, int, int]], resolution: str
) -> None:
    market = a_live_market()
    before = market.series.bars
    seen: dict[int, tuple[int, ...]] = {}
    for second, price, size in moves:
        at_us = (START + second) * 1_000_000
        market.apply(Tick("SIM:A", at_us, price, size, price - 1, price + 1))
        newest = market.bars(parse_resolution("1"), Window(0, START + second + 1, 1), at_us).bars
        seen[int(newest.time[0])] = tuple(int(column[0]) for column in newest.arrays())
    end = START + 500 * 60
    market.close_until(end * 1_000_000)
    built = minutes_of(moves)
    closed = market.closed_since(int(before.time[-1]))
    assert equal(closed, built)
    # The last that anybody saw of a minute is what it remained.
    rows = {int(row[0]): tuple(row) for row in np.stack(closed.arrays(), axis=1).tolist()}
    assert seen == rows
    # Every coarser bar is that of all minutes aggregated at once, live and from storage.
    whole = StoredSeries("x", market.series.resolution, 2, 0, Columns.concat([before, built]))
    length = parse_resolution(resolution)
    expected = HistoricalMarket(market.instrument, whole).bars(
        length, Window(0, end, 5_000), end * 1_000_000
    )
    for _ in range(2):
        found = market.bars(length, Window(0, end, 5_000), end * 1_000_000)
        assert equal(found.bars, expected.bars)
        market.absorb(whole)
        assert not len(market.closed_since(int(built.time[-1])))


@settings(max_examples=60, deadline=None)
@given(
    moves=ticks,
    minutes=st.sampled_from([1, 5, 45]),
    to_minute=st.integers(-6_000, 500),
    count=st.one_of(st.none(), st.integers(1, 700)),
)
def test_a_window_across_stored_and_live_minutes_has_no_seam(
    moves: list[tuple[int, int, int]], minutes: int, to_minute: int, count: int | None
) -> None:
    market = a_live_market()
    for second, price, size in moves:
        market.apply(Tick("SIM:A", (START + second) * 1_000_000, price, size, price - 1, price + 1))
    now_us = (START + moves[-1][0]) * 1_000_000
    session = aggregate.parse_session(market.instrument.session, market.instrument.time_zone)
    everything = aggregate.intraday(
        Columns.concat([market._past.series.bars, market._recent()]), minutes * 60, session
    )
    to_time = START + to_minute * 60
    window = Window(to_time - 90_000, to_time, count)
    end = min(to_time, now_us // 1_000_000 + 1)
    expected = select(everything, Window(window.from_time, end, count))
    found = market.bars(parse_resolution(str(minutes)), window, now_us)
    assert equal(found.bars, expected.bars)
    assert found.next_time == expected.next_time


def test_minutes_beside_the_stored_ones_are_few_however_long_it_runs() -> None:
    market = a_live_market(session="24x7")
    stored = market.series.bars
    for minute in range(3 * SETTLED_MINUTES_MAX):
        at_us = (START + minute * 60) * 1_000_000
        market.apply(Tick("SIM:A", at_us, 10_000, 1, 9_999, 10_001))
        if market.is_long:
            bars = Columns.concat([stored, market.closed_since(int(stored.time[-1]))])
            stored = bars
            market.absorb(dataclasses.replace(market.series, bars=bars))
        if minute % 100 == 0:
            # What each tick aggregates anew: two days at most.
            assert len(market._recent()) <= 2 * SETTLED_MINUTES_MAX + 1
    assert len(stored) >= 500 + 2 * SETTLED_MINUTES_MAX
    # Where nothing new is stored it is asked for again a day later, not at once.
    market.absorb(market.series)
    assert not market.is_long


def test_a_final_minute_told_again_replaces_what_was_known() -> None:
    market = a_live_market()
    minutes = [START, START + 60, START + 120]
    for time in (minutes[2], minutes[0], minutes[1]):
        market.take_closed((time, 1, 1, 1, 1, 1))
    market.take_closed((minutes[1], 2, 2, 2, 2, 2))
    closed = market.closed_since(START - 60)
    assert closed.time.tolist() == minutes
    assert closed.close.tolist() == [1, 2, 1]
    assert market.closed_since(minutes[1]).time.tolist() == minutes[2:]


def test_an_instrument_changed_while_a_minute_forms_keeps_the_minute() -> None:
    market = a_live_market()
    market.apply(Tick("SIM:A", START * 1_000_000, 10_100, 2, 10_099, 10_101))
    changed = dataclasses.replace(market.instrument, spread_ticks=8, version=2)
    assert market.fits(changed, market.series)
    market.become(changed)
    assert market.instrument == changed
    newest = market.bars(parse_resolution("1"), Window(0, START + 1, 1), START * 1_000_000).bars
    assert (int(newest.time[0]), int(newest.volume[0])) == (START, 2)
    assert not market.fits(dataclasses.replace(changed, price_decimals=3), market.series)


def test_a_coarser_tick_counts_for_charts_and_for_spreads_made_up() -> None:
    market = a_live_market()
    market.become(dataclasses.replace(market.instrument, spread_ticks=3, tick=25))
    assert schemas.symbol_info(market).minmov == 25
    quote = market.quote(START * 1_000_000)
    assert (quote.last - quote.bid, quote.ask - quote.last) == (25, 50)
    gate = TickGate(price_decimals=2, volume_decimals=0, spread=75, tick=25)
    tick = gate.admit(told("100"), now_us=NOW_US)
    assert tick is not None
    assert (tick.bid, tick.last, tick.ask) == (9_975, 10_000, 10_050)


def test_a_quote_tells_its_age_and_the_day_so_far() -> None:
    market = a_live_market(400)
    quiet = market.quote(START * 1_000_000)
    assert quiet.at_us == (market.last_time + 60) * 1_000_000
    market.apply(Tick("SIM:A", START * 1_000_000 + 7, 10_100, 2, 10_099, 10_101))
    quote = market.quote(START * 1_000_000 + 8)
    assert (quote.bid, quote.ask, quote.last, quote.at_us) == (
        10_099, 10_101, 10_100, START * 1_000_000 + 7
    )  # fmt: skip
    assert (quote.day_open, quote.day_volume) == (10_100, 2)
    assert quote.previous_close == quiet.last
