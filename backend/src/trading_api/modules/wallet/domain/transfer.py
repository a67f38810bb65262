"""Transfers between a wallet and a trading account of the same user (rules of transfers, K).

The wallet drives both directions: the source holds, the destination credits, the source captures.
A transfer that can't or may no longer go on is RELEASING: its destination is closed to it for good
first, and only then the source's hold is released.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from trading_api.kernel.values import Money
from trading_api.ledger.domain import (
    AccountType,
    Book,
    Entry,
    EntryType,
    LedgerAccount,
    credit,
    debit,
    house_account,
)
from trading_api.modules.wallet.errors import TransferNotOpenError

COUNTERPART = "broker"
"""Name of the clearing account, after the module at its other end."""

EXPIRED = "wallet.transfer.expired"
"""Failure of a transfer whose time was over before its destination had it."""


class TransferDirection(StrEnum):
    """Which end is the trading account."""

    TO_ACCOUNT = "to_account"
    TO_WALLET = "to_wallet"


class TransferState(StrEnum):
    """Where a transfer stands; the last three are for good."""

    PENDING = "pending"
    CREDITED = "credited"
    """To the wallet only: the wallet has the money, the account's hold is still to be captured."""
    RELEASING = "releasing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"


OPEN = frozenset({TransferState.PENDING, TransferState.CREDITED, TransferState.RELEASING})


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer as it stands.

    Attributes:
        transfer_id: `trf_…`; every step at the other end is idempotent under it.
        client_transfer_id: The client's own id, unique for its user for ever; None without one.
        account_id: The trading account at the other end.
        amount: Positive.
        failure_code: Stable code of why it was undone; None while it was not.
        failure: What the refusal said besides, text to text.
        expires_at: From then on it is undone rather than begun.
        entry_id: The wallet's ledger entry once there is one.
    """

    transfer_id: str
    wallet_id: str
    user_id: str
    book: Book
    account_id: str
    direction: TransferDirection
    amount: Money
    state: TransferState
    description: str
    created_at: datetime
    expires_at: datetime
    client_transfer_id: str | None = None
    failure_code: str | None = None
    failure: Mapping[str, str] | None = None
    entry_id: str | None = None
    closed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether steps are left to take."""
        return self.state in OPEN

    @property
    def hold_id(self) -> str:
        """Return the id of the wallet's hold, of a transfer to an account."""
        return f"hold_{self.transfer_id}"

    @property
    def source(self) -> str:
        """Return the id of the end the money leaves."""
        is_in = self.direction is TransferDirection.TO_WALLET
        return self.account_id if is_in else self.wallet_id

    @property
    def destination(self) -> str:
        """Return the id of the end the money reaches."""
        is_in = self.direction is TransferDirection.TO_WALLET
        return self.wallet_id if is_in else self.account_id

    def credit(self, entry_id: str) -> "Transfer":
        """Note that the wallet has the money of a transfer to it."""
        self._ensure(TransferState.PENDING, TransferState.RELEASING)
        return replace(
            self,
            state=TransferState.CREDITED,
            entry_id=entry_id,
            failure_code=None,
            failure=None,
        )

    def complete(self, now: datetime, *, entry_id: str | None = None) -> "Transfer":
        """End it with the money moved."""
        self._ensure(*OPEN)
        return replace(
            self,
            state=TransferState.COMPLETED,
            entry_id=entry_id or self.entry_id,
            failure_code=None,
            failure=None,
            closed_at=now,
        )

    def release(self, code: str, context: Mapping[str, str]) -> "Transfer":
        """Decide to undo it; nothing is released yet."""
        self._ensure(TransferState.PENDING)
        return replace(
            self, state=TransferState.RELEASING, failure_code=code, failure=dict(context)
        )

    def give_up(self, now: datetime) -> "Transfer":
        """End it with nothing moved, the destination being closed to it."""
        self._ensure(TransferState.RELEASING)
        has_expired = self.failure_code == EXPIRED
        state = TransferState.EXPIRED if has_expired else TransferState.FAILED
        return replace(self, state=state, closed_at=now)

    def _ensure(self, *allowed: TransferState) -> None:
        if self.state not in allowed:
            raise TransferNotOpenError(
                f"the transfer is {self.state.value}", transfer_id=self.transfer_id
            )


def clearing_account(amount: Money, *, book: Book) -> LedgerAccount:
    """Describe what is on its way to or from the trading accounts."""
    return house_account(AccountType.CLEARING, amount.currency, book=book, name=COUNTERPART)


def transfer_entry(
    transfer: Transfer, account: LedgerAccount, clearing: LedgerAccount, *, now: datetime
) -> Entry:
    """Build Dr customer / Cr clearing, the other way round from an account (rules, A)."""
    is_out = transfer.direction is TransferDirection.TO_ACCOUNT
    source, destination = (account, clearing) if is_out else (clearing, account)
    return Entry(
        entry_id=f"ent_{transfer.transfer_id}",
        type=EntryType.TRANSFER,
        postings=(debit(source, transfer.amount), credit(destination, transfer.amount)),
        occurred_at=now,
        reference=transfer.transfer_id,
        description=transfer.description,
        details={"account_id": transfer.account_id, "direction": transfer.direction.value},
    )
