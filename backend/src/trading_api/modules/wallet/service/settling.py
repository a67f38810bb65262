"""Deposits and withdrawals that settle at once, as many in one transaction as wait for it.

Each step is a statement for all of them: their keys, their wallets, the ledger's batch, what is
told of them. A refused one changes nothing, frees its key and never fails its neighbours; where the
whole can't be written, `Batches` does them one by one, through the same lines.

Lock order: the idempotency rows, the wallets by id, the ledger accounts by id.
"""

from collections.abc import Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from datetime import datetime

from trading_api.kernel.errors import TradingError
from trading_api.kernel.values import Money
from trading_api.ledger.domain import Entry, LedgerAccount, PostedEntry
from trading_api.modules.wallet.domain import (
    FundingKind,
    FundingState,
    Limits,
    Receipt,
    Wallet,
    WalletLimits,
    funding_entry,
    signed,
    world_account,
)
from trading_api.modules.wallet.errors import DailyLimitError
from trading_api.modules.wallet.service.till import Till, Told, start_of_day, wallet_error
from trading_api.runtime.database import Idempotency, Transaction
from trading_api.runtime.database.batches import Batches, BatchSplitError
from trading_api.runtime.database.idempotency import Claim

Outcome = Receipt | TradingError


@dataclass(frozen=True, slots=True)
class Asked:
    """A deposit or withdrawal as it was asked for.

    Attributes:
        amount: Positive.
        claim: The request, its key and its body.
        now: When it was asked, UTC.
        context: Of the request, so that what is told of it names that request.
    """

    kind: FundingKind
    user_id: str
    amount: Money
    description: str
    claim: Claim
    now: datetime
    context: Context = field(default_factory=copy_context)


class Settling:
    """Posts what asks for nothing but the money.

    Args:
        rail: Its name; it settles itself.
    """

    def __init__(
        self, *, till: Till, idempotency: Idempotency, limits: WalletLimits, rail: str
    ) -> None:
        self._till = till
        self._idempotency = idempotency
        self._limits = {
            FundingKind.DEPOSIT: limits.deposit,
            FundingKind.WITHDRAWAL: limits.withdrawal,
        }
        self._rail = rail
        self._batches: Batches[Asked, Receipt] = Batches(till.database, self._settle)

    async def settle(self, asked: Asked) -> Receipt:
        """Move the money; return after the commit.

        Raises:
            WalletFrozenError: An operator froze the wallet.
            DailyLimitError: The limits.
            InsufficientFundsError: Less than the amount is available.
            IdempotencyKeyReusedError, RequestInProgressError: The key.
        """
        return await self._batches.submit(asked)

    async def _settle(self, transaction: Transaction, asks: Sequence[Asked]) -> Sequence[Outcome]:
        firsts = _firsts([each.claim for each in asks])
        own = [index for index, first in enumerate(firsts) if index == first]
        begun = await self._idempotency.begin_many(transaction, [asks[each].claim for each in own])
        outcomes: dict[int, Outcome] = {}
        claimed: dict[int, Asked] = {}
        for index, found in zip(own, begun, strict=True):
            if found is None:
                claimed[index] = asks[index]
            elif isinstance(found, TradingError):
                outcomes[index] = found
            else:
                outcomes[index] = Receipt.thaw(found)
        done = await self._post(transaction, claimed)
        refused = {index: error for index, error in done.items() if isinstance(error, TradingError)}
        if len(asks) == 1:
            for error in refused.values():
                # Alone it is rolled back with all that it began.
                raise error
        await self._idempotency.release(transaction, [asks[index].claim for index in refused])
        for index, asked in claimed.items():
            outcome, claim = done[index], asked.claim
            if isinstance(outcome, Receipt):
                await self._idempotency.finish(
                    transaction,
                    user_id=claim.user_id,
                    operation=claim.operation,
                    key=claim.key,
                    result=outcome.freeze(),
                )
        outcomes |= done
        return [
            outcomes[first] if first == index else _repeated(outcomes[first])
            for index, first in enumerate(firsts)
        ]

    async def _post(
        self, transaction: Transaction, asks: Mapping[int, Asked]
    ) -> dict[int, Outcome]:
        if not asks:
            return {}
        users = {each.user_id: each.now for each in asks.values()}
        wallets = await self._till.lock_wallets(transaction, list(users))
        opened = users.keys() - wallets.keys()
        for user_id in sorted(opened):
            wallets[user_id] = await self._till.lock_wallet(transaction, user_id, users[user_id])
        outcomes: dict[int, Outcome] = {}
        entries: dict[int, Entry] = {}
        day = _Day(self._till, transaction)
        for index, asked in asks.items():
            wallet = wallets[asked.user_id]
            try:
                wallet.ensure_active()
                await day.ensure(wallet, asked, self._limits[asked.kind])
            except TradingError as error:
                outcomes[index] = error
            else:
                entries[index] = self._entry(wallet, asked)
        accounts = {
            account.account_id: account
            for index in entries
            for account in self._ends(wallets[asks[index].user_id], asks[index])
        }
        known = await self._till.ledger.find_accounts(transaction, accounts)
        posted = await self._post_entries(transaction, accounts, entries, asks)
        told: list[Told] = []
        for index, outcome in posted.items():
            asked, wallet = asks[index], wallets[asks[index].user_id]
            if isinstance(outcome, PostedEntry):
                told.append(Told(wallet, outcome, asked.context))
                outcomes[index] = settled_receipt(asked.kind, asked.amount, wallet, outcome)
            else:
                outcomes[index] = wallet_error(outcome)
                day.ensure_uncounted(wallet, asked)
        for index, asked in asks.items():
            ends = {each.account_id for each in self._ends(wallets[asked.user_id], asked)}
            is_first = asked.user_id in opened or not ends <= known.keys()
            if is_first and len(asks) > 1 and isinstance(outcomes[index], TradingError):
                raise BatchSplitError("a refused request mustn't leave what was opened for it")
        self._till.tell_all(transaction, told)
        return outcomes

    async def _post_entries(
        self,
        transaction: Transaction,
        accounts: Mapping[str, LedgerAccount],
        entries: Mapping[int, Entry],
        asks: Mapping[int, Asked],
    ) -> dict[int, PostedEntry | TradingError]:
        if not entries:
            return {}
        ledger, now = self._till.ledger, max(each.now for each in asks.values())
        await ledger.open_accounts(transaction, list(accounts.values()), created_at=now)
        posted = await ledger.post_entries(transaction, list(entries.values()), recorded_at=now)
        return dict(zip(entries, posted, strict=True))

    def _ends(self, wallet: Wallet, asked: Asked) -> tuple[LedgerAccount, LedgerAccount]:
        currency = asked.amount.currency
        return wallet.account(currency), world_account(self._rail, currency, book=wallet.book)

    def _entry(self, wallet: Wallet, asked: Asked) -> Entry:
        account, world = self._ends(wallet, asked)
        return funding_entry(
            asked.kind,
            asked.amount,
            entry_id=self._till.ids.new("ent"),
            account=account,
            world=world,
            occurred_at=asked.now,
            description=asked.description,
            reference=None,
            rail=self._rail,
        )


