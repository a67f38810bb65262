"""Starting, stopping and restarting the whole fleet; each step a function without a terminal.

The start path is also the recovery path: whatever an earlier run left behind (a killed
supervisor, stale pid files, sockets nobody listens on) is cleared before anything is started.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trading_api
from trading_api.manager import binaries, commands, probe, processes
from trading_api.manager.engine import EngineError, ProgramState
from trading_api.manager.logs import LogFile, LogFilter, tail
from trading_api.manager.prepared import find_prepared, save_prepared
from trading_api.manager.render import write_files
from trading_api.manager.render.nginx import NginxRenderer, local_layout
from trading_api.manager.render.supervisor import (
    SupervisorLayout,
    SupervisorRenderer,
    bus_socket,
    supervisor_socket,
)
from trading_api.manager.state import FleetProcess, FleetState, load_state, save_state
from trading_api.manager.surroundings import Surroundings
from trading_api.runtime.production import ensure_startable
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.runtime.topology import (
    Address,
    DeploymentConfig,
    ManifestLike,
    Topology,
    build_topology,
    load_config,
    socket_path,
)

READY_SECONDS = 120.0
"""How long a start may take until every module is ready."""

# The processes that start need the processor more than whoever waits for them.
_POLL_SECONDS = 0.1
_WATCH_SECONDS = 0.5
_LOG_LINES_ON_FAILURE = 20
_ACCESS_LOG_BYTES_MAX = 50 * 1024 * 1024

Report = Callable[[str], None]


class FleetError(Exception):
    """The fleet can't be brought where it was asked to be; the message is for people."""


@dataclass(frozen=True, slots=True)
class StartResult:
    """What a start came to."""

    state: FleetState
    was_up: bool
    is_config_changed: bool
    seconds: float


def default_config_path(environ: Mapping[str, str]) -> Path:
    """Return the config to use where none is named: `TRADING_CONFIG`, else `dev-config.yaml`."""
    if environ.get("TRADING_CONFIG"):
        return Path(environ["TRADING_CONFIG"])
    backend = Path(__file__).resolve().parents[3]
    if (backend / "dev-config.yaml").is_file():
        return backend / "dev-config.yaml"
    return Path.cwd() / "dev-config.yaml"


def load_topology(config_path: Path, around: Surroundings) -> Topology:
    """Join the config with the manifests of the enabled modules; imports the modules.

    Raises:
        ConfigurationError: everything that is wrong with the config, or the modules that can't be
            imported or don't exist.
    """
    config = load_config(config_path, environ=around.merged)
    known, manifests = _load_manifests(around)
    return build_topology(
        config,
        manifests,
        paths=around.paths,
        environ=around.environ,
        dotenv=around.dotenv,
        known=known,
        source=str(config_path),
    )


def start(
    config_path: Path,
    around: Surroundings,
    *,
    report: Report = lambda _: None,
    ready_seconds: float = READY_SECONDS,
) -> StartResult:
    """Bring the fleet up and wait until every module and nginx answer.

    Idempotent: a fleet that is up is left alone, programs of it that have stopped are started.
    What was started is stopped again where the start fails.

    Raises:
        ConfigurationError: the config, `.env` or a module is broken; nothing was started.
        FleetError: a port is taken, or a process didn't get ready; it names which and why.
    """
    began = time.monotonic()
    engine = around.engine
    if engine.is_up():
        state = load_state(around.paths)
        if state is not None:
            return _resume(state, config_path, around, began, report, ready_seconds)
        report("a supervisor without a known fleet is running; stopping it")
        engine.stop()
    config = load_config(config_path, environ=around.merged)
    ensure_startable(load_settings(PlatformSettings, around.merged), around.merged)
    _clear_leftovers(around, report)
    _ensure_ports_free(
        [(config.nginx.host, config.nginx.port)]
        + [
            ("127.0.0.1", server.port + index)
            for server in config.servers.values()
            if server.port is not None
            for index in range(server.instances)
        ]
    )
    topology = _prepare(config, config_path, around, report)
    state = write_run_files(topology, config_path, around)
    _test_nginx(around)
    save_state(topology.paths, state)
    report(f"starting {len(topology.processes)} processes, the bus and nginx")
    try:
        engine.start(environ=around.environ)
        wait_ready(state, around, report=report, timeout_seconds=ready_seconds)
    except (FleetError, EngineError, KeyboardInterrupt) as error:
        report("stopping what was started")
        engine.stop()
        if isinstance(error, EngineError):
            raise FleetError(str(error)) from error
        raise
    return StartResult(state, False, False, time.monotonic() - began)


