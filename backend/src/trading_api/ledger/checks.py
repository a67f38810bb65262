"""Proofs over a stored ledger: read-only, from scratch, sharing no arithmetic with the engine.

Each check has the id of the invariant it proves:

* L1 every entry has at least two postings, positive, and balances in each currency
* L2 each book and currency balances as a whole; held sums equal the pending holds
* L3 a customer's balance is the sum of its postings; house rows hold no state
* L4 held is the sum of the account's pending holds; available is not below zero where forbidden
* L5 posted in, posted out and held are not negative, and balance = in - out
* L6 holds have ended at most once, each consistently with its entry
* L8 the append-only triggers are in place; a reversal mirrors its entry
* L11 a posting has its account's currency, an entry its accounts' book
* L12 a currency has one scale
* L13 a customer account's sequence is gapless and its running balance adds up
* L14 the hash chain walks clean

L7, L9, L10, L15 and L16 speak about behaviour over time; tests and fault runs prove those.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, column, or_, select, table, text

from trading_api.ledger import domain
from trading_api.ledger.domain import Entry, HoldState, PostedEntry, Side
from trading_api.ledger.engine import entry_of
from trading_api.ledger.errors import LedgerInvariantError
from trading_api.ledger.ports import LedgerTransaction
from trading_api.ledger.tables import LedgerTables

LEDGER_CHECKS = ("L1", "L2", "L3", "L4", "L5", "L6", "L8", "L11", "L12", "L13", "L14")
"""What `check_ledger` proves."""

_PAGE = 500

_TRIGGERS = {
    "sqlite": (
        "tr_ledger_entries_no_update",
        "tr_ledger_entries_no_delete",
        "tr_ledger_postings_no_update",
        "tr_ledger_postings_no_delete",
        "tr_ledger_holds_update",
        "tr_ledger_holds_no_delete",
        "tr_ledger_accounts_update",
        "tr_ledger_accounts_no_delete",
    ),
    "postgresql": (
        "tr_ledger_entries_append_only",
        "tr_ledger_entries_no_truncate",
        "tr_ledger_postings_append_only",
        "tr_ledger_postings_no_truncate",
        "tr_ledger_holds_update",
        "tr_ledger_holds_no_delete",
        "tr_ledger_holds_no_truncate",
        "tr_ledger_accounts_update",
        "tr_ledger_accounts_no_delete",
        "tr_ledger_accounts_no_truncate",
    ),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken invariant.

    Attributes:
        id: The invariant, such as `L3`.
        subject: The entry, account, hold or currency at fault.
        message: What was found and what should be there.
    """

    id: str
    subject: str
    message: str


class NotCheckedError(Exception):
    """A proof lacks what it needs, such as another module's answer; the message says what."""


async def check_ledger(transaction: LedgerTransaction, tables: LedgerTables) -> list[Violation]:
    """Prove a whole ledger from scratch; an empty list means that everything holds.

    Reads every entry once, in pages; run it on a snapshot. Cost grows with the number of postings.
    """
    check = _Check(transaction, tables)
    await check.run()
    return check.violations


@dataclass(slots=True)
class _Sums:
    """What the postings of one account add up to, and where its chain stands."""

    posted_in: int = 0
    posted_out: int = 0
    count: int = 0


