"""Use cases of market data: load, seed, look up, answer bars and quotes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from trading_api.contracts import datafeed as contract
from trading_api.kernel.clock import to_us
from trading_api.kernel.errors import FieldError
from trading_api.modules.datafeed.domain.aggregate import DAY_SECONDS
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns, Window
from trading_api.modules.datafeed.domain.demo import SLOT_US, DemoCaches, DemoMarket, Split
from trading_api.modules.datafeed.domain.instrument import (
    LIVE_EXCHANGES,
    Dividend,
    Exchange,
    Instrument,
    Quote,
    search_rank,
)
from trading_api.modules.datafeed.domain.live import LiveMarket
from trading_api.modules.datafeed.domain.resolution import Resolution, Unit, parse_resolution
from trading_api.modules.datafeed.domain.selection import BARS_MAX, Selection, TextCache
from trading_api.modules.datafeed.domain.series import HistoricalMarket, Market, StoredSeries
from trading_api.modules.datafeed.domain.simulated import (
    KNOWN,
    simulated_instrument,
    simulated_series,
)
from trading_api.modules.datafeed.errors import (
    InstrumentNotFoundError,
    MarketDataMissingError,
    WindowInvalidError,
)
from trading_api.modules.datafeed.ports import HistorySource, SeriesFiles
from trading_api.modules.datafeed.repository import (
    BarRepository,
    DemoAnchor,
    MarketData,
    MarketRepository,
    Revision,
)
from trading_api.modules.datafeed.service.store import SeriesStore
from trading_api.runtime.database import Database

log = structlog.get_logger("datafeed")

_MINUTE = Resolution(1, Unit.MINUTE)

TIME_MAX = 253_402_300_799
"""9999-12-31T23:59:59 UTC in seconds; windows beyond it, either way, are mistakes."""


@dataclass(frozen=True, slots=True)
class BarsAnswer:
    """Bars of one instrument.

    Attributes:
        market: whose bars.
        resolution: their length, canonical.
        selection: the bars, or where earlier ones are.
    """

    market: Market
    resolution: Resolution
    selection: Selection


@dataclass(frozen=True, slots=True)
class SeedProgress:
    """One step of the seed.

    Attributes:
        what: the series or table being written.
        bars: bars it has.
        changed: whether anything was written.
    """

    what: str
    bars: int
    changed: bool


class DatafeedService:
    """Market data of this process: everything in memory, the database behind it.

    Args:
        history: what ``seed`` loads.
        required: tickers that must exist on DEMO; those without history are simulated.
        files: what large series are served from; None keeps them in memory.
        seconds_kept: how long bars of a second are kept of what a provider feeds, seconds.

    Attributes:
        texts: encoded bars, for answers.
    """

    def __init__(
        self,
        *,
        database: Database,
        repository: MarketRepository,
        history: HistorySource,
        required: Sequence[str] = (),
        files: SeriesFiles | None = None,
        seconds_kept: int = 0,
    ) -> None:
        self.seconds_kept = seconds_kept
        self._database = database
        self._store = SeriesStore(files)
        self._repository = repository
        self._bars = BarRepository()
        self._history = history
        self._required = tuple(required)
        self._markets: dict[str, Market] = {}
        self._splits: Mapping[str, Sequence[Split]] = {}
        self._dividends: Mapping[str, Sequence[Dividend]] = {}
        self._generation = 0
        self._revision: Revision | None = None
        # One at a time: a load that began earlier never replaces what a later one read.
        self._loading = asyncio.Lock()
        self.texts = TextCache()

    async def load(self) -> bool:
        """Read everything stored into memory; return False where nothing was ever seeded."""
        async with self._loading:
            return await self._load()

    async def settle(self) -> int:
        """Read the stored minutes of live markets that keep many in memory; return how many."""
        if not self._long_markets():
            return 0
        async with self._loading:
            # Looked up anew: a load may have passed meanwhile.
            markets = self._long_markets()
            async with self._database.snapshot() as transaction:
                stored = await self._repository.load_series(transaction)
                for market in markets:
                    record = stored.get(market.series.id)
                    if record is not None:
                        series = await self._store.load(transaction, record)
                        seconds = await self._bars.read_seconds(transaction, [record.id])
                        market.absorb(series, seconds.get(record.id, EMPTY))
            self._generation += 1
            return len(markets)

    def _long_markets(self) -> list[LiveMarket]:
        return [
            each for each in self._markets.values() if isinstance(each, LiveMarket) and each.is_long
        ]

    async def _load(self) -> bool:
        async with self._database.snapshot() as transaction:
            revision = await self._repository.find_revision(transaction)
            stored = await self._repository.load(transaction)
            series: dict[str, StoredSeries] = {}
            for record in stored.series.values():
                try:
                    series[record.id] = await self._store.load(transaction, record)
                except ValueError as error:
                    log.error("series_not_readable", series=record.id, reason=str(error))
            live = [
                each.series_id for each in stored.instruments if each.exchange in LIVE_EXCHANGES
            ]
            seconds = await self._bars.read_seconds(transaction, live)
        kept = _Seconds(seconds, self.seconds_kept)
        self._markets = _markets_of(stored, series, self._required, self._markets, kept)
        self._splits = stored.splits
        self._dividends = stored.dividends
        self._revision = revision
        self._generation += 1
        return bool(self._markets)

    async def refresh(self) -> bool:
        """Load again where another process changed what is stored; return whether that was so."""
        async with self._database.snapshot() as transaction:
            revision = await self._repository.find_revision(transaction)
        if revision == self._revision:
            return False
        await self.load()
        return True

    async def ensure_loaded(self) -> None:
        """Look once more for a seed that came after the start.

        Raises:
            MarketDataMissingError: there is still none.
        """
        if not self._markets and not await self.load():
            raise _missing()

    async def seed(
        self,
        *,
        now: datetime,
        demo_seed: str,
        on_progress: Callable[[SeedProgress], None] = lambda _: None,
    ) -> None:
        """Store the history source's series and instruments and fix the demo market's anchor.

        One transaction. Idempotent: what is stored in this version is left alone, instruments
        that operators changed and series that they imported into too, and the anchor never moves.
        """
        now_us = to_us(now)
        async with self._database.transaction() as transaction:
            for series_id in self._history.series_ids():
                series = self._history.load_series(series_id)
                changed = await self._repository.needs_series(transaction, series)
                if changed:
                    splits = tuple(self._history.splits_of(series_id))
                    await self._repository.save_series(transaction, series, splits, now_us=now_us)
                on_progress(SeedProgress(series_id, len(series.series.bars), changed))
            instruments = list(self._history.instruments())
            new = await self._repository.add_instruments(transaction, instruments)
            on_progress(SeedProgress("instruments", 0, bool(new)))
            if await self._repository.find_anchor(transaction) is None:
                today = now_us // 1_000_000 // DAY_SECONDS * DAY_SECONDS
                anchor = DemoAnchor(today, demo_seed)
                await self._repository.save_anchor(transaction, anchor, now_us=now_us)

    async def write_texts(self) -> int:
        """Write the finished texts of large series that have none, and serve from them.

        Returns how many series got them. Goes on beside requests, block by block.
        """
        made = 0
        for market in list(self._markets.values()):
            if isinstance(market, HistoricalMarket) and market.texts is None:
                market.texts = await self._store.texts(market.series)
                made += market.texts is not None
        return made

    def find_live(self, *, symbol: str) -> LiveMarket | None:
        """Return the market of a full symbol that a provider feeds; None where there is none."""
        market = self._markets.get(symbol)
        return market if isinstance(market, LiveMarket) else None

    def find_series(self, *, series_id: str) -> StoredSeries | None:
        """Return a stored series; None where there is none."""
        return self._store.find(series_id)

    async def list_markets(self) -> Sequence[Market]:
        """Return every market, in the order of listing.

        Raises:
            MarketDataMissingError: nothing was ever seeded.
        """
        if not self._markets:
            raise _missing()
        return list(self._markets.values())

    def offered(self) -> Sequence[Instrument]:
        """Return every instrument; none where nothing was ever seeded."""
        return [market.instrument for market in self._markets.values()]

    async def search_markets(
        self, *, text: str, exchange: str, asset_class: str, limit: int
    ) -> Sequence[Market]:
        """Return the instruments that match, best first: by ticker before by description.

        Args:
            text: what the user typed; "" lists all.
            exchange: only this one; "" for all.
            asset_class: only this one; "" for all.
            limit: at most so many.
        """
        text, exchange, asset_class = text.strip().upper(), exchange.upper(), asset_class.lower()
        found = []
        for position, market in enumerate(await self.list_markets()):
            instrument = market.instrument
            if exchange not in ("", instrument.exchange.value):
                continue
            if asset_class not in ("", instrument.asset_class.value):
                continue
            rank = search_rank(instrument, text)
            if rank is not None:
                found.append((rank, position, market))
        return [market for _, _, market in sorted(found, key=lambda each: each[:2])[:limit]]

    async def resolve(self, *, symbol: str) -> Market:
        """Return the market of a symbol in any case; a bare ticker means DEMO before HIST.

        Raises:
            InstrumentNotFoundError: there is none.
            MarketDataMissingError: nothing was ever seeded.
        """
        return self._market(symbol)

    async def bars(
        self,
        *,
        symbol: str,
        resolution: str,
        from_time: int,
        to_time: int,
        count_back: int | None,
        now: datetime,
    ) -> BarsAnswer:
        """Return the bars of a window.

        Args:
            symbol: as ``resolve`` reads it.
            resolution: in any spelling that ``parse_resolution`` reads.
            from_time: earliest start of a bar, seconds; ignored where ``count_back`` is given.
            to_time: exclusive end of the bars' starts, seconds; equal to ``from_time`` it means
                the one bar that starts there.
            count_back: exactly so many bars before ``to_time`` where they exist, at most 5,000.
            now: nothing later is answered.

        Raises:
            InstrumentNotFoundError: no such symbol.
            ResolutionUnsupportedError: no such resolution, or finer than the data.
            WindowInvalidError: edges in the wrong order or out of range, or no positive count.
        """
        market, length = self._market(symbol), parse_resolution(resolution)
        window = _window(from_time, to_time, count_back)
        if isinstance(market, HistoricalMarket) and not market.is_ready(length):
            # Building a coarser resolution of millions of bars takes a moment.
            await asyncio.to_thread(market.prepare, length)
        elif isinstance(market, DemoMarket):
            for _ in market.prepare(length, window, to_us(now)):
                await asyncio.sleep(0)
        return BarsAnswer(market, length, market.bars(length, window, to_us(now)))

    def find_bars(
        self,
        *,
        symbol: str,
        resolution: str,
        from_time: int,
        to_time: int,
        count_back: int | None,
        now: datetime,
    ) -> BarsAnswer | None:
        """Return what ``bars`` returns where it needn't wait; None where it would.

        Raises what ``bars`` raises.
        """
        market, length = self._market(symbol), parse_resolution(resolution)
        if isinstance(market, HistoricalMarket) and not market.is_ready(length):
            return None
        window = _window(from_time, to_time, count_back)
        return BarsAnswer(market, length, market.bars(length, window, to_us(now)))

    async def splits_of(self, *, symbol: str) -> Sequence[Split]:
        """Return the splits that an instrument's chart shows, ascending.

        DEMO has none: its construction takes them out of the prices. Errors as ``resolve``.
        """
        instrument = self._market(symbol).instrument
        if instrument.exchange is not Exchange.HIST:
            return ()
        return self._splits.get(instrument.series_id, ())

    async def dividends_of(self, *, symbol: str) -> Sequence[Dividend]:
        """Return an instrument's dividends, ascending; errors as ``resolve``."""
        return self._dividends.get(self._market(symbol).instrument.symbol, ())

    def symbol_of(self, *, symbol: str) -> str:
        """Return the full symbol of a symbol in any spelling; errors as ``resolve``."""
        return self._market(symbol).instrument.symbol

    def version_of(
        self, *, symbol: str, resolution: str, to_time: int, now: datetime
    ) -> tuple[int, int]:
        """Return what stays equal as long as a question about bars has the same answer.

        Raises what ``bars`` raises, the window's edges apart.
        """
        market, length = self._market(symbol), parse_resolution(resolution)
        now_us = to_us(now)
        # One second later, since a window from T to T means the bar that starts at T.
        is_closed = market.is_closed(length, to_time + 1, now_us)
        return self._generation, -1 if is_closed else now_us // SLOT_US

    async def quotes(self, *, symbols: Sequence[str], now: datetime) -> list[Quote | None]:
        """Return the quote of each symbol at ``now``, None where there is no such symbol."""
        now_us = to_us(now)
        quotes: list[Quote | None] = []
        for symbol in symbols:
            market = self._find(symbol)
            quotes.append(market.quote(now_us) if market else None)
        return quotes

    async def tradable_quotes(self, *, now: datetime) -> list[contract.Quote]:
        """Return the quote of every tradable instrument at ``now``, as other modules read it."""
        now_us = to_us(now)
        return [
            published_quote(market.quote(now_us))
            for market in self._markets.values()
            if market.instrument.tradable
        ]

    def _market(self, symbol: str) -> Market:
        market = self._find(symbol)
        if market is None:
            if not self._markets:
                raise _missing()
            shown = symbol[:64].encode("ascii", "replace").decode()
            raise InstrumentNotFoundError(f"no instrument has the symbol {shown!r}", symbol=shown)
        return market

    def _find(self, symbol: str) -> Market | None:
        symbol = symbol.upper()
        found = self._markets.get(symbol)
        if found is None and ":" not in symbol:
            for exchange in Exchange:
                found = found or self._markets.get(f"{exchange}:{symbol}")
        return found


