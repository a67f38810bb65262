"""Import of bars: resumable, and seen by readers as a whole or not at all.

Chunks are written beside the series under a version of their own, with how far the file was read
in the same transaction. Where the series has bars already, both are joined under a further version.
One last transaction makes the finished version the series; the others are dropped after it. A run
that ends early leaves what it wrote, and the next run with the same file goes on from there.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import FieldError
from trading_api.kernel.ids import IdSource
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.importing import (
    BAD_LINES_KEPT,
    BadLine,
    Batch,
    ImportSpec,
    ImportState,
    Reached,
)
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.errors import (
    ImportBusyError,
    ImportMismatchError,
    ImportRefusedError,
)
from trading_api.modules.datafeed.ports import BarSource
from trading_api.modules.datafeed.repository import BarRepository, ImportRecord
from trading_api.modules.datafeed.repository.bars import StoredFacts, chunks_of
from trading_api.modules.datafeed.service.market import DatafeedService
from trading_api.runtime.database import Database, Transaction

BARS_PER_COMMIT = 262_144
"""12 MiB of chunks: few syncs, and little to do again after a crash."""

BAD_LINES_SHOWN = 100
"""So many bad lines stand in an error; the stored import keeps more."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What shall be imported, and as what.

    Attributes:
        series_id: of the series that the bars go into; made where there is none.
        resolution: of the bars, in any spelling.
        price_decimals: None: as the series has, or as the file's beginning needs.
        volume_decimals: likewise.
        source_name: the file, for people.
        source_sha256: its digest, hexadecimal; the same file goes on where it stopped.
        license: what may be done with the data, in words.
        skips_bad: import the good lines although others are bad.
    """

    series_id: str
    resolution: str
    source_name: str
    source_sha256: str
    license: str = "unknown"
    price_decimals: int | None = None
    volume_decimals: int | None = None
    skips_bad: bool = False


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came of it.

    Attributes:
        record: the import as it ended.
        series_bars: bars that the series has now.
        was_done: the same file had been imported before; nothing changed.
    """

    record: ImportRecord
    series_bars: int
    was_done: bool = False


