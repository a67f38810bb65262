"""Keeping sessions alive and ending them."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakValueDictionary

from trading_api.contracts.auth import RevocationNotice, RevokedSession
from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import (
    Device,
    Refused,
    Rotation,
    Session,
    hash_token,
    judge_refresh,
    new_refresh_token,
    seal_child,
    unseal_child,
)
from trading_api.modules.auth.domain.audit import Caller
from trading_api.modules.auth.domain.mail import MailKind
from trading_api.modules.auth.domain.sessions import EXPIRED, TOKEN_BYTES, is_refresh_token
from trading_api.modules.auth.errors import (
    RefreshTokenExpiredError,
    RefreshTokenInvalidError,
    RefreshTokenReusedError,
    SessionEndedError,
    SessionNotFoundError,
)
from trading_api.modules.auth.service.desk import Desk, SignIn
from trading_api.runtime.database import Transaction

REVOCATIONS_MAX = 10_000
"""Ended sessions in one answer; a caller that is further behind asks again."""

_LATE_COMMITS = timedelta(seconds=30)
"""A transaction commits at most so long after the instant it wrote."""

_KEPT_AFTER_END = timedelta(days=30)
"""How long an ended session stays to be looked up, and its spent tokens to be recognised."""

_ACTIONS = {
    Refused.REUSED: "refresh_reuse",
    Refused.OTHER_DEVICE: "refresh_other_device",
    Refused.EXPIRED: "refresh_expired",
}
"""What the audit calls a refused refresh; one of a session that ended before isn't audited."""


