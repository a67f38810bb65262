"""What the manager asks of whatever runs the processes, and supervisord as the first answer.

systemd, compose and Kubernetes are other engines fed by the same topology; none of them is
driven from here yet.
"""

from __future__ import annotations

import http.client
import os
import resource
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trading_api.manager import processes
from trading_api.manager.processes import ProcessRecord

# Forking without executing isn't safe on macOS, where system libraries start threads.
_SUPERVISORD = (
    "trading_api.manager.supervise" if sys.platform == "linux" else "supervisor.supervisord"
)
# It imports what the modules need first; one that fails ends and is noticed at once.
_SUPERVISOR_START_SECONDS = 60
_FILES_OPEN_MAX = 65_536


class EngineError(Exception):
    """The engine refused or can't be reached; the message says which and why."""


@dataclass(frozen=True, slots=True)
class ProgramState:
    """One program as its engine sees it.

    `state` is the engine's word (RUNNING, STARTING, BACKOFF, STOPPED, EXITED, FATAL);
    `started_at` a Unix time in seconds, 0 where it doesn't run; `restarts` counts starts after
    the first since the engine came up.
    """

    name: str
    state: str
    pid: int | None
    started_at: float
    restarts: int
    reason: str

    @property
    def is_running(self) -> bool:
        """Say whether a process is there, settled or not."""
        return self.state in {"RUNNING", "STARTING"} and self.pid is not None


class Engine(Protocol):
    """Run programs, restart those that die, and say how they are."""

    def is_up(self) -> bool:
        """Say whether the engine answers."""
        ...

    def start(self) -> None:
        """Start the engine and all its programs; returns once it answers."""
        ...

    def stop(self) -> None:
        """Stop all programs and the engine; returns once they are gone. Idempotent."""
        ...

    def start_programs(self, names: Sequence[str]) -> None:
        """Start programs that don't run; the others are left alone."""
        ...

    def restart_programs(self, names: Sequence[str]) -> None:
        """Stop and start programs; doesn't wait until they are ready."""
        ...

    def status(self) -> list[ProgramState]:
        """Return all programs; empty where the engine is down."""
        ...

    def add_program(self, name: str) -> None:
        """Take up and start a program that its configuration has gained."""
        ...

    def remove_program(self, name: str) -> None:
        """Stop and forget a program that its configuration has lost."""
        ...


