"""Transfers between wallets and trading accounts: the saga, and what drives it to its end.

Every step is: save what is decided → ask the other end, outside of any transaction → save what it
answered. Each is idempotent, so a process killed anywhere leaves a transfer that the next step,
taken by whoever comes first, carries on. Two that take the same step at once do no harm: the other
end answers both alike, and of two saves the second finds the transfer moved on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Final

import structlog

from trading_api.contracts.wallet import TransferClosed
from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import FieldError, TradingError, UnavailableError
from trading_api.kernel.values import Money
from trading_api.ledger.checks import NotCheckedError, Violation
from trading_api.ledger.domain import HoldRequest, PostedEntry
from trading_api.modules.wallet.domain import (
    Transfer,
    TransferDirection,
    TransferState,
    Wallet,
    WalletLimits,
)
from trading_api.modules.wallet.domain.transfer import EXPIRED, clearing_account, transfer_entry
from trading_api.modules.wallet.errors import (
    BooksDifferError,
    CurrencyDiffersError,
    InsufficientCashError,
    TransferDiffersError,
    TransferEndsError,
    TransferNotOpenError,
    TransferRefusedError,
)
from trading_api.modules.wallet.ports import AccountSide, TradingAccounts
from trading_api.modules.wallet.repository import transfers as repository
from trading_api.modules.wallet.service.till import Till, in_wallet_terms, start_of_day
from trading_api.runtime.database import Idempotency, Transaction

log = structlog.get_logger("wallet")

LIFETIME: Final = timedelta(seconds=60)
"""A transfer whose destination hasn't credited it by then is undone."""

OWN_WALLET: Final = "wallet"
"""How a client may name its own wallet without knowing the id."""

_STEPS_MAX = 6
_OPEN_MAX = 200
_DRIVEN_AT_ONCE = 8
_RETRY_AFTER = timedelta(seconds=1)
"""The request that began a transfer has this long to finish it by itself."""
_CLEARING_ATTEMPTS = 5

CrashPoint = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Started:
    """A transfer as far as it came while its client waited.

    Attributes:
        is_replay: Whether an earlier request had begun it.
    """

    transfer: Transfer
    is_replay: bool