class SessionService:
    """Refreshes, lists and ends sessions."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

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
        child = new_refresh_token(self._desk.random_bytes(TOKEN_BYTES))
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
        async with turn, self._desk.database.transaction() as transaction:
            session = await self._desk.repository.sessions.rotate(
                transaction,
                rotation,
                idle=self._desk.policy.sessions.idle,
                address=device.address,
            )
            is_rotated = session is not None
            if session is None:
                session, refused = await self._judge(transaction, rotation, device)
                if refused is None and session is not None and session.sealed_leaf is not None:
                    child = unseal_child(parent=refresh_token, sealed=session.sealed_leaf)
            user = (
                None
                if session is None
                else await self._desk.repository.users.find_user(transaction, session.user_id)
            )
            if session is not None and is_rotated:
                await self._desk.audit(
                    transaction,
                    "refresh",
                    caller=Caller(device.address, session.user_id, session.id),
                    now=now,
                    about=f"session:{session.id}",
                    after=session,
                )
        if refused is not None or session is None or user is None:
            raise _refusal(refused or Refused.UNKNOWN)
        return self._desk.hand_out(user, session, child, now)

    async def log_out(self, *, refresh_token: str | None, caller: Caller, now: datetime) -> None:
        """End the session of the access token, and that of the refresh token; idempotent.

        A token that is unknown or spent ends nothing more and is no error.
        """
        async with self._desk.database.transaction() as transaction:
            ends: set[tuple[str, str]] = set()
            if caller.user_id and caller.session_id:
                ends.add((caller.user_id, caller.session_id))
            if refresh_token is not None and is_refresh_token(refresh_token):
                found = await self._desk.repository.sessions.find_session_of_token(
                    transaction, hash_token(refresh_token)
                )
                if found is not None:
                    ends.add((found.user_id, found.id))
            ended: list[str] = []
            for owner_id, each in sorted(ends):
                ended += await self._desk.end_sessions(
                    transaction, owner_id, each, "logout", now=now
                )
            if ended:
                await self._desk.audit(
                    transaction,
                    "logout",
                    caller=Caller(caller.address, *min(ends)),
                    now=now,
                    about=f"session:{ended[0]}",
                    detail=",".join(ended),
                )

    async def log_out_everywhere(self, *, user_id: str, caller: Caller, now: datetime) -> int:
        """End every session of a user; return how many there were."""
        async with self._desk.database.transaction() as transaction:
            revoked = await self._desk.end_sessions(
                transaction, user_id, None, "logout_all", now=now
            )
            if revoked:
                await self._desk.audit(
                    transaction,
                    "logout_all",
                    caller=caller,
                    now=now,
                    about=f"user:{user_id}",
                    detail=f"{len(revoked)} sessions",
                )
        return len(revoked)

    async def list_sessions(self, *, user_id: str, now: datetime) -> list[Session]:
        """Return a user's live sessions, newest use first."""
        async with self._desk.database.snapshot() as transaction:
            return await self._desk.repository.sessions.list_live_sessions(
                transaction, user_id, now=now
            )

    async def end_session(
        self, *, user_id: str, session_id: str, caller: Caller, now: datetime
    ) -> None:
        """End one session of a user.

        Raises:
            SessionNotFoundError: this user has no such live session.
        """
        async with self._desk.database.transaction() as transaction:
            revoked = await self._desk.end_sessions(
                transaction, user_id, session_id, "revoked", now=now
            )
            if revoked:
                await self._desk.audit(
                    transaction,
                    "session_end",
                    caller=caller,
                    now=now,
                    about=f"session:{session_id}",
                )
        if not revoked:
            raise SessionNotFoundError("there is no such session; see GET /api/v1/auth/sessions")

    async def list_revocations(self, *, since_us: int, now: datetime) -> RevocationNotice:
        """Return which sessions ended, for processes that may have missed the announcement.

        Args:
            since_us: ``as_of_us`` of the caller's last notice; 0 for all that still matter.
        """
        relevant_us = to_us(now - self._desk.revocation_lifetime())
        start_us = max(since_us - _LATE_COMMITS // timedelta(microseconds=1), relevant_us)
        async with self._desk.database.snapshot() as transaction:
            latest_us = await self._latest_us(transaction)
            rows = await self._list_revoked(transaction, since_us=start_us)
        lifetime_seconds = int(self._desk.revocation_lifetime().total_seconds())
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
        async with self._desk.database.snapshot() as transaction:
            latest_us = await self._latest_us(transaction)
        return RevocationNotice(as_of_us=to_us(now), latest_at_us=latest_us, revoked=())

    async def _latest_us(self, transaction: Transaction) -> int:
        repository = self._desk.repository
        return max(
            await repository.sessions.get_latest_revocation_us(transaction),
            await repository.api_keys.get_latest_revocation_us(transaction),
        )

    async def _list_revoked(
        self, transaction: Transaction, *, since_us: int
    ) -> list[tuple[str, int]]:
        """Return ended sessions and revoked keys, oldest first."""
        repository = self._desk.repository
        limits = {"since_us": since_us, "limit": REVOCATIONS_MAX}
        rows = await repository.sessions.list_revoked(transaction, **limits)
        rows += await repository.api_keys.list_revoked(transaction, **limits)
        return sorted(rows, key=lambda row: (row[1], row[0]))[:REVOCATIONS_MAX]

    def public_keys(self) -> Mapping[str, Any]:
        """Return the key set that verifies access tokens (RFC 7517)."""
        return self._desk.signer.public_keys()

    async def remove_dead(self, *, now: datetime, limit: int = 500) -> int:
        """Remove sessions that ended long ago; return how many, at most ``limit``."""
        async with self._desk.database.transaction() as transaction:
            await self._desk.repository.throttles.remove_paid(transaction, now=now)
            return await self._desk.repository.sessions.remove_dead(
                transaction, ended_before=now - _KEPT_AFTER_END, limit=limit
            )

    async def _judge(
        self, transaction: Transaction, rotation: Rotation, device: Device
    ) -> tuple[Session | None, Refused | None]:
        session = await self._desk.repository.sessions.find_session_of_token(
            transaction, rotation.presented_hash
        )
        refused = judge_refresh(
            session,
            presented_hash=rotation.presented_hash,
            device_fingerprint=rotation.device_fingerprint,
            now=rotation.now,
            grace=self._desk.policy.sessions.grace,
        )
        if session is None or refused is None:
            return session, refused
        if refused is Refused.REUSED:
            revoked = await self._desk.repository.sessions.revoke_sessions(
                transaction,
                user_id=session.user_id,
                session_id=session.id,
                reason="refresh_reuse",
                now=rotation.now,
            )
            self._desk.announce_after(transaction, revoked, rotation.now)
            user = await self._desk.repository.users.find_user(transaction, session.user_id)
            if user is not None:
                await self._desk.mail(
                    transaction,
                    MailKind.REFRESH_REUSED,
                    user,
                    now=rotation.now,
                    device=device,
                )
        if refused is Refused.EXPIRED and session.revoked_at is None:
            await self._desk.repository.sessions.revoke_sessions(
                transaction,
                user_id=session.user_id,
                session_id=session.id,
                reason=EXPIRED,
                now=rotation.now,
            )
        if refused in _ACTIONS and session.revoked_at is None:
            await self._desk.audit(
                transaction,
                _ACTIONS[refused],
                outcome="refused",
                caller=Caller(device.address, session.user_id, session.id),
                now=rotation.now,
                about=f"session:{session.id}",
            )
        return session, refused


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
