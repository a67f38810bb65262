"""Files of bars: CSV, Parquet and Arrow, read for imports and written for exports.

pyarrow is loaded on first use alone: its libraries would cost every process 60 MiB.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from trading_api.modules.datafeed.domain.columns import Columns, Ints
from trading_api.modules.datafeed.domain.importing import (
    DECIMALS_MAX,
    FIELDS,
    BadLine,
    Batch,
    ImportSpec,
    Reached,
    are_good,
    decimals_of,
    fault_of,
    field_of,
    parse_raw,
    parse_time,
)
from trading_api.modules.datafeed.errors import ImportUnreadableError

_BLOCK_BYTES = 4 * 1024 * 1024
_BATCH_ROWS = 65_536
_LINE_MAX = 4_096
_SAMPLE_BYTES = 256 * 1024

Write = Callable[[Columns], bytes]


def source_of(path: Path, format: str = "") -> "CsvFile | ParquetFile":  # noqa: A002
    """Return a file's reader, by ``format`` or by its name's ending.

    Raises:
        ImportUnreadableError: neither names a format that is read here.
    """
    kind = (format or path.suffix.lstrip(".")).lower()
    if kind in ("csv", "txt", "tsv"):
        return CsvFile(path)
    if kind in ("parquet", "pq"):
        return ParquetFile(path)
    raise ImportUnreadableError(f"bars are read from csv or parquet, not from {kind[:20]!r}")


def digest_of(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writer_of(
    format: str,  # noqa: A002
    price_decimals: int,
    volume_decimals: int,
) -> "tuple[bytes, Write, Write]":
    """Return the first bytes of an export, what makes each further piece, what ends it.

    Args:
        format: ``csv``, ``parquet`` or ``arrow``.
        price_decimals: of the prices.
        volume_decimals: of the volumes.
    """
    if format == "csv":
        return csv_writer(price_decimals, volume_decimals)
    return arrow_writer(price_decimals, volume_decimals, is_parquet=format == "parquet")


class CsvFile:
    """Bars of a CSV file whose first line names the columns; comma, semicolon or tab."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size
        with path.open("rb") as file:
            head = file.readline(_LINE_MAX)
            self._body_at = file.tell()
            sample = file.read(_SAMPLE_BYTES)
        self._separator, self._fields = _columns_of(head)
        self._sample = [line for line in sample.split(b"\n")[:-1] or [sample] if line.strip()]

    def guess_decimals(self) -> tuple[int, int]:
        """Return the decimals of prices and of volumes at the file's beginning."""
        prices = volumes = 0
        for line in self._sample:
            # What isn't text is a bad line, with its number, once it is read.
            values = line.decode("utf-8", "replace")
            for name, value in zip(self._fields, self._values(values), strict=False):
                if name in ("open", "high", "low", "close"):
                    prices = max(prices, decimals_of(value))
                elif name == "volume":
                    volumes = max(volumes, decimals_of(value))
        return min(prices, DECIMALS_MAX), min(volumes, DECIMALS_MAX)

    def read(self, spec: ImportSpec, reached: Reached) -> Iterator[Batch]:
        """Yield the file's lines from where ``reached`` says, judged."""
        if reached.line == 0:
            reached = Reached(self._body_at, 1, reached.last_time, reached.last_close)
        with self._path.open("rb") as file:
            file.seek(reached.position)
            while block := file.read(_BLOCK_BYTES):
                block += file.readline(_LINE_MAX)
                batch = self._parse_fast(block, spec, reached) or self._parse(block, spec, reached)
                reached = batch.reached
                yield batch

    def _parse_fast(self, block: bytes, spec: ImportSpec, reached: Reached) -> Batch | None:
        """Parse a block as a whole; None where any of its lines needs a closer look."""
        import pyarrow as pa
        from pyarrow import csv

        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        price = pa.decimal128(18, spec.price_decimals)
        types = dict.fromkeys(("open", "high", "low", "close"), price)
        types["volume"] = pa.decimal128(18, spec.volume_decimals)
        types["time"] = pa.int64()
        names = [name or f"_{number}" for number, name in enumerate(self._fields)]
        included = [name for name in self._fields if name]
        try:
            table = csv.read_csv(
                io.BytesIO(block),
                read_options=csv.ReadOptions(
                    use_threads=False, column_names=names, block_size=len(block) + 1
                ),
                parse_options=csv.ParseOptions(delimiter=self._separator),
                convert_options=csv.ConvertOptions(
                    column_types=types, include_columns=included, null_values=[]
                ),
            )
        except pa.ArrowException:
            return None
        if table.num_rows != lines or any(column.null_count for column in table.columns):
            return None
        columns = {name: _unscaled(table[name].combine_chunks()) for name in included}
        columns.setdefault("volume", np.zeros(lines, dtype=np.int64))
        time = columns["time"]
        if np.abs(time).max(initial=0) >= 10**11:
            if (time % 1_000).any() or np.abs(time).min() < 10**11:
                return None
            columns["time"] = time // 1_000
        bars = Columns(*(columns[name] for name in FIELDS))
        if not are_good(bars, spec, reached):
            return None
        return Batch(bars, (), _behind(bars, reached, len(block), lines))

    def _parse(self, block: bytes, spec: ImportSpec, reached: Reached) -> Batch:
        """Parse a block line by line."""
        start, position = reached, reached.position
        rows: list[tuple[int, ...]] = []
        bad: list[BadLine] = []
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), start.line + 1):
            if not line.strip():
                continue
            try:
                row = self._row(line, spec)
            except ValueError as error:
                bad.append(BadLine(number, str(error)))
                continue
            fault = fault_of(row, spec, reached)
            if fault is not None:
                bad.append(BadLine(number, fault))
                continue
            rows.append(row)
            reached = Reached(0, 0, row[0], row[4])
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        at = Reached(
            position + len(block), start.line + lines, reached.last_time, reached.last_close
        )
        return Batch(Columns.of_rows(rows), bad, at)

    def _row(self, line: bytes, spec: ImportSpec) -> tuple[int, ...]:
        values = dict(zip(self._fields, self._split(line), strict=False))
        missing = [name for name in self._fields if name and not values.get(name)]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        try:
            time = parse_time(values["time"])
        except (ValueError, OverflowError):
            raise ValueError(f"time is not an instant: {values['time'][:32]!r}") from None
        prices = (
            parse_raw(values[name], spec.price_decimals, name)
            for name in ("open", "high", "low", "close")
        )
        volume = parse_raw(values.get("volume", "0"), spec.volume_decimals, "volume")
        return time, *prices, volume

    def _split(self, line: bytes) -> list[str]:
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("the line is not UTF-8") from None
        return self._values(text)

    def _values(self, text: str) -> list[str]:
        return [value.strip().strip('"') for value in text.split(self._separator)]


