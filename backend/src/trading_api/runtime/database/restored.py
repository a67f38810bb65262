"""What must change in a database that was restored before anybody uses it.

Other modules may have read facts that the restored database no longer knows. Their numbers must
never be given again, or those readers would take new facts for old ones and skip them.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import sqlalchemy as sa

from trading_api.kernel.clock import Clock, to_us
from trading_api.kernel.ids import IdSource
from trading_api.runtime.database.leases import Leases
from trading_api.runtime.database.outbox import Outbox
from trading_api.runtime.database.transactions import Database, Transaction

SEQUENCE_GAP: Final = 1_000_000_000
"""Facts that may have been published since the backup, at most: three years at ten a second.

Beyond that the clock in microseconds is the number to begin at: no module publishes a million facts
a second, so restoring the same copy again begins above all that was published in between.
"""

RESTORED_TYPE: Final = "platform.database.restored"
"""Type of the fact that carries the new number; nobody handles it."""


async def begin_anew(
    database: Database,
    *,
    outbox: Outbox | None,
    leases: Leases | None,
    hooks: Sequence[Callable[[Transaction], Awaitable[None]]],
    ids: IdSource,
    clock: Clock,
) -> int | None:
    """Raise the facts' numbers, free the leases and run the module's own hooks, all or nothing.

    Returns:
        The number that new facts count on from; None where the module publishes none.
    """

    async def command(transaction: Transaction) -> int | None:
        raised = None
        if outbox is not None:
            raised = await _raise_sequence(transaction, outbox, ids=ids, clock=clock)
        if leases is not None:
            await leases.release_all(transaction)
        for hook in hooks:
            await hook(transaction)
        return raised

    return await database.run(command)


async def _raise_sequence(
    transaction: Transaction, outbox: Outbox, *, ids: IdSource, clock: Clock
) -> int:
    table, now_us = outbox.table, to_us(clock.now())
    last = await transaction.scalar(sa.select(sa.func.max(table.c.sequence)))
    raised = max(int(last or 0) + SEQUENCE_GAP, now_us)
    await transaction.execute(
        table.insert(),
        {
            "event_id": ids.new("evt"),
            "type": RESTORED_TYPE,
            "version": 1,
            "key": outbox.producer,
            "key_sequence": None,
            "data": "{}",
            "occurred_at_us": now_us,
            "recorded_at_us": now_us,
            "sequence": raised,
        },
    )
    return raised
