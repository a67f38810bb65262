"""Which facts of other modules had their effect here, and how far each producer was read."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.runtime.database.schema import Id
from trading_api.runtime.database.transactions import Transaction


def table(metadata: sa.MetaData) -> sa.Table:
    """Declare the inbox in a module's own metadata."""
    return sa.Table(
        "inbox",
        metadata,
        sa.Column("consumer", sa.Text, primary_key=True),
        sa.Column("event_id", Id, primary_key=True),
        sa.Column("producer", sa.Text, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Index("ix_inbox_producer_sequence", "producer", "sequence"),
    )


class Inbox:
    """Makes the effect of each event happen once, however often it is delivered."""

    def __init__(self, table: sa.Table) -> None:
        self.table = table

    async def claim(
        self,
        transaction: Transaction,
        *,
        consumer: str,
        event_id: str,
        producer: str = "",
        sequence: int = 0,
    ) -> bool:
        """Claim an event in the transaction of its effect; False means it had its effect before."""
        insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        result = await transaction.execute(
            insert(self.table)
            .values(consumer=consumer, event_id=event_id, producer=producer, sequence=sequence)
            .on_conflict_do_nothing()
        )
        return result.rowcount == 1

    async def get_last_sequence(self, transaction: Transaction, *, producer: str) -> int:
        """Return the highest sequence of a producer that had its effect here; 0 for none."""
        last = await transaction.scalar(
            sa.select(sa.func.max(self.table.c.sequence)).where(self.table.c.producer == producer)
        )
        return last or 0