def stop(around: Surroundings, *, report: Report = lambda _: None) -> bool:
    """Stop the fleet; return whether anything ran. Never signals a process that isn't ours."""
    engine = around.engine
    ran = engine.is_up() or engine.record is not None
    if ran:
        report("stopping")
        engine.stop()
    leftovers = _find_leftovers(around)
    if leftovers:
        report(f"ending {len(leftovers)} processes that an earlier supervisor left behind")
        processes.terminate(leftovers, grace_seconds=10)
    shutil.rmtree(around.paths.run / "pids", ignore_errors=True)
    return ran or bool(leftovers)


def restart(
    around: Surroundings,
    modules: Sequence[str],
    *,
    config_path: Path,
    report: Report = lambda _: None,
    ready_seconds: float = READY_SECONDS,
) -> FleetState:
    """Restart some modules, or the whole fleet with a freshly read config where none is named.

    Raises:
        ConfigurationError: as `start`; the running fleet is left alone where the config is broken.
        FleetError: the fleet isn't up, a module isn't in it, or one doesn't get ready again.
    """
    if not modules:
        load_topology(config_path, around)
        stop(around, report=report)
        return start(config_path, around, report=report, ready_seconds=ready_seconds).state
    state = load_state(around.paths)
    if state is None or not around.engine.is_up():
        raise FleetError("the fleet isn't up: run start")
    wanted = select_processes(state, modules)
    report(f"restarting {', '.join(process.name for process in wanted)}")
    try:
        around.engine.restart_programs([process.program for process in wanted])
    except EngineError as error:
        raise FleetError(str(error)) from error
    wait_ready(state, around, report=report, timeout_seconds=ready_seconds)
    return state


def select_processes(state: FleetState, modules: Sequence[str]) -> tuple[FleetProcess, ...]:
    """Return the processes of the named modules (or process names); of all where none is named.

    Raises:
        FleetError: a name that the fleet doesn't have, with the ones it has.
    """
    names = {process.name for process in state.processes}
    unknown = [each for each in modules if each not in state.modules and each not in names]
    if unknown:
        known = ", ".join(state.modules)
        raise FleetError(f"no such module: {', '.join(unknown)} (running: {known})")
    return tuple(
        process
        for process in state.processes
        if not modules or process.name in modules or set(process.modules) & set(modules)
    )


def prepare_modules(modules: tuple[str, ...], around: Surroundings, report: Report) -> None:
    """Make the keys that are missing, migrate each module's database, load what it starts with.

    Idempotent.

    Raises:
        FleetError: a migration or a seed failed.
    """
    from trading_api.runtime.secrets import ensure_secrets
    from trading_api.runtime.settings import PlatformSettings, load_settings

    settings = load_settings(PlatformSettings, around.application)
    made = ensure_secrets(around.paths.secrets, modules=modules, algorithm=settings.jwt_algorithm)
    if made:
        report(f"created keys: {', '.join(made)}")
    for module, applied in migrate(modules, around).items():
        if applied:
            report(f"migrated {module}: {', '.join(applied)}")
    if commands.run("seed", [], modules, around):
        raise FleetError("seeding failed")


def migrate(modules: Sequence[str], around: Surroundings) -> dict[str, list[str]]:
    """Bring the databases of some modules to the newest revision; return what was applied.

    Raises:
        FleetError: a migration failed; those before it stay applied.
    """
    from trading_api.runtime import registry
    from trading_api.runtime.database import Database
    from trading_api.runtime.database.migrations import Migrations, upgrade
    from trading_api.runtime.settings import PlatformSettings, load_settings

    environ = around.application
    settings = load_settings(PlatformSettings, environ)
    around.paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = registry.discover()

    async def upgrade_all() -> dict[str, list[str]]:
        applied: dict[str, list[str]] = {}
        for name in modules:
            package = known[name].__module__.removesuffix(".module")
            if not known[name].manifest.needs_database:
                continue
            database = Database(settings.database_url_of(name, environ), schema=name)
            try:
                applied[name] = await upgrade(database, Migrations.of_package(name, package))
            except Exception as error:
                raise FleetError(f"migrating {name} failed: {error}") from error
            finally:
                await database.close()
        return applied

    return asyncio.run(upgrade_all())


