"""Runs benchmarks and writes their tables: ``python -m benchmarks [NAME] [--quick]``."""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import BACKEND

OUT = BACKEND.parent / "docs" / "benchmarks"

BENCHMARKS = {
    "http": ["--seconds", "10"],
    "fanout": ["--clients", "500", "--repeats", "3"],
    "ticks": ["--plots", str(OUT)],
    "postings": ["--seconds", "3", "--rounds", "3"],
    "logins": ["--seconds", "20"],
    "bars": ["--bars", "5000000", "--plots", str(OUT)],
    "orders": ["--seconds", "5"],
}
# Without orders, which starts a platform of its own behind nginx.
QUICK = {
    "http": ["--seconds", "1"],
    "fanout": ["--clients", "50", "--repeats", "1", "--ticks", "40"],
    "ticks": ["--clients", "1,40", "--ticks", "40", "--repeats", "1"],
    "postings": ["--seconds", "0.2", "--rounds", "1"],
    "logins": ["--seconds", "2", "--goal-ms", "1000"],
    "bars": ["--bars", "100000"],
}


def main() -> int:
    """Run from the command line; quick runs show that everything works and write nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", choices=sorted(BENCHMARKS), help="one alone")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    for name, options in (QUICK if arguments.quick else BENCHMARKS).items():
        if arguments.name not in (None, name):
            continue
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *options],
            cwd=BACKEND,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        sys.stdout.write(done.stdout)
        if done.returncode != 0:
            return done.returncode
        if not arguments.quick:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / f"{name}.txt").write_text(done.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
