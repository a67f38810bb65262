"""What the broker refuses.

TradingError
├── NotFoundError
│   ├── AccountNotFoundError          no such account, or somebody else's
│   ├── OrderNotFoundError            no such order on this account
│   ├── EventsGoneError               older than what is kept (410)
│   ├── PositionNotFoundError         no open position of that id
│   └── InstrumentNotFoundError       the market has no such symbol
├── InvalidInputError
│   ├── OrderInvalidError             a field of the ticket breaks a rule; ``errors`` names it
│   ├── InstrumentUnknownError        the ticket names a symbol that doesn't exist
│   ├── InstrumentNotTradableError    the ticket names a symbol that is only for charts
│   ├── ClientOrderIdReusedError      the id belongs to another ticket
│   ├── LeverageInvalidError          outside what the house offers for the instrument
│   ├── AccountCurrencyError          no account is kept in that currency
│   ├── TransferDiffersError          the transfer's id belongs to another transfer
│   ├── TransferBooksError            demo and funded money never mix
│   └── TransferCurrencyError         the account keeps another currency
├── ConflictError
│   ├── TransferStateError            the transfer's state doesn't allow the step
│   └── OrderClosedError              filled, canceled, expired or rejected before
├── DeniedError
│   ├── InsufficientMarginError       the account can't carry the order
│   ├── InsufficientCashError         less may leave the account than the transfer takes
│   ├── ReduceOnlyError               there is nothing that the order could reduce
│   ├── PriceBandError                a price is too far from the market
│   ├── PositionLimitError            the position would be larger than the house allows
│   ├── ExposureLimitError            all positions together would be
│   ├── OpenOrdersLimitError          as many open orders as there may be
│   ├── TradingHaltedError            a kill switch lets nothing through but cancels
│   ├── TradingReduceOnlyError        a kill switch lets only closing orders through
│   ├── LeverageDeniedError           the account can't carry its positions at that leverage
│   ├── AccountNotResettableError     funded accounts keep what happened to them
│   ├── PostOnlyError                 a post-only order would have taken
│   ├── MarketClosedError             outside of the instrument's trading hours
│   └── AccountLimitError             the user has as many accounts as one may have
├── RateLimitedError
│   ├── OrderRateError                too many orders at once
│   └── StreamsExceededError          as many streams as one may have
└── UnavailableError
    ├── StaleQuoteError               no fresh quote to trade on
    └── MarketUnavailableError        instruments or quotes can't be had right now
"""

from collections.abc import Sequence
from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    DeniedError,
    ErrorCode,
    FieldError,
    GoneError,
    InvalidInputError,
    NotFoundError,
    RateLimitedError,
    TradingError,
    UnavailableError,
)


class BrokerErrorCode(ErrorCode):
    """Stable codes of the broker's refusals."""

    ACCOUNT_NOT_FOUND = "broker.account.not_found"
    ACCOUNT_LIMIT = "broker.account.limit_reached"
    STREAMS_EXCEEDED = "broker.stream.limit_reached"
    EVENTS_GONE = "broker.events.gone"
    ACCOUNT_CURRENCY = "broker.account.currency_unsupported"
    ACCOUNT_NOT_RESETTABLE = "broker.account.not_resettable"
    TRADING_HALTED = "broker.trading.halted"
    TRADING_REDUCE_ONLY = "broker.trading.reduce_only"
    LEVERAGE_INVALID = "broker.leverage.invalid"
    LEVERAGE_DENIED = "broker.leverage.insufficient_margin"
    ORDER_PRICE_BAND = "broker.order.price_band"
    ORDER_POSITION_LIMIT = "broker.order.position_limit"
    ORDER_EXPOSURE_LIMIT = "broker.order.exposure_limit"
    ORDER_OPEN_LIMIT = "broker.order.open_orders_limit"
    ORDER_RATE = "broker.order.rate_exceeded"
    ORDER_NOT_FOUND = "broker.order.not_found"
    ORDER_INVALID = "broker.order.invalid"
    ORDER_CLOSED = "broker.order.closed"
    ORDER_CLIENT_ID_REUSED = "broker.order.client_order_id_reused"
    ORDER_INSUFFICIENT_MARGIN = "broker.order.insufficient_margin"
    ORDER_REDUCE_ONLY = "broker.order.reduce_only"
    ORDER_POST_ONLY = "broker.order.post_only"
    ORDER_STALE_QUOTE = "broker.order.stale_quote"
    ORDER_UNKNOWN_INSTRUMENT = "broker.order.unknown_instrument"
    ORDER_NOT_TRADABLE = "broker.order.not_tradable"
    POSITION_NOT_FOUND = "broker.position.not_found"
    INSTRUMENT_NOT_FOUND = "broker.instrument.not_found"
    MARKET_CLOSED = "broker.market.closed"
    MARKET_UNAVAILABLE = "broker.market.unavailable"
    TRANSFER_BOOKS_DIFFER = "broker.transfer.books_differ"
    TRANSFER_CURRENCY_DIFFERS = "broker.transfer.currency_differs"
    TRANSFER_DIFFERS = "broker.transfer.exists_with_different_body"
    TRANSFER_INSUFFICIENT_CASH = "broker.transfer.insufficient_cash"
    TRANSFER_STATE = "broker.transfer.state_does_not_allow"


