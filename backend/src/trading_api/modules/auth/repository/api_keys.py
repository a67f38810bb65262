"""API keys and share tokens."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain.api_keys import ApiKey, ApiKeyKind
from trading_api.modules.auth.repository.rows import insert_into, instant_of, us_of
from trading_api.modules.auth.tables import api_keys
from trading_api.runtime.database import Transaction


class ApiKeyRepository:
    """Reads and writes inside the caller's transaction."""

    async def add_key(self, transaction: Transaction, key: ApiKey) -> bool:
        """Insert a key; False where its id is taken."""
        result = await transaction.execute(
            insert_into(transaction, api_keys)
            .values(
                id=key.id,
                kind=key.kind,
                user_id=key.user_id,
                name=key.name,
                secret_hash=key.secret_hash,
                scopes=",".join(sorted(key.scopes)),
                account_id=key.account_id,
                ip_allow=",".join(key.ip_allow),
                created_at_us=to_us(key.created_at),
                expires_at_us=us_of(key.expires_at),
            )
            .on_conflict_do_nothing(index_elements=["id"])
        )
        return result.rowcount == 1

    async def find_key(self, transaction: Transaction, key_id: str) -> ApiKey | None:
        """Return a key by id, revoked ones too."""
        row = await transaction.first(sa.select(api_keys).where(api_keys.c.id == key_id))
        return None if row is None else _key(row)

    async def list_live_keys(
        self,
        transaction: Transaction,
        user_id: str,
        *,
        kinds: Collection[ApiKeyKind],
        now: datetime,
    ) -> list[ApiKey]:
        """Return a user's live keys of some kinds, newest first."""
        rows = await transaction.all(
            sa.select(api_keys)
            .where(
                api_keys.c.user_id == user_id,
                api_keys.c.kind.in_(kinds),
                api_keys.c.revoked_at_us.is_(None),
                sa.or_(api_keys.c.expires_at_us.is_(None), api_keys.c.expires_at_us > to_us(now)),
            )
            .order_by(api_keys.c.created_at_us.desc(), api_keys.c.id)
            .limit(1000)
        )
        return [_key(row) for row in rows]

    async def revoke_keys(
        self,
        transaction: Transaction,
        *,
        user_id: str,
        key_ids: Collection[str],
        reason: str,
        now: datetime,
    ) -> list[str]:
        """Revoke some of a user's keys; return the ids of those that weren't before."""
        result = await transaction.execute(
            api_keys.update()
            .where(
                api_keys.c.user_id == user_id,
                api_keys.c.id.in_(key_ids),
                api_keys.c.revoked_at_us.is_(None),
            )
            .values(revoked_at_us=to_us(now), revoked_reason=reason)
            .returning(api_keys.c.id)
        )
        return [row.id for row in result.all()]

    async def note_use(self, transaction: Transaction, key_id: str, *, now: datetime) -> None:
        """Note that a key was used."""
        await transaction.execute(
            api_keys.update().where(api_keys.c.id == key_id).values(last_used_at_us=to_us(now))
        )

    async def list_revoked(
        self, transaction: Transaction, *, since_us: int, limit: int
    ) -> list[tuple[str, int]]:
        """Return ids and instants (microseconds) of keys revoked since then, oldest first."""
        rows = await transaction.all(
            sa.select(api_keys.c.id, api_keys.c.revoked_at_us)
            .where(api_keys.c.revoked_at_us >= since_us)
            .order_by(api_keys.c.revoked_at_us, api_keys.c.id)
            .limit(limit)
        )
        return [(row.id, row.revoked_at_us) for row in rows]

    async def get_latest_revocation_us(self, transaction: Transaction) -> int:
        """Return when the last key was revoked, in microseconds; 0 where none was."""
        return await transaction.scalar(sa.select(sa.func.max(api_keys.c.revoked_at_us))) or 0


def _key(row: sa.Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        kind=row.kind,
        user_id=row.user_id,
        name=row.name,
        secret_hash=row.secret_hash,
        scopes=frozenset(each for each in row.scopes.split(",") if each),
        account_id=row.account_id,
        ip_allow=tuple(each for each in row.ip_allow.split(",") if each),
        created_at=from_us(row.created_at_us),
        expires_at=instant_of(row.expires_at_us),
        last_used_at=instant_of(row.last_used_at_us),
        revoked_at=instant_of(row.revoked_at_us),
        revoked_reason=row.revoked_reason,
    )
