"""Chunks of bars, and the imports that write them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa

from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns
from trading_api.modules.datafeed.domain.importing import BadLine, ImportState, Reached
from trading_api.modules.datafeed.domain.resolution import Resolution
from trading_api.runtime.database import Transaction

_MICROSECONDS = 1_000_000
CHUNKS_PER_READ = 32
"""6 MiB of blobs at a time."""


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """A stored series without its bars.

    Attributes:
        id: its name.
        resolution: what its bars are.
        price_decimals: decimals of its prices.
        volume_decimals: decimals of its volumes.
        bar_count: how many there are.
        version: of its chunks.
        loaded_at_us: when that version was stored, microseconds.
    """

    id: str
    resolution: Resolution
    price_decimals: int
    volume_decimals: int
    bar_count: int
    version: int
    loaded_at_us: int


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What a stored series is.

    Attributes:
        resolution: canonical spelling.
        price_decimals: decimals of its prices.
        volume_decimals: decimals of its volumes.
        bar_count: how many bars it has.
        version: of its chunks.
    """

    resolution: str
    price_decimals: int
    volume_decimals: int
    bar_count: int
    version: int


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """An import as far as it got.

    Attributes:
        id: ``imp_…``.
        series_id: where its bars go.
        version: of the chunks that it writes.
        resolution: canonical spelling.
        price_decimals: that its prices are stored with.
        volume_decimals: that its volumes are stored with.
        source: the file's name.
        source_sha256: the file's digest, hexadecimal.
        state: RUNNING until it is published or refused.
        reached: where the file goes on.
        chunk_count: chunks written.
        bar_count: bars in them.
        bad_count: bad lines so far.
        bad_lines: the first of them.
    """

    id: str
    series_id: str
    version: int
    resolution: str
    price_decimals: int
    volume_decimals: int
    source: str
    source_sha256: str
    state: ImportState
    reached: Reached
    chunk_count: int
    bar_count: int
    bad_count: int
    bad_lines: tuple[BadLine, ...]

    @property
    def joined_version(self) -> int:
        """Version of the chunks that hold its bars joined with the series' own."""
        return self.version + 1


class SeriesMismatchError(Exception):
    """A series holds bars of another length, or at other scales."""


