"""Statements that are built once: SQLAlchemy takes longer to build one than SQLite to run it.

Each takes its values as parameters, by column name, so it can run for one row or for many.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Dialect = Literal["sqlite", "postgresql"]

KEY_PREFIX = "of_"
"""Before the name of a column that an UPDATE finds its row by, in the parameters."""


@cache
def insert(table: sa.Table) -> sa.Insert:
    """Return an INSERT of rows."""
    return table.insert()


@cache
def insert_or_skip(table: sa.Table, dialect: Dialect, *columns: str) -> sa.Insert:
    """Return an INSERT of rows with these columns that leaves a row which is there as it is."""
    statement = _insert(table, dialect).values({name: sa.bindparam(name) for name in columns})
    found: sa.Insert = statement.on_conflict_do_nothing()
    return found


@cache
def upsert(table: sa.Table, dialect: Dialect, *columns: str) -> sa.Insert:
    """Return an INSERT of these columns that changes the row with the same primary key."""
    statement = _insert(table, dialect).values({name: sa.bindparam(name) for name in columns})
    keys = [column.name for column in table.primary_key]
    others = {name: statement.excluded[name] for name in columns if name not in keys}
    found: sa.Insert = statement.on_conflict_do_update(index_elements=keys, set_=others)
    return found


@cache
def update(table: sa.Table, keys: tuple[str, ...], columns: tuple[str, ...]) -> sa.Update:
    """Return an UPDATE of some columns of the row with these keys; see ``keyed``."""
    return (
        table.update()
        .where(*(table.c[name] == sa.bindparam(f"{KEY_PREFIX}{name}") for name in keys))
        .values({name: sa.bindparam(name) for name in columns})
    )


def keyed(keys: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of an ``update``."""
    return {**{f"{KEY_PREFIX}{name}": value for name, value in keys.items()}, **values}


@cache
def name_of(table: sa.Table, dialect: Dialect) -> str:
    """Return a table's name, schema included, for SQL of the driver's own."""
    module = sqlite if dialect == "sqlite" else postgresql
    name: str = module.dialect().identifier_preparer.format_table(table)
    return name


def is_listed(dialect: Dialect) -> str:
    """Return SQL behind a column: its text is in the one parameter, a ``list_of``."""
    return "IN (SELECT value FROM json_each(?))" if dialect == "sqlite" else "= ANY($1::text[])"


def list_of(texts: Sequence[str], dialect: Dialect) -> Any:
    """Return the parameter of ``is_listed``."""
    return json.dumps(texts) if dialect == "sqlite" else list(texts)


def rows_of(types: Sequence[str], dialect: Dialect) -> str:
    """Return a SELECT of the rows in the one parameter: JSON, a list of lists.

    Args:
        types: PostgreSQL's, of each column.
        dialect: where it runs.
    """
    if dialect == "sqlite":
        values = ", ".join(f"json_extract(value, '$[{place}]')" for place in range(len(types)))
        return f"SELECT {values} FROM json_each(?) WHERE true"  # noqa: S608
    values = ", ".join(f"CAST(r->>{place} AS {kind})" for place, kind in enumerate(types))
    return f"SELECT {values} FROM jsonb_array_elements($1::text::jsonb) AS r"  # noqa: S608


def _insert(table: sa.Table, dialect: Dialect) -> Any:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
