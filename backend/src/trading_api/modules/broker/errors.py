"""What the broker refuses.

TradingError
├── NotFoundError
│   ├── AccountNotFoundError          no such account, or somebody else's
│   ├── OrderNotFoundError            no such order on this account
│   ├── PositionNotFoundError         no open position of that id
│   └── InstrumentNotFoundError       the market has no such symbol
├── InvalidInputError
│   ├── OrderInvalidError             a field of the ticket breaks a rule; ``errors`` names it
│   ├── InstrumentUnknownError        the ticket names a symbol that doesn't exist
│   ├── InstrumentNotTradableError    the ticket names a symbol that is only for charts
│   └── ClientOrderIdReusedError      the id belongs to another ticket
├── ConflictError
│   └── OrderClosedError              filled, canceled, expired or rejected before
├── DeniedError
│   ├── InsufficientMarginError       the account can't carry the order
│   ├── ReduceOnlyError               there is nothing that the order could reduce
│   └── AccountLimitError             the user has as many accounts as one may have
└── UnavailableError
    ├── StaleQuoteError               no fresh quote to trade on
    └── MarketUnavailableError        instruments or quotes can't be had right now
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


class BrokerErrorCode(ErrorCode):
    """Stable codes of the broker's refusals."""

    ACCOUNT_NOT_FOUND = "broker.account.not_found"
    ACCOUNT_LIMIT = "broker.account.limit_reached"
    ORDER_NOT_FOUND = "broker.order.not_found"
    ORDER_INVALID = "broker.order.invalid"
    ORDER_CLOSED = "broker.order.closed"
    ORDER_CLIENT_ID_REUSED = "broker.order.client_order_id_reused"
    ORDER_INSUFFICIENT_MARGIN = "broker.order.insufficient_margin"
    ORDER_REDUCE_ONLY = "broker.order.reduce_only"
    ORDER_STALE_QUOTE = "broker.order.stale_quote"
    ORDER_UNKNOWN_INSTRUMENT = "broker.order.unknown_instrument"
    ORDER_NOT_TRADABLE = "broker.order.not_tradable"
    POSITION_NOT_FOUND = "broker.position.not_found"
    INSTRUMENT_NOT_FOUND = "broker.instrument.not_found"
    MARKET_UNAVAILABLE = "broker.market.unavailable"


class AccountNotFoundError(NotFoundError):
    """No such trading account, or it belongs to somebody else."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ACCOUNT_NOT_FOUND
    title: ClassVar[str] = "Trading account not found"


class AccountLimitError(DeniedError):
    """The user has as many trading accounts as one may have."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ACCOUNT_LIMIT
    title: ClassVar[str] = "Too many trading accounts"


class OrderNotFoundError(NotFoundError):
    """No such order on this account."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_NOT_FOUND
    title: ClassVar[str] = "Order not found"


class OrderInvalidError(InvalidInputError):
    """A field of the ticket breaks a rule of the instrument or of the order type."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_INVALID
    title: ClassVar[str] = "Invalid order"


class OrderClosedError(ConflictError):
    """The order is closed and never changes again."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_CLOSED
    title: ClassVar[str] = "Order is closed"


class ClientOrderIdReusedError(InvalidInputError):
    """The client order id belongs to an order with another ticket; ``errors`` names the fields."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_CLIENT_ID_REUSED
    title: ClassVar[str] = "Client order id was used for another order"


class InsufficientMarginError(DeniedError):
    """The account can't carry the order; the numbers are in the context."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_INSUFFICIENT_MARGIN
    title: ClassVar[str] = "Insufficient margin"


class ReduceOnlyError(DeniedError):
    """A reduce-only order needs a position on the other side, at least as large."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_REDUCE_ONLY
    title: ClassVar[str] = "Nothing to reduce"


class StaleQuoteError(UnavailableError):
    """There is no fresh quote that this order could trade on; nothing changed."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_STALE_QUOTE
    title: ClassVar[str] = "No fresh quote"


class InstrumentUnknownError(InvalidInputError):
    """The ticket names a symbol that doesn't exist."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_UNKNOWN_INSTRUMENT
    title: ClassVar[str] = "Unknown instrument"


class InstrumentNotTradableError(InvalidInputError):
    """The ticket names a symbol that is only for charts, or in another currency."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_NOT_TRADABLE
    title: ClassVar[str] = "Instrument is not tradable"


class PositionNotFoundError(NotFoundError):
    """No open position of that id on this account."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.POSITION_NOT_FOUND
    title: ClassVar[str] = "Position not found"


class InstrumentNotFoundError(NotFoundError):
    """The market has no such symbol."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.INSTRUMENT_NOT_FOUND
    title: ClassVar[str] = "Instrument not found"


class MarketUnavailableError(UnavailableError):
    """Instruments or quotes can't be had right now."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.MARKET_UNAVAILABLE
    title: ClassVar[str] = "Market data unavailable"