class ImportService:
    """Imports files of bars into series."""

    def __init__(self, *, database: Database, market: DatafeedService, ids: IdSource) -> None:
        self._database = database
        self._market = market
        self._ids = ids
        self._bars = BarRepository()

    async def list_imports(self, *, limit: int) -> list[ImportRecord]:
        """Return the newest imports, the latest first."""
        async with self._database.snapshot() as transaction:
            return await self._bars.list_imports(transaction, limit)

    async def import_bars(
        self,
        *,
        request: ImportRequest,
        source: BarSource,
        now: datetime,
        on_progress: Callable[[ImportRecord, float], None] = lambda _, __: None,
    ) -> ImportReport:
        """Import a file, or what is left of it after an earlier run.

        Several transactions, the last of which alone shows anything to readers. Idempotent: a
        file that is in the series already changes nothing.

        Args:
            on_progress: called with the import and the share of the file read.

        Raises:
            ImportUnreadableError: it can't be read as bars.
            ImportRefusedError: some lines are bad, and they weren't to be skipped.
            ImportMismatchError: the series has another resolution or other decimals.
            ImportBusyError: another run does the same.
        """
        record = await self._begin(request, source, now)
        if record.state is ImportState.DONE:
            return await self._report_done(record)
        spec = ImportSpec(
            parse_resolution(record.resolution),
            record.price_decimals,
            record.volume_decimals,
            int(now.timestamp()),
        )
        batches = source.read(spec, record.reached)
        while gathered := await asyncio.to_thread(_gather, batches):
            record = await self._store(record, gathered, now)
            on_progress(record, min(1.0, record.reached.position / max(1, source.size)))
            if record.bad_count > BAD_LINES_KEPT and not request.skips_bad:
                break
        if record.bad_count and not request.skips_bad:
            await self._refuse(record, now)
        if not record.bar_count:
            await self._refuse(record, now)
        total = await self._publish(record, request, now)
        await self._market.load()
        return ImportReport(replace(record, state=ImportState.DONE), total)

    async def _begin(
        self, request: ImportRequest, source: BarSource, now: datetime
    ) -> ImportRecord:
        resolution = str(parse_resolution(request.resolution))
        guessed = await asyncio.to_thread(source.guess_decimals)
        async with self._database.transaction() as transaction:
            series = await self._bars.find_series(transaction, request.series_id)
            prices = request.price_decimals
            volumes = request.volume_decimals
            if series is not None:
                prices = series.price_decimals if prices is None else prices
                volumes = series.volume_decimals if volumes is None else volumes
                _ensure_same(request.series_id, series, resolution, prices, volumes)
            found = await self._bars.find_import(
                transaction, request.series_id, request.source_sha256
            )
            if (
                found is not None
                and found.resolution == resolution
                and prices in (None, found.price_decimals)
                and volumes in (None, found.volume_decimals)
            ):
                return found
            record = ImportRecord(
                id=self._ids.new("imp"),
                series_id=request.series_id,
                version=await self._bars.next_version(transaction, request.series_id),
                resolution=resolution,
                price_decimals=guessed[0] if prices is None else prices,
                volume_decimals=guessed[1] if volumes is None else volumes,
                source=request.source_name,
                source_sha256=request.source_sha256,
                state=ImportState.RUNNING,
                reached=Reached(),
                chunk_count=0,
                bar_count=0,
                bad_count=0,
                bad_lines=(),
            )
            await self._bars.insert_import(transaction, record, now_us=to_us(now))
            return record

    async def _store(
        self, before: ImportRecord, batches: list[Batch], now: datetime
    ) -> ImportRecord:
        """Write batches as chunks, and how far the file was read, in one transaction."""
        bars = Columns.concat([batch.bars for batch in batches])
        bad: list[BadLine] = [line for batch in batches for line in batch.bad]
        async with self._database.transaction() as transaction:
            record = replace(
                before,
                reached=batches[-1].reached,
                chunk_count=before.chunk_count + chunks_of(len(bars)),
                bar_count=before.bar_count + len(bars),
                bad_count=before.bad_count + len(bad),
                bad_lines=(*before.bad_lines, *bad)[:BAD_LINES_KEPT],
            )
            # First, so that of two runs one alone writes chunks.
            await self._save(transaction, before, record, now)
            await self._bars.add_chunks(
                transaction, before.series_id, before.version, before.chunk_count, bars
            )
        return record

    async def _refuse(self, record: ImportRecord, now: datetime) -> None:
        async with self._database.transaction() as transaction:
            await self._save(transaction, record, replace(record, state=ImportState.REFUSED), now)
        await self._drop(record.series_id, record.version)
        if not record.bad_count:
            raise ImportRefusedError("the file holds no bars")
        shown = record.bad_lines[:BAD_LINES_SHOWN]
        raise ImportRefusedError(
            f"{record.bad_count} lines are bad, so nothing was imported",
            errors=[FieldError(f"line {bad.line}", "bad_line", bad.reason) for bad in shown],
            import_id=record.id,
            bad_count=record.bad_count,
        )

    async def _publish(self, record: ImportRecord, request: ImportRequest, now: datetime) -> int:
        """Make the import's chunks part of the series; return how many bars it has then.

        What takes long happens before and after, in short transactions, so that nobody waits for
        the write lock; the one in between shows the new version.
        """
        while True:
            async with self._database.snapshot() as transaction:
                before = await self._bars.find_series(transaction, record.series_id)
            version, total = await self._prepare(record, before)
            async with self._database.transaction() as transaction:
                series = await self._bars.find_series(transaction, record.series_id, lock=True)
                if _facts(series) != _facts(before):
                    # Another import, or a live minute, was faster.
                    continue
                await self._save(transaction, record, replace(record, state=ImportState.DONE), now)
                if not await self._bars.is_whole(transaction, record.series_id, version, total):
                    raise _busy(record)
                loaded_us = await self._bars.last_loaded_us(transaction) + 1
                await self._bars.save_series(
                    transaction,
                    {
                        "id": record.series_id,
                        "resolution": record.resolution,
                        "price_decimals": record.price_decimals,
                        "volume_decimals": record.volume_decimals,
                        "bar_count": total,
                        "version": version,
                        "source": record.source,
                        "source_sha256": record.source_sha256,
                        "license": request.license,
                        # Later than any other, so that every process sees that something changed.
                        "loaded_at_us": max(loaded_us, to_us(now)),
                    },
                    exists=series is not None,
                )
            break
        await self._drop_leftovers(record.series_id)
        return total

    async def _prepare(self, record: ImportRecord, series: StoredFacts | None) -> tuple[int, int]:
        """Write what the series will be; return under which version, and how many bars it has.

        Where there is no series yet, the import's own chunks are all of it.
        """
        if series is None:
            return record.version, record.bar_count
        joined = record.joined_version
        if series.version in (record.version, joined):
            raise _busy(record)
        # Another import may have made the series since this one began.
        _ensure_same(
            record.series_id,
            series,
            record.resolution,
            record.price_decimals,
            record.volume_decimals,
        )
        await self._drop(record.series_id, joined)
        position, total = 0, 0
        async for bars in _merged(
            self._chunks(record.series_id, series.version),
            self._chunks(record.series_id, record.version),
        ):
            async with self._database.transaction() as transaction:
                position = await self._bars.add_chunks(
                    transaction, record.series_id, joined, position, bars
                )
            total += len(bars)
        return joined, total

    async def _drop_leftovers(self, series_id: str) -> None:
        """Delete the chunks that are neither the series nor an unfinished import's."""
        async with self._database.snapshot() as transaction:
            versions = await self._bars.list_leftovers(transaction, series_id)
        for version in versions:
            await self._drop(series_id, version)

    async def _drop(self, series_id: str, version: int) -> None:
        """Delete the chunks of a version, a few at a time; never those of the series itself."""
        more = True
        while more:
            async with self._database.transaction() as transaction:
                series = await self._bars.find_series(transaction, series_id, lock=True)
                if series is not None and series.version == version:
                    return
                more = await self._bars.drop_some_chunks(transaction, series_id, version)

    async def _chunks(self, series_id: str, version: int) -> AsyncIterator[Columns]:
        position = -1
        while True:
            async with self._database.snapshot() as transaction:
                chunks = await self._bars.read_chunks(
                    transaction, series_id, version, after=position
                )
            if not chunks:
                return
            for position, columns in chunks:  # noqa: B007 - the last one goes on
                yield columns

    async def _save(
        self, transaction: Transaction, before: ImportRecord, record: ImportRecord, now: datetime
    ) -> None:
        if not await self._bars.save_import(transaction, before, record, now_us=to_us(now)):
            raise _busy(record)

    async def _report_done(self, record: ImportRecord) -> ImportReport:
        # The run that published it may have ended before it tidied up.
        await self._drop_leftovers(record.series_id)
        async with self._database.snapshot() as transaction:
            series = await self._bars.find_series(transaction, record.series_id)
        return ImportReport(record, series.bar_count if series else 0, was_done=True)


