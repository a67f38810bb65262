"""Sending the mails that other use cases queued."""

import asyncio
from datetime import datetime, timedelta

import structlog

from trading_api.kernel.errors import UnavailableError
from trading_api.modules.auth.domain import fold_email
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import ASKED_FOR, Mail, MailKind, Message, compose
from trading_api.modules.auth.domain.tickets import Purpose
from trading_api.modules.auth.ports import Mailer, MailError
from trading_api.modules.auth.service.desk import Desk
from trading_api.runtime.database import Transaction

log = structlog.get_logger("auth")

BATCH = 20
SECONDS_MAX = 30.0
"""How long the mail server may take for one mail."""

_KEPT = timedelta(days=30)
"""How long a mail that left the queue can be looked up."""

_SENDER = Caller("mail")
"""Who the audit names for what nobody asked for: the sending itself."""

_PURPOSES = {
    MailKind.EMAIL_VERIFY: Purpose.EMAIL_VERIFY,
    MailKind.PASSWORD_RESET: Purpose.PASSWORD_RESET,
}


class MailService:
    """Takes mails from the queue, never within the transaction that queued them.

    A mail is sent at least once: one whose acknowledgement was lost goes out again, with the same
    Message-ID and, where it carries a token, with another one.
    """

    def __init__(self, desk: Desk, mailer: Mailer) -> None:
        self._desk = desk
        self._mailer = mailer

    async def wait(self, *, seconds: float) -> None:
        """Return when a mail was queued in this process, or after so many seconds."""
        try:
            await asyncio.wait_for(self._desk.mail_waits.wait(), seconds)
        except TimeoutError:
            return
        self._desk.mail_waits.clear()

    async def deliver_due(self, *, now: datetime) -> int:
        """Send what is due; return how many were handled, at most ``BATCH``."""
        async with self._desk.database.snapshot() as transaction:
            due = await self._desk.repository.mails.list_due(transaction, now=now, limit=BATCH)
        for mail in due:
            try:
                await self._deliver(mail, now)
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - one bad mail must not keep back the others
                await self._note_failure(mail, error, now)
        return len(due)

    async def _deliver(self, mail: Mail, now: datetime) -> None:
        async with self._desk.database.transaction() as transaction:
            message = await self._write(transaction, mail, now)
            if message is None:
                await self._desk.repository.mails.close_mail(
                    transaction, mail.id, outcome="dropped", now=now
                )
        if message is None:
            return
        try:
            async with asyncio.timeout(SECONDS_MAX):
                await self._mailer.send(message)
        except (MailError, TimeoutError) as error:
            await self._note_failure(mail, error, now)
            return
        async with self._desk.database.transaction() as transaction:
            await self._desk.repository.mails.close_mail(
                transaction, mail.id, outcome="sent", now=now
            )
        log.info("mail_sent", mail_id=mail.id, kind=mail.kind.value)

    async def _note_failure(self, mail: Mail, error: Exception, now: datetime) -> None:
        is_final = isinstance(error, MailError) and error.is_final
        until = None if is_final else mail.next_try(now)
        log.warning(
            "mail_not_sent",
            mail_id=mail.id,
            kind=mail.kind.value,
            attempts=mail.attempts + 1,
            reason=f"{type(error).__name__}: {error}"[:200],
            gives_up=until is None,
        )
        async with self._desk.database.transaction() as transaction:
            if until is None:
                await self._desk.repository.mails.close_mail(
                    transaction, mail.id, outcome="failed", now=now
                )
                await self._desk.audit(
                    transaction,
                    "mail_send",
                    outcome="failed",
                    caller=_SENDER,
                    now=now,
                    about=f"mail:{mail.id}",
                    detail=f"{mail.kind.value} after {mail.attempts + 1} attempts",
                )
            else:
                await self._desk.repository.mails.put_off(transaction, mail.id, until=until)

    async def remove_old(self, *, now: datetime) -> None:
        """Forget mails and tickets of long ago."""
        async with self._desk.database.transaction() as transaction:
            await self._desk.repository.mails.remove_done(transaction, before=now - _KEPT)
            await self._desk.repository.tickets.remove_expired(transaction, before=now - _KEPT)

    async def _write(self, transaction: Transaction, mail: Mail, now: datetime) -> Message | None:
        """Write a mail, making the ticket it carries; None where it is not to be sent."""
        site = self._desk.policy.site
        if mail.kind not in ASKED_FOR:
            return compose(mail, site=site)
        folded = fold_email(mail.recipient)
        user = await self._desk.repository.users.find_user_by_email(transaction, folded)
        if user is None or not user.is_active or mail.is_useless(now):
            return None
        if mail.kind is MailKind.EMAIL_VERIFY and user.email_verified_at is not None:
            return None
        if mail.attempts == 0:
            toll = self._desk.policy.throttle.mail_toll(folded_email=folded)
            if await self._desk.repository.throttles.take(transaction, toll, now=now):
                log.info("mail_withheld", mail_id=mail.id, kind=mail.kind.value)
                return None
        purpose = _PURPOSES.get(mail.kind)
        if purpose is None:
            return compose(mail, site=site)
        token = await self._desk.make_ticket(
            transaction, purpose, user_id=user.id, data=folded, now=now
        )
        return compose(mail, site=site, token=token)