class TransferService:
    """Begins transfers and drives them.

    Args:
        crash_point: Does nothing outside fault runs.
    """

    def __init__(
        self,
        *,
        till: Till,
        accounts: TradingAccounts,
        idempotency: Idempotency,
        limits: WalletLimits,
        clock: Clock,
        crash_point: CrashPoint,
    ) -> None:
        self._till = till
        self._database = till.database
        self._ledger = till.ledger
        self._accounts = accounts
        self._idempotency = idempotency
        self._limits = limits
        self._clock = clock
        self._crash_point = crash_point

    async def transfer(
        self,
        *,
        user_id: str,
        source: str,
        destination: str,
        amount: Decimal,
        currency: str,
        description: str,
        client_transfer_id: str | None,
        idempotency_key: str | None,
        now: datetime,
    ) -> Started:
        """Move money between a user's wallet and one of its trading accounts.

        Begun in one transaction, then driven as far as the other end answers; what is left to do
        goes on in the background.

        Args:
            user_id: Whose both ends are.
            source: `wallet`, the wallet's id or a trading account's.
            destination: Likewise.
            amount: Positive, in units of the currency.
            currency: Of both ends.
            description: Shown in the lists.
            client_transfer_id: The client's own id; a repeat finds the first transfer.
            idempotency_key: Of the request; None switches that off.
            now: UTC.

        Raises:
            TransferEndsError: The two ends are no wallet and trading account.
            TradingAccountNotFoundError: No such account of this user.
            BooksDifferError, CurrencyDiffersError: The two ends don't fit.
            InsufficientFundsError, InsufficientCashError: The source hasn't as much.
            AmountBelowMinimumError, AmountAboveMaximumError, DailyLimitError: The limits.
            WalletFrozenError: An operator froze the wallet.
            TransferDiffersError, IdempotencyKeyReusedError: The id or key is another's.
            UnavailableError: The trading accounts can't be asked; nothing was begun.
        """
        asked = self._till.asked(amount, currency)
        self._limits.transfer.ensure_single(asked)
        await self._till.ensure_wallet(user_id, now)
        async with self._database.snapshot() as snapshot:
            wallet = await self._till.get_wallet(snapshot, user_id)
            if client_transfer_id is not None:
                first = await repository.find_by_client_id(snapshot, user_id, client_transfer_id)
                if first is not None:
                    _ensure_same(first, wallet, source, destination, asked, description)
                    return Started(first, is_replay=True)
        direction, account_id = _ends(wallet, source, destination)
        body = {
            "from": wallet.wallet_id if direction is TransferDirection.TO_ACCOUNT else account_id,
            "to": account_id if direction is TransferDirection.TO_ACCOUNT else wallet.wallet_id,
            "amount": str(asked),
            "currency": asked.currency.code,
            "description": description,
            "client_transfer_id": client_transfer_id,
        }
        replayed = await self._find_replay(user_id, idempotency_key, body)
        if replayed is not None:
            return Started(replayed, is_replay=True)
        await self._ensure_account(wallet, account_id, direction, asked)
        began = Transfer(
            transfer_id=self._till.ids.new("trf"),
            wallet_id=wallet.wallet_id,
            user_id=user_id,
            book=wallet.book,
            account_id=account_id,
            direction=direction,
            amount=asked,
            state=TransferState.PENDING,
            description=description,
            created_at=now,
            expires_at=now + LIFETIME,
            client_transfer_id=client_transfer_id,
        )
        started = await self._begin(began, idempotency_key, body, now)
        if started.is_replay:
            return started
        self._crash_point("wallet.begin.after_commit")
        return Started(await self.drive(transfer_id=began.transfer_id), is_replay=False)

    async def drive(self, *, transfer_id: str) -> Transfer:
        """Take a transfer as far as the other end answers; return it as it then stands.

        Idempotent, and harmless beside another driver of the same transfer.
        """
        for _ in range(_STEPS_MAX):
            async with self._database.snapshot() as snapshot:
                transfer = await repository.get_transfer(snapshot, transfer_id)
            if not transfer.is_open:
                break
            try:
                await self._step(transfer)
            except TransferNotOpenError:
                # Somebody else drives it too and was first.
                continue
            except UnavailableError as error:
                log.warning("transfer_waits", transfer_id=transfer_id, reason=error.message)
                break
        async with self._database.snapshot() as snapshot:
            return await repository.get_transfer(snapshot, transfer_id)

    async def drive_open(self, *, now: datetime) -> int:
        """Take every transfer that was left open one turn further; return how many are.

        Several at once, so that one whose other end answers slowly doesn't hold up the rest; one
        that fails is logged and left for the next turn.
        """
        waiting = self._list_waiting(before=now - _RETRY_AFTER)
        turn = asyncio.Lock()

        async def drive_next() -> bool:
            async with turn:
                each = await anext(waiting, None)
            if each is None:
                return False
            try:
                await self.drive(transfer_id=each.transfer_id)
            except Exception:
                log.exception("transfer_stuck", transfer_id=each.transfer_id)
            return True

        async def drive_all() -> int:
            count = 0
            while await drive_next():
                count += 1
            return count

        return sum(await asyncio.gather(*(drive_all() for _ in range(_DRIVEN_AT_ONCE))))

    async def get_transfer(self, *, user_id: str, transfer_id: str) -> Transfer:
        """Return one of a user's transfers.

        Raises:
            TransferNotFoundError: No such transfer, or somebody else's.
        """
        async with self._database.snapshot() as snapshot:
            return await repository.get_transfer(snapshot, transfer_id, user_id=user_id)

    async def list_transfers(
        self, *, user_id: str, limit: int, below: str | None
    ) -> tuple[list[Transfer], str | None]:
        """Return a page of a user's transfers, newest first, and where the next begins."""
        async with self._database.snapshot() as snapshot:
            found = await repository.list_transfers(
                snapshot, user_id, self._till.book, limit=limit + 1, below=below
            )
        page = found[:limit]
        return page, page[-1].transfer_id if len(found) > limit else None

    async def check_clearing(self) -> list[Violation]:
        """Prove that the two ledgers' clearing accounts net to the transfers in flight.

        Raises:
            NotCheckedError: The other ledger can't be asked, or never stood still.
        """
        for _ in range(_CLEARING_ATTEMPTS):
            before, open_before = await self._clearing()
            try:
                theirs, states = await self._accounts.find_states(
                    [each.transfer_id for each in open_before]
                )
            except UnavailableError as error:
                raise NotCheckedError(
                    f"the trading accounts can't be asked: {error.message}"
                ) from error
            after, open_after = await self._clearing()
            # Whatever moves over there is open over here meanwhile.
            if before == after and open_before == open_after:
                return _unsettled(before, theirs, open_before, states)
        raise NotCheckedError("transfers never stood still meanwhile; ask again")

    async def _list_waiting(self, *, before: datetime) -> AsyncIterator[Transfer]:
        last = ""
        while True:
            async with self._database.snapshot() as snapshot:
                page = await repository.list_open(
                    snapshot, limit=_OPEN_MAX, before=before, after=last
                )
            for each in page:
                yield each
            if len(page) < _OPEN_MAX:
                return
            last = page[-1].transfer_id

    async def _find_replay(
        self, user_id: str, key: str | None, body: Mapping[str, str | None]
    ) -> Transfer | None:
        """Find the transfer of a repeated request before the other end is asked about it."""
        async with self._database.snapshot() as snapshot:
            first = await self._idempotency.find(
                snapshot, user_id=user_id, operation="wallet.transfer", key=key, body=body
            )
            if first is None:
                return None
            return await repository.get_transfer(snapshot, str(first["transfer_id"]))

    async def _ensure_account(
        self, wallet: Wallet, account_id: str, direction: TransferDirection, asked: Money
    ) -> None:
        """Refuse before anything is begun what the other end is sure to refuse."""
        try:
            found = await self._accounts.get_cash(account_id=account_id, user_id=wallet.user_id)
        except TransferRefusedError as refused:
            raise refused.error from refused
        if found.book != wallet.book.value:
            raise BooksDifferError(
                f"the wallet is {wallet.book.value}, the trading account {found.book}",
                errors=[FieldError("to", "books_differ", "demo and funded money don't mix")],
                wallet=wallet.book.value,
                account=found.book,
            )
        if found.currency != asked.currency:
            message = f"the trading account keeps {found.currency.code}"
            raise CurrencyDiffersError(
                message,
                errors=[FieldError("currency", "differs", message)],
                account=found.currency.code,
            )
        if direction is TransferDirection.TO_WALLET and found.withdrawable_minor < asked.minor:
            available = Money(found.withdrawable_minor, asked.currency)
            raise InsufficientCashError(
                f"{asked} {asked.currency.code} required, {available} withdrawable",
                required=str(asked),
                available=str(available),
                currency=asked.currency.code,
            )

    async def _begin(
        self,
        transfer: Transfer,
        idempotency_key: str | None,
        body: Mapping[str, str | None],
        now: datetime,
    ) -> Started:
        async def command(transaction: Transaction) -> Started:
            first = await self._idempotency.begin(
                transaction,
                user_id=transfer.user_id,
                operation="wallet.transfer",
                key=idempotency_key,
                body=body,
            )
            if first is not None:
                found = await repository.get_transfer(transaction, str(first["transfer_id"]))
                return Started(found, is_replay=True)
            wallet = await self._till.lock_wallet(transaction, transfer.user_id, now)
            wallet.ensure_active()
            if not await repository.add_transfer(transaction, transfer):
                assert transfer.client_transfer_id is not None, "our own ids are new"
                other = await repository.find_by_client_id(
                    transaction, transfer.user_id, transfer.client_transfer_id
                )
                assert other is not None, "it could not be written because it exists"
                _ensure_same(
                    other,
                    wallet,
                    transfer.source,
                    transfer.destination,
                    transfer.amount,
                    transfer.description,
                )
                return Started(other, is_replay=True)
            await self._ensure_daily(transaction, wallet, transfer, now)
            if transfer.direction is TransferDirection.TO_ACCOUNT:
                account = wallet.account(transfer.amount.currency)
                await self._ledger.open_accounts(transaction, [account], created_at=now)
                # Without a time of its own: expiry must close the destination first.
                request = HoldRequest(
                    transfer.hold_id,
                    account.account_id,
                    transfer.amount,
                    now,
                    reference=transfer.transfer_id,
                )
                with in_wallet_terms():
                    await self._ledger.open_hold(transaction, request)
                await self._till.tell_held(transaction, wallet, transfer.amount.currency, now)
            await self._till.tell_transfer(transaction, wallet, transfer, now)
            await self._idempotency.finish(
                transaction,
                user_id=transfer.user_id,
                operation="wallet.transfer",
                key=idempotency_key,
                result={"transfer_id": transfer.transfer_id},
            )
            self._crash_point("wallet.begin.before_commit")
            return Started(transfer, is_replay=False)

        return await self._database.group(command)

    async def _ensure_daily(
        self, transaction: Transaction, wallet: Wallet, transfer: Transfer, now: datetime
    ) -> None:
        """Judge a new transfer beside the day's others; it is written, its wallet locked."""
        limits, asked = self._limits.transfer, transfer.amount
        if asked.currency.code not in limits.daily:
            return
        # Both directions count, since both cost the same.
        used = await repository.sum_begun(
            transaction,
            wallet.wallet_id,
            asked.currency,
            since=start_of_day(now),
            but=transfer.transfer_id,
        )
        limits.ensure_daily(asked, used=used)

    async def _step(self, transfer: Transfer) -> None:
        is_out = transfer.direction is TransferDirection.TO_ACCOUNT
        match transfer.state:
            case TransferState.PENDING if self._clock.now() >= transfer.expires_at:
                await self._save(transfer, transfer.release(EXPIRED, {}))
            case TransferState.PENDING if is_out:
                await self._credit_account(transfer)
            case TransferState.PENDING:
                await self._hold_at_account(transfer)
            case TransferState.CREDITED:
                await self._capture_at_account(transfer)
            case TransferState.RELEASING if is_out:
                await self._close_account_to(transfer)
            case TransferState.RELEASING:
                await self._void_at_account(transfer)
            case _:
                raise TransferNotOpenError("the transfer is closed")

    async def _credit_account(self, transfer: Transfer) -> None:
        try:
            side = await self._accounts.credit(transfer)
        except TransferRefusedError as refused:
            await self._release(transfer, refused.error)
            return
        self._crash_point("wallet.credit.after_answer")
        if side is AccountSide.CREDITED:
            await self._take_from_wallet(transfer)
        else:
            # Somebody closed the account to it meanwhile: see what they saved.
            raise TransferNotOpenError("the transfer has moved on")

    async def _hold_at_account(self, transfer: Transfer) -> None:
        try:
            side = await self._accounts.hold(transfer)
        except TransferRefusedError as refused:
            await self._release(transfer, refused.error)
            return
        self._crash_point("wallet.hold.after_answer")
        if side is AccountSide.VOIDED:
            raise TransferNotOpenError("the transfer has moved on")
        await self._give_to_wallet(transfer)

    async def _capture_at_account(self, transfer: Transfer) -> None:
        try:
            await self._accounts.capture(transfer)
        except TransferRefusedError as refused:
            # Held money can always be captured; whoever breaks that must be heard of.
            log.error(
                "transfer_capture_refused",
                transfer_id=transfer.transfer_id,
                code=refused.error.code,
            )
            raise UnavailableError("the account doesn't let the money go") from refused
        self._crash_point("wallet.capture.after_answer")
        await self._save(transfer, transfer.complete(self._clock.now()))

    async def _close_account_to(self, transfer: Transfer) -> None:
        side = await self._unrefused(self._accounts.refuse, transfer)
        self._crash_point("wallet.refuse.after_answer")
        if side is AccountSide.CREDITED:
            await self._take_from_wallet(transfer)
        else:
            await self._save(transfer, transfer.give_up(self._clock.now()))

    async def _void_at_account(self, transfer: Transfer) -> None:
        side = await self._unrefused(self._accounts.void, transfer)
        self._crash_point("wallet.void.after_answer")
        if side is AccountSide.CAPTURED:
            # Only after our database was restored to before it had the money.
            await self._give_to_wallet(transfer)
        else:
            await self._save(transfer, transfer.give_up(self._clock.now()))

    async def _unrefused(
        self, ask: Callable[[Transfer], Awaitable[AccountSide]], transfer: Transfer
    ) -> AccountSide:
        try:
            return await ask(transfer)
        except TransferRefusedError as refused:
            raise UnavailableError("the account refuses to let go") from refused

    async def _release(self, transfer: Transfer, error: TradingError) -> None:
        context = {name: str(value) for name, value in error.context.items()}
        await self._save(transfer, transfer.release(error.code, context))

    async def _take_from_wallet(self, transfer: Transfer) -> None:
        """Capture the wallet's hold: the account has the money."""

        async def command(transaction: Transaction) -> None:
            now = self._clock.now()
            current, wallet = await self._lock(transaction, transfer, now)
            posted = await self._post(transaction, current, wallet, now)
            done = current.complete(now, entry_id=posted.entry.entry_id)
            await self._tell(transaction, wallet, current, done, now)
            self._crash_point("wallet.take.before_commit")

        await self._database.group(command)
        self._crash_point("wallet.take.after_commit")

    async def _give_to_wallet(self, transfer: Transfer) -> None:
        """Credit the wallet: the account holds the money for us."""

        async def command(transaction: Transaction) -> None:
            now = self._clock.now()
            current, wallet = await self._lock(transaction, transfer, now)
            if current.state is not transfer.state:
                # Undone meanwhile: what was held for us is being released.
                raise TransferNotOpenError("the transfer has moved on")
            posted = await self._post(transaction, current, wallet, now)
            credited = current.credit(posted.entry.entry_id)
            await self._tell(transaction, wallet, current, credited, now)
            self._crash_point("wallet.give.before_commit")

        await self._database.group(command)
        self._crash_point("wallet.give.after_commit")

    async def _save(self, before: Transfer, after: Transfer) -> None:
        """Store a step that moves no money of the wallet's, except that it may release a hold."""

        async def command(transaction: Transaction) -> None:
            now = self._clock.now()
            current, wallet = await self._lock(transaction, before, now)
            if current.state is not before.state:
                raise TransferNotOpenError("the transfer has moved on")
            is_out = before.direction is TransferDirection.TO_ACCOUNT
            if is_out and after.state in (TransferState.FAILED, TransferState.EXPIRED):
                has_expired = after.state is TransferState.EXPIRED
                end = self._ledger.expire_hold if has_expired else self._ledger.void_hold
                await end(transaction, before.hold_id, closed_at=now)
                await self._till.tell_held(transaction, wallet, before.amount.currency, now)
            await self._tell(transaction, wallet, current, after, now)
            self._crash_point(f"wallet.{after.state.value}.before_commit")

        await self._database.group(command)
        self._crash_point(f"wallet.{after.state.value}.after_commit")

    async def _lock(
        self, transaction: Transaction, transfer: Transfer, now: datetime
    ) -> tuple[Transfer, Wallet]:
        wallet = await self._till.lock_wallet(transaction, transfer.user_id, now)
        current = await repository.get_transfer(transaction, transfer.transfer_id)
        if not current.is_open:
            raise TransferNotOpenError("the transfer is closed")
        return current, wallet

    async def _post(
        self, transaction: Transaction, transfer: Transfer, wallet: Wallet, now: datetime
    ) -> PostedEntry:
        account = wallet.account(transfer.amount.currency)
        clearing = clearing_account(transfer.amount, book=transfer.book)
        await self._ledger.open_accounts(transaction, [account, clearing], created_at=now)
        entry = transfer_entry(transfer, account, clearing, now=now)
        if transfer.direction is TransferDirection.TO_ACCOUNT:
            posted = await self._ledger.capture_hold(
                transaction, transfer.hold_id, entry, recorded_at=now
            )
        else:
            posted = await self._ledger.post_entry(transaction, entry, recorded_at=now)
        assert not posted.is_replay, "the transfer's state says whether it was posted"
        await self._till.tell_posted(transaction, [wallet], posted)
        return posted

    async def _tell(
        self,
        transaction: Transaction,
        wallet: Wallet,
        before: Transfer,
        after: Transfer,
        now: datetime,
    ) -> None:
        await repository.save_transfer(transaction, before, after)
        await self._till.tell_transfer(transaction, wallet, after, now)
        if not after.is_open:
            await self._till.outbox.add(
                transaction,
                TransferClosed(
                    transfer_id=after.transfer_id,
                    wallet_id=after.wallet_id,
                    user_id=after.user_id,
                    account_id=after.account_id,
                    direction=after.direction.value,
                    book=after.book.value,
                    currency=after.amount.currency.code,
                    scale=after.amount.currency.scale,
                    amount_minor=after.amount.minor,
                    state=after.state.value,
                    failure_code=after.failure_code,
                    closed_at=now,
                ),
                key=after.wallet_id,
                occurred_at=now,
            )
        transaction.after_commit(
            partial(
                log.info,
                "transfer_moved",
                transfer_id=after.transfer_id,
                state=after.state.value,
                failure_code=after.failure_code,
            )
        )

    async def _clearing(self) -> tuple[dict[str, int], list[Transfer]]:
        balances: dict[str, int] = {}
        waiting: list[Transfer] = []
        async with self._database.snapshot() as snapshot:
            for account_id in await repository.list_clearing(snapshot):
                account = await self._ledger.get_account(snapshot, account_id)
                balance = await self._ledger.get_balance(snapshot, account_id)
                key = f"{account.book.value}:{account.currency.code}"
                balances[key] = balances.get(key, 0) + balance.total.minor
            while page := await repository.list_open(
                snapshot, limit=_OPEN_MAX, after=waiting[-1].transfer_id if waiting else ""
            ):
                waiting += page
        return balances, waiting