def write_run_files(topology: Topology, config_path: Path, around: Surroundings) -> FleetState:
    """Write all that the processes read: renders, the config's copy, peers, the fleet's state.

    Raises:
        FleetError: nginx or the bus's server isn't on this host.
    """
    run = topology.paths.run
    merged = around.merged
    try:
        nginx = binaries.find_nginx(merged)
        has_own_bus = not (merged.get("REDIS_URL") or merged.get("REDIS_HOST"))
        bus_server = str(binaries.find_bus_server()) if has_own_bus else None
    except binaries.BinaryNotFoundError as error:
        raise FleetError(str(error)) from error
    setpriv = binaries.find_setpriv()
    copy = run / "config.yaml"
    # The fleet goes on with the config it was started with, whatever becomes of the file.
    copy.write_text(config_path.read_text())
    layout = SupervisorLayout(
        python=sys.executable,
        directory=str(run),
        nginx=str(nginx),
        nginx_folder=str(run / "nginx"),
        bus_server=bus_server,
        setpriv=None if setpriv is None else str(setpriv),
        user=pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else None,
        config=str(copy),
        source=config_path.name,
    )
    write_files(run / "supervisor", SupervisorRenderer(layout).render(topology))
    (run / "supervisor" / "supervisord.conf").chmod(0o600)
    nginx_layout = local_layout(topology, source=config_path.name)
    write_files(run / "nginx", NginxRenderer(nginx_layout).render(topology))
    peers = run / "peers.json.new"
    peers.write_text(json.dumps(topology.peers(), indent=1))
    peers.replace(run / "peers.json")
    return _state_of(topology, config_path, around, has_own_bus=has_own_bus)


def wait_ready(
    state: FleetState,
    around: Surroundings,
    *,
    report: Report,
    timeout_seconds: float,
) -> None:
    """Wait until every process answers 200 on /readyz, then until nginx answers /health.

    Raises:
        FleetError: a program ended or gave up, or time ran out; with its last log lines.
    """
    deadline = time.monotonic() + timeout_seconds
    waiting = {process.name: process for process in state.processes}
    problems = dict.fromkeys(waiting, "not asked yet")
    watch = _ProgramWatch(state, around)
    while waiting:
        for process in list(waiting.values()):
            answer = probe.get(process.address, "/readyz")
            problems[process.name] = answer.reason
            if answer.status == 200:
                del waiting[process.name]
                report(f"{process.name} is ready")
        watch.ensure_alive()
        if waiting and time.monotonic() > deadline:
            name, process = next(iter(waiting.items()))
            raise FleetError(
                f"{name} didn't get ready in {timeout_seconds:.0f} s: {problems[name]}\n"
                + _last_words(around, name, Path(process.log_file))
            )
        if waiting:
            time.sleep(_POLL_SECONDS)
    while True:
        answer = ask_nginx(state, "/health" if state.has_gateway else "/")
        if answer.status == 200 or (not state.has_gateway and answer.status == 404):
            report("nginx is ready")
            return
        watch.ensure_alive()
        if time.monotonic() > deadline:
            raise FleetError(
                f"nginx isn't ready: {answer.reason}\n"
                + _last_words(around, "nginx", around.paths.log / "nginx.log")
            )
        time.sleep(_POLL_SECONDS)


def ask_nginx(state: FleetState, path: str, *, timeout_seconds: float = 2.0) -> probe.Answer:
    """Ask the public door from this host."""
    everywhere = {"*", "0.0.0.0", "::", "[::]"}  # noqa: S104 - compared with, not bound to
    host = "127.0.0.1" if state.host in everywhere else state.host
    return probe.get(
        Address(host=host, port=state.port),
        path,
        timeout_seconds=timeout_seconds,
        host=state.server_name,
        is_tls=state.is_tls,
    )


def log_files(around: Surroundings, names: Sequence[str] = ()) -> list[LogFile]:
    """Return the log files of the fleet; of the named modules, processes, `nginx` or `bus`.

    Raises:
        FleetError: a name that the fleet doesn't have.
    """
    log = around.paths.log
    own = {
        "bus": [LogFile("bus", log / "bus.log")],
        "nginx": [LogFile("nginx", log / "nginx.log"), LogFile("nginx", log / "nginx-access.log")],
        "supervisord": [LogFile("supervisord", log / "supervisord.log")],
    }
    state = load_state(around.paths)
    wanted = [name for name in names if name not in own]
    found = [file for name in names if name in own for file in own[name]]
    if state is not None and (wanted or not names):
        found += [
            LogFile(process.name, Path(process.log_file))
            for process in select_processes(state, wanted)
        ]
    elif wanted:
        raise FleetError("no fleet has been started here")
    if not names:
        found += own["bus"] + own["nginx"]
    return found


