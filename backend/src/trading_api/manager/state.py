"""What the manager remembers of the fleet it started: `run/fleet.json`.

`status`, `stop`, `logs` and `restart` read it, so that they answer at once and without importing
a module. It holds no secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trading_api.runtime.topology import Address, LocalPaths

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class FleetProcess:
    """One process as it was started."""

    name: str
    program: str
    generation: int
    modules: tuple[str, ...]
    socket: str | None
    host: str
    port: int | None
    log_file: str

    @property
    def address(self) -> Address:
        """Return where it listens."""
        return Address(
            socket=None if self.socket is None else Path(self.socket),
            host=self.host,
            port=self.port,
        )


@dataclass(frozen=True, slots=True)
class FleetState:
    """The fleet as it was started.

    `bus` and `databases` are addresses without passwords; `bus_socket` is None where the bus is
    somebody else's; `started_at` is a Unix time in seconds.
    """

    config: str
    config_digest: str
    environment: str
    version: str
    started_at: float
    host: str
    port: int
    is_tls: bool
    server_name: str
    has_gateway: bool
    bus: str
    bus_socket: str | None
    databases: Mapping[str, str]
    processes: tuple[FleetProcess, ...]

    @property
    def base_url(self) -> str:
        """Return what a user on this host types."""
        scheme, default_port = ("https", 443) if self.is_tls else ("http", 80)
        port = "" if self.port == default_port else f":{self.port}"
        return f"{scheme}://{self.server_name}{port}"

    @property
    def modules(self) -> tuple[str, ...]:
        """Return the names of all modules, each once."""
        found = (module for process in self.processes for module in process.modules)
        return tuple(dict.fromkeys(found))

    def processes_of(self, modules: tuple[str, ...]) -> tuple[FleetProcess, ...]:
        """Return the processes of some modules; of all where none is named."""
        return tuple(
            process
            for process in self.processes
            if not modules or set(process.modules) & set(modules)
        )


def save_state(paths: LocalPaths, state: FleetState) -> None:
    """Write the state whole or not at all."""
    path = _file(paths)
    partial = path.with_suffix(".new")
    partial.write_text(json.dumps({"format": _FORMAT, **asdict(state)}, indent=1))
    partial.replace(path)


def load_state(paths: LocalPaths) -> FleetState | None:
    """Return the state of the last start; None where there is none or it can't be read."""
    try:
        raw: dict[str, Any] = json.loads(_file(paths).read_text())
        if raw.pop("format") != _FORMAT:
            return None
        raw["processes"] = tuple(
            FleetProcess(**{**each, "modules": tuple(each["modules"])}) for each in raw["processes"]
        )
        return FleetState(**raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _file(paths: LocalPaths) -> Path:
    return paths.run / "fleet.json"
