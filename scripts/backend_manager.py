#!/usr/bin/env python3
"""The manager's command line by its old path; the same as `trading-api`.

Run by any Python, it hands over to the backend's own environment where there is one.
"""

import os
import sys
from pathlib import Path

BACKEND = Path(__file__).resolve().parents[1] / "backend"


def main() -> None:
    """Become `python -m trading_api` of the backend's environment."""
    own = BACKEND / ".venv" / "bin" / "python"
    python = str(own) if own.exists() else sys.executable
    source = str(BACKEND / "src")
    parts = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}
    os.execve(python, [python, "-m", "trading_api", *sys.argv[1:]], environ)  # noqa: S606


if __name__ == "__main__":
    main()
