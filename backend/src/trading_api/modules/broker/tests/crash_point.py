"""One order with brackets that dies at a point: ``crash_point.py <url> <id> <point>``.

The process ends as a killed one does, without a word to the database. Points are the repository's
steps, ``before_commit`` and ``after_commit``.
"""

import asyncio
import os
import sys
from typing import Any

from trading_api.kernel.clock import SystemClock
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.tests.builders import FakeMarket, a_ticket
from trading_api.modules.broker.tests.conftest import build_venue
from trading_api.runtime.database import Database

KILLED = 137


class DyingRepository(BrokerRepository):
    """Ends the process after a step."""

    def __init__(self, point: str) -> None:
        self.point = point

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in ("point", "__class__") or name != super().__getattribute__("point"):
            return found

        async def done_then_dead(*arguments: Any, **options: Any) -> None:
            await found(*arguments, **options)
            os._exit(KILLED)

        return done_then_dead


async def main(url: str, client_order_id: str, point: str) -> None:
    clock = SystemClock()
    market = FakeMarket(clock.now)
    database = Database(url, schema="broker")
    venue = build_venue(database, clock, market, repository=DyingRepository(point))
    market.quote("199.90", "200.00")
    await venue.place(
        a_ticket(10, take_profit="210", stop_loss="190"),
        client_order_id=client_order_id,
        key=client_order_id,
    )
    assert point == "after_commit", point
    os._exit(KILLED)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
