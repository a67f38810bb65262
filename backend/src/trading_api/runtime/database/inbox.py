"""Which facts of other modules had their effect here, and how far each producer was read.

``inbox`` keeps each event that had its effect; ``inbox_cursors`` up to where nothing of a producer
is open; ``inbox_dead_letters`` what was given up after too many failures, for people to look at.
"""

from contextvars import ContextVar
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.contracts.envelope import Envelope
from trading_api.kernel.clock import to_us
from trading_api.runtime.database import statements
from trading_api.runtime.database.schema import Id, Instant
from trading_api.runtime.database.transactions import Transaction

delivery: ContextVar[tuple[str, int] | None] = ContextVar("delivery", default=None)
"""Producer and sequence of the fact being handled, so that its claim can be removed some day."""

_REASON_LENGTH_MAX = 2000


def table(metadata: sa.MetaData) -> sa.Table:
    """Declare the inbox, its cursors and its dead letters in a module's own metadata.

    Returns:
        The inbox itself; the other two are found through it.
    """
    sa.Table(
        "inbox_cursors",
        metadata,
        sa.Column("producer", Id, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    sa.Table(
        "inbox_dead_letters",
        metadata,
        sa.Column("event_id", Id, primary_key=True),
        sa.Column("producer", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("envelope", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("deliveries", sa.Integer, nullable=False),
        sa.Column("failed_at_us", Instant, nullable=False),
    )
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
    """Makes the effect of each event happen once, however often it is delivered.

    Args:
        table: what ``table()`` returned.
    """

    def __init__(self, table: sa.Table) -> None:
        self.table = table
        prefix = f"{table.schema}." if table.schema else ""
        self._cursors = table.metadata.tables[f"{prefix}inbox_cursors"]
        self._dead_letters = table.metadata.tables[f"{prefix}inbox_dead_letters"]

    async def claim(
        self,
        transaction: Transaction,
        *,
        consumer: str,
        event_id: str,
        producer: str = "",
        sequence: int = 0,
    ) -> bool:
        """Claim an event in the transaction of its effect; False means it had its effect before.

        Args:
            consumer: the use case, where a module has several for one event.
            producer: known from the delivery where it isn't given, and so is ``sequence``.
        """
        if not producer:
            producer, sequence = delivery.get() or ("", 0)
        row = {
            "consumer": consumer,
            "event_id": event_id,
            "producer": producer,
            "sequence": sequence,
        }
        result = await transaction.execute(
            statements.insert_or_skip(self.table, transaction.dialect, *row), row
        )
        return result.rowcount == 1

    async def get_last_sequence(self, transaction: Transaction, *, producer: str) -> int:
        """Return the sequence up to which all of a producer's facts are done with; 0 for none.

        Facts behind it may have had their effect too; those before it are never handled again.
        """
        last = await transaction.scalar(
            sa.select(self._cursors.c.sequence).where(self._cursors.c.producer == producer)
        )
        return last or 0

    async def advance(self, transaction: Transaction, *, producer: str, sequence: int) -> None:
        """Note that all facts up to ``sequence`` are done with; never goes back."""
        insert = _insert(transaction, self._cursors).values(producer=producer, sequence=sequence)
        await transaction.execute(
            insert.on_conflict_do_update(
                index_elements=["producer"],
                set_={"sequence": insert.excluded.sequence},
                where=self._cursors.c.sequence < insert.excluded.sequence,
            )
        )

    async def rewind(self, transaction: Transaction, *, producer: str) -> None:
        """Begin anew with a producer whose own count began anew; repeats have no effect."""
        await transaction.execute(
            self._cursors.delete().where(self._cursors.c.producer == producer)
        )

    async def bury(
        self,
        transaction: Transaction,
        *,
        envelope: Envelope,
        reason: str,
        deliveries: int,
        failed_at: datetime,
    ) -> None:
        """Keep a fact that was given up; harmless when repeated."""
        await transaction.execute(
            _insert(transaction, self._dead_letters)
            .values(
                event_id=envelope.id,
                producer=envelope.producer,
                type=envelope.type,
                envelope=envelope.model_dump_json(),
                reason=reason[:_REASON_LENGTH_MAX],
                deliveries=deliveries,
                failed_at_us=to_us(failed_at),
            )
            .on_conflict_do_nothing()
        )

    async def count_dead_letters(self, transaction: Transaction) -> int:
        """Count the facts that were given up."""
        count = await transaction.scalar(sa.select(sa.func.count()).select_from(self._dead_letters))
        return count or 0

    async def remove_before(self, transaction: Transaction, *, producer: str, sequence: int) -> int:
        """Remove claims of facts that the producer itself no longer has; return how many."""
        result = await transaction.execute(
            self.table.delete().where(
                self.table.c.producer == producer, self.table.c.sequence < sequence
            )
        )
        return result.rowcount


def _insert(transaction: Transaction, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    # The two are alike in what is used here; only their classes differ.
    insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
    made: postgresql.Insert | sqlite.Insert = insert(table)
    return made
