"""Sessions and their refresh tokens: rows to domain values and back."""

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain import Rotation, Session
from trading_api.modules.auth.repository.rows import MICROSECOND, instant_of
from trading_api.modules.auth.tables import sessions, spent_refresh_tokens
from trading_api.runtime.database import Transaction


class SessionRepository:
    """Reads and writes sessions inside the caller's transaction."""

    async def add_session(self, transaction: Transaction, session: Session) -> None:
        """Insert a session."""
        await transaction.execute(
            sessions.insert(),
            {
                "id": session.id,
                "user_id": session.user_id,
                "device_fingerprint": session.device_fingerprint,
                "user_agent": session.user_agent,
                "address": session.address,
                "created_at_us": to_us(session.created_at),
                "last_used_at_us": to_us(session.last_used_at),
                "expires_at_us": to_us(session.expires_at),
                "idle_expires_at_us": to_us(session.idle_expires_at),
                "leaf_hash": session.leaf_hash,
            },
        )

    async def rotate(
        self, transaction: Transaction, rotation: Rotation, *, idle: timedelta, address: str
    ) -> Session | None:
        """Replace a live leaf by its child, in one statement.

        Returns:
            The session as it is now; None where the token was no live leaf of that device, and
            then nothing changed.
        """
        now_us = to_us(rotation.now)
        idle_end = sa.literal(now_us + idle // MICROSECOND, sa.BigInteger)
        row = (
            await transaction.execute(
                sessions.update()
                .where(
                    sessions.c.leaf_hash == rotation.presented_hash,
                    sessions.c.device_fingerprint == rotation.device_fingerprint,
                    sessions.c.revoked_at_us.is_(None),
                    sessions.c.idle_expires_at_us > now_us,
                )
                .values(
                    leaf_hash=rotation.child_hash,
                    parent_hash=rotation.presented_hash,
                    parent_rotated_at_us=now_us,
                    sealed_leaf=rotation.sealed_child,
                    last_used_at_us=now_us,
                    address=address,
                    idle_expires_at_us=sa.case(
                        (idle_end < sessions.c.expires_at_us, idle_end),
                        else_=sessions.c.expires_at_us,
                    ),
                )
                .returning(sessions)
            )
        ).first()
        if row is None:
            return None
        await transaction.execute(
            spent_refresh_tokens.insert(),
            {
                "token_hash": rotation.presented_hash,
                "session_id": row.id,
                "spent_at_us": now_us,
            },
        )
        return _session(row)

    async def find_session_of_token(
        self, transaction: Transaction, token_hash: str
    ) -> Session | None:
        """Return the session that has or had this refresh token, its row locked."""
        spent = sa.select(spent_refresh_tokens.c.session_id).where(
            spent_refresh_tokens.c.token_hash == token_hash
        )
        row = await transaction.first(
            sa.select(sessions)
            .where(sa.or_(sessions.c.leaf_hash == token_hash, sessions.c.id.in_(spent)))
            .with_for_update()
        )
        return None if row is None else _session(row)

    async def list_live_sessions(
        self, transaction: Transaction, user_id: str, *, now: datetime
    ) -> list[Session]:
        """Return a user's live sessions, newest use first."""
        rows = await transaction.all(
            sa.select(sessions)
            .where(
                sessions.c.user_id == user_id,
                sessions.c.revoked_at_us.is_(None),
                sessions.c.idle_expires_at_us > to_us(now),
            )
            .order_by(sessions.c.last_used_at_us.desc(), sessions.c.id.desc())
            .limit(1000)
        )
        return [_session(row) for row in rows]

    async def has_device(self, transaction: Transaction, user_id: str, fingerprint: str) -> bool:
        """Tell whether a user signed in on that device before."""
        row = await transaction.first(
            sa.select(sessions.c.id)
            .where(sessions.c.user_id == user_id, sessions.c.device_fingerprint == fingerprint)
            .limit(1)
        )
        return row is not None

    async def revoke_sessions(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        session_id: str | None,
        reason: str,
        now: datetime,
    ) -> list[str]:
        """End one or all sessions of a user; return the ids of those that weren't ended before."""
        condition = [sessions.c.user_id == user_id, sessions.c.revoked_at_us.is_(None)]
        if session_id is not None:
            condition.append(sessions.c.id == session_id)
        result = await transaction.execute(
            sessions.update()
            .where(*condition)
            .values(revoked_at_us=to_us(now), revoked_reason=reason, sealed_leaf=None)
            .returning(sessions.c.id)
        )
        return [row.id for row in result.all()]

    async def list_revoked(
        self, transaction: Transaction, *, since_us: int, limit: int
    ) -> list[tuple[str, int]]:
        """Return ids and instants (microseconds) of sessions ended since then, oldest first."""
        rows = await transaction.all(
            sa.select(sessions.c.id, sessions.c.revoked_at_us)
            .where(sessions.c.revoked_at_us >= since_us)
            .order_by(sessions.c.revoked_at_us, sessions.c.id)
            .limit(limit)
        )
        return [(row.id, row.revoked_at_us) for row in rows]

    async def get_latest_revocation_us(self, transaction: Transaction) -> int:
        """Return when the last session ended, in microseconds; 0 where none did."""
        return await transaction.scalar(sa.select(sa.func.max(sessions.c.revoked_at_us))) or 0

    async def remove_dead(
        self, transaction: Transaction, *, ended_before: datetime, limit: int
    ) -> int:
        """Remove sessions that ended long ago with their tokens.

        Returns:
            How many sessions went; at most ``limit``.
        """
        before_us = to_us(ended_before)
        dead = (
            sa.select(sessions.c.id)
            .where(
                sa.or_(
                    sessions.c.expires_at_us < before_us,
                    sessions.c.idle_expires_at_us < before_us,
                    sessions.c.revoked_at_us < before_us,
                )
            )
            .limit(limit)
        )
        result = await transaction.execute(sessions.delete().where(sessions.c.id.in_(dead)))
        return result.rowcount


def _session(row: sa.Row[Any]) -> Session:
    return Session(
        id=row.id,
        user_id=row.user_id,
        device_fingerprint=row.device_fingerprint,
        user_agent=row.user_agent,
        address=row.address,
        created_at=from_us(row.created_at_us),
        last_used_at=from_us(row.last_used_at_us),
        expires_at=from_us(row.expires_at_us),
        idle_expires_at=from_us(row.idle_expires_at_us),
        leaf_hash=row.leaf_hash,
        parent_hash=row.parent_hash,
        parent_rotated_at=instant_of(row.parent_rotated_at_us),
        sealed_leaf=row.sealed_leaf,
        revoked_at=instant_of(row.revoked_at_us),
        revoked_reason=row.revoked_reason,
    )
