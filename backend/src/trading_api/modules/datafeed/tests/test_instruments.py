"""Operators list, change and retire instruments; every change is told and seen at once."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from trading_api.kernel.errors import IdempotencyKeyReusedError
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.adapters.calendars import (
    FIRST_DAY,
    LAST_DAY,
    bundled_calendar,
    compute_calendar,
)
from trading_api.modules.datafeed.domain.calendar import describe_days
from trading_api.modules.datafeed.domain.instrument import Exchange, Instrument
from trading_api.modules.datafeed.errors import (
    InstrumentChangedError,
    InstrumentExistsError,
    InstrumentInvalidError,
    InstrumentNotFoundError,
    InstrumentTradableError,
)
from trading_api.modules.datafeed.service import DatafeedService, InstrumentService
from trading_api.modules.datafeed.tests.builders import an_instrument, seconds
from trading_api.modules.datafeed.tests.conftest import (
    NOW,
    PREFIX,
    SEEDED_AT,
    ClientOf,
    a_service,
    an_instrument_service,
)
from trading_api.runtime.database import Database
from trading_api.testkit.clocks import FixedClock

OPERATOR = "usr_operator"


@dataclass(frozen=True, slots=True)
class Desk:
    """An operator's desk over a database of its own."""

    database: Database
    market: DatafeedService
    instruments: InstrumentService

    async def list_(self, instrument: Instrument, key: str | None = None) -> Instrument:
        result = await self.instruments.list_instrument(
            instrument=instrument, operator_id=OPERATOR, idempotency_key=key, now=NOW
        )
        return result.instrument

    async def change(self, symbol: str, version: int | None = None, **changes: Any) -> Instrument:
        result = await self.instruments.change_instrument(
            symbol=symbol, changes=changes, version=version, operator_id=OPERATOR, now=NOW
        )
        return result.instrument

    async def retire(self, symbol: str) -> Instrument:
        return await self.instruments.retire_instrument(
            symbol=symbol, version=None, operator_id=OPERATOR, now=NOW
        )

    async def told(self) -> list[dict[str, Any]]:
        async with self.database.snapshot() as snapshot:
            rows = await snapshot.all(
                sa.select(tables.outbox_table).order_by(tables.outbox_table.c.id)
            )
        return [json.loads(row.data) for row in rows]


class SomeHistory(BundledHistory):
    """A part of the bundled history, since it is stored for every test."""

    def series_ids(self) -> list[str]:
        return ["aapl-1d", "ibm-1d", "msft-1d"]

    def instruments(self) -> Iterator[Instrument]:
        return (each for each in super().instruments() if each.series_id in self.series_ids())


@pytest.fixture
async def desk(empty_database: Database, market_clock: FixedClock) -> AsyncIterator[Desk]:
    market = a_service(empty_database, history=SomeHistory())
    await market.seed(now=SEEDED_AT, demo_seed="tests")
    await market.load()
    yield Desk(empty_database, market, an_instrument_service(empty_database, market, market_clock))


def a_history(ticker: str = "APPLE", **changes: Any) -> Instrument:
    instrument = an_instrument(
        exchange=Exchange.HIST,
        ticker=ticker,
        price_decimals=4,
        session="0930-1600",
        time_zone="America/New_York",
    )
    return replace(instrument, series_id="aapl-1d", **changes)


async def test_listed_instrument_has_bars_holidays_and_is_told(desk: Desk) -> None:
    listed = await desk.list_(a_history(calendar="XNYS"), key="once")
    assert "20121029" in listed.session_holidays
    answer = await desk.market.bars(
        symbol="HIST:APPLE", resolution="1D", from_time=0, to_time=10**10, count_back=5, now=NOW
    )
    assert len(answer.selection.bars) == 5
    (told,) = await desk.told()
    assert (told["change"], told["changed_by"], told["version"]) == ("listed", OPERATOR, 1)
    assert told["after"]["calendar"] == "XNYS"

    again = await desk.list_(a_history(calendar="XNYS"), key="once")
    assert again == listed
    assert len(await desk.told()) == 1
    with pytest.raises(IdempotencyKeyReusedError):
        await desk.list_(a_history("OTHER"), key="once")
    with pytest.raises(InstrumentExistsError):
        await desk.list_(a_history())


CONTRADICTIONS = [
    (a_history("no blanks"), "ticker"),
    (a_history(time_zone="Mars/Olympus"), "timezone"),
    (a_history(session="nine to five"), "session"),
    (a_history(calendar="XNOPE"), "calendar"),
    (a_history(tradable=True), "tradable"),
    (a_history(price_decimals=2), "price_decimals"),
    (a_history(volume_decimals=3), "volume_decimals"),
    (a_history(quantity_step=5, quantity_max=4), "quantity_max"),
    (replace(a_history(), exchange=Exchange.DEMO), "session"),
    (replace(an_instrument(ticker="NEW"), series_id="nothing-1d"), "series"),
    (an_instrument(exchange=Exchange.SIM), "exchange"),
]


