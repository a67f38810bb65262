"""Trading accounts: opened once per user by event or on first access, and more on demand."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import structlog

from trading_api.contracts.broker import AccountOpened
from trading_api.kernel.errors import FieldError
from trading_api.kernel.values import Money, currency
from trading_api.ledger.domain import Book, EntryType
from trading_api.modules.broker.domain.account import Account, PositionMode
from trading_api.modules.broker.errors import (
    AccountCurrencyError,
    AccountLimitError,
    AccountNotFoundError,
)
from trading_api.modules.broker.service.desk import Books, Desk
from trading_api.modules.broker.service.keyed import Keyed
from trading_api.modules.broker.service.starts import add_start
from trading_api.runtime.database import Database, Idempotency, Inbox, Transaction

log = structlog.get_logger("broker")

_KNOWN_MAX = 100_000
_CONSUMER = "broker.accounts"


class AccountService:
    """Opens accounts and tells whose they are.

    Args:
        opening_cash_units: cash of a new paper account, in units of its currency.
        currencies: in which accounts may be kept; the first one is that of first accounts.
        per_user_max: accounts one user may have.
    """

    def __init__(
        self,
        *,
        database: Database,
        books: Books,
        inbox: Inbox,
        idempotency: Idempotency,
        opening_cash_units: int,
        currencies: Sequence[str] = ("USD",),
        per_user_max: int,
    ) -> None:
        self._database = database
        self._books = books
        self._inbox = inbox
        self._idempotency = idempotency
        self._opening_cash = {
            code: Money(opening_cash_units * int(10 ** currency(code).scale), currency(code))
            for code in currencies
        }
        self._first_currency = currencies[0]
        self._per_user_max = per_user_max
        # Who owns an account and which one is a user's first never change.
        self._owners: dict[str, str] = {}
        self._first: dict[str, str] = {}

    async def on_user_registered(self, *, user_id: str, event_id: str, now: datetime) -> None:
        """Open a new user's first account; a repeat of the event has no effect."""

        async def command(transaction: Transaction) -> None:
            if await self._inbox.claim(transaction, consumer=_CONSUMER, event_id=event_id):
                await self._open_first(transaction, user_id, now)

        await self._database.group(command)

    async def list_accounts(self, *, user_id: str, now: datetime) -> list[Account]:
        """Return a user's accounts, the first one opened if there is none yet."""
        async with self._database.snapshot() as snapshot:
            found = await self._books.repository.list_accounts(snapshot, user_id)
        if not found:
            found = [await self._ensure_first(user_id, now)]
        return found

    async def open_account(
        self,
        *,
        user_id: str,
        name: str | None,
        currency_code: str = "USD",
        position_mode: PositionMode = PositionMode.NETTING,
        idempotency_key: str | None,
        now: datetime,
    ) -> tuple[Account, bool]:
        """Open one more paper account.

        Returns:
            The account, and whether an earlier request with this key had opened it.

        Raises:
            AccountLimitError: the user has as many as one may have.
            AccountCurrencyError: no account is kept in that currency.
        """
        opening_cash = self._opening_cash_in(currency_code)
        await self._ensure_first(user_id, now)
        body = {"name": name, "currency": currency_code, "positionMode": position_mode.value}
        keyed = Keyed(self._idempotency, user_id, "POST /accounts", idempotency_key, body)

        async def command(transaction: Transaction) -> tuple[Account, bool]:
            first = await keyed.begin(transaction)
            if first is not None:
                found = await self._books.repository.find_account(transaction, first["account_id"])
                assert found is not None, "accounts are never deleted"
                return found, True
            present = await self._books.repository.lock_accounts_of(transaction, user_id)
            if len(present) >= self._per_user_max:
                raise AccountLimitError(
                    f"a user may have {self._per_user_max} trading accounts",
                    accounts_max=self._per_user_max,
                )
            ordinal = present[-1].ordinal + 1
            account = await self._open(
                transaction,
                user_id=user_id,
                ordinal=ordinal,
                name=name or f"Paper {ordinal}",
                opening_cash=opening_cash,
                position_mode=position_mode,
                now=now,
            )
            assert account is not None, "the user's accounts are locked"
            await keyed.finish(transaction, {"account_id": account.account_id})
            return account, False

        return await self._database.group(command)

    async def resolve(self, *, user_id: str, account_id: str | None, now: datetime) -> str:
        """Return the account meant: the one named, or the user's first, opened if need be.

        Raises:
            AccountNotFoundError: no such account, or somebody else's.
        """
        if account_id is None:
            known = self._first.get(user_id)
            if known is None:
                known = (await self.list_accounts(user_id=user_id, now=now))[0].account_id
                _remember(self._first, user_id, known)
            return known
        owner = self._owners.get(account_id)
        if owner is None:
            async with self._database.snapshot() as snapshot:
                found = await self._books.repository.find_account(snapshot, account_id)
            if found is not None:
                owner = found.user_id
                _remember(self._owners, account_id, owner)
        if owner != user_id:
            raise AccountNotFoundError("there is no such trading account")
        return account_id

    async def _ensure_first(self, user_id: str, now: datetime) -> Account:
        async def command(transaction: Transaction) -> Account:
            return await self._open_first(transaction, user_id, now)

        return await self._database.group(command)

    async def _open_first(self, transaction: Transaction, user_id: str, now: datetime) -> Account:
        repository = self._books.repository
        found = await repository.list_accounts(transaction, user_id)
        if not found:
            opened = await self._open(
                transaction,
                user_id=user_id,
                ordinal=1,
                name="Paper",
                opening_cash=self._opening_cash[self._first_currency],
                position_mode=PositionMode.NETTING,
                now=now,
            )
            # None: somebody opened it between our read and our write; theirs is committed now.
            found = [opened] if opened else await repository.list_accounts(transaction, user_id)
        return found[0]

    def _opening_cash_in(self, code: str) -> Money:
        found = self._opening_cash.get(code)
        if found is None:
            message = f"accounts are kept in {' or '.join(self._opening_cash)}"
            raise AccountCurrencyError(
                f"currency: {message}", errors=[FieldError("currency", "unsupported", message)]
            )
        return found

    async def _open(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        ordinal: int,
        name: str,
        opening_cash: Money,
        position_mode: PositionMode,
        now: datetime,
    ) -> Account | None:
        books = self._books
        account = Account(
            account_id=books.ids.new("acc"),
            user_id=user_id,
            ordinal=ordinal,
            name=name,
            book=Book.DEMO.value,
            currency=opening_cash.currency,
            epoch=books.ids.new("epo"),
            event_sequence=0,
            fact_sequence=0,
            opened_at=now,
            starting_cash_minor=opening_cash.minor,
            position_mode=position_mode,
            financed_on=now.astimezone(UTC).date(),
            begun_at=now,
        )
        if not await books.repository.add_account(transaction, account):
            return None
        desk = Desk(books, transaction, account, now)
        await books.ledger.open_accounts(transaction, desk.house.all(), created_at=now)
        await desk.post(
            f"opening_{account.account_id}",
            EntryType.DEPOSIT,
            against=desk.house.external,
            change_minor=opening_cash.minor,
            reference=account.account_id,
            description="Opening balance of a paper account",
        )
        await desk.publish(
            AccountOpened(
                account_id=account.account_id,
                user_id=user_id,
                book=account.book,
                currency=account.currency.code,
                opening_cash=opening_cash.to_decimal(),
            )
        )
        await desk.close()
        await add_start(desk, opening_cash.minor)
        transaction.after_commit(
            partial(log.info, "account_opened", account_id=account.account_id, user_id=user_id)
        )
        return desk.account


def _remember(known: dict[str, str], key: str, value: str) -> None:
    if len(known) >= _KNOWN_MAX:
        known.clear()
    known[key] = value
