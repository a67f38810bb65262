"""Bars in process: import beside a Parquet write of the same, and what windows cost as data grows.

python -m benchmarks.bars [--bars 5000000] [--plots docs/benchmarks]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet
from rich.console import Console
from rich.table import Table

from benchmarks.plots import save_plot
from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.adapters.bar_files import BarFiles
from trading_api.modules.datafeed.adapters.bar_formats import digest_of, source_of
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.repository import MarketRepository
from trading_api.modules.datafeed.service import DatafeedService, ImportRequest, ImportService
from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import Migrations, upgrade

NOW = datetime(2026, 1, 5, tzinfo=UTC)
WINDOW = 5_000
WINDOWS = 200
SYMBOLS = (1, 10, 100)
GOAL = ">= 0.3"


def instrument_of(ticker: str, series_id: str) -> Instrument:
    """Return an instrument over a series with two decimals."""
    return Instrument(
        exchange=Exchange.HIST, ticker=ticker, description=ticker,
        asset_class=AssetClass.CRYPTO, base_currency=None, quote_currency="USD",
        price_decimals=2, volume_decimals=0, spread_ticks=0, ask_is_last=True, quantity_step=1,
        quantity_max=1, lot_size=1, session="24x7", time_zone="Etc/UTC", series_id=series_id,
        tradable=False,
    )  # fmt: skip


def some_bars(count: int) -> Columns:
    """Return minutes of a random walk."""
    random = np.random.default_rng(1)
    close = 1_000_000 + np.cumsum(random.integers(-40, 41, count))
    open_ = np.concatenate([close[:1], close[:-1]])
    high = np.maximum(open_, close) + random.integers(0, 20, count)
    low = np.minimum(open_, close) - random.integers(0, 20, count)
    time_ = 600_000_000 + 60 * np.arange(count, dtype=np.int64)
    return Columns(time_, open_, high, low, close, random.integers(0, 10**6, count))


def write_parquet(bars: Columns, path: Path) -> float:
    """Write bars as the peer does; return the seconds it took."""
    started = time.perf_counter()
    names = ("time", "open", "high", "low", "close", "volume")
    prices = [column / 100 for column in bars.arrays()[1:5]]
    table = pa.table(dict(zip(names, [bars.time, *prices, bars.volume], strict=True)))
    parquet.write_table(table, path)
    return time.perf_counter() - started


class Desk:
    """Services over an SQLite file."""

    def __init__(self, folder: Path) -> None:
        self.database = Database(f"sqlite+aiosqlite:///{folder / 'datafeed.db'}", schema="datafeed")
        self.market = DatafeedService(
            database=self.database,
            repository=MarketRepository(),
            history=BundledHistory(),
            files=BarFiles(folder / "bars"),
        )
        self.imports = ImportService(database=self.database, market=self.market, ids=UuidV7Ids())

    async def load(self, path: Path, ticker: str) -> float:
        """Import a file; return the seconds until it is served."""
        request = ImportRequest(
            series_id=ticker.lower(), resolution="1", source_name=path.name,
            source_sha256=digest_of(path) + ticker, price_decimals=2, volume_decimals=0,
        )  # fmt: skip
        started = time.perf_counter()
        await self.imports.import_bars(request=request, source=source_of(path), now=NOW)
        seconds = time.perf_counter() - started
        async with self.database.transaction() as transaction:
            instrument = instrument_of(ticker, ticker.lower())
            await MarketRepository().add_instruments(transaction, [instrument])
        await self.market.load()
        return seconds

    async def window_us(self, symbols: list[str], bars: Columns) -> float:
        """Return the CPU microseconds of a window of 5,000 bars that nobody asked for before."""
        random = np.random.default_rng(2)
        costs: list[float] = []
        for number in range(WINDOWS):
            end = int(bars.time[random.integers(min(WINDOW, len(bars) - 1), len(bars))])
            started = time.process_time()
            answer = await self.market.bars(
                symbol=symbols[number % len(symbols)], resolution="1", from_time=0, to_time=end,
                count_back=WINDOW, now=NOW,
            )  # fmt: skip
            b"".join(
                schemas.encode_history(
                    answer.market.instrument, answer.selection, self.market.texts
                )
            )
            costs.append((time.process_time() - started) * 1e6)
        return statistics.median(costs)


async def run(count: int, plots: Path | None) -> None:
    """Measure and print the tables."""
    table = Table(title=f"Bars, CPU and time; {count:,} bars at most")
    for column in ("what", "value", "goal"):
        table.add_column(column, justify="left" if column == "what" else "right")
    by_bars: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        # Loads the library.
        write_parquet(some_bars(1_000), Path(name) / "bars.parquet")
    sizes = sorted({100_000, min(1_000_000, count), count})
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="bench") as name:
            folder, bars = Path(name), some_bars(size)
            written = write_parquet(bars, folder / "bars.parquet")
            desk = Desk(folder)
            await upgrade(desk.database, _MIGRATIONS)
            imported = await desk.load(folder / "bars.parquet", "LARGE")
            cold = await desk.window_us(["LARGE"], bars)
            await desk.market.write_texts()
            ready = await desk.window_us(["LARGE"], bars)
            by_bars.append((size, ready))
            ratio = written / imported
            table.add_row(f"{size:,} bars: import, bars/s", f"{size / imported:,.0f}", "")
            table.add_row(
                f"{size:,} bars: parquet write : import", f"{ratio:.2f}",
                GOAL if size == count else "",
            )  # fmt: skip
            table.add_row(f"{size:,} bars: window without finished text, CPU µs", f"{cold:.0f}", "")
            table.add_row(f"{size:,} bars: window of finished text, CPU µs", f"{ready:.0f}", "flat")
            await desk.database.close()
    by_symbols = await _by_symbols(table)
    console = Console(width=100)
    console.print(table)
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)
        save_plot(
            plots / "bars.svg", title="A window of 5,000 bars, each time another one",
            x_label="bars in the series", y_label="CPU µs", lines={"finished text": by_bars},
        )  # fmt: skip
        save_plot(
            plots / "symbols.svg", title="A window of 5,000 bars, symbols in turn",
            x_label="symbols of 20,000 bars", y_label="CPU µs", lines={"cached text": by_symbols},
        )  # fmt: skip


async def _by_symbols(table: Table) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        folder, bars = Path(name), some_bars(20_000)
        write_parquet(bars, folder / "bars.parquet")
        desk = Desk(folder)
        await upgrade(desk.database, _MIGRATIONS)
        tickers: list[str] = []
        for wanted in SYMBOLS:
            while len(tickers) < wanted:
                tickers.append(f"S{len(tickers)}")
                await desk.load(folder / "bars.parquet", tickers[-1])
            await desk.window_us(tickers, bars)
            found.append((wanted, await desk.window_us(tickers, bars)))
            table.add_row(f"{wanted} symbols: window, CPU µs", f"{found[-1][1]:.0f}", "")
        await desk.database.close()
    return found


_MIGRATIONS = Migrations.of_package("datafeed", "trading_api.modules.datafeed")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=5_000_000)
    parser.add_argument("--plots", type=Path, help="directory for the plots; none where absent")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.bars, arguments.plots))


if __name__ == "__main__":
    main()
