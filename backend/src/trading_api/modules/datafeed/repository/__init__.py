"""Rows ⇄ domain of datafeed. No commit, no rule."""

from trading_api.modules.datafeed.repository.market import (
    DemoAnchor,
    MarketData,
    MarketRepository,
)

__all__ = ["DemoAnchor", "MarketData", "MarketRepository"]