async def test_instrument_that_contradicts_itself_is_refused_by_field(desk: Desk) -> None:
    for instrument, field in CONTRADICTIONS:
        with pytest.raises(InstrumentInvalidError) as refused:
            await desk.list_(instrument)
        assert [each.field for each in refused.value.errors] == [field]
    assert await desk.told() == []


async def test_changes_count_and_repeats_change_nothing(desk: Desk) -> None:
    changed = await desk.change("aapl", version=1, description="Apple", spread_ticks=4)
    assert (changed.version, changed.description) == (2, "Apple")
    assert (await desk.change("AAPL", description="Apple", spread_ticks=4)).version == 2
    (told,) = await desk.told()
    assert told["before"]["spread_ticks"] == 2
    assert told["after"] == {"description": "Apple", "spread_ticks": 4}
    (quote,) = await desk.market.quotes(symbols=["AAPL"], now=NOW)
    assert quote is not None
    assert quote.ask - quote.bid == 4
    with pytest.raises(InstrumentChangedError):
        await desk.change("AAPL", version=1, description="Pear")


async def test_calendar_comes_and_goes(desk: Desk) -> None:
    without = await desk.change("HIST:AAPL", calendar=None)
    assert (without.session_holidays, without.session_corrections) == ("", "")
    again = await desk.change("HIST:AAPL", calendar="XNYS")
    assert again.session_corrections.startswith("0930-1300:")


async def test_what_an_operator_changed_survives_the_next_seed_and_the_rest_follows(
    desk: Desk,
) -> None:
    await desk.change("AAPL", description="Apple")
    async with desk.database.transaction() as transaction:
        await transaction.execute(
            tables.instruments.update()
            .where(tables.instruments.c.ticker == "MSFT")
            .values(description="of an older release")
        )
    await desk.market.seed(now=NOW, demo_seed="tests")
    await desk.market.load()
    assert (await desk.market.resolve(symbol="AAPL")).instrument.description == "Apple"
    found = (await desk.market.resolve(symbol="MSFT")).instrument.description
    assert found.startswith("Microsoft")


async def test_retired_instrument_is_gone_for_good(desk: Desk) -> None:
    with pytest.raises(InstrumentTradableError):
        await desk.retire("DEMO:IBM")
    await desk.change("DEMO:IBM", tradable=False)
    await desk.retire("DEMO:IBM")
    with pytest.raises(InstrumentNotFoundError):
        await desk.market.resolve(symbol="DEMO:IBM")
    with pytest.raises(InstrumentNotFoundError):
        await desk.retire("DEMO:IBM")
    with pytest.raises(InstrumentExistsError):
        await desk.list_(replace(an_instrument(ticker="IBM"), series_id="ibm-1d"))
    assert [(each["change"], each["version"]) for each in await desk.told()] == [
        ("changed", 2),
        ("retired", 3),
    ]


async def test_other_processes_follow(desk: Desk) -> None:
    other = a_service(desk.database)
    await other.load()
    assert await other.refresh() is False
    await desk.change("AAPL", description="Apple")
    assert await other.refresh() is True
    assert (await other.resolve(symbol="AAPL")).instrument.description == "Apple"


async def test_routes_list_change_and_retire(
    desk: Desk, client_of: ClientOf, market_clock: FixedClock
) -> None:
    client = client_of(
        "datafeed:read", "datafeed:manage", service=desk.market, desk=desk.instruments
    )
    body = {
        "exchange": "HIST",
        "ticker": "apple",
        "description": "Apple again",
        "type": "stock",
        "price_decimals": 4,
        "session": "0930-1600",
        "timezone": "America/New_York",
        "calendar": "XNYS",
        "series": "aapl-1d",
    }
    path = "/api/v1/datafeed/instruments"
    headers = {"Idempotency-Key": "k1"}
    first = await client.post(path, json=body, headers=headers)
    assert first.status_code == 201, first.text
    assert first.json()["symbol"] == "HIST:APPLE"
    second = await client.post(path, json=body, headers=headers)
    assert second.headers["Idempotent-Replayed"] == "true"
    info = (await client.get("/api/v1/datafeed/udf/symbols?symbol=HIST:APPLE")).json()
    assert "20010911" in info["session_holidays"]
    assert "0930-1300:" in info["corrections"]
    refused = await client.patch(f"{path}/APPLE", json={"price_decimals": 2})
    assert refused.status_code == 422
    refused = await client.patch(f"{path}/APPLE", json={"tradable": None})
    assert refused.json()["errors"][0]["field"] == "tradable"
    changed = await client.patch(f"{path}/HIST:APPLE", json={"sector": "Fruit", "version": 1})
    assert (changed.json()["sector"], changed.json()["version"]) == ("Fruit", 2)
    assert (await client.get(f"{path}/APPLE")).json() == changed.json()
    assert (await client.delete(f"{path}/APPLE?version=1")).status_code == 409
    assert (await client.delete(f"{path}/APPLE")).status_code == 204
    assert (await client.get(f"{path}/APPLE")).status_code == 404


