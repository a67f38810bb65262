"""A module's own database: transactions, events in and out, leases, idempotency, migrations."""

from trading_api.runtime.database.idempotency import Idempotency
from trading_api.runtime.database.inbox import Inbox
from trading_api.runtime.database.leases import Lease, Leases
from trading_api.runtime.database.outbox import Outbox
from trading_api.runtime.database.schema import Id, Instant, Minor, module_metadata
from trading_api.runtime.database.transactions import Ahead, Database, Transaction

__all__ = [
    "Ahead",
    "Database",
    "Id",
    "Idempotency",
    "Inbox",
    "Instant",
    "Lease",
    "Leases",
    "Minor",
    "Outbox",
    "Transaction",
    "module_metadata",
]
