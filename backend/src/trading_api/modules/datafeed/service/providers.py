"""Live markets: one process runs a provider, the others follow what it tells over the bus.

The leader asks a provider for instruments and recent minutes, stores them, then judges each tick,
applies it, tells the others and stores every minute once it is final. A provider that fails is
tried again after a pause that doubles from one second to one minute; nothing else stops. An
instrument that was retired, or that doesn't fit its stored bars any more, isn't fed.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

import orjson
import structlog
from prometheus_client import Counter as Metric
from prometheus_client import Gauge

from trading_api.kernel.clock import Clock, to_us
from trading_api.modules.datafeed.domain.columns import EMPTY, Columns
from trading_api.modules.datafeed.domain.demo import SLOT_US
from trading_api.modules.datafeed.domain.instrument import Instrument
from trading_api.modules.datafeed.domain.live import MINUTE_SECONDS, LiveMarket
from trading_api.modules.datafeed.domain.tick import Fault, ProviderTick, Tick, TickGate
from trading_api.modules.datafeed.ports import MarketDataProvider, TickBus
from trading_api.modules.datafeed.repository import BarRepository, MarketRepository
from trading_api.modules.datafeed.repository.bars import SeriesMismatchError, ensure_minutes
from trading_api.modules.datafeed.service.market import DatafeedService
from trading_api.runtime.database import Database, Lease, Leases
from trading_api.runtime.tasks import run_together

log = structlog.get_logger("datafeed")

BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 60.0
HEALTHY_SECONDS = 60.0
"""A stream that lived this long starts its next back-off from the beginning."""

TICK_CHANNEL = "trading:{datafeed}:tick:"
TICK_PATTERN = TICK_CHANNEL + "*"

_TICKS = Metric("datafeed_provider_ticks", "Ticks believed", ["provider"])
_DROPPED = Metric("datafeed_provider_ticks_dropped", "Ticks dropped", ["provider", "reason"])
_FAILURES = Metric("datafeed_provider_failures", "Times a provider failed", ["provider"])
_LAG = Gauge("datafeed_provider_lag_seconds", "Age of the newest tick when it came", ["provider"])


class _UnfitError(Exception):
    """An instrument isn't to be fed; its provider's others are."""


class ProviderState(StrEnum):
    """What a provider does in this process."""

    STANDBY = "standby"
    STARTING = "starting"
    BACKFILLING = "backfilling"
    STREAMING = "streaming"
    BACKING_OFF = "backing_off"
    STATIC = "static"


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """How a provider is, seen from one process.

    Attributes:
        name: as configured.
        state: STANDBY where another process runs it.
        instruments: how many it feeds.
        ticks: believed in this process, its own or relayed.
        dropped: ticks by reason.
        bars: minutes stored by this process.
        failures: times it failed since this process began.
        last_error: of the last failure, or why instruments aren't fed; None while there is none.
        last_tick_us: when the newest tick happened, microseconds; None before the first.
        retry_at_us: when it is tried again; None unless it is backing off.
    """

    name: str
    state: ProviderState = ProviderState.STANDBY
    instruments: int = 0
    ticks: int = 0
    dropped: Mapping[Fault, int] = field(default_factory=dict)
    bars: int = 0
    failures: int = 0
    last_error: str | None = None
    last_tick_us: int | None = None
    retry_at_us: int | None = None


class ProviderService:
    """Runs providers, and follows those that other processes run.

    Args:
        providers: by name.
        leases: the right to store is checked in every transaction.
        history_seconds: how far back the first backfill goes.
        static: providers of history alone, with their number of instruments.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, MarketDataProvider],
        database: Database,
        market: DatafeedService,
        leases: Leases,
        bus: TickBus,
        clock: Clock,
        history_seconds: int,
        static: Mapping[str, int] | None = None,
    ) -> None:
        self._providers = dict(providers)
        self._database = database
        self._market = market
        self._leases = leases
        self._bus = bus
        self._clock = clock
        self._history_seconds = history_seconds
        self._bars = BarRepository()
        self._instruments = MarketRepository()
        self._status = {name: ProviderStatus(name) for name in providers}
        self._static = [
            ProviderStatus(each, ProviderState.STATIC, instruments=count)
            for each, count in (static or {}).items()
        ]
        self._must_load = False
        self._must_ask = True
        # Symbols of the providers that this process leads.
        self._fed: dict[str, Sequence[str]] = {}

    async def list_providers(self) -> Sequence[ProviderStatus]:
        """Return how each provider is."""
        return [*self._static, *self._status.values()]

    async def run(self, *, name: str, lease: Lease | None) -> None:
        """Run a provider until cancelled, whatever happens to it."""
        pause = BACKOFF_SECONDS_MIN
        try:
            while True:
                began = self._clock.monotonic()
                reason = await self._run_once(name, lease)
                if self._clock.monotonic() - began > HEALTHY_SECONDS:
                    pause = BACKOFF_SECONDS_MIN
                _FAILURES.labels(name).inc()
                self._note(
                    name,
                    state=ProviderState.BACKING_OFF,
                    failures=self._status[name].failures + 1,
                    last_error=reason[:300],
                    retry_at_us=to_us(self._clock.now()) + round(pause * 1_000_000),
                )
                log.warning("provider_failed", provider=name, reason=reason, pause_seconds=pause)
                await asyncio.sleep(pause)
                pause = min(pause * 2, BACKOFF_SECONDS_MAX)
        finally:
            self._note(name, state=ProviderState.STANDBY, retry_at_us=None)

    async def _run_once(self, name: str, lease: Lease | None) -> str:
        """Run a provider until it ends; return why."""
        provider = self._providers[name]
        try:
            await self._feed(name, provider, lease)
        except Exception as error:  # noqa: BLE001 - a provider may fail in any way
            return f"{type(error).__name__}: {error}"
        finally:
            with contextlib.suppress(Exception):
                await provider.close()
        return "the stream ended"

    async def _feed(self, name: str, provider: MarketDataProvider, lease: Lease | None) -> None:
        self._note(name, state=ProviderState.STARTING, retry_at_us=None)
        instruments = list(await provider.instruments())
        self._note(name, state=ProviderState.BACKFILLING, instruments=len(instruments))
        fed: list[Instrument] = []
        for instrument in instruments:
            try:
                await self._backfill(name, provider, instrument, lease)
                fed.append(instrument)
            except (_UnfitError, SeriesMismatchError) as error:
                log.error("instrument_not_fed", instrument=instrument.symbol, reason=str(error))
                self._note(name, last_error=f"{instrument.symbol}: {error}"[:300])
        await self._market.load()
        markets = {
            each.symbol: market
            for each in fed
            if (market := self._market.find_live(symbol=each.symbol)) is not None
        }
        if not markets:
            raise LookupError(self._status[name].last_error or "it offers no instrument")
        self._note(name, state=ProviderState.STREAMING, instruments=len(markets))
        fed = [each for each in fed if each.symbol in markets]
        gates = {symbol: _gate_of(market) for symbol, market in markets.items()}
        stored = {symbol: int(market.series.bars.time[-1]) for symbol, market in markets.items()}
        self._fed[name] = list(gates)
        # A minute that another process led before is still to be told, and to be known, in whole.
        self._tell_forming(name, self._fed[name], "forming")
        self._bus.publish(TICK_CHANNEL + name, orjson.dumps({"ask": self._fed[name]}))
        try:
            await run_together(
                provider.stream(fed, lambda told: self._take(name, told, gates)),
                self._keep_closing(name, stored, lease),
            )
        finally:
            del self._fed[name]

    def _take(self, name: str, told: ProviderTick, gates: Mapping[str, TickGate]) -> None:
        """Judge a tick, apply it, then tell the other processes."""
        now_us = to_us(self._clock.now())
        gate, market = gates.get(told.symbol), self._market.find_live(symbol=told.symbol)
        if gate is None or market is None:
            # Of no instrument, or of one that was retired a moment ago.
            self._count_drops(name, gates, unknown=True)
            return
        gate.spread = market.instrument.spread
        tick = gate.admit(told, now_us=now_us)
        if tick is None:
            self._count_drops(name, gates, unknown=False)
            return
        market.apply(tick)
        self._bus.publish(TICK_CHANNEL + name, _encode_tick(tick))
        _TICKS.labels(name).inc()
        _LAG.labels(name).set((now_us - tick.at_us) / 1_000_000)
        self._note(name, ticks=self._status[name].ticks + 1, last_tick_us=tick.at_us)

    def _count_drops(self, name: str, gates: Mapping[str, TickGate], *, unknown: bool) -> None:
        before = self._status[name].dropped
        counts: dict[Fault, int] = {}
        for gate in gates.values():
            for fault, number in gate.dropped.items():
                counts[fault] = counts.get(fault, 0) + number
        strangers = before.get(Fault.UNKNOWN_SYMBOL, 0) + unknown
        if strangers:
            counts[Fault.UNKNOWN_SYMBOL] = strangers
        for fault, number in counts.items():
            # A restarted stream counts from zero.
            _DROPPED.labels(name, str(fault)).inc(max(0, number - before.get(fault, 0)))
        self._note(name, dropped=counts)

    async def _keep_closing(self, name: str, stored: dict[str, int], lease: Lease | None) -> None:
        """Make minutes final as time goes by, and store them."""
        while True:
            now = self._clock.now()
            for symbol, last in stored.items():
                market = self._market.find_live(symbol=symbol)
                if market is None:
                    continue
                market.close_until(to_us(now))
                bars = market.closed_since(last)
                if len(bars):
                    seconds = market.seconds_of(bars)
                    await self._store(market.instrument, bars, lease, now, seconds)
                    stored[symbol] = int(bars.time[-1])
                    self._note(name, bars=self._status[name].bars + len(bars))
                    self._bus.publish(
                        TICK_CHANNEL + name, _encode_bars(symbol, last, bars, seconds)
                    )
            await asyncio.sleep((SLOT_US - to_us(self._clock.now()) % SLOT_US) / 1_000_000)

    async def _backfill(
        self,
        name: str,
        provider: MarketDataProvider,
        instrument: Instrument,
        lease: Lease | None,
    ) -> None:
        """Store the final minutes that are missing, and list the instrument over them.

        Raises:
            SeriesMismatchError: its stored minutes have other decimals, or are no minutes.
        """
        now = self._clock.now()
        to_time = int(now.timestamp()) // MINUTE_SECONDS * MINUTE_SECONDS
        async with self._database.snapshot() as transaction:
            if await self._instruments.is_retired(transaction, instrument):
                raise _UnfitError("it was retired")
            known = await self._bars.find_series(transaction, instrument.series_id)
            last = (
                None
                if known is None
                else await self._bars.read_last_chunk(
                    transaction, instrument.series_id, known.version
                )
            )
        if known is not None:
            ensure_minutes(
                instrument.series_id,
                known,
                instrument.price_decimals,
                instrument.volume_decimals,
            )
            await self._list(instrument, lease)
        from_time = (
            to_time - self._history_seconds
            if last is None
            else int(last[1].time[-1]) + MINUTE_SECONDS
        )
        is_known = last is not None
        async for bars in provider.backfill(instrument, from_time=from_time, to_time=to_time):
            bars = bars[bars.index_at(from_time) : bars.index_at(to_time)]
            if not len(bars):
                continue
            from_time = int(bars.time[-1]) + MINUTE_SECONDS
            await self._store(instrument, bars, lease, now, lists=not is_known)
            is_known = True
        if not is_known:
            raise LookupError(f"{name} has no history of {instrument.symbol} yet")

    async def _store(
        self,
        instrument: Instrument,
        bars: Columns,
        lease: Lease | None,
        now: datetime,
        seconds: Columns = EMPTY,
        *,
        lists: bool = False,
    ) -> None:
        """Append final minutes to an instrument's series, and list it where it is new."""
        async with self._database.transaction() as transaction:
            if lease is not None:
                await self._leases.ensure_held(transaction, lease)
            await self._bars.append(
                transaction,
                instrument.series_id,
                bars,
                price_decimals=instrument.price_decimals,
                volume_decimals=instrument.volume_decimals,
                source=instrument.exchange.value.lower(),
                now_us=to_us(now),
                seconds=seconds,
                seconds_kept=self._market.seconds_kept,
            )
            if lists:
                await self._instruments.add_instruments(transaction, [instrument])

    async def _list(self, instrument: Instrument, lease: Lease | None) -> None:
        """List an instrument over its stored series, or follow the provider's definition."""
        async with self._database.transaction() as transaction:
            if lease is not None:
                await self._leases.ensure_held(transaction, lease)
            await self._instruments.add_instruments(transaction, [instrument])

    def _note(self, name: str, **changes: object) -> None:
        self._status[name] = replace(self._status[name], **changes)  # type: ignore[arg-type]

    # Following

    def hear(self, *, channel: str, payload: bytes) -> None:
        """Take what another process tells of a provider, or asks of the one that leads it."""
        name = channel[len(TICK_CHANNEL) :]
        status = self._status.get(name)
        if status is None:
            return
        told = orjson.loads(payload)
        leads = name in self._fed
        if "ask" in told:
            # A leader asks for what others heard before it led, others for what a leader has.
            if leads and told["ask"] is None:
                self._tell_forming(name, self._fed[name], "forming")
            elif status.state is ProviderState.STANDBY and told["ask"] is not None:
                self._tell_forming(name, told["ask"], "heard")
            return
        if leads and "heard" in told:
            mine = self._market.find_live(symbol=told["s"])
            if mine is not None and mine.complete_forming(told["heard"], told["seconds"]):
                self._tell_forming(name, [told["s"]], "forming")
            return
        if status.state is not ProviderState.STANDBY or "heard" in told:
            return
        market = self._market.find_live(symbol=told["s"])
        if market is None:
            self._must_load = True
            return
        if "bars" in told:
            if told["after"] > market.last_time:
                # A minute was lost on the way; it is stored.
                self._must_load = True
            for row in told["bars"]:
                end = row[0] + MINUTE_SECONDS
                seconds = [each for each in told["seconds"] if row[0] <= each[0] < end]
                market.take_closed(row, seconds)
            return
        if "forming" in told:
            market.take_forming(told["forming"], told["seconds"])
            return
        tick = Tick(told["s"], told["t"], told["l"], told["z"], told["b"], told["a"])
        market.apply(tick)
        self._note(name, ticks=status.ticks + 1, last_tick_us=tick.at_us)

    def note_bus_state(self, *, is_up: bool) -> None:
        """Read again what is stored once the bus is back: minutes may have passed unheard."""
        self._must_load = self._must_load or is_up
        self._must_ask = self._must_ask or is_up

    def _tell_forming(self, name: str, symbols: Sequence[str], what: str) -> None:
        """Tell how the forming minutes began: ``forming`` as the leader, else ``heard``."""
        for symbol in symbols:
            market = self._market.find_live(symbol=symbol)
            forming = None if market is None else market.forming()
            if forming is not None:
                row, seconds = forming
                told = {"s": symbol, what: row, "seconds": seconds}
                self._bus.publish(TICK_CHANNEL + name, orjson.dumps(told))

    def _ask(self) -> None:
        """Ask the leaders for the forming minutes, of which this process heard a part at most."""
        for name, status in self._status.items():
            if status.state is ProviderState.STANDBY:
                self._bus.publish(TICK_CHANNEL + name, orjson.dumps({"ask": None}))

    async def follow(self) -> None:
        """Keep up with what is stored, by other processes or by this one, until cancelled."""
        while True:
            if self._must_load:
                self._must_load = False
                try:
                    await self._market.load()
                except Exception:
                    self._must_load = True
                    raise
                self._must_ask = True
            if self._must_ask and self._bus.is_up:
                self._must_ask = False
                self._ask()
            await self._market.settle()
            await asyncio.sleep(1.0)


def _gate_of(market: LiveMarket) -> TickGate:
    instrument = market.instrument
    return TickGate(
        price_decimals=instrument.price_decimals,
        volume_decimals=instrument.volume_decimals,
        spread=instrument.spread,
        tick=instrument.tick,
        last=market.last_close,
        last_us=(market.last_time + MINUTE_SECONDS) * 1_000_000,
    )


def _encode_tick(tick: Tick) -> bytes:
    return orjson.dumps(
        {
            "s": tick.symbol,
            "t": tick.at_us,
            "l": tick.last,
            "z": tick.size,
            "b": tick.bid,
            "a": tick.ask,
        }
    )


def _encode_bars(symbol: str, after: int, bars: Columns, seconds: Columns) -> bytes:
    return orjson.dumps(
        {"s": symbol, "after": after, "bars": _rows(bars), "seconds": _rows(seconds)}
    )


def _rows(bars: Columns) -> list[list[int]]:
    columns = (column.tolist() for column in bars.arrays())
    return [list(row) for row in zip(*columns, strict=True)]