class BarRepository:
    """Reads and writes chunks; a series is what its row's version says."""

    async def find_series(
        self, transaction: Transaction, series_id: str, *, lock: bool = False
    ) -> StoredFacts | None:
        """Return what a series is; None where there is none."""
        table = tables.series
        query = sa.select(
            table.c.resolution,
            table.c.price_decimals,
            table.c.volume_decimals,
            table.c.bar_count,
            table.c.version,
        ).where(table.c.id == series_id)
        row = await transaction.first(query.with_for_update() if lock else query)
        return None if row is None else StoredFacts(**row._mapping)

    async def read_chunks(
        self,
        transaction: Transaction,
        series_id: str,
        version: int,
        *,
        after: int = -1,
    ) -> list[tuple[int, Columns]]:
        """Return some chunks behind a position, in order; none: that was all."""
        chunks = tables.series_chunks
        rows = await transaction.all(
            sa.select(chunks.c.position, chunks.c.bar_count, chunks.c.columns)
            .where(
                chunks.c.series_id == series_id,
                chunks.c.version == version,
                chunks.c.position > after,
            )
            .order_by(chunks.c.position)
            .limit(CHUNKS_PER_READ)
        )
        return [(row.position, decode_bars(row.columns, row.bar_count)) for row in rows]

    async def read_last_chunk(
        self, transaction: Transaction, series_id: str, version: int
    ) -> tuple[int, Columns] | None:
        """Return the newest chunk with its position."""
        chunks = tables.series_chunks
        row = await transaction.first(
            sa.select(chunks.c.position, chunks.c.bar_count, chunks.c.columns)
            .where(chunks.c.series_id == series_id, chunks.c.version == version)
            .order_by(chunks.c.position.desc())
            .limit(1)
        )
        return None if row is None else (row.position, decode_bars(row.columns, row.bar_count))

    async def next_version(self, transaction: Transaction, series_id: str) -> int:
        """Return a version that neither the series nor an import of it has.

        An import has two: that of its own chunks, and the next one for the joined ones.
        """
        series, imports = tables.series, tables.imports
        present = await transaction.scalar(
            sa.select(series.c.version).where(series.c.id == series_id)
        )
        imported = await transaction.scalar(
            sa.select(sa.func.max(imports.c.version)).where(imports.c.series_id == series_id)
        )
        return 1 + max(int(present or 0), 0 if imported is None else int(imported) + 1)

    async def add_chunks(
        self,
        transaction: Transaction,
        series_id: str,
        version: int,
        position: int,
        bars: Columns,
    ) -> int:
        """Insert bars as chunks from a position on; return the position behind the last one."""
        rows = list(_chunk_rows(series_id, version, position, bars))
        if rows:
            await transaction.execute(tables.series_chunks.insert(), rows)
        return position + len(rows)

    async def replace_last_chunk(
        self, transaction: Transaction, series_id: str, version: int, position: int, bars: Columns
    ) -> None:
        """Write the newest chunk anew; what doesn't fit becomes further ones."""
        await transaction.execute(_chunk(series_id, version, position))
        await self.add_chunks(transaction, series_id, version, position, bars)

    async def drop_some_chunks(
        self, transaction: Transaction, series_id: str, version: int
    ) -> bool:
        """Delete the first chunks of a version; False: that was all."""
        chunks = tables.series_chunks
        of_version = sa.and_(chunks.c.series_id == series_id, chunks.c.version == version)
        some = (
            sa.select(chunks.c.position)
            .where(of_version)
            .order_by(chunks.c.position)
            .limit(CHUNKS_PER_READ)
            .subquery()
        )
        last = await transaction.scalar(sa.select(sa.func.max(some.c.position)))
        if last is None:
            return False
        await transaction.execute(chunks.delete().where(of_version, chunks.c.position <= last))
        return True

    async def is_whole(
        self, transaction: Transaction, series_id: str, version: int, bar_count: int
    ) -> bool:
        """Tell whether a version's chunks are numbered from 0 on and hold so many bars."""
        chunks = tables.series_chunks
        row = await transaction.first(
            sa.select(
                sa.func.count().label("chunks"),
                sa.func.max(chunks.c.position).label("last"),
                sa.func.sum(chunks.c.bar_count).label("bars"),
            ).where(chunks.c.series_id == series_id, chunks.c.version == version)
        )
        assert row is not None, "aggregates give one row"
        return (row.last, row.bars) == (row.chunks - 1, bar_count)

    async def list_leftovers(self, transaction: Transaction, series_id: str) -> list[int]:
        """Return the versions whose chunks nobody needs: of no series and no running import."""
        chunks, imports = tables.series_chunks, tables.imports
        stored = await transaction.all(
            sa.select(chunks.c.version).where(chunks.c.series_id == series_id).distinct()
        )
        running = await transaction.all(
            sa.select(imports.c.version).where(
                imports.c.series_id == series_id, imports.c.state == ImportState.RUNNING
            )
        )
        series = await self.find_series(transaction, series_id)
        needed = {each for row in running for each in (row.version, row.version + 1)}
        if series is not None:
            needed.add(series.version)
        return sorted({row.version for row in stored} - needed)

    async def save_series(
        self, transaction: Transaction, values: dict[str, object], *, exists: bool
    ) -> None:
        """Insert a series' row, or update it; the seconds of its bars before go."""
        seconds = tables.second_bars
        await transaction.execute(seconds.delete().where(seconds.c.series_id == values["id"]))
        if not exists:
            await transaction.execute(tables.series.insert(), values)
            return
        await transaction.execute(
            tables.series.update().where(tables.series.c.id == values["id"]).values(values)
        )

    async def append(
        self,
        transaction: Transaction,
        series_id: str,
        bars: Columns,
        *,
        price_decimals: int,
        volume_decimals: int,
        source: str,
        now_us: int,
        seconds: Columns = EMPTY,
        seconds_kept: int = 0,
    ) -> None:
        """Store final minutes behind those of a series, which is made where it is new.

        Idempotent: what the series has already is left out.

        Args:
            seconds: of some of the minutes.
            seconds_kept: seconds of minutes that ended longer ago are deleted, in seconds.

        Raises:
            SeriesMismatchError: the series has bars of another length or other decimals.
        """
        series = await self.find_series(transaction, series_id, lock=True)
        if series is None:
            version = await self.next_version(transaction, series_id)
            await self.add_chunks(transaction, series_id, version, 0, bars)
            values = {
                "id": series_id,
                "resolution": "1",
                "price_decimals": price_decimals,
                "volume_decimals": volume_decimals,
                "bar_count": len(bars),
                "version": version,
                "source": source,
                "source_sha256": "",
                "license": "as the provider has it",
                "loaded_at_us": max(now_us, await self.last_loaded_us(transaction) + 1),
            }
            await self.save_series(transaction, values, exists=False)
            await self._add_seconds(transaction, series_id, bars, seconds, seconds_kept)
            return
        ensure_minutes(series_id, series, price_decimals, volume_decimals)
        version = series.version
        last = await self.read_last_chunk(transaction, series_id, version)
        assert last is not None, "a series has at least one bar"
        position, stored = last
        bars = bars[bars.index_at(int(stored.time[-1]) + 1) :]
        if not len(bars):
            return
        await self.replace_last_chunk(
            transaction, series_id, version, position, Columns.concat([stored, bars])
        )
        await transaction.execute(
            tables.series.update()
            .where(tables.series.c.id == series_id)
            .values(bar_count=tables.series.c.bar_count + len(bars))
        )
        await self._add_seconds(transaction, series_id, bars, seconds, seconds_kept)

    async def read_seconds(
        self, transaction: Transaction, series_ids: Sequence[str]
    ) -> dict[str, Columns]:
        """Return the stored seconds of some series, ascending; of those alone that have any."""
        table = tables.second_bars
        parts: dict[str, list[Columns]] = {}
        for row in await transaction.all(
            sa.select(table)
            .where(table.c.series_id.in_(series_ids))
            .order_by(table.c.series_id, table.c.minute_at_us)
        ):
            parts.setdefault(row.series_id, []).append(decode_bars(row.columns, row.bar_count))
        return {series_id: Columns.concat(found) for series_id, found in parts.items()}

    async def _add_seconds(
        self,
        transaction: Transaction,
        series_id: str,
        minutes: Columns,
        seconds: Columns,
        seconds_kept: int,
    ) -> None:
        """Store the seconds of minutes that were just stored, and delete the old ones."""
        table, rows = tables.second_bars, []
        for minute in minutes.time.tolist() if len(seconds) else ():
            part = seconds[seconds.index_at(minute) : seconds.index_at(minute + 60)]
            if len(part):
                rows.append(
                    {
                        "series_id": series_id,
                        "minute_at_us": minute * _MICROSECONDS,
                        "bar_count": len(part),
                        "columns": encode_bars(part),
                    }
                )
        if rows:
            await transaction.execute(table.insert(), rows)
        oldest = (int(minutes.time[-1]) + 60 - seconds_kept) * _MICROSECONDS
        await transaction.execute(
            table.delete().where(table.c.series_id == series_id, table.c.minute_at_us < oldest)
        )

    async def last_loaded_us(self, transaction: Transaction) -> int:
        """Return when any series was last stored, microseconds."""
        found = await transaction.scalar(sa.select(sa.func.max(tables.series.c.loaded_at_us)))
        return int(found or 0)

    async def find_import(
        self, transaction: Transaction, series_id: str, source_sha256: str
    ) -> ImportRecord | None:
        """Return the newest import of a file into a series that wasn't refused."""
        imports = tables.imports
        row = await transaction.first(
            sa.select(imports)
            .where(
                imports.c.series_id == series_id,
                imports.c.source_sha256 == source_sha256,
                imports.c.state != ImportState.REFUSED,
            )
            .order_by(imports.c.version.desc())
        )
        return None if row is None else _import(row)

    async def list_imports(self, transaction: Transaction, limit: int) -> list[ImportRecord]:
        """Return the newest imports, the latest first."""
        imports = tables.imports
        rows = await transaction.all(
            sa.select(imports).order_by(imports.c.started_at_us.desc()).limit(limit)
        )
        return [_import(row) for row in rows]

    async def insert_import(
        self, transaction: Transaction, record: ImportRecord, *, now_us: int
    ) -> None:
        """Insert an import that begins."""
        await transaction.execute(
            tables.imports.insert(),
            {**_progress(record), "started_at_us": now_us, "changed_at_us": now_us}
            | {
                "id": record.id,
                "series_id": record.series_id,
                "version": record.version,
                "resolution": record.resolution,
                "price_decimals": record.price_decimals,
                "volume_decimals": record.volume_decimals,
                "source": record.source,
                "source_sha256": record.source_sha256,
            },
        )

    async def save_import(
        self,
        transaction: Transaction,
        before: ImportRecord,
        record: ImportRecord,
        *,
        now_us: int,
    ) -> bool:
        """Store how far an import got; False where another run of it was here meanwhile."""
        imports = tables.imports
        result = await transaction.execute(
            imports.update()
            .where(
                imports.c.id == record.id,
                imports.c.state == before.state,
                imports.c.position == before.reached.position,
                imports.c.chunk_count == before.chunk_count,
            )
            .values(**_progress(record), changed_at_us=now_us)
        )
        return result.rowcount == 1


