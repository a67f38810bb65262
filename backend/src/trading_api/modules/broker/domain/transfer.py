"""Money between a trading account and its owner's wallet, as this side of it stands."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Money
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    TransferBooksError,
    TransferCurrencyError,
    TransferDiffersError,
    TransferStateError,
)


class TransferState(StrEnum):
    """Where a transfer stands here; all but HELD are for good."""

    CREDITED = "credited"
    """In, and the cash has grown."""
    REFUSED = "refused"
    """In, and it never will: a tombstone."""
    HELD = "held"
    """Out, and the amount waits in a hold."""
    CAPTURED = "captured"
    """Out, and the cash has gone."""
    VOIDED = "voided"
    """Out, and nothing went or ever will: also a tombstone."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer on the trading account's side.

    Attributes:
        transfer_id: made by wallet; a repeat has one effect.
        account_id: the trading account; a tombstone may name one that never was.
        direction: seen from the trading account.
        amount: positive.
        closed_at: UTC; None while held.
    """

    transfer_id: str
    account_id: str
    user_id: str
    book: str
    direction: Literal["in", "out"]
    amount: Money
    state: TransferState
    created_at: datetime
    closed_at: datetime | None = None

    @property
    def hold_id(self) -> str:
        """Return the id of its hold in the ledger, of a transfer out."""
        return f"hold_{self.transfer_id}"

    @property
    def entry_id(self) -> str:
        """Return the id of its entry in the ledger."""
        return f"transfer_{self.transfer_id}"

    def ensure_same(self, again: "Transfer") -> None:
        """Refuse another body under the same id.

        Raises:
            TransferDiffersError: names the fields.
        """
        names = ("account_id", "user_id", "book", "direction", "amount")
        errors = [
            FieldError(name, "exists_with_different_value", f"{name} differs.")
            for name in names
            if getattr(self, name) != getattr(again, name)
        ]
        if errors:
            raise TransferDiffersError(
                "a transfer with this id exists with another body",
                errors=errors,
                transfer_id=self.transfer_id,
            )

    def ensure_direction(self, direction: Literal["in", "out"]) -> None:
        """Refuse a step of the other direction.

        Raises:
            TransferStateError: the transfer goes the other way.
        """
        if self.direction != direction:
            raise TransferStateError(
                f"this transfer goes {self.direction}", transfer_id=self.transfer_id
            )

    def end(self, state: TransferState, now: datetime) -> "Transfer":
        """End a held transfer.

        Raises:
            TransferStateError: it ended before.
        """
        if self.state is not TransferState.HELD:
            raise TransferStateError(
                f"this transfer is {self.state.value}",
                transfer_id=self.transfer_id,
                state=self.state.value,
            )
        return replace(self, state=state, closed_at=now)


def ensure_fits(transfer: Transfer, account: Account | None) -> Account:
    """Return the account that a transfer names, if the two fit.

    Raises:
        AccountNotFoundError: no such account, or somebody else's.
        TransferBooksError: demo and funded money never mix (rules of books, H).
        TransferCurrencyError: the account keeps another currency.
    """
    if account is None or account.user_id != transfer.user_id:
        raise AccountNotFoundError("there is no such trading account")
    if account.book != transfer.book:
        raise TransferBooksError(
            f"the wallet is {transfer.book}, the trading account {account.book}",
            errors=[FieldError("book", "books_differ", "demo and funded money don't mix")],
        )
    if account.currency != transfer.amount.currency:
        raise TransferCurrencyError(
            f"the trading account keeps {account.currency.code}",
            errors=[FieldError("currency", "differs", f"must be {account.currency.code}")],
        )
    return account
