"""Wallets, deposits and withdrawals.

Lock order: the idempotency row, the wallet, its ledger accounts by id.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Money
from trading_api.ledger.domain import Balance, Entry, EntryType, HoldRequest
from trading_api.ledger.engine import LinePosition, StatementLine
from trading_api.modules.wallet.domain import (
    BASE_CURRENCY_CODE,
    FEE_TYPES,
    Funding,
    FundingKind,
    FundingState,
    Limits,
    Receipt,
    Transfer,
    Wallet,
    WalletLimits,
    WalletSummary,
    currency_asked,
    funding_entry,
    signed,
    world_account,
)
from trading_api.modules.wallet.errors import (
    DestinationMissingError,
    FundingNotFoundError,
    RangeInvertedError,
)
from trading_api.modules.wallet.ports import PaymentRail
from trading_api.modules.wallet.repository import WalletEvent
from trading_api.modules.wallet.repository import transfers as transfer_rows
from trading_api.modules.wallet.service.settling import Asked, Settling, settled_receipt
from trading_api.modules.wallet.service.till import Till, in_wallet_terms, zero_balance
from trading_api.runtime.database import Idempotency, Inbox, Transaction
from trading_api.runtime.database.idempotency import Claim

log = structlog.get_logger("wallet")

CONSUMER = "wallet.open_wallet"
"""Name under which the inbox keeps which registrations opened their wallet."""

SYSTEM = "system"
"""Who closes what time alone closes."""

_DUE_MAX = 100


@dataclass(frozen=True, slots=True)
class WithdrawalPolicy:
    """What a withdrawal needs before it leaves.

    Attributes:
        cooling_off: How long a destination is too new; zero asks for no destination at all.
        confirm_from: By currency code: from this amount on its customer confirms it separately.
        confirm_within: How long there is time for that.
    """

    cooling_off: timedelta = timedelta(0)
    confirm_from: dict[str, Money] | None = None
    confirm_within: timedelta = timedelta(minutes=15)

    def needs_confirmation(self, amount: Money) -> bool:
        """Tell whether an amount is confirmed separately."""
        least = (self.confirm_from or {}).get(amount.currency.code)
        return least is not None and not amount < least


@dataclass(frozen=True, slots=True)
class WalletView:
    """What a subscriber starts from: lines or balances, and the offset they stand at."""

    wallet: Wallet
    balances: tuple[Balance, ...]
    lines: tuple[StatementLine, ...]
    transfers: tuple[Transfer, ...] = ()


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """Lines newest first; `next_position` is None on the last page."""

    wallet_id: str
    lines: tuple[StatementLine, ...]
    next_position: LinePosition | None


class WalletService:
    """Everything that a customer can do with deposits, withdrawals and what they left behind.

    Args:
        till: Locks wallets and tells what happened to them.
        rail: The way money comes and goes; its book is the book of the wallets served.
    """

    def __init__(
        self,
        *,
        till: Till,
        inbox: Inbox,
        idempotency: Idempotency,
        rail: PaymentRail,
        limits: WalletLimits,
        policy: WithdrawalPolicy,
    ) -> None:
        self._till = till
        self._database = till.database
        self._repository = till.repository
        self._ledger = till.ledger
        self._ids = till.ids
        self._currencies = till.currencies
        self._inbox = inbox
        self._idempotency = idempotency
        self._rail = rail
        self._limits = limits
        self._policy = policy
        self._settling = Settling(till=till, idempotency=idempotency, limits=limits, rail=rail.name)

    async def open_wallet(self, *, user_id: str, event_id: str, now: datetime) -> None:
        """Open a registered user's wallet; takes effect once, however often it is told."""

        async def command(transaction: Transaction) -> None:
            if await self._inbox.claim(transaction, consumer=CONSUMER, event_id=event_id):
                await self._till.lock_wallet(transaction, user_id, now)

        await self._database.group(command)

    async def get_summary(
        self, *, user_id: str, currency: str | None, now: datetime
    ) -> WalletSummary:
        """Return a user's wallet, opened where the registration has not arrived yet.

        Args:
            user_id: Whose.
            currency: Only this balance; None for all.
            now: UTC.

        Raises:
            CurrencyNotSupportedError: Wallets here do not hold that currency.
        """
        only = None if currency is None else currency_asked(currency, self._currencies)
        await self._till.ensure_wallet(user_id, now)
        async with self._database.snapshot() as transaction:
            wallet = await self._till.get_wallet(transaction, user_id)
            owned = await self._ledger.list_balances(transaction, wallet.wallet_id)
            sums = await self._ledger.sum_changes(
                transaction, [account.account_id for account, _ in owned]
            )
        base_currency = currency_asked(BASE_CURRENCY_CODE, self._currencies)
        base_id = wallet.account(base_currency).account_id
        zero = Money(0, base_currency)
        by_id = {account.account_id: balance for account, balance in owned}
        fees = sum((sums.get((base_id, each), zero) for each in sorted(FEE_TYPES)), start=zero)
        balances = [balance for account, balance in owned if only in (None, account.currency)]
        if only is not None and not balances:
            balances = [zero_balance(only)]
        return WalletSummary(
            wallet=wallet,
            balances=tuple(balances),
            base=by_id.get(base_id, zero_balance(base_currency)),
            lifetime_deposits=sums.get((base_id, EntryType.DEPOSIT), zero),
            lifetime_fees=-fees,
        )

    async def deposit(
        self,
        *,
        user_id: str,
        amount: Decimal,
        currency: str,
        description: str,
        idempotency_key: str | None,
        now: datetime,
    ) -> Receipt:
        """Take money in: posted at once where the rail settles itself, else pending.

        Raises:
            WalletFrozenError: An operator froze the wallet.
            AmountBelowMinimumError, AmountAboveMaximumError, DailyLimitError: The limits.
            AmountNotPositiveError, AmountNotExactError, AmountOutOfRangeError: The amount.
            CurrencyNotSupportedError: Wallets here do not hold that currency.
            IdempotencyKeyReusedError: The key was used for another request.
        """
        return await self._fund(
            FundingKind.DEPOSIT,
            user_id=user_id,
            asked=self._till.asked(amount, currency),
            description=description,
            idempotency_key=idempotency_key,
            now=now,
        )

    async def withdraw(
        self,
        *,
        user_id: str,
        amount: Decimal,
        currency: str,
        description: str,
        idempotency_key: str | None,
        now: datetime,
        destination: str | None = None,
    ) -> Receipt:
        """Pay money out: posted at once where nothing more is needed, else held and pending.

        What may be needed: the customer's confirmation of a large amount, the cooling off of a
        new destination, the operator of a rail that doesn't settle itself.

        Raises:
            WalletFrozenError: An operator froze the wallet.
            DestinationMissingError: Withdrawals here name their destination.
            AmountBelowMinimumError, AmountAboveMaximumError, DailyLimitError: The limits.
            InsufficientFundsError: Less than the amount is available.
            AmountNotPositiveError, AmountNotExactError, AmountOutOfRangeError: The amount.
            CurrencyNotSupportedError: Wallets here do not hold that currency.
            IdempotencyKeyReusedError: The key was used for another request.
        """
        return await self._fund(
            FundingKind.WITHDRAWAL,
            user_id=user_id,
            asked=self._till.asked(amount, currency),
            description=description,
            idempotency_key=idempotency_key,
            now=now,
            destination=destination,
        )

    async def list_transactions(
        self,
        *,
        user_id: str,
        limit: int,
        below: LinePosition | None,
        types: Collection[EntryType],
        currency: str | None,
        from_: datetime | None,
        to: datetime | None,
        now: datetime,
    ) -> TransactionPage:
        """Return a page of a user's ledger lines, newest first.

        Args:
            user_id: Whose.
            limit: Lines at most.
            below: Where the page before ended; None for the first.
            types: Only these; empty for all.
            currency: Only this; None for all.
            from_: Recorded at or after.
            to: Recorded before.
            now: UTC.

        Raises:
            RangeInvertedError: `from_` lies after `to`.
            CurrencyNotSupportedError: Wallets here do not hold that currency.
        """
        if from_ is not None and to is not None and from_ > to:
            message = "`from` must not lie after `to`"
            raise RangeInvertedError(message, errors=[FieldError("from", "inverted", message)])
        only = None if currency is None else currency_asked(currency, self._currencies)
        await self._till.ensure_wallet(user_id, now)
        async with self._database.snapshot() as transaction:
            wallet = await self._till.get_wallet(transaction, user_id)
            wanted = self._currencies if only is None else (only,)
            lines = await self._ledger.list_entries(
                transaction,
                [wallet.account(each).account_id for each in wanted],
                limit=limit + 1,
                below=below,
                types=types,
                from_=from_,
                to=to,
            )
        page = tuple(lines[:limit])
        has_more = len(lines) > limit
        return TransactionPage(wallet.wallet_id, page, _position_of(page[-1]) if has_more else None)

    async def list_pending_fundings(self, *, limit: int) -> list[Funding]:
        """Return deposits and withdrawals that wait for an operator, oldest first."""
        async with self._database.snapshot() as transaction:
            return await self._repository.list_pending_fundings(transaction, limit=limit)

    async def settle_funding(self, *, funding_id: str, operator_id: str, now: datetime) -> Funding:
        """Move the money of a funding that waits: an operator saw it arrive or sent it.

        Raises:
            FundingNotFoundError: There is none of that id.
            FundingClosedError: It was closed before.
        """

        async def command(transaction: Transaction) -> Funding:
            funding, wallet = await self._lock_funding(transaction, funding_id, now)
            return await self._settle(transaction, wallet, funding, by=operator_id, now=now)

        return await self._database.run(command)

    async def refuse_funding(self, *, funding_id: str, operator_id: str, now: datetime) -> Funding:
        """End a funding that waits with nothing moved; a withdrawal's hold is released.

        Raises:
            FundingNotFoundError: There is none of that id.
            FundingClosedError: It was closed before.
        """

        async def command(transaction: Transaction) -> Funding:
            funding, wallet = await self._lock_funding(transaction, funding_id, now)
            refused = funding.refuse(operator_id=operator_id, now=now)
            return await self._release(transaction, wallet, refused, now=now)

        return await self._database.run(command)

    async def confirm_funding(self, *, user_id: str, funding_id: str, now: datetime) -> Funding:
        """Confirm one's own withdrawal; paid at once where nothing more is needed.

        Raises:
            FundingNotFoundError: There is none of that id, or it is somebody else's.
            FundingClosedError: It was closed, or the time to confirm is over.
            WalletFrozenError: An operator froze the wallet.
        """

        async def command(transaction: Transaction) -> Funding:
            funding, wallet = await self._lock_funding(transaction, funding_id, now, owner=user_id)
            wallet.ensure_active()
            confirmed = funding.confirm(now)
            if confirmed is funding:
                return funding
            await self._repository.save_funding_state(transaction, confirmed)
            if self._rail.settles_itself and confirmed.not_before is None:
                return await self._settle(transaction, wallet, confirmed, by=user_id, now=now)
            return confirmed

        return await self._database.run(command)

    async def cancel_funding(self, *, user_id: str, funding_id: str, now: datetime) -> Funding:
        """Take one's own deposit or withdrawal back while it waits.

        Raises:
            FundingNotFoundError: There is none of that id, or it is somebody else's.
            FundingClosedError: It was closed before.
        """

        async def command(transaction: Transaction) -> Funding:
            funding, wallet = await self._lock_funding(transaction, funding_id, now, owner=user_id)
            canceled = funding.cancel(by=user_id, now=now)
            return await self._release(transaction, wallet, canceled, now=now)

        return await self._database.run(command)

    async def close_due_fundings(self, *, now: datetime) -> int:
        """Close what time alone closes: not confirmed in time, or cooled off; return how many."""
        async with self._database.snapshot() as snapshot:
            due = await self._repository.list_due_fundings(
                snapshot,
                rail=self._rail.name if self._rail.settles_itself else "",
                now=now,
                limit=_DUE_MAX,
            )
        for each in due:
            try:
                await self._close_due(each.funding_id, now)
            except Exception:
                # The others don't wait for it; it is tried again at the next turn.
                log.exception("funding_not_closed", funding_id=each.funding_id)
        return len(due)

    async def _close_due(self, funding_id: str, now: datetime) -> None:
        async def command(transaction: Transaction) -> None:
            funding, wallet = await self._lock_funding(transaction, funding_id, now)
            if funding.state is FundingState.UNCONFIRMED:
                await self._release(transaction, wallet, funding.expire(now), now=now)
            elif funding.state is FundingState.PENDING and wallet.frozen_at is None:
                await self._settle(transaction, wallet, funding, by=SYSTEM, now=now)

        await self._database.run(command)

    async def view(
        self, *, user_id: str, line_count: int, now: datetime, transfer_count: int = 0
    ) -> WalletView:
        """Return what a subscriber starts from with the stream's offset, from one snapshot."""
        await self._till.ensure_wallet(user_id, now)
        async with self._database.snapshot() as transaction:
            wallet = await self._till.get_wallet(transaction, user_id)
            owned = await self._ledger.list_balances(transaction, wallet.wallet_id)
            lines: list[StatementLine] = []
            if line_count:
                lines = await self._ledger.list_entries(
                    transaction, [account.account_id for account, _ in owned], limit=line_count
                )
            transfers: list[Transfer] = []
            if transfer_count:
                transfers = await transfer_rows.list_transfers(
                    transaction, user_id, wallet.book, limit=transfer_count, below=None
                )
        return WalletView(
            wallet, tuple(balance for _, balance in owned), tuple(lines), tuple(transfers)
        )

    async def list_events(
        self, *, user_id: str, after: int, limit: int
    ) -> tuple[Wallet | None, list[WalletEvent]]:
        """Return a user's wallet events behind a sequence, oldest first."""
        async with self._database.snapshot() as transaction:
            wallet = await self._repository.find_wallet(
                transaction, user_id=user_id, book=self._rail.book
            )
            if wallet is None:
                return None, []
            return wallet, await self._repository.list_events(
                transaction, wallet.wallet_id, after=after, limit=limit
            )

    async def _fund(
        self,
        kind: FundingKind,
        *,
        user_id: str,
        asked: Money,
        description: str,
        idempotency_key: str | None,
        now: datetime,
        destination: str | None = None,
    ) -> Receipt:
        is_deposit = kind is FundingKind.DEPOSIT
        limits = self._limits.deposit if is_deposit else self._limits.withdrawal
        limits.ensure_single(asked)
        if not is_deposit and self._policy.cooling_off and not destination:
            message = "name the destination: new ones have a cooling-off time here"
            raise DestinationMissingError(
                message, errors=[FieldError("destination", "missing", message)]
            )
        operation = f"wallet.{kind.value.lower()}"
        body = {
            "amount": str(asked),
            "currency": asked.currency.code,
            "description": description,
        }
        if destination:
            body["destination"] = destination
        if self._settles_at_once(kind, asked, destination):
            claim = Claim(user_id, operation, idempotency_key, body)
            return await self._settling.settle(Asked(kind, user_id, asked, description, claim, now))

        async def command(transaction: Transaction) -> Receipt:
            first = await self._idempotency.begin(
                transaction,
                user_id=user_id,
                operation=operation,
                key=idempotency_key,
                body=body,
            )
            if first is not None:
                return Receipt.thaw(first)
            wallet = await self._till.lock_wallet(transaction, user_id, now)
            wallet.ensure_active()
            await self._ensure_daily(transaction, wallet, kind, asked, limits, now)
            not_before: datetime | None = None
            confirm_by: datetime | None = None
            if not is_deposit:
                not_before = await self._not_before(transaction, wallet, destination, now)
                if self._policy.needs_confirmation(asked):
                    confirm_by = now + self._policy.confirm_within
            with in_wallet_terms():
                if self._rail.settles_itself and not_before is None and confirm_by is None:
                    entry = await self._entry(
                        transaction,
                        wallet,
                        kind,
                        asked,
                        entry_id=self._ids.new("ent"),
                        description=description,
                        reference=None,
                        rail=self._rail.name,
                        now=now,
                    )
                    posted = await self._ledger.post_entry(transaction, entry, recorded_at=now)
                    await self._till.tell_posted(transaction, [wallet], posted)
                    receipt = settled_receipt(kind, asked, wallet, posted)
                else:
                    receipt = await self._wait(
                        transaction,
                        wallet,
                        kind,
                        asked,
                        description,
                        now,
                        destination=destination,
                        not_before=not_before,
                        confirm_by=confirm_by,
                    )
            await self._idempotency.finish(
                transaction,
                user_id=user_id,
                operation=operation,
                key=idempotency_key,
                result=receipt.freeze(),
            )
            return receipt

        return await self._database.group(command)

    def _settles_at_once(self, kind: FundingKind, asked: Money, destination: str | None) -> bool:
        """Tell whether nothing is needed but the money; else its steps are taken one by one."""
        needs_more = kind is FundingKind.WITHDRAWAL and (
            destination is not None or self._policy.needs_confirmation(asked)
        )
        return self._rail.settles_itself and not needs_more

    async def _wait(
        self,
        transaction: Transaction,
        wallet: Wallet,
        kind: FundingKind,
        asked: Money,
        description: str,
        now: datetime,
        *,
        destination: str | None,
        not_before: datetime | None,
        confirm_by: datetime | None,
    ) -> Receipt:
        funding = Funding(
            funding_id=self._ids.new("fnd"),
            wallet_id=wallet.wallet_id,
            user_id=wallet.user_id,
            kind=kind,
            amount=asked,
            rail=self._rail.name,
            state=FundingState.PENDING if confirm_by is None else FundingState.UNCONFIRMED,
            description=description,
            created_at=now,
            destination=destination,
            not_before=not_before,
            confirm_by=confirm_by,
        )
        if kind is FundingKind.WITHDRAWAL:
            account = wallet.account(asked.currency)
            await self._ledger.open_accounts(transaction, [account], created_at=now)
            hold_id = self._ids.new("hld")
            request = HoldRequest(
                hold_id, account.account_id, asked, now, reference=funding.funding_id
            )
            await self._ledger.open_hold(transaction, request)
            funding = replace(funding, hold_id=hold_id)
        await self._repository.insert_funding(transaction, funding)
        if funding.hold_id is not None:
            await self._till.tell_held(transaction, wallet, asked.currency, now)
        return Receipt(
            wallet_id=wallet.wallet_id,
            type=EntryType(kind.value),
            state=funding.state,
            amount=signed(kind, asked),
            description=description,
            occurred_at=now,
            funding_id=funding.funding_id,
        )

    async def _entry(
        self,
        transaction: Transaction,
        wallet: Wallet,
        kind: FundingKind,
        amount: Money,
        *,
        entry_id: str,
        description: str,
        reference: str | None,
        rail: str,
        now: datetime,
    ) -> Entry:
        account = wallet.account(amount.currency)
        world = world_account(rail, amount.currency, book=wallet.book)
        await self._ledger.open_accounts(transaction, [account, world], created_at=now)
        return funding_entry(
            kind,
            amount,
            entry_id=entry_id,
            account=account,
            world=world,
            occurred_at=now,
            description=description,
            reference=reference,
            rail=rail,
        )

    async def _settle(
        self, transaction: Transaction, wallet: Wallet, funding: Funding, *, by: str, now: datetime
    ) -> Funding:
        entry_id = self._ids.new("ent")
        settled = funding.settle(entry_id=entry_id, operator_id=by, now=now)
        entry = await self._entry(
            transaction,
            wallet,
            funding.kind,
            funding.amount,
            entry_id=entry_id,
            description=funding.description,
            reference=funding.funding_id,
            rail=funding.rail,
            now=now,
        )
        if funding.hold_id is None:
            posted = await self._ledger.post_entry(transaction, entry, recorded_at=now)
        else:
            posted = await self._ledger.capture_hold(
                transaction, funding.hold_id, entry, recorded_at=now
            )
        await self._repository.close_funding(transaction, settled)
        await self._till.tell_posted(transaction, [wallet], posted)
        return settled

    async def _release(
        self, transaction: Transaction, wallet: Wallet, ended: Funding, *, now: datetime
    ) -> Funding:
        if ended.hold_id is not None:
            has_expired = ended.state is FundingState.EXPIRED
            end = self._ledger.expire_hold if has_expired else self._ledger.void_hold
            await end(transaction, ended.hold_id, closed_at=now)
        await self._repository.close_funding(transaction, ended)
        if ended.hold_id is not None:
            await self._till.tell_held(transaction, wallet, ended.amount.currency, now)
        return ended

    async def _ensure_daily(
        self,
        transaction: Transaction,
        wallet: Wallet,
        kind: FundingKind,
        asked: Money,
        limits: Limits,
        now: datetime,
    ) -> None:
        if asked.currency.code not in limits.daily:
            return
        used = await self._till.used_today(transaction, wallet, kind, asked.currency, now)
        limits.ensure_daily(asked, used=used)

    async def _not_before(
        self, transaction: Transaction, wallet: Wallet, destination: str | None, now: datetime
    ) -> datetime | None:
        """Return when a destination has cooled off; None where it has."""
        if destination is None:
            return None
        first = await self._repository.remember_destination(
            transaction, wallet.wallet_id, destination, now
        )
        ready = first + self._policy.cooling_off
        return ready if now < ready else None

    async def _lock_funding(
        self,
        transaction: Transaction,
        funding_id: str,
        now: datetime,
        *,
        owner: str | None = None,
    ) -> tuple[Funding, Wallet]:
        found = await self._repository.get_funding(transaction, funding_id)
        if owner not in (None, found.user_id):
            raise FundingNotFoundError("no deposit or withdrawal has this id")
        wallet = await self._till.lock_wallet(transaction, found.user_id, now)
        return await self._repository.get_funding(transaction, funding_id), wallet


def _position_of(line: StatementLine) -> LinePosition:
    return LinePosition(to_us(line.recorded_at), line.account_id, line.sequence)
