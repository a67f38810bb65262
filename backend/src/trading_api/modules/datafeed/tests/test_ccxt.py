"""The ccxt provider against an exchange that speaks a real one's REST and streams, on loopback."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from trading_api.modules.datafeed.adapters.ccxt_feed import CcxtProvider
from trading_api.modules.datafeed.domain.columns import Columns
from trading_api.modules.datafeed.domain.tick import ProviderTick
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
