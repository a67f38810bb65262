"""Use cases of datafeed.

``market``       bars, quotes and look-ups, answered from memory
``instruments``  what operators do with instruments
``marks``        marks on charts
"""

from trading_api.modules.datafeed.service.instruments import InstrumentResult, InstrumentService
from trading_api.modules.datafeed.service.market import (
    TIME_MAX,
    BarsAnswer,
    DatafeedService,
    SeedProgress,
    published_instrument,
    published_quote,
)
from trading_api.modules.datafeed.service.marks import MarkService

__all__ = [
    "TIME_MAX",
    "BarsAnswer",
    "DatafeedService",
    "InstrumentResult",
    "InstrumentService",
    "MarkService",
    "SeedProgress",
    "published_instrument",
    "published_quote",
]
