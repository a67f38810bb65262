"""What a window of bars holds, and its finished text."""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from trading_api.modules.datafeed.domain.cache import SizedCache
from trading_api.modules.datafeed.domain.columns import Columns, Window
from trading_api.modules.datafeed.domain.text import (
    Scale,
    Text,
    encode_columns,
    encode_rows,
)

TEXTS_SIZE_MAX = 24 * 1024 * 1024
"""About 270,000 bars as rows, or twice as many as columns; the same bytes for all series."""


class StoredTexts(Protocol):
    """The finished texts of a series, block by block."""

    def block(self, number: int, *, rows: bool) -> Sequence[Text]:
        """Return a block's six columns, or its rows alone."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive bars of an answer that lie in one block.

    Attributes:
        block: the block's bars.
        start: first row of the block that belongs to the answer.
        stop: row behind the last one; above ``start``.
        key: names the block as it stands: the same key always means the same bars; None: the
            bars may still change.
        ready: the series' finished texts and the block's number, where they are stored.
    """

    block: Columns
    start: int
    stop: int
    key: Hashable = None
    ready: tuple[StoredTexts, int] | None = field(default=None, repr=False)

    @property
    def bars(self) -> Columns:
        """Return the answer's rows of the block."""
        return self.block[self.start : self.stop]


@dataclass(frozen=True, slots=True)
class Selection:
    """What a window holds.

    Attributes:
        parts: its bars in ascending order, at most the cap altogether, the newest kept.
        next_time: where there are none, start of the nearest earlier bar; None: there is none.
    """

    parts: Sequence[Part] = ()
    next_time: int | None = None

    @property
    def bars(self) -> Columns:
        """Return the bars as one."""
        return Columns.concat([part.bars for part in self.parts])

    def __len__(self) -> int:
        return sum(part.stop - part.start for part in self.parts)


BARS_MAX = 5_000
"""Most bars of one answer, newest first; constant, so that clients can page by it."""

BLOCK_BARS = 4_096
"""Bars that are encoded together: three blocks cover the largest answer."""


def select(
    bars: Columns,
    window: Window,
    *,
    key: Hashable = None,
    closed: int | None = None,
    texts: StoredTexts | None = None,
) -> Selection:
    """Return what ``window`` holds of ``bars``: see ``Window`` for the rules.

    Args:
        key: names these bars, see ``Part``; None where they may change.
        closed: so many of them are final; None: all.
        texts: of these bars, where they are stored.
    """
    stop = bars.index_at(window.to_time)
    if window.count_back is not None:
        start = max(0, stop - window.count_back)
    else:
        start = min(bars.index_at(window.from_time), stop)
    start = max(start, stop - BARS_MAX)
    if start < stop:
        final = 0 if key is None else len(bars) if closed is None else closed
        return Selection(tuple(_parts(bars, start, stop, key, final, texts)))
    return Selection((), int(bars.time[start - 1]) if start else None)


def _parts(
    bars: Columns,
    start: int,
    stop: int,
    key: Hashable,
    final: int,
    texts: StoredTexts | None,
) -> Iterator[Part]:
    """Yield the rows [start, stop) block by block, the ones that aren't final without a key."""
    row, end = start, min(stop, final)
    while row < end:
        number = row // BLOCK_BARS
        low, high = number * BLOCK_BARS, min((number + 1) * BLOCK_BARS, final)
        upto = min(end, high)
        # A block that grows has another key with each bar.
        ready = None if texts is None else (texts, number)
        yield Part(bars[low:high], row - low, upto - low, (key, number, high - low), ready)
        row = upto
    if row < stop:
        yield Part(bars[row:stop], 0, stop - row)


class TextCache:
    """Texts of blocks, made on first use and kept within a bound.

    Args:
        size_max: bytes of all of them together.
    """

    def __init__(self, size_max: int = TEXTS_SIZE_MAX) -> None:
        self._kept: SizedCache[tuple[Text, ...]] = SizedCache(size_max)

    @property
    def size(self) -> int:
        """Return the bytes kept."""
        return self._kept.size

    def columns(self, part: Part, scale: Scale) -> list[bytes | memoryview]:
        """Return the six columns of a part's bars."""
        if part.key is None:
            return [text.data for text in encode_columns(part.bars, scale)]
        return [text.cut(part.start, part.stop) for text in self._columns(part, scale)]

    def rows(self, part: Part, scale: Scale) -> bytes | memoryview:
        """Return a part's bars as objects."""
        if part.key is None:
            return encode_rows(part.bars, scale).data
        if part.ready is not None:
            texts, number = part.ready
            return texts.block(number, rows=True)[0].cut(part.start, part.stop)
        key = (part.key, True, scale)
        found = self._kept.find(key)
        if found is None:
            text = encode_rows(part.block, scale)
            found = self._kept.keep(key, (text,), text.size)
        return found[0].cut(part.start, part.stop)

    def _columns(self, part: Part, scale: Scale) -> Sequence[Text]:
        if part.ready is not None:
            texts, number = part.ready
            return texts.block(number, rows=False)
        key = (part.key, False, scale)
        found = self._kept.find(key)
        if found is None:
            found = encode_columns(part.block, scale)
            self._kept.keep(key, found, sum(text.size for text in found))
        return found
