"""A process that serves begins without the heavy libraries that only some of its work needs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trading_api.runtime.secrets import ensure_secrets

BACKEND = Path(__file__).resolve().parents[2]

HEAVY = (
    "ccxt",
    "pandas",
    "pyarrow",
    "exchange_calendars",
    "alembic",
    "typer",
    "cyclopts",
    "pytest",
    "hypothesis",
    "matplotlib",
)
"""Each costs every process 5 to 100 MiB and up to a second of its start."""


def heavy_imports_of(program: str, folder: Path, path: str = "") -> list[str]:
    """Return the heavy libraries that a program has imported at its end."""
    # psutil and the like of the tests mustn't come along: a process of its own.
    code = f"{program}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(BACKEND / "src"), path]),
        "TRADING_LOCAL_DIR": str(folder),
        "ENABLED_MODULES": "all",
        "LOG_LEVEL": "WARNING",
        "REDIS_URL": f"unix://{folder}/nobody.sock",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environ, cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_process_of_all_modules_when_it_starts_then_nothing_heavy_is_imported(
    tmp_path: Path,
) -> None:
    names = tuple(path.name for path in (BACKEND / "src/trading_api/modules").iterdir())
    ensure_secrets(tmp_path / "secrets", modules=names)
    serve = "import trading_api.manager.serve, trading_api.main"
    assert heavy_imports_of(serve, tmp_path) == []


@pytest.mark.parametrize("name", ["pandas", "ccxt"])
def test_heavy_import_when_planted_then_found(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "planted.py").write_text(f"import {name}")
    assert heavy_imports_of("import planted", tmp_path, str(tmp_path)) == [name]
