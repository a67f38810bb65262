"""Wires datafeed together."""

from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from trading_api.contracts.datafeed import InstrumentChanged
from trading_api.kernel.clock import Clock
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.adapters import bar_formats
from trading_api.modules.datafeed.adapters.bar_files import BarFiles
from trading_api.modules.datafeed.adapters.broker import BrokerExecutions
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.adapters.calendars import ExchangeCalendars
from trading_api.modules.datafeed.adapters.ccxt_feed import CcxtProvider
from trading_api.modules.datafeed.adapters.providers import (
    ReplayProvider,
    SimulatedProvider,
    find_providers,
)
from trading_api.modules.datafeed.api.bulk import build_bulk_router
from trading_api.modules.datafeed.api.instruments import build_instruments_router
from trading_api.modules.datafeed.api.layouts import PREFIX as CHARTS_PREFIX
from trading_api.modules.datafeed.api.layouts import build_layouts_router
from trading_api.modules.datafeed.api.providers import build_providers_router
from trading_api.modules.datafeed.api.udf import build_udf_router
from trading_api.modules.datafeed.api.v1 import build_internal_router, build_router
from trading_api.modules.datafeed.commands import ConformanceCommand, ImportCommand
from trading_api.modules.datafeed.consumers import CatalogueWatch, TextWriter, provider_tasks
from trading_api.modules.datafeed.domain.instrument import Exchange
from trading_api.modules.datafeed.domain.resolution import parse_resolution
from trading_api.modules.datafeed.domain.selection import BARS_MAX
from trading_api.modules.datafeed.errors import ResolutionUnsupportedError
from trading_api.modules.datafeed.ports import MarketDataProvider, ProviderContext
from trading_api.modules.datafeed.repository import InstrumentRepository, MarketRepository
from trading_api.modules.datafeed.repository.checks import CHECK_IDS
from trading_api.modules.datafeed.repository.layouts import LayoutRepository
from trading_api.modules.datafeed.service import (
    TICK_PATTERN,
    TIME_MAX,
    DatafeedService,
    ExportService,
    ImportService,
    InstrumentService,
    MarkService,
    ProviderService,
    SeedProgress,
)
from trading_api.modules.datafeed.service.layouts import LayoutService
from trading_api.modules.datafeed.settings import DatafeedSettings, split
from trading_api.modules.datafeed.ws.live import Broadcaster, PriceFeed
from trading_api.modules.datafeed.ws.v1 import BarsChannel, QuotesChannel
from trading_api.runtime.database import Idempotency, Leases, Outbox
from trading_api.runtime.http import Access
from trading_api.runtime.module import (
    BackgroundTask,
    Check,
    Command,
    Manifest,
    Module,
    ModuleContext,
    ModuleParts,
    Proof,
)
from trading_api.runtime.settings import ConfigurationError, load_settings

_SERIES_STEPS = 7
"""Six bundled series and the instruments: what the seed's progress bar counts."""


