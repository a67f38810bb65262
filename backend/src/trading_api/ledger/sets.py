"""Statements that read or write many rows at once, in each driver's own SQL.

A batch of entries costs as many of them as a single one. They are built once per ledger; all rows
are one parameter: JSON on PostgreSQL, the driver's list of rows on SQLite. SQLAlchemy would build a
statement anew for every number of rows.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Integer, SmallInteger, Table, Text
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.ledger.errors import LedgerInvariantError
from trading_api.ledger.ports import Dialect, LedgerTransaction
from trading_api.ledger.tables import LedgerTables

ENTRY_COLUMNS: Final = (
    "entry_id", "type", "book", "reference", "description", "details", "reverses_entry_id",
    "occurred_at_us", "recorded_at_us",
)  # fmt: skip
POSTING_COLUMNS: Final = (
    "entry_id", "position", "account_id", "side", "amount_minor", "currency", "sequence",
    "running_balance_minor", "chain_hash",
)  # fmt: skip
STATE_COLUMNS: Final = (
    "balance_minor", "held_minor", "last_sequence", "last_hash", "last_posted_at_us",
)  # fmt: skip
_GUARDS: Final = ("account_id", "last_sequence", "balance_minor", "held_minor")
"""What a state is found by: what was decided under the lock must still be true."""

_TYPES: Final = {
    Text: "text", BigInteger: "bigint", Integer: "integer", SmallInteger: "smallint",
    Boolean: "boolean",
}  # fmt: skip

_UNLESS_TAKEN: Final = "ON CONFLICT (entry_id) DO NOTHING"

Values = Sequence[Any]


class Sets:
    """The statements of one ledger on one kind of database."""

    def __init__(self, tables: LedgerTables, dialect: Dialect) -> None:
        self._is_postgresql = dialect == "postgresql"
        module = postgresql if self._is_postgresql else sqlite
        preparer = module.dialect().identifier_preparer
        self._accounts, self._entries, self._postings = (
            preparer.format_table(each)
            for each in (tables.accounts, tables.entries, tables.postings)
        )
        one_of = (
            "= ANY($1::text[])" if self._is_postgresql else "IN (SELECT value FROM json_each(?))"
        )
        columns = ", ".join(("account_id", *STATE_COLUMNS))
        of_accounts = f"FROM {self._accounts} WHERE account_id {one_of}"
        for_update = " FOR UPDATE" if self._is_postgresql else ""
        self._lock = (
            f"SELECT {columns} {of_accounts} AND is_customer ORDER BY account_id{for_update}"
        )
        self._find = f"SELECT entry_id FROM {self._entries} WHERE entry_id {one_of}"  # noqa: S608
        if self._is_postgresql:
            self._write = self._write_sql(tables)
            return
        self._insert_entries = f"{_insert(self._entries, ENTRY_COLUMNS)} {_UNLESS_TAKEN}"
        self._insert_postings = _insert(self._postings, POSTING_COLUMNS)
        sets = ", ".join(f"{each} = ?" for each in STATE_COLUMNS)
        where = " AND ".join(f"{each} = ?" for each in _GUARDS)
        self._update = f"UPDATE {self._accounts} SET {sets} WHERE {where}"  # noqa: S608
        self._sum = (
            f"SELECT count(*), sum(CASE side WHEN 'DEBIT' THEN amount_minor ELSE -amount_minor END)"  # noqa: S608
            f" FROM {self._postings} WHERE entry_id {one_of} GROUP BY entry_id, currency"
        )

    async def lock_states(
        self, transaction: LedgerTransaction, account_ids: Collection[str]
    ) -> Sequence[Values]:
        """Lock customer accounts in id order; return (account_id, *STATE_COLUMNS) of each."""
        found = await transaction.execute_raw(self._lock, (self._ids(sorted(account_ids)),))
        return found.all()

    async def find_entry_ids(
        self, transaction: LedgerTransaction, entry_ids: Sequence[str]
    ) -> set[str]:
        """Return which of these ids are taken."""
        found = await transaction.execute_raw(self._find, (self._ids(entry_ids),))
        return {row[0] for row in found}

    async def write(
        self,
        transaction: LedgerTransaction,
        entries: Sequence[Values],
        postings: Sequence[Values],
        states: Sequence[Values],
    ) -> bool:
        """Write entries with their postings, and the states of the accounts they moved.

        False where the id of one was taken meanwhile: no posting and no state was written then,
        and whoever wrote more than that one entry rolls back.

        Args:
            transaction: The caller's, holding the accounts' locks.
            entries: `ENTRY_COLUMNS` of each.
            postings: `POSTING_COLUMNS` of each.
            states: Of each account `STATE_COLUMNS` after, then what it is found by before:
                `account_id`, `last_sequence`, `balance_minor`, `held_minor`.

        Raises:
            LedgerInvariantError: What the database says it has written isn't that; roll back.
        """
        if self._is_postgresql:
            rows = (entries, postings, states)
            found = await transaction.execute_raw(
                self._write, tuple(json.dumps(each, ensure_ascii=False) for each in rows)
            )
            row: Values = found.one()
            stored, written = row[0], (row[1], row[2], row[3])
            if stored != len(entries):
                return False
        else:
            stored = (await transaction.execute_raw(self._insert_entries, list(entries))).rowcount
            if stored != len(entries):
                return False
            await transaction.execute_raw(self._insert_postings, list(postings))
            changed = 0
            if states:
                changed = (await transaction.execute_raw(self._update, list(states))).rowcount
            # What was written is read again: balanced by what is there, not by what was sent.
            ids = self._ids([each[0] for each in entries])
            sums: Sequence[Values] = (await transaction.execute_raw(self._sum, (ids,))).all()
            unbalanced = sum(1 for row in sums if row[1])
            written = (sum(row[0] for row in sums), unbalanced, changed)
        if written != (len(postings), 0, len(states)):
            raise LedgerInvariantError("entries were not stored as they were decided")
        return True

    def _ids(self, ids: Sequence[str]) -> Any:
        return list(ids) if self._is_postgresql else json.dumps(ids)

    def _write_sql(self, tables: LedgerTables) -> str:
        """Return one statement for all three tables that counts what it wrote."""
        entries = _rows(1, [(tables.entries, each) for each in ENTRY_COLUMNS])
        postings = _rows(2, [(tables.postings, each) for each in POSTING_COLUMNS])
        moved = _rows(3, [(tables.accounts, each) for each in (*STATE_COLUMNS, *_GUARDS)])
        names = ", ".join((*STATE_COLUMNS, *(f"of_{each}" for each in _GUARDS)))
        sets = ", ".join(f"{each} = n.{each}" for each in STATE_COLUMNS)
        where = " AND ".join(f"a.{each} = n.of_{each}" for each in _GUARDS)
        are_stored = "(SELECT count(*) FROM e) = jsonb_array_length($1::text::jsonb)"
        return (
            f"WITH e AS (INSERT INTO {self._entries} ({', '.join(ENTRY_COLUMNS)})"  # noqa: S608
            f" {entries} {_UNLESS_TAKEN} RETURNING 1),"
            f" p AS (INSERT INTO {self._postings} ({', '.join(POSTING_COLUMNS)})"
            f" {postings} WHERE {are_stored} RETURNING entry_id, side, amount_minor, currency),"
            f" u AS (UPDATE {self._accounts} a SET {sets} FROM ({moved}) AS n({names})"
            f" WHERE {where} AND {are_stored} RETURNING 1)"
            " SELECT (SELECT count(*) FROM e), (SELECT count(*) FROM p),"
            " (SELECT count(*) FROM (SELECT 1 FROM p GROUP BY entry_id, currency HAVING"
            " sum(CASE side WHEN 'DEBIT' THEN amount_minor ELSE -amount_minor END) <> 0) AS d),"
            " (SELECT count(*) FROM u)"
        )


def _insert(table: str, columns: Sequence[str]) -> str:
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608


def _rows(number: int, columns: Sequence[tuple[Table, str]]) -> str:
    """Return a SELECT of the rows of a parameter: JSON, a list of lists."""
    values = ", ".join(
        f"CAST(r->>{place} AS {_TYPES[type(table.c[name].type)]})"
        for place, (table, name) in enumerate(columns)
    )
    return f"SELECT {values} FROM jsonb_array_elements(${number}::text::jsonb) AS r"  # noqa: S608
