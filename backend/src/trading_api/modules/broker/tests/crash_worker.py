"""Places orders until it is killed: ``crash_worker.py <database url> <run>``.

Prints each client order id after its order was acknowledged.
"""

import asyncio
import sys
from itertools import count

from trading_api.kernel.clock import SystemClock
from trading_api.modules.broker.tests.builders import BUY, SELL, FakeMarket, a_ticket
from trading_api.modules.broker.tests.conftest import USER, build_venue
from trading_api.runtime.database import Database


async def main(url: str, run: str) -> None:
    clock = SystemClock()
    market = FakeMarket(clock.now)
    venue = build_venue(Database(url, schema="broker"), clock, market)

    async def trade(worker: int) -> None:
        for number in count():
            market.quote("199.90", "200.00")
            side = BUY if (number + worker) % 2 else SELL
            limit = "200" if number % 5 == 0 else None
            client_order_id = f"{run}-{worker}-{number}"
            await venue.orders.place_order(
                user_id=USER,
                account_id=None,
                ticket=a_ticket(1 + number % 3, side=side, limit=limit),
                client_order_id=client_order_id,
                idempotency_key=client_order_id,
                now=clock.now(),
            )
            sys.stdout.write(f"{client_order_id}\n")
            sys.stdout.flush()

    await asyncio.gather(*(trade(worker) for worker in range(4)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
