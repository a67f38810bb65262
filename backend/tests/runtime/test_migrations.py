"""Migrations lead to the tables, once, whole or not at all, on both databases."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import Migrations, compare, upgrade
from trading_api.runtime.database.migrations import _script_of as alembic_script_of
from trading_api.runtime.database.revisions import NotAtHeadError, ensure_at_head

MODULES = ("auth", "broker", "datafeed", "wallet")

REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{number}"
down_revision = {down}


def upgrade() -> None:
    {body}
"""


def of_module(name: str) -> Migrations:
    return Migrations.of_package(name, f"trading_api.modules.{name}")


@pytest.fixture
async def database(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, schema="planted")
    yield database
    await database.close()


@pytest.fixture
def planted(tmp_path: Path) -> Migrations:
    """Two revisions of which the second fails at its second statement."""
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    table = 'op.create_table("{}", sa.Column("id", sa.Integer), schema="planted")'
    (versions / "0001_first.py").write_text(
        REVISION.format(number="0001", down=None, body=table.format("first"))
    )
    broken = table.format("second") + '\n    op.execute("no such statement")'
    (versions / "0002_second.py").write_text(
        REVISION.format(number="0002", down="'0001'", body=broken)
    )
    return Migrations("planted", tmp_path / "migrations", sa.MetaData(schema="planted"))


@pytest.mark.parametrize("module", MODULES)
async def test_upgrade_when_run_by_two_at_once_then_leads_to_the_tables(
    module: str, database_url: str
):
    migrations = of_module(module)
    assert migrations.head() == alembic_script_of(migrations).get_current_head()
    first, second = (Database(database_url, schema=module) for _ in range(2))
    try:
        with pytest.raises(NotAtHeadError, match="at revision none"):
            await ensure_at_head(first, migrations)
        applied = await asyncio.gather(upgrade(first, migrations), upgrade(second, migrations))
        assert sorted(map(len, applied)) == [0, len(applied[0] or applied[1])]
        await ensure_at_head(second, migrations)
        assert await compare(first, migrations) == []
    finally:
        await first.close()
        await second.close()


async def test_upgrade_when_a_revision_fails_then_nothing_of_it_stays(
    database: Database, planted: Migrations
):
    with pytest.raises(sa.exc.DBAPIError):
        await upgrade(database, planted)
    with pytest.raises(NotAtHeadError):
        await ensure_at_head(database, planted)
    (planted.directory / "versions" / "0002_second.py").unlink()
    assert await upgrade(database, planted) == ["0001"]
    await ensure_at_head(database, planted)


async def test_program_when_older_than_its_database_then_refuses(
    database: Database, planted: Migrations
):
    second = planted.directory / "versions" / "0002_second.py"
    second.write_text(second.read_text().replace('op.execute("no such statement")', "pass"))
    assert await upgrade(database, planted) == ["0001", "0002"]
    second.unlink()
    with pytest.raises(NotAtHeadError, match="revision 0002, this program needs 0001"):
        await ensure_at_head(database, planted)
