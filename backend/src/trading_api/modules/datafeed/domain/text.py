"""Bars as finished JSON text, so that an answer is joined from slices instead of encoded.

A block of bars is encoded once, into six columns (UDF's shape) or into rows (the native one); any
window of it is then a slice between two offsets. Prices are ticks divided by a power of ten, which
gives the double nearest to the exact decimal, in its shortest spelling.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from trading_api.modules.datafeed.domain.columns import Columns, Ints

Ends = npt.NDArray[np.uint32]
Numbers = Ints | npt.NDArray[np.float64]

COLUMN_COUNT = 6
_COMMA, _BRACE = ord(","), ord("}")
_ROW = b'{"time":%b,"open":%b,"high":%b,"low":%b,"close":%b,"volume":%b}'
_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class Text:
    """JSON values with a comma between each two.

    Attributes:
        data: the bytes; may lie in a memory-mapped file.
        ends: where each value ends in ``data``; the comma follows.
    """

    data: "bytes | memoryview"
    ends: Ends

    def cut(self, start: int, stop: int) -> "bytes | memoryview":
        """Return the values [start, stop) with their commas; at least one."""
        begin = int(self.ends[start - 1]) + 1 if start else 0
        end = int(self.ends[stop - 1])
        if begin == 0 and end == len(self.data):
            return self.data
        return memoryview(self.data)[begin:end]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def size(self) -> int:
        """Return its bytes in memory."""
        return len(self.data) + self.ends.nbytes + _OVERHEAD


class Scale(NamedTuple):
    """How integers of a series are written.

    Attributes:
        price_decimals: of its prices.
        volume_decimals: of its volumes; 0 writes them as integers.
    """

    price_decimals: int
    volume_decimals: int

    def volumes(self, volume: Ints) -> Numbers:
        """Return volumes as numbers of the wire."""
        return volume / 10**self.volume_decimals if self.volume_decimals else volume

    def prices(self, bars: Columns) -> tuple[Numbers, Numbers, Numbers, Numbers]:
        """Return open, high, low and close as numbers of the wire."""
        scale = 10**self.price_decimals
        return bars.open / scale, bars.high / scale, bars.low / scale, bars.close / scale


def encode_columns(bars: Columns, scale: Scale) -> tuple[Text, ...]:
    """Return the six columns of bars, times in seconds; at least one bar."""
    numbers = (bars.time, *scale.prices(bars), scale.volumes(bars.volume))
    return tuple(_text(_encode(column), _COMMA) for column in numbers)


def encode_rows(bars: Columns, scale: Scale) -> Text:
    """Return bars as JSON objects, times in milliseconds; at least one bar."""
    numbers = (bars.time * 1_000, *scale.prices(bars), scale.volumes(bars.volume))
    columns = (_encode(column).split(b",") for column in numbers)
    data = b",".join(map(_ROW.__mod__, zip(*columns, strict=True)))
    return _text(data, _BRACE)


def _encode(numbers: Numbers) -> bytes:
    return orjson.dumps(np.ascontiguousarray(numbers), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


def _text(data: bytes, mark: int) -> Text:
    """Return a text whose values end before each comma, or with each closing brace."""
    positions = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == mark)
    ends = np.append(positions, len(data)) if mark == _COMMA else positions + 1
    return Text(data, ends.astype(np.uint32))
