"""A migrated broker database of each kind, a market that tests move, and the services on both."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from trading_api.kernel.clock import Clock
from trading_api.kernel.ids import IdSource, UuidV7Ids
from trading_api.ledger.engine import Ledger
from trading_api.modules.broker import tables
from trading_api.modules.broker.adapters.paper_venue import PaperModel, PaperVenue
from trading_api.modules.broker.domain.instrument import Policy, Quote
from trading_api.modules.broker.domain.order import Order, OrderTicket
from trading_api.modules.broker.domain.position import Position
from trading_api.modules.broker.repository import BrokerRepository
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
from trading_api.modules.broker.service.orders import Placed
from trading_api.modules.broker.service.performance import PerformanceService
from trading_api.modules.broker.service.reports import AccountReport
from trading_api.modules.broker.service.resets import ResetService
from trading_api.modules.broker.service.retention import RetentionService
from trading_api.modules.broker.service.risk import RiskGate
from trading_api.modules.broker.tests.builders import POLICY, FakeInstruments, FakeMarket
from trading_api.runtime.database import Database, Idempotency, Inbox, Lease, Leases, Outbox
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

USER = "usr_trader"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, schema="broker")
    try:
        await migrate(made, "broker")
        yield made
    finally:
        await made.close()


@dataclass(slots=True)
class Venue:
    """The broker's services on one database, and short ways to use them as one user."""

    database: Database
    books: Books
    clock: Any
    market: FakeMarket
    accounts: AccountService
    orders: OrderService
    positions: PositionService
    matching: MatchingService
    reports: ReportService
    leverage: LeverageService
    resets: ResetService
    controls: ControlService
    retention: RetentionService
    margin: MarginService
    performance: PerformanceService
    financing: FinancingService
    renewed: list[str]
    leases: Leases
    wakes: list[tuple[str, int]]
    user_id: str = USER

    @property
    def now(self) -> datetime:
        now: datetime = self.clock.now()
        return now

    async def place(
        self,
        ticket: OrderTicket,
        *,
        client_order_id: str | None = None,
        key: str | None = None,
        account_id: str | None = None,
        user_id: str | None = None,
    ) -> Placed:
        return await self.orders.place_order(
            user_id=user_id or self.user_id,
            account_id=account_id,
            ticket=ticket,
            client_order_id=client_order_id,
            idempotency_key=key,
            now=self.now,
        )

    async def placed(self, ticket: OrderTicket) -> Order:
        return await self.order((await self.place(ticket)).order_id)

    async def order(self, order_id: str) -> Order:
        return await self.reports.get_order(
            user_id=self.user_id, account_id=None, order_id=order_id, now=self.now
        )

    async def cancel(self, order_id: str) -> Order:
        return await self.orders.cancel_order(
            user_id=self.user_id, account_id=None, order_id=order_id, now=self.now
        )

    async def close(self, symbol: str, quantity: str | None = None) -> Placed:
        return await self.positions.close_position(
            user_id=self.user_id,
            account_id=None,
            position_id=symbol,
            quantity=None if quantity is None else Decimal(quantity),
            idempotency_key=None,
            now=self.now,
        )

    async def state(self) -> AccountReport:
        return await self.reports.get_state(user_id=self.user_id, account_id=None, now=self.now)

    async def position(self, symbol: str) -> Position | None:
        found = (await self.state()).positions
        return next((each for each in found if each.symbol == symbol), None)

    async def lease(self) -> Lease:
        lease = await self.leases.acquire("matching")
        assert lease is not None
        return lease

    async def meet(self, quote: Quote) -> int:
        return await self.matching.on_quote(quote=quote, lease=await self.lease(), now=self.now)

    async def verify(self) -> None:
        assert await self.reports.verify() == []


def build_venue(
    database: Database,
    clock: Clock,
    market: FakeMarket,
    *,
    repository: BrokerRepository | None = None,
    policy: Policy = POLICY,
    model: PaperModel | None = None,
    ids: IdSource | None = None,
) -> Venue:
    ids = ids or UuidV7Ids()
    wakes: list[tuple[str, int]] = []
    renewed: list[str] = []
    books = Books(
        repository=repository or BrokerRepository(),
        ledger=Ledger(tables.ledger),
        outbox=Outbox(tables.outbox_table, producer="broker", ids=ids, clock=clock),
        ids=ids,
        wake=lambda stream, sequence: wakes.append((stream, sequence)),
        find_quote=market.find,
    )
    idempotency = Idempotency(tables.idempotency_table, clock=clock)
    ahead = AheadReader(books.repository, books.ledger, idempotency)
    leases = Leases(tables.leases_table, database=database, clock=clock, owner="test")
    accounts = AccountService(
        database=database,
        books=books,
        inbox=Inbox(tables.inbox_table),
        idempotency=idempotency,
        opening_cash_units=100_000,
        currencies=("USD", "EUR"),
        per_user_max=3,
    )
    instruments = FakeInstruments()
    risk = RiskGate(quotes=market, policy=policy)
    paper = PaperVenue(model or PaperModel())
    floor = Floor(venue=paper, risk=risk, policy=policy)
    counter = Counter(
        books=books, quotes=market, instruments=instruments, policy=policy, floor=floor
    )
    return Venue(
        database=database,
        books=books,
        clock=clock,
        market=market,
        accounts=accounts,
        orders=OrderService(
            database=database,
            books=books,
            accounts=accounts,
            idempotency=idempotency,
            counter=counter,
            floor=floor,
            risk=risk,
            ahead=ahead,
        ),
        positions=PositionService(
            database=database,
            books=books,
            accounts=accounts,
            idempotency=idempotency,
            counter=counter,
            floor=floor,
        ),
        matching=MatchingService(
            database=database,
            books=books,
            instruments=instruments,
            leases=leases,
            venue=paper,
            floor=floor,
            ahead=ahead,
        ),
        reports=ReportService(
            database=database,
            books=books,
            accounts=accounts,
            quotes=market,
            instruments=instruments,
            policy=policy,
        ),
        leverage=LeverageService(
            database=database,
            books=books,
            accounts=accounts,
            quotes=market,
            instruments=instruments,
            risk=risk,
            policy=policy,
        ),
        resets=ResetService(
            database=database,
            books=books,
            accounts=accounts,
            idempotency=idempotency,
            quotes=market,
            instruments=instruments,
            venue=paper,
            renew=renewed.append,
        ),
        controls=ControlService(database=database, books=books),
        retention=RetentionService(
            database=database, books=books, leases=leases, keep_events=timedelta(days=30)
        ),
        performance=PerformanceService(
            database=database,
            books=books,
            samples=SampleRepository(),
            accounts=accounts,
            quotes=market,
            leases=leases,
        ),
        margin=MarginService(
            database=database,
            books=books,
            quotes=market,
            instruments=instruments,
            venue=paper,
            risk=risk,
            leases=leases,
        ),
        financing=FinancingService(
            database=database,
            books=books,
            quotes=market,
            instruments=instruments,
            leases=leases,
            policy=policy,
        ),
        renewed=renewed,
        leases=leases,
        wakes=wakes,
    )


@pytest.fixture
def market(clock: FixedClock) -> FakeMarket:
    made = FakeMarket(clock.now)
    made.quote("199.90", "200.00")
    made.quote("1.09990", "1.10000", "DEMO:EURUSD")
    return made


@pytest.fixture
def venue(database: Database, clock: FixedClock, market: FakeMarket) -> Venue:
    return build_venue(database, clock, market)
