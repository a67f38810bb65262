#!/usr/bin/env python3
"""Install the backend into `backend/.venv` from the hashed lock; standard library only.

    python scripts/install.py run     what the platform needs
    python scripts/install.py test    what its tests and checks need as well

A stamp of the locks makes a second run instant. The lock's own `uv` installs (seconds); where it
can't be had, pip does the same from the same hashes.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1] / "backend"
LOCKS = {"run": BACKEND / "requirements.txt", "test": BACKEND / "requirements-test.txt"}
NODE_PACKAGES = BACKEND / "tests" / "js"
PYTHON_MIN = (3, 11)
PYTHON_END = (3, 14)


def main() -> int:
    """Install one level; print a line per step that takes time."""
    parser = argparse.ArgumentParser(description="Install the backend from its hashed lock.")
    parser.add_argument("level", choices=LOCKS)
    parser.add_argument("--venv", type=Path, default=BACKEND / ".venv")
    options = parser.parse_args()
    if not PYTHON_MIN <= sys.version_info[:2] < PYTHON_END:
        return complain(f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}")
    began = time.monotonic()
    if is_current(options.venv, options.level):
        return 0
    python = make_venv(options.venv)
    say(f"installing what the platform needs to {options.level}")
    if not sync_with_uv(python, options.level):
        sync_with_pip(python, LOCKS[options.level])
    install_editable(options.venv, python)
    if options.level == "test":
        install_node_packages(options.venv)
    stamp_of(options.venv).write_text(stamp(options.level))
    say(f"installed in {time.monotonic() - began:.0f} s")
    return 0


def is_current(folder: Path, level: str) -> bool:
    """Say whether the environment holds this level, or a higher one, of the present locks."""
    try:
        found = stamp_of(folder).read_text()
    except OSError:
        return False
    return (folder / "bin" / "python").exists() and found in {stamp(level), stamp("test")}


def stamp(level: str) -> str:
    """Return what identifies an installation: level, lock, project file, interpreter, place."""
    digest = hashlib.sha256()
    paths = [LOCKS[level], BACKEND / "pyproject.toml", Path(__file__)]
    if level == "test":
        paths.append(NODE_PACKAGES / "package-lock.json")
    for path in paths:
        digest.update(path.read_bytes())
    digest.update(f"{sys.version_info[:2]} {BACKEND}".encode())
    return f"{level} {digest.hexdigest()}\n"


def stamp_of(folder: Path) -> Path:
    """Return where the stamp lies."""
    return folder / ".installed"


def make_venv(folder: Path) -> Path:
    """Make the virtual environment, anew where it is of another Python or broken."""
    python = folder / "bin" / "python"
    config = folder / "pyvenv.cfg"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}."
    if config.is_file() and python.exists():
        found = re.search(r"^version(?:_info)?\s*=\s*(\S+)", config.read_text(), re.MULTILINE)
        if found and found[1].startswith(version) and stamp_of(folder).exists():
            return python
    if folder.exists():
        if not stamp_of(folder).exists():
            raise SystemExit(f"error: {folder} is somebody else's; remove it, or choose VENV=…")
        shutil.rmtree(folder)
    try:
        # Unpacking pip takes longer than all that follows; it runs from its bundled wheel.
        venv.EnvBuilder(with_pip=not bundled_pip(), symlinks=True).create(folder)
    except (subprocess.CalledProcessError, OSError) as error:
        raise SystemExit(
            f"error: can't make {folder}: {error}\n"
            "On Debian and Ubuntu: apt-get install python3-venv"
        ) from error
    stamp_of(folder).write_text("unfinished\n")
    return python


def script_of(python: Path, module: str, function: str) -> str:
    """Return a program that a shell starts, since a first line can't name a path with blanks."""
    head = f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n"
    return f"{head}import sys\nfrom {module} import {function}\n\nsys.exit({function}())\n"


def bundled_pip() -> Path | None:
    """Return the wheel of pip that this Python brings, or None where it is kept elsewhere."""
    places = [Path(sysconfig.get_path("stdlib")) / "ensurepip" / "_bundled"]
    places.append(Path("/usr/share/python-wheels"))
    found = [wheel for place in places for wheel in sorted(place.glob("pip-*.whl"))]
    return found[-1] if found else None


