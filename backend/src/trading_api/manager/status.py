"""How the fleet is: one row per process, asked side by side, with nothing imported or changed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from trading_api.manager import probe, processes
from trading_api.manager.engine import ProgramState
from trading_api.manager.fleet import ask_nginx
from trading_api.manager.state import FleetProcess, FleetState, load_state
from trading_api.manager.surroundings import Surroundings

_PROBE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One line of the table.

    Attributes:
        module: its name (several by comma), or nginx, bus, database.
        state: the engine's word, lower case; `up` or `down` for what has no process of ours.
        uptime_seconds: None where it doesn't run.
        restarts: starts after the first since the fleet came up.
        memory_bytes: of the main process, see ``processes.memory_bytes``.
        is_ready: whether it answers and says so.
        latency_ms: of that answer.
        reason: why it isn't ready; empty where it is.
    """

    module: str
    instance: str
    pid: int | None
    state: str
    uptime_seconds: float | None
    restarts: int | None
    memory_bytes: int | None
    address: str
    version: str
    is_ready: bool
    latency_ms: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class FleetStatus:
    """The whole table; `is_up` says whether a fleet runs at all."""

    is_up: bool
    url: str | None
    rows: tuple[StatusRow, ...]

    @property
    def is_well(self) -> bool:
        """Say whether everything runs and is ready."""
        return self.is_up and all(row.is_ready for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "up": self.is_up,
            "well": self.is_well,
            "url": self.url,
            "processes": [asdict(row) for row in self.rows],
        }


def collect_status(around: Surroundings) -> FleetStatus:
    """Ask the engine, every process, nginx, the bus and the databases; takes about a second."""
    state = load_state(around.paths)
    programs = {program.name: program for program in around.engine.status()}
    if state is None:
        return FleetStatus(False, None, ())
    questions: list[Callable[[], StatusRow]] = [
        *(_ask_process(process, programs, state) for process in state.processes),
        lambda: _nginx_row(state, programs),
        lambda: _bus_row(state, programs),
        *(_ask_database(module, url, around) for module, url in state.databases.items()),
    ]
    with ThreadPoolExecutor(max_workers=16) as pool:
        rows = tuple(pool.map(lambda ask: ask(), questions))
    return FleetStatus(bool(programs), state.base_url, _merge_databases(rows))


def _ask_process(
    process: FleetProcess, programs: dict[str, ProgramState], state: FleetState
) -> Callable[[], StatusRow]:
    def ask() -> StatusRow:
        program = programs.get(process.program)
        answer = probe.get(process.address, "/readyz", timeout_seconds=_PROBE_SECONDS)
        version = answer.body.get("version")
        return _row(
            program,
            module=",".join(process.modules),
            instance=process.name,
            address=str(process.address),
            version=str(version) if version else state.version,
            answer_ok=answer.status == 200,
            latency_ms=answer.latency_ms if answer.status else None,
            reason="" if answer.status == 200 else answer.reason,
        )

    return ask


def _nginx_row(state: FleetState, programs: dict[str, ProgramState]) -> StatusRow:
    path = "/health" if state.has_gateway else "/"
    answer = ask_nginx(state, path, timeout_seconds=_PROBE_SECONDS * 2)
    expected = {200} if state.has_gateway else {200, 404}
    return _row(
        programs.get("nginx"),
        module="nginx",
        instance="nginx",
        address=f"{state.host}:{state.port}",
        version="",
        answer_ok=answer.status in expected,
        latency_ms=answer.latency_ms if answer.status else None,
        reason="" if answer.status in expected else answer.reason,
    )


def _bus_row(state: FleetState, programs: dict[str, ProgramState]) -> StatusRow:
    began = time.monotonic()
    problem, version = "", ""
    try:
        version = _ask_bus(state)
    except OSError as error:
        problem = str(error) or type(error).__name__
    program = programs.get("bus")
    return _row(
        program,
        module="bus",
        instance="bus",
        address=state.bus,
        version=version,
        answer_ok=not problem,
        latency_ms=None if problem else (time.monotonic() - began) * 1000,
        reason=problem,
        is_ours=state.bus_socket is not None,
    )


