"""Use cases of datafeed: ``market`` answers bars, quotes and look-ups from memory."""

from trading_api.modules.datafeed.service.market import (
    TIME_MAX,
    BarsAnswer,
    DatafeedService,
    SeedProgress,
    published_instrument,
    published_quote,
)

__all__ = [
    "TIME_MAX",
    "BarsAnswer",
    "DatafeedService",
    "SeedProgress",
    "published_instrument",
    "published_quote",
]
