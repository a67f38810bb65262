"""SQLite on the event loop's own thread, for everything that is quick; a thread for the rest.

A statement of ours takes SQLite some ten microseconds; handing it to a thread and back takes ten
times as long, several times per statement, and far longer while other threads want the
interpreter. So statements run where they are asked for. What may take long goes to a thread: the
commit, which waits for the disk, waiting for another process's lock, long lists of rows, removals,
and a SELECT that turns out to need more than ``INLINE_SECONDS``: it is interrupted, which harms no
transaction, and asked again in a thread.

What runs in a thread runs to its end whoever is cancelled meanwhile, since the connection is its
own until then.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import URL
from sqlalchemy.pool import AsyncAdaptedQueuePool, Pool
from sqlalchemy.util.concurrency import await_only, in_greenlet

T = TypeVar("T")

DRIVER = "sqlite+inline"

INLINE_SECONDS = 0.005
"""Longest that a SELECT may hold up the event loop; it then starts anew in a thread."""

ROWS_INLINE_MAX = 200
"""Longest list of parameters that is written on the event loop."""

_STEPS_BETWEEN_LOOKS = 4000
"""Steps of SQLite's machine between looks at the clock; about a fifth of a millisecond."""

_threads = ThreadPoolExecutor(4, thread_name_prefix="sqlite")
_writers = ThreadPoolExecutor(16, thread_name_prefix="sqlite-writer")
"""For beginning and committing: a database has one writer, and it mustn't wait for long reads."""


class InlineConnection(sqlite3.Connection):
    """A connection whose cursors fetch all rows at once, and which knows when to take a thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deadline: float | None = None
        self.busy_milliseconds = int(kwargs.get("timeout", 0) * 1000)
        self.set_progress_handler(self._is_late, _STEPS_BETWEEN_LOOKS)

    def cursor(self, *_args: Any) -> "InlineCursor":  # type: ignore[override]
        """Return a cursor."""
        return super().cursor(InlineCursor)  # type: ignore[arg-type]

    def commit(self) -> None:
        """Commit in a thread: the disk takes its time."""
        if self.in_transaction:
            in_thread(super().commit, _writers)

    def _is_late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline


class InlineCursor(sqlite3.Cursor):
    """A cursor that holds its rows, so that no reading goes on behind a statement."""

    connection: InlineConnection

    def __init__(self, connection: InlineConnection) -> None:
        super().__init__(connection)
        self._rows: deque[Any] = deque()

    def execute(self, statement: str, parameters: Any = ()) -> "InlineCursor":
        """Run a statement and fetch its rows."""
        run = partial(self._run, statement, parameters)
        kind = statement[:6].upper()
        if kind == "SELECT":
            self._select(run)
        elif kind == "BEGIN ":
            self._begin(run)
        elif kind in ("DELETE", "WITH R"):
            in_thread(run)
        else:
            run()
        return self

    def executemany(self, statement: str, parameters: Iterable[Any]) -> "InlineCursor":
        """Run a statement with each set of parameters."""
        listed = parameters if isinstance(parameters, Sequence) else list(parameters)
        run = partial(super().executemany, statement, listed)
        if len(listed) <= ROWS_INLINE_MAX:
            run()
        else:
            in_thread(run)
        return self

    def fetchone(self) -> Any:
        """Return the next row; None where there is none."""
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next rows."""
        size = self.arraysize if size is None else size
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        rows, self._rows = list(self._rows), deque()
        return rows

    def _run(self, statement: str, parameters: Any) -> None:
        super().execute(statement, parameters)
        self._rows = deque(super().fetchall()) if self.description else deque()

    def _select(self, run: Callable[[], None]) -> None:
        connection = self.connection
        connection.deadline = time.perf_counter() + INLINE_SECONDS
        try:
            run()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
                raise
        finally:
            connection.deadline = None
        in_thread(run)

    def _begin(self, run: Callable[[], None]) -> None:
        # Whoever else writes mustn't stop the event loop.
        connection = self.connection
        super().execute("PRAGMA busy_timeout=0")
        try:
            run()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
        finally:
            super().execute(f"PRAGMA busy_timeout={connection.busy_milliseconds}")
        in_thread(run, _writers)


def in_thread(work: Callable[[], T], threads: ThreadPoolExecutor = _threads) -> T:
    """Run work in a thread while the event loop goes on; here, where nobody awaits."""
    return await_only(_to_the_end(work, threads)) if in_greenlet() else work()


async def _to_the_end(work: Callable[[], T], threads: ThreadPoolExecutor) -> T:
    """Wait for work in a thread even when the task is cancelled; its next wait is cancelled."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    future = loop.run_in_executor(threads, work)
    is_cancelled = False
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled and task is not None:
        # Once more, at the task's next wait: SQLAlchemy closes a connection that is cancelled
        # within a statement. The count of requests stays what it was.
        task.uncancel()
        task.cancel()
    return future.result()


class InlineDialect(SQLiteDialect_pysqlite):
    """SQLAlchemy's dialect of it, for ``create_async_engine``."""

    driver = "inline"
    is_async = True
    supports_statement_cache = True

    @classmethod
    def get_pool_class(cls, url: URL) -> type[Pool]:
        """Return the pool for asyncio."""
        return AsyncAdaptedQueuePool

    def create_connect_args(self, url: URL) -> tuple[Any, Any]:
        """Connect from the event loop's thread, and let others go on with it."""
        arguments, options = super().create_connect_args(url)
        return arguments, {**options, "factory": InlineConnection, "check_same_thread": False}

    def get_driver_connection(self, connection: Any) -> Any:
        """Return the driver's own connection: the same."""
        return connection


registry.register("sqlite.inline", __name__, "InlineDialect")
