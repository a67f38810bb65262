"""The command line: `trading-api`, `python -m trading_api`, `scripts/backend_manager.py`.

Thin: it reads arguments, calls a function of the manager, prints, and turns errors into exit
codes: 0 good, 1 failed, 2 usage, 65 corrupt data, 78 configuration.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from trading_api.manager import fleet
from trading_api.manager.binaries import BinaryNotFoundError
from trading_api.manager.commands import ModuleFailedError
from trading_api.manager.engine import EngineError
from trading_api.manager.state import load_state
from trading_api.manager.surroundings import Surroundings, look_around
from trading_api.runtime.settings import ConfigurationError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CORRUPT_DATA = 65
"""sysexits.h EX_DATAERR."""

EXIT_CONFIGURATION = 78
"""sysexits.h EX_CONFIG."""

_DEBUGGER_PORT = 5678

app = typer.Typer(
    name="trading-api",
    help="Run the platform: one process per module behind nginx.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ConfigArgument = Annotated[
    Path | None, typer.Argument(help="Deployment config; dev-config.yaml where left out.")
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Deployment config; dev-config.yaml by default.")
]
ModulesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[MODULE]…", help="Modules or processes; all if none.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]


def main(arguments: list[str] | None = None) -> None:
    """Run one verb and exit with its code; the message of a failure goes to standard error."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        if words and not words[0].startswith("-") and words[0] not in _verbs():
            code = _run_module_command(words)
            if code is not None:
                sys.exit(code)
        app(args=words, prog_name="trading-api")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away (`… | head`); so do we, without a second complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except ConfigurationError as error:
        _complain(_configuration_text(error))
        sys.exit(EXIT_CONFIGURATION)
    except (BinaryNotFoundError, EngineError, fleet.FleetError, ModuleFailedError) as error:
        _complain(str(error))
        sys.exit(EXIT_FAILED)


# --- the fleet ---------------------------------------------------------------------------------


@app.command()
def start(
    config: ConfigArgument = None,
    wait: Annotated[
        float, typer.Option("--wait", help="Seconds until everything must be ready.", min=1)
    ] = fleet.READY_SECONDS,
) -> None:
    """Start everything, wait until it is ready, say what to try first."""
    around = look_around()
    path = config or fleet.default_config_path(around.merged)
    with _progress() as report:
        result = fleet.start(path, around, report=report, ready_seconds=wait)
    _show_urls(result.state)
    if result.was_up:
        typer.echo("The fleet is up already.")
        if result.is_config_changed:
            typer.echo(f"{path} has changed since: `trading-api restart` takes it up.")
        return
    from trading_api.manager.first_steps import first_steps

    typer.echo(f"Ready in {result.seconds:.1f} s. {first_steps(result.state)}")


@app.command()
def stop() -> None:
    """Stop everything that was started here."""
    around = look_around()
    with _progress() as report:
        ran = fleet.stop(around, report=report)
    typer.echo("Stopped." if ran else "Nothing was running.")


@app.command()
def restart(modules: ModulesArgument = None, config: ConfigOption = None) -> None:
    """Restart some modules, or everything with the config read again."""
    around = look_around()
    began = time.monotonic()
    with _progress() as report:
        state = fleet.restart(
            around,
            modules or [],
            config_path=config or _config_of_fleet(around),
            report=report,
        )
    _show_urls(state)
    typer.echo(f"Ready in {time.monotonic() - began:.1f} s.")


@app.command()
def status(
    as_json: JsonOption = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat every 2 s.")] = False,
) -> None:
    """Show every process; exit 1 where something is down."""
    from trading_api.manager.status import collect_status

    around = look_around()
    while True:
        found = collect_status(around)
        if as_json:
            typer.echo(json.dumps(found.to_json(), indent=None if watch else 1))
        else:
            if watch:
                typer.echo("\x1b[2J\x1b[H", nl=False)
            _show_status(found)
        if not watch:
            raise typer.Exit(0 if found.is_well else EXIT_FAILED)
        time.sleep(2)


