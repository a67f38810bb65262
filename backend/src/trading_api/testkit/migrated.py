"""Databases brought to the newest revision quickly, for tests.

The first time a test process needs a module's tables, Alembic makes them and its statements are
kept; afterwards the same statements run again without Alembic.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import Migrations, upgrade

Statement = tuple[str, tuple[Any, ...]]

_kept: dict[tuple[str, str], list[Statement]] = {}


async def migrate(database: Database, module: str) -> None:
    """Make a module's tables in an empty database."""
    migrations = Migrations.of_package(module, f"trading_api.modules.{module.replace('-', '_')}")
    statements = _kept.get((database.schema, database.dialect))
    if statements is None:
        _kept[database.schema, database.dialect] = await _record(database, migrations)
        return
    async with database.engine.begin() as connection:
        if database.dialect == "postgresql":
            await connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{database.schema}"'))
            driver: Any = (await connection.get_raw_connection()).driver_connection
            # asyncpg sends any number of statements without parameters in one message.
            plain = [statement for statement, parameters in statements if not parameters]
            await driver.execute(";\n".join(plain))
            for statement, parameters in statements:
                if parameters:
                    await driver.execute(statement, *parameters)
        else:
            await connection.run_sync(_execute_all, [("BEGIN IMMEDIATE", ()), *statements])


def _execute_all(connection: sa.Connection, statements: Sequence[Statement]) -> None:
    for statement, parameters in statements:
        connection.exec_driver_sql(statement, parameters)


async def _record(database: Database, migrations: Migrations) -> list[Statement]:
    statements: list[Statement] = []

    def keep(
        _connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        word = statement.split(None, 1)[0].upper()
        if word in ("BEGIN", "SELECT", "PRAGMA") or "CREATE SCHEMA" in statement:
            return
        rows = parameters if many else [parameters]
        statements.extend((statement, tuple(row)) for row in rows)

    engine = database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", keep)
    try:
        await upgrade(database, migrations)
    finally:
        sa.event.remove(engine, "before_cursor_execute", keep)
    return statements
