"""Facts a module publishes: rows written in the transaction of the change they report.

Rows get their place in the producer's stream from the leased relay after the commit, ordered by
row number among those without one; a watermark over row numbers would lose a transaction that
commits late. The relay is ``runtime.bus.relay``.
"""

import json
from collections.abc import Callable
from datetime import datetime, timedelta

import sqlalchemy as sa

from trading_api.contracts.envelope import Envelope, Event
from trading_api.kernel.clock import Clock, from_us, to_us
from trading_api.kernel.ids import IdSource
from trading_api.runtime import context
from trading_api.runtime.database import statements
from trading_api.runtime.database.schema import Id, Instant, RowNumber
from trading_api.runtime.database.transactions import Transaction

RETENTION = timedelta(days=7)
"""How long a consumer may be away before it can't catch up from the producer's facts."""


def table(metadata: sa.MetaData) -> sa.Table:
    """Declare the outbox in a module's own metadata."""
    return sa.Table(
        "outbox",
        metadata,
        sa.Column("id", RowNumber, sa.Identity(), primary_key=True),
        sa.Column("event_id", Id, nullable=False, unique=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("key_sequence", sa.BigInteger),
        sa.Column("data", sa.Text, nullable=False),
        sa.Column("occurred_at_us", Instant, nullable=False),
        sa.Column("recorded_at_us", Instant, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("traceparent", sa.Text),
        sa.Column("sequence", sa.BigInteger, unique=True),
    )


class Outbox:
    """Writes a module's events, and reads them back for the relay and for late consumers.

    Args:
        table: the module's outbox table.
        producer: the module's name, as the envelope tells it.
    """

    def __init__(self, table: sa.Table, *, producer: str, ids: IdSource, clock: Clock) -> None:
        self.table = table
        self.producer = producer
        self._ids = ids
        self._clock = clock
        self._callbacks: list[Callable[[], None]] = []

    async def add(
        self,
        transaction: Transaction,
        event: Event,
        *,
        key: str,
        occurred_at: datetime,
        key_sequence: int | None = None,
    ) -> str:
        """Do what ``write`` does."""
        return self.write(
            transaction, event, key=key, occurred_at=occurred_at, key_sequence=key_sequence
        )

    def write(
        self,
        transaction: Transaction,
        event: Event,
        *,
        key: str,
        occurred_at: datetime,
        key_sequence: int | None = None,
    ) -> str:
        """Write an event into the caller's transaction, as of this context; return its id.

        For events of one key to keep their order the caller locks the key's row first.
        """
        event_id = self._ids.new("evt")
        transaction.later(
            statements.insert(self.table),
            {
                "event_id": event_id,
                "type": event.TYPE,
                "version": event.VERSION,
                "key": key,
                "key_sequence": key_sequence,
                "data": event.model_dump_json(),
                "occurred_at_us": to_us(occurred_at),
                "recorded_at_us": to_us(self._clock.now()),
                "request_id": context.request_id.get(),
                "causation_id": context.causation_id.get(),
                "traceparent": context.traceparent.get(),
            },
            is_unread=True,
        )
        transaction.after_commit(self._tell)
        return event_id

    def on_added(self, callback: Callable[[], None]) -> None:
        """Call back after each commit that brought events; for waking a relay, so be quick."""
        self._callbacks.append(callback)

    async def number(self, transaction: Transaction, *, limit: int, floor: int = 0) -> int:
        """Give up to ``limit`` committed events their sequence; return how many got one.

        Only the holder of the relay's lease may call this, inside a transaction it guards.

        Args:
            floor: count on from here where the table itself counted less, as after a restore.
        """
        last = await transaction.scalar(sa.select(sa.func.max(self.table.c.sequence)))
        waiting = (
            sa.select(
                self.table.c.id,
                sa.func.row_number().over(order_by=self.table.c.id).label("place"),
            )
            .where(self.table.c.sequence.is_(None))
            .order_by(self.table.c.id)
            .limit(limit)
            .subquery("waiting")
        )
        result = await transaction.execute(
            self.table.update()
            .where(self.table.c.id == waiting.c.id)
            .values(sequence=waiting.c.place + max(last or 0, floor))
        )
        return result.rowcount

    async def has_unnumbered(self, transaction: Transaction) -> bool:
        """Tell whether committed events wait for their sequence."""
        found = await transaction.scalar(
            sa.select(self.table.c.id).where(self.table.c.sequence.is_(None)).limit(1)
        )
        return found is not None

    async def list_after(
        self, transaction: Transaction, *, sequence: int, limit: int
    ) -> list[Envelope]:
        """Return numbered events behind ``sequence``, oldest first."""
        return await self._list(transaction, self.table.c.sequence > sequence, limit)

    async def get_range(self, transaction: Transaction) -> tuple[int, int]:
        """Return the first and the last sequence that are kept; zeros where there is none."""
        # Two look-ups in the index; one statement with both aggregates would scan on SQLite.
        first = await transaction.scalar(sa.select(sa.func.min(self.table.c.sequence)))
        last = await transaction.scalar(sa.select(sa.func.max(self.table.c.sequence)))
        return first or 0, last or 0

    async def remove_older_than(self, transaction: Transaction, *, instant: datetime) -> int:
        """Remove numbered events recorded before ``instant``; return how many."""
        # The newest row stays: it carries the sequence that the next event counts on from.
        newest = sa.select(sa.func.max(self.table.c.sequence)).scalar_subquery()
        result = await transaction.execute(
            self.table.delete().where(
                self.table.c.recorded_at_us < to_us(instant), self.table.c.sequence < newest
            )
        )
        return result.rowcount

    def _tell(self) -> None:
        for callback in self._callbacks:
            callback()

    async def _list(
        self, transaction: Transaction, condition: sa.ColumnElement[bool], limit: int
    ) -> list[Envelope]:
        rows = await transaction.all(
            sa.select(self.table).where(condition).order_by(self.table.c.sequence).limit(limit)
        )
        return [
            Envelope(
                id=row.event_id,
                type=row.type,
                version=row.version,
                producer=self.producer,
                key=row.key,
                key_sequence=row.key_sequence,
                sequence=row.sequence,
                occurred_at=from_us(row.occurred_at_us),
                recorded_at=from_us(row.recorded_at_us),
                request_id=row.request_id,
                causation_id=row.causation_id,
                traceparent=row.traceparent,
                data=json.loads(row.data),
            )
            for row in rows
        ]
