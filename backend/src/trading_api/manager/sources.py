"""Which files a running program was made of, to notice that they have changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def list_sources(folder: Path) -> Iterator[Path]:
    """Yield the files below a package's folder in a fixed order, without tests and caches."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if each not in {"__pycache__", "tests"})
        for name in sorted(files):
            yield Path(root) / name
