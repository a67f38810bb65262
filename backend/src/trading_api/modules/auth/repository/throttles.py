"""Charges for failed attempts, one row per key."""

from datetime import datetime, timedelta

import sqlalchemy as sa

from trading_api.kernel.clock import to_us
from trading_api.modules.auth.domain import Toll
from trading_api.modules.auth.domain.throttling import FAILURES_KEPT, FAILURES_MAX, SLOWER_FROM
from trading_api.modules.auth.repository.rows import MICROSECOND, insert_into
from trading_api.modules.auth.tables import throttles
from trading_api.runtime.database import Transaction

_CLOSED = timedelta(days=1)
"""What a closed key is told to wait; time alone doesn't open it soon."""


class ThrottleRepository:
    """Charges and gives back inside the caller's transaction."""

    async def take(self, transaction: Transaction, toll: Toll, *, now: datetime) -> timedelta:
        """Charge a toll in one statement; return zero, or how long until it can be paid."""
        now_us = to_us(now)
        interval_us = toll.rate.interval // MICROSECOND
        full_again, failures = throttles.c.full_again_at_us, throttles.c.failure_count
        # Nobody can owe more; a row that does was written before the clock went back.
        most_us = interval_us * (toll.rate.burst + max(times for _, times in SLOWER_FROM))
        owes = sa.and_(full_again > now_us, full_again <= now_us + most_us)
        start = sa.case((owes, full_again), else_=sa.literal(now_us, sa.BigInteger))
        may_pay = start + interval_us - now_us <= interval_us * toll.rate.burst
        price: sa.ColumnElement[int] = sa.literal(interval_us, sa.BigInteger)
        if toll.counts_failures:
            may_pay = sa.and_(may_pay, failures < FAILURES_MAX)
            price = sa.case(
                *((failures >= count, interval_us * times) for count, times in SLOWER_FROM[::-1]),
                else_=price,
            )
        insert = insert_into(transaction, throttles).values(
            key=toll.key,
            full_again_at_us=now_us + interval_us,
            failure_count=int(toll.counts_failures),
        )
        result = await transaction.execute(
            insert.on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "full_again_at_us": start + price,
                    "failure_count": failures + int(toll.counts_failures),
                },
                where=may_pay,
            )
        )
        if result.rowcount == 1:
            return timedelta()
        row = await transaction.first(
            sa.select(full_again, failures).where(throttles.c.key == toll.key)
        )
        assert row is not None
        if toll.counts_failures and row.failure_count >= FAILURES_MAX:
            return _CLOSED
        wait_us = row.full_again_at_us + interval_us - now_us - interval_us * toll.rate.burst
        return timedelta(microseconds=max(1, wait_us))

    async def give_back(self, transaction: Transaction, toll: Toll) -> None:
        """Return one charge; no failure counts any more."""
        interval_us = toll.rate.interval // MICROSECOND
        await transaction.execute(
            throttles.update()
            .where(throttles.c.key == toll.key)
            .values(
                full_again_at_us=throttles.c.full_again_at_us - interval_us,
                failure_count=0,
            )
        )

    async def clear(self, transaction: Transaction, key: str) -> None:
        """Forget what a key owes, and what the keys of single devices below it owe."""
        below = sa.and_(throttles.c.key > f"{key}:", throttles.c.key < f"{key};")
        await transaction.execute(throttles.delete().where(sa.or_(throttles.c.key == key, below)))

    async def remove_paid(self, transaction: Transaction, *, now: datetime) -> None:
        """Remove keys that owe nothing and whose failures are long ago."""
        await transaction.execute(
            throttles.delete().where(
                sa.or_(
                    sa.and_(
                        throttles.c.full_again_at_us < to_us(now), throttles.c.failure_count == 0
                    ),
                    throttles.c.full_again_at_us < to_us(now - FAILURES_KEPT),
                )
            )
        )