def ensure_minutes(
    series_id: str, series: StoredFacts, price_decimals: int, volume_decimals: int
) -> None:
    """Check that minutes at these scales may be stored behind those of a series.

    Raises:
        SeriesMismatchError: they may not; they would be read a power of ten too large or small.
    """
    stored = (series.resolution, series.price_decimals, series.volume_decimals)
    if stored != ("1", price_decimals, volume_decimals):
        raise SeriesMismatchError(
            f"{series_id} has bars of {stored[0]} with {stored[1]} and {stored[2]} decimals, not"
            f" of 1 with {price_decimals} and {volume_decimals}"
        )


def chunks_of(bar_count: int) -> int:
    """Return how many chunks so many bars become."""
    return -(-bar_count // tables.BARS_PER_CHUNK)


def _chunk_rows(
    series_id: str, version: int, position: int, bars: Columns
) -> Iterator[dict[str, object]]:
    for start in range(0, len(bars), tables.BARS_PER_CHUNK):
        part = bars[start : start + tables.BARS_PER_CHUNK]
        yield {
            "series_id": series_id,
            "version": version,
            "position": position + start // tables.BARS_PER_CHUNK,
            "bar_count": len(part),
            "first_at_us": int(part.time[0]) * _MICROSECONDS,
            "last_at_us": int(part.time[-1]) * _MICROSECONDS,
            "columns": encode_bars(part),
        }


def encode_bars(bars: Columns) -> bytes:
    """Return bars as a blob: six little-endian 64-bit columns, one after another."""
    return b"".join(column.astype("<i8", copy=False).tobytes() for column in bars.arrays())


def decode_bars(data: bytes, count: int) -> Columns:
    """Return the bars of a blob."""
    table = np.frombuffer(data, dtype="<i8").reshape(6, count).astype(np.int64, copy=False)
    return Columns(*table)


def _chunk(series_id: str, version: int, position: int) -> sa.Delete:
    chunks = tables.series_chunks
    return chunks.delete().where(
        chunks.c.series_id == series_id,
        chunks.c.version == version,
        chunks.c.position == position,
    )


def _progress(record: ImportRecord) -> dict[str, object]:
    reached = record.reached
    return {
        "state": str(record.state),
        "position": reached.position,
        "line": reached.line,
        "last_at_us": None if reached.last_time is None else reached.last_time * _MICROSECONDS,
        "last_close": reached.last_close,
        "chunk_count": record.chunk_count,
        "bar_count": record.bar_count,
        "bad_count": record.bad_count,
        "bad_lines": json.dumps([[each.line, each.reason] for each in record.bad_lines]),
    }


def _import(row: "sa.Row[tuple[object, ...]]") -> ImportRecord:
    values = row._mapping
    last_at_us = values["last_at_us"]
    bad: Sequence[tuple[int, str]] = json.loads(values["bad_lines"])
    return ImportRecord(
        id=values["id"],
        series_id=values["series_id"],
        version=values["version"],
        resolution=values["resolution"],
        price_decimals=values["price_decimals"],
        volume_decimals=values["volume_decimals"],
        source=values["source"],
        source_sha256=values["source_sha256"],
        state=ImportState(values["state"]),
        reached=Reached(
            values["position"],
            values["line"],
            None if last_at_us is None else last_at_us // _MICROSECONDS,
            values["last_close"],
        ),
        chunk_count=values["chunk_count"],
        bar_count=values["bar_count"],
        bad_count=values["bad_count"],
        bad_lines=tuple(BadLine(line, reason) for line, reason in bad),
    )
