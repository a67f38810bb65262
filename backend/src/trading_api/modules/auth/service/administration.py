"""What admins see of others and do to them, over the API."""

from dataclasses import dataclass, replace
from datetime import datetime

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import Role, User
from trading_api.modules.auth.domain.audit import AuditRow, Caller
from trading_api.modules.auth.errors import LastAdminError
from trading_api.modules.auth.repository.checks import Violation, check_audit, check_sessions
from trading_api.modules.auth.service.desk import Desk, found


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows of the audit are wanted; None for any."""

    actor_id: str | None = None
    action: str | None = None
    about: str | None = None


class AdministrationService:
    """Lists and changes users, and shows the audit."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def list_users(
        self, *, after_id: str | None, limit: int, email_part: str | None
    ) -> list[User]:
        """Return users, oldest first.

        Args:
            after_id: only users made after that one; None for the first.
            email_part: folded; only addresses that hold it; None for all.
        """
        async with self._desk.database.snapshot() as transaction:
            return await self._desk.repository.users.page_users(
                transaction, after_id=after_id, limit=limit, email_part=email_part
            )

    async def change_user(
        self,
        *,
        caller: Caller,
        user_id: str,
        roles: frozenset[Role] | None,
        is_active: bool | None,
        now: datetime,
    ) -> User:
        """Set a user's roles, or switch the user on or off; None stays as it is.

        Either ends every session of the user, whose tokens tell the old roles.

        Raises:
            UserNotFoundError: there is none.
            LastAdminError: no active admin would be left.
        """
        users = self._desk.repository.users
        async with self._desk.database.transaction() as transaction:
            admins = await users.lock_admins(transaction)
            user = found(await users.lock_user(transaction, user_id))
            changed = replace(
                user,
                roles=user.roles if roles is None else roles,
                is_active=user.is_active if is_active is None else is_active,
            )
            if changed == user:
                return user
            stays = changed.is_active and Role.ADMIN in changed.roles
            if not stays and admins == [user_id]:
                raise LastAdminError("give another user the role admin first")
            await users.update_user(
                transaction, user_id, roles=changed.roles, is_active=changed.is_active
            )
            reason = "disabled" if not changed.is_active else "roles_changed"
            await self._desk.end_sessions(transaction, user_id, None, reason, now=now)
            await self._desk.revoke_excessive_keys(transaction, changed, reason=reason, now=now)
            await self._desk.audit(
                transaction,
                "user_change",
                caller=caller,
                now=now,
                about=f"user:{user_id}",
                detail=_difference(user, changed),
                before=user,
                after=changed,
            )
        return changed

    async def list_audit(
        self, *, before_sequence: int | None, limit: int, wanted: AuditFilter
    ) -> list[AuditRow]:
        """Return rows of the audit, newest first.

        Args:
            before_sequence: only older ones than that; None for the newest.
        """
        async with self._desk.database.snapshot() as transaction:
            return await self._desk.repository.audit.list_entries(
                transaction,
                before_sequence=before_sequence,
                limit=limit,
                actor_id=wanted.actor_id,
                action=wanted.action,
                about=wanted.about,
            )

    async def verify_sessions(self, *, now: datetime) -> list[Violation]:
        """Prove sessions and stored secrets; an empty list means that everything holds."""
        async with self._desk.database.snapshot() as transaction:
            return await check_sessions(transaction, now_us=to_us(now))

    async def verify_audit(self) -> list[Violation]:
        """Walk the audit's chain; an empty list means that it is whole."""
        async with self._desk.database.snapshot() as transaction:
            return await check_audit(transaction)


def _difference(before: User, after: User) -> str:
    words = []
    if before.roles != after.roles:
        words.append(f"roles {','.join(sorted(before.roles))} → {','.join(sorted(after.roles))}")
    if before.is_active != after.is_active:
        words.append("enabled" if after.is_active else "disabled")
    return "; ".join(words)
