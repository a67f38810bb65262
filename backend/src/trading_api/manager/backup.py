"""Copies every module's database at one instant, under load, and puts such a copy back.

SQLite: for a few milliseconds the write locks of all files are held together, a reader begins on
each, the locks are let go; the readers then copy at leisure what all files were at that instant.
PostgreSQL: one REPEATABLE READ transaction copies the tables of all schemas, table by table. So
money that is on its way between two modules is in the copy once, not twice and not never.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc

from trading_api import __version__
from trading_api.ledger.checks import NotCheckedError
from trading_api.manager.surroundings import Surroundings

_APPLICATION = "trading_api.app"
_MANIFEST = "backup.json"
_PAGES = 512
"""SQLite pages of one step, 2 MiB: small enough for a moving bar."""

_VERSION_TABLE = "alembic_version"

Progress = Callable[[str, int, int], None]
"""Told what is copied, how much of it is done and how much there is."""


PATIENCE_SECONDS = 7.0
"""A killed process holds its leases for five seconds more."""

_LOOK_SECONDS = 0.25
_LOCK_SECONDS = 0.2
"""Longest wait for one file's write lock while those before it are held; then all are let go."""

_LOCK_ATTEMPTS = 100


class BackupError(Exception):
    """A backup can't be made or used; the message says why and what to do."""


