"""Bars as columns of integers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Columns:
    """Bars in ascending, unique order of time; six arrays of one length.

    Attributes:
        time: start of each bar, seconds since 1970 UTC (00:00 UTC of the trading day from 1D up).
        open: first price, in ticks.
        high: highest price, in ticks.
        low: lowest price, in ticks.
        close: last price, in ticks.
        volume: traded volume at the series' volume decimals.
    """

    time: Ints
    open: Ints
    high: Ints
    low: Ints
    close: Ints
    volume: Ints

    def __len__(self) -> int:
        return len(self.time)

    @property
    def size(self) -> int:
        """Return the bytes of its values."""
        return 48 * len(self)

    def arrays(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
        """Return the six arrays in their fixed order."""
        return self.time, self.open, self.high, self.low, self.close, self.volume

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(*(column[rows] for column in self.arrays()))

    def index_at(self, time: int) -> int:
        """Return the index of the first bar that starts at or after ``time``."""
        return int(np.searchsorted(self.time, time, side="left"))

    @classmethod
    def concat(cls, parts: Sequence["Columns"]) -> "Columns":
        """Return the parts one after another; they must already be in order."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return EMPTY
        columns = zip(*(part.arrays() for part in parts), strict=True)
        return cls(*(np.concatenate(column) for column in columns))

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]]) -> "Columns":
        """Return columns of (time, open, high, low, close, volume) rows."""
        table = np.array(rows, dtype=np.int64).reshape(len(rows), 6)
        return cls(*(np.ascontiguousarray(table[:, i]) for i in range(6)))


EMPTY = Columns(*(np.empty(0, dtype=np.int64) for _ in range(6)))


@dataclass(frozen=True, slots=True)
class Window:
    """Which bars a client wants.

    Attributes:
        from_time: first bar's earliest start, seconds, inclusive; ignored where ``count_back`` is
            given.
        to_time: exclusive end of the bars' starts, seconds.
        count_back: exactly so many bars before ``to_time``, as far as they exist; None: by time.
    """

    from_time: int
    to_time: int
    count_back: int | None = None
