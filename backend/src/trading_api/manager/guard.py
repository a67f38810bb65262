"""Start a foreign program (nginx, the bus) as the fleet's: note it, clear what its last run left.

    python -m trading_api.manager.guard RECORD -- PROGRAM ARGUMENT…

A killed nginx master leaves workers that go on holding the port; the next master could never
listen. So leftovers of the noted group are ended first. Then this process becomes the program.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trading_api.manager.processes import (
    ensure_supervised,
    orphans_of_group,
    read_record,
    terminate,
    write_record,
)


def main(arguments: Sequence[str]) -> None:
    """Replace this process by the program; doesn't return."""
    record_path, separator, *command = arguments
    if separator != "--" or not command:
        raise SystemExit("usage: guard RECORD -- PROGRAM [ARGUMENT…]")
    path = Path(record_path)
    ensure_supervised(path.parent)
    previous = read_record(path)
    if previous is not None:
        terminate(orphans_of_group(previous, executable=Path(command[0])), grace_seconds=2)
    write_record(path, os.getpid())
    os.execv(command[0], command)  # noqa: S606 - becoming the program is the point


if __name__ == "__main__":
    main(sys.argv[1:])
