"""What every use case of auth works with, and the steps that several of them take."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trading_api.kernel.ids import IdSource
from trading_api.modules.auth.domain import (
    Device,
    LoginThrottle,
    PasswordRules,
    Session,
    SessionRules,
    User,
    access_claims,
    fold_email,
    hash_token,
)
from trading_api.modules.auth.domain.api_keys import grantable_scopes
from trading_api.modules.auth.domain.audit import AuditEntry, Caller, hash_state
from trading_api.modules.auth.errors import UserNotFoundError
from trading_api.modules.auth.ports import PasswordHasher, RevocationAnnouncer, TokenSigner
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
    """

    issuer: str
    token_lifetime_max: timedelta
    sessions: SessionRules
    passwords: PasswordRules
    throttle: LoginThrottle
    admin_email: str


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
    """

    database: Database
    repository: AuthRepository
    outbox: Outbox
    ids: IdSource
    hasher: PasswordHasher
    signer: TokenSigner
    announcer: RevocationAnnouncer
    policy: AuthPolicy
    random_bytes: Callable[[int], bytes]

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
