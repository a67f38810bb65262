"""Instruments, series and markets for tests, small and plain unless told otherwise."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.demo import DemoMarket, Split
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.series import HistoricalMarket, StoredSeries

ANCHOR = int(datetime(2025, 11, 20, tzinfo=UTC).timestamp())
"""00:00 UTC of the tests' anchor day, seconds."""


def seconds(text: str) -> int:
    """Return an ISO instant, UTC where it names no zone, as seconds."""
    instant = datetime.fromisoformat(text)
    return int((instant if instant.tzinfo else instant.replace(tzinfo=UTC)).timestamp())


def an_instrument(
    *,
    exchange: Exchange = Exchange.DEMO,
    ticker: str = "AAPL",
    price_decimals: int = 2,
    spread_ticks: int = 2,
    ask_is_last: bool = False,
    session: str = "24x7",
    time_zone: str = "Etc/UTC",
) -> Instrument:
    return Instrument(
        exchange=exchange,
        ticker=ticker,
        description=f"{ticker} for tests",
        asset_class=AssetClass.STOCK,
        base_currency=None,
        quote_currency="USD",
        price_decimals=price_decimals,
        volume_decimals=0,
        spread_ticks=spread_ticks,
        ask_is_last=ask_is_last,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        session=session,
        time_zone=time_zone,
        series_id="test-1d",
        tradable=exchange is Exchange.DEMO,
    )


def a_series(
    rows: Sequence[Sequence[int]], *, resolution: str = "1D", price_decimals: int = 4
) -> StoredSeries:
    return StoredSeries(
        "test-1d", parse_resolution(resolution), price_decimals, 0, Columns.of_rows(rows)
    )


def a_daily_series(days: int = 30, *, start: str = "2012-01-02", seed: int = 1) -> StoredSeries:
    """Return plausible daily bars of weekdays, prices around 100 with four decimals."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, ...]] = []
    close, day = 1_000_000, seconds(start)
    while len(rows) < days:
        if (day // 86_400 + 3) % 7 < 5:
            open_ = max(close + int(random.integers(-9_000, 9_001)), 50_000)
            close = max(open_ + int(random.integers(-20_000, 20_001)), 50_000)
            high = max(open_, close) + int(random.integers(0, 9_000))
            low = min(open_, close) - int(random.integers(0, 9_000))
            rows.append((day, open_, high, low, close, int(random.integers(0, 10**8))))
        day += 86_400
    return a_series(rows)


def an_hourly_series(hours: int = 100, *, seed: int = 2) -> StoredSeries:
    """Return plausible hourly bars without holes, prices around 1.1 with five decimals."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, ...]] = []
    close = 110_000
    for index in range(hours):
        open_ = close + int(random.integers(-9, 10))
        close = open_ + int(random.integers(-90, 91))
        high = max(open_, close) + int(random.integers(0, 40))
        low = min(open_, close) - int(random.integers(0, 40))
        start = seconds("2017-01-02T00:00") + index * 3_600
        rows.append((start, open_, high, low, close, int(random.integers(0, 10**11))))
    return a_series(rows, resolution="60", price_decimals=5)


def a_demo_market(
    series: StoredSeries | None = None,
    *,
    splits: Sequence[Split] = (),
    seed: str = "tests",
    instrument: Instrument | None = None,
) -> DemoMarket:
    return DemoMarket(
        instrument or an_instrument(),
        series or a_daily_series(),
        splits,
        anchor_time=ANCHOR,
        seed=seed,
    )


def a_historical_market(
    series: StoredSeries | None = None, *, instrument: Instrument | None = None
) -> HistoricalMarket:
    series = series or a_daily_series()
    return HistoricalMarket(
        instrument
        or an_instrument(
            exchange=Exchange.HIST,
            price_decimals=series.price_decimals,
            session="0930-1600",
            time_zone="America/New_York",
        ),
        series,
    )