def _facts(series: StoredFacts | None) -> tuple[int, int]:
    """Return a series' version and count of bars; zeros where there is none."""
    return (0, 0) if series is None else (series.version, series.bar_count)


def _ensure_same(
    series_id: str, series: StoredFacts, resolution: str, prices: int, volumes: int
) -> None:
    stored = (series.resolution, series.price_decimals, series.volume_decimals)
    if stored != (resolution, prices, volumes):
        raise ImportMismatchError(
            f"{series_id} has bars of {stored[0]} with {stored[1]} and {stored[2]} decimals,"
            f" not of {resolution} with {prices} and {volumes}"
        )


def _busy(record: ImportRecord) -> ImportBusyError:
    return ImportBusyError(f"another run imports {record.source} into {record.series_id} right now")


def join_bars(old: Columns, new: Columns) -> Columns:
    """Return both in order of time; where both have a bar, the new one."""
    if not len(new):
        return old
    both = Columns.concat([old, new])
    order = np.argsort(both.time, kind="stable")
    times = both.time[order]
    # Stable: of two equal times the later one is the new bar.
    kept = order[np.append(times[1:] != times[:-1], True)]
    return Columns(*(column[kept] for column in both.arrays()))


async def _merged(
    old: AsyncIterator[Columns], new: AsyncIterator[Columns]
) -> AsyncIterator[Columns]:
    """Yield the bars of both in order of time, about ``BARS_PER_COMMIT`` at a time."""
    held: list[Columns] = []
    bars = 0
    async for part in _joined(old, new):
        held.append(part)
        bars += len(part)
        if bars >= BARS_PER_COMMIT:
            yield Columns.concat(held)
            held, bars = [], 0
    if held:
        yield Columns.concat(held)


async def _joined(
    old: AsyncIterator[Columns], new: AsyncIterator[Columns]
) -> AsyncIterator[Columns]:
    """Yield the bars of both in order of time; one chunk of each is in memory."""
    left, right = await anext(old, None), await anext(new, None)
    while left is not None and right is not None:
        # Up to where the first of the two ends, nothing of a later chunk can lie between.
        end = 1 + min(int(left.time[-1]), int(right.time[-1]))
        lefts, rights = left.index_at(end), right.index_at(end)
        yield join_bars(left[:lefts], right[:rights])
        left = left[lefts:] if lefts < len(left) else await anext(old, None)
        right = right[rights:] if rights < len(right) else await anext(new, None)
    for rest, others in ((left, old), (right, new)):
        if rest is not None:
            yield rest
        async for part in others:
            yield part


def _gather(batches: Iterator[Batch]) -> list[Batch]:
    """Return the next batches, enough for one transaction; none at the end."""
    gathered: list[Batch] = []
    bars = 0
    for batch in batches:
        gathered.append(batch)
        bars += len(batch.bars)
        if bars >= BARS_PER_COMMIT:
            break
    return gathered