def published_quote(quote: Quote) -> contract.Quote:
    """Return a quote as other modules read it."""
    instrument = quote.instrument
    return contract.Quote(
        instrument=instrument.symbol,
        exchange=instrument.exchange.value,
        symbol=instrument.ticker,
        scale=instrument.price_decimals,
        bid=quote.bid,
        ask=quote.ask,
        last=quote.last,
        sequence=quote.sequence,
        at_us=quote.at_us,
        tradable=instrument.tradable,
        previous_close=quote.previous_close,
    )


def published_instrument(instrument: Instrument) -> contract.Instrument:
    """Return an instrument as other modules read it."""
    return contract.Instrument(
        instrument=instrument.symbol,
        exchange=instrument.exchange.value,
        symbol=instrument.ticker,
        description=instrument.description,
        kind=instrument.asset_class.value,
        base_currency=instrument.base_currency,
        quote_currency=instrument.quote_currency,
        price_scale=instrument.price_decimals,
        tick=instrument.tick,
        quantity_scale=instrument.quantity_decimals,
        quantity_step=instrument.quantity_step,
        quantity_max=instrument.quantity_max,
        lot_size=instrument.lot_size,
        multiplier=instrument.multiplier,
        tradable=instrument.tradable,
        session=instrument.session,
        time_zone=instrument.time_zone,
    )


