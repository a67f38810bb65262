"""What must run once: a row in the module's database with a fencing number.

The holder passes its ``Lease`` into each guarded transaction, which re-reads the row; a holder
that slept past its time finds another number there and changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import Clock, to_us
from trading_api.kernel.errors import ConflictError, ErrorCode
from trading_api.runtime.database.schema import Id, Instant
from trading_api.runtime.database.transactions import Database, Transaction

DURATION = timedelta(seconds=5)
"""A lost holder delays its work by this at most; renewal runs at a third of it."""


class LeaseErrorCode(ErrorCode):
    """Stable codes of this room."""

    LOST = "platform.lease.lost"


class LeaseLostError(ConflictError):
    """Another instance holds the lease now; the guarded transaction changed nothing."""

    code = LeaseErrorCode.LOST
    title = "Lease lost"


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do a named piece of work alone.

    Attributes:
        name: what it is for.
        owner: the instance that holds it.
        fencing: grows with every change of holder.
    """

    name: str
    owner: str
    fencing: int


def table(metadata: sa.MetaData) -> sa.Table:
    """Declare the leases in a module's own metadata."""
    return sa.Table(
        "leases",
        metadata,
        sa.Column("name", Id, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("fencing", sa.BigInteger, nullable=False),
        sa.Column("expires_at_us", Instant, nullable=False),
    )


class Leases:
    """Takes, renews, checks and gives up leases for one process.

    Args:
        owner: unique among all processes that ever lived, such as host, pid and start time.
        duration: how long a lease lasts without renewal.
    """

    def __init__(
        self,
        table: sa.Table,
        *,
        database: Database,
        clock: Clock,
        owner: str,
        duration: timedelta = DURATION,
    ) -> None:
        self.duration = duration
        self._table = table
        self._database = database
        self._clock = clock
        self._owner = owner

    async def acquire(self, name: str) -> Lease | None:
        """Take the lease, or renew one's own; None while another holds it."""
        # Standbys ask all the time; only who may get it takes the database's write lock.
        async with self._database.snapshot() as snapshot:
            row = await snapshot.first(sa.select(self._table).where(self._table.c.name == name))
        if row is not None and not self._may_take(row):
            return None
        async with self._database.transaction() as transaction:
            row = await transaction.first(
                sa.select(self._table).where(self._table.c.name == name).with_for_update()
            )
            if row is None:
                return await self._insert(transaction, name)
            if not self._may_take(row):
                return None
            fencing = row.fencing if row.owner == self._owner else row.fencing + 1
            await transaction.execute(
                self._table.update()
                .where(self._table.c.name == name)
                .values(owner=self._owner, fencing=fencing, expires_at_us=self._expiry_us())
            )
            return Lease(name, self._owner, fencing)

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Extend one's leases in one transaction; return those that are still held."""
        held: list[Lease] = []
        async with self._database.transaction() as transaction:
            for lease in leases:
                result = await transaction.execute(
                    self._table.update()
                    .where(self._is(lease))
                    .values(expires_at_us=self._expiry_us())
                )
                if result.rowcount == 1:
                    held.append(lease)
        return held

    async def ensure_held(self, transaction: Transaction, lease: Lease) -> None:
        """Check the fencing number inside the guarded transaction.

        Raises:
            LeaseLostError: another instance took over.
        """
        row = await transaction.first(
            sa.select(self._table.c.fencing, self._table.c.owner)
            .where(self._table.c.name == lease.name)
            .with_for_update(read=True)
        )
        if row is None or row.fencing != lease.fencing or row.owner != lease.owner:
            raise LeaseLostError(f"the lease {lease.name} went to another instance")

    async def release(self, lease: Lease) -> None:
        """Give the lease up, so that a standby takes over at once; harmless when already lost."""
        async with self._database.transaction() as transaction:
            await transaction.execute(
                self._table.update().where(self._is(lease)).values(expires_at_us=0)
            )

    async def list_held(self, transaction: Transaction) -> list[Lease]:
        """Return every lease whose time isn't over, by name; a running process renews its own."""
        rows = await transaction.all(
            sa.select(self._table)
            .where(self._table.c.expires_at_us > to_us(self._clock.now()))
            .order_by(self._table.c.name)
        )
        return [Lease(row.name, row.owner, row.fencing) for row in rows]

    async def release_all(self, transaction: Transaction) -> None:
        """Free every lease for a database that was replaced; whoever held one has lost it."""
        await transaction.execute(
            self._table.update().values(expires_at_us=0, fencing=self._table.c.fencing + 1)
        )

    async def _insert(self, transaction: Transaction, name: str) -> Lease | None:
        insert = postgresql.insert if transaction.dialect == "postgresql" else sqlite.insert
        result = await transaction.execute(
            insert(self._table)
            .values(name=name, owner=self._owner, fencing=1, expires_at_us=self._expiry_us())
            .on_conflict_do_nothing()
        )
        return Lease(name, self._owner, 1) if result.rowcount == 1 else None

    def _may_take(self, row: sa.Row[Any]) -> bool:
        is_free: bool = row.owner == self._owner or row.expires_at_us <= to_us(self._clock.now())
        return is_free

    def _expiry_us(self) -> int:
        return to_us(self._clock.now() + self.duration)

    def _is(self, lease: Lease) -> sa.ColumnElement[bool]:
        return sa.and_(
            self._table.c.name == lease.name,
            self._table.c.owner == lease.owner,
            self._table.c.fencing == lease.fencing,
        )
