"""The trading account's steps of a transfer from or to its owner's wallet (rules of transfers, K).

Wallet drives every transfer; each step here is idempotent under the transfer's id. A transfer in is
credited, or refused for ever by a tombstone; one out is held, then captured, or voided for ever.
Nothing here ends a hold by itself: only wallet knows whether its own side has the money.
"""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from trading_api.contracts.broker import CashTransferred
from trading_api.kernel.values import decimal_of
from trading_api.ledger.domain import Entry, EntryType, HoldRequest, credit, debit
from trading_api.modules.broker.domain.account import Account
from trading_api.modules.broker.domain.event import CashChange
from trading_api.modules.broker.domain.transfer import Transfer, TransferState, ensure_fits
from trading_api.modules.broker.errors import (
    AccountNotFoundError,
    InsufficientCashError,
    TransferStateError,
)
from trading_api.modules.broker.repository import transfers as repository
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.runtime.database import Database, Transaction

log = structlog.get_logger("broker")

CrashPoint = Callable[[str], None]
"""Told the name of each step as it is reached; a fault run ends the process there."""


@dataclass(frozen=True, slots=True)
class Cash:
    """What may leave an account now, in minor units of its currency."""

    account: Account
    withdrawable_minor: int


class TransferService:
    """Takes the steps that wallet asks for.

    Args:
        risk: says what may leave an account.
        crash_point: does nothing outside fault runs.
    """

    def __init__(
        self, *, database: Database, books: Books, risk: RiskGate, crash_point: CrashPoint
    ) -> None:
        self._database = database
        self._books = books
        self._risk = risk
        self._crash_point = crash_point

    async def get_cash(self, *, account_id: str, user_id: str, now: datetime) -> Cash:
        """Return what may leave an account; advice only, `hold` decides.

        Raises:
            AccountNotFoundError: no such account, or somebody else's.
        """
        async with self._database.snapshot() as snapshot:
            account = await self._books.repository.find_account(snapshot, account_id)
            if account is None or account.user_id != user_id:
                raise AccountNotFoundError("there is no such trading account")
            desk = await Desk.over(self._books, snapshot, account, now)
            worth = await self._risk.value(desk)
        return Cash(account, worth.withdrawable_minor)

    async def credit(self, *, transfer: Transfer, now: datetime) -> TransferState:
        """Add a transfer's amount to the cash; CREDITED, or REFUSED where a tombstone was first.

        Raises:
            AccountNotFoundError, TransferBooksError, TransferCurrencyError: the two don't fit.
            TransferDiffersError: the id belongs to another transfer.
        """
        transfer.ensure_direction("in")

        async def command(transaction: Transaction, desk: Desk | None) -> TransferState:
            first = await self._begin(transaction, transfer)
            if first is not None:
                return first.state
            ensure_fits(transfer, desk.account if desk else None)
            assert desk is not None, "else it didn't fit"
            await self._books.ledger.open_accounts(
                transaction, [desk.house.clearing], created_at=now
            )
            cash_minor = await desk.post(
                transfer.entry_id,
                EntryType.TRANSFER,
                against=desk.house.clearing,
                change_minor=transfer.amount.minor,
                reference=transfer.transfer_id,
                description="Transfer from the wallet",
            )
            await self._tell(desk, transfer, transfer.amount.minor, cash_minor)
            self._crash_point("broker.credit.before_commit")
            return TransferState.CREDITED

        state = await self._at_desk(transfer.account_id, now, command)
        self._crash_point("broker.credit.after_commit")
        return state

    async def refuse(self, *, transfer: Transfer, now: datetime) -> TransferState:
        """Make sure that a transfer in never arrives, unless it did: REFUSED or CREDITED.

        Raises:
            TransferDiffersError: the id belongs to another transfer.
        """
        transfer.ensure_direction("in")

        async def command(transaction: Transaction, _desk: Desk | None) -> TransferState:
            first = await self._begin(transaction, transfer)
            return first.state if first is not None else transfer.state

        state = await self._at_desk(transfer.account_id, now, command)
        self._crash_point("broker.refuse.after_commit")
        return state

    async def hold(self, *, transfer: Transfer, now: datetime) -> TransferState:
        """Set a transfer's amount aside: HELD, or how it stands where it was here before.

        Raises:
            InsufficientCashError: less may leave the account.
            AccountNotFoundError, TransferBooksError, TransferCurrencyError: the two don't fit.
            TransferDiffersError: the id belongs to another transfer.
        """
        transfer.ensure_direction("out")

        async def command(transaction: Transaction, desk: Desk | None) -> TransferState:
            first = await self._begin(transaction, transfer)
            if first is not None:
                return first.state
            account = ensure_fits(transfer, desk.account if desk else None)
            assert desk is not None, "else it didn't fit"
            withdrawable = (await self._risk.value(desk)).withdrawable_minor
            if withdrawable < transfer.amount.minor:
                raise InsufficientCashError(
                    "less may leave the account than that",
                    required=str(transfer.amount),
                    available=f"{decimal_of(withdrawable, account.currency.scale):f}",
                    currency=account.currency.code,
                )
            await self._books.ledger.open_hold(
                transaction,
                HoldRequest(
                    transfer.hold_id,
                    account.cash_account_id,
                    transfer.amount,
                    now,
                    reference=transfer.transfer_id,
                ),
            )
            self._crash_point("broker.hold.before_commit")
            return TransferState.HELD

        state = await self._at_desk(transfer.account_id, now, command)
        self._crash_point("broker.hold.after_commit")
        return state

    async def capture(self, *, transfer: Transfer, now: datetime) -> TransferState:
        """Take the held amount from the cash: CAPTURED, also when it was before.

        Raises:
            TransferStateError: nothing is held; wallet asked out of order.
        """
        transfer.ensure_direction("out")

        async def command(transaction: Transaction, desk: Desk | None) -> TransferState:
            first = await repository.find_transfer(transaction, transfer.transfer_id)
            if first is None or desk is None:
                raise TransferStateError(
                    "nothing is held for this transfer", transfer_id=transfer.transfer_id
                )
            first.ensure_same(transfer)
            if first.state is TransferState.CAPTURED:
                return first.state
            ended = first.end(TransferState.CAPTURED, now)
            cash, clearing = desk.house.cash, desk.house.clearing
            await self._books.ledger.open_accounts(transaction, [clearing], created_at=now)
            posted = await self._books.ledger.capture_hold(
                transaction,
                transfer.hold_id,
                Entry(
                    entry_id=transfer.entry_id,
                    type=EntryType.TRANSFER,
                    postings=(debit(cash, transfer.amount), credit(clearing, transfer.amount)),
                    occurred_at=now,
                    reference=transfer.transfer_id,
                    description="Transfer to the wallet",
                ),
                recorded_at=now,
            )
            await repository.end_transfer(transaction, ended)
            cash_minor = posted.posting_on(cash.account_id).running_balance_minor
            assert cash_minor is not None, "cash is a customer account"
            desk.record(
                CashChange(
                    account_id=transfer.account_id,
                    entry_id=transfer.entry_id,
                    type=EntryType.TRANSFER.value,
                    change_minor=-transfer.amount.minor,
                    cash_minor=cash_minor,
                    currency=transfer.amount.currency.code,
                    currency_scale=transfer.amount.currency.scale,
                    reference=transfer.transfer_id,
                )
            )
            await self._tell(desk, transfer, -transfer.amount.minor, cash_minor)
            self._crash_point("broker.capture.before_commit")
            return TransferState.CAPTURED

        state = await self._at_desk(transfer.account_id, now, command)
        self._crash_point("broker.capture.after_commit")
        return state

    async def void(self, *, transfer: Transfer, now: datetime) -> TransferState:
        """Release what is held and refuse the transfer for ever: VOIDED, or CAPTURED if it was.

        Raises:
            TransferDiffersError: the id belongs to another transfer.
        """
        transfer.ensure_direction("out")

        async def command(transaction: Transaction, _desk: Desk | None) -> TransferState:
            first = await self._begin(transaction, transfer)
            if first is None:
                return TransferState.VOIDED
            if first.state is TransferState.HELD:
                await self._books.ledger.void_hold(transaction, transfer.hold_id, closed_at=now)
                await repository.end_transfer(transaction, first.end(TransferState.VOIDED, now))
                return TransferState.VOIDED
            return first.state

        state = await self._at_desk(transfer.account_id, now, command)
        self._crash_point("broker.void.after_commit")
        return state

    async def find_states(
        self, *, transfer_ids: Collection[str]
    ) -> tuple[dict[str, int], dict[str, str]]:
        """Return clearing balances by ``book:currency``, credit positive, and transfers' states."""
        balances: dict[str, int] = {}
        async with self._database.snapshot() as snapshot:
            for account_id in await repository.list_clearing(snapshot):
                account = await self._books.ledger.get_account(snapshot, account_id)
                balance = await self._books.ledger.get_balance(snapshot, account_id)
                key = f"{account.book.value}:{account.currency.code}"
                balances[key] = balances.get(key, 0) + balance.total.minor
            states = await repository.find_states(snapshot, transfer_ids)
        return balances, states

    async def _begin(self, transaction: Transaction, transfer: Transfer) -> Transfer | None:
        """Write the transfer as it will be; return the one that was here first, if any.

        A refusal afterwards rolls this back, so that only a tombstone refuses for ever.
        """
        if await repository.add_transfer(transaction, transfer):
            return None
        first = await repository.find_transfer(transaction, transfer.transfer_id)
        assert first is not None, "it could not be written because it exists"
        first.ensure_same(transfer)
        return first

    async def _at_desk(
        self,
        account_id: str,
        now: datetime,
        step: Callable[[Transaction, Desk | None], Awaitable[TransferState]],
    ) -> TransferState:
        async def command(transaction: Transaction) -> TransferState:
            desk = await Desk.open(self._books, transaction, account_id, now)
            state = await step(transaction, desk)
            if desk is not None:
                await desk.close()
            return state

        return await self._database.group(command, key=account_id)

    async def _tell(
        self, desk: Desk, transfer: Transfer, change_minor: int, cash_minor: int
    ) -> None:
        currency = transfer.amount.currency
        await desk.publish(
            CashTransferred(
                account_id=transfer.account_id,
                user_id=transfer.user_id,
                offset=desk.account.event_sequence,
                transfer_id=transfer.transfer_id,
                amount=decimal_of(change_minor, currency.scale),
                cash=decimal_of(cash_minor, currency.scale),
                currency=currency.code,
                occurred_at=desk.now,
            )
        )
        desk.transaction.after_commit(
            partial(
                log.info,
                "cash_transferred",
                account_id=transfer.account_id,
                transfer_id=transfer.transfer_id,
                change_minor=change_minor,
                currency=currency.code,
            )
        )
