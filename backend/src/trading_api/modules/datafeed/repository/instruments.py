"""Instruments as operators change them."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.domain.instrument import Dividend, Exchange, Instrument
from trading_api.modules.datafeed.repository.market import (
    dividend_of,
    instrument_of,
    instrument_row,
)
from trading_api.runtime.database import Transaction


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """What an instrument must agree with.

    Attributes:
        resolution: of its bars, canonical.
        price_decimals: decimals of its prices.
        volume_decimals: decimals of its volumes.
        first_at_us: start of its first bar, microseconds.
    """

    resolution: str
    price_decimals: int
    volume_decimals: int
    first_at_us: int


class InstrumentRepository:
    """Rows of single instruments."""

    async def lock(
        self, transaction: Transaction, exchange: Exchange, ticker: str
    ) -> Instrument | None:
        """Return a listed instrument, locked until the transaction ends; None where there is none.

        Retired ones count as none.
        """
        table = tables.instruments
        row = await transaction.first(
            sa.select(table)
            .where(
                table.c.exchange == str(exchange),
                table.c.ticker == ticker,
                table.c.retired_at_us.is_(None),
            )
            .with_for_update()
        )
        return instrument_of(row) if row else None

    async def is_taken(self, transaction: Transaction, exchange: Exchange, ticker: str) -> bool:
        """Tell whether a symbol is or was listed."""
        table = tables.instruments
        found = await transaction.first(
            sa.select(table.c.ticker).where(
                table.c.exchange == str(exchange), table.c.ticker == ticker
            )
        )
        return found is not None

    async def find_series_id(
        self, transaction: Transaction, exchange: Exchange, ticker: str
    ) -> str | None:
        """Return the series behind a listed instrument; None where there is none, or retired."""
        table = tables.instruments
        found = await transaction.scalar(
            sa.select(table.c.series_id).where(
                table.c.exchange == str(exchange),
                table.c.ticker == ticker,
                table.c.retired_at_us.is_(None),
            )
        )
        return None if found is None else str(found)

    async def add(self, transaction: Transaction, instrument: Instrument, *, now_us: int) -> None:
        """Insert an instrument behind all others; the primary key refuses a symbol twice."""
        last = await transaction.scalar(sa.select(sa.func.max(tables.instruments.c.position)))
        row = instrument_row(instrument, 0 if last is None else last + 1)
        await transaction.execute(tables.instruments.insert(), row | {"changed_at_us": now_us})

    async def save(
        self,
        transaction: Transaction,
        instrument: Instrument,
        *,
        now_us: int,
        is_retired: bool = False,
    ) -> None:
        """Write a changed instrument, which the caller has locked."""
        table = tables.instruments
        row = instrument_row(instrument, 0)
        del row["position"]
        row |= {"changed_at_us": now_us, "retired_at_us": now_us if is_retired else None}
        await transaction.execute(
            table.update()
            .where(
                table.c.exchange == str(instrument.exchange), table.c.ticker == instrument.ticker
            )
            .values(row)
        )

    async def read_dividends(
        self, transaction: Transaction, instrument: Instrument
    ) -> list[Dividend]:
        """Return an instrument's dividends, ascending."""
        table = tables.dividends
        rows = await transaction.all(
            sa.select(table).where(_of(table, instrument)).order_by(table.c.ex_at_us)
        )
        return [dividend_of(row) for row in rows]

    async def save_dividends(
        self, transaction: Transaction, instrument: Instrument, dividends: Sequence[Dividend]
    ) -> None:
        """Put dividends in the place of those that an instrument had; it is locked."""
        table = tables.dividends
        await transaction.execute(table.delete().where(_of(table, instrument)))
        if dividends:
            await transaction.execute(
                table.insert(),
                [
                    {
                        "exchange": str(instrument.exchange),
                        "ticker": instrument.ticker,
                        "ex_at_us": each.time * 1_000_000,
                        "amount": each.amount,
                    }
                    for each in dividends
                ],
            )

    async def find_series(self, transaction: Transaction, series_id: str) -> SeriesFacts | None:
        """Return what is to be known of a stored series; None where there is none."""
        first = (
            sa.select(sa.func.min(tables.series_chunks.c.first_at_us))
            .where(
                tables.series_chunks.c.series_id == tables.series.c.id,
                tables.series_chunks.c.version == tables.series.c.version,
            )
            .scalar_subquery()
        )
        row = await transaction.first(
            sa.select(
                tables.series.c.resolution,
                tables.series.c.price_decimals,
                tables.series.c.volume_decimals,
                first.label("first_at_us"),
            ).where(tables.series.c.id == series_id)
        )
        return SeriesFacts(**row._mapping) if row else None


def _of(table: sa.Table, instrument: Instrument) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.exchange == str(instrument.exchange), table.c.ticker == instrument.ticker
    )