class OrderRefusedError(TradingError):
    """A refused order; the problem's context has FIX's OrdRejReason (tag 103) as a number."""

    fix_reason: ClassVar[int] = 99

    def __init__(
        self,
        message: str,
        *,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: int | None = None,
        **context: object,
    ) -> None:
        reason = next(
            (_FIELD_REASONS[each.field] for each in errors if each.field in _FIELD_REASONS),
            self.fix_reason,
        )
        super().__init__(
            message,
            errors=errors,
            retry_after_seconds=retry_after_seconds,
            **{"ordRejReason": reason, **context},
        )


_FIELD_REASONS = {
    "symbol": 1,
    "qty": 13,
    "limitPrice": 18,
    "stopPrice": 18,
    "takeProfit": 18,
    "stopLoss": 18,
    "duration.datetime": 4,
}
"""FIX's OrdRejReason by the field at fault."""


class AccountNotFoundError(NotFoundError):
    """No such trading account, or it belongs to somebody else."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ACCOUNT_NOT_FOUND
    title: ClassVar[str] = "Trading account not found"


class AccountLimitError(DeniedError):
    """The user has as many trading accounts as one may have."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ACCOUNT_LIMIT
    title: ClassVar[str] = "Too many trading accounts"


class StreamsExceededError(RateLimitedError):
    """The user has as many streams of quotes as one may have."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.STREAMS_EXCEEDED
    title: ClassVar[str] = "Too many streams"


class EventsGoneError(GoneError):
    """The account's events behind that number are kept no longer; read its state anew."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.EVENTS_GONE
    title: ClassVar[str] = "Events are kept no longer"


class AccountCurrencyError(InvalidInputError):
    """No account is kept in that currency."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ACCOUNT_CURRENCY
    title: ClassVar[str] = "Currency not offered"


class AccountNotResettableError(DeniedError):
    """Only paper accounts of the demo book begin anew."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ACCOUNT_NOT_RESETTABLE
    title: ClassVar[str] = "Account can't be reset"


class TradingHaltedError(DeniedError):
    """A kill switch lets nothing through but cancels; ``scope`` tells whose."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRADING_HALTED
    title: ClassVar[str] = "Trading is halted"


class TradingReduceOnlyError(DeniedError):
    """A kill switch lets only closing orders through; ``scope`` tells whose."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRADING_REDUCE_ONLY
    title: ClassVar[str] = "Only closing orders are taken"


class LeverageInvalidError(InvalidInputError):
    """The leverage lies outside what the house offers for the instrument."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.LEVERAGE_INVALID
    title: ClassVar[str] = "Leverage not offered"


class LeverageDeniedError(DeniedError):
    """The account can't carry its positions and orders at that leverage."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.LEVERAGE_DENIED
    title: ClassVar[str] = "Insufficient margin for this leverage"


class PriceBandError(DeniedError):
    """A price is so far from the market that it must be a mistake."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_PRICE_BAND
    title: ClassVar[str] = "Price outside the band"


class PositionLimitError(DeniedError):
    """The position would be larger than an account may hold."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_POSITION_LIMIT
    title: ClassVar[str] = "Position limit"


