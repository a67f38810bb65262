"""What every use case of the wallet shares: wallets under their locks, and what is told of them."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Protocol

from trading_api.contracts.wallet import EntryPosted
from trading_api.kernel.errors import TradingError
from trading_api.kernel.ids import IdSource
from trading_api.kernel.values import Currency, Money
from trading_api.ledger.domain import Balance, Book, EntryType, PostedEntry
from trading_api.ledger.errors import InsufficientFundsError as LedgerInsufficientFundsError
from trading_api.modules.wallet.domain import (
    BASE_CURRENCY_CODE,
    FundingKind,
    Transfer,
    Wallet,
    amount_asked,
    currency_asked,
)
from trading_api.modules.wallet.errors import InsufficientFundsError
from trading_api.modules.wallet.repository import WalletChange, WalletRepository
from trading_api.runtime.database import Database, Outbox, Transaction


class WakeStream(Protocol):
    """Tells whoever listens that a stream has news up to a sequence."""

    def __call__(self, stream: str, sequence: int) -> None:
        """Wake the listeners; never blocks and never raises."""


def stream_of(user_id: str) -> str:
    """Return the name of a user's wallet stream."""
    return f"wallet:{user_id}"


@dataclass(frozen=True, slots=True)
class Told:
    """A new entry on a wallet, and the request that it comes from."""

    wallet: Wallet
    posted: PostedEntry
    context: Context


