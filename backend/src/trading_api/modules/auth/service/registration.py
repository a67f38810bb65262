"""How somebody becomes a user, and how an address is confirmed."""

from dataclasses import replace
from datetime import datetime

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import Device, EmailAddress, Role, User, hash_token
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.tickets import Purpose, is_ticket
from trading_api.modules.auth.errors import (
    CredentialsInvalidError,
    EmailTakenError,
    MailTokenInvalidError,
)
from trading_api.modules.auth.service.credentials import LINK_REFUSED, Credentials
from trading_api.modules.auth.service.desk import Desk, found
from trading_api.runtime.database import Transaction


class RegistrationService:
    """Makes users and confirms their addresses."""

    def __init__(self, desk: Desk, credentials: Credentials) -> None:
        self._desk = desk
        self._credentials = credentials

    async def register(
        self,
        *,
        email: EmailAddress,
        password: str,
        full_name: str,
        caller: Caller,
        now: datetime,
        roles: frozenset[Role] = frozenset({Role.USER}),
    ) -> User:
        """Make a user who may sign in at once and publish ``auth.user.registered``.

        Raises:
            PasswordRefusedError: the password breaks a rule.
            EmailTakenError: a user has that address.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        user = await self._prepare(email, password, full_name, roles, now)
        async with self._desk.database.transaction() as transaction:
            if not await self._desk.repository.users.add_user(transaction, user):
                raise EmailTakenError("a user with this e-mail address exists; log in instead")
            user = await self._desk.activate(transaction, user, now=now)
            await self._audit(transaction, user, caller, "done", now)
        return user

    async def apply(
        self, *, email: EmailAddress, password: str, full_name: str, caller: Caller, now: datetime
    ) -> None:
        """Take a registration that the address's owner has to confirm by mail.

        Whether a user has that address shows neither in the answer nor in the work: the mail tells
        the owner. As long as nobody confirmed it, a newer registration replaces an older one, and
        only the newest one's mail is good.

        Raises:
            PasswordRefusedError: the password breaks a rule.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        user = await self._prepare(email, password, full_name, frozenset({Role.USER}), now)
        users = self._desk.repository.users
        async with self._desk.database.transaction() as transaction:
            kind, outcome = MailKind.EMAIL_VERIFY, "waits"
            if not await users.add_user(transaction, user):
                there = found(await users.find_user_by_email(transaction, email.folded))
                there = found(await users.lock_user(transaction, there.id))
                if there.activated_at is None:
                    await users.update_user(
                        transaction,
                        there.id,
                        password_hash=user.password_hash,
                        full_name=full_name,
                    )
                    await self._desk.repository.tickets.void_tickets(
                        transaction, there.id, Purpose.EMAIL_VERIFY
                    )
                else:
                    kind, outcome = MailKind.EMAIL_TAKEN, "taken"
                user = there
            await self._desk.mail(transaction, kind, email, now=now)
            await self._audit(transaction, user, caller, outcome, now)

    async def ask_for_confirmation(self, *, email: EmailAddress, now: datetime) -> None:
        """Have the mail sent again; whether a user has that address doesn't show."""
        async with self._desk.database.transaction() as transaction:
            await self._desk.mail(transaction, MailKind.EMAIL_VERIFY, email, now=now)

    async def confirm_email(
        self, *, token: str, password: str, device: Device, now: datetime
    ) -> User:
        """Confirm an address with the token of the mail; the user may sign in from then on.

        The mail alone is not enough: a stranger's registration may have caused it, and confirming
        that would let the stranger's password in. Who doesn't know the password sets a new one,
        which confirms the address as well.

        Raises:
            MailTokenInvalidError: unknown, used, expired, or for an address left since.
            CredentialsInvalidError: not the password of the registration; the token stays good.
            LoginThrottledError: too many failures before; the password wasn't looked at.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        if not is_ticket(token):
            raise MailTokenInvalidError(LINK_REFUSED)
        digest, repository = hash_token(token), self._desk.repository
        async with self._desk.database.transaction() as transaction:
            ticket = await repository.tickets.find_ticket(
                transaction, digest, purpose=Purpose.EMAIL_VERIFY, now=now
            )
            seen = None
            if ticket is not None and ticket.user_id is not None:
                seen = await repository.users.find_user(transaction, ticket.user_id)
            if seen is None or ticket is None or seen.email.folded != ticket.data:
                raise MailTokenInvalidError(LINK_REFUSED)
            tolls = await self._credentials.charge(
                transaction, seen, seen.email.folded, device, now
            )
        verification = await self._credentials.verify(password, seen)
        caller = Caller(device.address, seen.id)
        if not verification.is_correct:
            async with self._desk.database.transaction() as transaction:
                await self._desk.audit(
                    transaction,
                    "email_verify",
                    outcome="refused",
                    caller=caller,
                    now=now,
                    about=f"user:{seen.id}",
                )
            raise CredentialsInvalidError(
                "that isn't the password of this registration; reset it where you don't know it"
            )
        async with self._desk.database.transaction() as transaction:
            user = found(await repository.users.lock_user(transaction, seen.id))
            used = await repository.tickets.use_ticket(
                transaction, digest, purpose=Purpose.EMAIL_VERIFY, now=now
            )
            if (
                used is None
                or user.email.folded != used.data
                or user.password_hash != seen.password_hash
            ):
                raise MailTokenInvalidError(LINK_REFUSED)
            await self._credentials.give_back(transaction, tolls)
            await repository.users.update_user(
                transaction, user.id, email_verified_at_us=to_us(now)
            )
            await repository.tickets.void_tickets(transaction, user.id, Purpose.EMAIL_VERIFY)
            confirmed = await self._desk.activate(
                transaction, replace(user, email_verified_at=now), now=now
            )
            await self._desk.audit(
                transaction,
                "email_verify",
                caller=caller,
                now=now,
                about=f"user:{user.id}",
                before=user,
                after=confirmed,
            )
        return confirmed

    async def _prepare(
        self,
        email: EmailAddress,
        password: str,
        full_name: str,
        roles: frozenset[Role],
        now: datetime,
    ) -> User:
        normalized = self._desk.policy.passwords.accept(
            password, about=(email.address, email.address.partition("@")[0], full_name)
        )
        return User(
            id=self._desk.ids.new("usr"),
            email=email,
            full_name=full_name,
            picture=None,
            password_hash=await self._desk.hasher.hash(normalized),
            roles=roles,
            is_active=True,
            created_at=now,
            last_login_at=None,
        )

    async def _audit(
        self, transaction: Transaction, user: User, caller: Caller, outcome: str, now: datetime
    ) -> None:
        await self._desk.audit(
            transaction,
            "user_register",
            outcome=outcome,
            caller=replace(caller, user_id=user.id if outcome == "done" else None),
            now=now,
            about=f"user:{user.id}",
            detail=",".join(sorted(user.roles)),
            after=user if outcome != "taken" else None,
        )
