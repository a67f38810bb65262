"""Plants bugs in the ledger, one at a time, and counts those that its tests catch.

``python -m benchmarks.mutation`` copies the sources, runs mutmut over the ledger's rules with the
tests that need no database, and prints the share that was caught. Takes some minutes; nightly.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1]
SOURCES = ("src/trading_api/ledger/domain.py",)
TESTS = "tests/ledger"
SELECTED = ("tests/ledger/test_domain.py", "tests/ledger/test_pins.py")
GOAL_PERCENT = 85
CAUGHT = {"killed", "timeout", "segfault", "caught by type check"}

_CONFIG = """
[tool.mutmut]
source_paths = {sources}
also_copy = ["src", "tests", "conftest.py", "pyproject.toml"]
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-k", "not sqlite and not postgresql", "-p", "no:randomly"]
"""


def prepare(folder: Path) -> None:
    """Copy what mutmut needs, with its configuration."""
    for name in ("src", TESTS):
        shutil.copytree(BACKEND / name, folder / name)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(BACKEND / name, folder / name)
    with (folder / "pyproject.toml").open("a") as file:
        file.write(_CONFIG.format(sources=json.dumps(SOURCES), tests=json.dumps(SELECTED)))


def main(arguments: list[str]) -> int:
    """Run, count, and fail below the goal; ``--keep FOLDER`` works there and leaves it."""
    keep = Path(arguments[1]) if arguments[:1] == ["--keep"] else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        if not (folder / "src").exists():
            prepare(folder)
        mutmut = Path(sys.executable).with_name("mutmut")
        subprocess.run([mutmut, "run"], cwd=folder, check=True)
        done = subprocess.run(
            [mutmut, "results", "--all", "true"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
    verdicts = [
        line.rpartition(":")[2].strip() for line in done.stdout.splitlines() if "__mutmut_" in line
    ]
    caught = sum(each in CAUGHT for each in verdicts)
    percent = 100 * caught / max(1, len(verdicts))
    sys.stdout.write(f"{caught} of {len(verdicts)} planted bugs caught: {percent:.1f} %\n")
    return 0 if percent >= GOAL_PERCENT else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
