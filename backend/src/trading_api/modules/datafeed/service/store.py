"""Where a stored series is served from: memory while it is small, mapped files when it is large."""

import asyncio
import hashlib
from collections.abc import Callable

from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.selection import StoredTexts
from trading_api.modules.datafeed.domain.series import StoredSeries
from trading_api.modules.datafeed.domain.text import Scale
from trading_api.modules.datafeed.ports import SeriesFiles
from trading_api.modules.datafeed.repository import BarRepository, SeriesRecord
from trading_api.runtime.database import Transaction

IN_MEMORY_BARS_MAX = 65_536
"""3 MiB; larger series lie in files that the kernel keeps or drops as memory allows."""

_PAUSE_SECONDS = 0.01


class SeriesStore:
    """Loads series once per version."""

    def __init__(self, files: SeriesFiles | None) -> None:
        self._files = files
        self._bars = BarRepository()
        self._known: dict[str, StoredSeries] = {}

    async def load(self, transaction: Transaction, record: SeriesRecord) -> StoredSeries:
        """Return a series as the transaction sees it; the same object while it is unchanged."""
        known = self._known.get(record.id)
        if (
            known is not None
            and known.version == record.version
            and len(known.bars) == record.bar_count
        ):
            return known
        files = self._files if record.bar_count > IN_MEMORY_BARS_MAX else None
        if files is None:
            identity, bars = "", await self._read(transaction, record)
        else:
            identity = await self._identity(transaction, record)
            bars = await self._map(transaction, record, files, identity)
        series = self._known[record.id] = StoredSeries(
            id=record.id,
            resolution=record.resolution,
            price_decimals=record.price_decimals,
            volume_decimals=record.volume_decimals,
            bars=bars,
            version=record.version,
            identity=identity,
        )
        return series

    def find(self, series_id: str) -> StoredSeries | None:
        """Return a series that was loaded; None where there is none."""
        return self._known.get(series_id)

    async def texts(self, series: StoredSeries) -> StoredTexts | None:
        """Return a large series' finished texts, written now where they aren't there yet."""
        files, count = self._files, len(series.bars)
        if files is None or not series.identity or not series.resolution.is_intraday:
            return None
        found = files.open_texts(series.id, series.identity, count)
        if found is None:
            scale = Scale(series.price_decimals, series.volume_decimals)
            for _ in files.write_texts(series.id, series.identity, count, series.bars, scale):
                # A block takes a few milliseconds; most of the time belongs to requests.
                await asyncio.sleep(_PAUSE_SECONDS)
            found = files.open_texts(series.id, series.identity, count)
        return found

    async def _identity(self, transaction: Transaction, record: SeriesRecord) -> str:
        """Return what tells a series' present bars from all others, of other databases too.

        A version counts from 1 in every database, so when it was stored counts too; minutes are
        appended to a version, after a restored backup maybe others, so the newest chunk does.
        """
        digest = hashlib.sha256(f"{record.version} {record.loaded_at_us}".encode())
        last = await self._bars.read_last_chunk(transaction, record.id, record.version)
        for column in last[1].arrays() if last else ():
            digest.update(column.tobytes())
        return digest.hexdigest()[:32]

    async def _map(
        self, transaction: Transaction, record: SeriesRecord, files: SeriesFiles, identity: str
    ) -> Columns:
        bars = files.open(record.id, identity, record.bar_count)
        if bars is None:
            with files.writing(record.id, identity, record.bar_count) as add:
                await self._each_chunk(transaction, record, add)
            bars = files.open(record.id, identity, record.bar_count)
        assert bars is not None, "it was just written"
        return bars

    async def _read(self, transaction: Transaction, record: SeriesRecord) -> Columns:
        parts: list[Columns] = []
        await self._each_chunk(transaction, record, parts.append)
        return Columns.concat(parts)

    async def _each_chunk(
        self, transaction: Transaction, record: SeriesRecord, take: Callable[[Columns], None]
    ) -> None:
        position = -1
        while chunks := await self._bars.read_chunks(
            transaction, record.id, record.version, after=position
        ):
            for position, columns in chunks:  # noqa: B007 - the last one goes on
                take(columns)
