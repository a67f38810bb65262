"""The proofs of market data find nothing in sound data, and each planted fault."""

from typing import Any

import pytest
import sqlalchemy as sa

from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.repository import BarRepository
from trading_api.modules.datafeed.repository.bars import encode_bars
from trading_api.modules.datafeed.repository.checks import CHECK_IDS, check_market_data
from trading_api.modules.datafeed.tests.conftest import a_service
from trading_api.modules.datafeed.tests.test_instruments import Desk, desk
from trading_api.runtime.database import Database

__all__ = ["desk"]

_chunks, _series, _instruments = tables.series_chunks, tables.series, tables.instruments
_first = sa.and_(_chunks.c.series_id == "aapl-1d", _chunks.c.position == 0)
_apple = sa.and_(_instruments.c.ticker == "AAPL", _instruments.c.exchange == "HIST")


async def found_in(database: Database) -> list[str]:
    async with database.snapshot() as snapshot:
        return [each.id for each in await check_market_data(snapshot)]


async def test_sound_market_data_has_no_violation(desk: Desk) -> None:
    await desk.change("AAPL", spread_ticks=4)
    await desk.change("DEMO:IBM", tradable=False)
    await desk.retire("DEMO:IBM")
    await store_a_minute_with_seconds(desk.database)
    assert await found_in(desk.database) == []


def a_second(second: int, *, close: int = 5) -> Columns:
    """Return a second of the minute that ``store_a_minute_with_seconds`` stores."""
    return Columns.of_rows([(60 + second, 5, max(5, close), 5, close, 1 + (second == 5))])


async def store_a_minute_with_seconds(database: Database) -> None:
    minute = Columns.of_rows([(60, 5, 5, 5, 5, 1)])
    async with database.transaction() as transaction:
        await BarRepository().append(
            transaction, "live-1", minute, price_decimals=2, volume_decimals=0, source="tests",
            now_us=1, seconds=a_second(7), seconds_kept=3_600,
        )  # fmt: skip


async def test_one_unsound_instrument_or_series_hides_no_other(desk: Desk) -> None:
    every = {each.symbol for each in desk.market.offered()}
    async with desk.database.transaction() as transaction:
        await transaction.execute(_instruments.update().where(_apple).values(session="whenever"))
    assert await desk.market.load()
    assert {each.symbol for each in desk.market.offered()} == every - {"HIST:AAPL"}
    fresh = a_service(desk.database)
    async with desk.database.transaction() as transaction:
        await transaction.execute(_chunks.update().where(_first).values(columns=b"short"))
    assert await fresh.load()
    assert {each.symbol for each in fresh.offered()} == every - {"HIST:AAPL", "DEMO:AAPL"}


async def spoil_bars(desk: Desk, row: int, value: int) -> Any:
    """Return an update that sets one number of a chunk's columns at its first bar."""
    async with desk.database.snapshot() as snapshot:
        chunk = await snapshot.first(sa.select(_chunks).where(_first))
    assert chunk is not None
    data = bytearray(chunk.columns)
    place = row * chunk.bar_count * 8
    data[place : place + 8] = value.to_bytes(8, "little")
    return _chunks.update().where(_first).values(columns=bytes(data))


async def test_every_planted_fault_is_found(desk: Desk) -> None:
    await desk.change("AAPL", spread_ticks=4)
    outbox = tables.outbox_table
    seconds = tables.second_bars
    await store_a_minute_with_seconds(desk.database)
    faults: list[tuple[str, Any]] = [
        ("M5", seconds.update().values(columns=encode_bars(a_second(5)))),
        ("M5", seconds.update().values(columns=encode_bars(a_second(60)))),
        ("M5", seconds.update().values(columns=encode_bars(a_second(6, close=7)))),
        ("M5", seconds.update().values(columns=b"short")),
        ("M5", seconds.update().values(minute_at_us=120_000_000)),
        ("M1", _series.update().where(_series.c.id == "aapl-1d").values(bar_count=1)),
        ("M1", _chunks.update().where(_first).values(position=7)),
        ("M1", _chunks.update().where(_first).values(first_at_us=1)),
        ("M1", _chunks.update().where(_first).values(columns=b"short")),
        ("M2", await spoil_bars(desk, 0, 2**40)),
        ("M2", await spoil_bars(desk, 2, 1)),
        ("M3", _instruments.update().where(_apple).values(price_decimals=2)),
        (
            "M3",
            _instruments.update().where(_apple).values(exchange="SIM", price_decimals=2),
        ),
        ("M3", _instruments.update().where(_apple).values(session="whenever")),
        ("M3", _instruments.update().where(_apple).values(time_zone="Mars/Olympus")),
        ("M3", _instruments.update().where(_apple).values(tradable=True)),
        (
            "M3",
            _instruments.update()
            .where(_instruments.c.exchange == "DEMO")
            .values(session="0930-1600"),
        ),
        ("M4", outbox.update().values(key_sequence=5)),
        ("M4", _instruments.update().values(version=9)),
    ]
    for wanted, statement in faults:
        with pytest.raises(_Undone) as undone:
            async with desk.database.transaction() as transaction:
                await transaction.execute(statement)
                raise _Undone([each.id for each in await check_market_data(transaction)])
        assert wanted in undone.value.found, str(statement)
    assert {wanted for wanted, _ in faults} == set(CHECK_IDS)
    assert await found_in(desk.database) == []


class _Undone(Exception):  # noqa: N818 - it isn't an error
    """Rolls the planted fault back and carries what was found."""

    def __init__(self, found: list[str]) -> None:
        self.found = found
