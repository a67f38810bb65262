"""What every use case of auth works with, and the steps that several of them take."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from trading_api.contracts.auth import UserRegistered
from trading_api.kernel.clock import to_us
from trading_api.kernel.ids import IdSource
from trading_api.modules.auth.domain import (
    Device,
    EmailAddress,
    LoginThrottle,
    PasswordRules,
    Role,
    Session,
    SessionRules,
    User,
    access_claims,
    fold_email,
    hash_token,
    new_refresh_token,
)
from trading_api.modules.auth.domain.api_keys import grantable_scopes
from trading_api.modules.auth.domain.audit import AuditEntry, Caller, hash_state
from trading_api.modules.auth.domain.mail import Mail, MailKind
from trading_api.modules.auth.domain.sessions import TOKEN_BYTES
from trading_api.modules.auth.domain.tickets import (
    LIFETIMES,
    TICKET_BYTES,
    Purpose,
    Ticket,
    write_ticket,
)
from trading_api.modules.auth.errors import (
    SessionEndedError,
    UserDisabledError,
    UserNotFoundError,
)
from trading_api.modules.auth.ports import (
    PasswordHasher,
    RevocationAnnouncer,
    Sealer,
    TokenSigner,
)
from trading_api.modules.auth.repository import AuthRepository
from trading_api.runtime import context
from trading_api.runtime.database import Database, Outbox, Transaction


@dataclass(frozen=True, slots=True)
class AuthPolicy:
    """What an operator may decide.

    Attributes:
        admin_email: folded; who registers with it becomes admin while there is none; "" for
            nobody.
        token_lifetime_max: of any access token that processes accept.
        confirms_email: nobody signs in before the address is confirmed.
        name: the platform's, as authenticators show it.
        site: the platform's address for people; links in mails lead there, passkeys belong to it.
    """

    issuer: str
    token_lifetime_max: timedelta
    sessions: SessionRules
    passwords: PasswordRules
    throttle: LoginThrottle
    admin_email: str
    confirms_email: bool
    site: str
    name: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """The password was right; a code is needed before anything is handed out.

    Attributes:
        token: shown once; good on the same device, for a few attempts.
    """

    token: str
    expires_in_seconds: int


@dataclass(frozen=True, slots=True)
class SignIn:
    """What a sign-in or refresh hands out.

    Attributes:
        refresh_token: shown once; only its hash is stored.
    """

    user: User
    session: Session
    access_token: str
    expires_in_seconds: int
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts that use cases share; one for the process.

    Its methods are steps within the caller's transaction.

    Attributes:
        random_bytes: source of secrets, such as ``os.urandom``.
        mail_waits: set whenever a mail was queued here.
    """

    database: Database
    repository: AuthRepository
    outbox: Outbox
    ids: IdSource
    hasher: PasswordHasher
    signer: TokenSigner
    announcer: RevocationAnnouncer
    sealer: Sealer
    policy: AuthPolicy
    random_bytes: Callable[[int], bytes]
    mail_waits: asyncio.Event = field(default_factory=asyncio.Event)

    def new_session(self, user: User, device: Device, token: str, now: datetime) -> Session:
        """Return a session that begins now; the caller stores it."""
        rules = self.policy.sessions
        return Session(
            id=self.ids.new("ses"),
            user_id=user.id,
            device_fingerprint=device.fingerprint,
            user_agent=device.user_agent,
            address=device.address,
            created_at=now,
            last_used_at=now,
            expires_at=now + rules.lifetime,
            idle_expires_at=now + min(rules.idle, rules.lifetime),
            leaf_hash=hash_token(token),
            parent_hash=None,
            parent_rotated_at=None,
            sealed_leaf=None,
            revoked_at=None,
            revoked_reason=None,
        )

    async def open_session(
        self,
        transaction: Transaction,
        user: User,
        device: Device,
        *,
        method: str,
        now: datetime,
        action: str = "login",
        password_hash: str | None = None,
    ) -> SignIn:
        """Sign a user in on a device; the last step of a transaction, since it audits.

        The owner is told by mail when the account is signed in to on a device never seen before.

        Args:
            user: active and locked.
            method: how they proved it, for the audit: ``password``, ``passkey``…
            action: what the audit calls this.
            password_hash: a better hash of the same password; None where the stored one is fine.
        """
        sessions, token = (
            self.repository.sessions,
            new_refresh_token(self.random_bytes(TOKEN_BYTES)),
        )
        if user.last_login_at is not None and not await sessions.has_device(
            transaction, user.id, device.fingerprint
        ):
            await self.mail(transaction, MailKind.NEW_DEVICE, user, now=now, device=device)
        changes: dict[str, Any] = {"last_login_at_us": to_us(now)}
        if password_hash is not None:
            changes["password_hash"] = password_hash
        await self.repository.users.update_user(transaction, user.id, **changes)
        session = self.new_session(user, device, token, now)
        await sessions.add_session(transaction, session)
        await self.audit(
            transaction,
            action,
            caller=Caller(device.address, user.id, session.id),
            now=now,
            about=f"session:{session.id}",
            detail=method,
            after=session,
        )
        return self.hand_out(replace(user, last_login_at=now), session, token, now)

    async def activate(self, transaction: Transaction, user: User, *, now: datetime) -> User:
        """Let a user sign in from now on, and tell the other modules (``auth.user.registered``).

        Returns:
            The user as stored now; unchanged where it was active already.
        """
        if user.activated_at is not None:
            return user
        roles = user.roles
        if (
            self.policy.admin_email == user.email.folded
            and not await self.repository.users.has_admin(transaction)
        ):
            roles = roles | {Role.ADMIN}
        await self.repository.users.update_user(
            transaction, user.id, activated_at_us=to_us(now), roles=roles
        )
        await self.outbox.add(
            transaction,
            UserRegistered(user_id=user.id, email=user.email.address, full_name=user.full_name),
            key=user.id,
            key_sequence=1,
            occurred_at=now,
        )
        return replace(user, activated_at=now, roles=roles)

    async def make_ticket(
        self,
        transaction: Transaction,
        purpose: Purpose,
        *,
        user_id: str | None,
        data: str,
        now: datetime,
    ) -> str:
        """Store a ticket and return its token, which nobody else will ever know."""
        token = write_ticket(self.random_bytes(TICKET_BYTES))
        await self.repository.tickets.add_ticket(
            transaction,
            Ticket(hash_token(token), purpose, user_id, data, now, now + LIFETIMES[purpose]),
        )
        return token

    async def mail(
        self,
        transaction: Transaction,
        kind: MailKind,
        to: User | EmailAddress,
        *,
        now: datetime,
        device: Device | None = None,
        **data: str,
    ) -> None:
        """Queue a mail; it is sent after the commit, by whoever holds the lease.

        Args:
            to: a user, or an address of which nobody has looked up yet whether a user has it.
            device: what the mail tells of it.
        """
        words = {"at": f"{now:%Y-%m-%d %H:%M} UTC", **data}
        if device is not None:
            words |= {"address": device.address, "device": device.user_agent}
        recipient = to.email.address if isinstance(to, User) else to.address
        await self.repository.mails.add_mail(
            transaction, Mail(self.ids.new("mail"), kind, recipient, words, now)
        )
        transaction.after_commit(self.mail_waits.set)

    async def end_sessions(
        self,
        transaction: Transaction,
        user_id: str,
        session_id: str | None,
        reason: str,
        *,
        now: datetime,
    ) -> list[str]:
        """End one session of a user, or all; return the ids of those that lived.

        Announced after the commit; the caller audits what it was asked for.
        """
        revoked = await self.repository.sessions.revoke_sessions(
            transaction, user_id=user_id, session_id=session_id, reason=reason, now=now
        )
        self.announce_after(transaction, revoked, now)
        return revoked

    async def revoke_keys(
        self,
        transaction: Transaction,
        user_id: str,
        key_ids: Collection[str],
        *,
        reason: str,
        now: datetime,
    ) -> list[str]:
        """Revoke API keys and share tokens; return the ids of those that lived.

        Announced after the commit as ended sessions are.
        """
        revoked = await self.repository.api_keys.revoke_keys(
            transaction, user_id=user_id, key_ids=key_ids, reason=reason, now=now
        )
        self.announce_after(transaction, revoked, now)
        return revoked

    async def revoke_excessive_keys(
        self, transaction: Transaction, user: User, *, reason: str, now: datetime
    ) -> list[str]:
        """Revoke a user's keys that may more than the user may now; all of one switched off."""
        live = await self.repository.api_keys.list_live_keys(
            transaction, user.id, kinds=("live", "share"), now=now
        )
        allowed = grantable_scopes(user) if user.is_active else frozenset()
        excessive = [each.id for each in live if not each.scopes <= allowed]
        return await self.revoke_keys(transaction, user.id, excessive, reason=reason, now=now)

    async def free_account(self, transaction: Transaction, user: User) -> None:
        """Forget every failed password for an account, from strange devices and known ones."""
        key = self.policy.throttle.account_key(user.email.folded)
        await self.repository.throttles.clear(transaction, key)

    async def lock_acting(self, transaction: Transaction, caller: Caller, now: datetime) -> User:
        """Return the user who asks, whose row nobody else changes before the commit.

        For what outlives a session: an access token is good for seconds after its session ended,
        but makes nothing lasting any more.

        Raises:
            UserDisabledError: the user was switched off.
            SessionEndedError: the caller's session was ended.
        """
        assert caller.user_id is not None
        user = found(await self.repository.users.lock_user(transaction, caller.user_id))
        if not user.is_active:
            raise UserDisabledError("this user was disabled; ask an operator")
        live = await self.repository.sessions.list_live_sessions(transaction, user.id, now=now)
        if caller.session_id is not None and caller.session_id not in {each.id for each in live}:
            raise SessionEndedError("this session was ended; log in again")
        return user

    async def lock_by_email(self, transaction: Transaction, email: str) -> User:
        """Return a user by address whose row nobody else changes before the commit.

        Raises:
            UserNotFoundError: there is none.
        """
        user = found(await self.repository.users.find_user_by_email(transaction, fold_email(email)))
        return found(await self.repository.users.lock_user(transaction, user.id))

    async def audit(
        self,
        transaction: Transaction,
        action: str,
        *,
        caller: Caller,
        now: datetime,
        outcome: str = "done",
        about: str | None = None,
        detail: str = "",
        before: Any = None,
        after: Any = None,
    ) -> None:
        """Append one row about this request to the audit; the last step of a transaction.

        Args:
            about: what it was done to, ``<kind>:<id>``.
            before: that thing as it was, a dataclass or mapping; only its digest is kept.
            after: that thing as it is now.
        """
        await self.repository.audit.append(
            transaction,
            AuditEntry(
                occurred_at=now,
                caller=caller,
                action=action,
                outcome=outcome,
                about=about,
                detail=detail,
                before_hash=hash_state(before),
                after_hash=hash_state(after),
                request_id=context.request_id.get(),
            ),
        )

    def announce_after(
        self, transaction: Transaction, session_ids: list[str], now: datetime
    ) -> None:
        """Tell every process after the commit that these sessions ended."""
        if session_ids:
            until = now + self.revocation_lifetime()
            transaction.after_commit(
                lambda: self.announcer.announce(session_ids, revoked_at=now, until=until)
            )

    def hand_out(self, user: User, session: Session, refresh_token: str, now: datetime) -> SignIn:
        """Return what a sign-in or refresh hands out, with a new access token."""
        lifetime_seconds = int(self.policy.sessions.access_lifetime.total_seconds())
        return SignIn(
            user=user,
            session=session,
            access_token=self.access_token(user, session, now, lifetime_seconds),
            expires_in_seconds=lifetime_seconds,
            refresh_token=refresh_token,
        )

    def access_token(
        self, user: User, session: Session, now: datetime, lifetime_seconds: int
    ) -> str:
        """Sign an access token of a session."""
        return self.signer.sign(
            access_claims(
                user,
                session_id=session.id,
                token_id=self.ids.new("jti"),
                issuer=self.policy.issuer,
                now=now,
                lifetime_seconds=lifetime_seconds,
            )
        )

    def revocation_lifetime(self) -> timedelta:
        """How long an ended session's access tokens could still be presented."""
        return self.policy.token_lifetime_max + timedelta(minutes=1)


def found(user: User | None) -> User:
    """Return the user, or raise ``UserNotFoundError``."""
    if user is None:
        raise UserNotFoundError("there is no such user")
    return user
