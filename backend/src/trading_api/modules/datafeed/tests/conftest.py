"""The module over a seeded database, served in process with real tokens."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.types import ASGIApp

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.adapters import bar_formats
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.adapters.calendars import ExchangeCalendars
from trading_api.modules.datafeed.api.bulk import build_bulk_router
from trading_api.modules.datafeed.api.instruments import build_instruments_router
from trading_api.modules.datafeed.api.udf import build_udf_router
from trading_api.modules.datafeed.api.v1 import build_internal_router, build_router
from trading_api.modules.datafeed.domain.mark import OwnExecution
from trading_api.modules.datafeed.ports import ExecutionSource, HistorySource
from trading_api.modules.datafeed.repository import InstrumentRepository, MarketRepository
from trading_api.modules.datafeed.service import (
    DatafeedService,
    ExportService,
    ImportService,
    InstrumentService,
    MarkService,
)
from trading_api.modules.datafeed.tests.builders import ANCHOR
from trading_api.runtime.database import Database, Idempotency, Outbox
from trading_api.runtime.http import Access
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import API_HEADERS, Edge
from trading_api.runtime.http.express import Express, ExpressLane
from trading_api.runtime.http.routing import Handler, ModuleRouter, add_routes, express_routes
from trading_api.runtime.identity import AUDIENCE, Identity, ServiceTokens
from trading_api.runtime.rates import RateLimiter
from trading_api.runtime.secrets import PRIVATE_KEY_FILE
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

PREFIX = "/api/v1/datafeed"
SEEDED_AT = datetime.fromtimestamp(ANCHOR, UTC).replace(hour=8)
NOW = datetime(2025, 11, 22, 1, 2, 3, 456_789, tzinfo=UTC)


def a_database(path: Path) -> Database:
    return Database(f"sqlite+aiosqlite:///{path}", schema="datafeed")


def a_service(database: Database, *, history: HistorySource | None = None) -> DatafeedService:
    return DatafeedService(
        database=database, repository=MarketRepository(), history=history or BundledHistory()
    )


class NoExecutions:
    """An ``ExecutionSource`` of users who never traded."""

    async def list_executions(
        self, *, user_id: str, symbol: str, from_: datetime, to: datetime, limit: int
    ) -> Sequence[OwnExecution]:
        return ()


def an_instrument_service(
    database: Database, market: DatafeedService, clock: FixedClock
) -> InstrumentService:
    return InstrumentService(
        database=database,
        repository=InstrumentRepository(),
        market=market,
        calendars=ExchangeCalendars(),
        outbox=Outbox(tables.outbox_table, producer="datafeed", ids=UuidV7Ids(), clock=clock),
        idempotency=Idempotency(tables.idempotency_table, clock=clock),
    )


@pytest.fixture(scope="session")
def seeded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated and seeded SQLite file, made once; copy it before writing."""
    path = tmp_path_factory.mktemp("datafeed") / "seeded.db"

    async def make() -> None:
        database = a_database(path)
        await migrate(database, "datafeed")
        await a_service(database).seed(now=SEEDED_AT, demo_seed="tests")
        await database.close()

    asyncio.run(make())
    return path


