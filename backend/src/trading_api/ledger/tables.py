"""The ledger's tables in a module's own metadata, and the triggers that guard them.

`ledger_accounts` holds identities and, of customer accounts, the moving state; its house rows never
change. `ledger_entries` and `ledger_postings` are append-only. `ledger_holds` rows end once. The
vital rules of the domain are repeated as constraints, so that no other program can break them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from trading_api.kernel.values import MINOR_MAX
from trading_api.ledger.domain import BALANCE_MINOR_MAX, Book, HoldState, Side
from trading_api.ledger.ports import Dialect

_Id = Text().with_variant(Text(collation="C"), "postgresql")


@dataclass(frozen=True, slots=True)
class LedgerTables:
    """The four tables of one module's ledger."""

    accounts: Table
    entries: Table
    postings: Table
    holds: Table


def ledger_tables(metadata: MetaData) -> LedgerTables:
    """Add the ledger's tables to a module's metadata, in that metadata's schema.

    The metadata names constraints by `ck_%(table_name)s_%(constraint_name)s` or likewise.
    """
    prefix = f"{metadata.schema}." if metadata.schema else ""
    accounts = Table(
        "ledger_accounts",
        metadata,
        Column("account_id", _Id, primary_key=True),
        Column("type", Text, nullable=False),
        Column("owner_id", _Id),
        Column("book", Text, nullable=False),
        Column("currency", Text, nullable=False),
        Column("scale", SmallInteger, nullable=False),
        Column("normal_side", Text, nullable=False),
        Column("is_customer", Boolean, nullable=False),
        Column("allows_negative", Boolean, nullable=False),
        Column("balance_minor", BigInteger, nullable=False),
        Column("held_minor", BigInteger, nullable=False),
        Column("last_sequence", BigInteger, nullable=False),
        Column("last_hash", Text),
        Column("last_posted_at_us", BigInteger, nullable=False),
        Column("created_at_us", BigInteger, nullable=False),
        # What postings and holds refer to, so that neither can be in another currency.
        UniqueConstraint("account_id", "currency"),
        CheckConstraint(_one_of("book", Book), "book"),
        CheckConstraint(_one_of("normal_side", Side), "normal_side"),
        CheckConstraint("scale BETWEEN 0 AND 8", "scale"),
        CheckConstraint("is_customer = (owner_id IS NOT NULL)", "owner"),
        CheckConstraint("held_minor >= 0", "held_not_negative"),
        CheckConstraint("allows_negative OR balance_minor - held_minor >= 0", "available"),
        CheckConstraint(
            f"balance_minor BETWEEN -{BALANCE_MINOR_MAX} AND {BALANCE_MINOR_MAX}", "balance_range"
        ),
        CheckConstraint(
            "is_customer OR (balance_minor = 0 AND held_minor = 0 AND last_sequence = 0"
            " AND last_hash IS NULL AND last_posted_at_us = 0)",
            "house_has_no_state",
        ),
        Index(None, "owner_id"),
    )
    entries = Table(
        "ledger_entries",
        metadata,
        Column("entry_id", _Id, primary_key=True),
        Column("type", Text, nullable=False),
        Column("book", Text, nullable=False),
        Column("reference", _Id),
        Column("description", Text, nullable=False),
        Column("details", Text, nullable=False),
        Column(
            "reverses_entry_id", _Id, ForeignKey(f"{prefix}ledger_entries.entry_id"), unique=True
        ),
        Column("occurred_at_us", BigInteger, nullable=False),
        Column("recorded_at_us", BigInteger, nullable=False),
        CheckConstraint(_one_of("book", Book), "book"),
        Index(None, "reference"),
    )
    postings = Table(
        "ledger_postings",
        metadata,
        Column("entry_id", _Id, ForeignKey(entries.c.entry_id), primary_key=True),
        Column("position", Integer, primary_key=True),
        Column("account_id", _Id, nullable=False),
        Column("side", Text, nullable=False),
        Column("amount_minor", BigInteger, nullable=False),
        Column("currency", Text, nullable=False),
        Column("sequence", BigInteger),
        Column("running_balance_minor", BigInteger),
        Column("chain_hash", Text),
        ForeignKeyConstraint(
            ["account_id", "currency"], [accounts.c.account_id, accounts.c.currency]
        ),
        UniqueConstraint("account_id", "sequence"),
        CheckConstraint(_one_of("side", Side), "side"),
        CheckConstraint(f"amount_minor BETWEEN 1 AND {MINOR_MAX}", "amount_range"),
        CheckConstraint("sequence >= 1", "sequence_positive"),
        CheckConstraint(
            "(sequence IS NULL) = (running_balance_minor IS NULL)"
            " AND (sequence IS NULL) = (chain_hash IS NULL)",
            "chained_or_not",
        ),
    )
    holds = Table(
        "ledger_holds",
        metadata,
        Column("hold_id", _Id, primary_key=True),
        Column("account_id", _Id, nullable=False),
        Column("currency", Text, nullable=False),
        Column("amount_minor", BigInteger, nullable=False),
        Column("state", Text, nullable=False),
        Column("captured_minor", BigInteger, nullable=False),
        Column("entry_id", _Id, ForeignKey(entries.c.entry_id), unique=True),
        Column("reference", _Id),
        Column("expires_at_us", BigInteger),
        Column("opened_at_us", BigInteger, nullable=False),
        Column("closed_at_us", BigInteger),
        ForeignKeyConstraint(
            ["account_id", "currency"], [accounts.c.account_id, accounts.c.currency]
        ),
        CheckConstraint(_one_of("state", HoldState), "state"),
        CheckConstraint(f"amount_minor BETWEEN 1 AND {MINOR_MAX}", "amount_range"),
        CheckConstraint("captured_minor BETWEEN 0 AND amount_minor", "captured_range"),
        CheckConstraint("(state = 'pending') = (closed_at_us IS NULL)", "closed"),
        CheckConstraint(
            "(state = 'posted') = (entry_id IS NOT NULL)"
            " AND (state = 'posted') = (captured_minor > 0)",
            "posted",
        ),
        Index(
            "ix_ledger_holds_pending",
            "account_id",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )
    return LedgerTables(accounts, entries, postings, holds)


def append_only_ddl(dialect: Dialect, schema: str | None, table: str) -> list[str]:
    """Return the statements that make a table append-only, for a migration.

    UPDATE, DELETE and (PostgreSQL) TRUNCATE fail with "<table> is append-only".

    Args:
        dialect: The database the migration runs on.
        schema: The module's schema; on SQLite the name under which its file is attached.
        table: The table's name.
    """
    message = f"{table} is append-only"
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {_qualified(schema, f'tr_{table}_no_{action.lower()}')}"
            f" BEFORE {action} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{message}'); END"
            for action in ("UPDATE", "DELETE")
        ]
    return [
        _postgresql_refusal(schema, f"refuse_change_of_{table}", message),
        _postgresql_trigger(
            schema, table, "append_only", "UPDATE OR DELETE", f"refuse_change_of_{table}"
        ),
        _postgresql_no_truncate(schema, table, f"refuse_change_of_{table}"),
    ]


