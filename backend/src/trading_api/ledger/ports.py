"""What the ledger needs from outside: an open database transaction.

The ledger sits below the runtime, so it names the few calls it uses and receives the object.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from sqlalchemy import CursorResult, Executable, Row

Dialect = Literal["sqlite", "postgresql"]
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class LedgerTransaction(Protocol):
    """One open transaction of the module that owns the tables.

    Writers are serialised by the database: one writer per file on SQLite, row locks under READ
    COMMITTED on PostgreSQL. The ledger neither commits nor rolls back.
    """

    @property
    def dialect(self) -> Dialect:
        """Name the database at the other end."""

    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[Any]:
        """Run one statement; a sequence of parameters runs it once for each."""

    async def execute_raw(
        self, statement: str, parameters: tuple[Any, ...] | list[Any]
    ) -> CursorResult[Any]:
        """Run the driver's own SQL with its own marks; a list of rows runs it once for each."""

    async def all(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """Return every row."""

    async def first(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Row[Any] | None:
        """Return the first row, or None."""

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run a callback once the transaction is durable; never after a rollback."""