class DatafeedModule(Module):
    """Instruments, bars, quotes and the live feed."""

    manifest = Manifest(
        name="datafeed",
        summary="instruments, bars, quotes, the UDF dialect, market-data streams",
        tags=("datafeed", "datafeed UDF", "datafeed charts"),
        publishes=(InstrumentChanged,),
        has_websocket=True,
    )

    def build(self, context: ModuleContext) -> ModuleParts:
        """Build the service over this process's database, its routes, channels and tasks."""
        settings = load_settings(DatafeedSettings, context.environ)
        _ensure_resolutions(settings.ready_resolutions)
        database, clock = context.require_database(), context.clock
        self._service = service = DatafeedService(
            database=database,
            repository=MarketRepository(),
            history=BundledHistory(),
            required=settings.required_tickers,
            files=BarFiles(context.settings.data_directory / "bars"),
            seconds_kept=settings.datafeed_seconds_hours * 3_600,
        )
        self._settings, self._clock = settings, clock
        access = Access.public() if settings.datafeed_public else Access.scope("datafeed:read")
        outbox = Outbox(tables.outbox_table, producer=context.name, ids=context.ids, clock=clock)
        marks = MarkService(
            market=service,
            executions=BrokerExecutions(client=context.peers.client("broker")),
        )
        instruments = InstrumentService(
            database=database,
            repository=InstrumentRepository(),
            market=service,
            calendars=ExchangeCalendars(),
            outbox=outbox,
            idempotency=Idempotency(tables.idempotency_table, clock=clock),
        )
        router = build_router(service=service, marks=marks, clock=clock, access=access)
        router.include(
            build_instruments_router(
                service=service, instruments=instruments, clock=clock, access=access
            ),
            prefix="",
        )
        imports = ImportService(database=database, market=service, ids=context.ids)
        router.include(
            build_bulk_router(
                imports=imports,
                exports=ExportService(market=service),
                clock=clock,
                access=access,
                spool=context.settings.data_directory / "uploads",
                make_writer=bar_formats.writer_of,
                open_source=bar_formats.source_of,
                digest_of=bar_formats.digest_of,
            ),
            prefix="",
        )
        leases = Leases(tables.lease_rows, database=database, clock=clock, owner=context.instance)
        providers = ProviderService(
            providers=find_providers(
                settings.providers,
                ProviderContext(
                    environ=context.environ,
                    clock=clock,
                    seed=settings.datafeed_demo_seed,
                    find_series=lambda series_id: service.find_series(series_id=series_id),
                ),
                built_in=_built_in_providers(settings, clock),
            ),
            database=database,
            market=service,
            leases=leases,
            bus=context.bus,
            clock=clock,
            history_seconds=settings.datafeed_history_hours * 3_600,
            static={"bundled": len(list(BundledHistory().instruments()))},
        )
        if settings.providers:
            context.bus.subscribe(
                TICK_PATTERN,
                lambda channel, payload: providers.hear(channel=channel, payload=payload),
            )
            context.bus.on_state(lambda is_up: providers.note_bus_state(is_up=is_up))
        router.include(
            build_providers_router(providers=providers, clock=clock, access=access), prefix=""
        )
        importing = ImportCommand(
            imports=imports,
            instruments=instruments,
            clock=clock,
            open_source=bar_formats.source_of,
            digest_of=bar_formats.digest_of,
        )
        udf = build_udf_router(service=service, marks=marks, clock=clock, access=access)
        router.include(udf, prefix="/udf")
        layouts = LayoutService(database=database, repository=LayoutRepository(), ids=context.ids)
        router.include(build_layouts_router(layouts=layouts, clock=clock), prefix=CHARTS_PREFIX)
        interval_us = round(settings.bar_broadcaster_interval * 1_000_000)
        feed = PriceFeed(service=service, bus=context.bus, clock=clock)
        broadcaster = Broadcaster(
            service=service,
            hub=context.hub,
            clock=clock,
            bars_interval_us=interval_us if settings.bar_broadcaster_enabled else None,
        )
        seed = _SeedCommand(service, settings.datafeed_demo_seed, clock)
        return ModuleParts(
            routers={"v1": router},
            absolute=build_internal_router(service=service, clock=clock),
            channels={
                "v1": (
                    BarsChannel(
                        service=service,
                        clock=clock,
                        access=access,
                        newest_bar=broadcaster.newest_bar,
                    ),
                    QuotesChannel(service=service, clock=clock, access=access),
                )
            },
            tasks=(
                BackgroundTask("feed", feed.run, lease="feed"),
                BackgroundTask("broadcaster", broadcaster.run),
                BackgroundTask("catalogue", CatalogueWatch(service).run),
                BackgroundTask("texts", TextWriter(service).run),
                *provider_tasks(providers, settings.providers),
            ),
            checks=(Check("market_data", service.ensure_loaded),),
            commands=(
                Command("seed", "load the bundled market history", seed.run),
                Command("import", "import a file of bars into a series", importing.run),
                Command(
                    "conformance",
                    "run TradingView's data tests against a server",
                    ConformanceCommand(clock).run,
                ),
            ),
            proofs=(Proof("market_data", CHECK_IDS, instruments.verify),),
            outbox=outbox,
            leases=leases,
        )

    async def start(self) -> None:
        """Read everything stored into memory, and make the first bars ready."""
        if not await self._service.load():
            return
        now = self._clock.now()
        for ticker in self._settings.required_tickers:
            for resolution in self._settings.ready_resolutions:
                await self._service.bars(
                    symbol=f"{Exchange.DEMO}:{ticker}",
                    resolution=resolution,
                    from_time=0,
                    to_time=TIME_MAX,
                    count_back=BARS_MAX,
                    now=now,
                )


def _built_in_providers(
    settings: DatafeedSettings, clock: Clock
) -> dict[str, Callable[[ProviderContext], MarketDataProvider]]:
    def ccxt(_: ProviderContext) -> MarketDataProvider:
        return CcxtProvider(
            markets=split(settings.datafeed_ccxt_markets),
            base_url=settings.datafeed_ccxt_url,
            clock=clock,
        )

    return {
        "simulated": partial(SimulatedProvider, symbols=split(settings.datafeed_simulated_symbols)),
        "replay": partial(
            ReplayProvider,
            series_ids=split(settings.datafeed_replay_series),
            speed=settings.datafeed_replay_speed,
        ),
        "ccxt": ccxt,
    }


def _ensure_resolutions(resolutions: Sequence[str]) -> None:
    for each in resolutions:
        try:
            parse_resolution(each)
        except ResolutionUnsupportedError as error:
            raise ConfigurationError([f"BAR_BROADCASTER_RESOLUTIONS: {error.message}"]) from None


class _SeedCommand:
    """``seed``: loads the bundled history, with a progress bar where a person looks on."""

    def __init__(self, service: DatafeedService, demo_seed: str, clock: Clock) -> None:
        self._service = service
        self._demo_seed = demo_seed
        self._clock = clock

    async def run(self, _: Sequence[str]) -> int:
        """Seed and return 0; a second run changes nothing."""
        console = Console()
        changed = 0
        with Progress(
            TextColumn("market data"),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
        ) as progress:
            task = progress.add_task("", total=_SERIES_STEPS)

            def show(step: SeedProgress) -> None:
                nonlocal changed
                changed += step.changed
                bars = f" {step.bars} bars" if step.bars else ""
                progress.update(task, advance=1, description=f"{step.what}{bars}")

            await self._service.seed(
                now=self._clock.now(), demo_seed=self._demo_seed, on_progress=show
            )
        console.print("market data loaded" if changed else "market data is already loaded")
        return 0
