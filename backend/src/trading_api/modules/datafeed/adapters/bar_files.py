"""Memory-mapped files of bars: what the database holds, laid out to be served.

A large series has a file of six int64 columns, and one each of its text as columns and as rows,
cut into blocks. They are made from the database's chunks, written aside and renamed, so that a
reader sees a whole file or none; their names tell the series and what it holds apart from every
other, and older ones are removed. Losing them costs the time to make them again.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.selection import BLOCK_BARS
from trading_api.modules.datafeed.domain.text import (
    COLUMN_COUNT,
    Scale,
    Text,
    encode_columns,
    encode_rows,
)


class BarFiles:
    """Column and text files below one directory; a ``SeriesFiles``.

    An ``identity`` names a series' present bars: letters and digits that no other state of it has.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self, series_id: str, identity: str, count: int) -> Columns | None:
        """Return a series' bars from its file; None where it must be written."""
        path = self._path(series_id, identity, count, "bars")
        if not path.exists() or path.stat().st_size != 48 * count:
            return None
        table = np.memmap(path, dtype="<i8", mode="r", shape=(6, count))
        return Columns(*(np.asarray(column) for column in table))

    @contextmanager
    def writing(
        self, series_id: str, identity: str, count: int
    ) -> Iterator[Callable[[Columns], None]]:
        """Give a function that takes a series' bars part by part; ``open`` finds them afterwards.

        Raises:
            ValueError: at the end, where the parts held another number of bars.
        """
        path = self._path(series_id, identity, count, "bars")
        with self._written(path) as aside:
            table = np.memmap(aside, dtype="<i8", mode="w+", shape=(6, count))
            row = 0

            def add(part: Columns) -> None:
                nonlocal row
                stop = row + len(part)
                if stop > count:
                    raise ValueError(f"{series_id} holds more than {count} bars")
                for number, column in enumerate(part.arrays()):
                    table[number, row:stop] = column
                row = stop

            yield add
            if row != count:
                raise ValueError(f"{series_id} holds {row} bars instead of {count}")
            table.flush()
        self._drop_others(series_id, identity, count)

    def open_texts(self, series_id: str, identity: str, count: int) -> "StoredTexts | None":
        """Return a series' finished texts; None where they must be written."""
        paths = [self._path(series_id, identity, count, kind) for kind in ("columns", "rows")]
        if not all(path.exists() and _starts(path).exists() for path in paths):
            return None
        return StoredTexts(_TextFile(paths[0], COLUMN_COUNT), _TextFile(paths[1], 1))

    def write_texts(
        self, series_id: str, identity: str, count: int, bars: Columns, scale: Scale
    ) -> Iterator[float]:
        """Write both text files block by block; yield the share that is done after each."""
        blocks = range(0, len(bars), BLOCK_BARS)

        def rows(block: Columns, scale: Scale) -> tuple[Text, ...]:
            return (encode_rows(block, scale),)

        for number, (kind, make) in enumerate((("columns", encode_columns), ("rows", rows))):
            path = self._path(series_id, identity, count, kind)
            with self._written(path) as aside, self._written(_ends(path)) as ends_aside:
                starts, position = [0], 0
                with aside.open("wb") as data, ends_aside.open("wb") as ends:
                    for first in blocks:
                        for text in make(bars[first : first + BLOCK_BARS], scale):
                            data.write(text.data)
                            ends.write(text.ends.astype("<u4").tobytes())
                            position += len(text.data)
                            starts.append(position)
                        yield (number + first / max(1, len(bars))) / 2
            with self._written(_starts(path)) as aside:
                np.array(starts, dtype="<u8").tofile(aside)

    def _path(self, series_id: str, identity: str, count: int, kind: str) -> Path:
        return self._directory / f"{_prefix(series_id)}{identity}.{count}.{kind}"

    @contextmanager
    def _written(self, path: Path) -> Iterator[Path]:
        """Give a path to write at; it becomes ``path`` when the block ends well."""
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._directory, suffix=".new")
        os.close(handle)
        aside = Path(name)
        try:
            yield aside
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    def _drop_others(self, series_id: str, identity: str, count: int) -> None:
        # Who still maps an old file keeps it; the name is gone.
        kept = self._path(series_id, identity, count, "bars").name.removesuffix("bars")
        prefix = _prefix(series_id)
        for path in self._directory.iterdir():
            if path.name.startswith(prefix) and not path.name.startswith(kept):
                path.unlink(missing_ok=True)


class StoredTexts:
    """A series' text by block, from files."""

    def __init__(self, columns: "_TextFile", rows: "_TextFile") -> None:
        self._columns = columns
        self._rows = rows

    def block(self, number: int, *, rows: bool) -> Sequence[Text]:
        """Return a block's six columns, or its rows."""
        return (self._rows if rows else self._columns).block(number)


class _TextFile:
    def __init__(self, path: Path, texts: int) -> None:
        self._texts = texts
        mapped: Any = np.memmap(path, dtype=np.uint8, mode="r")
        self._data = memoryview(mapped)
        self._ends = np.asarray(np.memmap(_ends(path), dtype="<u4", mode="r"))
        self._starts = np.fromfile(_starts(path), dtype="<u8")

    def block(self, number: int) -> list[Text]:
        first = number * self._texts
        begins = self._starts[first : first + self._texts + 1].tolist()
        # All blocks but the last are full.
        row = number * BLOCK_BARS * self._texts
        count = (min(row + BLOCK_BARS * self._texts, len(self._ends)) - row) // self._texts
        return [
            Text(
                self._data[begin:end],
                self._ends[row + each * count : row + (each + 1) * count],
            )
            for each, (begin, end) in enumerate(pairwise(begins))
        ]


def _prefix(series_id: str) -> str:
    """Return what the names of a series' files begin with, and those of no other's."""
    safe = "".join(each if each.isascii() and each.isalnum() else "_" for each in series_id)
    return f"{safe[:64]}-{hashlib.sha256(series_id.encode()).hexdigest()[:16]}."


def _ends(path: Path) -> Path:
    return path.with_name(path.name + "-ends")


def _starts(path: Path) -> Path:
    return path.with_name(path.name + "-starts")