def _ends(wallet: Wallet, source: str, destination: str) -> tuple[TransferDirection, str]:
    """Return the direction, and the trading account of the two ends."""
    own = (OWN_WALLET, wallet.wallet_id)
    if source == destination or (source in own and destination in own):
        message = "the two ends are the same"
        raise TransferEndsError(message, errors=[FieldError("to", "same_end", message)])
    if source in own and not destination.startswith("wal_"):
        return TransferDirection.TO_ACCOUNT, destination
    if destination in own and not source.startswith("wal_"):
        return TransferDirection.TO_WALLET, source
    if source.startswith("wal_") or destination.startswith("wal_"):
        # A user has one wallet per book, and money stays in its book.
        message = "the other wallet isn't yours, or keeps the other kind of money"
        raise BooksDifferError(message, errors=[FieldError("to", "books_differ", message)])
    message = "one of the two ends must be your wallet"
    raise TransferEndsError(message, errors=[FieldError("from", "no_wallet", message)])


def _ensure_same(
    first: Transfer,
    wallet: Wallet,
    source: str,
    destination: str,
    asked: Money,
    description: str,
) -> None:
    def end(name: str) -> str:
        return wallet.wallet_id if name == OWN_WALLET else name

    pairs = {
        "from": (first.source, end(source)),
        "to": (first.destination, end(destination)),
        "amount": (first.amount.minor, asked.minor),
        "currency": (first.amount.currency.code, asked.currency.code),
        "description": (first.description, description),
    }
    errors = [
        FieldError(name, "exists_with_different_value", f"{name} differs.")
        for name, (then, now) in pairs.items()
        if then != now
    ]
    if errors:
        raise TransferDiffersError(
            "a transfer with this client_transfer_id exists with another body",
            errors=errors,
            transfer_id=first.transfer_id,
        )


