"""Transactions of one module on its own database.

A use case is one ``transaction()``; its commit happens inside the service call, never in the
teardown of a request. SQLite has one writer per process that begins IMMEDIATE, so a
read-then-write can't meet SQLITE_BUSY_SNAPSHOT; readers use a pool of their own. A cancelled
task never leaves a lock behind: the end of a transaction is shielded and awaited.
"""

import asyncio
import errno
import random
import sqlite3
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import structlog
from sqlalchemy import CursorResult, Executable, MetaData, Row, Select, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncTransaction,
    create_async_engine,
)
from sqlalchemy.pool import AsyncAdaptedQueuePool, StaticPool
from sqlalchemy.util.concurrency import greenlet_spawn

from trading_api.kernel.errors import (
    DatabaseBusyError,
    DatabaseUnavailableError,
    StorageFullError,
    TradingError,
)
from trading_api.runtime.database import inline

log = structlog.get_logger("database")

T = TypeVar("T")
N = TypeVar("N")
Dialect = Literal["sqlite", "postgresql"]
Parameters = Mapping[str, Any] | Sequence[Mapping[str, Any]]

Writer = Callable[["Transaction", Sequence[Any]], Awaitable[None]]
"""Writes many things of one kind at once."""

_Waiting = dict[Executable | Writer, list[Any]]
"""Parameters of what waits, in the order in which the statements and writers came first."""

GROUP_SIZE_MAX = 64
"""Commands that share one commit; beyond it the wait of the first outweighs the saved syncs."""

SQLITE_BUSY_TIMEOUT_MS = 5000
LOCK_TIMEOUT_MS = 2000
STATEMENT_TIMEOUT_MS = 10_000
SERIALIZATION_ATTEMPTS_MAX = 5
_BEGIN_IMMEDIATE = text("BEGIN IMMEDIATE")
_RETRYABLE_SQLSTATES = frozenset({"40001", "40P01"})


@dataclass(frozen=True, slots=True)
class Ahead(Generic[N]):
    """What a command wants to have read before it begins, with the others of its group.

    Attributes:
        load: reads what many commands need, by a few statements; returns one finding for each,
            in order. Commands with equal loaders are served together.
        need: what this command needs.
    """

    load: Callable[["Transaction", Sequence[N]], Awaitable[Sequence[Any]]]
    need: N