# --- helpers -----------------------------------------------------------------------------------


def _prepare(
    config: DeploymentConfig, config_path: Path, around: Surroundings, report: Report
) -> Topology:
    """Have folders, keys, databases and data ready; return the fleet that is to run on them."""
    prepared = find_prepared(config, around)
    if prepared is not None:
        topology = build_topology(
            config,
            prepared.manifests,
            paths=around.paths,
            environ=around.environ,
            dotenv=around.dotenv,
            known=prepared.known,
            source=str(config_path),
        )
        _prepare_folders(topology)
        return topology
    known, manifests = _load_manifests(around)
    topology = build_topology(
        config,
        manifests,
        paths=around.paths,
        environ=around.environ,
        dotenv=around.dotenv,
        known=known,
        source=str(config_path),
    )
    _prepare_folders(topology)
    prepare_modules(topology.modules, around, report)
    save_prepared(manifests, known, config, around)
    return topology


def _load_manifests(around: Surroundings) -> tuple[list[str], list[ManifestLike]]:
    # Not at the top: importing the modules takes longer than all that status or stop do.
    from trading_api.runtime import registry

    known = registry.discover()
    enabled = registry.select(known, around.merged.get("ENABLED_MODULES") or "all")
    return list(known), [module.manifest for module in enabled.values()]


def _resume(
    state: FleetState,
    config_path: Path,
    around: Surroundings,
    began: float,
    report: Report,
    ready_seconds: float,
) -> StartResult:
    stopped = [program.name for program in around.engine.status() if not program.is_running]
    if stopped:
        report(f"starting {', '.join(stopped)} again")
        around.engine.start_programs(stopped)
    wait_ready(state, around, report=report if stopped else _quiet, timeout_seconds=ready_seconds)
    is_changed = config_path.is_file() and _digest(config_path) != state.config_digest
    return StartResult(state, True, is_changed, time.monotonic() - began)


def _quiet(_: str) -> None:
    """Report nothing."""


def _clear_leftovers(around: Surroundings, report: Report) -> None:
    record = around.engine.record
    if record is not None:
        report("a supervisor that doesn't answer is left over; ending it")
        processes.terminate([record], grace_seconds=10)
    leftovers = _find_leftovers(around)
    if leftovers:
        report(f"ending {len(leftovers)} processes of an earlier run")
        processes.terminate(leftovers, grace_seconds=10)
    shutil.rmtree(around.paths.run / "pids", ignore_errors=True)
    folder = socket_path(around.paths.run / "sockets", "x").parent
    if folder.is_dir() and not folder.is_symlink():
        for socket in folder.glob("*.sock"):
            socket.unlink(missing_ok=True)


def _find_leftovers(around: Surroundings) -> list[processes.ProcessRecord]:
    folder = around.paths.run / "pids"
    living = [
        record
        for record in processes.read_living(folder)
        if record != processes.read_record(folder / "supervisord.json")
    ]
    nginx = processes.read_record(folder / "nginx.json")
    if nginx is not None:
        try:
            executable = binaries.find_nginx(around.merged)
        except binaries.BinaryNotFoundError:
            return living
        living += processes.orphans_of_group(nginx, executable=executable)
    return living


def _ensure_ports_free(wanted: Sequence[tuple[str, int]]) -> None:
    taken = []
    for host, port in wanted:
        try:
            owner = processes.find_port_owner(host, port)
        except PermissionError:
            taken.append(f"port {port} needs root (ports below 1024 are privileged)")
            continue
        if owner is not None:
            taken.append(str(owner))
    if taken:
        raise FleetError("; ".join(taken) + ": stop it or choose another port (BACKEND_PORT)")


def _prepare_folders(topology: Topology) -> None:
    paths = topology.paths
    for folder in (
        *(paths.run, paths.log, paths.data, paths.secrets),
        *(paths.run / "sockets", paths.run / "pids", paths.run / "nginx" / "temp"),
        *(paths.run / "supervisor", paths.data / "bus"),
    ):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets = (process.address.socket for process in topology.processes)
    for socket in (*sockets, bus_socket(topology.paths), supervisor_socket(topology)):
        if socket is not None:
            _ensure_private(socket.parent)
    access_log = paths.log / "nginx-access.log"
    if access_log.is_file() and access_log.stat().st_size > _ACCESS_LOG_BYTES_MAX:
        access_log.replace(access_log.with_name("nginx-access.log.1"))