class _Day:
    """What a UTC day's requests add up to, those of the batch included."""

    def __init__(self, till: Till, transaction: Transaction) -> None:
        self._till = till
        self._transaction = transaction
        self._used: dict[tuple[str, ...], Money] = {}
        self._exceeded: set[tuple[str, ...]] = set()

    async def ensure(self, wallet: Wallet, asked: Asked, limits: Limits) -> None:
        """Count a request; raises `DailyLimitError` where the day has no room for it."""
        if asked.amount.currency.code not in limits.daily:
            return
        key = self._key(wallet, asked)
        if key not in self._used:
            self._used[key] = await self._till.used_today(
                self._transaction, wallet, asked.kind, asked.amount.currency, asked.now
            )
        try:
            limits.ensure_daily(asked.amount, used=self._used[key])
        except DailyLimitError:
            self._exceeded.add(key)
            raise
        self._used[key] += asked.amount

    def ensure_uncounted(self, wallet: Wallet, asked: Asked) -> None:
        """Refuse to go on where a request was refused for one that moved nothing after all."""
        if self._key(wallet, asked) in self._exceeded:
            raise BatchSplitError("a day's limit counted a request that was refused")

    def _key(self, wallet: Wallet, asked: Asked) -> tuple[str, ...]:
        day = start_of_day(asked.now).isoformat()
        return (wallet.wallet_id, asked.kind.value, asked.amount.currency.code, day)


def settled_receipt(
    kind: FundingKind, amount: Money, wallet: Wallet, posted: PostedEntry
) -> Receipt:
    """Return the answer to a deposit or withdrawal that has moved."""
    line = posted.posting_on(wallet.account(amount.currency).account_id)
    assert line.running_balance_minor is not None
    return Receipt(
        wallet_id=wallet.wallet_id,
        type=posted.entry.type,
        state=FundingState.SETTLED,
        amount=signed(kind, amount),
        description=posted.entry.description,
        occurred_at=posted.entry.occurred_at,
        entry_id=posted.entry.entry_id,
        running_balance=Money(line.running_balance_minor, amount.currency),
        sequence=line.sequence,
    )


def _firsts(claims: Sequence[Claim]) -> list[int]:
    """Return for each claim the first of the same key, itself where there is none before."""
    found: dict[tuple[str, str, str], int] = {}
    firsts: list[int] = []
    for index, claim in enumerate(claims):
        first = index if claim.place is None else found.setdefault(claim.place, index)
        if claims[first].body != claim.body:
            raise BatchSplitError("two requests share their key, not their body")
        firsts.append(first)
    return firsts


def _repeated(outcome: Outcome) -> Outcome:
    return Receipt.thaw(outcome.freeze()) if isinstance(outcome, Receipt) else outcome
