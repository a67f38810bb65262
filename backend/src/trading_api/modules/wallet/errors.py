"""What the wallet refuses.

TradingError
├── InvalidInputError
│   ├── AmountNotPositiveError, AmountNotExactError, AmountTooSmallError
│   ├── AmountBelowMinimumError, AmountAboveMaximumError
│   ├── BooksDifferError, CurrencyDiffersError, TransferEndsError, TransferDiffersError
│   ├── CurrencyNotSupportedError, SameCurrencyError
│   ├── DestinationMissingError, HoldExpiryError
│   └── RangeInvertedError, StatementTooLongError
├── NotFoundError
│   ├── FundingNotFoundError, TransferNotFoundError, WalletNotFoundError
│   └── TradingAccountNotFoundError
├── ConflictError
│   ├── FundingClosedError, FundingUnconfirmedError, CoolingOffError
│   ├── EntryNotReversibleError, HoldNotOursError
│   └── RateMovedError, TransferNotOpenError
├── DeniedError
│   ├── InsufficientFundsError, InsufficientCashError
│   ├── DailyLimitError, WalletFrozenError
│   └── PairNotQuotedError
└── UnavailableError
    └── RateStaleError
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    DeniedError,
    ErrorCode,
    InvalidInputError,
    NotFoundError,
    TradingError,
    UnavailableError,
)


class WalletErrorCode(ErrorCode):
    """Stable codes of the wallet's refusals."""

    AMOUNT_ABOVE_MAXIMUM = "wallet.amount.above_maximum"
    AMOUNT_BELOW_MINIMUM = "wallet.amount.below_minimum"
    AMOUNT_NOT_EXACT = "wallet.amount.not_exact"
    AMOUNT_NOT_EXCHANGEABLE = "wallet.amount.not_exchangeable"
    AMOUNT_NOT_POSITIVE = "wallet.amount.not_positive"
    BALANCE_INSUFFICIENT_FUNDS = "wallet.balance.insufficient_funds"
    CURRENCY_NOT_SUPPORTED = "wallet.currency.not_supported"
    ENTRY_NOT_REVERSIBLE = "wallet.entry.not_reversible"
    EXCHANGE_NOT_QUOTED = "wallet.exchange.not_quoted"
    EXCHANGE_RATE_MOVED = "wallet.exchange.rate_moved"
    EXCHANGE_RATE_STALE = "wallet.exchange.rate_stale"
    EXCHANGE_SAME_CURRENCY = "wallet.exchange.same_currency"
    FUNDING_CLOSED = "wallet.funding.closed"
    FUNDING_COOLING_OFF = "wallet.funding.cooling_off"
    FUNDING_NOT_FOUND = "wallet.funding.not_found"
    FUNDING_UNCONFIRMED = "wallet.funding.unconfirmed"
    HOLD_EXPIRY = "wallet.hold.expiry_out_of_range"
    HOLD_OWNED = "wallet.hold.owned"
    LIMIT_DAILY = "wallet.limit.daily_exceeded"
    RANGE_INVERTED = "wallet.range.inverted"
    STATEMENT_TOO_LONG = "wallet.statement.too_long"
    TRANSFER_ACCOUNT_NOT_FOUND = "wallet.transfer.account_not_found"
    TRANSFER_BOOKS_DIFFER = "wallet.transfer.books_differ"
    TRANSFER_CURRENCY_DIFFERS = "wallet.transfer.currency_differs"
    TRANSFER_DIFFERS = "wallet.transfer.exists_with_different_body"
    TRANSFER_ENDS = "wallet.transfer.ends_not_supported"
    TRANSFER_INSUFFICIENT_CASH = "wallet.transfer.insufficient_cash"
    TRANSFER_NOT_FOUND = "wallet.transfer.not_found"
    TRANSFER_NOT_OPEN = "wallet.transfer.not_open"
    WALLET_FROZEN = "wallet.wallet.frozen"
    WALLET_NOT_FOUND = "wallet.wallet.not_found"
    WITHDRAWAL_DESTINATION_MISSING = "wallet.withdrawal.destination_missing"


