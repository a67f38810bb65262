"""A migrated wallet database of each kind, and the service on it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from trading_api.kernel.clock import Clock
from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.sandbox_rail import SandboxRail
from trading_api.modules.wallet.api.v1 import Services, build_router
from trading_api.modules.wallet.domain import WalletLimits
from trading_api.modules.wallet.ports import PaymentRail, RateSource, TradingAccounts
from trading_api.modules.wallet.repository import WalletRepository
from trading_api.modules.wallet.service import (
    ExchangeService,
    OperationsService,
    StatementService,
    Till,
    TransferService,
    WakeStream,
    WalletService,
    WithdrawalPolicy,
)
from trading_api.modules.wallet.settings import WalletSettings
from trading_api.modules.wallet.tests.builders import FakeAccounts, FakeRates
from trading_api.runtime.database import Database, Idempotency, Inbox, Outbox
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import START, FixedClock
from trading_api.testkit.http import access_token
from trading_api.testkit.http import client_of as client_of_router
from trading_api.testkit.migrated import migrate

NOW = START
PREFIX = "/api/v1/wallet"
EVERY_SCOPE = ("wallet:read", "wallet:trade", "wallet:withdraw")


class Wakes:
    """Keeps what was woken, as the hub would be told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def __call__(self, stream: str, sequence: int) -> None:
        self.seen.append((stream, sequence))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, schema="wallet")
    try:
        await migrate(made, "wallet")
        yield made
    finally:
        await made.close()


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


def make_services(
    database: Database,
    clock: Clock,
    wakes: WakeStream,
    rail: PaymentRail | None = None,
    *,
    accounts: TradingAccounts | None = None,
    rates: RateSource | None = None,
    limits: WalletLimits | None = None,
    policy: WithdrawalPolicy | None = None,
    crash_point: Callable[[str], None] = lambda _point: None,
    fee_ppm: int = 0,
) -> Services:
    ids, rail = UuidV7Ids(), rail or SandboxRail()
    idempotency = Idempotency(tables.idempotency_table, clock=clock)
    limits = limits or WalletLimits()
    till = Till(
        database=database,
        repository=WalletRepository(),
        outbox=Outbox(tables.outbox_table, producer="wallet", ids=ids, clock=clock),
        ids=ids,
        book=rail.book,
        currencies=WalletSettings().known_currencies(),
        wake=wakes,
    )
    transfers = TransferService(
        till=till,
        accounts=accounts or FakeAccounts(),
        idempotency=idempotency,
        limits=limits,
        clock=clock,
        crash_point=crash_point,
    )
    return Services(
        wallets=WalletService(
            till=till,
            inbox=Inbox(tables.inbox_table),
            idempotency=idempotency,
            rail=rail,
            limits=limits,
            policy=policy or WithdrawalPolicy(),
        ),
        transfers=transfers,
        exchange=ExchangeService(
            till=till,
            rates=rates or FakeRates(clock),
            idempotency=idempotency,
            limits=limits,
            fee_ppm=fee_ppm,
        ),
        statements=StatementService(till=till),
        operations=OperationsService(till=till, transfers=transfers),
    )


@pytest.fixture
def services(database: Database, clock: FixedClock, wakes: Wakes) -> Services:
    return make_services(database, clock, wakes)


def make_service(
    database: Database, clock: FixedClock, wakes: WakeStream, rail: PaymentRail
) -> WalletService:
    return make_services(database, clock, wakes, rail).wallets


@pytest.fixture
def service(database: Database, clock: FixedClock, wakes: Wakes) -> WalletService:
    return make_service(database, clock, wakes, SandboxRail())


@pytest.fixture
def manual_service(database: Database, clock: FixedClock, wakes: Wakes) -> WalletService:
    return make_service(database, clock, wakes, ManualRail())


ClientOf = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def client_of(
    database: Database, wakes: Wakes, settings: PlatformSettings, clock: FixedClock
) -> AsyncIterator[ClientOf]:
    """Make clients of the module's routes behind the real edge, with real tokens."""
    clients: list[httpx.AsyncClient] = []

    def make(
        user_id: str | None = "usr_alice",
        *,
        scopes=EVERY_SCOPE,
        roles=(),
        rail: PaymentRail | None = None,
        module: str | None = None,
        **parts: Any,
    ) -> httpx.AsyncClient:
        services = make_services(database, clock, wakes, rail, **parts)
        cursors = Cursors(b"secret", purpose="wallet.transactions")
        token = None
        if module is not None:
            token = ServiceTokens(settings=settings, module=module, clock=clock).token()
        elif user_id is not None:
            token = access_token(settings, clock, user_id=user_id, scopes=scopes, roles=roles)
        router = build_router(services, clock=clock, cursors=cursors)
        made = client_of_router(router, prefix=PREFIX, settings=settings, clock=clock, token=token)
        clients.append(made)
        return made

    yield make
    for each in clients:
        await each.aclose()


@pytest.fixture
def client(client_of: ClientOf) -> httpx.AsyncClient:
    """A signed-in customer."""
    return client_of()
