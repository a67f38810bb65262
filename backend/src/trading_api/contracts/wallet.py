"""What wallet publishes."""

from datetime import datetime
from typing import ClassVar

from trading_api.contracts.envelope import Event


class EntryPosted(Event):
    """Money moved on a wallet; the key is the ledger account, its sequence the key's sequence.

    Attributes:
        wallet_id: the wallet.
        user_id: whose it is.
        book: `demo` or `funded`.
        account_id: the wallet's ledger account of that currency.
        sequence: gapless number of the posting on that account, from 1.
        entry_id: the immutable ledger entry.
        entry_type: why it moved, such as `DEPOSIT`.
        currency: code such as `USD`.
        scale: decimals of one minor unit of the currency.
        amount_minor: what it did to the balance, signed, in minor units.
        balance_minor: the balance after it, in minor units.
        reference: what caused it, such as a transfer's id; None where nothing else did.
        occurred_at: when it happened, UTC.
    """

    TYPE: ClassVar[str] = "wallet.entry.posted"

    wallet_id: str
    user_id: str
    book: str
    account_id: str
    sequence: int
    entry_id: str
    entry_type: str
    currency: str
    scale: int
    amount_minor: int
    balance_minor: int
    reference: str | None
    occurred_at: datetime


class TransferClosed(Event):
    """A transfer between a wallet and a trading account ended; the key is the wallet.

    Attributes:
        transfer_id: the transfer.
        account_id: the trading account at the other end.
        direction: `to_account` or `to_wallet`.
        scale: decimals of one minor unit of the currency.
        amount_minor: positive, in minor units.
        state: `completed`, or with nothing moved `failed` or `expired`.
        failure_code: why nothing moved; None where it did.
        closed_at: UTC.
    """

    TYPE: ClassVar[str] = "wallet.transfer.closed"

    transfer_id: str
    wallet_id: str
    user_id: str
    account_id: str
    direction: str
    book: str
    currency: str
    scale: int
    amount_minor: int
    state: str
    failure_code: str | None
    closed_at: datetime