class ParquetFile:
    """Bars of a Parquet file with columns named like the fields."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        with _readable("this is no Parquet file"):
            self._file = parquet.ParquetFile(path)
            names = self._file.schema_arrow.names
        self.size = self._file.metadata.num_rows
        self._names: dict[str, str] = {}
        for name in names:
            field = field_of(name)
            if field in self._names or names.count(name) > 1:
                raise ImportUnreadableError(f"the file names the column {name[:32]!r} twice")
            if field:
                self._names[field] = name
        _ensure_complete(self._names)

    def guess_decimals(self) -> tuple[int, int]:
        """Return the decimals of prices and of volumes at the file's beginning."""
        stored = self._file.schema_arrow.metadata or {}
        told = [stored.get(name, b"") for name in (b"price_decimals", b"volume_decimals")]
        if all(each.isdigit() and int(each) <= DECIMALS_MAX for each in told):
            return int(told[0]), int(told[1])
        with _readable():
            batch = next(iter(self._file.iter_batches(1_000)), None)
        if batch is None:
            return 0, 0
        found = {
            field: max((decimals_of(str(value)) for value in batch[name].to_pylist()), default=0)
            for field, name in self._names.items()
            if field != "time"
        }
        prices = max(found[name] for name in ("open", "high", "low", "close"))
        return min(prices, DECIMALS_MAX), min(found.get("volume", 0), DECIMALS_MAX)

    def read(self, spec: ImportSpec, reached: Reached) -> Iterator[Batch]:
        """Yield the file's rows from where ``reached`` says, judged."""
        skip = reached.position
        wanted = list(self._names.values())
        with _readable():
            for batch in self._file.iter_batches(_BATCH_ROWS, columns=wanted):
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                rows, skip = batch.slice(skip), 0
                judged = self._judge(rows, spec, reached)
                reached = judged.reached
                yield judged

    def _judge(self, rows: Any, spec: ImportSpec, reached: Reached) -> Batch:
        count = rows.num_rows
        columns: dict[str, Ints] = {}
        whole = np.ones(count, dtype=bool)
        reasons: dict[int, str] = {}
        for field in FIELDS:
            if field not in self._names:
                columns[field] = np.zeros(count, dtype=np.int64)
                continue
            array = rows[self._names[field]]
            if field == "time":
                values, good = _times(array)
                what = "time is missing or not a whole second"
            else:
                decimals = spec.volume_decimals if field == "volume" else spec.price_decimals
                values, good = _numbers(array, decimals)
                what = f"{field} is not a number of at most {decimals} decimals"
            columns[field] = values
            for index in np.flatnonzero(whole & ~good):
                reasons[int(index)] = what
            whole &= good
        bars = Columns(*(columns[name] for name in FIELDS))
        if whole.all() and are_good(bars, spec, reached):
            return Batch(bars, (), _behind(bars, reached, count, count))
        kept: list[int] = []
        bad: list[BadLine] = []
        start = reached
        table: list[list[int]] = np.stack(bars.arrays(), axis=1).tolist()
        for number, row in enumerate(table):
            fault = reasons.get(number) or fault_of(row, spec, reached)
            if fault is not None:
                bad.append(BadLine(start.line + number + 1, fault))
                continue
            kept.append(number)
            reached = Reached(0, 0, row[0], row[4])
        at = Reached(
            start.position + count, start.line + count, reached.last_time, reached.last_close
        )
        return Batch(Columns(*(column[kept] for column in bars.arrays())), bad, at)