class AmountNotPositiveError(InvalidInputError):
    """The amount is zero or negative."""

    code: ClassVar[ErrorCode] = WalletErrorCode.AMOUNT_NOT_POSITIVE
    title: ClassVar[str] = "Amount must be positive"


class AmountNotExactError(InvalidInputError):
    """The amount has more decimals than its currency."""

    code: ClassVar[ErrorCode] = WalletErrorCode.AMOUNT_NOT_EXACT
    title: ClassVar[str] = "Amount is finer than the currency"


class CurrencyNotSupportedError(InvalidInputError):
    """Wallets here do not hold this currency."""

    code: ClassVar[ErrorCode] = WalletErrorCode.CURRENCY_NOT_SUPPORTED
    title: ClassVar[str] = "Currency not supported"


class RangeInvertedError(InvalidInputError):
    """`from` lies after `to`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.RANGE_INVERTED
    title: ClassVar[str] = "Range is inverted"


class FundingNotFoundError(NotFoundError):
    """No deposit or withdrawal waits under this id."""

    code: ClassVar[ErrorCode] = WalletErrorCode.FUNDING_NOT_FOUND
    title: ClassVar[str] = "Funding not found"


class FundingClosedError(ConflictError):
    """The deposit or withdrawal was settled or refused before."""

    code: ClassVar[ErrorCode] = WalletErrorCode.FUNDING_CLOSED
    title: ClassVar[str] = "Funding already closed"


class InsufficientFundsError(DeniedError):
    """What is available does not cover the withdrawal.

    Context: `required`, `available` (decimal text) and `currency`.
    """

    code: ClassVar[ErrorCode] = WalletErrorCode.BALANCE_INSUFFICIENT_FUNDS
    title: ClassVar[str] = "Insufficient funds"


class AmountBelowMinimumError(InvalidInputError):
    """Less than one request must move; context: `requested`, `minimum`, `currency`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.AMOUNT_BELOW_MINIMUM
    title: ClassVar[str] = "Amount below the minimum"


class AmountAboveMaximumError(InvalidInputError):
    """More than one request may move; context: `requested`, `maximum`, `currency`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.AMOUNT_ABOVE_MAXIMUM
    title: ClassVar[str] = "Amount above the maximum"


class AmountTooSmallError(InvalidInputError):
    """The exchange would leave nothing to receive, or more than can be counted."""

    code: ClassVar[ErrorCode] = WalletErrorCode.AMOUNT_NOT_EXCHANGEABLE
    title: ClassVar[str] = "Amount can't be exchanged"


class DailyLimitError(DeniedError):
    """The day's limit is used up; context: `limit`, `used`, `left`, `requested`, `currency`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.LIMIT_DAILY
    title: ClassVar[str] = "Daily limit exceeded"


class WalletFrozenError(DeniedError):
    """An operator froze the wallet; context: `since`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.WALLET_FROZEN
    title: ClassVar[str] = "Wallet frozen"


class WalletNotFoundError(NotFoundError):
    """No wallet has this id."""

    code: ClassVar[ErrorCode] = WalletErrorCode.WALLET_NOT_FOUND
    title: ClassVar[str] = "Wallet not found"


class DestinationMissingError(InvalidInputError):
    """Withdrawals here name their destination."""

    code: ClassVar[ErrorCode] = WalletErrorCode.WITHDRAWAL_DESTINATION_MISSING
    title: ClassVar[str] = "Destination missing"


class CoolingOffError(ConflictError):
    """The destination is new; context: `until`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.FUNDING_COOLING_OFF
    title: ClassVar[str] = "Destination is cooling off"


class FundingUnconfirmedError(ConflictError):
    """The customer has not confirmed the withdrawal."""

    code: ClassVar[ErrorCode] = WalletErrorCode.FUNDING_UNCONFIRMED
    title: ClassVar[str] = "Withdrawal not confirmed"


