"""Files of bars: what is read, what is refused with line and reason, and nothing in between."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from trading_api.modules.datafeed.adapters import bar_formats
from trading_api.modules.datafeed.adapters.bar_files import BarFiles
from trading_api.modules.datafeed.adapters.bar_formats import source_of, writer_of
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns, Window
from trading_api.modules.datafeed.domain.importing import FIELDS, Batch, ImportSpec, Reached
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.selection import BLOCK_BARS, TextCache, select
from trading_api.modules.datafeed.domain.text import Scale
from trading_api.modules.datafeed.errors import ImportUnreadableError
from trading_api.modules.datafeed.service.imports import join_bars

SPEC = ImportSpec(parse_resolution("1"), 2, 0, 10**10)
HEAD = "time,open,high,low,close,volume\n"
GOOD = "60,1.00,1.20,0.90,1.10,5"


def read(path: Path, spec: ImportSpec = SPEC, reached: Reached | None = None) -> list[Batch]:
    return list(source_of(path).read(spec, reached or Reached()))


def a_file(folder: Path, text: str, name: str = "bars.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def some_bars(count: int, seed: int = 1) -> Columns:
    random = np.random.default_rng(seed)
    rows, close = [], 10_000
    for index in range(count):
        open_ = close
        close = max(100, open_ + int(random.integers(-50, 51)))
        high = max(open_, close) + int(random.integers(0, 20))
        low = min(open_, close) - int(random.integers(0, 20))
        rows.append((60 * index, open_, high, low, close, int(random.integers(0, 10**6))))
    return Columns.of_rows(rows)


def equal(left: Columns, right: Columns) -> bool:
    pairs = zip(left.arrays(), right.arrays(), strict=True)
    return all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("120,nan,1.2,0.9,1.1,5", "open is not finite: 'nan'"),
        ("120,1,1.2,0.9,x,5", "close is not a number: 'x'"),
        ("120,1,1.2,0.9,1.1", "volume is missing"),
        ("120,1,1.2,,1.1,5", "low is missing"),
        ("120,1.001,1.2,0.9,1.1,5", "open has more than 2 decimals: '1.001'"),
        ("120,1e30,1.2,0.9,1.1,5", "open is out of range: '1e30'"),
        ("120,0,1.2,0,1.1,5", "a price is zero or negative"),
        ("120,-1,1.2,0.9,1.1,5", "a price is zero or negative"),
        ("120,1,1.05,0.9,1.1,5", "the high lies under another price"),
        ("120,1,1.2,1.05,1.1,5", "the low lies over another price"),
        ("120,1,1.2,0.9,1.1,-5", "the volume is negative"),
        ("120,1100,1100,1100,1100,5", "the close is over 1000 times away from the one before"),
        ("60,1,1.2,0.9,1.1,5", "time 1970-01-01T00:01:00Z comes twice"),
        ("0,1,1.2,0.9,1.1,5", "time 1970-01-01T00:00:00Z lies before 1970-01-01T00:01:00Z"),
        ("121,1,1.2,0.9,1.1,5", "time 1970-01-01T00:02:01Z is not the start of a bar of 1"),
        ("9999999960,1,1.2,0.9,1.1,5", "the bar of 2286-11-20T17:46:00Z isn't finished yet"),
        ("yesterday,1,1.2,0.9,1.1,5", "time is not an instant: 'yesterday'"),
        ("-99999999960,1,1.2,0.9,1.1,5", "the time is out of range"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_reason(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = a_file(tmp_path, f"{HEAD}{GOOD}\n\n{line}\n180,1,1.2,0.9,1.1,5\n")
    spec = ImportSpec(SPEC.resolution, 2, 0, 9_999_999_999)
    (batch,) = read(path, spec)
    assert [(bad.line, bad.reason) for bad in batch.bad] == [(4, reason)]
    assert batch.bars.time.tolist() == [60, 180]


@pytest.mark.parametrize(
    "text",
    [
        "time;open;high;low;close;volume\n60;1.00;1.20;0.90;1.10;5\n",
        "Date\tO\tH\tL\tC\tVol\n1970-01-01T00:01:00Z\t1\t1.2\t0.9\t1.1\t5",
        '"timestamp","open","high","low","close","volume","note"\n60000000000,1,1.2,0.9,1.1,5,x\n',
        "\ufefftime,open,high,low,close,volume\r\n60,1,1.2,.9,1.1,5\r\n",
        "close,low,high,open,time,volume\n1.1,0.9,1.2,1,1970-01-01 01:01+01:00,5",
    ],
)
def test_spellings_of_the_same_bar_give_the_same_bar(tmp_path: Path, text: str) -> None:
    text = text.replace("60000000000", "100000020000")
    (batch,) = read(a_file(tmp_path, text))
    assert not batch.bad
    rows = np.stack(batch.bars.arrays(), axis=1).tolist()
    assert rows in ([[60, 100, 120, 90, 110, 5]], [[100_000_020, 100, 120, 90, 110, 5]])


@pytest.mark.parametrize(
    "head", ["open,high,low,close\n", "time,time,open,high,low,close\n", "\x80\n", ""]
)
def test_a_file_without_the_columns_is_no_file_of_bars(tmp_path: Path, head: str) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(head.encode("latin-1"))
    with pytest.raises(ImportUnreadableError):
        source_of(path)
    with pytest.raises(ImportUnreadableError):
        source_of(a_file(tmp_path, "no", "bars.parquet"))
    with pytest.raises(ImportUnreadableError):
        source_of(a_file(tmp_path, "no", "bars.doc"))


@pytest.mark.parametrize(
    ("resolution", "start", "end"),
    [
        ("60", "2025-11-22T01:00", "2025-11-22T02:00"),
        ("1D", "2025-11-21", "2025-11-22"),
        ("5D", "2025-11-21", "2025-11-26"),
        ("5D", "2025-12-30", "2026-01-01"),
        ("1W", "2025-11-18", "2025-11-24"),
        ("2W", "2025-11-18", "2025-12-01"),
        ("1M", "2025-11-03", "2025-12-01"),
        ("3M", "2025-11-03", "2026-01-01"),
        ("5M", "2025-11-03", "2026-01-01"),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_bar_counts_once_all_of_it_is_over(
    tmp_path: Path, resolution: str, start: str, end: str, ending: str
) -> None:
    time, over = (int(np.datetime64(each, "s").astype(np.int64)) for each in (start, end))
    path = tmp_path / f"bars.{ending}"
    if ending == "csv":
        a_file(tmp_path, f"{HEAD}{time},1,1,1,1,1\n")
    else:
        parquet.write_table(
            pa.table({name: [time if name == "time" else 1] for name in FIELDS}), path
        )
    for now, bad in ((over, 0), (over - 1, 1)):
        (batch,) = read(path, ImportSpec(parse_resolution(resolution), 2, 0, now))
        assert (len(batch.bad), len(batch.bars)) == (bad, 1 - bad)


def a_table(**columns: Any) -> Any:
    return pa.table({**{name: [60] if name == "time" else [1.5] for name in FIELDS}, **columns})


@pytest.mark.parametrize(
    "table",
    [
        a_table().append_column("time", [[60]]),
        a_table(time=pa.array([2**64 - 1], pa.uint64())),
        a_table(time=["yesterday"]),
        a_table(open=[{"a": 1}]),
        a_table(open=pa.array([2**64 - 1], pa.uint64())),
    ],
)
def test_a_parquet_file_of_other_things_is_no_file_of_bars(tmp_path: Path, table: Any) -> None:
    path = tmp_path / "bars.parquet"
    parquet.write_table(table, path)
    with pytest.raises(ImportUnreadableError):
        read_all(path)


@pytest.mark.parametrize("metadata", [b"x", b"", b"99", b"-1"])
def test_decimals_that_are_none_are_guessed(tmp_path: Path, metadata: bytes) -> None:
    path = tmp_path / "bars.parquet"
    parquet.write_table(a_table().replace_schema_metadata({b"price_decimals": metadata}), path)
    assert source_of(path).guess_decimals() == (1, 1)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_a_damaged_file_has_bad_lines_or_is_no_file_of_bars(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ending = data.draw(st.sampled_from(["csv", "parquet"]))
    begin, piece, end = writer_of(ending, 2, 0)
    whole = bytearray(b"".join([begin, piece(some_bars(50)), end(EMPTY)]))
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=5)):
        whole[at] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged.{ending}"
    path.write_bytes(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    with suppress(ImportUnreadableError):
        read_all(path)


def read_all(path: Path) -> None:
    source_of(path).guess_decimals()
    read(path, ImportSpec(parse_resolution("1"), 2, 0, 10**11))


def test_lines_that_are_no_text_or_no_number_at_all_are_bad(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    path.write_bytes(f"{HEAD}60,1e9999999,1,1,1,1\n".encode() + b"120,1,\x80,1,1,1\n")
    assert source_of(path).guess_decimals() == (0, 0)
    (batch,) = read(path)
    assert [bad.line for bad in batch.bad] == [2, 3]


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 30),
            *[st.one_of(st.integers(-3, 300), st.just(0), st.just(10**7))] * 4,
            st.integers(-1, 9),
        ),
        max_size=30,
    )
)
def test_reading_a_block_as_a_whole_judges_as_reading_line_by_line(
    tmp_path_factory: pytest.TempPathFactory, rows: Sequence[tuple[int, ...]]
) -> None:
    text = HEAD + "".join(
        f"{row[0] * 60},{','.join(f'{price / 100:.2f}' for price in row[1:5])},{row[5]}\n"
        for row in rows
    )
    path = a_file(tmp_path_factory.mktemp("csv"), text)
    table = pa.table(
        {
            name: [row[index] * 60 if index == 0 else row[index] / 100 for row in rows]
            for index, name in enumerate(("time", "open", "high", "low", "close"))
        }
        | {"volume": pa.array([row[5] for row in rows], pa.int64())},
    )
    table = table.set_column(0, "time", pa.array([row[0] * 60 for row in rows], pa.int64()))
    parquet.write_table(table.cast(_floats(table)), path.with_suffix(".parquet"))
    source = source_of(path)
    assert isinstance(source, bar_formats.CsvFile)
    fast = read(path)
    body = path.read_bytes()[len(HEAD) :]
    slow = [source._parse(body, SPEC, Reached(len(HEAD), 1))] if body else []
    columns = read(path.with_suffix(".parquet"))
    for name in ("bars", "bad"):
        for ours, theirs, third in zip(
            _all(fast, name), _all(slow, name), _all(columns, name), strict=True
        ):
            line = 0 if name == "bars" else 1
            assert ours == theirs
            # Rows are counted from 1, lines of a CSV file with its head.
            assert (third[0] + line, *third[1:]) == ours


def _floats(table: Any) -> Any:
    types = [pa.int64(), *[pa.float64()] * 4, pa.int64()]
    return pa.schema(list(zip(table.column_names, types, strict=True)))


def _all(batches: list[Batch], name: str) -> list[tuple[Any, ...]]:
    if name == "bad":
        return [(bad.line, bad.reason) for batch in batches for bad in batch.bad]
    bars = Columns.concat([batch.bars for batch in batches])
    return [tuple(row) for row in np.stack(bars.arrays(), axis=1).tolist()]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_an_export_imported_again_is_the_same(tmp_path: Path, format: str) -> None:  # noqa: A002
    bars = some_bars(3_000)
    begin, piece, end = writer_of(format, 2, 0)
    data = b"".join([begin, piece(bars[:1_000]), piece(bars[1_000:]), end(EMPTY)])
    path = tmp_path / f"bars.{format}"
    path.write_bytes(data)
    batches = read(path)
    assert source_of(path).guess_decimals() == (2, 0)
    assert equal(Columns.concat([batch.bars for batch in batches]), bars)
    # From the middle on, as after an interruption.
    rest = read(path, reached=batches[0].reached)
    assert sum(len(batch.bars) for batch in batches[1:]) == sum(len(batch.bars) for batch in rest)


def test_an_arrow_stream_holds_the_bars() -> None:
    bars = some_bars(500)
    begin, piece, end = writer_of("arrow", 2, 3)
    data = b"".join([begin, piece(bars), end(EMPTY)])
    table = pa.ipc.open_stream(data).read_all()
    assert table["close"].to_pylist()[-1] == int(bars.close[-1]) / 100
    assert table["volume"].to_pylist()[-1] == int(bars.volume[-1]) / 1_000
    assert table["time"].type == pa.timestamp("ms", tz="UTC")


@given(old=st.sets(st.integers(0, 40)), new=st.sets(st.integers(0, 40)), cut=st.integers(0, 40))
def test_joined_bars_are_all_of_both_and_the_new_ones_win(
    old: set[int], new: set[int], cut: int
) -> None:
    def bars(times: set[int], price: int) -> Columns:
        return Columns.of_rows([(time, *[price] * 4, 1) for time in sorted(times)])

    joined = join_bars(bars(old, 1), bars(new, 2))
    assert joined.time.tolist() == sorted(old | new)
    assert joined.close.tolist() == [2 if time in new else 1 for time in sorted(old | new)]


def test_files_give_back_the_bars_and_their_texts(tmp_path: Path) -> None:
    bars = some_bars(2 * BLOCK_BARS + 5)
    files, scale = BarFiles(tmp_path / "bars"), Scale(2, 0)
    assert files.open("a", "v1", len(bars)) is None
    assert files.open_texts("a", "v1", len(bars)) is None
    with files.writing("a", "v1", len(bars)) as add:
        add(bars[:100])
        add(bars[100:])
    mapped = files.open("a", "v1", len(bars))
    assert mapped is not None
    assert equal(mapped, bars)
    list(files.write_texts("a", "v1", len(bars), mapped, scale))
    texts = files.open_texts("a", "v1", len(bars))
    assert texts is not None
    cache = TextCache()
    for end, count in ((60 * len(bars), 5_000), (60 * BLOCK_BARS, 1), (60 * 5_000, 4_999)):
        ready = select(mapped, Window(0, end, count), key="a", texts=texts)
        plain = select(bars, Window(0, end, count), key="b")
        for part, other in zip(ready.parts, plain.parts, strict=True):
            assert bytes(cache.rows(part, scale)) == bytes(cache.rows(other, scale))
            for ours, theirs in zip(
                cache.columns(part, scale), cache.columns(other, scale), strict=True
            ):
                assert bytes(ours) == bytes(theirs)
    with files.writing("a", "v2", 1) as add:
        add(bars[:1])
    assert files.open("a", "v1", len(bars)) is None
    with pytest.raises(ValueError, match="instead of"), files.writing("a", "v3", 5) as add:
        add(bars[:4])
    assert files.open("a", "v3", 5) is None
    # Names that differ in what a file's name can't show are of different series.
    with files.writing("A", "v2", 1) as add, files.writing("b.c", "v1", 1) as add_other:
        add(bars[1:2])
        add_other(bars[2:3])
    with files.writing("b_c", "v1", 1) as add:
        add(bars[3:4])
    first = [files.open(name, version, 1) for name, version in (
        ("a", "v2"), ("A", "v2"), ("b.c", "v1"), ("b_c", "v1")
    )]  # fmt: skip
    assert [int(each.time[0]) for each in first if each] == [0, 60, 120, 180]
    names = {path.name.casefold() for path in (tmp_path / "bars").iterdir()}
    assert len(names) == 4
