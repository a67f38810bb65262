"""Puts the broker together."""

import sys
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import ClassVar

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.broker import (
    AccountOpened,
    AccountReset,
    AccountRestricted,
    CashTransferred,
    ExecutionRecorded,
    MarginCalled,
    OrderAccepted,
    OrderCanceled,
    OrderExpired,
    OrderFilled,
    OrderModified,
    OrderRejected,
    StoppedOut,
)
from trading_api.ledger.checks import LEDGER_CHECKS
from trading_api.ledger.engine import Ledger
from trading_api.modules.broker import tables
from trading_api.modules.broker.adapters.market import DatafeedInstruments, DatafeedQuotes
from trading_api.modules.broker.adapters.paper_venue import PaperModel, PaperVenue
from trading_api.modules.broker.adapters.peers import AuthSignIn, DatafeedHistory
from trading_api.modules.broker.api import internal_transfers
from trading_api.modules.broker.api import v1 as api_v1
from trading_api.modules.broker.api.internal import build_internal_router
from trading_api.modules.broker.api.tv import build_tv_router
from trading_api.modules.broker.consumers import (
    FINANCING_SECONDS,
    MARGIN_SECONDS,
    RETENTION_SECONDS,
    SAMPLE_SECONDS,
    AccountFeed,
    LeasedLoop,
    MatchingLoop,
    build_consumers,
    read_connection,
    read_equity,
)
from trading_api.modules.broker.domain.instrument import Policy
from trading_api.modules.broker.domain.limits import RiskLimits
from trading_api.modules.broker.domain.schedules import FinancingRate
from trading_api.modules.broker.repository import BrokerRepository
from trading_api.modules.broker.repository.checks import BROKER_CHECKS
from trading_api.modules.broker.repository.marks import MarkRepository
from trading_api.modules.broker.repository.samples import SampleRepository
from trading_api.modules.broker.service import (
    AccountService,
    MatchingService,
    OrderService,
    PositionService,
    ReportService,
)
from trading_api.modules.broker.service.ahead import AheadReader
from trading_api.modules.broker.service.controls import ControlService
from trading_api.modules.broker.service.counter import Counter
from trading_api.modules.broker.service.desk import Books
from trading_api.modules.broker.service.financing import FinancingService
from trading_api.modules.broker.service.floor import Floor
from trading_api.modules.broker.service.leverage import LeverageService
from trading_api.modules.broker.service.margin_calls import MarginService
from trading_api.modules.broker.service.markets import MarketService
from trading_api.modules.broker.service.marks import MarkService
from trading_api.modules.broker.service.performance import PerformanceService
from trading_api.modules.broker.service.resets import ResetService
from trading_api.modules.broker.service.retention import RetentionService
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.modules.broker.service.streaming import MarketStream
from trading_api.modules.broker.service.transfers import TransferService
from trading_api.modules.broker.settings import BrokerSettings
from trading_api.modules.broker.ws import v1 as ws_v1
from trading_api.runtime.crash import crash_points
from trading_api.runtime.database import Idempotency, Inbox, Leases, Outbox
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.module import (
    BackgroundTask,
    Command,
    Manifest,
    Module,
    ModuleContext,
    ModuleParts,
    Proof,
)
from trading_api.runtime.secrets import load_secret_key
from trading_api.runtime.settings import load_settings

EXIT_CORRUPT_DATA = 65
MATCHING_LEASE = "matching"