def _ensure_private(folder: Path) -> None:
    """Make a folder of our own; one that somebody else put there isn't used."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.geteuid():
        raise FleetError(f"{folder} isn't ours: remove it or set TRADING_LOCAL_DIR")
    if status.st_mode & 0o077:
        folder.chmod(0o700)


def _test_nginx(around: Surroundings) -> None:
    problem = test_nginx_config(
        binaries.find_nginx(around.merged), around.paths.run / "nginx" / "nginx.conf"
    )
    if problem:
        raise FleetError(f"nginx refuses its configuration:\n{problem}")


def test_nginx_config(nginx: Path, config: Path) -> str | None:
    """Let nginx check a configuration; return what it says where that isn't well."""
    folder = str(config.parent)
    command = [str(nginx), "-t", "-q", "-p", folder, "-c", str(config), "-e", "stderr"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    return None if answer.returncode == 0 else answer.stderr.strip() or "nginx -t failed"


def _state_of(
    topology: Topology, config_path: Path, around: Surroundings, *, has_own_bus: bool
) -> FleetState:
    from trading_api.runtime.settings import PlatformSettings, load_settings

    environ = around.application
    settings = load_settings(PlatformSettings, environ)
    nginx = topology.config.nginx
    names = [name for name in nginx.server_names if "*" not in name]
    return FleetState(
        config=str(config_path.absolute()),
        config_digest=_digest(config_path),
        environment=topology.environment,
        version=trading_api.__version__,
        started_at=time.time(),
        host=nginx.host,
        port=nginx.port,
        is_tls=nginx.tls is not None,
        server_name=names[0] if names else "localhost",
        has_gateway="gateway" in topology.modules,
        bus=f"unix:{bus_socket(topology.paths)}"
        if has_own_bus
        else _without_password(settings.bus_url()),
        bus_socket=str(bus_socket(topology.paths)) if has_own_bus else None,
        databases={
            route.name: _without_password(settings.database_url_of(route.name, environ))
            for route in topology.routes
            if route.has_database
        },
        processes=tuple(
            FleetProcess(
                name=process.name,
                program=process.program,
                generation=process.generation,
                modules=process.modules,
                socket=None if process.address.socket is None else str(process.address.socket),
                host=process.address.host,
                port=process.address.port,
                log_file=str(process.log_file),
            )
            for process in topology.processes
        ),
    )


def _without_password(url: str) -> str:
    url = re.sub(r"//([^/@:]*):[^@/]*@", r"//\1:***@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", url)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class _ProgramWatch:
    """Notice a program that ends instead of getting ready, without asking all the time.

    The supervisor would retry it; at a start, once is enough to know.
    """

    def __init__(self, state: FleetState, around: Surroundings) -> None:
        self._around = around
        self._log_of = {process.program: Path(process.log_file) for process in state.processes}
        self._restarts_before = {each.name: each.restarts for each in around.engine.status()}
        self._asked_at = time.monotonic()

    def ensure_alive(self) -> None:
        """Ask the engine, at most every `_WATCH_SECONDS`.

        Raises:
            FleetError: a program has ended; with its last log lines.
        """
        if time.monotonic() - self._asked_at < _WATCH_SECONDS:
            return
        self._asked_at = time.monotonic()
        for program in self._around.engine.status():
            if not _has_failed(program, self._restarts_before.get(program.name, 0)):
                continue
            default = self._around.paths.log / f"{program.name}.log"
            raise FleetError(
                f"{program.name} ended instead of getting ready ({program.state.lower()})\n"
                + _last_words(self._around, program.name, self._log_of.get(program.name, default))
            )


def _has_failed(program: ProgramState, restarts_before: int) -> bool:
    ended = program.state in {"BACKOFF", "FATAL", "EXITED", "UNKNOWN"}
    return ended or program.restarts > restarts_before


def _last_words(around: Surroundings, name: str, file: Path) -> str:
    lines = tail([LogFile(name, file)], count=_LOG_LINES_ON_FAILURE, wanted=LogFilter())
    if not lines:
        return f"its log is empty: {file}"
    said = "\n".join(f"  {line.text}" for line in lines)
    return f"the last lines of {file}:\n{said}"
