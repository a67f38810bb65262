"""What the ledger refuses.

TradingError
├── InvalidInputError
│   ├── EntryDiffersError          same entry id, another body
│   ├── HoldDiffersError           same hold id, another body
│   └── BalanceOutOfRangeError     the balance would leave the exact range
├── NotFoundError
│   ├── LedgerAccountNotFoundError
│   ├── EntryNotFoundError
│   └── HoldNotFoundError
├── ConflictError
│   ├── HoldAlreadyCapturedError
│   ├── HoldAlreadyVoidedError
│   ├── HoldAlreadyExpiredError
│   ├── CaptureExceedsHoldError
│   └── EntryAlreadyReversedError
└── DeniedError
    └── InsufficientFundsError     available would fall below zero

LedgerInvariantError (an AssertionError) is a bug of the caller or of the engine, never a user's
mistake: an unbalanced entry, a wrong currency, a row that changed under its lock.
"""

from typing import ClassVar

from trading_api.kernel.errors import (
    ConflictError,
    DeniedError,
    ErrorCode,
    InvalidInputError,
    NotFoundError,
)
from trading_api.kernel.values import Money


class LedgerErrorCode(ErrorCode):
    """Stable codes of the ledger's refusals."""

    ENTRY_DIFFERS = "ledger.entry.exists_with_different_body"
    ENTRY_NOT_FOUND = "ledger.entry.not_found"
    ENTRY_ALREADY_REVERSED = "ledger.entry.already_reversed"
    BALANCE_OUT_OF_RANGE = "ledger.account.balance_out_of_range"
    ACCOUNT_NOT_FOUND = "ledger.account.not_found"
    INSUFFICIENT_FUNDS = "ledger.account.insufficient_funds"
    HOLD_DIFFERS = "ledger.hold.exists_with_different_body"
    HOLD_NOT_FOUND = "ledger.hold.not_found"
    HOLD_ALREADY_CAPTURED = "ledger.hold.already_captured"
    HOLD_ALREADY_VOIDED = "ledger.hold.already_voided"
    HOLD_ALREADY_EXPIRED = "ledger.hold.already_expired"
    CAPTURE_EXCEEDS_HOLD = "ledger.hold.capture_exceeds_amount"


class LedgerInvariantError(AssertionError):
    """A rule of bookkeeping was broken by code; nothing may be committed after it."""


class EntryDiffersError(InvalidInputError):
    """An entry with this id exists and says something else; `errors` names the fields."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.ENTRY_DIFFERS
    title: ClassVar[str] = "An entry with this id exists with another body"


class EntryNotFoundError(NotFoundError):
    """No entry has this id."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.ENTRY_NOT_FOUND
    title: ClassVar[str] = "Entry not found"


class EntryAlreadyReversedError(ConflictError):
    """The entry has its one reversal already."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.ENTRY_ALREADY_REVERSED
    title: ClassVar[str] = "Entry already reversed"


class BalanceOutOfRangeError(InvalidInputError):
    """The balance would leave ±10¹⁸ minor units."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.BALANCE_OUT_OF_RANGE
    title: ClassVar[str] = "Balance out of range"


class LedgerAccountNotFoundError(NotFoundError):
    """No ledger account has this id."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.ACCOUNT_NOT_FOUND
    title: ClassVar[str] = "Ledger account not found"


class InsufficientFundsError(DeniedError):
    """What is available (balance - pending holds) does not cover the amount.

    Context: `account_id`, `required_minor`, `available_minor`, `currency`.

    Args:
        account_id: Whose money.
        required: What was to be taken or held.
        available: What could have been.
    """

    code: ClassVar[ErrorCode] = LedgerErrorCode.INSUFFICIENT_FUNDS
    title: ClassVar[str] = "Insufficient funds"

    def __init__(self, *, account_id: str, required: Money, available: Money) -> None:
        code = required.currency.code
        super().__init__(
            f"{required} {code} required, {available} {code} available",
            account_id=account_id,
            required_minor=required.minor,
            available_minor=available.minor,
            currency=code,
        )
        self.required = required
        self.available = available


class HoldDiffersError(InvalidInputError):
    """A hold with this id exists and says something else; `errors` names the fields."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.HOLD_DIFFERS
    title: ClassVar[str] = "A hold with this id exists with another body"


class HoldNotFoundError(NotFoundError):
    """No hold has this id."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.HOLD_NOT_FOUND
    title: ClassVar[str] = "Hold not found"


class HoldAlreadyCapturedError(ConflictError):
    """The hold was captured; it ends exactly once."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.HOLD_ALREADY_CAPTURED
    title: ClassVar[str] = "Hold already captured"


class HoldAlreadyVoidedError(ConflictError):
    """The hold was voided; it ends exactly once."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.HOLD_ALREADY_VOIDED
    title: ClassVar[str] = "Hold already voided"


class HoldAlreadyExpiredError(ConflictError):
    """The hold expired; it ends exactly once."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.HOLD_ALREADY_EXPIRED
    title: ClassVar[str] = "Hold already expired"


class CaptureExceedsHoldError(ConflictError):
    """The capture takes more than the hold reserved."""

    code: ClassVar[ErrorCode] = LedgerErrorCode.CAPTURE_EXCEEDS_HOLD
    title: ClassVar[str] = "Capture exceeds the hold"
