"""Second factors and recovery codes: rows to domain values and back."""

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain.second_factor import SecondFactor
from trading_api.modules.auth.repository.rows import insert_into, instant_of
from trading_api.modules.auth.tables import recovery_codes, second_factors
from trading_api.runtime.database import Transaction


class SecondFactorRepository:
    """Reads and writes second factors inside the caller's transaction."""

    async def find_second_factor(self, transaction: Transaction, user_id: str) -> SecondFactor:
        """Return a user's second factor; one that is off where there is no row."""
        row = await transaction.first(
            sa.select(second_factors).where(second_factors.c.user_id == user_id)
        )
        if row is None:
            return SecondFactor(user_id)
        return SecondFactor(
            user_id=row.user_id,
            sealed_secret=row.sealed_secret,
            enabled_at=instant_of(row.enabled_at_us),
            last_step=row.last_step,
            generation=row.generation,
        )

    async def switch_on(
        self, transaction: Transaction, factor: SecondFactor, *, code_hashes: Iterable[str]
    ) -> None:
        """Store a second factor that is on, with its recovery codes; the user's row is locked."""
        assert factor.enabled_at is not None
        values = {
            "sealed_secret": factor.sealed_secret,
            "enabled_at_us": to_us(factor.enabled_at),
            "last_step": factor.last_step,
            "generation": factor.generation,
        }
        await transaction.execute(
            insert_into(transaction, second_factors)
            .values(user_id=factor.user_id, **values)
            .on_conflict_do_update(index_elements=["user_id"], set_=values)
        )
        await self.replace_recovery_codes(transaction, factor.user_id, code_hashes)

    async def switch_off(self, transaction: Transaction, user_id: str) -> None:
        """Forget secret and recovery codes; the next secret will be another."""
        await transaction.execute(
            second_factors.update()
            .where(second_factors.c.user_id == user_id)
            .values(
                sealed_secret=None,
                enabled_at_us=None,
                last_step=None,
                generation=second_factors.c.generation + 1,
            )
        )
        await self.replace_recovery_codes(transaction, user_id, ())

    async def use_step(self, transaction: Transaction, user_id: str, step: int) -> bool:
        """Use a half minute's code up, in one statement; False where it is used already."""
        result = await transaction.execute(
            second_factors.update()
            .where(
                second_factors.c.user_id == user_id,
                second_factors.c.enabled_at_us.is_not(None),
                sa.or_(second_factors.c.last_step.is_(None), second_factors.c.last_step < step),
            )
            .values(last_step=step)
        )
        return result.rowcount == 1

    async def use_recovery_code(
        self, transaction: Transaction, user_id: str, code_hash: str, *, now: datetime
    ) -> bool:
        """Use a recovery code up, in one statement; False where it is unknown or used."""
        result = await transaction.execute(
            recovery_codes.update()
            .where(
                recovery_codes.c.code_hash == code_hash,
                recovery_codes.c.user_id == user_id,
                recovery_codes.c.used_at_us.is_(None),
            )
            .values(used_at_us=to_us(now))
        )
        return result.rowcount == 1

    async def replace_recovery_codes(
        self, transaction: Transaction, user_id: str, code_hashes: Iterable[str]
    ) -> None:
        """Make these the user's only recovery codes."""
        await transaction.execute(
            recovery_codes.delete().where(recovery_codes.c.user_id == user_id)
        )
        rows = [{"code_hash": each, "user_id": user_id} for each in code_hashes]
        if rows:
            await transaction.execute(recovery_codes.insert(), rows)

    async def count_recovery_codes(self, transaction: Transaction, user_id: str) -> int:
        """Return how many recovery codes are unused."""
        return (
            await transaction.scalar(
                sa.select(sa.func.count())
                .select_from(recovery_codes)
                .where(recovery_codes.c.user_id == user_id, recovery_codes.c.used_at_us.is_(None))
            )
            or 0
        )
