"""The providers that need no network: ``simulated`` and ``replay``; and how providers are found."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from importlib.metadata import entry_points
from typing import ClassVar

import numpy as np

from trading_api.kernel.clock import to_us
from trading_api.modules.datafeed.domain import bridge
from trading_api.modules.datafeed.domain.aggregate import DAY_SECONDS
from trading_api.modules.datafeed.domain.columns import Columns, Ints, Window
from trading_api.modules.datafeed.domain.demo import SLOT_US, DemoMarket
from trading_api.modules.datafeed.domain.instrument import AssetClass, Exchange, Instrument
from trading_api.modules.datafeed.domain.live import MINUTE_SECONDS
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit
from trading_api.modules.datafeed.domain.selection import BARS_MAX
from trading_api.modules.datafeed.domain.series import StoredSeries
from trading_api.modules.datafeed.domain.simulated import simulated_instrument, simulated_series
from trading_api.modules.datafeed.domain.tick import ProviderTick
from trading_api.modules.datafeed.ports import MarketDataProvider, ProviderContext
from trading_api.runtime.settings import ConfigurationError

ENTRY_POINT_GROUP = "trading_api.market_data"

MakeProvider = Callable[[ProviderContext], MarketDataProvider]

_EPOCH_DAY = 20_000
"""2024-10-04: before it the simulated markets have no prices."""


def find_providers(
    names: Sequence[str], context: ProviderContext, *, built_in: Mapping[str, MakeProvider]
) -> dict[str, MarketDataProvider]:
    """Return the named providers, built-in ones or third parties' by entry point.

    Raises:
        ConfigurationError: a name is unknown or twice there, or a provider can't be made.
    """
    known = dict(built_in)
    mistakes: list[str] = []
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in known:
            mistakes.append(f"two market data providers are called {point.name!r}")
        elif point.name in names:
            try:
                known[point.name] = point.load()
            except Exception as error:  # noqa: BLE001 - a third party's code may fail in any way
                mistakes.append(f"market data provider {point.name!r} can't be imported: {error}")
                known[point.name] = _unusable
    found: dict[str, MarketDataProvider] = {}
    for name in names:
        if name in found:
            mistakes.append(f"DATAFEED_PROVIDERS names {name!r} twice")
        elif name not in known:
            mistakes.append(
                f"DATAFEED_PROVIDERS: there is no {name!r}; known are {', '.join(sorted(known))}"
            )
        elif not mistakes:
            found[name] = known[name](context)
    if mistakes:
        raise ConfigurationError(mistakes)
    return found


def _unusable(_: ProviderContext) -> MarketDataProvider:
    raise AssertionError("the start stops before it is made")


class SimulatedProvider(MarketDataProvider):
    """Seeded markets with daily moves of about 1.5 %, open 24x7; the same from the same seed.

    Args:
        symbols: tickers that it offers.
    """

    name: ClassVar[str] = "simulated"

    def __init__(self, context: ProviderContext, *, symbols: Sequence[str]) -> None:
        self._clock = context.clock
        self._markets: dict[str, DemoMarket] = {}
        self._instruments: list[Instrument] = []
        for ticker in symbols:
            instrument = replace(
                simulated_instrument(ticker.upper()),
                exchange=Exchange.SIM,
                series_id=f"sim-{ticker.lower()}-1",
                tradable=False,
            )
            self._instruments.append(instrument)
            self._markets[instrument.symbol] = DemoMarket(
                instrument,
                simulated_series(instrument.ticker, seed=context.seed),
                (),
                anchor_time=_EPOCH_DAY * DAY_SECONDS,
                seed=context.seed,
            )

    async def instruments(self) -> Sequence[Instrument]:
        """Return one stock per configured ticker."""
        return self._instruments

    async def backfill(
        self, instrument: Instrument, *, from_time: int, to_time: int
    ) -> AsyncIterator[Columns]:
        """Yield the minutes; they are a pure function of the seed."""
        market = self._markets[instrument.symbol]
        while from_time < to_time:
            stop = min(to_time, from_time + BARS_MAX * MINUTE_SECONDS)
            window = Window(from_time, stop)
            # As far as they are final at the end of the window.
            bars = market.bars(Resolution(1, Unit.MINUTE), window, stop * 1_000_000).bars
            yield bars[: bars.index_at(stop)]
            from_time = stop
            await asyncio.sleep(0)

    async def stream(
        self, instruments: Sequence[Instrument], tell: Callable[[ProviderTick], None]
    ) -> None:
        """Tell a tick of each instrument in every half second."""
        while True:
            now_us = to_us(self._clock.now())
            for instrument in instruments:
                tell(self._tick(instrument, now_us))
            await asyncio.sleep((SLOT_US - to_us(self._clock.now()) % SLOT_US) / 1_000_000)

    def _tick(self, instrument: Instrument, now_us: int) -> ProviderTick:
        quote = self._markets[instrument.symbol].quote(now_us)
        decimals = -instrument.price_decimals
        return ProviderTick(
            symbol=instrument.symbol,
            at_us=quote.at_us,
            price=Decimal(quote.last).scaleb(decimals),
            size=Decimal(1),
            bid=Decimal(quote.bid).scaleb(decimals),
            ask=Decimal(quote.ask).scaleb(decimals),
        )


class ReplayProvider(MarketDataProvider):
    """Stored series played live, over and over, at a speed of its own.

    Its clock runs ``speed`` times as fast as ours and starts anew after the last bar. Inside a bar
    the price is a simulation bound to the bar's open, high, low and close. What is played when is
    a pure function of (seed, series, speed, time).

    Args:
        series_ids: stored series that it plays.
        speed: seconds of history in a second.
    """

    name: ClassVar[str] = "replay"

    def __init__(self, context: ProviderContext, *, series_ids: Sequence[str], speed: int) -> None:
        self._clock = context.clock
        self._find_series = context.find_series
        self._seed = context.seed
        self._speed = speed
        self._series_ids = list(series_ids)
        self._players: dict[str, _Player] = {}
        self._instruments: list[Instrument] = []

    async def instruments(self) -> Sequence[Instrument]:
        """Return one instrument per configured series.

        Raises:
            LookupError: a series isn't stored.
        """
        self._instruments = []
        for series_id in self._series_ids:
            series = self._find_series(series_id)
            if series is None:
                raise LookupError(f"there is no series {series_id!r} to replay")
            instrument = _replayed(series, self._speed)
            self._instruments.append(instrument)
            self._players[instrument.symbol] = _Player(series, self._speed, self._seed)
        return self._instruments

    async def backfill(
        self, instrument: Instrument, *, from_time: int, to_time: int
    ) -> AsyncIterator[Columns]:
        """Yield the minutes that were played, at most the last day of them."""
        player = self._players[instrument.symbol]
        from_time = max(from_time, to_time - DAY_SECONDS)
        while from_time < to_time:
            stop = min(to_time, from_time + 3_600)
            yield player.minutes(from_time, stop)
            from_time = stop
            await asyncio.sleep(0)

    async def stream(
        self, instruments: Sequence[Instrument], tell: Callable[[ProviderTick], None]
    ) -> None:
        """Tell a tick of each instrument in every half second."""
        while True:
            slot = to_us(self._clock.now()) // SLOT_US
            for instrument in instruments:
                (price,) = self._players[instrument.symbol].prices(np.array([slot])).tolist()
                tell(
                    ProviderTick(
                        symbol=instrument.symbol,
                        at_us=slot * SLOT_US,
                        price=Decimal(price).scaleb(-instrument.price_decimals),
                        size=Decimal(1),
                    )
                )
            await asyncio.sleep((SLOT_US - to_us(self._clock.now()) % SLOT_US) / 1_000_000)


class _Player:
    """What a series' replay costs at each half-second slot since 1970."""

    _STEPS = 240

    def __init__(self, series: StoredSeries, speed: int, seed: str) -> None:
        bars = series.bars
        base = series.resolution
        self._bars = bars
        self._bar_slots = (base.seconds if base.is_intraday else DAY_SECONDS) * 2
        self._key = bridge.key_of(seed, series.id, "replay")
        self._speed = speed

    def prices(self, slots: Ints) -> Ints:
        """Return the price at each slot, in ticks of the series."""
        played = slots * self._speed
        numbers = played // self._bar_slots % len(self._bars)
        within = played % self._bar_slots * self._STEPS // self._bar_slots
        wanted, where = np.unique(numbers, return_inverse=True)
        rows = Columns(*(column[wanted] for column in self._bars.arrays()))
        keys = bridge.keys_at(self._key, wanted)
        paths = bridge.paths(keys, (rows.open, rows.high, rows.low, rows.close), self._STEPS)
        prices: Ints = paths[where, within]
        return prices

    def minutes(self, from_time: int, to_time: int) -> Columns:
        """Return the minutes played in [from_time, to_time), a tick of one unit in each slot."""
        per_minute = MINUTE_SECONDS * 1_000_000 // SLOT_US
        slots = np.arange(from_time * 2, to_time * 2, dtype=np.int64)
        prices = self.prices(slots).reshape(-1, per_minute)
        return Columns(
            time=np.arange(from_time, to_time, MINUTE_SECONDS, dtype=np.int64),
            open=np.ascontiguousarray(prices[:, 0]),
            high=prices.max(axis=1),
            low=prices.min(axis=1),
            close=np.ascontiguousarray(prices[:, -1]),
            volume=np.full(len(prices), per_minute, dtype=np.int64),
        )


def _replayed(series: StoredSeries, speed: int) -> Instrument:
    return Instrument(
        exchange=Exchange.REPLAY,
        ticker=series.id.upper()[:20],
        description=f"Replay of {series.id} at {speed} times its speed - finer steps are simulated",
        asset_class=AssetClass.STOCK,
        base_currency=None,
        quote_currency="USD",
        price_decimals=series.price_decimals,
        volume_decimals=0,
        spread_ticks=2,
        ask_is_last=False,
        quantity_step=1,
        quantity_max=1_000_000,
        lot_size=1,
        session="24x7",
        time_zone="Etc/UTC",
        series_id=f"replay-{series.id}-{speed}x",
        tradable=False,
    )
