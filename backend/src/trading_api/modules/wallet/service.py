"""Use cases of the wallet; each is one atomic unit and returns after its commit.

Lock order: the idempotency row, the wallet, its ledger accounts by id.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from trading_api.contracts.wallet import EntryPosted
from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import FieldError
from trading_api.kernel.ids import IdSource
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.checks import Violation, check_ledger
from trading_api.ledger.domain import Balance, Entry, EntryType, HoldRequest, PostedEntry
from trading_api.ledger.engine import LinePosition, StatementLine
from trading_api.ledger.errors import InsufficientFundsError as LedgerInsufficientFundsError
from trading_api.modules.wallet.domain import (
    BASE_CURRENCY_CODE,
    FEE_TYPES,
    Funding,
    FundingKind,
    FundingState,
    Receipt,
    Wallet,
    WalletSummary,
    amount_asked,
    currency_asked,
    funding_entry,
    signed,
    world_account,
)
from trading_api.modules.wallet.errors import InsufficientFundsError, RangeInvertedError
from trading_api.modules.wallet.ports import PaymentRail
from trading_api.modules.wallet.repository import WalletEvent, WalletRepository
from trading_api.runtime.database import Database, Idempotency, Inbox, Outbox, Transaction

CONSUMER = "wallet.open_wallet"
"""Name under which the inbox keeps which registrations opened their wallet."""


class WakeStream(Protocol):
    """Tells whoever listens that a stream has news up to a sequence."""

    def __call__(self, stream: str, sequence: int) -> None:
        """Wake the listeners; never blocks and never raises."""


@dataclass(frozen=True, slots=True)
class WalletView:
    """What a subscriber starts from: lines or balances, and the offset they stand at."""

    wallet: Wallet
    balances: tuple[Balance, ...]
    lines: tuple[StatementLine, ...]


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """Lines newest first; `next_position` is None on the last page."""

    wallet_id: str
    lines: tuple[StatementLine, ...]
    next_position: LinePosition | None


def stream_of(user_id: str) -> str:
    """Return the name of a user's wallet stream."""
    return f"wallet:{user_id}"


