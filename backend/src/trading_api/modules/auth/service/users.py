"""Users as they see themselves and as operators see them."""

from dataclasses import replace
from datetime import datetime, timedelta

from trading_api.modules.auth.domain import Device, Role, User, fold_email, new_refresh_token
from trading_api.modules.auth.domain.audit import HOST, Caller
from trading_api.modules.auth.domain.sessions import TOKEN_BYTES
from trading_api.modules.auth.errors import UserDisabledError
from trading_api.modules.auth.service.desk import Desk, found


class UserService:
    """Shows and changes users."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def get_user(self, *, user_id: str) -> User:
        """Return a user.

        Raises:
            UserNotFoundError: there is none.
        """
        async with self._desk.database.snapshot() as transaction:
            return found(await self._desk.repository.users.find_user(transaction, user_id))

    async def update_profile(
        self, *, user_id: str, changes: dict[str, str | None], caller: Caller, now: datetime
    ) -> User:
        """Set ``full_name`` or ``picture`` of a user; absent names stay as they are.

        Raises:
            UserNotFoundError: there is none.
        """
        assert changes.keys() <= {"full_name", "picture"}
        async with self._desk.database.transaction() as transaction:
            user = found(await self._desk.repository.users.lock_user(transaction, user_id))
            changed = replace(user, **changes)  # type: ignore[arg-type]
            if changes:
                await self._desk.repository.users.update_user(transaction, user_id, **changes)
                await self._desk.audit(
                    transaction,
                    "profile_update",
                    caller=caller,
                    now=now,
                    about=f"user:{user_id}",
                    detail=",".join(sorted(changes)),
                    before=user,
                    after=changed,
                )
        return changed

    async def get_by_email(self, *, email: str) -> User:
        """Return the user with an address.

        Raises:
            UserNotFoundError: there is none.
        """
        async with self._desk.database.snapshot() as transaction:
            return found(
                await self._desk.repository.users.find_user_by_email(transaction, fold_email(email))
            )

    async def list_users(self, *, limit: int = 1000) -> list[User]:
        """Return users, oldest first."""
        async with self._desk.database.snapshot() as transaction:
            return await self._desk.repository.users.list_users(transaction, limit=limit)

    async def set_user_active(self, *, email: str, is_active: bool, now: datetime) -> User:
        """Switch a user on or off; off ends every session.

        Raises:
            UserNotFoundError: there is none with that address.
        """
        async with self._desk.database.transaction() as transaction:
            user = await self._desk.lock_by_email(transaction, email)
            await self._desk.repository.users.update_user(transaction, user.id, is_active=is_active)
            changed = replace(user, is_active=is_active)
            if not is_active:
                await self._desk.end_sessions(transaction, user.id, None, "disabled", now=now)
                await self._desk.revoke_excessive_keys(
                    transaction, changed, reason="disabled", now=now
                )
            await self._desk.audit(
                transaction,
                "user_enable" if is_active else "user_disable",
                caller=HOST,
                now=now,
                about=f"user:{user.id}",
                before=user,
                after=changed,
            )
        return changed

    async def set_roles(self, *, email: str, roles: frozenset[Role], now: datetime) -> User:
        """Give a user exactly these roles and end the sessions, whose tokens tell the old ones.

        Raises:
            UserNotFoundError: there is none with that address.
        """
        async with self._desk.database.transaction() as transaction:
            user = await self._desk.lock_by_email(transaction, email)
            await self._desk.repository.users.update_user(transaction, user.id, roles=roles)
            await self._desk.end_sessions(transaction, user.id, None, "roles_changed", now=now)
            changed = replace(user, roles=roles)
            await self._desk.revoke_excessive_keys(
                transaction, changed, reason="roles_changed", now=now
            )
            await self._desk.audit(
                transaction,
                "user_roles",
                caller=HOST,
                now=now,
                about=f"user:{user.id}",
                detail=",".join(sorted(roles)),
                before=user,
                after=changed,
            )
        return changed

    async def issue_token(self, *, email: str, lifetime: timedelta, now: datetime) -> str:
        """Issue an access token to an operator at the host, for work without auth running.

        It belongs to a session of its own, which can be revoked.

        Raises:
            UserNotFoundError: there is none with that address.
            UserDisabledError: the user is switched off.
        """
        device = Device.of(address="", user_agent="users token", hints=(), cookie="")
        token = new_refresh_token(self._desk.random_bytes(TOKEN_BYTES))
        async with self._desk.database.transaction() as transaction:
            user = await self._desk.lock_by_email(transaction, email)
            if not user.is_active:
                raise UserDisabledError("this user was disabled; enable it first")
            session = replace(
                self._desk.new_session(user, device, token, now),
                expires_at=now + lifetime,
                idle_expires_at=now + lifetime,
            )
            await self._desk.repository.sessions.add_session(transaction, session)
            await self._desk.audit(
                transaction,
                "token_issue",
                caller=HOST,
                now=now,
                about=f"session:{session.id}",
                after=session,
            )
        return self._desk.access_token(user, session, now, int(lifetime.total_seconds()))
