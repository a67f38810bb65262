"""Passkeys: rows to domain values and back."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from trading_api.kernel.clock import from_us, to_us
from trading_api.modules.auth.domain.passkeys import Passkey
from trading_api.modules.auth.repository.rows import insert_into, instant_of
from trading_api.modules.auth.tables import passkeys
from trading_api.runtime.database import Transaction


class PasskeyRepository:
    """Reads and writes passkeys inside the caller's transaction."""

    async def add_passkey(self, transaction: Transaction, passkey: Passkey) -> bool:
        """Insert a passkey; False where it is registered already, by whomever."""
        result = await transaction.execute(
            insert_into(transaction, passkeys)
            .values(
                id=passkey.id,
                user_id=passkey.user_id,
                credential_id=passkey.credential_id,
                public_key=passkey.public_key,
                sign_count=passkey.sign_count,
                name=passkey.name,
                is_backed_up=passkey.is_backed_up,
                created_at_us=to_us(passkey.created_at),
            )
            .on_conflict_do_nothing(index_elements=["credential_id"])
        )
        return result.rowcount == 1

    async def list_passkeys(self, transaction: Transaction, user_id: str) -> list[Passkey]:
        """Return a user's passkeys, oldest first."""
        rows = await transaction.all(
            sa.select(passkeys).where(passkeys.c.user_id == user_id).order_by(passkeys.c.id)
        )
        return [_passkey(row) for row in rows]

    async def find_passkey(self, transaction: Transaction, credential_id: str) -> Passkey | None:
        """Return the passkey that its authenticator calls so, its row locked."""
        row = await transaction.first(
            sa.select(passkeys).where(passkeys.c.credential_id == credential_id).with_for_update()
        )
        return None if row is None else _passkey(row)

    async def record_use(
        self, transaction: Transaction, passkey_id: str, *, sign_count: int, now: datetime
    ) -> None:
        """Note a signature."""
        await transaction.execute(
            passkeys.update()
            .where(passkeys.c.id == passkey_id)
            .values(sign_count=sign_count, last_used_at_us=to_us(now))
        )

    async def remove_passkey(
        self, transaction: Transaction, *, user_id: str, passkey_id: str
    ) -> Passkey | None:
        """Remove a passkey of a user and return it; None where there is none."""
        row = (
            await transaction.execute(
                passkeys.delete()
                .where(passkeys.c.id == passkey_id, passkeys.c.user_id == user_id)
                .returning(passkeys)
            )
        ).first()
        return None if row is None else _passkey(row)

    async def remove_passkeys(self, transaction: Transaction, user_id: str) -> int:
        """Remove all passkeys of a user; return how many."""
        result = await transaction.execute(passkeys.delete().where(passkeys.c.user_id == user_id))
        return result.rowcount


def _passkey(row: sa.Row[Any]) -> Passkey:
    return Passkey(
        id=row.id,
        user_id=row.user_id,
        credential_id=row.credential_id,
        public_key=row.public_key,
        sign_count=row.sign_count,
        name=row.name,
        is_backed_up=row.is_backed_up,
        created_at=from_us(row.created_at_us),
        last_used_at=instant_of(row.last_used_at_us),
    )
