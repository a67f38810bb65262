"""HIST: the bundled series exactly, and the window rules over a series with holes."""

import csv
import gzip
import importlib.util
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.domain.columns import Columns, Window
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.selection import BARS_MAX, select
from trading_api.modules.datafeed.domain.series import HistoricalMarket
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError
from trading_api.modules.datafeed.tests.builders import (
    a_daily_series,
    a_historical_market,
    seconds,
)

bundled = BundledHistory()
NOW = seconds("2025-11-20T12:00") * 10**6
DAYS = a_daily_series(60).bars


def market_of(symbol: str) -> HistoricalMarket:
    instrument = next(each for each in bundled.instruments() if each.symbol == symbol)
    return HistoricalMarket(instrument, bundled.load_series(instrument.series_id).series)


def rows_of(bars: Columns) -> list[list[int]]:
    return [[int(column[i]) for column in bars.arrays()] for i in range(len(bars))]


def scaled_rows(lines: list[dict[str, str]], day: str, names: list[str]) -> list[list[int]]:
    return [
        [
            int(datetime.fromisoformat(line[day]).replace(tzinfo=UTC).timestamp()),
            *(int(Decimal(line[name]) * 10_000) for name in names[:4]),
            int(line[names[4]]),
        ]
        for line in lines
    ]


def test_apple_of_2012_equals_the_source_exactly() -> None:
    with (Path(__file__).parent / "aapl_2012.csv").open() as file:
        expected = scaled_rows(
            list(csv.DictReader(file)), "date", ["open", "high", "low", "close", "volume"]
        )
    window = Window(seconds("2012-01-01"), seconds("2013-01-01"))
    found = market_of("HIST:AAPL").bars(parse_resolution("1D"), window, NOW).bars
    assert len(found) == 250
    assert rows_of(found) == expected


@pytest.mark.skipif(
    importlib.util.find_spec("bokeh_sampledata") is None, reason="the source isn't installed"
)
@pytest.mark.parametrize("ticker", ["AAPL", "IBM", "MSFT", "GOOG", "FB"])
def test_every_daily_series_equals_the_package(ticker: str) -> None:
    spec = importlib.util.find_spec("bokeh_sampledata")
    assert spec is not None
    assert spec.origin is not None
    with gzip.open(Path(spec.origin).parent / "_data/stocks.csv.gz", "rt") as file:
        lines = [line for line in csv.DictReader(file) if line["Ticker"] == ticker]
    names = ["Open", "High", "Low", "Close", "Volume"]
    bars = bundled.load_series(f"{ticker.lower()}-1d").series.bars
    assert rows_of(bars) == scaled_rows(lines, "Date", names)


def test_forex_days_belong_to_the_day_they_end_on() -> None:
    market = market_of("HIST:EURUSD")
    hours = market.bars(
        parse_resolution("60"),
        Window(seconds("2017-01-08T22:00"), seconds("2017-01-09T22:00")),
        NOW,
    ).bars
    day = market.bars(
        parse_resolution("1D"), Window(seconds("2017-01-09"), seconds("2017-01-10")), NOW
    ).bars
    assert len(hours) == 24
    assert rows_of(day) == [
        [
            seconds("2017-01-09"),
            int(hours.open[0]),
            int(hours.high.max()),
            int(hours.low.min()),
            int(hours.close[-1]),
            int(hours.volume.sum()),
        ]
    ]


def test_four_hours_are_aligned_to_the_session_in_winter_and_summer() -> None:
    market = market_of("HIST:EURUSD")
    starts = market.bars(parse_resolution("240"), Window(0, 2**40, BARS_MAX), NOW).bars.time
    winter = starts[starts < seconds("2017-03-10")] // 3_600 % 4
    summer = starts[(starts > seconds("2017-04-01")) & (starts < seconds("2017-10-01"))]
    assert set(winter.tolist()) == {22 % 4}
    assert set((summer // 3_600 % 4).tolist()) == {21 % 4}


@pytest.mark.parametrize(("symbol", "resolution"), [("HIST:AAPL", "60"), ("HIST:EURUSD", "90")])
def test_resolution_finer_than_the_data_is_refused(symbol: str, resolution: str) -> None:
    with pytest.raises(ResolutionUnsupportedError):
        market_of(symbol).bars(parse_resolution(resolution), Window(0, 2**40), NOW)


def test_the_quote_of_history_is_its_last_bar() -> None:
    quote = market_of("HIST:AAPL").quote(NOW)
    assert (quote.bid, quote.last, quote.ask) == (4_304_700, 4_304_700, 4_304_700)
    assert quote.previous_close == 4_414_000
    forex = market_of("HIST:EURUSD").quote(NOW)
    assert (forex.bid, forex.last, forex.ask) == (120_067, 120_075, 120_075)


times = st.integers(int(DAYS.time[0]) - 200_000, int(DAYS.time[-1]) + 200_000)


@given(from_time=times, to_time=times)
def test_a_window_by_time_holds_exactly_the_bars_that_start_in_it(
    from_time: int, to_time: int
) -> None:
    selection = select(DAYS, Window(from_time, to_time))
    inside = (DAYS.time >= from_time) & (DAYS.time < to_time)
    assert selection.bars.time.tolist() == DAYS.time[inside].tolist()
    earlier = DAYS.time[DAYS.time < min(from_time, to_time)]
    if not inside.any():
        assert selection.next_time == (int(earlier[-1]) if len(earlier) else None)


@given(from_time=times, to_time=times, count_back=st.integers(1, 80))
def test_counting_back_gives_exactly_so_many_whatever_from_says(
    from_time: int, to_time: int, count_back: int
) -> None:
    selection = select(DAYS, Window(from_time, to_time, count_back))
    existing = DAYS.time[DAYS.time < to_time]
    assert selection.bars.time.tolist() == existing[-count_back:].tolist()
    assert selection.next_time is None


def test_the_cap_keeps_the_newest() -> None:
    bars = a_daily_series(BARS_MAX + 7).bars
    for window in (Window(0, 2**40), Window(0, 2**40, BARS_MAX + 100)):
        assert np.array_equal(select(bars, window).bars.time, bars.time[-BARS_MAX:])


def test_history_never_answers_bars_later_than_now() -> None:
    market = a_historical_market()
    now = int(DAYS.time[10]) * 10**6
    assert len(market.bars(parse_resolution("1D"), Window(0, 2**40), now).bars) == 11
