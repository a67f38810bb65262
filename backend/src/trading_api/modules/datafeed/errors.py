"""What datafeed refuses.

TradingError
├── NotFoundError
│   └── InstrumentNotFoundError      no instrument of that symbol
├── InvalidInputError
│   ├── ResolutionUnsupportedError   not a resolution, or finer than the instrument's data
│   └── WindowInvalidError           the time window makes no sense
└── UnavailableError
    └── MarketDataMissingError       the history was never loaded

Codes are part of the API; messages may change.
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ErrorCode,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)


class DatafeedErrorCode(ErrorCode):
    """Stable codes of this module."""

    INSTRUMENT_NOT_FOUND = "datafeed.instrument.not_found"
    RESOLUTION_UNSUPPORTED = "datafeed.resolution.unsupported"
    WINDOW_INVALID = "datafeed.window.invalid"
    MARKET_DATA_MISSING = "datafeed.market_data.missing"


class InstrumentNotFoundError(NotFoundError):
    """No instrument has that symbol."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.INSTRUMENT_NOT_FOUND
    title: ClassVar[str] = "Unknown symbol"


class ResolutionUnsupportedError(InvalidInputError):
    """Not a resolution, or finer than the data behind the instrument."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.RESOLUTION_UNSUPPORTED
    title: ClassVar[str] = "Unsupported resolution"


class WindowInvalidError(InvalidInputError):
    """The window's start lies after its end, or an edge is out of range."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.WINDOW_INVALID
    title: ClassVar[str] = "Invalid time window"


class MarketDataMissingError(UnavailableError):
    """The bundled history was never loaded into the database."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.MARKET_DATA_MISSING
    title: ClassVar[str] = "Market data not loaded"
