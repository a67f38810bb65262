"""Answers joined from finished texts are what encoding the bars anew would give."""

from datetime import UTC, datetime
from functools import cache

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.api.answers import FinishedAnswers
from trading_api.modules.datafeed.domain.aggregate import ALWAYS_OPEN, intraday
from trading_api.modules.datafeed.domain.cache import SizedCache
from trading_api.modules.datafeed.domain.columns import Columns, Window
from trading_api.modules.datafeed.domain.demo import DemoMarket
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.selection import BARS_MAX, BLOCK_BARS, TextCache, select
from trading_api.modules.datafeed.tests.builders import (
    ANCHOR,
    a_daily_series,
    a_demo_market,
    an_hourly_series,
    an_instrument,
)

NOW_US = (ANCHOR + 2 * 86_400 + 5 * 3_600 + 17 * 60 + 23) * 1_000_000 + 700_000
LONG = Columns.of_rows(
    [(60 * i, 100 + i % 7, 120 + i % 5, 90, 101 + i % 3, i) for i in range(3 * BLOCK_BARS + 9)]
)


@cache
def market(kind: str) -> DemoMarket:
    return a_demo_market(a_daily_series() if kind == "days" else an_hourly_series(hours=100))


def whole(demo: DemoMarket, resolution: str) -> Columns:
    """Return every bar of a market up to now: all minutes, aggregated at once."""
    minutes = demo._minutes(demo.start_time // 86_400, NOW_US // 86_400_000_000, NOW_US)
    return intraday(minutes, parse_resolution(resolution).seconds, ALWAYS_OPEN)


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["days", "hours"]),
    resolution=st.sampled_from(["1", "3", "7", "45", "60", "240", "1440"]),
    to_minutes=st.integers(-500, 50_000),
    from_minutes=st.one_of(st.none(), st.integers(0, 12_000)),
    count=st.integers(1, 5_500),
)
def test_an_intraday_window_by_arithmetic_is_what_searching_all_bars_finds(
    kind: str, resolution: str, to_minutes: int, from_minutes: int | None, count: int
) -> None:
    demo = market(kind)
    to_time = demo.start_time + to_minutes * 60
    window = (
        Window(0, to_time, count)
        if from_minutes is None
        else Window(to_time - from_minutes * 60, to_time)
    )
    found = demo.bars(parse_resolution(resolution), window, NOW_US)
    end = min(to_time, NOW_US // 1_000_000 + 1)
    if end <= demo.start_time:
        assert not len(found)
        return
    expected = select(whole(demo, resolution), Window(window.from_time, end, window.count_back))
    for ours, theirs in zip(found.bars.arrays(), expected.bars.arrays(), strict=True):
        assert np.array_equal(ours, theirs)
    assert found.next_time == expected.next_time


@pytest.mark.parametrize("resolution", ["1", "15", "1D", "1W"])
@pytest.mark.parametrize("count", [1, 2, 700, BARS_MAX])
def test_the_joined_text_is_the_encoding_of_the_bars(resolution: str, count: int) -> None:
    demo, texts, instrument = market("days"), TextCache(), an_instrument()
    window = Window(0, NOW_US // 1_000_000 + 1, count)
    for _ in range(2):
        found = demo.bars(parse_resolution(resolution), window, NOW_US)
        views = schemas.bar_views(instrument, found.bars)
        expected = orjson.dumps({"bars": views, "no_data": False, "next_time": None})
        assert b"".join(schemas.encode_bars(instrument, found, texts)) == expected
        columns = orjson.loads(b"".join(schemas.encode_history(instrument, found, texts)))
        assert columns.pop("s") == "ok"
        assert [{**bar, "time": bar["time"] // 1_000} for bar in views] == [
            dict(zip(("time", "open", "high", "low", "close", "volume"), bar, strict=True))
            for bar in zip(*(columns[name] for name in "tohlcv"), strict=True)
        ]


@given(start=st.integers(0, len(LONG) - 1), count=st.integers(1, BARS_MAX))
@settings(max_examples=50, deadline=None)
def test_a_window_across_blocks_is_joined_without_a_seam(start: int, count: int) -> None:
    texts, instrument = TextCache(), an_instrument()
    to_time = int(LONG.time[min(start + count, len(LONG)) - 1]) + 1
    ready = select(LONG, Window(0, to_time, count), key="long")
    plain = select(LONG, Window(0, to_time, count))
    assert len(plain.parts) == 1
    for encode in (schemas.encode_bars, schemas.encode_history):
        whole, joined = [encode(instrument, each, texts) for each in (plain, ready)]
        assert b"".join(joined) == b"".join(whole)


def test_a_forming_bar_is_never_kept_as_text() -> None:
    demo = market("days")
    minute_us = 60_000_000
    start_us = int(datetime(2025, 11, 22, 5, 17, tzinfo=UTC).timestamp()) * 1_000_000
    texts, seen = TextCache(), set()
    for now_us in range(start_us, start_us + minute_us, 500_000):
        found = demo.bars(parse_resolution("1"), Window(0, now_us // 1_000_000 + 1, 2), now_us)
        assert [part.key is None for part in found.parts] == [False, True]
        seen.add(b"".join(schemas.encode_history(an_instrument(), found, texts)))
    assert len(seen) > 100


def test_a_cache_stays_within_its_bound_whatever_is_put_in() -> None:
    cache: SizedCache[int] = SizedCache(100)
    for number in range(50):
        cache.keep(number % 13, number, 1 + number % 40)
        assert cache.size <= 100
    cache.keep("too large", 1, 101)
    assert cache.find("too large") is None
    texts = TextCache(size_max=300_000)
    for end in range(1, len(LONG), 500):
        found = select(LONG, Window(0, int(LONG.time[end]), 100), key="bounded")
        schemas.encode_bars(an_instrument(), found, texts)
        assert texts.size <= 300_000


def test_an_answer_is_kept_when_it_is_asked_for_again_in_the_same_version() -> None:
    answers = FinishedAnswers()
    pieces: schemas.Pieces = [b"[", memoryview(b"1"), b"]"]
    assert answers.keep("window", 1, pieces) is pieces
    assert answers.find("window", 1) is None
    assert answers.keep("window", 2, pieces) is pieces, "another version is another answer"
    assert answers.keep("window", 2, pieces) == b"[1]"
    assert answers.find("window", 2) == b"[1]"
    assert answers.find("window", 3) is None