@contextmanager
def _in_words() -> Iterator[None]:
    """Tell what a disk or a database refuses as a `BackupError`."""
    asyncpg = importlib.import_module("asyncpg")
    try:
        yield
    except (
        OSError,
        sqlite3.Error,
        sa.exc.SQLAlchemyError,
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
    ) as error:
        raise BackupError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class ModuleCopy:
    """One module's part of a backup.

    Attributes:
        kind: `sqlite` or `postgresql`.
        revision: of its schema.
        files: by name, with their SHA-256.
    """

    module: str
    kind: str
    revision: str
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put back.

    Attributes:
        sequences: by module, what its new facts count on from.
        violations: what the proofs of the restored data found, by module.
        not_checked: what could not be proven, and why.
    """

    modules: tuple[str, ...]
    sequences: dict[str, int]
    violations: dict[str, list[Any]]
    not_checked: tuple[str, ...] = ()


def compose(modules: Sequence[str], around: Surroundings) -> Any:
    """Build modules in one process of our own, so that they can ask one another; not started.

    Raises:
        ConfigurationError: a module's settings are wrong.
    """
    from trading_api.runtime import registry
    from trading_api.runtime.settings import PlatformSettings, load_settings

    environ = around.application
    known = registry.discover()
    return importlib.import_module(_APPLICATION).create_app(
        {name: known[name] for name in modules},
        settings=load_settings(PlatformSettings, environ),
        environ=environ,
        process_name="manager",
    )


async def close(process: Any) -> None:
    """Close what `compose` opened."""
    for hosted in process.hosted.values():
        if hosted.context.database is not None:
            await hosted.context.database.close()
    await process.peers.close()


async def back_up(process: Any, folder: Path, *, now: datetime, progress: Progress) -> Path:
    """Write a backup of every composed module with a database into a new folder; return it.

    Raises:
        BackupError: the folder isn't empty or can't be written, or a database can't be read or
            isn't at this program's revision.
    """
    with _in_words():
        return await _back_up(process, folder, now, progress)


async def _back_up(process: Any, folder: Path, now: datetime, progress: Progress) -> Path:
    await asyncio.to_thread(_make_folder, folder)
    hosted = _with_database(process)
    revisions = {name: await _revision_of(each) for name, each in hosted.items()}
    files = [name for name, each in hosted.items() if _database(each).dialect == "sqlite"]
    copies: list[ModuleCopy] = []
    if files:
        paths = {name: Path(str(_database(hosted[name]).url.database)) for name in files}
        await asyncio.to_thread(_copy_files, paths, folder, progress)
        copies += [
            ModuleCopy(name, "sqlite", revisions[name], _digests(folder, [f"{name}.db"]))
            for name in files
        ]
    by_server: dict[str, list[str]] = {}
    for name in hosted.keys() - set(files):
        url = _database(hosted[name]).url.render_as_string(hide_password=False)
        by_server.setdefault(url, []).append(name)
    for url, names in sorted(by_server.items()):
        written = await _copy_schemas(url, {n: hosted[n] for n in sorted(names)}, folder, progress)
        copies += [
            ModuleCopy(name, "postgresql", revisions[name], _digests(folder, written[name]))
            for name in sorted(names)
        ]
    manifest = {
        "version": __version__,
        "made_at": now.isoformat(),
        "modules": [asdict(each) for each in sorted(copies, key=lambda each: each.module)],
    }
    # Last, so that a copy that was broken off is no backup.
    text = json.dumps(manifest, indent=1) + "\n"
    await asyncio.to_thread((folder / _MANIFEST).write_text, text)
    return folder


def read_manifest(folder: Path) -> list[ModuleCopy]:
    """Read and check a backup: every file is there and as it was written.

    Raises:
        BackupError: it is no whole backup.
    """
    try:
        found = json.loads((folder / _MANIFEST).read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise BackupError(f"{folder} holds no whole backup ({_MANIFEST})") from error
    try:
        copies = [ModuleCopy(**each) for each in found["modules"]]
    except (KeyError, TypeError) as error:
        raise BackupError(f"{folder / _MANIFEST} isn't understood: {error!r}") from error
    for each in copies:
        try:
            digests = _digests(folder, list(each.files))
        except FileNotFoundError as error:
            raise BackupError(f"the backup lacks {error.filename}") from error
        for name, digest in digests.items():
            if digest != each.files[name]:
                raise BackupError(f"{folder / name} isn't as it was written")
    return copies


async def restore(
    process: Any, folder: Path, *, progress: Progress, patience_seconds: float = PATIENCE_SECONDS
) -> Restored:
    """Put a backup back over the composed modules' databases, then prove what is there.

    Nobody else may use the databases meanwhile, on any host: while a lease in one of them is held,
    nothing is touched. Facts are numbered on from far above, event streams begin anew, leases are
    free.

    Args:
        process: what `compose` built.
        folder: what `back_up` wrote.
        progress: told how far it is.
        patience_seconds: how long a lease may still be held, as by a process that was just killed.

    Raises:
        BackupError: the backup isn't whole, is of another revision or kind of database, or lacks
            a module; or processes still run on a database, or it can't be written.
    """
    with _in_words():
        return await _restore(process, folder, progress, patience_seconds)


async def _restore(
    process: Any, folder: Path, progress: Progress, patience_seconds: float
) -> Restored:
    from trading_api.runtime.database.restored import begin_anew

    copies = {each.module: each for each in read_manifest(folder)}
    hosted = _with_database(process)
    mistakes = [f"{name} isn't in the backup" for name in hosted if name not in copies]
    for name in hosted.keys() & copies.keys():
        copy, database = copies[name], _database(hosted[name])
        if copy.kind != database.dialect:
            mistakes.append(f"{name} was {copy.kind}, its database here is {database.dialect}")
        if copy.revision != hosted[name].migrations.head():
            mistakes.append(
                f"{name} was at revision {copy.revision}, this program is at"
                f" {hosted[name].migrations.head()}: restore with the version that made it"
            )
    if mistakes:
        raise BackupError("\n".join(["the backup can't be restored here:", *sorted(mistakes)]))
    await _ensure_unused(hosted, patience_seconds)
    sequences: dict[str, int] = {}
    for name, each in hosted.items():
        database = _database(each)
        if database.dialect == "sqlite":
            await database.close()
            target = Path(str(database.url.database))
            await asyncio.to_thread(_put_file, folder / f"{name}.db", target, progress)
        else:
            await _put_schema(each, folder, progress)
        raised = await begin_anew(
            database,
            outbox=each.parts.outbox,
            leases=each.parts.leases,
            hooks=each.parts.after_restore,
            ids=each.context.ids,
            clock=each.context.clock,
        )
        if raised is not None:
            sequences[name] = raised
    violations: dict[str, list[Any]] = {}
    not_checked: list[str] = []
    for name, each in hosted.items():
        for proof in each.parts.proofs:
            progress(f"{name}: proving {proof.name}", 0, 0)
            try:
                violations.setdefault(name, []).extend(await proof.run())
            except NotCheckedError as error:
                not_checked.append(f"{name}: {proof.name} not checked: {error}")
    return Restored(tuple(hosted), sequences, violations, tuple(not_checked))


async def _ensure_unused(hosted: dict[str, Any], patience_seconds: float) -> None:
    await asyncio.gather(
        *(_ensure_no_leases(name, each, patience_seconds) for name, each in hosted.items())
    )


async def _ensure_no_leases(name: str, hosted: Any, patience_seconds: float) -> None:
    database, leases = _database(hosted), hosted.parts.leases
    if leases is None or _has_no_file(database):
        return
    async with database.engine.connect() as connection:
        has_leases = await connection.run_sync(
            lambda sync: sa.inspect(sync).has_table("leases", schema=database.schema)
        )
    waited = 0.0
    while has_leases:
        async with database.snapshot() as snapshot:
            held = await leases.list_held(snapshot)
        if not held:
            return
        if waited >= patience_seconds:
            owners = ", ".join(sorted({each.owner for each in held}))
            raise BackupError(
                f"processes still run on the database of {name} ({owners}): stop them"
            )
        await asyncio.sleep(_LOOK_SECONDS)
        waited += _LOOK_SECONDS


def _has_no_file(database: Any) -> bool:
    return database.dialect == "sqlite" and not Path(str(database.url.database)).exists()


def _make_folder(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise BackupError(f"{folder} isn't empty: name a new folder")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _with_database(process: Any) -> dict[str, Any]:
    return {
        name: hosted
        for name, hosted in sorted(process.hosted.items())
        if hosted.context.database is not None
    }


def _database(hosted: Any) -> Any:
    return hosted.context.database


async def _revision_of(hosted: Any) -> str:
    from trading_api.runtime.database.revisions import ensure_at_head

    await ensure_at_head(_database(hosted), hosted.migrations)
    return str(hosted.migrations.head())


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        with (folder / name).open("rb") as file:
            found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _copy_files(paths: dict[str, Path], folder: Path, progress: Progress) -> None:
    with ExitStack() as stack:
        writers = [_connect(stack, path, _LOCK_SECONDS) for _, path in sorted(paths.items())]
        readers = {name: _connect(stack, path) for name, path in sorted(paths.items())}
        _lock_all(writers)
        for reader in readers.values():
            reader.execute("BEGIN")
            # A transaction begins to see with its first read.
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        for writer in writers:
            writer.execute("ROLLBACK")
        for name, reader in readers.items():
            target = _connect(stack, folder / f"{name}.db")

            def report(_status: int, remaining: int, total: int, name: str = name) -> None:
                progress(name, total - remaining, total)

            reader.backup(target, pages=_PAGES, progress=report)
            found = target.execute("PRAGMA integrity_check").fetchone()
            if found != ("ok",):
                raise BackupError(f"the copy of {name} is broken: {found[0]}")
            target.close()
            (folder / f"{name}.db").chmod(0o600)


def _lock_all(writers: Sequence[sqlite3.Connection]) -> None:
    """Take every write lock; none is held while a busy one is waited for longer than a moment."""
    for _ in range(_LOCK_ATTEMPTS):
        try:
            for writer in writers:
                writer.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            for writer in writers:
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            time.sleep(_LOCK_SECONDS)
        else:
            return
    raise BackupError("the databases were never free at the same moment: try again")


def _connect(stack: ExitStack, path: Path, timeout_seconds: float = 10) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=timeout_seconds, isolation_level=None)
    stack.callback(connection.close)
    return connection


def _put_file(source: Path, target: Path, progress: Progress) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    waiting = target.with_suffix(".restoring")
    waiting.unlink(missing_ok=True)
    with ExitStack() as stack:
        reader, writer = _connect(stack, source), _connect(stack, waiting)

        def report(_status: int, remaining: int, total: int) -> None:
            progress(target.stem, total - remaining, total)

        reader.backup(writer, pages=_PAGES, progress=report)
        writer.execute("PRAGMA journal_mode = WAL")
    waiting.chmod(0o600)
    for suffix in ("-wal", "-shm"):
        target.with_name(target.name + suffix).unlink(missing_ok=True)
        waiting.with_name(waiting.name + suffix).unlink(missing_ok=True)
    waiting.replace(target)


async def _copy_schemas(
    url: str, modules: dict[str, Any], folder: Path, progress: Progress
) -> dict[str, list[str]]:
    connection = await _asyncpg(url)
    written: dict[str, list[str]] = {name: [] for name in modules}
    total = sum(len(_tables(each)) for each in modules.values())
    done = 0
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            for name, hosted in modules.items():
                for table in _tables(hosted):
                    file = f"{name}.{table}.copy"
                    await connection.copy_from_table(
                        table,
                        schema_name=_database(hosted).schema,
                        output=str(folder / file),
                        format="binary",
                    )
                    (folder / file).chmod(0o600)
                    written[name].append(file)
                    done += 1
                    progress(f"{name}.{table}", done, total)
    finally:
        await connection.close()
    return written


async def _put_schema(hosted: Any, folder: Path, progress: Progress) -> None:
    from trading_api.runtime.database.migrations import upgrade

    database, schema = _database(hosted), _database(hosted).schema
    async with database.engine.begin() as engine:
        await engine.execute(sa.text(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE'))
    await upgrade(database, hosted.migrations)
    tables = _tables(hosted)
    connection = await _asyncpg(database.url.render_as_string(hide_password=False))
    try:
        async with connection.transaction():
            for table in tables:
                await connection.execute(f'ALTER TABLE "{schema}"."{table}" DISABLE TRIGGER USER')
                # What a migration wrote is in the copy too.
                await connection.execute(f'DELETE FROM "{schema}"."{table}"')  # noqa: S608
            for done, table in enumerate(tables, start=1):
                await connection.copy_to_table(
                    table,
                    schema_name=schema,
                    source=str(folder / f"{hosted.context.name}.{table}.copy"),
                    format="binary",
                )
                progress(f"{hosted.context.name}.{table}", done, len(tables))
            for table in tables:
                await connection.execute(f'ALTER TABLE "{schema}"."{table}" ENABLE TRIGGER USER')
            await _count_on(connection, schema)
    finally:
        await connection.close()


async def _count_on(connection: Any, schema: str) -> None:
    """Let identity columns count on from what was restored."""
    for row in await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = $1 AND is_identity = 'YES'",
        schema,
    ):
        table, column = row["table_name"], row["column_name"]
        sequence = f"pg_get_serial_sequence('\"{schema}\".\"{table}\"', '{column}')"
        last = f'SELECT coalesce(max("{column}"), 0) + 1 FROM "{schema}"."{table}"'  # noqa: S608
        await connection.execute(f"SELECT setval({sequence}, ({last}), false)")


def _tables(hosted: Any) -> list[str]:
    """Return the tables of a module, those first that others refer to."""
    return [*(table.name for table in hosted.migrations.metadata.sorted_tables), _VERSION_TABLE]


async def _asyncpg(url: str) -> Any:
    asyncpg = importlib.import_module("asyncpg")
    return await asyncpg.connect(url.replace("postgresql+asyncpg://", "postgresql://"))