async def test_only_operators_change_instruments(client: httpx.AsyncClient) -> None:
    path = "/api/v1/datafeed/instruments"
    assert (await client.post(path, json={})).status_code == 403
    assert (await client.patch(f"{path}/AAPL", json={})).status_code == 403
    assert (await client.delete(f"{path}/AAPL")).status_code == 403


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_bundled_calendar_is_what_the_library_computes() -> None:
    assert bundled_calendar("XNYS") == compute_calendar("XNYS", FIRST_DAY, LAST_DAY)
    assert compute_calendar("XNOPE", FIRST_DAY) is None
    around_the_clock = compute_calendar("24/7", FIRST_DAY)
    assert around_the_clock is not None
    assert around_the_clock.session == "24x7"


def test_days_are_described_in_the_charts_notation() -> None:
    found = describe_days(
        code="XTST",
        time_zone="Etc/UTC",
        session="0930-1600",
        weekdays=["20240101", "20240102", "20240103", "20240104"],
        sessions=[
            ("20240102", "0930-1600"),
            ("20240103", "0930-1300"),
            ("20240104", "1000-1600"),
        ],
    )
    assert found.holidays == "20240101"
    assert found.corrections == "0930-1300:20240103;1000-1600:20240104"


async def test_dividends_that_an_operator_told_are_marked(desk: Desk, client_of: ClientOf) -> None:
    operator = client_of(
        "datafeed:read", "datafeed:manage", service=desk.market, desk=desk.instruments
    )
    path = f"{PREFIX}/instruments/HIST:IBM/dividends"
    told = [
        {"ex_date": "2012-11-07", "amount": "0.85"},
        {"ex_date": "2012-08-08", "amount": "0.8525"},
    ]
    for _ in range(2):
        answer = await operator.put(path, json={"dividends": told})
        assert answer.status_code == 200, answer.text
    assert answer.json() == [
        {"ex_date": "2012-08-08", "amount": "0.8525", "currency": "USD"},
        {"ex_date": "2012-11-07", "amount": "0.85", "currency": "USD"},
    ]
    reader = client_of("datafeed:read", service=desk.market, desk=desk.instruments)
    assert (await reader.get(path)).json() == answer.json()
    assert (await operator.get(f"{PREFIX}/instruments/HIST:IBM")).json()["version"] == 2
    window: dict[str, str | int] = {"symbol": "HIST:IBM", "from": 0, "to": int(NOW.timestamp())}
    daily, weekly = [
        (
            await reader.get(f"{PREFIX}/udf/timescale_marks", params={**window, "resolution": each})
        ).json()
        for each in ("D", "W")
    ]
    assert [mark["time"] for mark in daily] == [seconds("2012-08-08"), seconds("2012-11-07")]
    assert [mark["time"] for mark in weekly] == [seconds("2012-08-06"), seconds("2012-11-05")]
    assert (daily[0]["label"], daily[0]["tooltip"]) == (
        "D",
        ["Dividend 0.8525 USD a share", "first day without it: 2012-08-08"],
    )
    native = (
        await reader.get(f"{PREFIX}/marks", params={"symbol": "HIST:IBM", "resolution": "D"})
    ).json()
    assert [(each["kind"], each["amount"]) for each in native] == [
        ("dividend", "0.8525"),
        ("dividend", "0.85"),
    ]
    assert (await operator.put(path, json={"dividends": []})).json() == []
    assert (await reader.get(path)).json() == []
    assert [(each["before"], each["after"]) for each in await desk.told()] == [
        ({"dividends": ""}, {"dividends": "2012-08-08 0.8525, 2012-11-07 0.85"}),
        ({"dividends": "2012-08-08 0.8525, 2012-11-07 0.85"}, {"dividends": ""}),
    ]


async def test_dividends_that_make_no_sense_are_refused(desk: Desk, client_of: ClientOf) -> None:
    operator, reader = (
        client_of("datafeed:read", "datafeed:manage", service=desk.market, desk=desk.instruments),
        client_of("datafeed:read", service=desk.market, desk=desk.instruments),
    )
    one = {"ex_date": "2012-08-08", "amount": "0.85"}
    path = f"{PREFIX}/instruments/HIST:IBM/dividends"
    refused: list[tuple[str, dict[str, Any], int]] = [
        (path, {"dividends": [one, one]}, 422),
        (path, {"dividends": [{**one, "amount": "0"}]}, 422),
        (path, {"dividends": [{**one, "amount": "0.123456789"}]}, 422),
        (path, {"dividends": [{**one, "ex_date": "2012-02-30"}]}, 422),
        (path, {"dividends": [one], "version": 7}, 409),
        (f"{PREFIX}/instruments/DEMO:IBM/dividends", {"dividends": [one]}, 422),
        (f"{PREFIX}/instruments/HIST:NONE/dividends", {"dividends": [one]}, 404),
    ]
    for where, body, status in refused:
        answer = await operator.put(where, json=body)
        assert answer.status_code == status, (where, body, answer.text)
    assert (await reader.put(path, json={"dividends": []})).status_code == 403
    assert (await reader.get(path)).json() == []
