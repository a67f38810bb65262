"""Executions for charts: of all the user's accounts, by symbol and time."""

from collections.abc import Sequence
from datetime import datetime

from trading_api.modules.broker.domain.execution import Execution
from trading_api.modules.broker.repository.marks import MarkRepository
from trading_api.runtime.database import Database


class MarkService:
    """Reads; a user without an account has no executions, and none is opened here."""

    def __init__(self, *, database: Database, repository: MarkRepository) -> None:
        self._database = database
        self._repository = repository

    async def list_executions(
        self, *, user_id: str, symbol: str, from_: datetime, to: datetime, limit: int
    ) -> Sequence[Execution]:
        """Return a user's executions of a symbol in [from_, to), newest first.

        Args:
            symbol: full, such as ``DEMO:AAPL``.
            limit: the newest so many.
        """
        async with self._database.snapshot() as snapshot:
            return await self._repository.list_executions(
                snapshot, user_id=user_id, symbol=symbol, from_=from_, to=to, limit=limit
            )
