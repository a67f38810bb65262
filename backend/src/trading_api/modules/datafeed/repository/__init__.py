"""Rows ⇄ domain of datafeed. No commit, no rule."""

from trading_api.modules.datafeed.repository.bars import (
    BarRepository,
    ImportRecord,
    SeriesRecord,
)
from trading_api.modules.datafeed.repository.instruments import InstrumentRepository
from trading_api.modules.datafeed.repository.market import (
    DemoAnchor,
    MarketData,
    MarketRepository,
    Revision,
)

__all__ = [
    "BarRepository",
    "DemoAnchor",
    "ImportRecord",
    "InstrumentRepository",
    "MarketData",
    "MarketRepository",
    "Revision",
    "SeriesRecord",
]
