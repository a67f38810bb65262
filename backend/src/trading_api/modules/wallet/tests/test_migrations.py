"""The revisions lead exactly to the tables, on both databases."""

from trading_api.runtime.database.migrations import Migrations, compare, upgrade


async def test_revisions_when_applied_then_equal_the_tables_and_repeat_is_harmless(database):
    migrations = Migrations.of_package("wallet", "trading_api.modules.wallet")
    assert await compare(database, migrations) == []
    assert await upgrade(database, migrations) == []
