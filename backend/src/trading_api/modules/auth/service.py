"""Use cases of auth: registering, signing in and out, keeping sessions alive."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from trading_api.contracts.auth import RevocationNotice, RevokedSession, UserRegistered
from trading_api.kernel.clock import to_us
from trading_api.kernel.ids import IdSource
from trading_api.modules.auth.domain import (
    Device,
    EmailAddress,
    LoginThrottle,
    PasswordRules,
    Refused,
    Role,
    Rotation,
    Session,
    SessionRules,
    Toll,
    User,
    access_claims,
    fold_email,
    hash_token,
    judge_refresh,
    new_refresh_token,
    normalize_password,
    seal_child,
    unseal_child,
)
from trading_api.modules.auth.domain.passwords import LENGTH_MAX
from trading_api.modules.auth.domain.sessions import TOKEN_BYTES, is_refresh_token
from trading_api.modules.auth.errors import (
    CredentialsInvalidError,
    EmailTakenError,
    LoginThrottledError,
    RefreshTokenExpiredError,
    RefreshTokenInvalidError,
    RefreshTokenReusedError,
    SessionEndedError,
    SessionNotFoundError,
    UserDisabledError,
    UserNotFoundError,
)
from trading_api.modules.auth.ports import (
    PasswordHasher,
    RevocationAnnouncer,
    TokenSigner,
    Verification,
)
from trading_api.modules.auth.repository import AuthRepository
from trading_api.runtime.database import Database, Outbox, Transaction

REVOCATIONS_MAX = 10_000
"""Ended sessions in one answer; a caller that is further behind asks again."""

_LATE_COMMITS = timedelta(seconds=30)
"""A transaction commits at most so long after the instant it wrote."""

_KEPT_AFTER_END = timedelta(days=30)
"""How long an ended session stays to be looked up, and its spent tokens to be recognised."""

_INVALID = "the e-mail address and password don't belong together"


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


class AuthService:
    """Every public method is one use case and one atomic unit.

    Args:
        random_bytes: source of secrets, such as ``os.urandom``.
    """

    def __init__(
        self,
        *,
        database: Database,
        repository: AuthRepository,
        outbox: Outbox,
        ids: IdSource,
        hasher: PasswordHasher,
        signer: TokenSigner,
        announcer: RevocationAnnouncer,
        policy: AuthPolicy,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._repository = repository
        self._outbox = outbox
        self._ids = ids
        self._hasher = hasher
        self._signer = signer
        self._announcer = announcer
        self._policy = policy
        self._random_bytes = random_bytes
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def policy(self) -> AuthPolicy:
        """What the operator decided."""
        return self._policy

    async def register(
        self,
        *,
        email: EmailAddress,
        password: str,
        full_name: str,
        address: str,
        now: datetime,
        roles: frozenset[Role] = frozenset({Role.USER}),
    ) -> User:
        """Make a user and publish ``auth.user.registered``.

        Raises:
            PasswordRefusedError: the password breaks a rule.
            EmailTakenError: a user has that address.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        normalized = self._policy.passwords.accept(
            password, about=(email.address, email.address.partition("@")[0], full_name)
        )
        password_hash = await self._hasher.hash(normalized)
        user = User(
            id=self._ids.new("usr"),
            email=email,
            full_name=full_name,
            picture=None,
            password_hash=password_hash,
            roles=roles,
            is_active=True,
            created_at=now,
            last_login_at=None,
        )
        async with self._database.transaction() as transaction:
            if await self._becomes_admin(transaction, email):
                user = replace(user, roles=roles | {Role.ADMIN})
            if not await self._repository.add_user(transaction, user):
                raise EmailTakenError("a user with this e-mail address exists; log in instead")
            await self._outbox.add(
                transaction,
                UserRegistered(user_id=user.id, email=email.address, full_name=full_name),
                key=user.id,
                key_sequence=1,
                occurred_at=now,
            )
            await self._repository.add_audit(
                transaction,
                action="user_register",
                outcome="done",
                now=now,
                address=address,
                actor_id=user.id,
                about=",".join(sorted(user.roles)),
            )
        return user

    async def log_in(self, *, email: str, password: str, device: Device, now: datetime) -> SignIn:
        """Sign a user in with a password, opening a session on that device.

        Unknown user and wrong password take the same steps and time and give the same answer.

        Raises:
            CredentialsInvalidError: they don't belong together.
            UserDisabledError: they do, but the user is switched off.
            LoginThrottledError: too many failures before; the password wasn't looked at.
            PasswordPoolBusyError: too many sign-ins wait.
        """
        folded = fold_email(email)
        async with self._database.transaction() as transaction:
            user = await self._repository.find_user_by_email(transaction, folded)
            tolls = await self._charge(transaction, user, folded, device, now)
        verification = await self._verify(password, user)
        async with self._database.transaction() as transaction:
            if user is None or not verification.is_correct:
                await self._repository.add_audit(
                    transaction,
                    action="login",
                    outcome="refused",
                    now=now,
                    address=device.address,
                    actor_id=None if user is None else user.id,
                )
                signed_in = None
            else:
                signed_in = await self._open_session(
                    transaction, user, verification, tolls, device, now
                )
        if signed_in is None:
            if user is not None and verification.is_correct and not user.is_active:
                raise UserDisabledError("this user was disabled; ask an operator")
            raise CredentialsInvalidError(_INVALID)
        return signed_in

    async def refresh(self, *, refresh_token: str, device: Device, now: datetime) -> SignIn:
        """Exchange a refresh token for a new pair.

        The token's own repeat, from the same device and within the grace, gets the same child;
        any other reuse ends the session.

        Raises:
            RefreshTokenInvalidError: never issued, or to another device.
            RefreshTokenExpiredError: the session's idle or absolute end has come.
            RefreshTokenReusedError: used before; the session is ended now.
            SessionEndedError: the session was ended before.
        """
        if not is_refresh_token(refresh_token):
            raise RefreshTokenInvalidError("this refresh token is not accepted; log in again")
        child = new_refresh_token(self._random_bytes(TOKEN_BYTES))
        rotation = Rotation(
            presented_hash=hash_token(refresh_token),
            device_fingerprint=device.fingerprint,
            child_hash=hash_token(child),
            sealed_child=seal_child(parent=refresh_token, child=child),
            now=now,
        )
        refused: Refused | None = None
        # Repeats of one token wait here, not each with a connection for the row's lock.
        turn = self._turns.setdefault(rotation.presented_hash, asyncio.Lock())
        async with turn, self._database.transaction() as transaction:
            session = await self._repository.rotate(
                transaction,
                rotation,
                idle=self._policy.sessions.idle,
                address=device.address,
            )
            if session is None:
                session, refused = await self._judge(transaction, rotation, device)
                if refused is None and session is not None and session.sealed_leaf is not None:
                    child = unseal_child(parent=refresh_token, sealed=session.sealed_leaf)
            user = (
                None
                if session is None
                else await self._repository.find_user(transaction, session.user_id)
            )
        if refused is not None or session is None or user is None:
            raise _refusal(refused or Refused.UNKNOWN)
        return self._sign_in(user, session, child, now)

    async def log_out(
        self,
        *,
        user_id: str | None,
        session_id: str | None,
        refresh_token: str | None,
        address: str,
        now: datetime,
    ) -> None:
        """End the session of the access token, and that of the refresh token; idempotent.

        A token that is unknown or spent ends nothing more and is no error.
        """
        async with self._database.transaction() as transaction:
            ends: set[tuple[str, str]] = set()
            if user_id and session_id:
                ends.add((user_id, session_id))
            if refresh_token is not None and is_refresh_token(refresh_token):
                found = await self._repository.find_session_of_token(
                    transaction, hash_token(refresh_token)
                )
                if found is not None:
                    ends.add((found.user_id, found.id))
            for owner_id, each in sorted(ends):
                await self._end(transaction, owner_id, each, "logout", address=address, now=now)

    async def log_out_everywhere(
        self, *, user_id: str, session_id: str, address: str, now: datetime
    ) -> int:
        """End every session of a user; return how many there were."""
        async with self._database.transaction() as transaction:
            revoked = await self._end(
                transaction, user_id, None, "logout_all", address=address, now=now
            )
        return len(revoked)

    async def get_user(self, *, user_id: str) -> User:
        """Return a user.

        Raises:
            UserNotFoundError: there is none.
        """
        async with self._database.snapshot() as transaction:
            return _found(await self._repository.find_user(transaction, user_id))

    async def update_profile(
        self, *, user_id: str, changes: dict[str, str | None], address: str, now: datetime
    ) -> User:
        """Set ``full_name`` or ``picture`` of a user; absent names stay as they are.

        Raises:
            UserNotFoundError: there is none.
        """
        assert changes.keys() <= {"full_name", "picture"}
        async with self._database.transaction() as transaction:
            user = _found(await self._repository.lock_user(transaction, user_id))
            if changes:
                await self._repository.update_user(transaction, user_id, **changes)
                await self._repository.add_audit(
                    transaction,
                    action="profile_update",
                    outcome="done",
                    now=now,
                    address=address,
                    actor_id=user_id,
                    about=",".join(sorted(changes)),
                )
        return replace(user, **changes)  # type: ignore[arg-type]

    async def list_sessions(self, *, user_id: str, now: datetime) -> list[Session]:
        """Return a user's live sessions, newest use first."""
        async with self._database.snapshot() as transaction:
            return await self._repository.list_live_sessions(transaction, user_id, now=now)

    async def end_session(
        self, *, user_id: str, session_id: str, address: str, now: datetime
    ) -> None:
        """End one session of a user.

        Raises:
            SessionNotFoundError: this user has no such live session.
        """
        async with self._database.transaction() as transaction:
            revoked = await self._end(
                transaction, user_id, session_id, "revoked", address=address, now=now
            )
        if not revoked:
            raise SessionNotFoundError("there is no such session; see GET /api/v1/auth/sessions")

    async def list_revocations(self, *, since_us: int, now: datetime) -> RevocationNotice:
        """Return which sessions ended, for processes that may have missed the announcement.

        Args:
            since_us: ``as_of_us`` of the caller's last notice; 0 for all that still matter.
        """
        relevant_us = to_us(now - self._revocation_lifetime())
        start_us = max(since_us - _LATE_COMMITS // timedelta(microseconds=1), relevant_us)
        async with self._database.snapshot() as transaction:
            latest_us = await self._repository.get_latest_revocation_us(transaction)
            rows = await self._repository.list_revoked(
                transaction, since_us=start_us, limit=REVOCATIONS_MAX
            )
        lifetime_seconds = int(self._revocation_lifetime().total_seconds())
        is_complete = len(rows) < REVOCATIONS_MAX
        return RevocationNotice(
            as_of_us=to_us(now) if is_complete else rows[-1][1],
            latest_at_us=latest_us if is_complete else rows[-1][1],
            revoked=tuple(
                RevokedSession(
                    session_id=session_id,
                    until_seconds=at_us // 1_000_000 + lifetime_seconds + 1,
                )
                for session_id, at_us in rows
            ),
        )

    async def get_revocation_beat(self, *, now: datetime) -> RevocationNotice:
        """Return when the last session ended; whoever hears it knows whether it missed one."""
        async with self._database.snapshot() as transaction:
            latest_us = await self._repository.get_latest_revocation_us(transaction)
        return RevocationNotice(as_of_us=to_us(now), latest_at_us=latest_us, revoked=())

    def public_keys(self) -> Mapping[str, Any]:
        """Return the key set that verifies access tokens (RFC 7517)."""
        return self._signer.public_keys()

    async def list_users(self, *, limit: int = 1000) -> list[User]:
        """Return users, oldest first."""
        async with self._database.snapshot() as transaction:
            return await self._repository.list_users(transaction, limit=limit)

    async def set_user_active(self, *, email: str, is_active: bool, now: datetime) -> User:
        """Switch a user on or off; off ends every session.

        Raises:
            UserNotFoundError: there is none with that address.
        """
        async with self._database.transaction() as transaction:
            user = await self._lock_by_email(transaction, email)
            await self._repository.update_user(transaction, user.id, is_active=is_active)
            if not is_active:
                await self._end(transaction, user.id, None, "disabled", address="", now=now)
            await self._audit_operator(
                transaction, "user_enable" if is_active else "user_disable", user, now
            )
        return replace(user, is_active=is_active)

    async def set_roles(self, *, email: str, roles: frozenset[Role], now: datetime) -> User:
        """Give a user exactly these roles and end the sessions, whose tokens tell the old ones.

        Raises:
            UserNotFoundError: there is none with that address.
        """
        async with self._database.transaction() as transaction:
            user = await self._lock_by_email(transaction, email)
            await self._repository.update_user(transaction, user.id, roles=roles)
            await self._end(transaction, user.id, None, "roles_changed", address="", now=now)
            await self._audit_operator(
                transaction, f"user_roles:{','.join(sorted(roles))}", user, now
            )
        return replace(user, roles=roles)

    async def issue_token(self, *, email: str, lifetime: timedelta, now: datetime) -> str:
        """Issue an access token to an operator at the host, for work without auth running.

        It belongs to a session of its own, which can be revoked.

        Raises:
            UserNotFoundError: there is none with that address.
            UserDisabledError: the user is switched off.
        """
        device = Device.of(address="", user_agent="users token", hints=(), cookie="")
        token = new_refresh_token(self._random_bytes(TOKEN_BYTES))
        async with self._database.transaction() as transaction:
            user = await self._lock_by_email(transaction, email)
            if not user.is_active:
                raise UserDisabledError("this user was disabled; enable it first")
            session = replace(
                self._new_session(user, device, token, now),
                expires_at=now + lifetime,
                idle_expires_at=now + lifetime,
            )
            await self._repository.add_session(transaction, session)
            await self._audit_operator(transaction, "token_issue", user, now)
        return self._access_token(user, session, now, int(lifetime.total_seconds()))

    async def remove_dead(self, *, now: datetime, limit: int = 500) -> int:
        """Remove sessions that ended long ago; return how many, at most ``limit``."""
        async with self._database.transaction() as transaction:
            return await self._repository.remove_dead(
                transaction, ended_before=now - _KEPT_AFTER_END, now=now, limit=limit
            )

    async def _becomes_admin(self, transaction: Transaction, email: EmailAddress) -> bool:
        return self._policy.admin_email == email.folded and not await self._repository.has_admin(
            transaction
        )

    async def _charge(
        self,
        transaction: Transaction,
        user: User | None,
        folded: str,
        device: Device,
        now: datetime,
    ) -> list[Toll]:
        known = (
            user is not None
            and device.has_cookie
            and await self._repository.has_device(transaction, user.id, device.fingerprint)
        )
        tolls = self._policy.throttle.tolls(
            folded_email=folded,
            address=device.address,
            known_device=device.fingerprint if known else None,
        )
        for toll in tolls:
            wait = await self._repository.take(transaction, toll, now=now)
            if wait:
                raise LoginThrottledError(
                    "too many failed sign-ins; wait, then try again",
                    retry_after_seconds=-(-wait // timedelta(seconds=1)),
                )
        return tolls

    async def _verify(self, password: str, user: User | None) -> Verification:
        normalized = normalize_password(password)
        stored = None if user is None else user.password_hash
        if len(normalized) > LENGTH_MAX:
            # No accepted password is that long; hash something short in its place.
            normalized, stored = "", None
        return await self._hasher.verify(normalized, stored)

    async def _open_session(
        self,
        transaction: Transaction,
        user: User,
        verification: Verification,
        tolls: list[Toll],
        device: Device,
        now: datetime,
    ) -> SignIn | None:
        is_allowed = user.is_active and await self._repository.record_login(
            transaction, user, now=now, password_hash=verification.upgraded_hash
        )
        session, token = None, ""
        if is_allowed:
            token = new_refresh_token(self._random_bytes(TOKEN_BYTES))
            session = self._new_session(user, device, token, now)
            await self._repository.add_session(transaction, session)
            for toll in tolls:
                await self._repository.give_back(transaction, toll)
        await self._repository.add_audit(
            transaction,
            action="login",
            outcome="done" if session is not None else "disabled",
            now=now,
            address=device.address,
            actor_id=user.id,
            session_id=None if session is None else session.id,
        )
        if session is None:
            return None
        return self._sign_in(replace(user, last_login_at=now), session, token, now)

    def _new_session(self, user: User, device: Device, token: str, now: datetime) -> Session:
        rules = self._policy.sessions
        return Session(
            id=self._ids.new("ses"),
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

    async def _judge(
        self, transaction: Transaction, rotation: Rotation, device: Device
    ) -> tuple[Session | None, Refused | None]:
        session = await self._repository.find_session_of_token(transaction, rotation.presented_hash)
        refused = judge_refresh(
            session,
            presented_hash=rotation.presented_hash,
            device_fingerprint=rotation.device_fingerprint,
            now=rotation.now,
            grace=self._policy.sessions.grace,
        )
        if session is None or refused is None:
            return session, refused
        if refused is Refused.REUSED:
            revoked = await self._repository.revoke_sessions(
                transaction,
                user_id=session.user_id,
                session_id=session.id,
                reason="refresh_reuse",
                now=rotation.now,
            )
            self._announce_after(transaction, revoked, rotation.now)
        if refused in (Refused.REUSED, Refused.OTHER_DEVICE):
            await self._repository.add_audit(
                transaction,
                action="refresh_reuse" if refused is Refused.REUSED else "refresh_other_device",
                outcome="refused",
                now=rotation.now,
                address=device.address,
                actor_id=session.user_id,
                session_id=session.id,
            )
        return session, refused

    async def _end(
        self,
        transaction: Transaction,
        user_id: str,
        session_id: str | None,
        reason: str,
        *,
        address: str,
        now: datetime,
    ) -> list[str]:
        revoked = await self._repository.revoke_sessions(
            transaction, user_id=user_id, session_id=session_id, reason=reason, now=now
        )
        self._announce_after(transaction, revoked, now)
        for each in revoked:
            await self._repository.add_audit(
                transaction,
                action="session_end",
                outcome=reason,
                now=now,
                address=address,
                actor_id=user_id,
                session_id=each,
            )
        return revoked

    async def _lock_by_email(self, transaction: Transaction, email: str) -> User:
        found = await self._repository.find_user_by_email(transaction, fold_email(email))
        user = _found(found)
        return _found(await self._repository.lock_user(transaction, user.id))

    async def _audit_operator(
        self, transaction: Transaction, action: str, user: User, now: datetime
    ) -> None:
        await self._repository.add_audit(
            transaction,
            action=action,
            outcome="done",
            now=now,
            address="host",
            actor_id=None,
            about=user.id,
        )

    def _announce_after(
        self, transaction: Transaction, session_ids: list[str], now: datetime
    ) -> None:
        if session_ids:
            until = now + self._revocation_lifetime()
            transaction.after_commit(
                lambda: self._announcer.announce(session_ids, revoked_at=now, until=until)
            )

    def _sign_in(self, user: User, session: Session, refresh_token: str, now: datetime) -> SignIn:
        lifetime_seconds = int(self._policy.sessions.access_lifetime.total_seconds())
        return SignIn(
            user=user,
            session=session,
            access_token=self._access_token(user, session, now, lifetime_seconds),
            expires_in_seconds=lifetime_seconds,
            refresh_token=refresh_token,
        )

    def _access_token(
        self, user: User, session: Session, now: datetime, lifetime_seconds: int
    ) -> str:
        return self._signer.sign(
            access_claims(
                user,
                session_id=session.id,
                token_id=self._ids.new("jti"),
                issuer=self._policy.issuer,
                now=now,
                lifetime_seconds=lifetime_seconds,
            )
        )

    def _revocation_lifetime(self) -> timedelta:
        """How long an ended session's access tokens could still be presented."""
        return self._policy.token_lifetime_max + timedelta(minutes=1)


def _found(user: User | None) -> User:
    if user is None:
        raise UserNotFoundError("there is no such user")
    return user


def _refusal(refused: Refused) -> Exception:
    match refused:
        case Refused.EXPIRED:
            return RefreshTokenExpiredError("this session has expired; log in again")
        case Refused.ENDED:
            return SessionEndedError("this session was ended; log in again")
        case Refused.REUSED:
            return RefreshTokenReusedError(
                "this refresh token was used before, so the session was ended; log in again"
            )
        case _:
            return RefreshTokenInvalidError("this refresh token is not accepted; log in again")
