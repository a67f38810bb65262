import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.modules.datafeed.domain import aggregate
from trading_api.modules.datafeed.domain.aggregate import ALWAYS_OPEN, parse_session
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.tests.builders import a_daily_series, seconds

FOREX = parse_session("1700-1700:23456", "America/New_York")
NYSE = parse_session("0930-1600", "America/New_York")


def bars_at(*times: str) -> Columns:
    return Columns.of_rows(
        [(seconds(t), i + 10, i + 15, i + 5, i + 11, 1) for i, t in enumerate(times)]
    )


def test_hour_of_a_stock_starts_at_half_past() -> None:
    bars = bars_at("2012-01-03T14:30", "2012-01-03T15:29", "2012-01-03T15:30", "2012-01-03T20:59")
    hours = aggregate.intraday(bars, 3_600, NYSE)
    assert hours.time.tolist() == [
        seconds("2012-01-03T14:30"),
        seconds("2012-01-03T15:30"),
        seconds("2012-01-03T20:30"),
    ]


def test_forex_day_ends_at_five_in_new_york_and_sunday_evening_is_monday() -> None:
    bars = bars_at("2017-01-01T22:00", "2017-01-02T21:00", "2017-01-02T22:00")
    days = aggregate.daily(bars, FOREX)
    assert days.time.tolist() == [seconds("2017-01-02"), seconds("2017-01-03")]


def test_forex_session_follows_daylight_saving() -> None:
    winter, summer = bars_at("2017-03-10T21:00", "2017-03-12T21:00").time
    opens = FOREX.opens(np.array([winter, summer]))
    assert opens.tolist() == [seconds("2017-03-09T22:00"), seconds("2017-03-12T21:00")]


def test_week_starts_on_monday_and_is_timed_by_its_first_trading_day() -> None:
    # 2012-01-16 was a holiday: the week's first bar is Tuesday's.
    days = bars_at("2012-01-13", "2012-01-17", "2012-01-20", "2012-01-23")
    weeks = aggregate.from_days(days, parse_resolution("1W"), open_every_day=False)
    assert weeks.time.tolist() == [
        seconds("2012-01-13"),
        seconds("2012-01-17"),
        seconds("2012-01-23"),
    ]


def test_several_days_restart_counting_each_year() -> None:
    days = bars_at("2011-12-28", "2011-12-29", "2011-12-30", "2012-01-03", "2012-01-04")
    pairs = aggregate.from_days(days, parse_resolution("2D"), open_every_day=False)
    assert pairs.time.tolist() == [
        seconds("2011-12-28"),
        seconds("2011-12-30"),
        seconds("2012-01-03"),
    ]


def test_quarters_are_counted_from_january() -> None:
    days = bars_at("2012-02-01", "2012-03-30", "2012-04-02", "2013-01-02")
    quarters = aggregate.from_days(days, parse_resolution("3M"), open_every_day=False)
    assert quarters.time.tolist() == [
        seconds("2012-02-01"),
        seconds("2012-04-02"),
        seconds("2013-01-02"),
    ]


@pytest.mark.parametrize("notation", ["", "0930", "9-5", "always"])
def test_session_that_is_not_understood_is_refused(notation: str) -> None:
    with pytest.raises(ValueError, match="not a session"):
        parse_session(notation, "Etc/UTC")


@given(
    days=st.integers(1, 300),
    resolution=st.sampled_from(["1D", "2D", "5D", "1W", "2W", "1M", "3M", "12M"]),
)
def test_coarser_bars_keep_every_extreme_and_all_volume(days: int, resolution: str) -> None:
    bars = a_daily_series(days).bars
    coarse = aggregate.from_days(bars, parse_resolution(resolution), open_every_day=False)
    assert (np.diff(coarse.time) > 0).all()
    assert set(coarse.time.tolist()) <= set(bars.time.tolist())
    assert coarse.volume.sum() == bars.volume.sum()
    assert coarse.high.max() == bars.high.max()
    assert coarse.low.min() == bars.low.min()
    assert coarse.open[0] == bars.open[0]
    assert coarse.close[-1] == bars.close[-1]
    assert (coarse.low <= np.minimum(coarse.open, coarse.close)).all()
    assert (coarse.high >= np.maximum(coarse.open, coarse.close)).all()


@given(first=st.sampled_from([5, 15, 30]), times=st.integers(2, 4))
def test_two_steps_equal_one(first: int, times: int) -> None:
    start = seconds("2025-11-20T00:00")
    minutes = Columns.of_rows(
        [
            (start + i * 60, 100 + i % 7, 108 + i % 11, 90 - i % 5, 101 + i % 3, i)
            for i in range(3_000)
        ]
    )
    once = aggregate.intraday(minutes, first * times * 60, ALWAYS_OPEN)
    twice = aggregate.intraday(
        aggregate.intraday(minutes, first * 60, ALWAYS_OPEN), first * times * 60, ALWAYS_OPEN
    )
    for a, b in zip(once.arrays(), twice.arrays(), strict=True):
        assert (a == b).all()
