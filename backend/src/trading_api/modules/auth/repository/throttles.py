"""Charges for failed attempts, one row per key."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import Toll
from trading_api.modules.auth.repository.rows import MICROSECOND, insert_into
from trading_api.modules.auth.tables import throttles
from trading_api.runtime.database import Transaction


class ThrottleRepository:
    """Charges and gives back inside the caller's transaction."""

    async def take(self, transaction: Transaction, toll: Toll, *, now: datetime) -> timedelta:
        """Charge a toll in one statement; return zero, or how long until it can be paid."""
        now_us = to_us(now)
        interval_us = toll.rate.interval // MICROSECOND
        full_again = throttles.c.full_again_at_us
        start = sa.case((full_again > now_us, full_again), else_=sa.literal(now_us, sa.BigInteger))
        insert = insert_into(transaction, throttles).values(
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
        interval_us = toll.rate.interval // MICROSECOND
        await transaction.execute(
            throttles.update()
            .where(throttles.c.key == toll.key)
            .values(full_again_at_us=throttles.c.full_again_at_us - interval_us)
        )
