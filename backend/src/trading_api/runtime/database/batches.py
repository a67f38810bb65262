"""Many requests of one kind, done by one handler in one transaction.

Whoever waits while a batch commits is in the next one, so a batch grows with the load: alone, a
request costs a transaction of its own; in a crowd, a share of one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

import structlog

from trading_api.kernel.errors import DatabaseUnavailableError, TradingError
from trading_api.runtime.database.transactions import Database, Transaction

log = structlog.get_logger("database")

SIZE_MAX = 256
"""Items of one batch; beyond it the wait of the first outweighs what the last one saves."""

I = TypeVar("I")  # noqa: E741 - an item
R = TypeVar("R")

Handler = Callable[[Transaction, Sequence[I]], Awaitable[Sequence[R | TradingError]]]


class BatchSplitError(Exception):
    """A handler's word that these items must be done one by one; the message says why."""


class Batches(Generic[I, R]):
    """Collects items and hands them to a handler, several at a time.

    Args:
        database: whose groups the batches are part of.
        handler: does all items in a transaction and returns one outcome for each, in order; a
            refused item is an outcome too and never fails its neighbours. Where it raises, the
            batch is rolled back and the items are done one by one, so it must have no effect
            outside the transaction. Where the database went away, all are told so.
    """

    def __init__(self, database: Database, handler: Handler[I, R]) -> None:
        self._database = database
        self._handler = handler
        self._waiting: list[tuple[I, asyncio.Future[R]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, item: I) -> R:
        """Do one item; return its outcome after the commit, or raise its refusal."""
        outcome: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, outcome))
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._drain())
        return await outcome

    async def _drain(self) -> None:
        while self._waiting:
            batch = self._waiting[:SIZE_MAX]
            del self._waiting[:SIZE_MAX]
            if len(batch) == 1 or not await self._do(batch):
                for each in batch:
                    await self._do_alone(*each)

    async def _do(self, batch: list[tuple[I, "asyncio.Future[R]"]]) -> bool:
        items = [item for item, _ in batch]
        try:
            outcomes = await self._database.group(partial(self._handle, items))
        except BatchSplitError as error:
            log.info("batch_split", size=len(batch), reason=str(error))
            return False
        except DatabaseUnavailableError as error:
            # A commit whose answer is lost may have been made: doing it again could do it twice.
            for _, future in batch:
                _resolve(future, error)
            return True
        except Exception:
            log.warning("batch_replayed", size=len(batch), exc_info=True)
            return False
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            _resolve(future, outcome)
        return True

    async def _do_alone(self, item: I, future: "asyncio.Future[R]") -> None:
        try:
            outcomes = await self._database.group(partial(self._handle, [item]))
        except Exception as error:  # noqa: BLE001 - handed to the waiting caller
            if not future.done():
                future.set_exception(error)
        else:
            _resolve(future, outcomes[0])

    async def _handle(
        self, items: Sequence[I], transaction: Transaction
    ) -> Sequence[R | TradingError]:
        return await self._handler(transaction, items)


def _resolve(future: "asyncio.Future[R]", outcome: R | TradingError) -> None:
    if future.done():
        return
    if isinstance(outcome, TradingError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