class SupervisordEngine:
    """Drive a supervisord of our own over XML-RPC on its unix socket."""

    def __init__(
        self, *, python: str, config: Path, socket_path: Path, record: Path, log_folder: Path
    ) -> None:
        self._python = python
        self._config = config
        self._socket = socket_path
        self._record = record
        self._log_folder = log_folder
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def record(self) -> ProcessRecord | None:
        """Return the supervisord that we started, if it still lives."""
        found = processes.read_record(self._record)
        return found if found is not None and processes.is_alive(found) else None

    def is_up(self) -> bool:
        """Say whether our supervisord answers and isn't shutting down."""
        try:
            return bool(self._call("supervisor.getState")["statename"] == "RUNNING")
        except EngineError:
            return False

    def start(self, environ: Mapping[str, str] | None = None) -> None:
        """Start supervisord in a session of its own.

        Raises:
            EngineError: it ended at once or doesn't answer; with its last words.
        """
        self._reap()
        self._socket.unlink(missing_ok=True)
        output = self._log_folder / "supervisord.out"
        with output.open("wb") as stream:
            child = subprocess.Popen(
                [self._python, "-m", _SUPERVISORD, "-n", "-c", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_with_import_path(os.environ if environ is None else environ),
                cwd="/",
                preexec_fn=_raise_file_limit,
            )
        self._child = child
        with suppress(ProcessLookupError):
            processes.write_record(self._record, child.pid)
        deadline = time.monotonic() + _SUPERVISOR_START_SECONDS
        while time.monotonic() < deadline:
            if self.is_up():
                return
            if child.poll() is not None:
                break
            time.sleep(0.02)
        said = output.read_text(errors="replace").strip()
        raise EngineError(f"supervisord didn't start: {said or 'no answer on its socket'}")

    def stop(self) -> None:
        """Stop all programs side by side, then supervisord itself."""
        record = self.record
        try:
            states = self.status()
            waits = [state.name for state in states if state.is_running and state.name != "bus"]
            for name in waits:
                with suppress(EngineError):
                    self._call("supervisor.stopProcess", name, False)
            self._wait_stopped(set(waits))
            self._call("supervisor.shutdown")
        except EngineError:
            pass
        if record is not None:
            remaining = processes.wait_gone([record], timeout_seconds=20)
            processes.terminate(remaining, grace_seconds=10)
        self._reap()
        self._record.unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)

    def start_programs(self, names: Sequence[str]) -> None:
        """Start programs that are stopped, gave up or exited."""
        running = {state.name for state in self.status() if state.is_running}
        for name in names:
            if name not in running:
                self._call("supervisor.startProcess", name, False)

    def restart_programs(self, names: Sequence[str]) -> None:
        """Stop programs side by side, wait for their end, start them again."""
        running = {state.name for state in self.status() if state.is_running}
        for name in names:
            if name in running:
                self._call("supervisor.stopProcess", name, False)
        self._wait_stopped(set(names) & running)
        for name in names:
            self._call("supervisor.startProcess", name, False)

    def status(self) -> list[ProgramState]:
        """Return all programs, with restarts counted from supervisord's own log."""
        try:
            infos = self._call("supervisor.getAllProcessInfo")
        except EngineError:
            return []
        spawns = self._count_spawns()
        return [
            ProgramState(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"] or None,
                started_at=float(info["start"]) if info["pid"] else 0.0,
                restarts=max(0, spawns.get(info["name"], 1) - 1),
                reason=info["spawnerr"] or (info["description"] if not info["pid"] else ""),
            )
            for info in infos
        ]

    def add_program(self, name: str) -> None:
        """Read the configuration again and start the program it has gained."""
        self._call("supervisor.reloadConfig")
        self._call("supervisor.addProcessGroup", name)

    def remove_program(self, name: str) -> None:
        """Stop the program and forget it, whether or not the configuration still has it."""
        with suppress(EngineError):
            self._call("supervisor.stopProcess", name, True)
        self._call("supervisor.removeProcessGroup", name)

    def _reap(self) -> None:
        """Take the exit code of a supervisord that we started ourselves and that has ended."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _wait_stopped(self, names: set[str]) -> None:
        # A program may take its whole stopwaitsecs before it is killed.
        deadline = time.monotonic() + 25
        while time.monotonic() < deadline:
            states = {state.name: state.state for state in self.status()}
            if all(states.get(name) not in {"STOPPING", "RUNNING", "STARTING"} for name in names):
                return
            time.sleep(0.05)

    def _count_spawns(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        with suppress(OSError):
            text = (self._log_folder / "supervisord.log").read_text(errors="replace")
            # Only what the present supervisord has done.
            for line in text.rpartition("supervisord started with pid")[2].splitlines():
                name = line.partition("spawned: '")[2].partition("'")[0]
                if name:
                    counts[name] = counts.get(name, 0) + 1
        return counts

    def _call(self, method: str, *arguments: Any) -> Any:
        proxy = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self._socket))
        try:
            return getattr(proxy, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise EngineError(f"{method}{arguments}: {fault.faultString}") from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.ProtocolError) as error:
            raise EngineError(f"supervisord doesn't answer: {error}") from error
        finally:
            proxy("close")()


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = UnixConnection(self._path, timeout_seconds=20)
        # Where the base class looks for what it is to close.
        self._connection = (host, connection)
        return connection


class UnixConnection(http.client.HTTPConnection):
    """Speak HTTP over a unix socket."""

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path instead of a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


def _with_import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Let the children, which start in another folder, import what this process imports."""
    inherited = filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))
    parts = [Path(__file__).resolve().parents[2], *(Path(part).absolute() for part in inherited)]
    return {**environ, "PYTHONPATH": os.pathsep.join(str(part) for part in parts)}


def _raise_file_limit() -> None:
    """Let the fleet hold as many sockets as the host allows; a soft limit of 1024 is common."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_OPEN_MAX if hard == resource.RLIM_INFINITY else min(hard, _FILES_OPEN_MAX)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