class TransferNotFoundError(NotFoundError):
    """No such transfer, or somebody else's."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_NOT_FOUND
    title: ClassVar[str] = "Transfer not found"


class TransferNotOpenError(ConflictError):
    """The transfer is closed, or not where the step begins."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_NOT_OPEN
    title: ClassVar[str] = "Transfer not open"


class TransferDiffersError(InvalidInputError):
    """The client's transfer id belongs to another transfer; `errors` names the fields."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_DIFFERS
    title: ClassVar[str] = "A transfer with this id exists with another body"


class TransferEndsError(InvalidInputError):
    """The two ends are no wallet and trading account of one user."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_ENDS
    title: ClassVar[str] = "Ends of the transfer don't fit"


class TransferRefusedError(Exception):
    """The other end refused a step for good; carries the error a client would get.

    Attributes:
        error: Of the wallet's own tree.
    """

    def __init__(self, error: TradingError) -> None:
        super().__init__(error.message)
        self.error = error


class TradingAccountNotFoundError(NotFoundError):
    """No such trading account, or somebody else's."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_ACCOUNT_NOT_FOUND
    title: ClassVar[str] = "Trading account not found"


class BooksDifferError(InvalidInputError):
    """Demo and funded money never mix; context: `wallet`, `account`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_BOOKS_DIFFER
    title: ClassVar[str] = "Demo and funded money don't mix"


class CurrencyDiffersError(InvalidInputError):
    """The trading account keeps another currency; context: `account`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_CURRENCY_DIFFERS
    title: ClassVar[str] = "The account has another currency"


class InsufficientCashError(DeniedError):
    """Less may leave the trading account; context: `required`, `available`, `currency`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.TRANSFER_INSUFFICIENT_CASH
    title: ClassVar[str] = "Not enough withdrawable cash"


class PairNotQuotedError(DeniedError):
    """Nobody quotes these two currencies for this kind of money."""

    code: ClassVar[ErrorCode] = WalletErrorCode.EXCHANGE_NOT_QUOTED
    title: ClassVar[str] = "Currencies not quoted"


class SameCurrencyError(InvalidInputError):
    """Both sides of the exchange are one currency."""

    code: ClassVar[ErrorCode] = WalletErrorCode.EXCHANGE_SAME_CURRENCY
    title: ClassVar[str] = "One currency"


class RateStaleError(UnavailableError):
    """The newest price is too old to exchange at."""

    code: ClassVar[ErrorCode] = WalletErrorCode.EXCHANGE_RATE_STALE
    title: ClassVar[str] = "Price too old"


class RateMovedError(ConflictError):
    """Less would be received than the client asked for at least; context: `offered`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.EXCHANGE_RATE_MOVED
    title: ClassVar[str] = "Price has moved"


class EntryNotReversibleError(ConflictError):
    """An entry of this type is undone elsewhere."""

    code: ClassVar[ErrorCode] = WalletErrorCode.ENTRY_NOT_REVERSIBLE
    title: ClassVar[str] = "Entry can't be reversed"


class HoldExpiryError(InvalidInputError):
    """A hold lasts longer than holds may."""

    code: ClassVar[ErrorCode] = WalletErrorCode.HOLD_EXPIRY
    title: ClassVar[str] = "Hold lasts too long"


class HoldNotOursError(ConflictError):
    """The hold belongs to a withdrawal or transfer, which alone ends it."""

    code: ClassVar[ErrorCode] = WalletErrorCode.HOLD_OWNED
    title: ClassVar[str] = "Hold belongs to something else"


class StatementTooLongError(InvalidInputError):
    """The range holds more lines than one statement may; context: `lines_max`."""

    code: ClassVar[ErrorCode] = WalletErrorCode.STATEMENT_TOO_LONG
    title: ClassVar[str] = "Statement too long"
