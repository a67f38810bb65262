"""Use cases of datafeed.

``market``       bars, quotes and look-ups, answered from memory
``instruments``  what operators do with instruments
``imports``      files of bars into series
``exports``      long stretches of bars out
``providers``    live markets, fed by one process and followed by the others
``store``        where a series is served from
``marks``        marks on charts
"""

from trading_api.modules.datafeed.service.exports import ExportService
from trading_api.modules.datafeed.service.imports import (
    ImportReport,
    ImportRequest,
    ImportService,
)
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
from trading_api.modules.datafeed.service.providers import (
    TICK_PATTERN,
    ProviderService,
    ProviderState,
    ProviderStatus,
)

__all__ = [
    "TICK_PATTERN",
    "TIME_MAX",
    "BarsAnswer",
    "DatafeedService",
    "ExportService",
    "ImportReport",
    "ImportRequest",
    "ImportService",
    "InstrumentResult",
    "InstrumentService",
    "MarkService",
    "ProviderService",
    "ProviderState",
    "ProviderStatus",
    "SeedProgress",
    "published_instrument",
    "published_quote",
]