def _ask_bus(state: FleetState) -> str:
    """Say PING and read the version; a bus that wants a password still shows that it lives."""
    if state.bus_socket is not None:
        family, where = socket.AF_UNIX, state.bus_socket
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.settimeout(_PROBE_SECONDS)
        connection.connect(where)
    else:
        url = urlsplit(state.bus)
        if url.scheme in {"unix", "redis+unix"}:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(_PROBE_SECONDS)
            connection.connect(url.path)
        else:
            connection = socket.create_connection(
                (url.hostname or "localhost", url.port or 6379), timeout=_PROBE_SECONDS
            )
            if url.scheme == "rediss":
                # A connection is all that is asked of a TLS bus here.
                connection.close()
                return ""
    with connection:
        connection.sendall(b"PING\r\nINFO server\r\n")
        answer = b""
        while b"_version:" not in answer and b"NOAUTH" not in answer and len(answer) < 65_536:
            part = connection.recv(65_536)
            if not part:
                break
            answer += part
    if not answer:
        raise OSError("the connection was closed")
    for name in (b"valkey", b"redis"):
        found = re.search(name + rb"_version:([0-9.]+)", answer)
        if found:
            return f"{name.decode()} {found[1].decode()}"
    return ""


def _ask_database(module: str, url: str, around: Surroundings) -> Callable[[], StatusRow]:
    def ask() -> StatusRow:
        began = time.monotonic()
        problem = ""
        try:
            if url.startswith("sqlite"):
                _ask_sqlite(Path(url.partition("///")[2]))
            else:
                asyncio.run(_ask_postgresql(module, around))
        except Exception as error:  # noqa: BLE001 - whatever the driver raises is the answer
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        return _row(
            None,
            module="database",
            instance=module,
            address=url,
            version="",
            answer_ok=not problem,
            latency_ms=None if problem else (time.monotonic() - began) * 1000,
            reason=problem,
            is_ours=False,
        )

    return ask


def _ask_sqlite(path: Path) -> None:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_PROBE_SECONDS)
    with contextlib.closing(connection):
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


async def _ask_postgresql(module: str, around: Surroundings) -> None:
    import asyncpg

    from trading_api.runtime.settings import PlatformSettings, load_settings

    environ = around.application
    settings = load_settings(PlatformSettings, environ)
    url = settings.database_url_of(module, environ).replace("+asyncpg", "")
    async with asyncio.timeout(_PROBE_SECONDS * 2):
        connection = await asyncpg.connect(url)
        try:
            await connection.fetchval("SELECT 1")
        finally:
            await connection.close()


def _merge_databases(rows: Sequence[StatusRow]) -> tuple[StatusRow, ...]:
    """Show one row for all databases in one place that are alike, a row each where they aren't."""
    databases = [row for row in rows if row.module == "database"]
    others = [row for row in rows if row.module != "database"]
    if len(databases) < 2 or not all(row.is_ready for row in databases):
        return (*others, *databases)
    places = {_place(row.address) for row in databases}
    if len(places) != 1:
        return (*others, *databases)
    slowest = max(databases, key=lambda row: row.latency_ms or 0.0)
    names = ",".join(row.instance for row in databases)
    merged = StatusRow(**{**asdict(slowest), "instance": names, "address": places.pop()})
    return (*others, merged)


def _place(url: str) -> str:
    if not url.startswith("sqlite"):
        return url
    return f"sqlite:{Path(url.partition('///')[2]).parent}"


def _row(
    program: ProgramState | None,
    *,
    module: str,
    instance: str,
    address: str,
    version: str,
    answer_ok: bool,
    latency_ms: float | None,
    reason: str,
    is_ours: bool = True,
) -> StatusRow:
    if program is None:
        state = "down" if is_ours or not answer_ok else "up"
        if is_ours:
            reason = reason if not answer_ok else "answers, but no supervisor runs it"
        return StatusRow(
            module=module,
            instance=instance,
            pid=None,
            state=state,
            uptime_seconds=None,
            restarts=None,
            memory_bytes=None,
            address=address,
            version=version,
            is_ready=answer_ok and not is_ours,
            latency_ms=latency_ms,
            reason=reason,
        )
    return StatusRow(
        module=module,
        instance=instance,
        pid=program.pid,
        # A process that answers has started, whether or not its engine has seen enough of it yet.
        state="running" if answer_ok and program.is_running else program.state.lower(),
        uptime_seconds=max(0.0, time.time() - program.started_at) if program.pid else None,
        restarts=program.restarts,
        memory_bytes=processes.memory_bytes(program.pid) if program.pid else None,
        address=address,
        version=version,
        is_ready=answer_ok and program.is_running,
        latency_ms=latency_ms,
        reason=reason or ("" if program.is_running else program.reason),
    )
