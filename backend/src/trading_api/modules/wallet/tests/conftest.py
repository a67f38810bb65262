"""A migrated wallet database of each kind, and the service on it."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.wallet import tables
from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.sandbox_rail import SandboxRail
from trading_api.modules.wallet.api.v1 import build_router
from trading_api.modules.wallet.ports import PaymentRail
from trading_api.modules.wallet.repository import WalletRepository
from trading_api.modules.wallet.service import WakeStream, WalletService
from trading_api.modules.wallet.settings import WalletSettings
from trading_api.runtime.database import Database, Idempotency, Inbox, Outbox
from trading_api.runtime.database.migrations import Migrations, upgrade
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.identity import ServiceTokens
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import START, FixedClock
from trading_api.testkit.http import access_token
from trading_api.testkit.http import client_of as client_of_router

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
        await upgrade(made, Migrations.of_package("wallet", "trading_api.modules.wallet"))
        yield made
    finally:
        await made.close()


@pytest.fixture
def wakes() -> Wakes:
    return Wakes()


def make_service(
    database: Database, clock: FixedClock, wakes: WakeStream, rail: PaymentRail
) -> WalletService:
    ids = UuidV7Ids()
    return WalletService(
        database=database,
        repository=WalletRepository(),
        outbox=Outbox(tables.outbox_table, producer="wallet", ids=ids, clock=clock),
        inbox=Inbox(tables.inbox_table),
        idempotency=Idempotency(tables.idempotency_table, clock=clock),
        ids=ids,
        rail=rail,
        currencies=WalletSettings().known_currencies(),
        wake=wakes,
    )


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
    ) -> httpx.AsyncClient:
        service = make_service(database, clock, wakes, rail or SandboxRail())
        cursors = Cursors(b"secret", purpose="wallet.transactions")
        token = None
        if module is not None:
            token = ServiceTokens(settings=settings, module=module, clock=clock).token()
        elif user_id is not None:
            token = access_token(settings, clock, user_id=user_id, scopes=scopes, roles=roles)
        router = build_router(service, clock=clock, cursors=cursors)
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
