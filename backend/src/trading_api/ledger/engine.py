"""The engine: writes entries and holds inside the caller's transaction.

It locks the customer accounts it touches, always in id order, and reads their state under that
lock; the rows of house, clearing and fx accounts are neither locked nor updated. Nothing here
commits; an error means that the caller rolls back.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Insert,
    Row,
    Select,
    Table,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.kernel.errors import TradingError
from trading_api.kernel.values import Currency, Money
from trading_api.ledger import domain
from trading_api.ledger.domain import (
    AccountState,
    AccountType,
    Balance,
    Book,
    Entry,
    EntryType,
    Hold,
    HoldRequest,
    HoldState,
    LedgerAccount,
    PostedEntry,
    PostedPosting,
    Posting,
    Side,
)
from trading_api.ledger.errors import (
    EntryAlreadyReversedError,
    EntryNotFoundError,
    HoldNotFoundError,
    LedgerAccountNotFoundError,
    LedgerInvariantError,
)
from trading_api.ledger.ports import Dialect, LedgerTransaction
from trading_api.ledger.sets import Sets
from trading_api.ledger.tables import LedgerTables

_HALF = 10**9
"""Sums of amounts are taken in two parts of nine digits: SQLite's SUM overflows at 2⁶³."""

_KNOWN_ACCOUNTS_MAX = 100_000
"""Identities kept in memory, some 300 bytes each; beyond it they are read anew."""


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One posting on a customer account, with what its entry says.

    `change` carries the sign that the customer sees: positive when the balance grew.
    """

    account_id: str
    sequence: int
    entry_id: str
    type: EntryType
    change: Money
    running_balance: Money
    reference: str | None
    description: str
    details: Mapping[str, str]
    reverses_entry_id: str | None
    occurred_at: datetime
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class AccountTotals:
    """Debits and credits of every account of one type, book and currency, in minor units."""

    type: AccountType
    book: Book
    currency: Currency
    debit_minor: int
    credit_minor: int


@dataclass(frozen=True, slots=True)
class LinePosition:
    """Where a page of statement lines ended; the next page begins below it."""

    recorded_at_us: int
    account_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Decided:
    """Entries that were decided on locked accounts and are to be written at the end.

    Attributes:
        entries: in their order.
        before: the states, as stored, of every customer account they touch, by id.
    """

    entries: tuple[PostedEntry, ...]
    before: Mapping[str, AccountState]


class _Statements:
    """The statements of the writing path, built once."""

    def __init__(self, tables: LedgerTables) -> None:
        accounts = tables.accounts
        self.load_accounts = select(accounts).where(
            accounts.c.account_id.in_(bindparam("account_ids", expanding=True))
        )
        self.save_state = (
            update(accounts)
            .where(
                accounts.c.account_id == bindparam("of_account_id"),
                accounts.c.last_sequence == bindparam("of_last_sequence"),
                accounts.c.balance_minor == bindparam("of_balance_minor"),
                accounts.c.held_minor == bindparam("of_held_minor"),
            )
            .values(
                {
                    name: bindparam(name)
                    for name in (
                        "balance_minor",
                        "held_minor",
                        "last_sequence",
                        "last_hash",
                        "last_posted_at_us",
                    )
                }
            )
        )
        self.insert_account = _insert_or_skip(accounts)
        holds = tables.holds
        self.insert_hold = _insert_or_skip(holds)
        self.find_hold = (
            select(holds, accounts.c.scale)
            .join_from(holds, accounts, holds.c.account_id == accounts.c.account_id)
            .where(holds.c.hold_id == bindparam("of_hold_id"))
        )
        ends = ("state", "captured_minor", "entry_id", "closed_at_us")
        self.save_end = (
            update(holds)
            .where(
                holds.c.hold_id == bindparam("of_hold_id"), holds.c.state == bindparam("of_state")
            )
            .values({name: bindparam(name) for name in ends})
        )
        self.load_account = select(accounts).where(
            accounts.c.account_id == bindparam("of_account_id")
        )


def _insert_or_skip(table: Table) -> Mapping[Dialect, Insert]:
    """Return an INSERT by dialect that leaves a row with the same primary key as it is."""
    keys = [column.name for column in table.primary_key]
    return {
        "sqlite": sqlite.insert(table).on_conflict_do_nothing(index_elements=keys),
        "postgresql": postgresql.insert(table).on_conflict_do_nothing(index_elements=keys),
    }


class Ledger:
    """One module's ledger.

    Every method works in the caller's transaction and needs the module's tables to exist.

    Args:
        tables: The module's ledger tables.
    """

    def __init__(self, tables: LedgerTables) -> None:
        self._tables = tables
        self._statements = _Statements(tables)
        # Identities never change, so committed ones need not be read again.
        self._known: dict[str, LedgerAccount] = {}
        self._sets_of: dict[Dialect, Sets] = {}

    async def open_accounts(
        self,
        transaction: LedgerTransaction,
        accounts: Sequence[LedgerAccount],
        *,
        created_at: datetime,
    ) -> None:
        """Make sure that accounts exist, with a balance of zero where they are new; idempotent.

        Raises:
            LedgerInvariantError: An account exists with another identity.
        """
        wanted = {each.account_id for each in accounts}
        found = await self._load_accounts(transaction, wanted)
        missing = [each for each in accounts if each.account_id not in found]
        if missing:
            await transaction.execute(
                self._statements.insert_account[transaction.dialect],
                [_account_values(each, to_us(created_at)) for each in missing],
            )
            found = await self._load_accounts(transaction, wanted)
        for account in accounts:
            if found[account.account_id] != account:
                raise LedgerInvariantError(f"{account.account_id} has another identity")

    async def lock_accounts(
        self, transaction: LedgerTransaction, account_ids: Collection[str]
    ) -> dict[str, AccountState]:
        """Lock customer accounts in id order until the transaction ends; return their states.

        House accounts among the ids are left out.
        """
        rows = await self._sets(transaction).lock_states(transaction, account_ids)
        accounts = await self._load_accounts(transaction, {row[0] for row in rows})
        return {
            account_id: AccountState(accounts[account_id], balance, held, sequence, digest, at_us)
            for account_id, balance, held, sequence, digest, at_us in rows
        }

    async def post_entry(
        self, transaction: LedgerTransaction, entry: Entry, *, recorded_at: datetime
    ) -> PostedEntry:
        """Write a balanced entry, or find it: the same id with the same body has one effect.

        Args:
            transaction: The caller's.
            entry: What to post; its accounts exist.
            recorded_at: Now; moved forward where an account's newest posting is later.

        Raises:
            EntryDiffersError: The id exists with another body; `errors` names the fields.
            InsufficientFundsError: A customer account would fall below zero.
            EntryAlreadyReversedError: The entry to reverse has its reversal.
            BalanceOutOfRangeError: A balance would leave ±10¹⁸.
            LedgerAccountNotFoundError: An account does not exist.
        """
        accounts, states = await self._lock_for(transaction, entry)
        return await self._post(transaction, entry, accounts, states, recorded_at=recorded_at)

    async def post_entries(
        self, transaction: LedgerTransaction, entries: Sequence[Entry], *, recorded_at: datetime
    ) -> list[PostedEntry | TradingError]:
        """Write many entries in their order by a handful of statements, however many they are.

        Each has its own outcome, as `post_entry` would return or raise it: one that is refused
        changes nothing and never fails its neighbours. Where somebody else writes one of the same
        ids meanwhile the database refuses the whole batch: roll back and post one by one.

        Args:
            transaction: The caller's.
            entries: What to post; their accounts exist.
            recorded_at: Now; moved forward where an account's newest posting is later.

        Raises:
            LedgerInvariantError: What was stored is not what was decided; roll back.
        """
        account_ids = {posting.account_id for entry in entries for posting in entry.postings}
        states = await self.lock_accounts(transaction, account_ids)
        accounts = {account_id: state.account for account_id, state in states.items()}
        accounts |= await self._load_accounts(transaction, account_ids - accounts.keys())
        ids = [entry.entry_id for entry in entries]
        stored = await self._sets(transaction).find_entry_ids(transaction, ids)
        before = dict(states)
        written: dict[str, PostedEntry] = {}
        reversed_ids: set[str | None] = {None}
        outcomes: list[PostedEntry | TradingError] = []
        for entry in entries:
            try:
                if entry.entry_id in stored:
                    outcome = await self._replay(transaction, entry)
                elif entry.entry_id in written:
                    first = written[entry.entry_id]
                    domain.ensure_same_entry(first.entry, entry)
                    outcome = replace(first, is_replay=True)
                else:
                    outcome = await self._decide(
                        transaction, entry, accounts, states, reversed_ids, recorded_at
                    )
                    written[entry.entry_id] = outcome
                    reversed_ids.add(entry.reverses_entry_id)
                    states |= outcome.states
            except TradingError as error:
                outcomes.append(error)
            else:
                outcomes.append(outcome)
        if written:
            await self._write_all(transaction, list(written.values()), before, states)
        return outcomes

    async def decide_entry(
        self,
        transaction: LedgerTransaction,
        entry: Entry,
        states: Mapping[str, AccountState],
        *,
        recorded_at: datetime,
    ) -> PostedEntry:
        """Decide an entry over states under the caller's locks; `write_decided` writes it.

        Its id must be new: it is not looked for, and one that is taken fails the transaction.

        Args:
            transaction: The caller's.
            entry: What to post, reversing nothing; its accounts exist.
            states: Of every customer account it touches, as the entries decided before left them.
            recorded_at: Now; moved forward where an account's newest posting is later.

        Raises:
            InsufficientFundsError, BalanceOutOfRangeError, LedgerAccountNotFoundError: As
                `post_entry`.
        """
        touched = {posting.account_id for posting in entry.postings}
        accounts = {account_id: state.account for account_id, state in states.items()}
        accounts |= await self._load_accounts(transaction, touched - accounts.keys())
        return await self._decide(transaction, entry, accounts, states, {None}, recorded_at)

    async def write_decided(
        self, transaction: LedgerTransaction, decided: Sequence[Decided]
    ) -> None:
        """Write what was decided for accounts that differ, by as many statements as for one.

        Raises:
            LedgerInvariantError: What was stored is not what was decided; roll back.
        """
        before: dict[str, AccountState] = {}
        after: dict[str, AccountState] = {}
        for each in decided:
            if not before.keys().isdisjoint(each.before):
                raise LedgerInvariantError("an account was decided over twice")
            before |= each.before
            after |= each.before
            for posted in each.entries:
                after |= posted.states
        entries = [posted for each in decided for posted in each.entries]
        await self._write_all(transaction, entries, before, after)

    async def open_hold(self, transaction: LedgerTransaction, request: HoldRequest) -> Hold:
        """Reserve an amount, or find the hold: the same id with the same body has one effect.

        Raises:
            HoldDiffersError: The id exists with another body; `errors` names the fields.
            InsufficientFundsError: Less than the amount is available.
            LedgerAccountNotFoundError: There is no such customer account.
        """
        states = await self.lock_accounts(transaction, [request.account_id])
        first = await self.find_hold(transaction, request.hold_id)
        if first is None:
            if request.account_id not in states:
                raise _account_not_found(request.account_id)
            before = states[request.account_id]
            after = domain.hold(before, request)
            result = await transaction.execute(
                self._statements.insert_hold[transaction.dialect], _hold_values(Hold(request))
            )
            if result.rowcount == 1:
                await self._save_state(transaction, before, after)
                return Hold(request)
            # Somebody took this id for another account while we held ours.
            first = await self.get_hold(transaction, request.hold_id)
        domain.ensure_same_hold(first.request, request)
        return first

    async def capture_hold(
        self,
        transaction: LedgerTransaction,
        hold_id: str,
        entry: Entry,
        *,
        recorded_at: datetime,
    ) -> PostedEntry:
        """End a hold by an entry that takes all or part of it; the rest is released.

        The same capture again finds its entry.

        Raises:
            HoldNotFoundError: No hold has this id.
            HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It ended
                otherwise.
            CaptureExceedsHoldError: The entry takes more than was reserved.
        """
        account_id = (await self.get_hold(transaction, hold_id)).request.account_id
        accounts, states = await self._lock_for(transaction, entry)
        if account_id not in states:
            raise LedgerInvariantError(f"{entry.entry_id} takes nothing from {account_id}")
        held = await self.get_hold(transaction, hold_id)
        if held.state is HoldState.POSTED and held.entry_id == entry.entry_id:
            return await self._replay(transaction, entry)
        ended = domain.capture(held, entry, accounts[account_id], closed_at=recorded_at)
        posted = await self._post(
            transaction,
            entry,
            accounts,
            states,
            recorded_at=recorded_at,
            released={account_id: held.request.amount.minor},
        )
        if posted.is_replay:
            raise LedgerInvariantError(f"{entry.entry_id} was posted without its hold {hold_id}")
        await self._save_end(transaction, ended)
        return posted

    async def void_hold(
        self, transaction: LedgerTransaction, hold_id: str, *, closed_at: datetime
    ) -> Hold:
        """End a hold without taking anything.

        Raises:
            HoldNotFoundError: No hold has this id.
            HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It ended.
        """
        return await self._release(transaction, hold_id, HoldState.VOIDED, closed_at)

    async def expire_hold(
        self, transaction: LedgerTransaction, hold_id: str, *, closed_at: datetime
    ) -> Hold:
        """End a hold whose time is over; the caller decides that it is.

        Raises:
            HoldNotFoundError: No hold has this id.
            HoldAlreadyCapturedError, HoldAlreadyVoidedError, HoldAlreadyExpiredError: It ended.
        """
        return await self._release(transaction, hold_id, HoldState.EXPIRED, closed_at)

    async def get_hold(self, transaction: LedgerTransaction, hold_id: str) -> Hold:
        """Return a hold.

        Raises:
            HoldNotFoundError: No hold has this id.
        """
        found = await self.find_hold(transaction, hold_id)
        if found is None:
            raise HoldNotFoundError("There is no such hold.", hold_id=hold_id)
        return found

    async def find_hold(self, transaction: LedgerTransaction, hold_id: str) -> Hold | None:
        """Return a hold, or None."""
        row = await transaction.first(self._statements.find_hold, {"of_hold_id": hold_id})
        return None if row is None else _hold_of(row)

    async def get_entry(self, transaction: LedgerTransaction, entry_id: str) -> PostedEntry:
        """Return an entry with its postings in their order.

        Raises:
            EntryNotFoundError: No entry has this id.
        """
        found = await self.find_entry(transaction, entry_id)
        if found is None:
            raise EntryNotFoundError("There is no such entry.", entry_id=entry_id)
        return found

    async def find_entry(self, transaction: LedgerTransaction, entry_id: str) -> PostedEntry | None:
        """Return an entry with its postings in their order, or None."""
        entries, postings, accounts = (
            self._tables.entries,
            self._tables.postings,
            self._tables.accounts,
        )
        row = await transaction.first(select(entries).where(entries.c.entry_id == entry_id))
        if row is None:
            return None
        lines = await transaction.all(
            select(postings, accounts.c.scale)
            .join_from(postings, accounts, postings.c.account_id == accounts.c.account_id)
            .where(postings.c.entry_id == entry_id)
            .order_by(postings.c.position)
        )
        return entry_of(row, lines)

    async def find_accounts(
        self, transaction: LedgerTransaction, account_ids: Collection[str]
    ) -> dict[str, LedgerAccount]:
        """Return accounts' identities by id; unknown ones are absent."""
        return await self._load_accounts(transaction, account_ids)

    async def get_account(self, transaction: LedgerTransaction, account_id: str) -> LedgerAccount:
        """Return an account's identity.

        Raises:
            LedgerAccountNotFoundError: There is no such account.
        """
        found = await self._load_accounts(transaction, {account_id})
        if account_id not in found:
            raise _account_not_found(account_id)
        return found[account_id]

    async def get_balance(self, transaction: LedgerTransaction, account_id: str) -> Balance:
        """Return what stands on an account, on its normal side; house accounts are summed up.

        Raises:
            LedgerAccountNotFoundError: There is no such account.
        """
        row = await transaction.first(self._statements.load_account, {"of_account_id": account_id})
        if row is None:
            raise _account_not_found(account_id)
        if row.is_customer:
            return _state_of(row).balance
        account = _account_of(row)
        total = Money(await self._sum_postings(transaction, account), account.currency)
        return Balance(total=total, held=Money(0, account.currency), available=total)

    async def list_balances(
        self, transaction: LedgerTransaction, owner_id: str
    ) -> list[tuple[LedgerAccount, Balance]]:
        """Return an owner's accounts with their balances, by account id."""
        table = self._tables.accounts
        rows = await transaction.all(
            select(table).where(table.c.owner_id == owner_id).order_by(table.c.account_id)
        )
        return [(_account_of(row), _state_of(row).balance) for row in rows]

    async def list_entries(
        self,
        transaction: LedgerTransaction,
        account_ids: Collection[str],
        *,
        limit: int,
        below: LinePosition | None = None,
        types: Collection[EntryType] = (),
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> list[StatementLine]:
        """Return lines of customer accounts, newest first.

        Args:
            transaction: The caller's.
            account_ids: Customer accounts; with several, lines are merged by recording instant.
            limit: How many at most.
            below: Only what comes after this position, that is, what is older.
            types: Only these; empty means all.
            from_: Recorded at or after, UTC.
            to: Recorded before, UTC.
        """
        condition = self._line_filter(account_ids, types=types, from_=from_, to=to)
        if below is not None:
            condition = and_(condition, self._is_below(below))
        entries, postings = self._tables.entries, self._tables.postings
        rows = await transaction.all(
            self._select_lines()
            .where(condition)
            .order_by(
                entries.c.recorded_at_us.desc(),
                postings.c.account_id.desc(),
                postings.c.sequence.desc(),
            )
            .limit(limit)
        )
        return [_line_of(row) for row in rows]

    async def get_lines(
        self, transaction: LedgerTransaction, positions: Collection[tuple[str, int]]
    ) -> dict[tuple[str, int], StatementLine]:
        """Return lines of customer accounts by (account id, sequence); unknown ones are absent."""
        if not positions:
            return {}
        postings = self._tables.postings
        rows = await transaction.all(
            self._select_lines().where(
                tuple_(postings.c.account_id, postings.c.sequence).in_(sorted(positions))
            )
        )
        return {(row.account_id, row.sequence): _line_of(row) for row in rows}

    async def sum_changes(
        self,
        transaction: LedgerTransaction,
        account_ids: Collection[str],
        *,
        types: Collection[EntryType] = (),
        from_: datetime | None = None,
        to: datetime | None = None,
    ) -> dict[tuple[str, EntryType], Money]:
        """Sum what entries of each type did to each customer account, with the customer's sign."""
        entries, postings, accounts = (
            self._tables.entries,
            self._tables.postings,
            self._tables.accounts,
        )
        signed = case(
            (postings.c.side == accounts.c.normal_side, postings.c.amount_minor),
            else_=-postings.c.amount_minor,
        )
        rows = await transaction.all(
            select(
                postings.c.account_id,
                entries.c.type,
                accounts.c.currency,
                accounts.c.scale,
                *_split_sum(signed),
            )
            .join_from(postings, entries, postings.c.entry_id == entries.c.entry_id)
            .join(accounts, postings.c.account_id == accounts.c.account_id)
            .where(self._line_filter(account_ids, types=types, from_=from_, to=to))
            .group_by(postings.c.account_id, entries.c.type, accounts.c.currency, accounts.c.scale)
        )
        return {
            (row.account_id, EntryType(row.type)): Money(
                joined_sum(row), Currency(row.currency, row.scale)
            )
            for row in rows
        }

    async def sum_by_type(self, transaction: LedgerTransaction) -> list[AccountTotals]:
        """Sum the postings by account type, book and currency; house accounts included."""
        postings, accounts = self._tables.postings, self._tables.accounts
        key = (accounts.c.type, accounts.c.book, accounts.c.currency, accounts.c.scale)
        rows = await transaction.all(
            select(*key, postings.c.side, *_split_sum(postings.c.amount_minor))
            .join_from(postings, accounts, postings.c.account_id == accounts.c.account_id)
            .group_by(*key, postings.c.side)
        )
        sums: dict[tuple[str, str, str, int], dict[Side, int]] = {}
        for row in rows:
            found = sums.setdefault((row.type, row.book, row.currency, row.scale), {})
            found[Side(row.side)] = joined_sum(row)
        return [
            AccountTotals(
                type=AccountType(type_),
                book=Book(book),
                currency=Currency(code, scale),
                debit_minor=found.get(Side.DEBIT, 0),
                credit_minor=found.get(Side.CREDIT, 0),
            )
            for (type_, book, code, scale), found in sorted(sums.items())
        ]

    def _sets(self, transaction: LedgerTransaction) -> Sets:
        found = self._sets_of.get(transaction.dialect)
        if found is None:
            found = self._sets_of[transaction.dialect] = Sets(self._tables, transaction.dialect)
        return found

    async def _lock_for(
        self, transaction: LedgerTransaction, entry: Entry
    ) -> tuple[dict[str, LedgerAccount], dict[str, AccountState]]:
        account_ids = {posting.account_id for posting in entry.postings}
        houses = {
            account_id: self._known[account_id]
            for account_id in account_ids
            if account_id in self._known and not self._known[account_id].is_customer
        }
        states = await self.lock_accounts(transaction, account_ids - houses.keys())
        accounts = houses | {account_id: state.account for account_id, state in states.items()}
        accounts |= await self._load_accounts(transaction, account_ids - accounts.keys())
        for account_id in sorted(account_ids - accounts.keys()):
            raise _account_not_found(account_id)
        return accounts, states

    async def _post(
        self,
        transaction: LedgerTransaction,
        entry: Entry,
        accounts: Mapping[str, LedgerAccount],
        states: Mapping[str, AccountState],
        *,
        recorded_at: datetime,
        released: Mapping[str, int] | None = None,
    ) -> PostedEntry:
        newest_us = max((state.last_posted_at_us for state in states.values()), default=0)
        try:
            if entry.reverses_entry_id is not None:
                await self._ensure_reversible(transaction, entry, entry.reverses_entry_id)
            posted = domain.post(
                entry,
                accounts=accounts,
                states=states,
                recorded_at=max(recorded_at, from_us(newest_us)),
                released=released,
            )
        except TradingError:
            # Refused, unless it is the repeat of one that was not: that may have spent the funds.
            if await self._exists(transaction, entry.entry_id):
                return await self._replay(transaction, entry)
            raise
        is_stored = await self._sets(transaction).write(
            transaction,
            [_entry_row(posted)],
            [_posting_row(posted, each) for each in posted.postings],
            [
                _moved(states[account_id], state)
                for account_id, state in sorted(posted.states.items())
                if state != states[account_id]
            ],
        )
        return posted if is_stored else await self._replay(transaction, entry)

    async def _decide(
        self,
        transaction: LedgerTransaction,
        entry: Entry,
        accounts: Mapping[str, LedgerAccount],
        states: Mapping[str, AccountState],
        reversed_ids: Collection[str | None],
        recorded_at: datetime,
    ) -> PostedEntry:
        """Decide one entry of a batch over the states that those before it left."""
        touched = {posting.account_id for posting in entry.postings}
        for account_id in sorted(touched - accounts.keys()):
            raise _account_not_found(account_id)
        if entry.reverses_entry_id is not None:
            if entry.reverses_entry_id in reversed_ids:
                raise EntryAlreadyReversedError(
                    "The entry has been reversed before.", entry_id=entry.reverses_entry_id
                )
            await self._ensure_reversible(transaction, entry, entry.reverses_entry_id)
        own = {account_id: states[account_id] for account_id in touched if account_id in states}
        newest_us = max((state.last_posted_at_us for state in own.values()), default=0)
        return domain.post(
            entry,
            accounts=accounts,
            states=own,
            recorded_at=max(recorded_at, from_us(newest_us)),
        )

    async def _write_all(
        self,
        transaction: LedgerTransaction,
        posted: Sequence[PostedEntry],
        before: Mapping[str, AccountState],
        after: Mapping[str, AccountState],
    ) -> None:
        changed = sorted(each for each in after if after[each] != before[each])
        is_stored = await self._sets(transaction).write(
            transaction,
            [_entry_row(each) for each in posted],
            [_posting_row(each, line) for each in posted for line in each.postings],
            [_moved(before[each], after[each]) for each in changed],
        )
        if not is_stored:
            raise LedgerInvariantError("somebody else wrote one of the same entries meanwhile")

    async def _replay(self, transaction: LedgerTransaction, entry: Entry) -> PostedEntry:
        first = await self.get_entry(transaction, entry.entry_id)
        domain.ensure_same_entry(first.entry, entry)
        return replace(first, is_replay=True)

    async def _exists(self, transaction: LedgerTransaction, entry_id: str) -> bool:
        return bool(await self._sets(transaction).find_entry_ids(transaction, [entry_id]))

    async def _ensure_reversible(
        self, transaction: LedgerTransaction, entry: Entry, reversed_id: str
    ) -> None:
        first = await self.get_entry(transaction, reversed_id)
        mirrored = domain.reversal(
            first,
            entry_id=entry.entry_id,
            occurred_at=entry.occurred_at,
            reason=entry.description,
        )
        if mirrored.postings != entry.postings:
            raise LedgerInvariantError(f"{entry.entry_id} does not mirror {reversed_id}")
        entries = self._tables.entries
        other = await transaction.first(
            select(entries.c.entry_id).where(entries.c.reverses_entry_id == reversed_id)
        )
        if other is not None:
            raise EntryAlreadyReversedError(
                "The entry has been reversed before.",
                entry_id=reversed_id,
                reversal_id=other.entry_id,
            )

    async def _release(
        self, transaction: LedgerTransaction, hold_id: str, state: HoldState, closed_at: datetime
    ) -> Hold:
        account_id = (await self.get_hold(transaction, hold_id)).request.account_id
        before = (await self.lock_accounts(transaction, [account_id]))[account_id]
        held = await self.get_hold(transaction, hold_id)
        ended = domain.release(held, state=state, closed_at=closed_at)
        after = replace(before, held_minor=before.held_minor - held.request.amount.minor)
        await self._save_state(transaction, before, after)
        await self._save_end(transaction, ended)
        return ended

    async def _save_state(
        self, transaction: LedgerTransaction, before: AccountState, after: AccountState
    ) -> None:
        if before == after:
            return
        # The statement carries the guard: what was decided under the lock must still be true.
        result = await transaction.execute(
            self._statements.save_state,
            _state_values(before, after),
        )
        if result.rowcount != 1:
            raise LedgerInvariantError(f"{before.account.account_id} changed under its lock")

    async def _save_end(self, transaction: LedgerTransaction, ended: Hold) -> None:
        result = await transaction.execute(
            self._statements.save_end,
            {
                "of_hold_id": ended.request.hold_id,
                "of_state": HoldState.PENDING.value,
                "state": ended.state.value,
                "captured_minor": ended.captured_minor,
                "entry_id": ended.entry_id,
                "closed_at_us": None if ended.closed_at is None else to_us(ended.closed_at),
            },
        )
        if result.rowcount != 1:
            raise LedgerInvariantError(f"hold {ended.request.hold_id} ended twice")

    async def _load_accounts(
        self, transaction: LedgerTransaction, account_ids: Collection[str]
    ) -> dict[str, LedgerAccount]:
        loaded = {
            account_id: self._known[account_id]
            for account_id in account_ids
            if account_id in self._known
        }
        unknown = sorted(set(account_ids) - loaded.keys())
        if not unknown:
            return loaded
        rows = await transaction.all(self._statements.load_accounts, {"account_ids": unknown})
        fresh = {row.account_id: _account_of(row) for row in rows}
        transaction.after_commit(lambda: self._remember(fresh))
        return loaded | fresh

    def _remember(self, accounts: Mapping[str, LedgerAccount]) -> None:
        if len(self._known) > _KNOWN_ACCOUNTS_MAX:
            self._known.clear()
        self._known.update(accounts)

    async def _sum_postings(self, transaction: LedgerTransaction, account: LedgerAccount) -> int:
        table = self._tables.postings
        signed = case(
            (table.c.side == account.normal_side.value, table.c.amount_minor),
            else_=-table.c.amount_minor,
        )
        row = await transaction.first(
            select(*_split_sum(signed)).where(table.c.account_id == account.account_id)
        )
        return 0 if row is None else joined_sum(row)

    def _select_lines(self) -> Select[Any]:
        entries, postings, accounts = (
            self._tables.entries,
            self._tables.postings,
            self._tables.accounts,
        )
        return (
            select(
                entries.c.entry_id,
                entries.c.type,
                entries.c.reference,
                entries.c.description,
                entries.c.details,
                entries.c.reverses_entry_id,
                entries.c.occurred_at_us,
                entries.c.recorded_at_us,
                postings.c.account_id,
                postings.c.sequence,
                postings.c.side,
                postings.c.amount_minor,
                postings.c.running_balance_minor,
                accounts.c.currency,
                accounts.c.scale,
                accounts.c.normal_side,
            )
            .join_from(postings, entries, postings.c.entry_id == entries.c.entry_id)
            .join(accounts, postings.c.account_id == accounts.c.account_id)
        )

    def _line_filter(
        self,
        account_ids: Collection[str],
        *,
        types: Collection[EntryType],
        from_: datetime | None,
        to: datetime | None,
    ) -> ColumnElement[bool]:
        entries, postings = self._tables.entries, self._tables.postings
        return and_(
            postings.c.account_id.in_(sorted(account_ids)),
            postings.c.sequence.is_not(None),
            entries.c.type.in_(sorted(each.value for each in types)) if types else true(),
            entries.c.recorded_at_us >= to_us(from_) if from_ is not None else true(),
            entries.c.recorded_at_us < to_us(to) if to is not None else true(),
        )

    def _is_below(self, below: LinePosition) -> ColumnElement[bool]:
        entries, postings = self._tables.entries, self._tables.postings
        recorded, account, sequence = (
            entries.c.recorded_at_us,
            postings.c.account_id,
            postings.c.sequence,
        )
        return or_(
            recorded < below.recorded_at_us,
            and_(recorded == below.recorded_at_us, account < below.account_id),
            and_(
                recorded == below.recorded_at_us,
                account == below.account_id,
                sequence < below.sequence,
            ),
        )


def entry_of(row: Row[Any], lines: Sequence[Row[Any]]) -> PostedEntry:
    """Rebuild an entry from its row and its postings' rows (with the account's `scale`)."""
    postings = tuple(
        PostedPosting(
            position=line.position,
            posting=Posting(
                line.account_id,
                Side(line.side),
                Money(line.amount_minor, Currency(line.currency, line.scale)),
            ),
            sequence=line.sequence,
            running_balance_minor=line.running_balance_minor,
            chain_hash=line.chain_hash,
        )
        for line in lines
    )
    entry = Entry(
        entry_id=row.entry_id,
        type=EntryType(row.type),
        postings=tuple(each.posting for each in postings),
        occurred_at=from_us(row.occurred_at_us),
        reference=row.reference,
        description=row.description,
        details=json.loads(row.details),
        reverses_entry_id=row.reverses_entry_id,
    )
    return PostedEntry(entry, Book(row.book), from_us(row.recorded_at_us), postings)


def _split_sum(amount: ColumnElement[int]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    # `/` and `%` truncate towards zero on both databases, so the parts add up for any sign.
    return (
        func.coalesce(func.sum(amount.op("/")(_HALF)), 0).label("sum_upper"),
        func.coalesce(func.sum(amount % _HALF), 0).label("sum_lower"),
    )


def joined_sum(row: Row[Any]) -> int:
    """Put the two parts of a sum together again."""
    return int(row.sum_upper) * _HALF + int(row.sum_lower)


def _account_not_found(account_id: str) -> LedgerAccountNotFoundError:
    return LedgerAccountNotFoundError("There is no such account.", account_id=account_id)


def _account_values(account: LedgerAccount, created_at_us: int) -> dict[str, Any]:
    is_customer = account.is_customer
    return {
        "account_id": account.account_id,
        "type": account.type.value,
        "owner_id": account.owner_id,
        "book": account.book.value,
        "currency": account.currency.code,
        "scale": account.currency.scale,
        "normal_side": account.normal_side.value,
        "is_customer": is_customer,
        "allows_negative": account.allows_negative,
        "balance_minor": 0,
        "held_minor": 0,
        "last_sequence": 0,
        "last_hash": domain.genesis_hash(account.account_id) if is_customer else None,
        "last_posted_at_us": 0,
        "created_at_us": created_at_us,
    }


def _entry_row(posted: PostedEntry) -> tuple[Any, ...]:
    """Return `ENTRY_COLUMNS`."""
    entry = posted.entry
    return (
        entry.entry_id,
        entry.type.value,
        posted.book.value,
        entry.reference,
        entry.description,
        domain.canonical_json(entry.details).decode(),
        entry.reverses_entry_id,
        to_us(entry.occurred_at),
        to_us(posted.recorded_at),
    )


def _posting_row(posted: PostedEntry, line: PostedPosting) -> tuple[Any, ...]:
    """Return `POSTING_COLUMNS`."""
    amount = line.posting.amount
    return (
        posted.entry.entry_id,
        line.position,
        line.posting.account_id,
        line.posting.side.value,
        amount.minor,
        amount.currency.code,
        line.sequence,
        line.running_balance_minor,
        line.chain_hash,
    )


def _moved(before: AccountState, after: AccountState) -> tuple[Any, ...]:
    """Return what `Sets.write` wants of a state."""
    return (
        after.balance_minor,
        after.held_minor,
        after.last_sequence,
        after.last_hash,
        after.last_posted_at_us,
        before.account.account_id,
        before.last_sequence,
        before.balance_minor,
        before.held_minor,
    )


def _state_values(before: AccountState, after: AccountState) -> dict[str, Any]:
    return {
        "of_account_id": before.account.account_id,
        "of_last_sequence": before.last_sequence,
        "of_balance_minor": before.balance_minor,
        "of_held_minor": before.held_minor,
        "balance_minor": after.balance_minor,
        "held_minor": after.held_minor,
        "last_sequence": after.last_sequence,
        "last_hash": after.last_hash,
        "last_posted_at_us": after.last_posted_at_us,
    }


def _hold_values(held: Hold) -> dict[str, Any]:
    request = held.request
    return {
        "hold_id": request.hold_id,
        "account_id": request.account_id,
        "currency": request.amount.currency.code,
        "amount_minor": request.amount.minor,
        "state": held.state.value,
        "captured_minor": held.captured_minor,
        "entry_id": held.entry_id,
        "reference": request.reference,
        "expires_at_us": None if request.expires_at is None else to_us(request.expires_at),
        "opened_at_us": to_us(request.opened_at),
        "closed_at_us": None if held.closed_at is None else to_us(held.closed_at),
    }


def _account_of(row: Row[Any]) -> LedgerAccount:
    return LedgerAccount(
        account_id=row.account_id,
        type=AccountType(row.type),
        currency=Currency(row.currency, row.scale),
        book=Book(row.book),
        normal_side=Side(row.normal_side),
        owner_id=row.owner_id,
        allows_negative=bool(row.allows_negative),
    )


def _state_of(row: Row[Any]) -> AccountState:
    return AccountState(
        account=_account_of(row),
        balance_minor=row.balance_minor,
        held_minor=row.held_minor,
        last_sequence=row.last_sequence,
        last_hash=row.last_hash,
        last_posted_at_us=row.last_posted_at_us,
    )


def _hold_of(row: Row[Any]) -> Hold:
    return Hold(
        request=HoldRequest(
            hold_id=row.hold_id,
            account_id=row.account_id,
            amount=Money(row.amount_minor, Currency(row.currency, row.scale)),
            opened_at=from_us(row.opened_at_us),
            reference=row.reference,
            expires_at=None if row.expires_at_us is None else from_us(row.expires_at_us),
        ),
        state=HoldState(row.state),
        captured_minor=row.captured_minor,
        entry_id=row.entry_id,
        closed_at=None if row.closed_at_us is None else from_us(row.closed_at_us),
    )


def _line_of(row: Row[Any]) -> StatementLine:
    currency = Currency(row.currency, row.scale)
    sign = 1 if row.side == row.normal_side else -1
    return StatementLine(
        account_id=row.account_id,
        sequence=row.sequence,
        entry_id=row.entry_id,
        type=EntryType(row.type),
        change=Money(sign * row.amount_minor, currency),
        running_balance=Money(row.running_balance_minor, currency),
        reference=row.reference,
        description=row.description,
        details=json.loads(row.details),
        reverses_entry_id=row.reverses_entry_id,
        occurred_at=from_us(row.occurred_at_us),
        recorded_at=from_us(row.recorded_at_us),
    )
