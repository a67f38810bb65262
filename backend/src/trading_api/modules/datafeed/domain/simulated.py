"""A made-up series for an instrument that has no history, so that DEMO can offer it anyway.

A random walk of days, about 1.5 % a day unless the market is known for another character; a pure
function of (seed, ticker): every process makes the same one, and nothing of it is stored.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trading_api.modules.datafeed.domain import bridge
from trading_api.modules.datafeed.domain.aggregate import DAY_SECONDS
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit
from trading_api.modules.datafeed.domain.series import StoredSeries

DAYS = 1_000
PRICE_DECIMALS = 4
_SCALE = 10**PRICE_DECIMALS
_PRICE_MIN = 10**PRICE_DECIMALS
_MILLIONTHS = 1_000_000
_DRAWS = 7


@dataclass(frozen=True, slots=True)
class Character:
    """What a simulated market is like.

    Attributes:
        name: for people.
        asset_class: its kind.
        first_price: where its walk begins, whole units of its currency.
        daily_move_millionths: standard deviation of a day's move.
        spread_ticks: distance of bid and ask.
        base_currency: the currency that a unit is one of; None for none.
        quantity_decimals: how finely it is traded.
        multiplier: units of the currency per unit and whole price point.
        tradable: whether the paper venue takes orders on it.
    """

    name: str
    asset_class: AssetClass = AssetClass.STOCK
    first_price: int = 100
    daily_move_millionths: int = 15_000
    spread_ticks: int = 2
    base_currency: str | None = None
    quantity_decimals: int = 0
    multiplier: int = 1
    tradable: bool = True


KNOWN: Mapping[str, Character] = {
    "BTCUSD": Character(
        "Bitcoin / U.S. Dollar",
        asset_class=AssetClass.CRYPTO,
        first_price=40_000,
        daily_move_millionths=32_000,
        spread_ticks=500,
        base_currency="BTC",
        quantity_decimals=4,
    ),
    "US500": Character(
        "Index of 500 large U.S. companies",
        asset_class=AssetClass.INDEX,
        first_price=4_000,
        daily_move_millionths=10_000,
        spread_ticks=0,
        tradable=False,
    ),
    "OIL": Character(
        "Crude oil, nearest month",
        asset_class=AssetClass.FUTURES,
        first_price=75,
        daily_move_millionths=22_000,
        multiplier=1_000,
        tradable=False,
    ),
}
"""Markets that DEMO always offers, one of each kind that no bundled history has. What is not
tradable has no margin rule."""


def simulated_instrument(ticker: str) -> Instrument:
    """Return the DEMO instrument of a ticker that has no history; a stock where it is unknown."""
    character = KNOWN.get(ticker) or Character(ticker)
    unit = 10**character.quantity_decimals
    return Instrument(
        exchange=Exchange.DEMO,
        ticker=ticker,
        description=f"{character.name} - simulation without real prices",
        asset_class=character.asset_class,
        base_currency=character.base_currency,
        quote_currency="USD",
        price_decimals=2,
        volume_decimals=0,
        spread_ticks=character.spread_ticks,
        ask_is_last=False,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=unit,
        session="24x7",
        time_zone="Etc/UTC",
        series_id=f"simulated-{ticker.lower()}",
        tradable=character.tradable,
        multiplier=character.multiplier,
        quantity_decimals=character.quantity_decimals,
    )


def simulated_series(ticker: str, *, seed: str) -> StoredSeries:
    """Return the daily bars of a ticker; their dates mean nothing, DEMO shifts them."""
    key = bridge.key_of(seed, ticker, "simulated")
    keys = bridge.keys_at(key, np.arange(DAYS, dtype=np.int64))
    # Sixteen-bit uniforms; the sum of four of them less their mean is nearly normal, with a
    # deviation of 37,837: scaled down to the market's own in millionths.
    uniforms = (bridge.draws(keys, _DRAWS, 0) >> np.uint64(48)).astype(np.int64)
    character = KNOWN.get(ticker) or Character(ticker)
    deviation = character.daily_move_millionths
    moves = (uniforms[:, :4].sum(axis=1) - 4 * 32_768) * deviation // 37_837
    reaches = uniforms[:, 4:6] * (deviation * 8 // 15) // 65_536
    rows, close = [], character.first_price * _SCALE
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