def csv_writer(price_decimals: int, volume_decimals: int) -> tuple[bytes, Write, Write]:
    """Return the first bytes of a CSV export, what makes each further piece, what ends it.

    Times are Unix seconds, prices exact decimals; importing it again gives the same bars.
    """

    def piece(bars: Columns) -> bytes:
        if not len(bars):
            return b""
        columns = [column.tolist() for column in bars.arrays()]
        for number, decimals in enumerate((0, *[price_decimals] * 4, volume_decimals)):
            if decimals:
                scale, form = 10**decimals, f"%d.%0{decimals}d"
                columns[number] = [form % divmod(raw, scale) for raw in columns[number]]
        lines = ["{},{},{},{},{},{}".format(*row) for row in zip(*columns, strict=True)]
        return ("\n".join(lines) + "\n").encode()

    return (",".join(FIELDS) + "\n").encode(), piece, lambda _: b""


def arrow_writer(
    price_decimals: int, volume_decimals: int, *, is_parquet: bool
) -> tuple[bytes, Write, Write]:
    """Return the same for Parquet, or for an Arrow IPC stream.

    Times are milliseconds UTC, prices and volumes doubles; the decimals stand in the metadata.
    """
    import pyarrow as pa
    from pyarrow import parquet

    fields = [("time", pa.timestamp("ms", tz="UTC"))]
    fields += [(name, pa.float64()) for name in FIELDS[1:]]
    schema = pa.schema(
        fields,
        metadata={
            "price_decimals": str(price_decimals),
            "volume_decimals": str(volume_decimals),
        },
    )
    sink = _Sink()
    writer = (
        parquet.ParquetWriter(sink, schema, compression="zstd")
        if is_parquet
        else pa.ipc.new_stream(sink, schema)
    )
    scale = 10**price_decimals

    def piece(bars: Columns) -> bytes:
        if len(bars):
            prices = (bars.open / scale, bars.high / scale, bars.low / scale, bars.close / scale)
            arrays = [
                pa.array(bars.time * 1_000).cast(fields[0][1]),
                *(pa.array(column) for column in prices),
                pa.array(bars.volume / 10**volume_decimals),
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        return sink.take()

    def end(_: Columns) -> bytes:
        writer.close()
        return sink.take()

    return sink.take(), piece, end


class _Sink(io.RawIOBase):
    """Collects what a writer writes until somebody takes it."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._parts.append(piece)
        self._position += len(piece)
        return len(piece)

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _columns_of(head: bytes) -> tuple[str, list[str]]:
    """Return a CSV's separator and its fields, "" for columns that mean nothing here."""
    try:
        text = head.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ImportUnreadableError("the file is not UTF-8 text") from error
    separator = max(",;\t", key=text.count)
    fields = [field_of(name) or "" for name in text.split(separator)]
    named = [name for name in fields if name]
    if len(set(named)) != len(named):
        raise ImportUnreadableError("the first line names a column twice")
    _ensure_complete({name: name for name in named})
    return separator, fields


@contextmanager
def _readable(
    reason: str = "the file is damaged, or holds what can't be read as bars",
) -> Iterator[None]:
    """Make what pyarrow stumbles over an error of whoever brought the file."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise ImportUnreadableError(reason) from error


def _ensure_complete(names: dict[str, str]) -> None:
    missing = [name for name in FIELDS[:-1] if name not in names]
    if missing:
        raise ImportUnreadableError(
            f"the file has no column {missing[0]!r}; it needs {', '.join(FIELDS[:-1])}"
            " and may have volume"
        )


def _behind(bars: Columns, reached: Reached, advance: int, lines: int) -> Reached:
    return Reached(
        reached.position + advance,
        reached.line + lines,
        int(bars.time[-1]) if len(bars) else reached.last_time,
        int(bars.close[-1]) if len(bars) else reached.last_close,
    )


def _unscaled(array: Any) -> Ints:
    """Return the integers of a decimal or integer array."""
    if array.type.bit_width == 128:
        pairs = np.frombuffer(array.buffers()[1], dtype="<i8").reshape(-1, 2)
        return np.ascontiguousarray(pairs[array.offset : array.offset + len(array), 0])
    numbers: Ints = array.to_numpy(zero_copy_only=False)
    return numbers


def _times(array: Any) -> tuple[Ints, "np.typing.NDArray[np.bool_]"]:
    """Return seconds, and which of them are right."""
    import pyarrow as pa

    good = np.asarray(array.is_valid())
    per_second = 1
    if pa.types.is_timestamp(array.type):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
    elif pa.types.is_date(array.type):
        array = array.cast(pa.date32()).cast(pa.int32())
        per_second = 0
    elif not pa.types.is_integer(array.type):
        raise ImportUnreadableError("the column time holds neither instants nor integers")
    values = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    if per_second == 0:
        return values * 86_400, good
    if per_second == 1 and np.abs(values).max(initial=0) >= 10**11:
        per_second = 10**3
    return values // per_second, good & (values % per_second == 0)


def _numbers(array: Any, decimals: int) -> tuple[Ints, "np.typing.NDArray[np.bool_]"]:
    """Return integers of ``decimals`` decimals, and which of them are exact."""
    import pyarrow as pa

    good = np.asarray(array.is_valid())
    scale = 10**decimals
    if pa.types.is_integer(array.type):
        whole = array.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return whole * scale, good & (np.abs(whole) < 10**16 // scale)
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if not pa.types.is_floating(array.type):
        raise ImportUnreadableError("a price or volume column holds no numbers")
    values = array.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = values * scale
        rounded = np.rint(scaled)
        exact = np.isfinite(scaled) & (np.abs(scaled) < 2**53) & (rounded / scale == values)
        return np.where(exact, rounded, 0).astype(np.int64), good & exact
