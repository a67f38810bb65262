"""supervisord that forks modules out of itself instead of starting an interpreter for each.

    python -m trading_api.manager.supervise -n -c supervisord.conf

What a module imports takes most of the time of its start. Here it is imported once, before
anything is started; a module's process is then a fork that begins with all of it, at the first
start and after each crash. Other programs, and all where the sources have changed since, are
executed as the configuration says.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import os
import signal
import sys
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.options import ServerOptions
from supervisor.supervisord import go

from trading_api.manager.processes import tie_to_parent
from trading_api.manager.sources import list_sources

# What a process that serves needs before it knows which modules; a missing one shows at the start.
_PRELOADED = (
    # Imported late by what calls other modules; by then each process would do so for itself.
    "anyio._backends._asyncio",
    "httpcore",
    "trading_api.app",
    "trading_api.manager.cli",
    "trading_api.manager.serve",
    "trading_api.runtime.logs",
    "trading_api.runtime.registry",
    "trading_api.runtime.ws.protocol",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.server",
    "uvloop",
)
_BUILT_IN_PACKAGE = "trading_api.modules"
_SERVE = ("-m", "trading_api", "serve")


class ForkingOptions(ServerOptions):  # type: ignore[misc] # supervisor has no types
    """supervisord's options, with `execve` turned into a call where that is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.preloaded = ""
        self.supervisor_pid = os.getpid()

    def execve(self, filename: str, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Become the program: serve in this fork, or execute it."""
        arguments = find_serve_arguments(argv)
        if arguments is None or not self.preloaded or self.preloaded != fingerprint_code():
            super().execve(filename, argv, env)
            return
        self._serve(arguments, env)

    def _serve(self, arguments: list[str], env: Mapping[str, str]) -> None:
        code = 1
        try:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGUSR2, signal.SIG_DFL)
            tie_to_parent(self.supervisor_pid)
            os.environ.clear()
            os.environ.update(env)
            from trading_api.manager.cli import main

            main(arguments)
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except BaseException:  # noqa: BLE001 - nothing may return into supervisord's loop
            traceback.print_exc()
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def find_serve_arguments(argv: Sequence[str]) -> list[str] | None:
    """Return `serve …` of a module's command; None for any other, and for one that reloads."""
    words = [str(word) for word in argv]
    for start in range(len(words) - len(_SERVE) + 1):
        if tuple(words[start : start + len(_SERVE)]) == _SERVE:
            arguments = words[start + len(_SERVE) - 1 :]
            return None if "--reload" in arguments else arguments
    return None


def fingerprint_code() -> str:
    """Return what changes with the platform's sources or the installed packages."""
    digest = hashlib.sha256()
    for path in list_sources(Path(__file__).resolve().parents[1]):
        with suppress(OSError):
            status = path.stat()
            digest.update(f"{path} {status.st_mtime_ns} {status.st_size}\n".encode())
    packages = Path(sysconfig.get_path("purelib"))
    with suppress(OSError):
        digest.update(str(packages.stat().st_mtime_ns).encode())
    return digest.hexdigest()


def preload() -> str:
    """Import what modules need; return the fingerprint of what was imported.

    A module that can't be imported is left to say so in its own process.
    """
    fingerprint = fingerprint_code()
    for name in _PRELOADED:
        importlib.import_module(name)
    package = importlib.import_module(_BUILT_IN_PACKAGE)
    for folder in sorted(Path(str(package.__path__[0])).iterdir()):
        if (folder / "module.py").is_file():
            with suppress(Exception):
                importlib.import_module(f"{_BUILT_IN_PACKAGE}.{folder.name}.module")
    gc.collect()
    # Memory that no collection touches stays shared between the forks.
    gc.freeze()
    return fingerprint


def main() -> None:
    """Run supervisord until it is told to stop."""
    # Threads don't survive a fork; the linear algebra library would start some.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Elsewhere a fork of a process that has loaded system libraries may not run them.
    may_fork = sys.platform == "linux" and os.environ.get("TRADING_PRELOAD", "1") != "0"
    preloaded = preload() if may_fork else ""
    options = ForkingOptions()
    options.realize(sys.argv[1:], doc=__doc__)
    options.first = True
    options.test = False
    options.preloaded = preloaded
    go(options)
    options.close_httpservers()
    options.close_logger()


if __name__ == "__main__":
    main()
