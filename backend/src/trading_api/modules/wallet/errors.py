"""What the wallet refuses.

TradingError
├── InvalidInputError
│   ├── AmountNotPositiveError
│   ├── AmountNotExactError       more decimals than the currency has
│   ├── CurrencyNotSupportedError
│   └── RangeInvertedError
├── NotFoundError
│   └── FundingNotFoundError
├── ConflictError
│   └── FundingClosedError        settled or refused before
└── DeniedError
    └── InsufficientFundsError
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    DeniedError,
    ErrorCode,
    InvalidInputError,
    NotFoundError,
)


class WalletErrorCode(ErrorCode):
    """Stable codes of the wallet's refusals."""

    AMOUNT_NOT_POSITIVE = "wallet.amount.not_positive"
    AMOUNT_NOT_EXACT = "wallet.amount.not_exact"
    BALANCE_INSUFFICIENT_FUNDS = "wallet.balance.insufficient_funds"
    CURRENCY_NOT_SUPPORTED = "wallet.currency.not_supported"
    FUNDING_CLOSED = "wallet.funding.closed"
    FUNDING_NOT_FOUND = "wallet.funding.not_found"
    RANGE_INVERTED = "wallet.range.inverted"


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
