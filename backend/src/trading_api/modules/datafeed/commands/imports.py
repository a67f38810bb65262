"""Verbs of the manager that datafeed brings besides ``seed``: ``import``.

An instrument that it lists follows the rules of the operators' route and is told as theirs are.
"""

import argparse
import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import TradingError
from trading_api.modules.datafeed.domain.importing import DECIMALS_MAX, SERIES_ID
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.errors import ImportRefusedError
from trading_api.modules.datafeed.ports import BarSource
from trading_api.modules.datafeed.repository import ImportRecord
from trading_api.modules.datafeed.service import ImportRequest, ImportService, InstrumentService

CORRUPT = 65
OPERATOR = "trading-api import"
"""Stands in the told listing where a route's caller has a user's id."""


class ImportCommand:
    """``import FILE --series ID --resolution R``: a file of bars, with a progress bar."""

    def __init__(
        self,
        *,
        imports: ImportService,
        instruments: InstrumentService,
        clock: Clock,
        open_source: Callable[[Path, str], BarSource],
        digest_of: Callable[[Path], str],
    ) -> None:
        self._imports = imports
        self._instruments = instruments
        self._clock = clock
        self._open_source = open_source
        self._digest_of = digest_of

    async def run(self, arguments: Sequence[str]) -> int:
        """Import and return 0; 1 for what can't be done, 65 for bad lines, 2 for wrong usage."""
        options = _parser().parse_args(arguments)
        console = Console()
        path: Path = options.file
        try:
            source = self._open_source(path, options.format)
            request = ImportRequest(
                series_id=options.series,
                resolution=options.resolution,
                price_decimals=options.price_decimals,
                volume_decimals=options.volume_decimals,
                source_name=path.name,
                source_sha256=await asyncio.to_thread(self._digest_of, path),
                license=options.license,
                skips_bad=options.skip_bad,
            )
            listing = _instrument(options)
            # Before the file is read: a slip in a ticker is told at once, not after an hour.
            if listing and not await self._instruments.ensure_listable(instrument=listing):
                listing = None
            with Progress(
                TextColumn(path.name),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
            ) as progress:
                task = progress.add_task("", total=1.0)

                def show(record: ImportRecord, share: float) -> None:
                    text = f"{record.bar_count:,} bars"
                    if record.bad_count:
                        text += f", {record.bad_count:,} bad lines"
                    progress.update(task, completed=share, description=text)

                report = await self._imports.import_bars(
                    request=request, source=source, now=self._clock.now(), on_progress=show
                )
            if listing:
                await self._list(listing, report.record)
        except ImportRefusedError as error:
            console.print(error.message)
            table = Table("line", "reason")
            for each in error.errors:
                table.add_row(each.field.removeprefix("line "), each.message)
            console.print(table)
            return CORRUPT
        except (TradingError, OSError) as error:
            console.print(error.message if isinstance(error, TradingError) else str(error))
            return 1
        if listing:
            console.print(f"{listing.symbol} is listed over {options.series}")
        if report.was_done:
            console.print(f"{path.name} is in {options.series} already")
            return 0
        record = report.record
        console.print(
            f"{record.bar_count:,} bars imported, {options.series} has {report.series_bars:,};"
            f" {record.bad_count:,} bad lines"
        )
        return 0

    async def _list(self, listing: Instrument, record: ImportRecord) -> None:
        await self._instruments.list_instrument(
            instrument=replace(
                listing,
                price_decimals=record.price_decimals,
                volume_decimals=record.volume_decimals,
            ),
            operator_id=OPERATOR,
            idempotency_key=None,
            now=self._clock.now(),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trading-api import",
        description="Import a CSV or Parquet file of bars into a series, all of it or nothing. "
        "An import that was interrupted goes on where it stopped.",
    )
    decimals = range(DECIMALS_MAX + 1)
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--series", type=_series_id, required=True, help="its name, such as btcusd-1; made if new"
    )
    parser.add_argument("--resolution", required=True, help="of the bars: 1, 60, 1D, …")
    parser.add_argument("--format", default="", choices=["", "csv", "parquet"])
    parser.add_argument("--price-decimals", type=int, choices=decimals)
    parser.add_argument("--volume-decimals", type=int, choices=decimals)
    parser.add_argument("--license", default="unknown", help="what may be done with the data")
    parser.add_argument("--skip-bad", action="store_true", help="import the good lines anyway")
    listing = parser.add_argument_group("listing it as an instrument of HIST")
    listing.add_argument("--ticker", help="list the series under this ticker")
    listing.add_argument("--description", default="")
    listing.add_argument("--kind", choices=[str(each) for each in AssetClass], default="stock")
    listing.add_argument("--currency", default="USD")
    listing.add_argument("--session", default="24x7")
    listing.add_argument("--time-zone", default="Etc/UTC")
    return parser


def _series_id(text: str) -> str:
    if re.fullmatch(SERIES_ID, text) is None:
        raise argparse.ArgumentTypeError("a series' name is of a-z, 0-9, dot, dash and _")
    return text


def _instrument(options: argparse.Namespace) -> Instrument | None:
    """Return what shall be listed, its decimals yet to come from the series."""
    if not options.ticker:
        return None
    return Instrument(
        exchange=Exchange.HIST,
        ticker=options.ticker.upper(),
        description=options.description or f"{options.ticker.upper()}, imported",
        asset_class=AssetClass(options.kind),
        base_currency=None,
        quote_currency=options.currency.upper(),
        price_decimals=0,
        volume_decimals=0,
        spread_ticks=0,
        ask_is_last=True,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        session=options.session,
        time_zone=options.time_zone,
        series_id=options.series,
        tradable=False,
    )
