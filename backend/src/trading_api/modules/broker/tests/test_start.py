"""Starting with many open orders: every reservation and bracket is checked, quickly."""

import time

import pytest
import sqlalchemy as sa

from trading_api.modules.broker import tables
from trading_api.modules.broker.tests.builders import a_ticket
from trading_api.modules.broker.tests.conftest import Venue

ACCOUNTS = 1_000
ORDERS = 10
SECONDS_MAX = 3.0


@pytest.mark.nightly
async def test_start_with_ten_thousand_open_orders_takes_three_seconds_at_most(
    venue: Venue,
) -> None:
    """Copies one account's rows a thousand times over; what is measured reads every one."""
    for index in range(ORDERS):
        await venue.place(a_ticket(1, limit=str(150 + index)))
    async with venue.database.transaction() as transaction:
        for table, key in (
            (tables.accounts, None),
            (tables.positions, None),
            (tables.orders, "order_id"),
        ):
            for row in await transaction.all(sa.select(table)):
                values = dict(row._mapping)
                await transaction.execute(
                    table.insert(),
                    [
                        {
                            **values,
                            "account_id": f"{values['account_id']}_{copy}",
                            **({} if key is None else {key: f"{values[key]}_{copy}"}),
                            **({"user_id": f"usr_{copy}"} if table is tables.accounts else {}),
                        }
                        for copy in range(ACCOUNTS - 1)
                    ],
                )
    # The processor's time: what else this machine does is not what is measured.
    started, begun = time.process_time(), time.perf_counter()
    assert await venue.matching.reconcile(now=venue.now) == 0
    seconds, wall = time.process_time() - started, time.perf_counter() - begun
    print(f"{ACCOUNTS * ORDERS} open orders: {seconds:.2f} s, {wall:.2f} s by the clock")
    assert seconds <= SECONDS_MAX
