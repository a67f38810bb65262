"""The bundled history: files beside the module, and the instruments made of them.

The files are written by ``scripts/build_market_data.py``, which also describes their format;
docs/data.md names source and licence of each.
"""

import json
import lzma
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources

import numpy as np

from trading_api.modules.datafeed.adapters.calendars import bundled_calendar
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.demo import Split
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.series import SourcedSeries, StoredSeries

_FOLDER = "trading_api.modules.datafeed"

_LICENSES = {"bokeh-sampledata": "public domain", "gym-anytrading": "MIT"}


class BundledHistory:
    """The history that is part of the program; a ``HistorySource``."""

    def series_ids(self) -> list[str]:
        """Return the names of the bundled series, in a fixed order."""
        return ["aapl-1d", "ibm-1d", "msft-1d", "goog-1d", "fb-1d", "eurusd-60"]

    def load_series(self, series_id: str) -> SourcedSeries:
        """Read one bundled series.

        Raises:
            ValueError: the file is damaged: its count doesn't match its header.
        """
        path = resources.files(_FOLDER) / "data" / f"{series_id}.bars.xz"
        head, *lines = lzma.decompress(path.read_bytes()).decode().split("\n")
        header = json.loads(head)
        columns = [np.cumsum(np.array(line.split(" "), dtype=np.int64)) for line in lines]
        if len(columns) != 6 or any(len(column) != header["count"] for column in columns):
            raise ValueError(f"{series_id}: the bundled file is damaged")
        return SourcedSeries(
            series=StoredSeries(
                id=series_id,
                resolution=parse_resolution(header["resolution"]),
                price_decimals=header["price_decimals"],
                volume_decimals=header["volume_decimals"],
                bars=Columns(*columns),
            ),
            source=header["source"],
            source_sha256=header["source_sha256"],
            license=_LICENSES[header["source"].split(" ")[0]],
        )

    def splits_of(self, series_id: str) -> tuple[Split, ...]:
        """Return the stock splits inside a series, ascending; from a table, never detected.

        AAPL fell by half on 2000-09-29 without one, so a rule that looks at prices would be wrong.
        """
        return _SPLITS.get(series_id, ())

    def instruments(self) -> Iterator[Instrument]:
        """Yield the instruments of both exchanges."""
        yield from (
            _stock("AAPL", "AAPL", "Apple Inc.", "aapl-1d"),
            _stock("GOOGL", "GOOG", "Alphabet Inc.", "goog-1d"),
            _stock("MSFT", "MSFT", "Microsoft Corporation", "msft-1d"),
            _stock("IBM", "IBM", "International Business Machines", "ibm-1d"),
            _stock("META", "FB", "Meta Platforms, Inc.", "fb-1d"),
            _DEMO_EURUSD,
            _history("AAPL", "Apple Inc., daily 2000-2013", "aapl-1d"),
            _history("GOOG", "Google Inc., daily 2004-2013", "goog-1d", "Internet"),
            _history("MSFT", "Microsoft Corporation, daily 2000-2013", "msft-1d", "Software"),
            _history(
                "IBM", "International Business Machines, daily 2000-2013", "ibm-1d", "IT services"
            ),
            _history("FB", "Facebook, Inc., daily 2012-2013", "fb-1d", "Internet"),
            _HIST_EURUSD,
        )


def _stock(ticker: str, source: str, name: str, series_id: str) -> Instrument:
    return Instrument(
        exchange=Exchange.DEMO,
        ticker=ticker,
        description=f"{name} - simulation on shifted real prices of {source}",
        asset_class=AssetClass.STOCK,
        base_currency=None,
        quote_currency="USD",
        price_decimals=2,
        volume_decimals=0,
        spread_ticks=2,
        ask_is_last=False,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        session="24x7",
        time_zone="Etc/UTC",
        series_id=series_id,
        tradable=True,
    )


def _history(
    ticker: str, description: str, series_id: str, industry: str = "Computer hardware"
) -> Instrument:
    calendar = bundled_calendar("XNYS")
    return Instrument(
        exchange=Exchange.HIST,
        ticker=ticker,
        description=f"{description}, unadjusted, end of day",
        asset_class=AssetClass.STOCK,
        base_currency=None,
        quote_currency="USD",
        price_decimals=4,
        volume_decimals=0,
        spread_ticks=0,
        ask_is_last=True,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        session=calendar.session,
        time_zone=calendar.time_zone,
        calendar=calendar.code,
        session_holidays=calendar.holidays,
        session_corrections=calendar.corrections,
        sector="Technology",
        industry=industry,
        series_id=series_id,
        tradable=False,
    )


_DEMO_EURUSD = Instrument(
    exchange=Exchange.DEMO,
    ticker="EURUSD",
    description="Euro / U.S. Dollar - simulation on shifted real prices of 2017",
    asset_class=AssetClass.FOREX,
    base_currency="EUR",
    quote_currency="USD",
    price_decimals=5,
    volume_decimals=0,
    spread_ticks=8,
    ask_is_last=True,
    quantity_step=1,
    quantity_max=100_000_000,
    lot_size=100_000,
    session="24x7",
    time_zone="Etc/UTC",
    series_id="eurusd-60",
    tradable=True,
)

_HIST_EURUSD = Instrument(
    exchange=Exchange.HIST,
    ticker="EURUSD",
    description="Euro / U.S. Dollar, ask by the hour, 2017",
    asset_class=AssetClass.FOREX,
    base_currency="EUR",
    quote_currency="USD",
    price_decimals=5,
    volume_decimals=1,
    spread_ticks=8,
    ask_is_last=True,
    quantity_step=1,
    quantity_max=100_000_000,
    lot_size=100_000,
    session="1700-1700:23456",
    time_zone="America/New_York",
    series_id="eurusd-60",
    tradable=False,
)


def _day(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


_SPLITS = {
    "aapl-1d": (Split(_day(2000, 6, 21), 2), Split(_day(2005, 2, 28), 2)),
    "msft-1d": (Split(_day(2003, 2, 18), 2),),
}
