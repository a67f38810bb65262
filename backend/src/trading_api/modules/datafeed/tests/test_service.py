"""Load, seed, look up and answer over a real database."""

from datetime import timedelta

import pytest

from trading_api.contracts.datafeed import Quote
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.domain.columns import Window
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.errors import (
    InstrumentNotFoundError,
    MarketDataMissingError,
    WindowInvalidError,
)
from trading_api.modules.datafeed.repository import MarketRepository
from trading_api.modules.datafeed.service import TIME_MAX, DatafeedService, SeedProgress
from trading_api.modules.datafeed.tests.builders import ANCHOR
from trading_api.modules.datafeed.tests.conftest import (
    NOW,
    SEEDED_AT,
    a_service,
)
from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import Migrations, compare


async def newest_closes(service: DatafeedService) -> list[int]:
    answer = await service.bars(
        symbol="AAPL", resolution="1", from_time=0, to_time=TIME_MAX, count_back=9, now=NOW
    )
    return [int(close) for close in answer.selection.bars.close]


async def test_tables_are_what_the_migrations_make(empty_database: Database) -> None:
    migrations = Migrations.of_package("datafeed", "trading_api.modules.datafeed")
    assert await compare(empty_database, migrations) == []


async def test_seed_twice_changes_nothing_and_never_moves_the_anchor(
    empty_database: Database,
) -> None:
    service = a_service(empty_database)
    steps: list[SeedProgress] = []
    await service.seed(now=SEEDED_AT, demo_seed="first", on_progress=steps.append)
    assert len(steps) == 7
    assert all(step.changed for step in steps)
    await service.load()
    before = await newest_closes(service)

    steps.clear()
    later = SEEDED_AT + timedelta(days=40)
    await service.seed(now=later, demo_seed="second", on_progress=steps.append)
    assert not any(step.changed for step in steps)
    await service.load()
    assert await newest_closes(service) == before
    async with empty_database.snapshot() as transaction:
        anchor = await MarketRepository().find_anchor(transaction)
    assert anchor is not None
    assert (anchor.anchor_time, anchor.seed) == (ANCHOR, "first")


async def test_before_the_first_seed_every_question_says_so(empty_database: Database) -> None:
    service = a_service(empty_database)
    assert not await service.load()
    with pytest.raises(MarketDataMissingError):
        await service.ensure_loaded()
    with pytest.raises(MarketDataMissingError):
        await service.resolve(symbol="AAPL")
    with pytest.raises(MarketDataMissingError):
        await service.list_markets()
    await service.seed(now=SEEDED_AT, demo_seed="tests")
    await service.ensure_loaded()
    assert len(await service.list_markets()) == 15


@pytest.mark.parametrize(
    ("written", "full"),
    [
        ("AAPL", "DEMO:AAPL"),
        ("aapl", "DEMO:AAPL"),
        ("hist:aapl", "HIST:AAPL"),
        ("GOOG", "HIST:GOOG"),
        ("META", "DEMO:META"),
        ("EURUSD", "DEMO:EURUSD"),
    ],
)
async def test_symbol_in_any_case_and_a_bare_ticker_means_demo(
    service: DatafeedService, written: str, full: str
) -> None:
    assert (await service.resolve(symbol=written)).instrument.symbol == full


@pytest.mark.parametrize("written", ["", "NOPE", "NYSE:AAPL", ":", "\0", "DEMO:", "A" * 5_000])
async def test_unknown_symbol_is_not_found(service: DatafeedService, written: str) -> None:
    with pytest.raises(InstrumentNotFoundError):
        await service.resolve(symbol=written)


async def test_search_ranks_ticker_hits_before_description_hits(service: DatafeedService) -> None:
    async def symbols(text: str, **filters: str) -> list[str]:
        chosen = {"exchange": "", "asset_class": "", **filters}
        found = await service.search_markets(text=text, limit=30, **chosen)
        return [each.instrument.symbol for each in found]

    assert await symbols("aapl") == ["DEMO:AAPL", "HIST:AAPL"]
    # GOOG is a ticker on HIST, the beginning of one on DEMO.
    assert (await symbols("goog"))[:2] == ["HIST:GOOG", "DEMO:GOOGL"]
    assert (await symbols("meta"))[0] == "DEMO:META"
    assert await symbols("hist:ms") == ["HIST:MSFT"]
    assert await symbols("", exchange="hist", asset_class="forex") == ["HIST:EURUSD"]
    assert len(await symbols("")) == 15
    assert await symbols("zzz") == []
    assert await symbols("", exchange="NYSE") == []


@pytest.mark.parametrize(
    "window",
    [
        {"from_time": 2, "to_time": 1, "count_back": None},
        {"from_time": 2, "to_time": 1, "count_back": 5},
        {"from_time": 0, "to_time": 10**18, "count_back": None},
        {"from_time": -(10**18), "to_time": 1, "count_back": None},
        {"from_time": 0, "to_time": 1, "count_back": 0},
        {"from_time": 0, "to_time": 1, "count_back": -1},
    ],
)
async def test_senseless_window_is_refused(
    service: DatafeedService, window: dict[str, int | None]
) -> None:
    with pytest.raises(WindowInvalidError):
        await service.bars(symbol="AAPL", resolution="1", now=NOW, **window)  # type: ignore[arg-type]


async def test_from_equal_to_means_that_one_bar(service: DatafeedService) -> None:
    answer = await service.bars(
        symbol="AAPL",
        resolution="1",
        from_time=ANCHOR,
        to_time=ANCHOR,
        count_back=None,
        now=NOW,
    )
    assert answer.selection.bars.time.tolist() == [ANCHOR]


async def test_quotes_for_other_modules_are_only_of_what_trades(service: DatafeedService) -> None:
    quotes = await service.tradable_quotes(now=NOW)
    assert [quote.instrument for quote in quotes] == [
        "DEMO:AAPL",
        "DEMO:GOOGL",
        "DEMO:MSFT",
        "DEMO:IBM",
        "DEMO:META",
        "DEMO:EURUSD",
        "DEMO:BTCUSD",
    ]
    for quote in quotes:
        assert 0 < quote.bid < quote.ask
        assert quote.at_us <= int(NOW.timestamp() * 10**6) < quote.at_us + 500_000
        assert Quote.decode(quote.encode()) == quote
    euro = quotes[-2]
    assert (euro.scale, euro.ask, euro.ask - euro.bid) == (5, euro.last, 8)


async def test_a_required_ticker_without_history_is_simulated_alike_everywhere(
    empty_database: Database,
) -> None:
    await a_service(empty_database).seed(now=SEEDED_AT, demo_seed="tests")
    services = [
        DatafeedService(
            database=empty_database,
            repository=MarketRepository(),
            history=BundledHistory(),
            required=["AAPL", "TSLA"],
        )
        for _ in range(2)
    ]
    for each in services:
        await each.load()
    first, second = [await each.quotes(symbols=["TSLA"], now=NOW) for each in services]
    assert first == second
    assert first[0] is not None
    assert "simulation" in first[0].instrument.description
    market = await services[0].resolve(symbol="TSLA")
    days = market.bars(
        parse_resolution("1D"), Window(0, TIME_MAX, 1_500), int(NOW.timestamp() * 10**6)
    ).bars
    assert len(days) == 1_000 + 3
    assert 100 < days.low.min() < days.high.max() < 10**7
    assert len(await services[0].list_markets()) == 16