class _Check:
    def __init__(self, transaction: LedgerTransaction, tables: LedgerTables) -> None:
        self.violations: list[Violation] = []
        self._transaction = transaction
        self._tables = tables
        self._accounts: dict[str, Row[Any]] = {}
        self._sums: defaultdict[str, _Sums] = defaultdict(_Sums)

    async def run(self) -> None:
        accounts = self._tables.accounts
        for row in await self._transaction.all(select(accounts)):
            self._accounts[row.account_id] = row
        self._check_scales()
        async for row, lines in self._entries():
            self._check_entry(row, lines)
        await self._check_orphans()
        await self._check_holds()
        self._check_accounts()
        self._check_books()
        await self._check_chains()
        await self._check_reversals()
        await self._check_triggers()

    def _found(self, id_: str, subject: str, message: str) -> None:
        self.violations.append(Violation(id_, subject, message))

    async def _entries(self) -> AsyncIterator[tuple[Row[Any], Sequence[Row[Any]]]]:
        entries, postings = self._tables.entries, self._tables.postings
        last = ""
        while True:
            page = await self._transaction.all(
                select(entries)
                .where(entries.c.entry_id > last)
                .order_by(entries.c.entry_id)
                .limit(_PAGE)
            )
            if not page:
                return
            lines: defaultdict[str, list[Row[Any]]] = defaultdict(list)
            for line in await self._transaction.all(
                select(postings)
                .where(postings.c.entry_id.in_([row.entry_id for row in page]))
                .order_by(postings.c.entry_id, postings.c.position)
            ):
                lines[line.entry_id].append(line)
            for row in page:
                yield row, lines[row.entry_id]
            last = page[-1].entry_id

    def _check_scales(self) -> None:
        scales: defaultdict[str, set[int]] = defaultdict(set)
        for row in self._accounts.values():
            scales[row.currency].add(row.scale)
        for currency, found in scales.items():
            if len(found) > 1:
                self._found("L12", currency, f"accounts have the scales {sorted(found)}")

    def _check_entry(self, row: Row[Any], lines: Sequence[Row[Any]]) -> None:
        if len(lines) < 2:
            self._found("L1", row.entry_id, f"{len(lines)} postings")
        totals: defaultdict[str, int] = defaultdict(int)
        for line in lines:
            if line.amount_minor <= 0:
                self._found("L1", row.entry_id, f"posting of {line.amount_minor}")
            totals[line.currency] += (
                line.amount_minor if line.side == Side.DEBIT else -line.amount_minor
            )
            account = self._accounts.get(line.account_id)
            if account is None:
                self._found("L11", row.entry_id, f"posts to unknown {line.account_id}")
                continue
            if account.currency != line.currency:
                self._found("L11", row.entry_id, f"{line.currency} on {line.account_id}")
            if account.book != row.book:
                self._found("L11", row.entry_id, f"{row.book} entry on {line.account_id}")
            if (line.sequence is not None) != bool(account.is_customer):
                self._found("L13", row.entry_id, f"sequence {line.sequence} on {line.account_id}")
            sums = self._sums[line.account_id]
            sums.count += 1
            if line.side == account.normal_side:
                sums.posted_in += line.amount_minor
            else:
                sums.posted_out += line.amount_minor
        for currency, difference in totals.items():
            if difference:
                self._found("L1", row.entry_id, f"debits exceed credits by {difference} {currency}")

    async def _check_orphans(self) -> None:
        entries, postings = self._tables.entries, self._tables.postings
        for row in await self._transaction.all(
            select(postings.c.entry_id)
            .outerjoin(entries, postings.c.entry_id == entries.c.entry_id)
            .where(entries.c.entry_id.is_(None))
            .distinct()
        ):
            self._found("L1", row.entry_id, "postings without an entry")

    async def _check_holds(self) -> None:
        holds, entries = self._tables.holds, self._tables.entries
        pending: defaultdict[str, int] = defaultdict(int)
        for row in await self._transaction.all(
            select(holds, entries.c.entry_id.label("stored_entry_id")).outerjoin(
                entries, holds.c.entry_id == entries.c.entry_id
            )
        ):
            if row.state == HoldState.PENDING:
                pending[row.account_id] += row.amount_minor
            if (row.state == HoldState.PENDING) != (row.closed_at_us is None):
                self._found("L6", row.hold_id, f"{row.state}, closed at {row.closed_at_us}")
            if row.state == HoldState.POSTED:
                if row.stored_entry_id is None:
                    self._found("L6", row.hold_id, "posted without an entry")
                if not 0 < row.captured_minor <= row.amount_minor:
                    self._found(
                        "L6", row.hold_id, f"captured {row.captured_minor} of {row.amount_minor}"
                    )
            elif row.entry_id is not None or row.captured_minor:
                self._found("L6", row.hold_id, f"{row.state}, but captured")
        for account_id, row in self._accounts.items():
            if row.held_minor != pending[account_id]:
                self._found(
                    "L4", account_id, f"held {row.held_minor}, pending holds {pending[account_id]}"
                )

    def _check_accounts(self) -> None:
        for account_id, row in self._accounts.items():
            sums = self._sums[account_id]
            if min(sums.posted_in, sums.posted_out, row.held_minor) < 0:
                self._found("L5", account_id, "a component is negative")
            if not row.is_customer:
                if row.balance_minor or row.held_minor or row.last_sequence:
                    self._found("L3", account_id, "a house row holds state")
                continue
            balance_minor = sums.posted_in - sums.posted_out
            if row.balance_minor != balance_minor:
                self._found(
                    "L3", account_id, f"balance {row.balance_minor}, postings {balance_minor}"
                )
            if not row.allows_negative and row.balance_minor - row.held_minor < 0:
                self._found(
                    "L4", account_id, f"available {row.balance_minor - row.held_minor} below zero"
                )
            if row.last_sequence != sums.count:
                self._found(
                    "L13", account_id, f"last sequence {row.last_sequence}, {sums.count} postings"
                )

    def _check_books(self) -> None:
        totals: defaultdict[tuple[str, str], int] = defaultdict(int)
        for account_id, row in self._accounts.items():
            sums = self._sums[account_id]
            balance_minor = sums.posted_in - sums.posted_out
            on_credit_side = row.normal_side == Side.CREDIT
            totals[row.book, row.currency] += balance_minor if on_credit_side else -balance_minor
        for (book, currency), total in totals.items():
            if total:
                self._found("L2", f"{book}:{currency}", f"accounts add up to {total}")

    async def _check_chains(self) -> None:
        for account_id, row in self._accounts.items():
            if row.is_customer:
                await self._check_chain(account_id, row)

    async def _check_chain(self, account_id: str, account: Row[Any]) -> None:
        postings = self._tables.postings
        expected_hash, running_minor, sequence = domain.genesis_hash(account_id), 0, 0
        page = select(postings).where(
            postings.c.account_id == account_id, postings.c.sequence > bindparam("after")
        )
        page = page.order_by(postings.c.sequence).limit(_PAGE)
        while True:
            lines = await self._transaction.all(page, {"after": sequence})
            if not lines:
                break
            entry_ids = {line.entry_id for line in lines}
            posted = await self._load_entries(entry_ids)
            for line in lines:
                if line.sequence != sequence + 1:
                    self._found("L13", account_id, f"sequence {line.sequence} follows {sequence}")
                sequence = line.sequence
                same_side = line.side == account.normal_side
                running_minor += line.amount_minor if same_side else -line.amount_minor
                if line.running_balance_minor != running_minor:
                    self._found(
                        "L13",
                        account_id,
                        f"running balance {line.running_balance_minor} at {sequence},"
                        f" not {running_minor}",
                    )
                entry = posted.get(line.entry_id)
                if entry is None:
                    self._found("L14", account_id, f"entry of {sequence} cannot be read")
                    return
                expected_hash = domain.chain_hash(
                    expected_hash,
                    domain.entry_document(
                        entry.entry,
                        book=entry.book,
                        recorded_at=entry.recorded_at,
                        position=line.position,
                        sequence=line.sequence,
                        running_balance_minor=line.running_balance_minor,
                    ),
                )
                if line.chain_hash != expected_hash:
                    self._found("L14", account_id, f"the chain breaks at sequence {sequence}")
                    return
        if account.last_hash != expected_hash:
            self._found("L14", account_id, "the account's hash is not its newest posting's")

    async def _load_entries(self, entry_ids: set[str]) -> dict[str, PostedEntry]:
        entries, postings, accounts = (
            self._tables.entries,
            self._tables.postings,
            self._tables.accounts,
        )
        ids = sorted(entry_ids)
        lines: defaultdict[str, list[Row[Any]]] = defaultdict(list)
        for line in await self._transaction.all(
            select(postings, accounts.c.scale)
            .join_from(postings, accounts, postings.c.account_id == accounts.c.account_id)
            .where(postings.c.entry_id.in_(ids))
            .order_by(postings.c.entry_id, postings.c.position)
        ):
            lines[line.entry_id].append(line)
        loaded: dict[str, PostedEntry] = {}
        for row in await self._transaction.all(select(entries).where(entries.c.entry_id.in_(ids))):
            try:
                loaded[row.entry_id] = entry_of(row, lines[row.entry_id])
            except (LedgerInvariantError, ValueError):
                # An edited row may not even be a value any more; the chain check reports it.
                continue
        return loaded

    async def _check_reversals(self) -> None:
        entries = self._tables.entries
        reversals = await self._transaction.all(
            select(entries.c.entry_id, entries.c.reverses_entry_id).where(
                or_(entries.c.reverses_entry_id.is_not(None), entries.c.type == "REVERSAL")
            )
        )
        seen: set[str] = set()
        for row in reversals:
            if row.reverses_entry_id is None:
                self._found("L8", row.entry_id, "a reversal of nothing")
                continue
            if row.reverses_entry_id in seen:
                self._found("L8", row.reverses_entry_id, "reversed more than once")
            seen.add(row.reverses_entry_id)
            pair = await self._load_entries({row.entry_id, row.reverses_entry_id})
            first, undone = pair.get(row.reverses_entry_id), pair.get(row.entry_id)
            if first is None or undone is None or not _mirrors(first.entry, undone.entry):
                self._found("L8", row.entry_id, f"does not mirror {row.reverses_entry_id}")

    async def _check_triggers(self) -> None:
        schema = self._tables.entries.schema
        if self._transaction.dialect == "sqlite":
            rows = await self._transaction.all(
                select(column("name"))
                .select_from(table("sqlite_master", schema=schema))
                .where(column("type") == "trigger")
            )
        else:
            rows = await self._transaction.all(
                text(
                    "SELECT t.tgname AS name FROM pg_trigger t"
                    " JOIN pg_class c ON c.oid = t.tgrelid"
                    " JOIN pg_namespace n ON n.oid = c.relnamespace"
                    " WHERE n.nspname = coalesce(:schema, current_schema()) AND t.tgenabled <> 'D'"
                ),
                {"schema": schema},
            )
        present = {row.name for row in rows}
        for name in _TRIGGERS[self._transaction.dialect]:
            if name not in present:
                self._found("L8", name, "the trigger is missing or switched off")


def _mirrors(first: Entry, undone: Entry) -> bool:
    swapped = [(p.account_id, p.side.opposite, p.amount) for p in first.postings]
    return swapped == [(p.account_id, p.side, p.amount) for p in undone.postings]