def hold_guard_ddl(dialect: Dialect, schema: str | None) -> list[str]:
    """Return the statements by which a hold ends once, keeps its terms and is never deleted."""
    terms = (
        "hold_id", "account_id", "currency", "amount_minor", "reference", "expires_at_us",
        "opened_at_us",
    )  # fmt: skip
    changed = f"OLD.state <> 'pending' OR {_any_differs(dialect, terms)}"
    message = "a hold ends once and keeps its terms"
    return _guard_ddl(dialect, schema, "ledger_holds", message, changed)


def account_guard_ddl(dialect: Dialect, schema: str | None) -> list[str]:
    """Return the statements by which an account keeps its identity and is never deleted."""
    identity = (
        "account_id", "type", "owner_id", "book", "currency", "scale", "normal_side",
        "is_customer", "allows_negative", "created_at_us",
    )  # fmt: skip
    message = "an account keeps its identity"
    return _guard_ddl(dialect, schema, "ledger_accounts", message, _any_differs(dialect, identity))


def ledger_guard_ddl(dialect: Dialect, schema: str | None) -> list[str]:
    """Return every guard of the ledger's tables, for the migration that creates them."""
    return [
        *append_only_ddl(dialect, schema, "ledger_entries"),
        *append_only_ddl(dialect, schema, "ledger_postings"),
        *hold_guard_ddl(dialect, schema),
        *account_guard_ddl(dialect, schema),
    ]


def _any_differs(dialect: Dialect, columns: Sequence[str]) -> str:
    differs = "IS NOT" if dialect == "sqlite" else "IS DISTINCT FROM"
    return " OR ".join(f"NEW.{column} {differs} OLD.{column}" for column in columns)


def _guard_ddl(
    dialect: Dialect, schema: str | None, table: str, message: str, changed: str
) -> list[str]:
    if dialect == "sqlite":
        refuse = f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        on_update = _qualified(schema, f"tr_{table}_update")
        on_delete = _qualified(schema, f"tr_{table}_no_delete")
        return [
            f"CREATE TRIGGER {on_update} BEFORE UPDATE ON {table} WHEN {changed} {refuse}",
            f"CREATE TRIGGER {on_delete} BEFORE DELETE ON {table} {refuse}",
        ]
    function = f"refuse_change_of_{table}"
    return [
        _postgresql_refusal(schema, function, message),
        _postgresql_trigger(schema, table, "update", "UPDATE", function, when=changed),
        _postgresql_trigger(schema, table, "no_delete", "DELETE", function),
        _postgresql_no_truncate(schema, table, function),
    ]


def _postgresql_refusal(schema: str | None, function: str, message: str) -> str:
    return (
        f"CREATE FUNCTION {_qualified(schema, function)}() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = 'restrict_violation'; END $$"
    )


def _postgresql_trigger(
    schema: str | None, table: str, name: str, actions: str, function: str, when: str | None = None
) -> str:
    condition = f" WHEN ({when})" if when else ""
    return (
        f"CREATE TRIGGER tr_{table}_{name} BEFORE {actions} ON {_qualified(schema, table)}"
        f" FOR EACH ROW{condition} EXECUTE FUNCTION {_qualified(schema, function)}()"
    )


def _postgresql_no_truncate(schema: str | None, table: str, function: str) -> str:
    return (
        f"CREATE TRIGGER tr_{table}_no_truncate BEFORE TRUNCATE ON {_qualified(schema, table)}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {_qualified(schema, function)}()"
    )


def _qualified(schema: str | None, name: str) -> str:
    return f'"{schema}".{name}' if schema else name


def _one_of(column: str, values: type[Book] | type[Side] | type[HoldState]) -> str:
    listed = ", ".join(f"'{value.value}'" for value in values)
    return f"{column} IN ({listed})"
