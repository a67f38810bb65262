"""The module over a seeded database, served in process with real tokens."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.types import ASGIApp

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.datafeed import tables
from trading_api.modules.datafeed.adapters.bundled import BundledHistory
from trading_api.modules.datafeed.api.udf import build_udf_router
from trading_api.modules.datafeed.api.v1 import build_internal_router, build_router
from trading_api.modules.datafeed.repository import MarketRepository
from trading_api.modules.datafeed.service import DatafeedService
from trading_api.modules.datafeed.tests.builders import ANCHOR
from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import Migrations, upgrade
from trading_api.runtime.http import Access
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import Edge
from trading_api.runtime.http.routing import Handler, ModuleRouter, add_routes
from trading_api.runtime.identity import AUDIENCE, Identity, ServiceTokens
from trading_api.runtime.secrets import PRIVATE_KEY_FILE
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock

PREFIX = "/api/v1/datafeed"
SEEDED_AT = datetime.fromtimestamp(ANCHOR, UTC).replace(hour=8)
NOW = datetime(2025, 11, 22, 1, 2, 3, 456_789, tzinfo=UTC)
MIGRATIONS = Migrations.of_package("datafeed", "trading_api.modules.datafeed")


def a_database(path: Path) -> Database:
    return Database(f"sqlite+aiosqlite:///{path}", schema="datafeed")


def a_service(database: Database) -> DatafeedService:
    return DatafeedService(
        database=database, repository=MarketRepository(), history=BundledHistory()
    )


@pytest.fixture(scope="session")
def seeded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated and seeded SQLite file, made once; copy it before writing."""
    path = tmp_path_factory.mktemp("datafeed") / "seeded.db"

    async def make() -> None:
        database = a_database(path)
        await upgrade(database, MIGRATIONS)
        await a_service(database).seed(now=SEEDED_AT, demo_seed="tests")
        await database.close()

    asyncio.run(make())
    return path


@pytest.fixture
async def database(seeded_file: Path, tmp_path: Path) -> AsyncIterator[Database]:
    path = tmp_path / "datafeed.db"
    shutil.copy(seeded_file, path)
    database = a_database(path)
    yield database
    await database.close()


@pytest.fixture
async def empty_database(database_url: str) -> AsyncIterator[Database]:
    """A migrated database without rows, on each of the two databases."""
    database = Database(database_url, schema="datafeed")
    await upgrade(database, MIGRATIONS)
    yield database
    await database.close()


@pytest.fixture
def market_clock() -> FixedClock:
    return FixedClock(NOW)


@pytest.fixture
async def service(database: Database) -> DatafeedService:
    service = a_service(database)
    assert await service.load()
    return service


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
    service: DatafeedService, settings: PlatformSettings, clock: FixedClock, access: Access
) -> ASGIApp:
    """Serve the module's routes behind the real edge."""
    router = build_router(service=service, clock=clock, access=access)
    router.include(build_udf_router(service=service, clock=clock, access=access), prefix="/udf")
    apps: dict[str, FastAPI] = {}
    hot: dict[tuple[str, str], Handler] = {}
    internal = build_internal_router(service=service, clock=clock)
    served: tuple[tuple[str, str, ModuleRouter], ...] = (
        (PREFIX, PREFIX, router),
        ("", "/internal/v1/datafeed", internal),
    )
    for prefix, mounted, each in served:
        app = apps[mounted] = FastAPI(openapi_url=None, redirect_slashes=False)
        hot |= add_routes(app, each, prefix=prefix)
    shapes = {PREFIX + inner: shape for inner, shape in router.error_shapes.items()}
    identity = Identity(settings=settings, clock=clock)
    return Edge(Dispatch(apps, hot), identity=identity, ids=UuidV7Ids(), error_shapes=shapes)


ClientOf = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def client_of(
    service: DatafeedService, settings: PlatformSettings, market_clock: FixedClock
) -> AsyncIterator[ClientOf]:
    """Make clients: by default one that may read; without scopes one that is nobody."""
    clients: list[httpx.AsyncClient] = []

    def make(
        *scopes: str, access: Access | None = None, module: str | None = None
    ) -> httpx.AsyncClient:
        app = an_app(service, settings, market_clock, access or Access.scope("datafeed:read"))
        headers = {}
        if scopes:
            headers["Authorization"] = f"Bearer {token_of(settings, market_clock, *scopes)}"
        if module:
            tokens = ServiceTokens(settings=settings, module=module, clock=market_clock)
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
def client(client_of: ClientOf) -> Iterator[httpx.AsyncClient]:
    yield client_of("datafeed:read")


assert tables.metadata.tables, "the migrations' tables are declared"