@app.command()
def logs(
    modules: ModulesArgument = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    count: Annotated[int, typer.Option("-n", help="How many lines.", min=0)] = 50,
    level: Annotated[str, typer.Option("--level", help="At least this level.")] = "DEBUG",
    request_id: Annotated[
        str | None, typer.Option("--request-id", help="Only this request.")
    ] = None,
) -> None:
    """Show the logs of all processes as one, nginx's too."""
    from trading_api.manager import logs as logs_

    if level.upper() not in logs_.LEVELS:
        raise typer.BadParameter(f"must be one of {', '.join(logs_.LEVELS)}", param_hint="--level")
    files = fleet.log_files(look_around(), modules or [])
    wanted = logs_.LogFilter(level.upper(), request_id)
    show = _line_printer(files)
    for line in logs_.tail(files, count=count, wanted=wanted):
        show(line)
    if follow:
        for line in logs_.follow(files, wanted=wanted):
            show(line)


@app.command("logs-clean")
def logs_clean() -> None:
    """Remove the log files of a fleet that doesn't run."""
    around = look_around()
    if around.engine.is_up():
        raise fleet.FleetError("the fleet is up and writes to them: stop it first")
    removed = [path for path in around.paths.log.glob("*") if path.is_file()]
    for path in removed:
        path.unlink()
    typer.echo(f"Removed {len(removed)} files.")


@app.command()
def health() -> None:
    """Ask the running fleet for /health through nginx and print the answer."""
    around = look_around()
    state = _state(around)
    answer = fleet.ask_nginx(state, "/health", timeout_seconds=5)
    if not answer.status:
        raise fleet.FleetError(f"{state.base_url} doesn't answer: {answer.problem}")
    typer.echo(json.dumps(answer.body, indent=1))
    raise typer.Exit(0 if answer.status == 200 else EXIT_FAILED)


# --- one process -------------------------------------------------------------------------------


@app.command()
def serve(
    modules: Annotated[
        str, typer.Argument(metavar="MODULE[,MODULE]", help="`all`, names, or a process: broker_0.")
    ],
    socket: Annotated[Path | None, typer.Option(help="Unix socket to listen on.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port, where no socket is given.")] = 8000,
    workers: Annotated[int, typer.Option(help="More than one: under gunicorn.", min=1)] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Restart on changes.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the process.", hidden=True)] = None,
    generation: Annotated[int, typer.Option(help="Its generation.", hidden=True)] = 1,
) -> None:
    """Serve modules in the foreground: what containers, units and the supervisor run."""
    from trading_api.manager.serve import ServeOptions
    from trading_api.manager.serve import serve as serve_

    serve_(
        ServeOptions(
            modules=modules,
            name=name,
            generation=generation,
            socket=socket,
            host=host,
            port=port,
            workers=workers,
            reload=reload,
        )
    )


@app.command()
def dev(
    debug: Annotated[
        bool, typer.Option("--debug", help="Let a debugger attach on port 5678.")
    ] = False,
) -> None:
    """Serve ENABLED_MODULES in one process with reload, on BACKEND_PORT."""
    from trading_api.manager import processes
    from trading_api.manager.dev_bus import dev_bus
    from trading_api.manager.serve import ServeOptions
    from trading_api.manager.serve import serve as serve_

    around = look_around()
    merged = around.merged
    port_text = merged.get("BACKEND_PORT") or "8000"
    if not port_text.isdigit() or not 1 <= int(port_text) <= 65535:
        raise ConfigurationError(["BACKEND_PORT: must be a port number between 1 and 65535"])
    owner = processes.find_port_owner("127.0.0.1", int(port_text))
    if owner is not None:
        raise fleet.FleetError(f"{owner}: stop it or choose another port (BACKEND_PORT)")
    known, enabled = _select_modules(merged)
    typer.echo(f"modules: {', '.join(enabled)} (known: {', '.join(known)})")
    fleet.prepare_modules(tuple(enabled), around, _report_plainly)
    typer.echo(f"http://localhost:{port_text}")
    if debug:
        _open_debugger()
    processes.write_record(_dev_record(around), os.getpid())
    with dev_bus(around):
        serve_(ServeOptions(modules=",".join(enabled), port=int(port_text), reload=True))


