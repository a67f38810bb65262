"""Migrations of one module: Alembic revisions in ``modules/<name>/migrations/versions``.

Forward only, each in one transaction (both databases roll DDL back). The version table lives in
the module's own schema. Two migrators at once: one waits.

    python -m trading_api.runtime.database.migrations autogenerate wallet "add limits"

writes a revision from the difference between the module's tables and its revisions so far.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.config import Config
from alembic.operations.ops import MigrationScript
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from trading_api.runtime.database.revisions import Migrations
from trading_api.runtime.database.transactions import Database

__all__ = ["Migrations", "autogenerate", "compare", "upgrade"]

_ADVISORY_LOCK = 0x7472_6164  # "trad": one migrator at a time for the whole platform


async def upgrade(database: Database, migrations: Migrations) -> list[str]:
    """Bring the database to the newest revision; return the revisions applied, oldest first."""
    applied: list[str] = await _on_connection(database, migrations, _upgrade)
    return applied


async def compare(database: Database, migrations: Migrations) -> list[Any]:
    """Return the differences between the database and the tables; empty when they agree."""

    def differences(connection: sa.Connection, each: Migrations) -> list[Any]:
        return list(compare_metadata(_context(connection, database.schema), each.metadata))

    found: list[Any] = await _on_connection(database, migrations, differences)
    return found


async def _on_connection(
    database: Database,
    migrations: Migrations,
    work: Callable[[sa.Connection, Migrations], Any],
) -> Any:
    async with database.engine.connect() as connection:
        if database.dialect == "postgresql":
            await connection.execute(
                sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK}
            )
            await connection.execute(sa.text(f'CREATE SCHEMA IF NOT EXISTS "{database.schema}"'))
        else:
            await connection.run_sync(_begin_immediate)
        result = await connection.run_sync(work, migrations)
        await connection.commit()
        return result


def _begin_immediate(connection: sa.Connection) -> None:
    connection.execute(sa.text("BEGIN IMMEDIATE"))


def _upgrade(connection: sa.Connection, migrations: Migrations) -> list[str]:
    script = _script_of(migrations)
    applied: list[str] = []

    def steps(revision: Any, _context: MigrationContext) -> Any:
        plan = script._upgrade_revs("head", revision)
        applied.extend(step.revision.revision for step in plan)
        return plan

    _run(connection, migrations, script, steps)
    return applied


def _script_of(migrations: Migrations) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(migrations.directory))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _run(
    connection: sa.Connection, migrations: Migrations, script: ScriptDirectory, steps: Any
) -> None:
    with EnvironmentContext(Config(), script, fn=steps) as environment:
        environment.configure(
            connection=connection,
            target_metadata=migrations.metadata,
            version_table_schema=migrations.metadata.schema,
            transactional_ddl=False,  # the caller's transaction holds all of it
            include_schemas=True,
            include_name=_is_of(migrations.metadata.schema),
        )
        environment.run_migrations()


def _context(connection: sa.Connection, schema: str) -> MigrationContext:
    return MigrationContext.configure(
        connection,
        opts={
            "version_table_schema": schema,
            "include_schemas": True,
            "include_name": _is_of(schema),
            "compare_type": True,
        },
    )


def _is_of(schema: str | None) -> Callable[[str | None, str, Any], bool]:
    def is_ours(name: str | None, kind: str, _parents: Any) -> bool:
        if kind == "schema":
            return name == schema
        return not (kind == "table" and name == "alembic_version")

    return is_ours


async def autogenerate(module: str, message: str) -> Path | None:
    """Write a revision that leads from the module's revisions so far to its tables.

    Returns:
        The file written, to be read and corrected by its author; None when nothing differs.
    """
    migrations = Migrations.of_package(module, f"trading_api.modules.{module.replace('-', '_')}")
    versions = migrations.directory / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    number = len(list(versions.glob("[0-9]*.py"))) + 1
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite+aiosqlite:///{folder}/scratch.db", schema=module)
        try:
            await upgrade(database, migrations)
            script = await _on_connection(database, migrations, _difference)
        finally:
            await database.close()
    if script.upgrade_ops.is_empty():
        return None
    slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")
    path = versions / f"{number:04d}_{slug}.py"
    down = f"{number - 1:04d}" if number > 1 else None
    path.write_text(
        _TEMPLATE.format(
            message=message[0].upper() + message[1:],
            revision=f"{number:04d}",
            down=repr(down),
            body=render_python_code(
                script.upgrade_ops,
                alembic_module_prefix="op.",
                sqlalchemy_module_prefix="sa.",
                render_item=_render_truth,
            ),
        )
    )
    return path


def _difference(connection: sa.Connection, migrations: Migrations) -> MigrationScript:
    assert migrations.metadata.schema is not None
    return produce_migrations(_context(connection, migrations.metadata.schema), migrations.metadata)


def _render_truth(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    # Compared on SQLite, where a truth value is 0 or 1; PostgreSQL refuses such a default.
    if kind == "server_default" and isinstance(item, sa.DefaultClause):
        if isinstance(item.arg, sa.sql.elements.False_):
            return "sa.false()"
        if isinstance(item.arg, sa.sql.elements.True_):
            return "sa.true()"
    return False


_TEMPLATE = '''"""{message}."""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {down}


def upgrade() -> None:
{body}
'''


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "autogenerate":
        sys.exit(f'usage: python -m {__spec__.name} autogenerate MODULE "message"')
    sys.stdout.write(f"{asyncio.run(autogenerate(sys.argv[2], sys.argv[3]))}\n")
