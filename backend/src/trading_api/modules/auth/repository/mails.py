"""The queue of mails: rows are added with what they tell of, and sent later."""

import json
from datetime import datetime

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain.mail import Mail, MailKind
from trading_api.modules.auth.tables import mails
from trading_api.runtime.database import Transaction


class MailRepository:
    """Reads and writes the queue inside the caller's transaction."""

    async def add_mail(self, transaction: Transaction, mail: Mail) -> None:
        """Queue a mail; it is due at once."""
        await transaction.execute(
            mails.insert(),
            {
                "id": mail.id,
                "kind": mail.kind.value,
                "recipient": mail.recipient,
                "data": json.dumps(dict(mail.data)),
                "created_at_us": to_us(mail.created_at),
                "due_at_us": to_us(mail.created_at),
                "attempts": mail.attempts,
            },
        )

    async def list_due(self, transaction: Transaction, *, now: datetime, limit: int) -> list[Mail]:
        """Return mails to send now, longest due first.

        Of a kind that a newer release queued, none: they wait for who knows it.
        """
        rows = await transaction.all(
            sa.select(mails)
            .where(
                mails.c.due_at_us <= to_us(now), mails.c.kind.in_([each.value for each in MailKind])
            )
            .order_by(mails.c.due_at_us, mails.c.id)
            .limit(limit)
        )
        return [
            Mail(
                id=row.id,
                kind=MailKind(row.kind),
                recipient=row.recipient,
                data=json.loads(row.data),
                created_at=from_us(row.created_at_us),
                attempts=row.attempts,
            )
            for row in rows
        ]

    async def close_mail(
        self, transaction: Transaction, mail_id: str, *, outcome: str, now: datetime
    ) -> None:
        """Take a mail from the queue: ``sent``, ``dropped`` or ``failed``."""
        await transaction.execute(
            mails.update()
            .where(mails.c.id == mail_id)
            .values(due_at_us=None, outcome=outcome, done_at_us=to_us(now))
        )

    async def put_off(self, transaction: Transaction, mail_id: str, *, until: datetime) -> None:
        """Count a failed attempt and try again then."""
        await transaction.execute(
            mails.update()
            .where(mails.c.id == mail_id)
            .values(due_at_us=to_us(until), attempts=mails.c.attempts + 1)
        )

    async def remove_done(self, transaction: Transaction, *, before: datetime) -> None:
        """Remove mails that left the queue before then."""
        await transaction.execute(mails.delete().where(mails.c.done_at_us < to_us(before)))