@app.command("stop-dev")
def stop_dev() -> None:
    """Stop what `dev` started."""
    from trading_api.manager import processes

    record = processes.read_record(_dev_record(look_around()))
    if record is None or not processes.is_alive(record):
        typer.echo("Nothing was running.")
        return
    processes.terminate([record], grace_seconds=15)
    typer.echo("Stopped.")


@app.command("list-modules")
def list_modules(as_json: JsonOption = False) -> None:
    """List the modules there are."""
    known, enabled = _select_modules(look_around().merged)
    rows = [
        {
            "name": name,
            "enabled": name in enabled,
            "versions": [version.name for version in module.manifest.versions],
            "websocket": module.manifest.has_websocket,
            "summary": module.manifest.summary,
        }
        for name, module in known.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = _table("module", "enabled", "versions", "websocket", "owns")
    for row in rows:
        table.add_row(
            row["name"],
            "yes" if row["enabled"] else "no",
            ",".join(row["versions"]),
            "yes" if row["websocket"] else "no",
            row["summary"],
        )
    _console().print(table)


# --- data --------------------------------------------------------------------------------------


@app.command()
def migrate(modules: ModulesArgument = None) -> None:
    """Make missing keys and bring the databases of modules to their newest revision."""
    around = look_around()
    known, enabled = _select_modules(around.merged)
    _ensure_known(modules or [], known)
    fleet.prepare_modules(tuple(modules or enabled), around, _report_plainly)
    typer.echo("Up to date.")


@app.command()
def verify(modules: ModulesArgument = None, as_json: JsonOption = False) -> None:
    """Prove ledgers, orders, transfers and hash chains from scratch; exit 65 if any is wrong."""
    import asyncio

    from trading_api.manager import proofs

    around = look_around()
    known, enabled = _select_modules(around.merged)
    _ensure_known(modules or [], known)
    found = _or_fail(lambda: asyncio.run(proofs.prove(tuple(modules or enabled), around)))
    if as_json:
        typer.echo(json.dumps([each.to_dict() for each in found], indent=1))
    else:
        _show_proofs(found)
    raise typer.Exit(EXIT_CORRUPT_DATA if any(each.violations for each in found) else 0)


@app.command()
def backup(
    folder: Annotated[
        Path | None, typer.Argument(help="New folder; under backend/.local/backups by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy every module's database at one instant; the platform may go on meanwhile."""
    import asyncio
    from datetime import UTC, datetime

    from trading_api.manager import backup as backups

    around = look_around()
    _, enabled = _select_modules(around.merged)
    now = datetime.now(UTC)
    target = folder or around.paths.run.parent / "backups" / f"{now:%Y%m%dT%H%M%SZ}"

    async def make(progress: backups.Progress) -> None:
        process = backups.compose(tuple(enabled), around)
        try:
            await backups.back_up(process, target, now=now, progress=progress)
        finally:
            await backups.close(process)

    with _bar() as progress:
        _or_fail(lambda: asyncio.run(make(progress)))
    if as_json:
        typer.echo(json.dumps({"folder": str(target)}))
    else:
        typer.echo(f"Backed up {', '.join(enabled)} to {target}")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    modules: Annotated[
        list[str] | None, typer.Option("--module", help="Only these; all by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put a backup back over the databases and prove it; the fleet must be stopped."""
    import asyncio

    from trading_api.manager import backup as backups

    around = look_around()
    known, enabled = _select_modules(around.merged)
    _ensure_known(modules or [], known)
    if around.engine.is_up():
        raise fleet.FleetError("the fleet runs on these databases: stop it first")
    wanted = tuple(modules or enabled)
    around.paths.data.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(progress: backups.Progress) -> backups.Restored:
        process = backups.compose(wanted, around)
        try:
            return await backups.restore(process, folder, progress=progress)
        finally:
            await backups.close(process)

    with _bar() as progress:
        found = _or_fail(lambda: asyncio.run(put(progress)))
    broken = [each for violations in found.violations.values() for each in violations]
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "modules": found.modules,
                    "sequences": found.sequences,
                    "violations": [f"{each.id} {each.subject}: {each.message}" for each in broken],
                    "not_checked": found.not_checked,
                },
                indent=1,
            )
        )
    else:
        for each in broken[:100]:
            typer.echo(f"{each.id} {each.subject}: {each.message}", err=True)
        for reason in found.not_checked:
            typer.echo(reason, err=True)
        verdict = f"{len(broken)} violations found" if broken else "every proof holds"
        if found.not_checked:
            verdict += f", {len(found.not_checked)} not checked"
        typer.echo(f"Restored {', '.join(found.modules)}; {verdict}.")
    raise typer.Exit(EXIT_CORRUPT_DATA if broken else 0)


# --- code --------------------------------------------------------------------------------------


@app.command("new-module")
def new_module(
    name: Annotated[str, typer.Argument(help="Kebab-case, as in URLs.")],
    noun: Annotated[str, typer.Option(help="What it keeps, singular.")] = "item",
) -> None:
    """Write a module with every room that passes the checks and serves as it is."""
    from trading_api.manager.deployment import checkout
    from trading_api.manager.new_module import NewModule, write_module

    written = write_module(NewModule(name, noun), backend=checkout() / "backend")
    typer.echo(f"wrote {len(written.files)} files: {written.package}")
    for path in written.configs:
        typer.echo(f"added the server {name} to {path}")
    typer.echo("next: make -f project.mk render generate test-modules modules=" + name)


# --- files -------------------------------------------------------------------------------------


@app.command()
def render(
    config: ConfigArgument = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder; the checkout's by default.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit 1 if stale.")] = False,
    validate: Annotated[
        bool, typer.Option("--validate", help="Let nginx and supervisord read the result.")
    ] = False,
) -> None:
    """Write the deployment files of production: nginx, supervisor, compose, systemd, Kubernetes."""
    from trading_api.manager import deployment

    root = out or deployment.checkout()
    files = deployment.render_all(config or deployment.default_config())
    if check:
        from trading_api.manager.render import find_differences

        stale = find_differences(root, files)
        for path in stale:
            typer.echo(f"stale: {path}", err=True)
        if stale:
            raise fleet.FleetError("run `trading-api render` and commit what it writes")
        typer.echo(f"{len(files)} files are up to date.")
    else:
        from trading_api.manager.render import write_files

        for path in write_files(root, files):
            typer.echo(f"wrote {path}")
    if validate:
        deployment.validate(files)
        typer.echo("nginx and supervisord accept them.")


@app.command("gen-nginx-conf")
def gen_nginx_conf(
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    config: ConfigOption = None,
    validate: Annotated[bool, typer.Option("--validate", help="Run nginx -t on it.")] = False,
) -> None:
    """Write nginx's configuration of this host alone, its upstream files beside it."""
    from trading_api.manager import binaries
    from trading_api.manager.render import write_files
    from trading_api.manager.render.nginx import NginxRenderer, local_layout

    around = look_around()
    path = config or fleet.default_config_path(around.merged)
    topology = fleet.load_topology(path, around)
    files = dict(NginxRenderer(local_layout(topology, source=path.name)).render(topology))
    files[output.name] = files.pop("nginx.conf")
    write_files(output.parent, files)
    typer.echo(f"wrote {output}")
    if validate:
        for folder in (around.paths.run / "nginx" / "temp", around.paths.log):
            folder.mkdir(parents=True, exist_ok=True)
        problem = fleet.test_nginx_config(binaries.find_nginx(around.merged), output.absolute())
        if problem:
            raise fleet.FleetError(problem)
        typer.echo("nginx accepts it.")


# --- helpers -----------------------------------------------------------------------------------


def _dev_record(around: Surroundings) -> Path:
    # Not among the fleet's own records: starting the fleet doesn't end a `dev` beside it.
    return around.paths.run / "dev.json"


def _open_debugger() -> None:
    try:
        debugpy = importlib.import_module("debugpy")
    except ImportError:
        typer.echo("debugpy isn't installed, so there is no debugger's port", err=True)
        return
    debugpy.listen(("127.0.0.1", _DEBUGGER_PORT))
    typer.echo(f"a debugger may attach on port {_DEBUGGER_PORT}")


def _verbs() -> set[str]:
    return {
        command.name or (command.callback.__name__ if command.callback else "")
        for command in app.registered_commands
    }


def _run_module_command(words: list[str]) -> int | None:
    """Run a verb that a module brings; None where none does."""
    from trading_api.manager import commands

    around = look_around()
    _, enabled = _select_modules(around.merged)
    return commands.run(words[0], words[1:], tuple(enabled), around)


def _select_modules(merged: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    from trading_api.runtime import registry

    known = registry.discover()
    return known, registry.select(known, merged.get("ENABLED_MODULES") or "all")


def _ensure_known(modules: list[str], known: dict[str, Any]) -> None:
    unknown = [each for each in modules if each not in known]
    if unknown:
        raise fleet.FleetError(f"no such module: {', '.join(unknown)} (known: {', '.join(known)})")


def _state(around: Surroundings) -> Any:
    state = load_state(around.paths)
    if state is None:
        raise fleet.FleetError("no fleet has been started here: run start")
    return state


def _config_of_fleet(around: Surroundings) -> Path:
    state = load_state(around.paths)
    if state is not None and Path(state.config).is_file():
        return Path(state.config)
    return fleet.default_config_path(around.merged)


def _configuration_text(error: ConfigurationError) -> str:
    text = str(error)
    if len(error.mistakes) > 1 and "\n" not in text:
        return "\n".join(["the configuration is wrong:", *(f"  {m}" for m in error.mistakes)])
    return text


def _complain(message: str) -> None:
    first, _, rest = message.partition("\n")
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(first, err=True)
    if rest:
        typer.echo(rest, err=True)


def _report_plainly(text: str) -> None:
    typer.echo(text)


class _progress:  # noqa: N801 - used like a function
    """Show what is being done: a spinner on a terminal, plain lines elsewhere."""

    def __enter__(self) -> Callable[[str], None]:
        self._status: Any = None
        if not sys.stderr.isatty():
            return lambda text: typer.echo(text, err=True)
        from rich.console import Console

        console = Console(stderr=True)
        self._status = console.status("…")
        self._status.start()

        def report(text: str) -> None:
            console.print(f"[dim]{text}[/dim]", highlight=False)
            self._status.update(text)

        return report

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


class _bar:  # noqa: N801 - used like a function
    """Show how far a copy has come: a bar on a terminal, nothing elsewhere."""

    def __enter__(self) -> Callable[[str, int, int], None]:
        self._shown: Any = None
        if not sys.stderr.isatty():
            return lambda _what, _done, _total: None
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._shown = Progress(*columns, console=Console(stderr=True))
        self._shown.start()
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            name = what.partition(".")[0]
            if name not in tasks:
                tasks[name] = self._shown.add_task(name, total=total or None)
            self._shown.update(tasks[name], completed=done, total=total or None)

        return report

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()


T = TypeVar("T")


def _or_fail(work: Callable[[], T]) -> T:
    """Run work on databases; what stops it is a failure with its message, not a traceback."""
    from trading_api.kernel.errors import TradingError
    from trading_api.manager.backup import BackupError

    try:
        return work()
    except (BackupError, TradingError) as error:
        raise fleet.FleetError(str(error)) from error


def _show_proofs(found: list[Any]) -> None:
    table = _table("module", "proof", "proves", "violations", "seconds")
    for each in found:
        color = "red" if each.violations else "green"
        count = f"[{color}]{len(each.violations)}[/{color}]"
        table.add_row(
            each.module,
            each.proof,
            " ".join(each.ids),
            count if each.not_checked is None else "[yellow]not checked[/yellow]",
            f"{each.seconds:.2f}",
        )
    _console().print(table)
    for each in found:
        for violation in each.violations[:100]:
            typer.echo(f"{each.module}: {violation.id} {violation.subject}: {violation.message}")
    unchecked = [each for each in found if each.not_checked is not None]
    for each in unchecked:
        typer.echo(f"{each.module}: {each.proof} not checked: {each.not_checked}")
    broken = sum(len(each.violations) for each in found)
    verdict = f"{broken} violations" if broken else "Every proof holds"
    typer.echo(f"{verdict}, {len(unchecked)} not checked." if unchecked else f"{verdict}.")


def _console() -> Any:
    from rich.console import Console

    # A pipe has no width: don't cut what a script reads.
    return Console() if sys.stdout.isatty() else Console(width=200)


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _show_urls(state: Any) -> None:
    table = _table("what", "url")
    base = state.base_url
    table.add_row("platform", base)
    if state.has_gateway:
        table.add_row("health", f"{base}/health")
        table.add_row("documentation", f"{base}/docs")
    for module in state.modules:
        table.add_row(module, f"{base}/api/v1/{module}")
    _console().print(table)


def _show_status(found: Any) -> None:
    if not found.is_up and not found.rows:
        typer.echo("Nothing has been started here.")
        return
    columns = ("module", "instance", "pid", "state", "uptime", "restarts", "memory", "address")
    table = _table(*columns, "version", "ready", "latency", "why not")
    for row in found.rows:
        color = "green" if row.is_ready else "red"
        table.add_row(
            row.module,
            row.instance,
            str(row.pid or "-"),
            f"[{color}]{row.state}[/{color}]",
            _duration(row.uptime_seconds),
            "-" if row.restarts is None else str(row.restarts),
            "-" if row.memory_bytes is None else f"{row.memory_bytes / 1_048_576:.0f} MiB",
            _short(row.address),
            row.version or "-",
            f"[{color}]{'yes' if row.is_ready else 'no'}[/{color}]",
            "-" if row.latency_ms is None else f"{row.latency_ms:.0f} ms",
            row.reason,
        )
    _console().print(table)
    typer.echo("All well." if found.is_well else "Something is down.")


def _short(address: str) -> str:
    """Name a path relative to the working folder where that is shorter."""
    scheme, colon, path = address.partition(":")
    if not path.startswith("/"):
        return address
    relative = os.path.relpath(path)
    return f"{scheme}{colon}{min(relative, path, key=len)}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    if hours:
        return f"{hours}h {minutes}m"
    return f"{minutes}m {rest}s" if minutes else f"{rest}s"


def _line_printer(files: list[Any]) -> Callable[[Any], None]:
    names = list(dict.fromkeys(file.process for file in files))
    width = max((len(name) for name in names), default=0)
    palette = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green")
    color_of = {name: palette[index % len(palette)] for index, name in enumerate(names)}
    level_colors = {"WARNING": "yellow", "ERROR": "red"}

    def show(line: Any) -> None:
        typer.secho(f"{line.process:<{width}} ", fg=color_of[line.process], nl=False)
        typer.secho(line.text, fg=level_colors.get(line.level))

    return show