class BrokerModule(Module):
    """Paper trading: accounts, orders, executions, positions."""

    manifest: ClassVar[Manifest] = Manifest(
        name="broker",
        summary="trading accounts, orders, executions, positions, margin; the paper venue",
        tags=("broker",),
        publishes=(
            AccountOpened,
            AccountReset,
            AccountRestricted,
            OrderAccepted,
            OrderModified,
            OrderFilled,
            OrderCanceled,
            OrderExpired,
            OrderRejected,
            ExecutionRecorded,
            MarginCalled,
            StoppedOut,
            CashTransferred,
        ),
        consumes=(UserRegistered,),
        has_websocket=True,
    )

    def build(self, context: ModuleContext) -> ModuleParts:
        """Build the broker's parts.

        Raises:
            ConfigurationError: lists what is wrong with ``BROKER_*``.
        """
        settings = load_settings(BrokerSettings, context.environ)
        database, clock = context.require_database(), context.clock
        outbox = Outbox(tables.outbox_table, producer=context.name, ids=context.ids, clock=clock)
        inbox = Inbox(tables.inbox_table)
        leases = Leases(tables.leases_table, database=database, clock=clock, owner=context.instance)
        idempotency = Idempotency(tables.idempotency_table, clock=clock)
        client = context.peers.client("datafeed")
        self._quotes = DatafeedQuotes(bus=context.bus, client=client, clock=clock)
        books = Books(
            repository=BrokerRepository(),
            ledger=Ledger(tables.ledger),
            outbox=outbox,
            ids=context.ids,
            wake=context.hub.wake,
            find_quote=self._quotes.find,
        )
        ahead = AheadReader(books.repository, books.ledger, idempotency)
        self._clock = clock
        instruments = DatafeedInstruments(client=client, clock=clock)
        policy = _policy_of(settings)
        accounts = AccountService(
            database=database,
            books=books,
            inbox=inbox,
            idempotency=idempotency,
            opening_cash_units=settings.paper_balance,
            currencies=settings.currencies,
            per_user_max=settings.accounts_per_user_max,
        )
        risk = RiskGate(quotes=self._quotes, policy=policy)
        venue = PaperVenue(_model_of(settings))
        floor = Floor(venue=venue, risk=risk, policy=policy)
        counter = Counter(
            books=books, quotes=self._quotes, instruments=instruments, policy=policy, floor=floor
        )
        orders = OrderService(
            database=database,
            books=books,
            accounts=accounts,
            idempotency=idempotency,
            counter=counter,
            floor=floor,
            risk=risk,
            ahead=ahead,
        )
        positions = PositionService(
            database=database,
            books=books,
            accounts=accounts,
            idempotency=idempotency,
            counter=counter,
            floor=floor,
        )
        self._reports = ReportService(
            database=database,
            books=books,
            accounts=accounts,
            quotes=self._quotes,
            instruments=instruments,
            policy=policy,
        )
        self._matching = MatchingService(
            database=database,
            books=books,
            instruments=instruments,
            leases=leases,
            venue=venue,
            floor=floor,
            ahead=ahead,
        )
        leverage = LeverageService(
            database=database,
            books=books,
            accounts=accounts,
            quotes=self._quotes,
            instruments=instruments,
            risk=risk,
            policy=policy,
        )
        resets = ResetService(
            database=database,
            books=books,
            accounts=accounts,
            idempotency=idempotency,
            quotes=self._quotes,
            instruments=instruments,
            venue=venue,
            renew=context.hub.reset,
        )
        transfers = TransferService(
            database=database,
            books=books,
            risk=risk,
            crash_point=crash_points(context.environ, context.settings),
        )
        matching = MatchingLoop(self._matching, self._quotes, clock=clock)
        equity = AccountFeed(
            read_equity(self._reports, self._quotes),
            prefix=ws_v1.EQUITY_FEED,
            listened=context.hub.listened,
            publish=context.hub.publish_here,
        )
        connection = AccountFeed(
            read_connection(self._reports),
            prefix=ws_v1.CONNECTION_FEED,
            listened=context.hub.listened,
            publish=context.hub.publish_here,
        )
        performance = PerformanceService(
            database=database,
            books=books,
            samples=SampleRepository(),
            accounts=accounts,
            quotes=self._quotes,
            leases=leases,
        )
        retention = RetentionService(
            database=database,
            books=books,
            leases=leases,
            keep_events=timedelta(days=settings.events_days),
        )
        margin = MarginService(
            database=database,
            books=books,
            quotes=self._quotes,
            instruments=instruments,
            venue=venue,
            risk=risk,
            leases=leases,
        )
        financing = FinancingService(
            database=database,
            books=books,
            quotes=self._quotes,
            instruments=instruments,
            leases=leases,
            policy=policy,
        )
        turns = {
            "retention": LeasedLoop(
                retention.delete_old_events,
                performance.thin_out,
                clock=clock,
                seconds=RETENTION_SECONDS,
            ),
            "samples": LeasedLoop(performance.sample, clock=clock, seconds=SAMPLE_SECONDS),
            "margin": LeasedLoop(margin.watch, clock=clock, seconds=MARGIN_SECONDS),
            "financing": LeasedLoop(financing.charge, clock=clock, seconds=FINANCING_SECONDS),
        }
        cursors = Cursors(
            load_secret_key(context.settings.secrets_directory, context.environ),
            purpose="broker.lists",
        )
        absolute = build_internal_router(
            marks=MarkService(database=database, repository=MarkRepository())
        )
        absolute.include(internal_transfers.build_router(transfers, clock=clock), prefix="")
        history = DatafeedHistory(client)
        self._stream = MarketStream(quotes=self._quotes, history=history, clock=clock)
        tv = build_tv_router(
            accounts=accounts,
            orders=orders,
            positions=positions,
            reports=self._reports,
            leverage=leverage,
            markets=MarketService(
                database=database,
                books=books,
                accounts=accounts,
                quotes=self._quotes,
                instruments=instruments,
                history=history,
                policy=policy,
            ),
            stream=self._stream,
            sign_in=AuthSignIn(context.peers.client("auth")),
            clock=clock,
            cursors=cursors,
        )
        return ModuleParts(
            routers={
                "v1": api_v1.build_router(
                    accounts=accounts,
                    orders=orders,
                    positions=positions,
                    reports=self._reports,
                    leverage=leverage,
                    resets=resets,
                    controls=ControlService(database=database, books=books),
                    performance=performance,
                    tv=tv,
                    clock=clock,
                    cursors=cursors,
                )
            },
            absolute=absolute,
            channels={
                "v1": ws_v1.build_channels(accounts=accounts, reports=self._reports, clock=clock)
            },
            consumers=build_consumers(accounts, clock=clock),
            tasks=[
                BackgroundTask("matching", matching.run, lease=MATCHING_LEASE),
                BackgroundTask("equity", equity.run),
                BackgroundTask("connection", connection.run),
                *(BackgroundTask(name, loop.run, lease=name) for name, loop in turns.items()),
            ],
            commands=[
                Command(
                    "verify-broker",
                    "prove every order, execution, position, reservation and posting",
                    self._verify,
                )
            ],
            proofs=[
                Proof("ledger", LEDGER_CHECKS, self._reports.verify_ledger),
                Proof("trading", BROKER_CHECKS, self._reports.verify_trading),
            ],
            after_restore=[partial(books.repository.renew_epochs, ids=context.ids)],
            outbox=outbox,
            inbox=inbox,
            leases=leases,
        )

    async def start(self) -> None:
        """Listen to quotes and make reservations true before the first order comes."""
        self._quotes.start()
        await self._matching.reconcile(now=self._clock.now())
        await self._reports.refresh_all_held()

    def drain(self) -> None:
        """End the streams of the market."""
        self._stream.end()

    async def stop(self) -> None:
        """Stop listening to quotes."""
        self._quotes.stop()

    async def _verify(self, _arguments: Sequence[str]) -> int:
        violations = await self._reports.verify()
        for violation in violations:
            sys.stdout.write(f"{violation.id} {violation.subject}: {violation.message}\n")
        sys.stdout.write(f"broker: {len(violations)} violations\n")
        return EXIT_CORRUPT_DATA if violations else 0