class Till:
    """Locks wallets, opens them at first use, and writes facts and events of what they did.

    Args:
        book: Of the wallets served.
        currencies: What wallets may hold.
        wake: Called after each commit that added to a stream.
    """

    def __init__(
        self,
        *,
        database: Database,
        repository: WalletRepository,
        outbox: Outbox,
        ids: IdSource,
        book: Book,
        currencies: Sequence[Currency],
        wake: WakeStream,
    ) -> None:
        self.database = database
        self.repository = repository
        self.ledger = repository.ledger
        self.outbox = outbox
        self.ids = ids
        self.book = book
        self.currencies = tuple(currencies)
        self._wake = wake

    def asked(self, amount: Decimal, currency: str) -> Money:
        """Return a request's amount; raises what `amount_asked` and `currency_asked` raise."""
        return amount_asked(amount, currency_asked(currency, self.currencies))

    async def ensure_wallet(self, user_id: str, now: datetime) -> None:
        """Open a user's wallet where there is none yet, in a transaction of its own."""
        async with self.database.snapshot() as transaction:
            found = await self.repository.find_wallet(transaction, user_id=user_id, book=self.book)
        if found is not None:
            return

        async def command(transaction: Transaction) -> None:
            await self.lock_wallet(transaction, user_id, now)

        await self.database.run(command)

    async def get_wallet(self, transaction: Transaction, user_id: str) -> Wallet:
        """Return a user's wallet, which was opened before."""
        wallet = await self.repository.find_wallet(transaction, user_id=user_id, book=self.book)
        assert wallet is not None, "a wallet is opened before it is read and never removed"
        return wallet

    async def lock_wallet(self, transaction: Transaction, user_id: str, now: datetime) -> Wallet:
        """Lock a user's wallet, opening it with its USD account where there is none."""
        found = await self.repository.find_wallet(
            transaction, user_id=user_id, book=self.book, lock=True
        )
        if found is not None:
            return found
        wallet = Wallet(
            wallet_id=self.ids.new("wal"),
            user_id=user_id,
            book=self.book,
            epoch=self.ids.new("epo"),
            last_event_sequence=0,
            created_at=now,
        )
        if not await self.repository.insert_wallet(transaction, wallet):
            # Another process opened it in the same instant and has committed by now.
            return await self.lock_wallet(transaction, user_id, now)
        base = currency_asked(BASE_CURRENCY_CODE, self.currencies)
        await self.ledger.open_accounts(transaction, [wallet.account(base)], created_at=now)
        return wallet

    async def lock_wallets(
        self, transaction: Transaction, user_ids: Collection[str]
    ) -> dict[str, Wallet]:
        """Lock the wallets of users, by user; those without one are absent."""
        locked = await self.repository.lock_wallets(transaction, user_ids, self.book)
        return {each.user_id: each for each in locked}

    async def used_today(
        self,
        transaction: Transaction,
        wallet: Wallet,
        kind: FundingKind,
        currency: Currency,
        now: datetime,
    ) -> Money:
        """Return what a UTC day's deposits or withdrawals moved or wait to move on a wallet."""
        moved = await self.sum_of_day(transaction, wallet, currency, EntryType(kind.value), now)
        waiting = await self.repository.sum_open_fundings(transaction, wallet, kind, currency)
        return moved + waiting

    async def sum_of_day(
        self,
        transaction: Transaction,
        wallet: Wallet,
        currency: Currency,
        type_: EntryType,
        now: datetime,
    ) -> Money:
        """Return what a UTC day's entries of a type moved on a wallet, as a positive amount.

        Args:
            transaction: The caller's, holding the wallet's lock.
            wallet: Whose.
            currency: Only this.
            type_: One whose entries all go the same way, such as deposits.
            now: UTC.
        """
        account_id = wallet.account(currency).account_id
        sums = await self.ledger.sum_changes(
            transaction, [account_id], types=[type_], from_=start_of_day(now)
        )
        found = sums.get((account_id, type_), Money(0, currency))
        return Money(abs(found.minor), currency)

    async def tell_posted(
        self, transaction: Transaction, wallets: Sequence[Wallet], posted: PostedEntry
    ) -> None:
        """Write what a new entry tells: a fact and stream events for each line on these wallets."""
        for wallet in wallets:
            changes = self._write_facts(transaction, wallet, posted)
            if changes:
                await self._tell(transaction, wallet, changes, recorded_at=posted.recorded_at)

    def tell_all(self, transaction: Transaction, told: Sequence[Told]) -> None:
        """Write what new entries tell, each in its request's context, oldest first.

        The wallets are as `lock_wallets` returned them, with nothing told of them since.
        """
        wallets: dict[str, Wallet] = {}
        changes: dict[str, list[tuple[WalletChange, datetime]]] = {}
        for each in told:
            wallets[each.wallet.wallet_id] = each.wallet
            found = each.context.run(self._write_facts, transaction, each.wallet, each.posted)
            changes.setdefault(each.wallet.wallet_id, []).extend(
                (change, each.posted.recorded_at) for change in found
            )
        for wallet_id, wallet in wallets.items():
            last = self.repository.queue_events(transaction, wallet, changes[wallet_id])
            transaction.after_commit(partial(self._wake, stream_of(wallet.user_id), last))

    def _write_facts(
        self, transaction: Transaction, wallet: Wallet, posted: PostedEntry
    ) -> list[WalletChange]:
        changes: list[WalletChange] = []
        for line in posted.postings:
            state = posted.states.get(line.posting.account_id)
            if state is None or state.account.owner_id != wallet.wallet_id:
                continue
            account, amount = state.account, line.posting.amount
            assert line.sequence is not None
            assert line.running_balance_minor is not None
            is_in = line.posting.side is account.normal_side
            self.outbox.write(
                transaction,
                EntryPosted(
                    wallet_id=wallet.wallet_id,
                    user_id=wallet.user_id,
                    book=wallet.book.value,
                    account_id=account.account_id,
                    sequence=line.sequence,
                    entry_id=posted.entry.entry_id,
                    entry_type=posted.entry.type.value,
                    currency=amount.currency.code,
                    scale=amount.currency.scale,
                    amount_minor=amount.minor * (1 if is_in else -1),
                    balance_minor=line.running_balance_minor,
                    reference=posted.entry.reference,
                    occurred_at=posted.entry.occurred_at,
                ),
                key=account.account_id,
                key_sequence=line.sequence,
                occurred_at=posted.entry.occurred_at,
            )
            total, held = line.running_balance_minor, state.held_minor
            balance = Balance(
                total=Money(total, amount.currency),
                held=Money(held, amount.currency),
                available=Money(total - held, amount.currency),
            )
            changes.append(WalletChange(account.account_id, balance, line.sequence))
        return changes

    async def tell_held(
        self, transaction: Transaction, wallet: Wallet, currency: Currency, now: datetime
    ) -> None:
        """Write what a hold that opened or ended without an entry tells: the balance."""
        change = await self._balance_change(transaction, wallet, currency)
        await self._tell(transaction, wallet, [change], recorded_at=now)

    async def tell_transfer(
        self, transaction: Transaction, wallet: Wallet, transfer: Transfer, now: datetime
    ) -> None:
        """Write a transfer's new state into its wallet's stream."""
        account = wallet.account(transfer.amount.currency)
        await self.ledger.open_accounts(transaction, [account], created_at=now)
        change = await self._balance_change(
            transaction, wallet, transfer.amount.currency, transfer=transfer
        )
        await self._tell(transaction, wallet, [change], recorded_at=now)

    async def _balance_change(
        self,
        transaction: Transaction,
        wallet: Wallet,
        currency: Currency,
        *,
        transfer: Transfer | None = None,
    ) -> WalletChange:
        account_id = wallet.account(currency).account_id
        balance = await self.ledger.get_balance(transaction, account_id)
        return WalletChange(account_id, balance, transfer=transfer)

    async def _tell(
        self,
        transaction: Transaction,
        wallet: Wallet,
        changes: Sequence[WalletChange],
        *,
        recorded_at: datetime,
    ) -> None:
        last = await self.repository.add_events(
            transaction, wallet, changes, recorded_at=recorded_at
        )
        stream = stream_of(wallet.user_id)
        transaction.after_commit(lambda: self._wake(stream, last))


def zero_balance(currency: Currency) -> Balance:
    """Return nothing of a currency."""
    zero = Money(0, currency)
    return Balance(total=zero, held=zero, available=zero)


def start_of_day(now: datetime) -> datetime:
    """Return when the UTC day of an instant began; limits count by it."""
    return now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@contextmanager
def in_wallet_terms() -> Iterator[None]:
    """Say to the client what the ledger refused, without the ledger's own ids."""
    try:
        yield
    except LedgerInsufficientFundsError as error:
        raise wallet_error(error) from error


def wallet_error(error: TradingError) -> TradingError:
    """Return what the client is told where the ledger refused; other errors as they are."""
    if not isinstance(error, LedgerInsufficientFundsError):
        return error
    required, available = error.required, error.available
    return InsufficientFundsError(
        error.message,
        required=str(required),
        available=str(available),
        currency=required.currency.code,
    )