class ExposureLimitError(DeniedError):
    """All positions together would be larger than an account may hold."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_EXPOSURE_LIMIT
    title: ClassVar[str] = "Exposure limit"


class OpenOrdersLimitError(DeniedError):
    """The account has as many open orders of the instrument as it may have."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_OPEN_LIMIT
    title: ClassVar[str] = "Too many open orders"


class OrderRateError(RateLimitedError):
    """The account places orders faster than it may."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_RATE
    title: ClassVar[str] = "Too many orders at once"


class OrderNotFoundError(NotFoundError):
    """No such order on this account."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_NOT_FOUND
    title: ClassVar[str] = "Order not found"


class OrderInvalidError(OrderRefusedError, InvalidInputError):
    """A field of the ticket breaks a rule of the instrument or of the order type."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_INVALID
    title: ClassVar[str] = "Invalid order"
    fix_reason: ClassVar[int] = 11


class OrderClosedError(ConflictError):
    """The order is closed and never changes again."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_CLOSED
    title: ClassVar[str] = "Order is closed"


class ClientOrderIdReusedError(OrderRefusedError, InvalidInputError):
    """The client order id belongs to an order with another ticket; ``errors`` names the fields."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_CLIENT_ID_REUSED
    title: ClassVar[str] = "Client order id was used for another order"
    fix_reason: ClassVar[int] = 6


class InsufficientMarginError(OrderRefusedError, DeniedError):
    """The account can't carry the order; the numbers are in the context."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_INSUFFICIENT_MARGIN
    title: ClassVar[str] = "Insufficient margin"
    fix_reason: ClassVar[int] = 3


class ReduceOnlyError(OrderRefusedError, DeniedError):
    """A reduce-only order needs a position on the other side, at least as large."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_REDUCE_ONLY
    title: ClassVar[str] = "Nothing to reduce"
    fix_reason: ClassVar[int] = 99


class PostOnlyError(OrderRefusedError, DeniedError):
    """A post-only order would have filled at once; nothing changed."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_POST_ONLY
    title: ClassVar[str] = "Order would take"
    fix_reason: ClassVar[int] = 99


class MarketClosedError(OrderRefusedError, DeniedError):
    """The order would trade now, and the instrument doesn't."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.MARKET_CLOSED
    title: ClassVar[str] = "Market is closed"
    fix_reason: ClassVar[int] = 2


class StaleQuoteError(OrderRefusedError, UnavailableError):
    """There is no fresh quote that this order could trade on; nothing changed."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_STALE_QUOTE
    title: ClassVar[str] = "No fresh quote"
    fix_reason: ClassVar[int] = 8


class InstrumentUnknownError(OrderRefusedError, InvalidInputError):
    """The ticket names a symbol that doesn't exist."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_UNKNOWN_INSTRUMENT
    title: ClassVar[str] = "Unknown instrument"
    fix_reason: ClassVar[int] = 1


class InstrumentNotTradableError(OrderRefusedError, InvalidInputError):
    """The ticket names a symbol that is only for charts, or in another currency."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.ORDER_NOT_TRADABLE
    title: ClassVar[str] = "Instrument is not tradable"
    fix_reason: ClassVar[int] = 11


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


class TransferDiffersError(InvalidInputError):
    """A transfer with this id exists and says something else; `errors` names the fields."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRANSFER_DIFFERS
    title: ClassVar[str] = "A transfer with this id exists with another body"


class TransferBooksError(InvalidInputError):
    """One end is demo, the other funded."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRANSFER_BOOKS_DIFFER
    title: ClassVar[str] = "Demo and funded money don't mix"


class TransferCurrencyError(InvalidInputError):
    """The trading account keeps its cash in another currency."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRANSFER_CURRENCY_DIFFERS
    title: ClassVar[str] = "The account has another currency"


class TransferStateError(ConflictError):
    """The transfer stands where the step can't be done; it is closed, or never began."""

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRANSFER_STATE
    title: ClassVar[str] = "The transfer's state doesn't allow this"


class InsufficientCashError(DeniedError):
    """Less may leave the account than asked for.

    Context: ``required``, ``available`` (decimal text) and ``currency``.
    """

    code: ClassVar[ErrorCode] = BrokerErrorCode.TRANSFER_INSUFFICIENT_CASH
    title: ClassVar[str] = "Not enough withdrawable cash"