def _unsettled(
    ours: Mapping[str, int],
    theirs: Mapping[str, int],
    waiting: list[Transfer],
    states: Mapping[str, AccountSide],
) -> list[Violation]:
    """Compare the sum of both clearing accounts with what is between the two ledgers.

    The destination's clearing account is debited first, so what is in flight is missing.
    """
    expected: dict[str, int] = {}
    for each in waiting:
        side = states.get(each.transfer_id)
        is_out = each.direction is TransferDirection.TO_ACCOUNT
        has_left = side is AccountSide.CREDITED if is_out else each.state is TransferState.CREDITED
        has_arrived = False if is_out else side is AccountSide.CAPTURED
        key = f"{each.book.value}:{each.amount.currency.code}"
        if has_left and not has_arrived:
            expected[key] = expected.get(key, 0) - each.amount.minor
        elif has_arrived and not has_left:
            expected[key] = expected.get(key, 0) + each.amount.minor
    found = []
    for key in sorted({*ours, *theirs, *expected}):
        total = ours.get(key, 0) + theirs.get(key, 0)
        if total != expected.get(key, 0):
            found.append(
                Violation(
                    "W5",
                    key,
                    f"the clearing accounts add up to {total},"
                    f" transfers in flight to {expected.get(key, 0)}",
                )
            )
    return found