def _policy_of(settings: BrokerSettings) -> Policy:
    return Policy(
        leverage_by_kind={
            "stock": settings.leverage_stock,
            "forex": settings.leverage_forex,
            "crypto": settings.leverage_crypto,
        },
        commission_ppm_by_kind={
            "stock": settings.commission_stock_ppm,
            "forex": settings.commission_forex_ppm,
            "crypto": settings.commission_crypto_ppm,
        },
        slippage_cap_ppm=settings.slippage_cap_ppm,
        financing_by_kind={
            "stock": FinancingRate(
                settings.financing_stock_long_ppm, settings.financing_stock_short_ppm
            ),
            "forex": FinancingRate(
                settings.financing_forex_long_ppm, settings.financing_forex_short_ppm
            ),
            "crypto": FinancingRate(
                settings.financing_crypto_long_ppm, settings.financing_crypto_short_ppm
            ),
        },
        limits=RiskLimits(
            price_band_ppm=settings.price_band_ppm,
            position_value_max=settings.position_value_max,
            exposure_max=settings.exposure_max,
            open_orders_max=settings.open_orders_max,
            orders_per_second=settings.orders_per_second,
            orders_burst=settings.orders_burst,
        ),
    )


def _model_of(settings: BrokerSettings) -> PaperModel:
    return PaperModel(
        seed=settings.venue_seed,
        volume_by_kind={
            "stock": settings.venue_volume_stock,
            "forex": settings.venue_volume_forex,
            "crypto": settings.venue_volume_crypto,
        },
        participation_ppm=settings.venue_participation_ppm,
        impact_ppm=min(settings.venue_impact_ppm, settings.slippage_cap_ppm),
        latency=timedelta(milliseconds=settings.venue_latency_ms),
        latency_jitter=timedelta(milliseconds=settings.venue_latency_jitter_ms),
    )
