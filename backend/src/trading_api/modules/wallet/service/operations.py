"""What operators and other modules do with wallets: holds, freezes, corrections, proofs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import structlog

from trading_api.kernel.errors import FieldError
from trading_api.ledger.checks import NotCheckedError, Violation, check_ledger
from trading_api.ledger.domain import (
    AccountType,
    Book,
    Entry,
    EntryType,
    Hold,
    HoldRequest,
    HoldState,
    PostedEntry,
    credit,
    debit,
    ensure_pending,
    house_account,
    reversal,
)
from trading_api.ledger.engine import AccountTotals
from trading_api.modules.wallet.domain import ActKind, OperatorAct, Wallet, amount_asked
from trading_api.modules.wallet.errors import (
    EntryNotReversibleError,
    HoldExpiryError,
    HoldNotOursError,
)
from trading_api.modules.wallet.repository.transfers import check_transfers
from trading_api.modules.wallet.service.till import Till, in_wallet_terms
from trading_api.modules.wallet.service.transfers import TransferService
from trading_api.runtime.database import Transaction

log = structlog.get_logger("wallet")

HOLD_DAYS_MAX: Final = 90
HOLD_LIFETIME: Final = timedelta(days=7)
"""Of a hold that names no time."""

_PREFIX: Final = "hld_"
"""Ids of holds that this service opens; withdrawals and transfers have holds of their own."""

_REVERSIBLE: Final = frozenset(EntryType) - {EntryType.TRANSFER, EntryType.REVERSAL}
_DUE_MAX: Final = 100

CAPTURE_TYPES: Final = (
    EntryType.FEE_PERFORMANCE,
    EntryType.FEE_SUBSCRIPTION,
    EntryType.FEE_COMMISSION,
    EntryType.ADJUSTMENT_ADMIN,
)
"""What a captured hold may be for; the house account is named after it."""


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """Debits and credits of a book and currency; their difference must be zero.

    Attributes:
        totals: By account type: debits and credits in minor units.
    """

    book: Book
    currency: str
    scale: int
    totals: Mapping[AccountType, AccountTotals]

    @property
    def debit_minor(self) -> int:
        """Return all debits."""
        return sum(each.debit_minor for each in self.totals.values())

    @property
    def credit_minor(self) -> int:
        """Return all credits."""
        return sum(each.credit_minor for each in self.totals.values())


@dataclass(frozen=True, slots=True)
class Verified:
    """What a proof of everything found.

    Attributes:
        violations: What is wrong.
        not_checked: What could not be told, and why.
    """

    violations: tuple[Violation, ...] = ()
    not_checked: tuple[str, ...] = ()


class OperationsService:
    """Does what customers can't."""

    def __init__(self, *, till: Till, transfers: TransferService) -> None:
        self._till = till
        self._database = till.database
        self._ledger = till.ledger
        self._repository = till.repository
        self._transfers = transfers

    async def open_hold(
        self,
        *,
        hold_id: str | None,
        user_id: str,
        amount: Decimal,
        currency: str,
        reference: str | None,
        lifetime: timedelta | None,
        by: str,
        now: datetime,
    ) -> Hold:
        """Set part of a wallet's balance aside; the same id with the same body has one effect.

        Raises:
            InsufficientFundsError: Less is available.
            HoldDiffersError: The id exists with another body.
            HoldExpiryError: Longer than 90 days.
            WalletFrozenError: An operator froze the wallet.
        """
        asked = self._till.asked(amount, currency)
        lasts = HOLD_LIFETIME if lifetime is None else lifetime
        if not timedelta(0) < lasts <= timedelta(days=HOLD_DAYS_MAX):
            message = f"a hold lasts at most {HOLD_DAYS_MAX} days"
            raise HoldExpiryError(
                message, errors=[FieldError("expires_in_seconds", "out_of_range", message)]
            )
        name = hold_id or self._till.ids.new("hld")
        if not name.startswith(_PREFIX):
            message = f"ids of holds begin with {_PREFIX}"
            raise HoldExpiryError(message, errors=[FieldError("hold_id", "prefix", message)])

        async def command(transaction: Transaction) -> Hold:
            wallet = await self._till.lock_wallet(transaction, user_id, now)
            account = wallet.account(asked.currency)
            first = await self._ledger.find_hold(transaction, name)
            if first is None:
                wallet.ensure_active()
            await self._ledger.open_accounts(transaction, [account], created_at=now)
            request = HoldRequest(
                name, account.account_id, asked, now, reference=reference, expires_at=now + lasts
            )
            with in_wallet_terms():
                opened = await self._ledger.open_hold(transaction, request)
            if first is None:
                await self._till.tell_held(transaction, wallet, asked.currency, now)
                await self._note(transaction, ActKind.HOLD_OPENED, name, by=by, now=now)
            return opened

        return await self._database.group(command)

    async def capture_hold(
        self,
        *,
        hold_id: str,
        amount: Decimal | None,
        type_: EntryType,
        description: str,
        by: str,
        now: datetime,
    ) -> PostedEntry:
        """End a hold by charging all of it or less to its wallet; the rest is released.

        The same capture again finds its entry.

        Args:
            hold_id: The hold.
            amount: At most what it holds, in units of its currency; None for all.
            type_: What it is for, one of `CAPTURE_TYPES`.
            description: Shown in the lists.
            by: The operator or module that asks.
            now: UTC.

        Raises:
            HoldNotFoundError, HoldNotOursError: No such hold, or a withdrawal's or transfer's.
            HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It ended.
            CaptureExceedsHoldError: More than it holds.
        """
        assert type_ in CAPTURE_TYPES, "the route allows no other"

        async def command(transaction: Transaction) -> PostedEntry:
            hold, wallet = await self._lock_hold(transaction, hold_id)
            held = hold.request.amount
            taken = held if amount is None else amount_asked(amount, held.currency)
            if hold.state is not HoldState.PENDING and taken.minor != hold.captured_minor:
                ensure_pending(hold)
            account = wallet.account(taken.currency)
            house = house_account(
                AccountType.HOUSE, taken.currency, book=wallet.book, name=type_.value.lower()
            )
            await self._ledger.open_accounts(transaction, [house], created_at=now)
            entry = Entry(
                entry_id=f"ent_{hold_id}",
                type=type_,
                postings=(debit(account, taken), credit(house, taken)),
                occurred_at=now,
                reference=hold.request.reference or hold_id,
                description=description,
            )
            posted = await self._ledger.capture_hold(transaction, hold_id, entry, recorded_at=now)
            if not posted.is_replay:
                await self._till.tell_posted(transaction, [wallet], posted)
                await self._note(transaction, ActKind.HOLD_CAPTURED, hold_id, by=by, now=now)
            return posted

        return await self._database.group(command)

    async def void_hold(self, *, hold_id: str, by: str, now: datetime) -> Hold:
        """End a hold with nothing taken.

        Raises:
            HoldNotFoundError, HoldNotOursError: No such hold, or a withdrawal's or transfer's.
            HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It ended.
        """

        async def command(transaction: Transaction) -> Hold:
            hold, wallet = await self._lock_hold(transaction, hold_id)
            ended = await self._ledger.void_hold(transaction, hold_id, closed_at=now)
            await self._till.tell_held(transaction, wallet, hold.request.amount.currency, now)
            await self._note(transaction, ActKind.HOLD_VOIDED, hold_id, by=by, now=now)
            return ended

        return await self._database.group(command)

    async def expire_holds(self, *, now: datetime) -> int:
        """Release every hold whose time is over; return how many."""
        async with self._database.snapshot() as snapshot:
            due = await self._repository.list_due_holds(snapshot, now=now, limit=_DUE_MAX)
        for hold_id, _ in due:
            try:
                await self._expire(hold_id, now)
            except Exception:
                # The others don't wait for it; it is tried again at the next turn.
                log.exception("hold_not_expired", hold_id=hold_id)
        return len(due)

    async def freeze(
        self, *, wallet_id: str, reason: str, operator_id: str, now: datetime
    ) -> Wallet:
        """Stop a wallet's customer from moving anything; what is under way goes on.

        Raises:
            WalletNotFoundError: No such wallet.
        """
        return await self._set_frozen(
            wallet_id, is_frozen=True, reason=reason, operator_id=operator_id, now=now
        )

    async def unfreeze(self, *, wallet_id: str, operator_id: str, now: datetime) -> Wallet:
        """Let a wallet's customer move money again.

        Raises:
            WalletNotFoundError: No such wallet.
        """
        return await self._set_frozen(
            wallet_id, is_frozen=False, reason="", operator_id=operator_id, now=now
        )

    async def reverse_entry(
        self, *, entry_id: str, reason: str, operator_id: str, now: datetime
    ) -> PostedEntry:
        """Undo an entry by its mirror image; at most once.

        Raises:
            EntryNotFoundError: No such entry.
            EntryNotReversibleError: A transfer (transfer back instead) or itself a reversal.
            EntryAlreadyReversedError: It has its reversal.
            InsufficientFundsError: A wallet would fall below zero.
        """

        async def command(transaction: Transaction) -> PostedEntry:
            first = await self._ledger.get_entry(transaction, entry_id)
            if first.entry.type not in _REVERSIBLE:
                raise EntryNotReversibleError(
                    "a transfer is undone by a transfer back, a reversal not at all",
                    entry_id=entry_id,
                    type=first.entry.type.value,
                )
            wallets = await self._lock_wallets_of(transaction, first)
            undo = reversal(
                first,
                entry_id=self._till.ids.new("ent"),
                occurred_at=now,
                reason=f"{reason} (by {operator_id})",
            )
            with in_wallet_terms():
                posted = await self._ledger.post_entry(transaction, undo, recorded_at=now)
            await self._till.tell_posted(transaction, wallets, posted)
            kind = ActKind.ENTRY_REVERSED
            await self._note(transaction, kind, entry_id, by=operator_id, now=now, reason=reason)
            return posted

        return await self._database.run(command)

    async def list_acts(self, *, subject: str | None, limit: int) -> list[OperatorAct]:
        """Return who did what, newest first; with a subject, only on that hold, wallet or entry."""
        async with self._database.snapshot() as snapshot:
            return await self._repository.list_acts(snapshot, subject=subject, limit=limit)

    async def compute_trial_balance(self) -> list[TrialBalance]:
        """Return debits and credits of every book and currency, summed from the postings."""
        async with self._database.snapshot() as snapshot:
            totals = await self._ledger.sum_by_type(snapshot)
        grouped: defaultdict[tuple[Book, str, int], dict[AccountType, AccountTotals]] = defaultdict(
            dict
        )
        for each in totals:
            key = (each.book, each.currency.code, each.currency.scale)
            grouped[key][each.type] = each
        return [
            TrialBalance(book, code, scale, grouped[book, code, scale])
            for book, code, scale in sorted(grouped)
        ]

    async def verify(self) -> Verified:
        """Prove ledger, event streams and transfers from scratch."""
        found = [*await self.verify_ledger(), *await self.verify_wallets()]
        try:
            found += await self.verify_clearing()
        except NotCheckedError as error:
            return Verified(tuple(found), (f"clearing: {error}",))
        return Verified(tuple(found))

    async def verify_ledger(self) -> list[Violation]:
        """Prove every entry, balance, hold and hash chain."""
        async with self._database.snapshot() as snapshot:
            return await check_ledger(snapshot, self._repository.ledger_tables)

    async def verify_wallets(self) -> list[Violation]:
        """Prove the event streams, and the transfers against the ledger."""
        async with self._database.snapshot() as snapshot:
            return [
                *await self._repository.find_stream_violations(snapshot),
                *await check_transfers(snapshot),
            ]

    async def verify_clearing(self) -> list[Violation]:
        """Prove that this ledger's clearing accounts and the broker's net to what is in flight.

        Raises:
            NotCheckedError: The broker can't be asked, or never stood still.
        """
        return await self._transfers.check_clearing()

    async def _set_frozen(
        self,
        wallet_id: str,
        *,
        is_frozen: bool,
        reason: str,
        operator_id: str,
        now: datetime,
    ) -> Wallet:
        async def command(transaction: Transaction) -> Wallet:
            await self._repository.get_wallet(transaction, wallet_id, lock=True)
            await self._repository.save_frozen(
                transaction,
                wallet_id,
                frozen_at=now if is_frozen else None,
                operator_id=operator_id if is_frozen else None,
                reason=reason if is_frozen else None,
            )
            kind = ActKind.WALLET_FROZEN if is_frozen else ActKind.WALLET_UNFROZEN
            await self._note(transaction, kind, wallet_id, by=operator_id, now=now, reason=reason)
            return await self._repository.get_wallet(transaction, wallet_id)

        return await self._database.run(command)

    async def _note(
        self,
        transaction: Transaction,
        kind: ActKind,
        subject: str,
        *,
        by: str,
        now: datetime,
        reason: str = "",
    ) -> None:
        act = OperatorAct(self._till.ids.new("act"), by, kind, subject, reason, now)
        await self._repository.add_act(transaction, act)

    async def _lock_hold(self, transaction: Transaction, hold_id: str) -> tuple[Hold, Wallet]:
        found = await self._ledger.get_hold(transaction, hold_id)
        is_ours = hold_id.startswith(_PREFIX) and not await self._repository.is_of_funding(
            transaction, hold_id
        )
        if not is_ours:
            raise HoldNotOursError(
                "this hold belongs to a withdrawal or transfer, which ends it", hold_id=hold_id
            )
        account = await self._ledger.get_account(transaction, found.request.account_id)
        assert account.owner_id is not None, "holds are on customer accounts"
        wallet = await self._repository.get_wallet(transaction, account.owner_id, lock=True)
        return await self._ledger.get_hold(transaction, hold_id), wallet

    async def _expire(self, hold_id: str, now: datetime) -> None:
        async def command(transaction: Transaction) -> None:
            hold, wallet = await self._lock_hold(transaction, hold_id)
            if hold.closed_at is None:
                await self._ledger.expire_hold(transaction, hold_id, closed_at=now)
                await self._till.tell_held(transaction, wallet, hold.request.amount.currency, now)

        await self._database.group(command)

    async def _lock_wallets_of(
        self, transaction: Transaction, posted: PostedEntry
    ) -> Sequence[Wallet]:
        owners: set[str] = set()
        for line in posted.postings:
            account = await self._ledger.get_account(transaction, line.posting.account_id)
            if account.owner_id is not None:
                owners.add(account.owner_id)
        return [
            await self._repository.get_wallet(transaction, owner, lock=True)
            for owner in sorted(owners)
        ]