class WalletService:
    """Everything that can be done with wallets.

    Args:
        rail: The way money comes and goes; its book is the book of the wallets served.
        currencies: What wallets may hold.
        wake: Called after each commit that added to a stream.
    """

    def __init__(
        self,
        *,
        database: Database,
        repository: WalletRepository,
        outbox: Outbox,
        inbox: Inbox,
        idempotency: Idempotency,
        ids: IdSource,
        rail: PaymentRail,
        currencies: Sequence[Currency],
        wake: WakeStream,
    ) -> None:
        self._database = database
        self._repository = repository
        self._ledger = repository.ledger
        self._outbox = outbox
        self._inbox = inbox
        self._idempotency = idempotency
        self._ids = ids
        self._rail = rail
        self._currencies = tuple(currencies)
        self._wake = wake

    async def open_wallet(self, *, user_id: str, event_id: str, now: datetime) -> None:
        """Open a registered user's wallet; takes effect once, however often it is told."""

        async def command(transaction: Transaction) -> None:
            if await self._inbox.claim(transaction, consumer=CONSUMER, event_id=event_id):
                await self._lock_wallet(transaction, user_id, now)

        await self._database.run(command)

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
        await self._ensure_wallet(user_id, now)
        async with self._database.snapshot() as transaction:
            wallet = await self._get_wallet(transaction, user_id)
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
            balances = [_zero_balance(only)]
        return WalletSummary(
            wallet=wallet,
            balances=tuple(balances),
            base=by_id.get(base_id, _zero_balance(base_currency)),
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
            AmountNotPositiveError, AmountNotExactError, AmountOutOfRangeError: The amount.
            CurrencyNotSupportedError: Wallets here do not hold that currency.
            IdempotencyKeyReusedError: The key was used for another request.
        """
        return await self._fund(
            FundingKind.DEPOSIT,
            user_id=user_id,
            asked=self._asked(amount, currency),
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
    ) -> Receipt:
        """Pay money out: posted at once where the rail settles itself, else held and pending.

        Raises:
            InsufficientFundsError: Less than the amount is available.
            AmountNotPositiveError, AmountNotExactError, AmountOutOfRangeError: The amount.
            CurrencyNotSupportedError: Wallets here do not hold that currency.
            IdempotencyKeyReusedError: The key was used for another request.
        """
        return await self._fund(
            FundingKind.WITHDRAWAL,
            user_id=user_id,
            asked=self._asked(amount, currency),
            description=description,
            idempotency_key=idempotency_key,
            now=now,
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
        await self._ensure_wallet(user_id, now)
        async with self._database.snapshot() as transaction:
            wallet = await self._get_wallet(transaction, user_id)
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
            entry_id = self._ids.new("ent")
            settled = funding.settle(entry_id=entry_id, operator_id=operator_id, now=now)
            entry = await self._entry(
                transaction,
                wallet,
                funding.kind,
                funding.amount,
                entry_id=entry_id,
                description=funding.description,
                reference=funding_id,
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
            await self._tell_posted(transaction, wallet, posted, funding.amount.currency)
            return settled

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
            if funding.hold_id is not None:
                await self._ledger.void_hold(transaction, funding.hold_id, closed_at=now)
            await self._repository.close_funding(transaction, refused)
            if funding.hold_id is not None:
                await self._tell_held(transaction, wallet, funding.amount.currency, now)
            return refused

        return await self._database.run(command)

    async def view(self, *, user_id: str, line_count: int, now: datetime) -> WalletView:
        """Return balances and the newest lines with the stream's offset, from one snapshot."""
        await self._ensure_wallet(user_id, now)
        async with self._database.snapshot() as transaction:
            wallet = await self._get_wallet(transaction, user_id)
            owned = await self._ledger.list_balances(transaction, wallet.wallet_id)
            lines: list[StatementLine] = []
            if line_count:
                lines = await self._ledger.list_entries(
                    transaction, [account.account_id for account, _ in owned], limit=line_count
                )
        return WalletView(wallet, tuple(balance for _, balance in owned), tuple(lines))

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

    async def verify(self) -> list[Violation]:
        """Prove the ledger and the event streams from scratch; empty when everything holds."""
        async with self._database.snapshot() as transaction:
            return [
                *await check_ledger(transaction, self._repository.ledger_tables),
                *await self._repository.find_stream_violations(transaction),
            ]

    def _asked(self, amount: Decimal, currency: str) -> Money:
        return amount_asked(amount, currency_asked(currency, self._currencies))

    async def _fund(
        self,
        kind: FundingKind,
        *,
        user_id: str,
        asked: Money,
        description: str,
        idempotency_key: str | None,
        now: datetime,
    ) -> Receipt:
        operation = f"wallet.{kind.value.lower()}"
        body = {
            "amount": str(asked),
            "currency": asked.currency.code,
            "description": description,
        }

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
            wallet = await self._lock_wallet(transaction, user_id, now)
            make = self._settle_now if self._rail.settles_itself else self._wait
            with _in_wallet_terms():
                receipt = await make(transaction, wallet, kind, asked, description, now)
            await self._idempotency.finish(
                transaction,
                user_id=user_id,
                operation=operation,
                key=idempotency_key,
                result=receipt.freeze(),
            )
            return receipt

        return await self._database.group(command)

    async def _settle_now(
        self,
        transaction: Transaction,
        wallet: Wallet,
        kind: FundingKind,
        asked: Money,
        description: str,
        now: datetime,
    ) -> Receipt:
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
        await self._tell_posted(transaction, wallet, posted, asked.currency)
        line = posted.posting_on(wallet.account(asked.currency).account_id)
        assert line.running_balance_minor is not None
        return Receipt(
            wallet_id=wallet.wallet_id,
            type=entry.type,
            state=FundingState.SETTLED,
            amount=signed(kind, asked),
            description=description,
            occurred_at=now,
            entry_id=entry.entry_id,
            running_balance=Money(line.running_balance_minor, asked.currency),
            sequence=line.sequence,
        )

    async def _wait(
        self,
        transaction: Transaction,
        wallet: Wallet,
        kind: FundingKind,
        asked: Money,
        description: str,
        now: datetime,
    ) -> Receipt:
        funding = Funding(
            funding_id=self._ids.new("fnd"),
            wallet_id=wallet.wallet_id,
            user_id=wallet.user_id,
            kind=kind,
            amount=asked,
            rail=self._rail.name,
            state=FundingState.PENDING,
            description=description,
            created_at=now,
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
            await self._tell_held(transaction, wallet, asked.currency, now)
        return Receipt(
            wallet_id=wallet.wallet_id,
            type=EntryType(kind.value),
            state=FundingState.PENDING,
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

    async def _tell_posted(
        self, transaction: Transaction, wallet: Wallet, posted: PostedEntry, currency: Currency
    ) -> None:
        """Write what a new entry on one of the wallet's accounts tells: the fact and the stream."""
        account = wallet.account(currency)
        line = posted.posting_on(account.account_id)
        assert line.sequence is not None
        assert line.running_balance_minor is not None
        is_in = line.posting.side is account.normal_side
        await self._outbox.add(
            transaction,
            EntryPosted(
                wallet_id=wallet.wallet_id,
                user_id=wallet.user_id,
                book=wallet.book.value,
                account_id=account.account_id,
                sequence=line.sequence,
                entry_id=posted.entry.entry_id,
                entry_type=posted.entry.type.value,
                currency=currency.code,
                scale=currency.scale,
                amount_minor=line.posting.amount.minor * (1 if is_in else -1),
                balance_minor=line.running_balance_minor,
                reference=posted.entry.reference,
                occurred_at=posted.entry.occurred_at,
            ),
            key=account.account_id,
            key_sequence=line.sequence,
            occurred_at=posted.entry.occurred_at,
        )
        balance = posted.states[account.account_id].balance
        await self._tell(
            transaction,
            wallet,
            [(account.account_id, balance, line.sequence)],
            recorded_at=posted.recorded_at,
        )

    async def _tell_held(
        self, transaction: Transaction, wallet: Wallet, currency: Currency, now: datetime
    ) -> None:
        account_id = wallet.account(currency).account_id
        balance = await self._ledger.get_balance(transaction, account_id)
        await self._tell(transaction, wallet, [(account_id, balance, None)], recorded_at=now)

    async def _tell(
        self,
        transaction: Transaction,
        wallet: Wallet,
        changes: Sequence[tuple[str, Balance, int | None]],
        *,
        recorded_at: datetime,
    ) -> None:
        last = await self._repository.add_events(
            transaction, wallet, changes, recorded_at=recorded_at
        )
        stream = stream_of(wallet.user_id)
        transaction.after_commit(lambda: self._wake(stream, last))

    async def _ensure_wallet(self, user_id: str, now: datetime) -> None:
        async with self._database.snapshot() as transaction:
            found = await self._repository.find_wallet(
                transaction, user_id=user_id, book=self._rail.book
            )
        if found is not None:
            return

        async def command(transaction: Transaction) -> None:
            await self._lock_wallet(transaction, user_id, now)

        await self._database.run(command)

    async def _get_wallet(self, transaction: Transaction, user_id: str) -> Wallet:
        wallet = await self._repository.find_wallet(
            transaction, user_id=user_id, book=self._rail.book
        )
        assert wallet is not None, "a wallet is opened before it is read and never removed"
        return wallet

    async def _lock_wallet(self, transaction: Transaction, user_id: str, now: datetime) -> Wallet:
        """Lock a user's wallet, opening it with its USD account where there is none."""
        book = self._rail.book
        found = await self._repository.find_wallet(
            transaction, user_id=user_id, book=book, lock=True
        )
        if found is not None:
            return found
        wallet = Wallet(
            wallet_id=self._ids.new("wal"),
            user_id=user_id,
            book=book,
            epoch=self._ids.new("epo"),
            last_event_sequence=0,
            created_at=now,
        )
        if not await self._repository.insert_wallet(transaction, wallet):
            # Another process opened it in the same instant and has committed by now.
            return await self._lock_wallet(transaction, user_id, now)
        base = currency_asked(BASE_CURRENCY_CODE, self._currencies)
        await self._ledger.open_accounts(transaction, [wallet.account(base)], created_at=now)
        return wallet

    async def _lock_funding(
        self, transaction: Transaction, funding_id: str, now: datetime
    ) -> tuple[Funding, Wallet]:
        owner = (await self._repository.get_funding(transaction, funding_id)).user_id
        wallet = await self._lock_wallet(transaction, owner, now)
        return await self._repository.get_funding(transaction, funding_id), wallet


def _position_of(line: StatementLine) -> LinePosition:
    return LinePosition(to_us(line.recorded_at), line.account_id, line.sequence)


def _zero_balance(currency: Currency) -> Balance:
    zero = Money(0, currency)
    return Balance(total=zero, held=zero, available=zero)


@contextmanager
def _in_wallet_terms() -> Iterator[None]:
    """Say to the client what the ledger refused, without the ledger's own ids."""
    try:
        yield
    except LedgerInsufficientFundsError as error:
        required, available = error.required, error.available
        raise InsufficientFundsError(
            error.message,
            required=str(required),
            available=str(available),
            currency=required.currency.code,
        ) from error