def pip_command(python: Path) -> list[object]:
    """Return how pip is run for the environment."""
    wheel = bundled_pip()
    return [python, wheel / "pip"] if wheel else [python, "-m", "pip"]


def sync_with_uv(python: Path, level: str) -> bool:
    """Bring the environment to exactly the lock with the lock's uv; False where that fails."""
    uv = python.parent / "uv"
    if not uv.exists():
        requirement = python.parent.parent / "uv.txt"
        requirement.write_text(pin_of("uv", LOCKS["test"]))
        if run([*pip_command(python), "install", *PIP_OPTIONS, "-r", requirement]):
            return False
    command = [uv, "pip", "sync", "--quiet", "--require-hashes", "--python", python]
    return run([*command, LOCKS[level]]) == 0


def sync_with_pip(python: Path, lock: Path) -> None:
    """Install the lock with pip."""
    say("uv can't be used here; pip takes a little longer")
    if run([*pip_command(python), "install", *PIP_OPTIONS, "-r", lock]):
        raise SystemExit("error: the packages can't be installed; see above")


def pin_of(name: str, lock: Path) -> str:
    """Return a package's pin with its hashes from a lock."""
    found = re.search(rf"^{name}==.*?(?=^\S|\Z)", lock.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit(f"error: {lock} doesn't pin {name}")
    return found[0]


def install_editable(folder: Path, python: Path) -> None:
    """Make the sources importable, and the project known, without a build backend.

    What an editable install of a wheel would leave behind: a path file, metadata with the entry
    points, and the scripts. A build backend would have to be fetched outside the hashed lock.
    """
    project = tomllib.loads((BACKEND / "pyproject.toml").read_text())["project"]
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    version_file = (BACKEND / "src" / "trading_api" / "__init__.py").read_text()
    version = re.search(r'^__version__ = "([^"]+)"', version_file, re.MULTILINE)
    number = version[1] if version else "0"
    distribution = project["name"].replace("-", "_")
    for old in site.glob(f"{distribution}-*.dist-info"):
        shutil.rmtree(old)
    info = site / f"{distribution}-{number}.dist-info"
    entry_points = dict(project.get("entry-points", {}))
    entry_points["console_scripts"] = project.get("scripts", {})
    sections = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in values.items())])
        for group, values in entry_points.items()
    ]
    files = {
        site / f"__editable__.{distribution}.pth": f"{BACKEND / 'src'}\n",
        info / "METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {number}\n",
        info / "INSTALLER": "scripts/install.py\n",
        info / "entry_points.txt": "\n\n".join(sections) + "\n",
    }
    for name, target in project.get("scripts", {}).items():
        module, _, function = target.partition(":")
        files[folder / "bin" / name] = script_of(python, module, function)
    records = []
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        relative = os.path.relpath(path, site)
        records.append(f"{relative},sha256={digest.decode()},{len(text.encode())}\n")
    for name in project.get("scripts", {}):
        (folder / "bin" / name).chmod(0o755)
    (info / "RECORD").write_text("".join(records) + f"{info.name}/RECORD,,\n")


def install_node_packages(folder: Path) -> None:
    """Install what tests run in a browser, with the npm of the lock.

    Exactly the locked versions, by their hashes. Tests that need them say so where they are
    missing, so that a host that reaches no npm registry can run all others.
    """
    path = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [folder / "bin" / "npm", "ci", "--silent", "--no-progress"]
    done = subprocess.run(  # noqa: S603 - the lock's own program
        [str(word) for word in command],
        cwd=NODE_PACKAGES,
        env={**os.environ, "PATH": path},
        check=False,
    )
    if done.returncode:
        say("the charting library for tests can't be installed; its tests will say so")


PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--require-hashes", "--no-input")


def run(command: list[object]) -> int:
    """Run a program and return its exit code."""
    return subprocess.run([str(word) for word in command], check=False).returncode  # noqa: S603


def say(text: str) -> None:
    """Report a step."""
    sys.stderr.write(f"{text}\n")


def complain(text: str) -> int:
    """Report why it can't be done."""
    sys.stderr.write(f"error: {text}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
