"""Which revision a database is at, and which one this program needs.

Asked at every start, so it knows no Alembic: importing that takes longer than the question. A
revision's id is the number that its file's name begins with.
"""

import importlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import sqlalchemy as sa

from trading_api.kernel.errors import ErrorCode, TradingError
from trading_api.runtime.database.transactions import Database


class MigrationErrorCode(ErrorCode):
    """Stable codes of this room."""

    NOT_AT_HEAD = "platform.migration.not_at_head"


class NotAtHeadError(TradingError):
    """The database's schema isn't the one this program was written for."""

    code = MigrationErrorCode.NOT_AT_HEAD
    title = "Database schema is not current"


@dataclass(frozen=True, slots=True)
class Migrations:
    """Where a module's revisions are and what they should lead to.

    Attributes:
        module: the module's name.
        directory: folder with the ``versions`` folder in it.
        metadata: the tables that the newest revision leads to.
    """

    module: str
    directory: Path
    metadata: sa.MetaData

    @classmethod
    def of_package(cls, module: str, package: str) -> "Migrations":
        """Find the revisions and tables of a module's package."""
        tables = importlib.import_module(f"{package}.tables")
        directory = Path(str(resources.files(package))) / "migrations"
        return cls(module, directory, tables.metadata)

    def head(self) -> str | None:
        """Return the newest revision; None where there is none yet."""
        files = (self.directory / "versions").glob("[0-9]*_*.py")
        return max((file.name.partition("_")[0] for file in files), default=None)


async def ensure_at_head(database: Database, migrations: Migrations) -> None:
    """Check that the database is exactly at this program's revision.

    Raises:
        NotAtHeadError: older (migrate first) or newer (start the newer program).
    """
    async with database.engine.connect() as connection:
        found = await connection.run_sync(_current, database.schema)
    head = migrations.head()
    if found != head:
        raise NotAtHeadError(
            f"the {migrations.module} database is at revision {found or 'none'}, this program "
            f"needs {head or 'none'}: run `trading-api migrate`, or start the matching version"
        )


def _current(connection: sa.Connection, schema: str) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version", schema=schema):
        return None
    table = sa.Table("alembic_version", sa.MetaData(schema=schema), sa.Column("version_num"))
    found: str | None = connection.scalar(sa.select(table.c.version_num))
    return found
