"""Users: rows to domain values and back."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain import EmailAddress, Role, User
from trading_api.modules.auth.repository.rows import insert_into, instant_of, us_of
from trading_api.modules.auth.tables import users
from trading_api.runtime.database import Transaction


class UserRepository:
    """Reads and writes users inside the caller's transaction."""

    async def add_user(self, transaction: Transaction, user: User) -> bool:
        """Insert a user; False where the folded address is taken."""
        result = await transaction.execute(
            insert_into(transaction, users)
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
                last_login_at_us=us_of(user.last_login_at),
                email_verified_at_us=us_of(user.email_verified_at),
                activated_at_us=us_of(user.activated_at),
                has_short_password=user.has_short_password,
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

    async def page_users(
        self, transaction: Transaction, *, after_id: str | None, limit: int, email_part: str | None
    ) -> list[User]:
        """Return users behind that id, oldest first, whose folded address holds a text."""
        query = sa.select(users).order_by(users.c.id).limit(limit)
        if after_id is not None:
            query = query.where(users.c.id > after_id)
        if email_part is not None:
            query = query.where(users.c.email_folded.contains(email_part, autoescape=True))
        return [_user(row) for row in await transaction.all(query)]

    async def lock_admins(self, transaction: Transaction) -> list[str]:
        """Return the ids of active admins, whose rows nobody else changes before the commit."""
        rows = await transaction.all(
            sa.select(users.c.id, users.c.roles)
            .where(users.c.roles.contains(Role.ADMIN.value), users.c.is_active.is_(True))
            .order_by(users.c.id)
            .with_for_update()
        )
        return [row.id for row in rows if Role.ADMIN in _split_roles(row.roles)]

    async def has_admin(self, transaction: Transaction) -> bool:
        """Tell whether anybody is an admin."""
        rows = await transaction.all(
            sa.select(users.c.roles).where(users.c.roles.contains(Role.ADMIN.value))
        )
        return any(Role.ADMIN in _split_roles(row.roles) for row in rows)

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
        last_login_at=instant_of(row.last_login_at_us),
        email_verified_at=instant_of(row.email_verified_at_us),
        activated_at=instant_of(row.activated_at_us),
        has_short_password=row.has_short_password,
    )
