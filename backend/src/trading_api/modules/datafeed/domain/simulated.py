"""A made-up series for an instrument that has no history, so that DEMO can offer it anyway.

A random walk of days whose deviation is about 1.5 % a day, a pure function of (seed, ticker):
every process makes the same one, and nothing of it is stored.
"""

import numpy as np

from trading_api.modules.datafeed.domain import bridge
from trading_api.modules.datafeed.domain.aggregate import DAY_SECONDS
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit
from trading_api.modules.datafeed.domain.series import StoredSeries

DAYS = 1_000
PRICE_DECIMALS = 4
_FIRST_PRICE = 100 * 10**PRICE_DECIMALS
_PRICE_MIN = 10**PRICE_DECIMALS
_MILLIONTHS = 1_000_000
_DRAWS = 7


def simulated_instrument(ticker: str) -> Instrument:
    """Return the DEMO stock of a ticker that has no history."""
    return Instrument(
        exchange=Exchange.DEMO,
        ticker=ticker,
        description=f"{ticker} - simulation without real prices",
        asset_class=AssetClass.STOCK,
        base_currency=None,
        quote_currency="USD",
        price_decimals=2,
        volume_decimals=0,
        spread_ticks=2,
        ask_is_last=False,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        session="24x7",
        time_zone="Etc/UTC",
        series_id=f"simulated-{ticker.lower()}",
        tradable=True,
    )


def simulated_series(ticker: str, *, seed: str) -> StoredSeries:
    """Return the daily bars of a ticker; their dates mean nothing, DEMO shifts them."""
    key = bridge.key_of(seed, ticker, "simulated")
    keys = bridge.keys_at(key, np.arange(DAYS, dtype=np.int64))
    # Sixteen-bit uniforms; the sum of four of them less their mean is nearly normal, with a
    # deviation of 37,837: scaled down to 1.5 % in millionths.
    uniforms = (bridge.draws(keys, _DRAWS, 0) >> np.uint64(48)).astype(np.int64)
    moves = (uniforms[:, :4].sum(axis=1) - 4 * 32_768) * 15_000 // 37_837
    reaches = uniforms[:, 4:6] * 8_000 // 65_536
    rows, close = [], _FIRST_PRICE
    for day in range(DAYS):
        open_ = close
        close = max(open_ * (_MILLIONTHS + int(moves[day])) // _MILLIONTHS, _PRICE_MIN)
        high = max(open_, close) * (_MILLIONTHS + int(reaches[day, 0])) // _MILLIONTHS
        low = min(open_, close) * (_MILLIONTHS - int(reaches[day, 1])) // _MILLIONTHS
        volume = 500_000 + 10 * int(uniforms[day, 6])
        rows.append((day * DAY_SECONDS, open_, high, low, close, volume))
    return StoredSeries(
        id=f"simulated-{ticker.lower()}",
        resolution=Resolution(1, Unit.DAY),
        price_decimals=PRICE_DECIMALS,
        volume_decimals=0,
        bars=Columns.of_rows(rows),
    )