@dataclass(frozen=True, slots=True)
class _Seconds:
    """Stored bars of a second by series, and how long they are kept."""

    stored: Mapping[str, Columns]
    kept: int

    def of(self, series_id: str) -> Columns:
        return self.stored.get(series_id, EMPTY)


def _markets_of(
    stored: MarketData,
    all_series: Mapping[str, StoredSeries],
    required: Sequence[str],
    before: Mapping[str, Market],
    seconds: "_Seconds",
) -> dict[str, Market]:
    markets: dict[str, Market] = {}
    caches = DemoCaches()
    for instrument in stored.instruments:
        series = all_series.get(instrument.series_id)
        if series is None:
            continue
        known = before.get(instrument.symbol)
        try:
            market = _market_of(instrument, series, stored, known, seconds, caches)
        except Exception:
            # What is wrong with it is M3's to tell; the others are served.
            log.exception("instrument_not_loaded", instrument=instrument.symbol)
            continue
        if market is not None:
            markets[instrument.symbol] = market
    for ticker in dict.fromkeys((*KNOWN, *required)):
        instrument = simulated_instrument(ticker)
        if stored.anchor is None or instrument.symbol in markets:
            continue
        markets[instrument.symbol] = DemoMarket(
            instrument,
            simulated_series(ticker, seed=stored.anchor.seed),
            (),
            anchor_time=stored.anchor.anchor_time,
            seed=stored.anchor.seed,
            caches=caches,
        )
    return markets


