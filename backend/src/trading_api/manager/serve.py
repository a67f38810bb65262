"""One process in the foreground: what every container, unit and supervised program runs.

The environment is made here, before anything of the application is imported: the process's own
variables over `servers.<name>.env` over `.env`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trading_api.manager import processes
from trading_api.runtime.environment import dotenv_paths, load_dotenv, merge_environment
from trading_api.runtime.settings import ConfigurationError
from trading_api.runtime.topology import (
    Address,
    LocalPaths,
    load_config,
    local_root,
    socket_path,
)

APP = "trading_api.main:app"

GRACEFUL_SECONDS = 10
# contracts: ping 25 s, pong 8 s, messages of 64 KiB.
_WS_PING_SECONDS = 25.0
_WS_PONG_SECONDS = 8.0
_WS_MESSAGE_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve and where; `modules` as `ENABLED_MODULES` reads it."""

    modules: str
    name: str | None = None
    generation: int = 1
    socket: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    reload: bool = False


def serve(options: ServeOptions) -> None:
    """Serve until told to stop; replaces this process by gunicorn for several workers.

    Raises:
        ConfigurationError: `.env` or the config named by `TRADING_CONFIG` is broken, or it has no
            such process.
    """
    options = resolve_process(options, os.environ)
    environ = process_environment(options, os.environ)
    os.environ.update(environ)
    if options.name is not None:
        pids = LocalPaths.under(local_root(environ)).run / "pids"
        processes.ensure_supervised(pids)
        processes.write_record(pids / f"{options.name}.json", os.getpid())
    if options.socket is not None:
        options.socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if options.workers > 1:
        _become_gunicorn(options)
    if "SUPERVISOR_ENABLED" in os.environ and sys.platform != "linux":
        # On Linux setpriv has seen to it, or the fork itself.
        processes.tie_to_parent(os.getppid())
    import uvicorn

    where: dict[str, Any] = (
        {"uds": str(options.socket)}
        if options.socket is not None
        else {"host": options.host, "port": options.port}
    )
    reloading: dict[str, Any] = (
        {"reload": True, "reload_dirs": [str(Path(__file__).resolve().parents[1])]}
        if options.reload
        else {}
    )
    uvicorn.run(APP, **where, **reloading, **server_settings(options.socket))


def resolve_process(options: ServeOptions, environ: Mapping[str, str]) -> ServeOptions:
    """Look up what the config says where a process (`broker_0`) is named instead of modules.

    Raises:
        ConfigurationError: see `serve`.
    """
    server_name, underscore, index_text = options.modules.rpartition("_")
    config_path = environ.get("TRADING_CONFIG")
    if not (underscore and index_text.isdigit() and config_path):
        return options
    server = load_config(Path(config_path), environ=environ).servers.get(server_name)
    index = int(index_text)
    if server is None or index >= server.instances:
        raise ConfigurationError([f"{config_path} has no process {options.modules!r}"])
    folder = LocalPaths.under(local_root(environ)).run / "sockets"
    return replace(
        options,
        modules=",".join(server.modules),
        name=options.modules,
        socket=None if server.port else socket_path(folder, f"{options.modules}_g1.sock"),
        port=(server.port or 0) + index,
        workers=server.workers,
    )


def process_environment(options: ServeOptions, own: Mapping[str, str]) -> dict[str, str]:
    """Return the whole environment of the process that serves.

    Raises:
        ConfigurationError: see `serve`.
    """
    server_env: Mapping[str, str] = {}
    if own.get("TRADING_CONFIG"):
        config = load_config(Path(own["TRADING_CONFIG"]), environ=own)
        first = options.modules.split(",")[0].strip()
        server_env = next(
            (server.env for server in config.servers.values() if first in server.modules), {}
        )
    merged = merge_environment(own, server=server_env, dotenv=load_dotenv(dotenv_paths()))
    merged["ENABLED_MODULES"] = options.modules
    if options.name is not None:
        merged["PROCESS_NAME"] = options.name
    merged["PROCESS_GENERATION"] = str(options.generation)
    # Shown by the live registry.
    merged["PROCESS_ADDRESS"] = str(
        Address(socket=options.socket)
        if options.socket is not None
        else Address(host=options.host, port=options.port)
    )
    return merged


def server_settings(socket: Path | None) -> dict[str, Any]:
    """Return uvicorn's settings, the same for every way to serve."""
    return {
        "loop": "uvloop",
        "http": "trading_api.runtime.http.protocol:ExpressProtocol",
        "ws": "trading_api.runtime.ws.protocol:RawFrameProtocol",
        "ws_max_size": _WS_MESSAGE_BYTES_MAX,
        "ws_ping_interval": _WS_PING_SECONDS,
        "ws_ping_timeout": _WS_PONG_SECONDS,
        # It doubles the CPU per message and costs 35 KiB a connection.
        "ws_per_message_deflate": False,
        "access_log": False,
        "server_header": False,
        "log_config": None,
        "lifespan": "on",
        "timeout_graceful_shutdown": GRACEFUL_SECONDS,
        # Longer than nginx keeps an idle upstream connection, so that it never loses that race.
        "timeout_keep_alive": 75,
        "backlog": 2048,
        # Only nginx can reach the socket; over TCP only the named proxies are believed.
        "forwarded_allow_ips": "*"
        if socket is not None
        else os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"),
    }


def _become_gunicorn(options: ServeOptions) -> None:
    bind = (
        f"unix:{options.socket}" if options.socket is not None else f"{options.host}:{options.port}"
    )
    command = [
        sys.executable,
        *("-m", "gunicorn", APP),
        *("--worker-class", "trading_api.manager.worker.ModuleWorker"),
        *("--workers", str(options.workers), "--bind", bind, "--umask", "0o077"),
        *("--graceful-timeout", str(GRACEFUL_SECONDS), "--timeout", "60"),
        *("--keep-alive", "75", "--backlog", "2048", "--no-control-socket"),
    ]
    os.execv(command[0], command)  # noqa: S606 - the pid stays the supervised one
