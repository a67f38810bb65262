"""How long an account's events are kept; its orders, executions and postings stay for ever."""

from datetime import datetime, timedelta

import structlog

from trading_api.modules.broker.service.desk import Books
from trading_api.runtime.database import Database, Lease, Leases, Transaction

log = structlog.get_logger("broker")

_ACCOUNTS_AT_ONCE = 100


class RetentionService:
    """Deletes events that are older than what is kept.

    Args:
        keep_events: age from which an event may go.
    """

    def __init__(
        self, *, database: Database, books: Books, leases: Leases, keep_events: timedelta
    ) -> None:
        self._database = database
        self._books = books
        self._leases = leases
        self._keep_events = keep_events

    async def delete_old_events(self, *, lease: Lease, now: datetime) -> int:
        """Delete old events, account by account; return how many.

        Who asks for events behind them is told that they are gone. A repeat finds nothing.

        Raises:
            LeaseLostError: another instance deletes now.
        """
        deleted, before = 0, now - self._keep_events
        while True:
            async with self._database.snapshot() as snapshot:
                found = await self._books.repository.list_accounts_with_old_events(
                    snapshot, before=before, limit=_ACCOUNTS_AT_ONCE
                )
            for account_id, upto in found:
                deleted += await self._delete(account_id, upto, lease)
            if len(found) < _ACCOUNTS_AT_ONCE:
                break
        if deleted:
            log.info("events_deleted", count=deleted)
        return deleted

    async def _delete(self, account_id: str, upto: int, lease: Lease) -> int:
        async def command(transaction: Transaction) -> int:
            await self._leases.ensure_held(transaction, lease)
            return await self._books.repository.delete_events(transaction, account_id, upto=upto)

        return await self._database.group(command)