@pytest.fixture
async def empty_database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database without rows, on each of the two databases."""
    database = Database(database_url, schema="datafeed")
    await migrate(database, "datafeed")
    yield database
    await database.close()


@pytest.fixture(scope="session")
def standing_clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
def market_clock(standing_clock: FixedClock) -> FixedClock:
    """The clock of service and apps, back at ``NOW`` for every test."""
    standing_clock.jump((NOW - standing_clock.now()).total_seconds())
    return standing_clock


@pytest.fixture(scope="session")
def service(seeded_file: Path) -> DatafeedService:
    """The service over the seeded database; once loaded it only reads its memory."""

    async def load() -> DatafeedService:
        database = a_database(seeded_file)
        service = a_service(database)
        assert await service.load()
        await database.close()
        return service

    return asyncio.run(load())


@pytest.fixture(scope="session")
def host_settings(
    secrets_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> PlatformSettings:
    local = tmp_path_factory.mktemp("local")
    (local / "secrets").symlink_to(secrets_directory)
    return load_settings(PlatformSettings, {"TRADING_LOCAL_DIR": str(local)})


def token_of(settings: PlatformSettings, clock: FixedClock, *scopes: str) -> str:
    """Return an access token as auth would sign it."""
    key = RSAKey.import_key(
        (settings.secrets_directory / PRIVATE_KEY_FILE).read_bytes(),
        {"use": "sig", "alg": "RS256"},
    )
    key.ensure_kid()
    now = int(clock.now().timestamp())
    claims = {
        "iss": settings.jwt_issuer,
        "aud": AUDIENCE,
        "sub": "usr_tests",
        "sid": "ses_tests",
        "jti": "jti_tests",
        "scopes": list(scopes),
        "iat": now,
        "nbf": now,
        "exp": now + 900,
    }
    header = {"alg": "RS256", "typ": "at+jwt", "kid": str(key.kid)}
    return jwt.encode(header, claims, key, algorithms=["RS256"])


def an_app(
    service: DatafeedService,
    settings: PlatformSettings,
    clock: FixedClock,
    access: Access,
    *,
    hot_paths: bool = True,
    instruments: InstrumentService | None = None,
    executions: ExecutionSource | None = None,
    imports: ImportService | None = None,
    spool: Path = Path("unused"),
    limiter: RateLimiter | None = None,
) -> ASGIApp:
    """Serve the module's routes behind the real edge and the express lane.

    Without hot paths FastAPI itself parses the parameters of every route.
    """
    marks = MarkService(market=service, executions=executions or NoExecutions())
    router = build_router(service=service, marks=marks, clock=clock, access=access)
    udf = build_udf_router(service=service, marks=marks, clock=clock, access=access)
    router.include(udf, prefix="/udf")
    router.include(
        build_instruments_router(
            service=service,
            instruments=instruments
            or an_instrument_service(a_database(Path("unused")), service, clock),
            clock=clock,
            access=access,
        ),
        prefix="",
    )
    unused = a_database(Path("unused"))
    router.include(
        build_bulk_router(
            imports=imports or ImportService(database=unused, market=service, ids=UuidV7Ids()),
            exports=ExportService(market=service),
            clock=clock,
            access=access,
            spool=spool,
            make_writer=bar_formats.writer_of,
            open_source=bar_formats.source_of,
            digest_of=bar_formats.digest_of,
        ),
        prefix="",
    )
    if not hot_paths:
        router.declarations = [
            replace(each, hot=None, express=None) for each in router.declarations
        ]
    apps: dict[str, FastAPI] = {}
    hot: dict[tuple[str, str], Handler] = {}
    internal = build_internal_router(service=service, clock=clock)
    served: tuple[tuple[str, str, ModuleRouter], ...] = (
        (PREFIX, PREFIX, router),
        ("", "/internal/v1/datafeed", internal),
    )
    identity = Identity(settings=settings, clock=clock)
    lane = ExpressLane(identity=identity, headers=API_HEADERS, limiter=limiter)
    for prefix, mounted, each in served:
        app = apps[mounted] = FastAPI(openapi_url=None, redirect_slashes=False)
        hot |= add_routes(app, each, prefix=prefix)
        lane.add(express_routes(each, prefix=prefix))
    shapes = {PREFIX + inner: shape for inner, shape in router.error_shapes.items()}
    edge = Edge(
        Dispatch(apps, hot),
        identity=identity,
        ids=UuidV7Ids(),
        error_shapes=shapes,
        limiter=limiter,
    )
    return Express(edge, lane)


AppOf = Callable[[Access, bool], ASGIApp]
ClientOf = Callable[..., httpx.AsyncClient]


@pytest.fixture(scope="session")
def app_of(
    service: DatafeedService, host_settings: PlatformSettings, standing_clock: FixedClock
) -> AppOf:
    """Apps by access and by whether hot paths are served apart; each is made once."""

    @cache
    def make(access: Access, hot_paths: bool) -> ASGIApp:
        return an_app(service, host_settings, standing_clock, access, hot_paths=hot_paths)

    return make


@pytest.fixture
async def client_of(
    app_of: AppOf,
    service: DatafeedService,
    host_settings: PlatformSettings,
    market_clock: FixedClock,
) -> AsyncIterator[ClientOf]:
    """Make clients: with the scopes given, as another module, or as nobody."""
    clients: list[httpx.AsyncClient] = []
    shared_service = service

    def make(
        *scopes: str,
        access: Access | None = None,
        module: str | None = None,
        hot_paths: bool = True,
        service: DatafeedService | None = None,
        desk: InstrumentService | None = None,
        executions: ExecutionSource | None = None,
    ) -> httpx.AsyncClient:
        access = access or Access.scope("datafeed:read")
        app = app_of(access, hot_paths)
        if service or executions:
            app = an_app(
                service or shared_service,
                host_settings,
                market_clock,
                access,
                instruments=desk,
                executions=executions,
            )
        headers = {}
        if scopes:
            headers["Authorization"] = f"Bearer {token_of(host_settings, market_clock, *scopes)}"
        if module:
            tokens = ServiceTokens(settings=host_settings, module=module, clock=market_clock)
            headers["Authorization"] = f"Bearer {tokens.token()}"
        clients.append(
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app), base_url="http://tests", headers=headers
            )
        )
        return clients[-1]

    yield make
    for each in clients:
        await each.aclose()


@pytest.fixture
def client(client_of: ClientOf) -> httpx.AsyncClient:
    return client_of("datafeed:read")
