"""The demo market's promises: exact sums, no jump, no future, the same everywhere."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.domain import aggregate, bridge
from trading_api.modules.datafeed.domain.aggregate import ALWAYS_OPEN
from trading_api.modules.datafeed.domain.columns import Columns, Window
from trading_api.modules.datafeed.domain.demo import SLOT_US, DemoMarket, Split
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.selection import BARS_MAX
from trading_api.modules.datafeed.tests.builders import (
    ANCHOR,
    a_daily_series,
    a_demo_market,
    a_series,
    an_hourly_series,
    an_instrument,
    seconds,
)

bundled = BundledHistory()
DAY = 86_400
FOREVER = 2**40
INTRADAY = ["1", "3", "5", "7", "15", "45", "60", "90", "240", "1440"]

daily_market = a_demo_market(a_daily_series(40))
hourly_market = a_demo_market(
    an_hourly_series(100), instrument=an_instrument(ticker="EURUSD", price_decimals=5)
)
markets = st.sampled_from([daily_market, hourly_market])
instants = st.integers(-3 * DAY * 10**6, 40 * DAY * 10**6).map(lambda us: ANCHOR * 10**6 + us)


def bars(
    market: DemoMarket,
    resolution: str,
    now_us: int,
    *,
    from_time: int = 0,
    to_time: int = FOREVER,
    count_back: int | None = None,
) -> Columns:
    window = Window(from_time, to_time, count_back)
    return market.bars(parse_resolution(resolution), window, now_us).bars


def equal(left: Columns, right: Columns) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left.arrays(), right.arrays(), strict=True))


@given(
    open_=st.integers(10, 10**6),
    up=st.integers(0, 5_000),
    down=st.integers(0, 9),
    where=st.floats(0, 1),
    steps=st.sampled_from([24, 60, 119]),
    key=st.integers(0, 2**63 - 1),
)
def test_path_begins_ends_and_touches_what_the_bar_says(
    open_: int, up: int, down: int, where: float, steps: int, key: int
) -> None:
    high, low = open_ + up, open_ - down
    close = low + round((high - low) * where)
    columns = [np.array([x], dtype=np.int64) for x in (open_, high, low, close)]
    keys = bridge.keys_at(key, np.array([7], dtype=np.int64))
    path = bridge.paths(keys, (columns[0], columns[1], columns[2], columns[3]), steps)[0]
    assert len(path) == steps + 1
    assert (path[0], path[-1], path.max(), path.min()) == (open_, close, high, low)


@settings(deadline=None)
@given(market=markets, day=st.integers(-3, 30))
def test_minutes_add_up_exactly_to_the_day_and_join_without_a_gap(
    market: DemoMarket, day: int
) -> None:
    start = ANCHOR + day * DAY
    later = (start + 3 * DAY) * 10**6
    minutes = bars(market, "1", later, from_time=start, to_time=start + DAY)
    assert np.array_equal(minutes.time, np.arange(start, start + DAY, 60))
    expected = bars(market, "1D", later, from_time=start, to_time=start + DAY)
    assert equal(aggregate.daily(minutes, ALWAYS_OPEN), expected)
    assert np.array_equal(minutes.open[1:], minutes.close[:-1])
    assert (minutes.low <= np.minimum(minutes.open, minutes.close)).all()
    assert (minutes.high >= np.maximum(minutes.open, minutes.close)).all()
    assert (minutes.volume >= 0).all()


@settings(deadline=None)
@given(
    market=markets, resolution=st.sampled_from([*INTRADAY, "1D", "2D", "1W", "1M"]), now=instants
)
def test_no_bar_knows_the_future(market: DemoMarket, resolution: str, now: int) -> None:
    seen = bars(market, resolution, now, count_back=3)
    assert seen.time[-1] * 10**6 <= now
    # The same question with the future cut off: a market that only has the slots until now.
    quote = market.quote(now)
    assert seen.close[-1] == quote.last
    today = bars(market, "1D", now, count_back=1)
    assert (today.open[0], today.high[0], today.low[0], today.close[0], today.volume[0]) == (
        quote.day_open,
        quote.day_high,
        quote.day_low,
        quote.last,
        quote.day_volume,
    )


@settings(deadline=None, max_examples=20)
@given(market=markets, minute=st.integers(0, 20_000))
def test_the_forming_minute_grows_by_slots_into_the_bar_that_history_answers(
    market: DemoMarket, minute: int
) -> None:
    start_us = (ANCHOR + minute * 60) * 10**6
    slots = [start_us + slot * SLOT_US for slot in range(120)]
    lasts = [market.quote(now).last for now in slots]
    forming = [bars(market, "1", now, count_back=1) for now in slots]
    for count, bar in enumerate(forming, start=1):
        assert bar.time[0] * 10**6 == start_us
        assert bar.open[0] == lasts[0]
        assert bar.high[0] == max(lasts[:count])
        assert bar.low[0] == min(lasts[:count])
        assert bar.close[0] == lasts[count - 1]
    assert (np.diff([int(bar.volume[0]) for bar in forming]) >= 0).all()
    much_later = start_us + 9 * DAY * 10**6
    history = bars(
        market, "1", much_later, from_time=start_us // 10**6, to_time=start_us // 10**6 + 60
    )
    assert equal(forming[-1], history)


@settings(deadline=None, max_examples=30)
@given(market=markets, resolution=st.sampled_from(INTRADAY), now=instants)
def test_every_intraday_bar_is_built_of_its_minutes(
    market: DemoMarket, resolution: str, now: int
) -> None:
    start = (now // 10**6 // DAY - 2) * DAY
    minutes = bars(market, "1", now, from_time=start)
    coarse = bars(market, resolution, now, from_time=start)
    assert equal(aggregate.intraday(minutes, int(resolution) * 60, ALWAYS_OPEN), coarse)


@settings(deadline=None, max_examples=25)
@given(
    market=markets,
    resolution=st.sampled_from(["30", "240", "1D", "1W"]),
    page=st.integers(1, 700),
    now=instants,
)
def test_paging_back_collects_every_bar_once_in_order(
    market: DemoMarket, resolution: str, page: int, now: int
) -> None:
    everything = bars(market, resolution, now, count_back=BARS_MAX)
    pages: list[Columns] = []
    to_time = FOREVER
    while True:
        selection = market.bars(parse_resolution(resolution), Window(to_time, to_time, page), now)
        if not len(selection.bars):
            assert selection.next_time is None
            break
        pages.insert(0, selection.bars)
        to_time = int(selection.bars.time[0])
    assert all(len(each) == page for each in pages[1:])
    assert equal(Columns.concat(pages), everything)


@settings(deadline=None, max_examples=25)
@given(market=markets, start=st.integers(-500, 500), pieces=st.integers(1, 9), now=instants)
def test_many_small_windows_equal_one_large(
    market: DemoMarket, start: int, pieces: int, now: int
) -> None:
    begin = now // 10**6 + start * 60
    edges = [begin + piece * 20 * 60 for piece in range(pieces + 1)]
    whole = bars(market, "1", now, from_time=edges[0], to_time=edges[-1])
    parts = [bars(market, "1", now, from_time=a, to_time=b) for a, b in itertools.pairwise(edges)]
    assert equal(Columns.concat(parts), whole)


def test_another_process_draws_the_same_prices() -> None:
    now = (ANCHOR + 5 * DAY + 12_345) * 10**6
    other = a_demo_market(a_daily_series(40))
    other.quote(now - 3 * DAY * 10**6)
    assert equal(
        bars(other, "1", now, count_back=2_000), bars(daily_market, "1", now, count_back=2_000)
    )
    assert other.quote(now) == daily_market.quote(now)


def test_another_seed_draws_other_minutes_of_the_same_days() -> None:
    now = (ANCHOR + 5 * DAY) * 10**6
    other = a_demo_market(a_daily_series(40), seed="another")
    assert equal(
        bars(other, "1D", now, to_time=ANCHOR), bars(daily_market, "1D", now, to_time=ANCHOR)
    )
    assert not equal(
        bars(other, "1", now, count_back=100), bars(daily_market, "1", now, count_back=100)
    )


def bundled_market(series_id: str) -> DemoMarket:
    instrument = next(
        each
        for each in bundled.instruments()
        if each.series_id == series_id and each.exchange == "DEMO"
    )
    series = bundled.load_series(series_id).series
    splits = bundled.splits_of(series_id)
    return DemoMarket(instrument, series, splits, anchor_time=ANCHOR, seed="tests")


def test_a_market_drawn_long_ago_is_the_one_drawn_now() -> None:
    """Frozen figures: whoever changes the construction changes the past of every chart."""
    now = (ANCHOR + 5 * DAY + 12_345) * 10**6
    last = bars(bundled_market("aapl-1d"), "1", now, count_back=1)
    assert [int(column[0]) for column in last.arrays()] == FROZEN


def test_shifted_bars_end_at_the_anchor_and_keep_the_closes() -> None:
    series = a_daily_series(40)
    now = (ANCHOR + DAY) * 10**6
    shifted = bars(daily_market, "1D", now, to_time=ANCHOR)
    assert len(shifted) == 40
    assert shifted.time[-1] == ANCHOR - DAY
    assert (np.diff(shifted.time) == DAY).all()
    assert np.abs(shifted.close * 100 - series.bars.close).max() <= 50
    assert np.array_equal(shifted.open[1:], shifted.close[:-1])


def test_continuation_repeats_the_source_without_its_first_bar_and_without_a_jump() -> None:
    series = a_daily_series(5)
    market = a_demo_market(series)
    days = bars(
        market, "1D", (ANCHOR + 9 * DAY) * 10**6, from_time=ANCHOR, to_time=ANCHOR + 9 * DAY
    )
    before = bars(market, "1D", ANCHOR * 10**6, to_time=ANCHOR).close[-1]
    for k, (open_, close) in enumerate(zip(days.open, days.close, strict=True)):
        position = 1 + k % 4
        ratio = int(series.bars.close[position]) / int(series.bars.close[position - 1])
        assert open_ == before
        assert abs(int(close) - int(before) * ratio) <= 0.51
        before = close


def test_a_split_leaves_no_crash() -> None:
    day = seconds("2012-01-02")
    series = a_series(
        [
            (day, 2_000_000, 2_010_000, 1_990_000, 2_000_000, 10),
            (day + DAY, 1_000_000, 1_010_000, 990_000, 1_000_000, 20),
            (day + 2 * DAY, 1_010_000, 1_020_000, 1_000_000, 1_020_000, 20),
        ]
    )
    market = a_demo_market(series, splits=[Split(day + DAY, 2)])
    days = bars(market, "1D", (ANCHOR + 3 * DAY) * 10**6, to_time=ANCHOR + 3 * DAY)
    assert days.close.tolist() == [10_000, 10_000, 10_200, 10_200, 10_404, 10_404]
    assert days.volume.tolist()[:3] == [20, 20, 20]


def test_quotes_stay_on_both_sides_of_the_last_price_and_move() -> None:
    now = (ANCHOR + DAY) * 10**6
    quotes = [daily_market.quote(now + slot * SLOT_US) for slot in range(600)]
    assert all(quote.bid < quote.last < quote.ask for quote in quotes)
    assert [quote.sequence for quote in quotes] == list(range(now // SLOT_US, now // SLOT_US + 600))
    assert len({quote.last for quote in quotes}) > 10
    assert {quote.previous_close for quote in quotes} == {
        int(bars(daily_market, "1D", now, to_time=ANCHOR + DAY).close[-1])
    }


def test_before_the_beginning_there_is_nothing_more_to_ask_for() -> None:
    now = (ANCHOR + DAY) * 10**6
    selection = daily_market.bars(parse_resolution("1"), Window(0, daily_market.start_time), now)
    assert not len(selection.bars)
    assert selection.next_time is None


def test_a_window_in_the_future_points_back_to_the_newest_bar() -> None:
    now = (ANCHOR + DAY + 90) * 10**6
    ahead = ANCHOR + 2 * DAY
    selection = daily_market.bars(parse_resolution("1"), Window(ahead, ahead + DAY), now)
    assert not len(selection.bars)
    assert selection.next_time == ANCHOR + DAY + 60


@pytest.mark.parametrize("series_id", bundled.series_ids())
def test_every_bundled_series_makes_a_market_for_years(series_id: str) -> None:
    market = bundled_market(series_id)
    now = (ANCHOR + 3 * 365 * DAY + 4_567) * 10**6
    days = bars(market, "1D", now, count_back=BARS_MAX)
    assert (np.diff(days.time) == DAY).all()
    assert np.array_equal(days.open[1:], days.close[:-1])
    assert days.low.min() > market.instrument.spread_ticks
    # The worst real day is AAPL's fall by half of 2000-09-29.
    assert (np.abs(np.diff(np.log(days.close))) < 0.75).all()
    assert market.quote(now).bid > 0


FROZEN = [1764041100, 39077, 39135, 39072, 39090, 3439]
