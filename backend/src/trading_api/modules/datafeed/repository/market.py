"""Rows ⇄ market data. No commit, no rule."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.domain.demo import Split
from trading_api.modules.datafeed.domain.importing import ImportState
from trading_api.modules.datafeed.domain.instrument import (
    AssetClass,
    Dividend,
    Exchange,
    Instrument,
)
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.series import SourcedSeries
from trading_api.modules.datafeed.repository.bars import BarRepository, SeriesRecord
from trading_api.runtime.database import Transaction

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class DemoAnchor:
    """What fixes the demo market for ever.

    Attributes:
        anchor_time: 00:00 UTC of the anchor day, seconds.
        seed: text that the simulated paths depend on.
    """

    anchor_time: int
    seed: str


@dataclass(frozen=True, slots=True)
class MarketData:
    """Everything stored, as one snapshot saw it.

    Attributes:
        instruments: in the order they were listed.
        series: by id; their bars are read apart.
        splits: by series id, ascending.
        dividends: by full symbol, ascending.
        anchor: None before the first seed.
    """

    instruments: list[Instrument]
    series: dict[str, SeriesRecord]
    splits: dict[str, list[Split]]
    dividends: dict[str, list[Dividend]]
    anchor: DemoAnchor | None


@dataclass(frozen=True, slots=True)
class Revision:
    """What differs whenever instruments or series do.

    Attributes:
        instruments: rows, retired ones included.
        changes: sum of the instruments' versions.
        series: stored series.
        loaded_at_us: when the last of them was stored, microseconds; 0 where there is none.
    """

    instruments: int
    changes: int
    series: int
    loaded_at_us: int


class MarketRepository:
    """Series and instruments as the market is built from them."""

    async def find_revision(self, transaction: Transaction) -> Revision:
        """Return the present revision; two small scans."""
        row = await transaction.first(
            sa.select(
                sa.select(sa.func.count())
                .select_from(tables.instruments)
                .scalar_subquery()
                .label("instruments"),
                sa.select(sa.func.sum(tables.instruments.c.version))
                .scalar_subquery()
                .label("changes"),
                sa.select(sa.func.count())
                .select_from(tables.series)
                .scalar_subquery()
                .label("series"),
                sa.select(sa.func.max(tables.series.c.loaded_at_us))
                .scalar_subquery()
                .label("loaded_at_us"),
            )
        )
        assert row is not None, "aggregates give one row"
        return Revision(row.instruments, int(row.changes or 0), row.series, row.loaded_at_us or 0)

    def __init__(self) -> None:
        self._bars = BarRepository()

    async def load(self, transaction: Transaction) -> MarketData:
        """Return everything stored but the bars."""
        splits: dict[str, list[Split]] = {}
        for row in await transaction.all(sa.select(tables.splits).order_by(tables.splits.c.at_us)):
            splits.setdefault(row.series_id, []).append(
                Split(row.at_us // _MICROSECONDS, row.ratio)
            )
        dividends: dict[str, list[Dividend]] = {}
        for row in await transaction.all(
            sa.select(tables.dividends).order_by(tables.dividends.c.ex_at_us)
        ):
            dividends.setdefault(f"{row.exchange}:{row.ticker}", []).append(dividend_of(row))
        rows = await transaction.all(
            sa.select(tables.instruments)
            .where(tables.instruments.c.retired_at_us.is_(None))
            .order_by(tables.instruments.c.position, tables.instruments.c.ticker)
        )
        return MarketData(
            instruments=[instrument_of(row) for row in rows],
            series=await self.load_series(transaction),
            splits=splits,
            dividends=dividends,
            anchor=await self.find_anchor(transaction),
        )

    async def load_series(self, transaction: Transaction) -> dict[str, SeriesRecord]:
        """Return every stored series by id, without its bars."""
        return {
            row.id: SeriesRecord(
                id=row.id,
                resolution=parse_resolution(row.resolution),
                price_decimals=row.price_decimals,
                volume_decimals=row.volume_decimals,
                bar_count=row.bar_count,
                version=row.version,
                loaded_at_us=row.loaded_at_us,
            )
            for row in await transaction.all(sa.select(tables.series))
        }

    async def is_retired(self, transaction: Transaction, instrument: Instrument) -> bool:
        """Tell whether an operator took an instrument off the list."""
        table = tables.instruments
        retired_at_us = await transaction.scalar(
            sa.select(table.c.retired_at_us).where(
                table.c.exchange == str(instrument.exchange), table.c.ticker == instrument.ticker
            )
        )
        return retired_at_us is not None

    async def find_anchor(self, transaction: Transaction) -> DemoAnchor | None:
        """Return the demo market's anchor; None before the first seed."""
        row = await transaction.first(sa.select(tables.demo_market))
        if row is None:
            return None
        return DemoAnchor(row.anchor_at_us // _MICROSECONDS, row.seed)

    async def save_anchor(
        self, transaction: Transaction, anchor: DemoAnchor, *, now_us: int
    ) -> None:
        """Insert the anchor; the primary key refuses a second one."""
        await transaction.execute(
            tables.demo_market.insert(),
            {
                "id": 1,
                "anchor_at_us": anchor.anchor_time * _MICROSECONDS,
                "seed": anchor.seed,
                "seeded_at_us": now_us,
            },
        )

    async def needs_series(self, transaction: Transaction, series: SourcedSeries) -> bool:
        """Tell whether a bundled series is to be stored, and keep imports out until then.

        It isn't where exactly this version is stored, or where an import added to it.
        """
        stored, imports = tables.series.c, tables.imports
        found = await transaction.first(
            sa.select(stored.source_sha256, stored.bar_count)
            .where(stored.id == series.series.id)
            .with_for_update()
        )
        if found is None:
            return True
        if tuple(found) == (series.source_sha256, len(series.series.bars)):
            return False
        imported = sa.exists().where(
            imports.c.series_id == series.series.id, imports.c.state == ImportState.DONE
        )
        return not await transaction.scalar(sa.select(imported))

    async def save_series(
        self,
        transaction: Transaction,
        series: SourcedSeries,
        splits: tuple[Split, ...],
        *,
        now_us: int,
    ) -> None:
        """Store a series, its splits and all of its bars, in place of an older version."""
        stored = series.series
        values = {
            "resolution": str(stored.resolution),
            "price_decimals": stored.price_decimals,
            "volume_decimals": stored.volume_decimals,
            "bar_count": len(stored.bars),
            "source": series.source,
            "source_sha256": series.source_sha256,
            "license": series.license,
            "loaded_at_us": now_us,
        }
        updated = await transaction.execute(
            tables.series.update().where(tables.series.c.id == stored.id).values(values)
        )
        if not updated.rowcount:
            await transaction.execute(tables.series.insert(), {"id": stored.id, **values})
        version = await self._bars.next_version(transaction, stored.id)
        await transaction.execute(
            tables.series.update().where(tables.series.c.id == stored.id).values(version=version)
        )
        for leftover in await self._bars.list_leftovers(transaction, stored.id):
            while await self._bars.drop_some_chunks(transaction, stored.id, leftover):
                pass
        await transaction.execute(
            tables.splits.delete().where(tables.splits.c.series_id == stored.id)
        )
        await self._bars.add_chunks(transaction, stored.id, version, 0, stored.bars)
        if splits:
            await transaction.execute(
                tables.splits.insert(),
                [
                    {
                        "series_id": stored.id,
                        "at_us": split.time * _MICROSECONDS,
                        "ratio": split.ratio,
                    }
                    for split in splits
                ],
            )

    async def add_instruments(self, transaction: Transaction, instruments: list[Instrument]) -> int:
        """Bring the bundled instruments in; return how many were new or differed.

        What an operator ever changed is left alone, what nobody did follows its definition.
        """
        table = tables.instruments
        rows = await transaction.all(sa.select(table))
        known = {(row.exchange, row.ticker): row for row in rows}
        new, differing = [], 0
        for position, instrument in enumerate(instruments):
            row = known.get((str(instrument.exchange), instrument.ticker))
            if row is None:
                new.append(instrument_row(instrument, position))
            elif row.changed_at_us is None and instrument_of(row) != instrument:
                differing += 1
                await transaction.execute(
                    table.update()
                    .where(table.c.exchange == row.exchange, table.c.ticker == row.ticker)
                    .values(instrument_row(instrument, position))
                )
        if new:
            await transaction.execute(table.insert(), new)
        return len(new) + differing


def dividend_of(row: "sa.Row[tuple[object, ...]]") -> Dividend:
    """Return the dividend of a row."""
    return Dividend(row.ex_at_us // _MICROSECONDS, row.amount)


def instrument_of(row: "sa.Row[tuple[object, ...]]") -> Instrument:
    """Return the instrument of a whole row."""
    values = dict(row._mapping)
    for column in ("position", "changed_at_us", "retired_at_us"):
        del values[column]
    values["exchange"] = Exchange(values["exchange"])
    values["asset_class"] = AssetClass(values["asset_class"])
    return Instrument(**values)


def instrument_row(instrument: Instrument, position: int) -> dict[str, object]:
    """Return an instrument's columns and its place in listings."""
    return asdict(instrument) | {
        "exchange": str(instrument.exchange),
        "asset_class": str(instrument.asset_class),
        "position": position,
    }
