"""The ccxt provider against an exchange that speaks a real one's REST and streams, on loopback."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from ccxt import DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE

from trading_api.modules.datafeed import schemas
from trading_api.modules.datafeed.adapters.ccxt_feed import CcxtProvider, _instrument
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.tick import ProviderTick
from trading_api.modules.datafeed.service.market import published_instrument
from trading_api.modules.datafeed.tests.exchange import Exchange
from trading_api.testkit.clocks import FixedClock

NOW = datetime(2026, 1, 5, 12, 0, 30, tzinfo=UTC)
MINUTE = int(NOW.timestamp()) // 60 * 60
KLINES = [
    [(MINUTE - 60 * back) * 1_000, "100.10", "101.00", "99.50", f"{100 + back % 7}.25", "1.50000"]
    for back in range(1_500, -1, -1)
]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    exchange = Exchange(KLINES)
    await exchange.start()
    yield exchange
    await exchange.stop()


@pytest.fixture
async def provider(exchange: Exchange) -> AsyncIterator[CcxtProvider]:
    provider = CcxtProvider(
        markets=["binance:BTC/USDT"], base_url=exchange.url, clock=FixedClock(NOW)
    )
    yield provider
    await provider.close()


async def test_a_market_has_the_exchange_s_own_steps(provider: CcxtProvider) -> None:
    (instrument,) = await provider.instruments()
    assert instrument.symbol == "CRYPTO:BINANCE.BTCUSDT"
    assert (instrument.price_decimals, instrument.volume_decimals) == (2, 5)
    assert instrument.quote_currency == "USDT"


@pytest.mark.parametrize(
    ("mode", "price", "amount", "expected"),
    [
        (TICK_SIZE, 0.01, 0.00001, (2, "0.01", 5)),
        (TICK_SIZE, 0.5, 1, (1, "0.5", 0)),
        (TICK_SIZE, "0.25", "0.1", (2, "0.25", 1)),
        (TICK_SIZE, 5, 1, (0, "5", 0)),
        (TICK_SIZE, 1e-7, 1e-8, (7, "0.0000001", 8)),
        (DECIMAL_PLACES, 2, 8, (2, "0.01", 8)),
        (DECIMAL_PLACES, 0, -1, (0, "1", 0)),
    ],
)
def test_steps_are_read_as_the_exchange_counts_them(
    mode: int, price: Any, amount: Any, expected: tuple[int, str, int]
) -> None:
    instrument = _instrument(SimpleNamespace(id="some", precisionMode=mode), a_told(price, amount))
    view = schemas.instrument_view(instrument)
    assert (view.price_decimals, view.tick_size, view.volume_decimals) == expected
    told = published_instrument(instrument)
    assert Decimal(told.tick).scaleb(-told.price_scale) == Decimal(expected[1])


def test_markets_without_a_fixed_step_are_refused() -> None:
    for mode, price, reason in (
        (SIGNIFICANT_DIGITS, 5, "it counts digits"),
        (TICK_SIZE, None, "tells no step for the price"),
    ):
        with pytest.raises(LookupError, match=reason):
            _instrument(SimpleNamespace(id="some", precisionMode=mode), a_told(price, 8))


def a_told(price: Any, amount: Any) -> dict[str, Any]:
    precision = {"price": price, "amount": amount}
    return {"symbol": "A/B", "base": "A", "quote": "B", "precision": precision}


async def test_history_comes_in_pages_exact_and_final(provider: CcxtProvider) -> None:
    (instrument,) = await provider.instruments()
    pages = [
        page
        async for page in provider.backfill(
            instrument, from_time=MINUTE - 60 * 1_200, to_time=MINUTE
        )
    ]
    assert [len(page) for page in pages] == [1_000, 200]
    bars = Columns.concat(pages)
    assert bars.time.tolist() == list(range(MINUTE - 60 * 1_200, MINUTE, 60))
    assert [int(column[-1]) for column in bars.arrays()[1:]] == [10_010, 10_100, 9_950, 10_125,
                                                                  150_000]  # fmt: skip


async def test_trades_stream_and_a_lost_stream_is_an_error(
    provider: CcxtProvider, exchange: Exchange
) -> None:
    instruments = await provider.instruments()
    told: asyncio.Queue[ProviderTick] = asyncio.Queue()
    stream = asyncio.create_task(provider.stream(instruments, told.put_nowait))
    async with asyncio.timeout(20):
        await exchange.subscribed.wait()
        await exchange.trade("100.31", "0.00700", MINUTE * 1_000 + 5)
        tick = await told.get()
        assert (tick.symbol, tick.price, tick.size, tick.at_us) == (
            "CRYPTO:BINANCE.BTCUSDT", Decimal("100.31"), Decimal("0.007"),
            (MINUTE * 1_000 + 5) * 1_000,
        )  # fmt: skip
        await exchange.hang_up()
        with pytest.raises(Exception, match=r"closed|Connection|1000|1006"):
            await stream


async def test_an_exchange_in_maintenance_is_an_error(
    provider: CcxtProvider, exchange: Exchange
) -> None:
    exchange.is_failing = True
    with pytest.raises(Exception, match="maintenance"):
        await provider.instruments()
    with pytest.raises(LookupError, match="no exchange"):
        elsewhere = CcxtProvider(markets=["nowhere:A/B"], base_url="", clock=FixedClock(NOW))
        await elsewhere.instruments()
