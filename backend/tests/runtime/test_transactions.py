import pytest
import sqlalchemy as sa

from trading_api.runtime.database import Database, module_metadata

METADATA = module_metadata("shop")
ITEMS = sa.Table(
    "items",
    METADATA,
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column(
        "stock", sa.BigInteger, sa.CheckConstraint("stock >= 0", name="stock"), nullable=False
    ),
)


@pytest.fixture
async def database(database_url: str):
    made = Database(database_url, schema="shop")
    await made.create_all(METADATA)
    yield made
    await made.close()


async def test_x(database: Database) -> None:
    async with database.transaction() as t:
        await t.execute(ITEMS.insert(), {"id": 1, "stock": 2})
    async with database.snapshot() as t:
        assert await t.scalar(sa.select(ITEMS.c.stock)) == 2