def _market_of(
    instrument: Instrument,
    series: StoredSeries,
    stored: MarketData,
    known: Market | None,
    seconds: "_Seconds",
    caches: DemoCaches,
) -> Market | None:
    """Return an instrument's market, the known one where it stays right; None before a seed."""
    if instrument.exchange in LIVE_EXCHANGES and series.resolution == _MINUTE:
        if isinstance(known, LiveMarket) and known.fits(instrument, series):
            known.become(instrument)
            known.absorb(series, seconds.of(series.id))
            return known
        return LiveMarket(instrument, series, seconds.of(series.id), seconds_kept=seconds.kept)
    if instrument.exchange is not Exchange.DEMO:
        if isinstance(known, HistoricalMarket) and known.is_of(instrument, series):
            return known
        return HistoricalMarket(instrument, series)
    if stored.anchor is None:
        return None
    return DemoMarket(
        instrument,
        series,
        stored.splits.get(series.id, ()),
        anchor_time=stored.anchor.anchor_time,
        seed=stored.anchor.seed,
        caches=caches,
    )


def _window(from_time: int, to_time: int, count_back: int | None) -> Window:
    for field, value in (("from", from_time), ("to", to_time)):
        if abs(value) > TIME_MAX:
            raise _invalid(field, "range", f"{field} is out of range; it is in seconds since 1970")
    if from_time > to_time:
        raise _invalid("from", "order", "from lies after to")
    if count_back is None:
        return Window(from_time, max(to_time, from_time + 1))
    if count_back < 1:
        raise _invalid("count_back", "positive", "count_back must be at least 1")
    return Window(from_time, to_time, min(count_back, BARS_MAX))


def _invalid(field: str, rule: str, message: str) -> WindowInvalidError:
    return WindowInvalidError(message, errors=[FieldError(field, rule, message)])


def _missing() -> MarketDataMissingError:
    return MarketDataMissingError(
        "no market data is loaded: run `trading-api seed`", retry_after_seconds=5
    )
