"""What datafeed refuses.

TradingError
├── NotFoundError
│   ├── InstrumentNotFoundError      no instrument of that symbol
│   ├── LayoutNotFoundError          no saved chart of that id, or another's
│   └── TemplateNotFoundError        no saved template of that name
├── ConflictError
│   ├── InstrumentExistsError        that symbol is or was listed
│   ├── InstrumentChangedError       changed by somebody else in between
│   └── InstrumentTradableError      orders on it are still taken
├── DeniedError
│   └── ChartStorageFullError        as many saved charts as a user may keep
├── InvalidInputError
│   ├── InstrumentInvalidError       its parts contradict one another, or its series
│   ├── ResolutionUnsupportedError   not a resolution, or finer than the instrument's data
│   ├── WindowInvalidError           the time window makes no sense
│   ├── ImportUnreadableError        not a file of bars
│   └── ImportRefusedError           some of its lines are bad; nothing was imported
├── ConflictError
│   ├── ImportMismatchError          the series has another resolution, or fewer decimals
│   └── ImportBusyError              the same file is being imported already
└── UnavailableError
    └── MarketDataMissingError       the history was never loaded

Codes are part of the API; messages may change.
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    DeniedError,
    ErrorCode,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)


class DatafeedErrorCode(ErrorCode):
    """Stable codes of this module."""

    INSTRUMENT_NOT_FOUND = "datafeed.instrument.not_found"
    INSTRUMENT_EXISTS = "datafeed.instrument.exists"
    INSTRUMENT_CHANGED = "datafeed.instrument.changed"
    INSTRUMENT_TRADABLE = "datafeed.instrument.tradable"
    INSTRUMENT_INVALID = "datafeed.instrument.invalid"
    LAYOUT_NOT_FOUND = "datafeed.layout.not_found"
    TEMPLATE_NOT_FOUND = "datafeed.template.not_found"
    CHART_STORAGE_FULL = "datafeed.chart_storage.full"
    RESOLUTION_UNSUPPORTED = "datafeed.resolution.unsupported"
    WINDOW_INVALID = "datafeed.window.invalid"
    MARKET_DATA_MISSING = "datafeed.market_data.missing"
    IMPORT_UNREADABLE = "datafeed.import.unreadable"
    IMPORT_REFUSED = "datafeed.import.refused"
    IMPORT_MISMATCH = "datafeed.import.mismatch"
    IMPORT_BUSY = "datafeed.import.busy"


class InstrumentNotFoundError(NotFoundError):
    """No instrument has that symbol."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.INSTRUMENT_NOT_FOUND
    title: ClassVar[str] = "Unknown symbol"


class LayoutNotFoundError(NotFoundError):
    """The user has no saved chart of that id."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.LAYOUT_NOT_FOUND
    title: ClassVar[str] = "Unknown chart"


class TemplateNotFoundError(NotFoundError):
    """The user has no template of that name."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.TEMPLATE_NOT_FOUND
    title: ClassVar[str] = "Unknown template"


class ChartStorageFullError(DeniedError):
    """The user keeps as many charts or templates as is allowed, or as much."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.CHART_STORAGE_FULL
    title: ClassVar[str] = "Chart storage full"


class InstrumentExistsError(ConflictError):
    """The symbol is taken, by a listed instrument or by a retired one."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.INSTRUMENT_EXISTS
    title: ClassVar[str] = "Symbol already taken"


class InstrumentChangedError(ConflictError):
    """The version that the change was made for isn't the present one."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.INSTRUMENT_CHANGED
    title: ClassVar[str] = "Instrument changed in between"


class InstrumentTradableError(ConflictError):
    """An instrument that takes orders can't be retired."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.INSTRUMENT_TRADABLE
    title: ClassVar[str] = "Instrument still tradable"


class InstrumentInvalidError(InvalidInputError):
    """The parts of an instrument contradict one another, or the series behind it."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.INSTRUMENT_INVALID
    title: ClassVar[str] = "Invalid instrument"


class ResolutionUnsupportedError(InvalidInputError):
    """Not a resolution, or finer than the data behind the instrument."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.RESOLUTION_UNSUPPORTED
    title: ClassVar[str] = "Unsupported resolution"


class WindowInvalidError(InvalidInputError):
    """The window's start lies after its end, or an edge is out of range."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.WINDOW_INVALID
    title: ClassVar[str] = "Invalid time window"


class ImportUnreadableError(InvalidInputError):
    """The file isn't one of bars in a format that is read here."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.IMPORT_UNREADABLE
    title: ClassVar[str] = "Not a file of bars"


class ImportRefusedError(InvalidInputError):
    """Some lines of the file are bad, so nothing of it was imported."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.IMPORT_REFUSED
    title: ClassVar[str] = "Bad lines"


class ImportMismatchError(ConflictError):
    """The file doesn't fit the series that it shall go into."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.IMPORT_MISMATCH
    title: ClassVar[str] = "Another kind of series"


class ImportBusyError(ConflictError):
    """Another run imports the same file into the same series right now."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.IMPORT_BUSY
    title: ClassVar[str] = "Already being imported"


class MarketDataMissingError(UnavailableError):
    """The bundled history was never loaded into the database."""

    code: ClassVar[ErrorCode] = DatafeedErrorCode.MARKET_DATA_MISSING
    title: ClassVar[str] = "Market data not loaded"
