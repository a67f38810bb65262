"""Queries of auth: rows to domain values and back. Never commits."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain import (
    EmailAddress,
    Role,
    Rotation,
    Session,
    Toll,
    User,
)
from trading_api.modules.auth.tables import (
    audit,
    sessions,
    spent_refresh_tokens,
    throttles,
    users,
)
from trading_api.runtime import context
from trading_api.runtime.database import Transaction

_MICROSECOND = timedelta(microseconds=1)


class AuthRepository:
    """Reads and writes auth's own tables inside the caller's transaction."""

    async def add_user(self, transaction: Transaction, user: User) -> bool:
        """Insert a user; False where the folded address is taken."""
        result = await transaction.execute(
            _insert(transaction, users)
            .values(
                id=user.id,
                email=user.email.address,
                email_folded=user.email.folded,
                full_name=user.full_name,
                picture=user.picture,
                password_hash=user.password_hash,
                roles=_join_roles(user.roles),
                is_active=user.is_active,
                created_at_us=to_us(user.created_at),
                last_login_at_us=_us(user.last_login_at),
            )
            .on_conflict_do_nothing(index_elements=["email_folded"])
        )
        return result.rowcount == 1

    async def find_user(self, transaction: Transaction, user_id: str) -> User | None:
        """Return a user by id."""
        row = await transaction.first(sa.select(users).where(users.c.id == user_id))
        return None if row is None else _user(row)

    async def find_user_by_email(self, transaction: Transaction, folded: str) -> User | None:
        """Return a user by folded address."""
        row = await transaction.first(sa.select(users).where(users.c.email_folded == folded))
        return None if row is None else _user(row)

    async def list_users(self, transaction: Transaction, *, limit: int) -> list[User]:
        """Return users, oldest first."""
        rows = await transaction.all(sa.select(users).order_by(users.c.id).limit(limit))
        return [_user(row) for row in rows]

    async def has_admin(self, transaction: Transaction) -> bool:
        """Tell whether anybody is an admin."""
        rows = await transaction.all(
            sa.select(users.c.roles).where(users.c.roles.contains(Role.ADMIN.value))
        )
        return any(Role.ADMIN in _split_roles(row.roles) for row in rows)

    async def record_login(
        self, transaction: Transaction, user: User, *, now: datetime, password_hash: str | None
    ) -> bool:
        """Note a sign-in, and a better password hash where there is one.

        Returns:
            False where the user was disabled or changed the password meanwhile; nothing changed.
        """
        values: dict[str, Any] = {"last_login_at_us": to_us(now)}
        if password_hash is not None:
            values["password_hash"] = password_hash
        result = await transaction.execute(
            users.update()
            .where(
                users.c.id == user.id,
                users.c.is_active.is_(True),
                users.c.password_hash == user.password_hash,
            )
            .values(**values)
        )
        return result.rowcount == 1

    async def update_user(self, transaction: Transaction, user_id: str, **values: Any) -> None:
        """Set columns of a user."""
        if "roles" in values:
            values["roles"] = _join_roles(values["roles"])
        await transaction.execute(users.update().where(users.c.id == user_id).values(**values))

    async def lock_user(self, transaction: Transaction, user_id: str) -> User | None:
        """Return a user whose row nobody else changes before the commit."""
        row = await transaction.first(
            sa.select(users).where(users.c.id == user_id).with_for_update()
        )
        return None if row is None else _user(row)

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
        idle_end = sa.literal(now_us + idle // _MICROSECOND, sa.BigInteger)
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

    async def take(self, transaction: Transaction, toll: Toll, *, now: datetime) -> timedelta:
        """Charge a toll in one statement; return zero, or how long until it can be paid."""
        now_us = to_us(now)
        interval_us = toll.rate.interval // _MICROSECOND
        full_again = throttles.c.full_again_at_us
        start = sa.case((full_again > now_us, full_again), else_=sa.literal(now_us, sa.BigInteger))
        insert = _insert(transaction, throttles).values(
            key=toll.key, full_again_at_us=now_us + interval_us
        )
        result = await transaction.execute(
            insert.on_conflict_do_update(
                index_elements=["key"],
                set_={"full_again_at_us": start + interval_us},
                where=start + interval_us - now_us <= interval_us * toll.rate.burst,
            )
        )
        if result.rowcount == 1:
            return timedelta()
        found = await transaction.scalar(sa.select(full_again).where(throttles.c.key == toll.key))
        wait_us = found + interval_us - now_us - interval_us * toll.rate.burst
        return timedelta(microseconds=max(1, wait_us))

    async def give_back(self, transaction: Transaction, toll: Toll) -> None:
        """Return one charge."""
        interval_us = toll.rate.interval // _MICROSECOND
        await transaction.execute(
            throttles.update()
            .where(throttles.c.key == toll.key)
            .values(full_again_at_us=throttles.c.full_again_at_us - interval_us)
        )

    async def add_audit(
        self,
        transaction: Transaction,
        *,
        action: str,
        outcome: str,
        now: datetime,
        address: str,
        actor_id: str | None = None,
        session_id: str | None = None,
        about: str | None = None,
    ) -> None:
        """Append one row to the audit."""
        await transaction.execute(
            audit.insert(),
            {
                "occurred_at_us": to_us(now),
                "actor_id": actor_id,
                "session_id": session_id,
                "address": address,
                "action": action,
                "outcome": outcome,
                "object": about,
                "request_id": context.request_id.get(),
            },
        )

    async def remove_dead(
        self, transaction: Transaction, *, ended_before: datetime, now: datetime, limit: int
    ) -> int:
        """Remove sessions that ended long ago with their tokens, and paid-off throttles.

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
        await transaction.execute(
            throttles.delete().where(throttles.c.full_again_at_us < to_us(now))
        )
        return result.rowcount


def _insert(transaction: Transaction, table: sa.Table) -> Any:
    if transaction.dialect == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def _us(instant: datetime | None) -> int | None:
    return None if instant is None else to_us(instant)


def _instant(instant_us: int | None) -> datetime | None:
    return None if instant_us is None else from_us(instant_us)


def _join_roles(roles: Sequence[Role] | frozenset[Role]) -> str:
    return ",".join(sorted(roles))


def _split_roles(text: str) -> frozenset[Role]:
    return frozenset(Role(name) for name in text.split(",") if name)


def _user(row: sa.Row[Any]) -> User:
    return User(
        id=row.id,
        email=EmailAddress(row.email, row.email_folded),
        full_name=row.full_name,
        picture=row.picture,
        password_hash=row.password_hash,
        roles=_split_roles(row.roles),
        is_active=row.is_active,
        created_at=from_us(row.created_at_us),
        last_login_at=_instant(row.last_login_at_us),
    )


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
        parent_rotated_at=_instant(row.parent_rotated_at_us),
        sealed_leaf=row.sealed_leaf,
        revoked_at=_instant(row.revoked_at_us),
        revoked_reason=row.revoked_reason,
    )
