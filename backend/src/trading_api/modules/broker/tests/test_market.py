"""The market adapter: quotes from a real bus, from datafeed's HTTP where they are old."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import pytest

from trading_api.contracts import datafeed as contract
from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import UnavailableError
from trading_api.modules.broker.adapters.market import DatafeedInstruments, DatafeedQuotes
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.errors import MarketUnavailableError
from trading_api.runtime.bus import Bus
from trading_api.testkit.bus import eventually
from trading_api.testkit.clocks import FixedClock


class FakeDatafeed:
    """Answers datafeed's internal routes, or doesn't."""

    def __init__(self, clock: FixedClock) -> None:
        self._clock = clock
        self.asked: list[str] = []
        self.is_down = False

    async def get(self, path: str, **options: Any) -> httpx.Response:
        params: Mapping[str, str] = options.get("params") or {}
        self.asked.append(params.get("symbols", path))
        await asyncio.sleep(0)
        if self.is_down:
            raise UnavailableError("datafeed does not answer")
        answer: contract.QuotesAnswer | contract.InstrumentsAnswer
        if path.endswith("/quotes"):
            quotes = [self.quote(symbol) for symbol in params["symbols"].split(",")]
            answer = contract.QuotesAnswer(quotes=quotes, unknown=[])
        else:
            answer = contract.InstrumentsAnswer(instruments=[an_instrument()], unknown=[])
        return httpx.Response(
            200, content=answer.model_dump_json(), request=httpx.Request("GET", "http://peer")
        )

    def quote(self, symbol: str, *, tradable: bool = True) -> contract.Quote:
        now_us = to_us(self._clock.now())
        exchange, _, ticker = symbol.partition(":")
        return contract.Quote(
            instrument=symbol,
            exchange=exchange,
            symbol=ticker,
            scale=2,
            bid=100,
            ask=101,
            last=100,
            sequence=now_us // 500_000,
            at_us=now_us,
            tradable=tradable,
        )


def an_instrument() -> contract.Instrument:
    return contract.Instrument(
        instrument="DEMO:AAPL",
        exchange="DEMO",
        symbol="AAPL",
        description="Apple",
        kind="stock",
        base_currency=None,
        quote_currency="USD",
        price_scale=2,
        tick=1,
        quantity_scale=0,
        quantity_step=1,
        quantity_max=1000,
        lot_size=1,
        multiplier=1,
        tradable=True,
        session="24x7",
        time_zone="UTC",
    )


@pytest.fixture
def datafeed(clock: FixedClock) -> FakeDatafeed:
    return FakeDatafeed(clock)


def make_quotes(bus: Bus, datafeed: FakeDatafeed, clock: FixedClock) -> DatafeedQuotes:
    return DatafeedQuotes(bus=bus, client=datafeed, clock=clock)  # type: ignore[arg-type]


@pytest.fixture
def absent_bus(tmp_path: Any) -> Bus:
    return Bus(f"unix://{tmp_path}/nobody.sock")


async def test_quotes_arrive_from_the_bus_in_order_and_once(
    bus: Bus, datafeed: FakeDatafeed, clock: FixedClock
) -> None:
    quotes = make_quotes(bus, datafeed, clock)
    seen: list[Quote] = []
    quotes.listen(seen.append)
    quotes.start()
    await bus.wait_until_up()
    assert quotes.is_pushed
    first = datafeed.quote("DEMO:AAPL")
    clock.advance(0.5)
    second = datafeed.quote("DEMO:AAPL")

    def publish(quote: contract.Quote) -> None:
        bus.publish(contract.price_channel(quote.instrument), quote.encode())

    def arrived() -> bool:
        # The subscription may be younger than the first message; publishing again is harmless.
        publish(first)
        return bool(seen)

    await eventually(arrived)
    for each in (second, first, second, datafeed.quote("HIST:AAPL", tradable=False)):
        publish(each)
    bus.publish(contract.price_channel("DEMO:AAPL"), b"not a quote")
    publish(datafeed.quote("DEMO:LAST"))
    await eventually(lambda: quotes.find("DEMO:LAST") is not None)
    assert [quote.sequence for quote in seen if quote.symbol == "DEMO:AAPL"] == [
        first.sequence,
        second.sequence,
    ]
    assert quotes.find("HIST:AAPL") is None
    quotes.stop()
    quotes.stop()


async def test_old_quotes_are_asked_for_and_young_ones_not(
    absent_bus: Bus, datafeed: FakeDatafeed, clock: FixedClock
) -> None:
    quotes = make_quotes(absent_bus, datafeed, clock)
    assert not quotes.is_pushed
    await quotes.refresh(["DEMO:AAPL"])
    await quotes.refresh(["DEMO:AAPL"])
    assert datafeed.asked == ["DEMO:AAPL"]
    clock.advance(1.5)
    await quotes.refresh(["DEMO:MSFT"])
    # What was seen before comes along, so that all an account holds is fresh.
    assert datafeed.asked == ["DEMO:AAPL", "DEMO:AAPL,DEMO:MSFT"]
    found = quotes.find("DEMO:AAPL")
    assert found is not None
    assert found.is_fresh(clock.now())
    clock.advance(0.6)
    await quotes.refresh(["DEMO:AAPL"], older_than=timedelta(seconds=0.5))
    assert len(datafeed.asked) == 3


async def test_many_who_ask_at_once_ask_once(
    absent_bus: Bus, datafeed: FakeDatafeed, clock: FixedClock
) -> None:
    quotes = make_quotes(absent_bus, datafeed, clock)
    await asyncio.gather(*(quotes.refresh(["DEMO:AAPL"]) for _ in range(50)))
    assert datafeed.asked == ["DEMO:AAPL"]


async def test_absent_datafeed_is_not_asked_on_and_on(
    absent_bus: Bus, datafeed: FakeDatafeed, clock: FixedClock
) -> None:
    datafeed.is_down = True
    quotes = make_quotes(absent_bus, datafeed, clock)
    await asyncio.gather(*(quotes.refresh(["DEMO:AAPL"]) for _ in range(50)))
    assert len(datafeed.asked) == 1
    datafeed.is_down = False
    clock.advance(0.3)
    await quotes.refresh(["DEMO:AAPL"])
    assert quotes.find("DEMO:AAPL") is not None


async def test_instruments_are_believed_for_a_minute_and_longer_when_nobody_answers(
    datafeed: FakeDatafeed, clock: FixedClock
) -> None:
    instruments = DatafeedInstruments(client=datafeed, clock=clock)  # type: ignore[arg-type]
    datafeed.is_down = True
    with pytest.raises(MarketUnavailableError):
        await instruments.find("DEMO:AAPL")
    datafeed.is_down = False
    assert await instruments.find("DEMO:AAPL") is not None
    assert await instruments.find("DEMO:NONE") is None
    assert len(datafeed.asked) == 2
    datafeed.is_down = True
    clock.advance(120)
    assert await instruments.find("DEMO:AAPL") is not None
    assert await instruments.find("DEMO:AAPL") is not None
    assert len(datafeed.asked) == 3
