"""Tickets: stored by digest, used up in one statement."""

from datetime import datetime

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain.tickets import ATTEMPTS_MAX, Purpose, Ticket
from trading_api.modules.auth.repository.rows import instant_of
from trading_api.modules.auth.tables import tickets
from trading_api.runtime.database import Transaction


class TicketRepository:
    """Reads and writes tickets inside the caller's transaction."""

    async def add_ticket(self, transaction: Transaction, ticket: Ticket) -> None:
        """Insert a ticket."""
        await transaction.execute(
            tickets.insert(),
            {
                "token_hash": ticket.token_hash,
                "purpose": ticket.purpose.value,
                "user_id": ticket.user_id,
                "data": ticket.data,
                "created_at_us": to_us(ticket.created_at),
                "expires_at_us": to_us(ticket.expires_at),
                "attempts": 0,
            },
        )

    async def find_ticket(
        self, transaction: Transaction, token_hash: str, *, purpose: Purpose, now: datetime
    ) -> Ticket | None:
        """Return a ticket that is good for this purpose now."""
        row = await transaction.first(sa.select(tickets).where(*_good(token_hash, purpose, now)))
        return None if row is None else _ticket(row)

    async def use_ticket(
        self, transaction: Transaction, token_hash: str, *, purpose: Purpose, now: datetime
    ) -> Ticket | None:
        """Use a ticket up, in one statement; None where it wasn't good."""
        row = (
            await transaction.execute(
                tickets.update()
                .where(*_good(token_hash, purpose, now))
                .values(used_at_us=to_us(now))
                .returning(tickets)
            )
        ).first()
        return None if row is None else _ticket(row)

    async def count_attempt(
        self, transaction: Transaction, token_hash: str, *, purpose: Purpose, now: datetime
    ) -> Ticket | None:
        """Count an attempt with a good ticket, in one statement; None where it wasn't good."""
        row = (
            await transaction.execute(
                tickets.update()
                .where(*_good(token_hash, purpose, now))
                .values(attempts=tickets.c.attempts + 1)
                .returning(tickets)
            )
        ).first()
        return None if row is None else _ticket(row)

    async def void_tickets(
        self, transaction: Transaction, user_id: str, *purposes: Purpose
    ) -> None:
        """Remove a user's tickets for these purposes."""
        await transaction.execute(
            tickets.delete().where(
                tickets.c.user_id == user_id,
                tickets.c.purpose.in_([each.value for each in purposes]),
            )
        )

    async def remove_expired(self, transaction: Transaction, *, before: datetime) -> None:
        """Remove tickets that expired before then."""
        await transaction.execute(tickets.delete().where(tickets.c.expires_at_us < to_us(before)))


def _good(token_hash: str, purpose: Purpose, now: datetime) -> list[sa.ColumnElement[bool]]:
    return [
        tickets.c.token_hash == token_hash,
        tickets.c.purpose == purpose.value,
        tickets.c.used_at_us.is_(None),
        tickets.c.expires_at_us > to_us(now),
        tickets.c.attempts < ATTEMPTS_MAX,
    ]


def _ticket(row: sa.Row[tuple[object, ...]]) -> Ticket:
    return Ticket(
        token_hash=row.token_hash,
        purpose=Purpose(row.purpose),
        user_id=row.user_id,
        data=row.data,
        created_at=from_us(row.created_at_us),
        expires_at=from_us(row.expires_at_us),
        attempts=row.attempts,
        used_at=instant_of(row.used_at_us),
    )
