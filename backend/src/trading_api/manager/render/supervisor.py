"""supervisord: one program per process and generation, plus the bus and nginx."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trading_api.manager.render import render_template
from trading_api.runtime.topology import LocalPaths, ProcessSpec, Topology, socket_path

GRACEFUL_SECONDS = 10
"""How long a module finishes what it has begun; the supervisor waits longer than that."""

_STOP_WAIT_SECONDS = GRACEFUL_SECONDS + 5


@dataclass(frozen=True, slots=True)
class SupervisorLayout:
    """The host's programs and folders.

    `bus_server` is None where the bus is somebody else's (`REDIS_URL`); `setpriv` None where the
    host has none; `declares_peers` where no manager writes `peers.json`.
    """

    python: str
    directory: str
    nginx: str
    nginx_folder: str
    bus_server: str | None
    setpriv: str | None
    user: str | None
    config: str
    source: str
    declares_peers: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """One `[program]` section."""

    name: str
    command: str
    directory: str
    environment: str
    priority: int
    start_seconds: int
    stop_signal: str
    stop_wait_seconds: int
    stop_as_group: bool
    log_file: str


def supervisor_socket(topology: Topology) -> Path:
    """Return where supervisord answers; only its owner may ask."""
    return socket_path(topology.paths.run, "supervisor.sock")


def bus_socket(paths: LocalPaths) -> Path:
    """Return where the bus of this fleet listens, unless `REDIS_URL` names another."""
    return socket_path(paths.run, "bus.sock")


def bus_command(server: str, paths: LocalPaths) -> list[str]:
    """Return how the bus's server is run: on its socket alone, with an append-only file."""
    return [
        server,
        *("--port", "0", "--unixsocket", str(bus_socket(paths)), "--unixsocketperm", "600"),
        *("--dir", str(paths.data / "bus"), "--appendonly", "yes", "--appendfsync", "everysec"),
        *("--save", "", "--daemonize", "no", "--maxmemory-policy", "noeviction"),
    ]


class SupervisorRenderer:
    """Render `supervisord.conf`."""

    name = "supervisor"

    def __init__(self, layout: SupervisorLayout) -> None:
        self._layout = layout

    def render(self, topology: Topology) -> Mapping[str, str]:
        """Return the one file."""
        paths = topology.paths
        text = render_template(
            "supervisord.conf.j2",
            source=self._layout.source,
            socket=_escape(str(supervisor_socket(topology))),
            run=_escape(str(paths.run)),
            log=_escape(str(paths.log)),
            user=self._layout.user,
            programs=self.programs(topology),
        )
        return {"supervisord.conf": text}

    def programs(self, topology: Topology) -> list[Program]:
        """Return all programs: the bus first, then nginx, then the modules."""
        found = [self._nginx(topology)]
        if self._layout.bus_server is not None:
            found.insert(0, self._bus(topology, self._layout.bus_server))
        return found + [self.program_of(topology, process) for process in topology.processes]

    def program_of(self, topology: Topology, process: ProcessSpec) -> Program:
        """Return the program of one process in its generation."""
        paths = topology.paths
        command = [
            self._layout.python,
            *("-m", "trading_api", "serve", ",".join(process.modules)),
            *("--name", process.name),
            *("--generation", str(process.generation)),
        ]
        if process.address.socket is not None:
            command += ["--socket", str(process.address.socket)]
        else:
            command += ["--host", process.address.host, "--port", str(process.address.port)]
        if process.workers > 1:
            command += ["--workers", str(process.workers)]
        if process.reload:
            command += ["--reload"]
        environment = {
            "TRADING_CONFIG": self._layout.config,
            "TRADING_LOCAL_DIR": str(paths.run.parent),
            "PYTHONUNBUFFERED": "1",
        }
        if self._layout.declares_peers:
            environment["PEERS"] = topology.declared_peers()
        if self._layout.bus_server is not None:
            environment["REDIS_URL"] = f"unix://{bus_socket(topology.paths)}"
        return self._program(
            process.program, command, environment, priority=100, log_file=process.log_file
        )

    def _bus(self, topology: Topology, server: str) -> Program:
        command = [*self._guarded(topology, "bus"), *bus_command(server, topology.paths)]
        return self._program(
            "bus", command, {}, priority=10, log_file=topology.paths.log / "bus.log"
        )

    def _nginx(self, topology: Topology) -> Program:
        folder = self._layout.nginx_folder
        command = [
            *self._guarded(topology, "nginx"),
            self._layout.nginx,
            *("-p", folder, "-c", f"{folder}/nginx.conf", "-e", "stderr"),
        ]
        return self._program(
            "nginx",
            command,
            {},
            priority=50,
            log_file=topology.paths.log / "nginx.log",
            stop_signal="QUIT",
        )

    def _guarded(self, topology: Topology, name: str) -> list[str]:
        record = topology.paths.run / "pids" / f"{name}.json"
        return [self._layout.python, "-m", "trading_api.manager.guard", str(record), "--"]

    def _program(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        priority: int,
        log_file: Path,
        stop_signal: str = "TERM",
    ) -> Program:
        # A supervisor that is killed takes its children along.
        tied = [self._layout.setpriv, "--pdeathsig", stop_signal, "--"]
        words = [*tied, *command] if self._layout.setpriv else [*command]
        is_module = priority == 100
        return Program(
            name=name,
            command=_escape(shlex.join(str(word) for word in words)),
            directory=_escape(self._layout.directory),
            environment=",".join(f"{key}={_quote(text)}" for key, text in environment.items()),
            priority=priority,
            # Longer than the imports take, so that a module that can't start counts as failed.
            start_seconds=5 if is_module else 1,
            stop_signal=stop_signal,
            stop_wait_seconds=_STOP_WAIT_SECONDS,
            # nginx's master alone is told to quit: it ends its workers once they are done.
            stop_as_group=is_module,
            log_file=_escape(str(log_file)),
        )


def _escape(text: str) -> str:
    """Double the percent sign, which supervisord expands."""
    return text.replace("%", "%%")


def _quote(text: str) -> str:
    """Quote a value the way supervisord reads it: it knows no escapes inside quotes."""
    quote = "'" if '"' in text else '"'
    if quote in text:
        raise ValueError("a value with both kinds of quotes can't be given to supervisord")
    return f"{quote}{_escape(text)}{quote}"
