"""The audit: rows are added to its chain, never changed."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain.audit import (
    FIRST_HASH,
    AuditEntry,
    AuditRow,
    Caller,
    chain_hash,
)
from trading_api.modules.auth.repository.rows import insert_into
from trading_api.modules.auth.tables import audit_entries, audit_head
from trading_api.runtime.database import Transaction

_HEAD = 1
_PAGE = 1000


class AuditRepository:
    """Appends to the chain and reads it."""

    async def append(self, transaction: Transaction, entry: AuditEntry) -> None:
        """Append an entry; the last step of a transaction.

        The chain's head is locked until the commit. Who locked it and then waited for anything else
        would make everybody wait.
        """
        head = await self._lock_head(transaction)
        columns = {
            "sequence": head.sequence + 1,
            "occurred_at_us": to_us(entry.occurred_at),
            "actor_id": entry.caller.user_id,
            "session_id": entry.caller.session_id,
            "address": entry.caller.address,
            "action": entry.action,
            "outcome": entry.outcome,
            "object": entry.about,
            "detail": entry.detail,
            "before_hash": entry.before_hash,
            "after_hash": entry.after_hash,
            "request_id": entry.request_id,
        }
        digest = chain_hash(head.hash, columns)
        await transaction.execute(audit_entries.insert(), {**columns, "hash": digest})
        await transaction.execute(
            audit_head.update()
            .where(audit_head.c.id == _HEAD)
            .values(sequence=columns["sequence"], hash=digest)
        )

    async def list_entries(
        self,
        transaction: Transaction,
        *,
        before_sequence: int | None,
        limit: int,
        actor_id: str | None = None,
        action: str | None = None,
        about: str | None = None,
    ) -> list[AuditRow]:
        """Return entries, newest first.

        Args:
            before_sequence: only older ones than that; None for the newest.
            actor_id: only of that user; likewise ``action`` and ``about``.
        """
        query = sa.select(audit_entries).order_by(audit_entries.c.sequence.desc()).limit(limit)
        if before_sequence is not None:
            query = query.where(audit_entries.c.sequence < before_sequence)
        for column, wanted in (("actor_id", actor_id), ("action", action), ("object", about)):
            if wanted is not None:
                query = query.where(audit_entries.c[column] == wanted)
        return [_row(each) for each in await transaction.all(query)]

    async def iterate(self, transaction: Transaction) -> AsyncIterator[Sequence[sa.Row[Any]]]:
        """Yield every stored row in order, in pages."""
        last = 0
        while True:
            rows = await transaction.all(
                sa.select(audit_entries)
                .where(audit_entries.c.sequence > last)
                .order_by(audit_entries.c.sequence)
                .limit(_PAGE)
            )
            if not rows:
                return
            yield rows
            last = rows[-1].sequence

    async def get_head(self, transaction: Transaction) -> tuple[int, str]:
        """Return the newest sequence and hash; ``(0, FIRST_HASH)`` before the first entry."""
        row = await transaction.first(sa.select(audit_head).where(audit_head.c.id == _HEAD))
        return (0, FIRST_HASH) if row is None else (row.sequence, row.hash)

    async def _lock_head(self, transaction: Transaction) -> sa.Row[Any]:
        query = sa.select(audit_head).where(audit_head.c.id == _HEAD).with_for_update()
        head = await transaction.first(query)
        if head is None:
            await transaction.execute(
                insert_into(transaction, audit_head)
                .values(id=_HEAD, sequence=0, hash=FIRST_HASH)
                .on_conflict_do_nothing(index_elements=["id"])
            )
            head = await transaction.first(query)
        assert head is not None
        return head


def _row(row: sa.Row[Any]) -> AuditRow:
    return AuditRow(
        sequence=row.sequence,
        entry=AuditEntry(
            occurred_at=from_us(row.occurred_at_us),
            caller=Caller(row.address, row.actor_id, row.session_id),
            action=row.action,
            outcome=row.outcome,
            about=row.object,
            detail=row.detail,
            before_hash=row.before_hash,
            after_hash=row.after_hash,
            request_id=row.request_id,
        ),
        hash=row.hash,
    )