class Transaction:
    """An open transaction; statements run in order on one connection.

    On SQLite a statement that has begun runs to its end, whoever is cancelled; see ``inline``.

    Attributes:
        ahead: what was read for the command ahead of it; None where nothing was, or where
            something may have changed since.
    """

    __slots__ = (
        "_after_commit",
        "_is_command",
        "_later",
        "_savepoint",
        "_unread",
        "ahead",
        "connection",
        "dialect",
    )

    def __init__(
        self, connection: AsyncConnection, dialect: Dialect, *, is_command: bool = False
    ) -> None:
        self.connection = connection
        self.dialect: Dialect = dialect
        self.ahead: Any = None
        # One of a group: what it writes is undone alone. Most write nothing before the end.
        self._is_command = is_command
        self._savepoint: AsyncTransaction | None = None
        self._after_commit: list[Callable[[], None]] = []
        # What waits, command by command; the last one is this transaction's own.
        self._later: list[_Waiting] = [{}]
        self._unread: list[_Waiting] = [{}]

    async def execute(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> CursorResult[Any]:
        """Run a Core statement, with one set of parameters or many."""
        if any(self._later):
            await self._run(self._later)
        return await self._execute(statement, parameters)

    async def execute_raw(
        self, statement: str, parameters: tuple[Any, ...] | list[Any]
    ) -> CursorResult[Any]:
        """Run the driver's own SQL, for statements whose building would cost more than their run.

        Args:
            statement: with the driver's marks: ``$1`` on PostgreSQL, ``?`` on SQLite.
            parameters: one tuple, or a list of tuples to run it once for each.
        """
        if any(self._later):
            await self._run(self._later)
        if not statement.startswith("SELECT"):
            await self._protect()
        if self.dialect == "sqlite":
            assert self.connection.sync_connection is not None, "the connection is open"
            return await greenlet_spawn(
                self.connection.sync_connection.exec_driver_sql, statement, parameters
            )
        return await self.connection.exec_driver_sql(statement, parameters)

    def later(
        self, statement: Executable, parameters: Mapping[str, Any], *, is_unread: bool = False
    ) -> None:
        """Run a write at the end, in one go with the same statement's other parameters.

        In a group they wait for the group's end, so that its commands share their statements. A
        statement that a command uses first runs before every other that it uses after it, also
        when it is shared; what this transaction executes itself sees all it wrote before.

        Args:
            statement: built once, and used for all its parameters.
            is_unread: nothing in this transaction reads it, so ``execute`` needn't wait for it.
        """
        waiting = self._unread if is_unread else self._later
        waiting[-1].setdefault(statement, []).append(parameters)

    def write_later(self, writer: Writer, item: Any) -> None:
        """Hand something to its writer at the end, with what others left for the same writer.

        In a group those of commands with different keys come together; see ``later``.
        """
        self._later[-1].setdefault(writer, []).append(item)

    async def flush(self) -> None:
        """Run what waits for the end; the database calls it before it commits."""
        await self._run(self._later)
        await self._run(self._unread)

    def adopt(self, inner: "Transaction") -> None:
        """Take over what a command of a group left for the end and for after the commit."""
        self._later[-1:-1] = filter(None, inner._later)
        self._unread[-1:-1] = filter(None, inner._unread)
        self._after_commit.append(inner.committed)

    async def _run(self, commands: list[_Waiting]) -> None:
        waiting = [each for each in commands if each]
        commands[:] = [{}]
        for statement, listed in _in_order(waiting):
            if isinstance(statement, Executable):
                await self._execute(statement, listed if len(listed) > 1 else listed[0])
            else:
                await statement(self, listed)

    async def _execute(
        self, statement: Executable, parameters: Parameters | None
    ) -> CursorResult[Any]:
        if not isinstance(statement, Select):
            await self._protect()
        if self.dialect == "sqlite":
            return await _execute_inline(self.connection, statement, parameters)
        return await self.connection.execute(statement, parameters)

    async def scalar(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the first column of the first row; None where there is no row."""
        return (await self.execute(statement, parameters)).scalar()

    async def first(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Row[Any] | None:
        """Return the first row; None where there is none."""
        return (await self.execute(statement, parameters)).first()

    async def all(
        self, statement: Executable, parameters: Parameters | None = None
    ) -> Sequence[Row[Any]]:
        """Return every row; the caller bounds the number."""
        return (await self.execute(statement, parameters)).all()

    async def _protect(self) -> None:
        if self._is_command and self._savepoint is None:
            self._savepoint = await self.connection.begin_nested()

    async def end(self, *, is_refused: bool) -> None:
        """Keep or undo what a command of a group wrote; called by the database alone."""
        if self._savepoint is None:
            return
        if is_refused:
            await self._savepoint.rollback()
        else:
            await self._savepoint.commit()

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` once this transaction is durable; never after a rollback.

        It sees the context (request id and so on) of whoever asked for it.
        """
        self._after_commit.append(partial(copy_context().run, callback))

    def committed(self) -> None:
        """Run the callbacks; called by the database alone. A failing one never hurts the others."""
        for callback in self._after_commit:
            try:
                callback()
            except Exception:
                log.exception("after_commit_failed")


class Database:
    """One module's database.

    Args:
        url: ``sqlite+aiosqlite:///path`` or ``postgresql+asyncpg://…``.
        schema: the module's schema on PostgreSQL.
        pool_size: connections kept open on PostgreSQL.
        pool_overflow: more of them under load.
    """

    def __init__(
        self, url: str | URL, *, schema: str, pool_size: int = 5, pool_overflow: int = 5
    ) -> None:
        self.url = make_url(url)
        self.schema = schema.replace("-", "_")
        self.dialect: Dialect = (
            "sqlite" if self.url.get_backend_name() == "sqlite" else "postgresql"
        )
        if self.dialect == "sqlite":
            self._writer, self._reader = _sqlite_engines(self.url, self.schema)
        else:
            self._writer = _postgresql_engine(self.url, pool_size, pool_overflow)
            self._reader = self._writer
        self._write_lock = asyncio.Lock()
        self._group_queue: list[_Queued[Any]] = []
        self._group_task: asyncio.Task[None] | None = None

    @property
    def engine(self) -> AsyncEngine:
        """The writing engine, for migrations and the test kit."""
        return self._writer

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Open a writing transaction: commit on success, roll back on any error.

        Raises:
            DatabaseBusyError: another writer or lock held on for too long.
            DatabaseUnavailableError: no connection could be had, or it broke.
            StorageFullError: the disk is full.
        """
        async with self._guard(), self._open_for_writing() as connection:
            transaction = Transaction(connection, self.dialect)
            try:
                yield transaction
                await transaction.flush()
            except BaseException:
                await _finish(connection.rollback())
                raise
            await _finish(connection.commit())
        transaction.committed()

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[Transaction]:
        """Open a read-only transaction that sees one consistent state throughout."""
        async with self._guard(), _connect(self._reader) as connection:
            if self.dialect == "postgresql":
                await connection.execute(
                    text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                )
            try:
                yield Transaction(connection, self.dialect)
            finally:
                await _finish(connection.rollback())

    async def run(self, command: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run ``command`` in a transaction of its own, again where the database says "retry".

        Serialization failures and deadlocks (40001, 40P01) are tried at most five times with
        10-160 ms of jitter, so ``command`` must have no effect outside the transaction.
        """
        for attempt in range(1, SERIALIZATION_ATTEMPTS_MAX + 1):
            try:
                async with self.transaction() as transaction:
                    return await command(transaction)
            except DatabaseBusyError as error:
                if not error.context.get("retryable") or attempt == SERIALIZATION_ATTEMPTS_MAX:
                    raise
                await asyncio.sleep(random.uniform(0.01, 0.16))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    async def group(
        self,
        command: Callable[[Transaction], Awaitable[T]],
        *,
        key: str | None = None,
        ahead: Ahead[Any] | None = None,
    ) -> T:
        """Run ``command`` in a transaction shared with others that wait; return after the commit.

        What a command that raises had written is undone alone, so it never fails its neighbours.
        Where the shared transaction can't commit, the commands are replayed one by one, unless the
        database went away: then none is, since the commit may have been made. A command must have
        no effect outside the transaction, since it may run twice.

        Args:
            key: names all that the command reads and writes, such as an account it locks. What
                commands of different keys leave for ``later`` is written together; a command
                finds everything written by those before it that have its key, or none.
            ahead: what to read for it with the others; all of it belongs to ``key``.
        """
        queued: _Queued[T] = _Queued(command, key, ahead)
        self._group_queue.append(queued)
        if self._group_task is None or self._group_task.done():
            self._group_task = asyncio.ensure_future(self._drain_groups())
        return await asyncio.shield(queued.outcome)

    async def ping(self) -> None:
        """Make a round trip; raises what ``transaction`` raises."""
        async with self._guard(), _connect(self._reader) as connection:
            await Transaction(connection, self.dialect).execute(text("SELECT 1"))

    async def create_all(self, metadata: MetaData) -> None:
        """Create the tables without migrations; for tests of the runtime itself."""
        async with self._writer.begin() as connection:
            if self.dialect == "postgresql":
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"'))
            await connection.run_sync(metadata.create_all)

    async def close(self) -> None:
        """Finish waiting groups, then close every connection."""
        if self._group_task is not None:
            await asyncio.gather(self._group_task, return_exceptions=True)
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()

    @asynccontextmanager
    async def _open_for_writing(self) -> AsyncIterator[AsyncConnection]:
        if self.dialect == "sqlite":
            async with self._write_lock, _connect(self._writer) as connection:
                # SQLAlchemy's own begin is silenced below, so that this one takes the lock.
                await _finish(_execute_inline(connection, _BEGIN_IMMEDIATE))
                yield connection
        else:
            async with _connect(self._writer) as connection:
                yield connection

    @asynccontextmanager
    async def _guard(self) -> AsyncIterator[None]:
        try:
            yield
        except TradingError:
            raise
        except (DBAPIError, PoolTimeoutError, OSError) as error:
            translated = _translate(error)
            if translated is None:
                raise
            raise translated from error

    async def _drain_groups(self) -> None:
        while self._group_queue:
            batch = self._group_queue[:GROUP_SIZE_MAX]
            del self._group_queue[:GROUP_SIZE_MAX]
            is_alone = len(batch) == 1 and batch[0].ahead is None
            if is_alone or not await self._commit_together(batch):
                for queued in batch:
                    await self._commit_alone(queued)

    async def _commit_together(self, batch: "list[_Queued[Any]]") -> bool:
        outcomes: list[tuple[Any, BaseException | None]] = []
        try:
            async with self.transaction() as transaction:
                found = await _read_ahead(transaction, batch)
                waiting: set[str] = set()
                for queued in batch:
                    if queued.key is None or queued.key in waiting:
                        await transaction.flush()
                        waiting.clear()
                    outcomes.append(await _run_one(transaction, queued, found.get(queued)))
                    if queued.key is not None:
                        waiting.add(queued.key)
        except DatabaseUnavailableError as lost:
            # A commit whose answer is lost may have been made: doing it again could do it twice.
            for queued in batch:
                queued.resolve(None, lost)
            return True
        except Exception:
            log.warning("group_commit_replayed", size=len(batch), exc_info=True)
            return False
        for queued, (value, error) in zip(batch, outcomes, strict=True):
            queued.resolve(value, error)
        return True

    async def _commit_alone(self, queued: "_Queued[Any]") -> None:
        try:
            queued.resolve(await self.run(queued.command), None)
        except Exception as error:  # noqa: BLE001 - handed to the waiting caller
            queued.resolve(None, error)


class _Queued(Generic[T]):
    """A command that waits for its group, and the future its caller waits on."""

    __slots__ = ("_command", "_context", "ahead", "key", "outcome")

    def __init__(
        self,
        command: Callable[[Transaction], Awaitable[T]],
        key: str | None,
        ahead: Ahead[Any] | None,
    ) -> None:
        self._command = command
        self.key = key
        self.ahead = ahead
        self._context = copy_context()
        self.outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def command(self, transaction: Transaction) -> T:
        """Run the command in its caller's context, so that what it writes names its request."""

        async def run() -> T:
            return await self._command(transaction)

        return await asyncio.create_task(run(), context=self._context)

    def resolve(self, value: Any, error: BaseException | None) -> None:
        if self.outcome.done():
            return
        if error is not None:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(value)


async def _read_ahead(
    transaction: Transaction, batch: "Sequence[_Queued[Any]]"
) -> "dict[_Queued[Any], Any]":
    """Return what was read for the commands whose turn it is before anybody writes it."""
    together: dict[Any, list[_Queued[Any]]] = {}
    seen: set[str] = set()
    for queued in batch:
        if queued.key is None:
            # It may write anything.
            break
        if queued.ahead is not None and queued.key not in seen:
            together.setdefault(queued.ahead.load, []).append(queued)
        seen.add(queued.key)
    found: dict[_Queued[Any], Any] = {}
    for load, served in together.items():
        needs = [each.ahead.need for each in served if each.ahead is not None]
        found |= zip(served, await load(transaction, needs), strict=True)
    return found


async def _run_one(
    transaction: Transaction, queued: "_Queued[T]", ahead: Any
) -> tuple[T | None, Exception | None]:
    inner = Transaction(transaction.connection, transaction.dialect, is_command=True)
    inner.ahead = ahead
    try:
        value = await queued.command(inner)
        if queued.key is None:
            await inner.flush()
    except TradingError as error:
        await inner.end(is_refused=True)
        return None, error
    await inner.end(is_refused=False)
    transaction.adopt(inner)
    return value, None


def _in_order(commands: list[_Waiting]) -> list[tuple[Executable | Writer, list[Any]]]:
    """Return each statement once, with the parameters of all commands, in the order of each.

    So a row comes before what refers to it. Commands that have no order in common run one after
    another.
    """
    order: TopologicalSorter[Executable | Writer] = TopologicalSorter()
    together: _Waiting = {}
    for waiting in commands:
        for statement, listed in waiting.items():
            order.add(statement)
            together.setdefault(statement, []).extend(listed)
        for before, after in pairwise(waiting):
            order.add(after, before)
    try:
        return [(statement, together[statement]) for statement in order.static_order()]
    except CycleError:
        return [each for waiting in commands for each in waiting.items()]


async def _execute_inline(
    connection: AsyncConnection, statement: Executable, parameters: Parameters | None = None
) -> CursorResult[Any]:
    # AsyncConnection.execute insists on a driver that waits; this one mostly needn't.
    assert connection.sync_connection is not None, "the connection is open"
    return await greenlet_spawn(connection.sync_connection.execute, statement, parameters)


@asynccontextmanager
async def _connect(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Hold a connection; it goes back to its pool even when this task is cancelled meanwhile."""
    connection = engine.connect()
    try:
        await _finish(connection.start())
        yield connection
    finally:
        if connection.sync_connection is not None:
            await _finish(connection.close())


async def _finish(operation: Coroutine[Any, Any, T]) -> T:
    """Await to the end even when this task is cancelled; the cancellation comes afterwards."""
    task = asyncio.create_task(operation)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:  # noqa: BLE001 - raised by result() below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


def _translate(error: Exception) -> TradingError | None:
    """Return the platform's error for a database's trouble; None for a programmer's error."""
    if isinstance(error, PoolTimeoutError):
        return DatabaseUnavailableError("every connection is in use", retry_after_seconds=1)
    origin = error.orig if isinstance(error, DBAPIError) else error
    sqlite_code = getattr(origin, "sqlite_errorcode", None)
    if sqlite_code is not None:
        primary = sqlite_code & 0xFF
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return DatabaseBusyError("another writer holds the database", retry_after_seconds=1)
        if primary == sqlite3.SQLITE_FULL:
            return StorageFullError("the database's disk is full", retry_after_seconds=30)
        if primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            return DatabaseUnavailableError("the database can't be used", retry_after_seconds=5)
        return None
    sqlstate = getattr(origin, "sqlstate", None)
    if sqlstate in _RETRYABLE_SQLSTATES:
        return DatabaseBusyError("two transactions met", retry_after_seconds=1, retryable=True)
    if sqlstate in ("55P03", "57014"):
        return DatabaseBusyError("a lock was not free in time", retry_after_seconds=1)
    if sqlstate == "53100":
        return StorageFullError("the database's disk is full", retry_after_seconds=30)
    if sqlstate is not None and sqlstate[:2] in ("08", "57", "53"):
        return DatabaseUnavailableError("the database does not answer", retry_after_seconds=1)
    if isinstance(error, InterfaceError | OperationalError) and sqlstate is None:
        return DatabaseUnavailableError("the database does not answer", retry_after_seconds=1)
    if isinstance(error, OSError):
        if error.errno == errno.ENOSPC:
            return StorageFullError("the disk is full", retry_after_seconds=30)
        return DatabaseUnavailableError("the database can't be reached", retry_after_seconds=1)
    return None


def _sqlite_engines(url: URL, schema: str) -> tuple[AsyncEngine, AsyncEngine]:
    assert url.database, "a module's SQLite database is a file"
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The file is attached under the module's name to an empty main database, so that
    # `wallet.entries` means the same in every statement, raw ones too, on both databases.
    nameless = URL.create(inline.DRIVER)
    connect_args = {"timeout": SQLITE_BUSY_TIMEOUT_MS / 1000}
    # One writing connection, kept: its statement and page caches stay warm.
    writer = create_async_engine(nameless, poolclass=StaticPool, connect_args=connect_args)
    reader = create_async_engine(
        nameless,
        poolclass=AsyncAdaptedQueuePool,
        pool_size=4,
        max_overflow=4,
        pool_timeout=2,
        connect_args=connect_args,
    )
    for engine in (writer, reader):
        event.listen(engine.sync_engine, "connect", _attach(path, schema))
    event.listen(reader.sync_engine, "begin", _begin_deferred)
    return writer, reader


def _begin_deferred(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN")


def _attach(path: Path, schema: str) -> Callable[[Any, object], None]:
    def attach(connection: Any, _record: object) -> None:
        # The driver must not begin by itself: it would begin deferred, and only before writes.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f'ATTACH DATABASE ? AS "{schema}"', (str(path),))
        for pragma in (
            f'"{schema}".journal_mode=WAL',
            f'"{schema}".synchronous=FULL',
            f'"{schema}".cache_size=-16000',
            "foreign_keys=ON",
            f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return attach


def _postgresql_engine(url: URL, pool_size: int, pool_overflow: int) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_overflow,
        pool_timeout=0.5,
        pool_pre_ping=False,
        connect_args={
            "timeout": 5,
            "server_settings": {
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "idle_in_transaction_session_timeout": str(STATEMENT_TIMEOUT_MS),
                "timezone": "UTC",
            },
        },
    )
