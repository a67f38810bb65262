"""Auth's routes behind the real edge, with real keys and Argon2, without a server."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from fastapi import FastAPI

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.auth.adapters.argon2_pool import Argon2Pool
from trading_api.modules.auth.adapters.bus_announcer import BusAnnouncer
from trading_api.modules.auth.adapters.file_mailer import FileMailer
from trading_api.modules.auth.adapters.file_signer import FileSigner
from trading_api.modules.auth.adapters.sealer import KeySealer
from trading_api.modules.auth.api.cookies import Cookies
from trading_api.modules.auth.api.parts import Parts
from trading_api.modules.auth.api.v1 import internal_routes, public_routes
from trading_api.modules.auth.module import passkeys_of, policy_of
from trading_api.modules.auth.repository import AuthRepository
from trading_api.modules.auth.service import AuthServices, Desk
from trading_api.modules.auth.settings import AuthSettings
from trading_api.modules.auth.tables import outbox_table
from trading_api.runtime.bus import Bus
from trading_api.runtime.database import Database, Outbox
from trading_api.runtime.http.cursors import Cursors
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.edge import Edge
from trading_api.runtime.http.routing import add_routes
from trading_api.runtime.identity import Identity
from trading_api.runtime.secrets import load_secret_key
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

PREFIX = "/api/v1/auth"
BROWSER = {
    "Origin": "http://trading.test",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Dest": "empty",
    "User-Agent": "Mozilla/5.0 (X11; Linux) Firefox/140.0",
}


@dataclass(frozen=True)
class Host:
    """Auth, ready to be asked; its bus is away."""

    edge: Edge
    service: AuthServices
    database: Database
    identity: Identity
    hasher: Argon2Pool


@asynccontextmanager
async def run_host(
    settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[Host]:
    """Compose auth as its module does, on a migrated SQLite file."""
    own = load_settings(AuthSettings, {**environ, "ADMIN_EMAIL": "boss@example.com"})
    secret_key = load_secret_key(settings.secrets_directory, environ)
    database = Database(settings.database_url_of("auth", environ), schema="auth")
    await migrate(database, "auth")
    identity = Identity(settings=settings, clock=clock)
    ids = UuidV7Ids()
    hasher = Argon2Pool(parallel=own.password_parallel, queue_max=own.password_queue_max)
    service = AuthServices(
        Desk(
            database=database,
            repository=AuthRepository(),
            outbox=Outbox(outbox_table, producer="auth", ids=ids, clock=clock),
            ids=ids,
            hasher=hasher,
            signer=FileSigner(settings.secrets_directory, clock=clock),
            announcer=BusAnnouncer(bus=Bus(settings.bus_url()), identity=identity),
            sealer=KeySealer(secret_key),
            policy=policy_of(own, settings),
            random_bytes=os.urandom,
        ),
        mailer=FileMailer(settings.trading_local_dir / "mail", sender="no-reply@trading.test"),
        passkeys=passkeys_of(own, settings),
    )
    cookies = Cookies(access_name=identity.access_cookie, is_secure=settings.uses_secure_cookies)
    public, internal = FastAPI(openapi_url=None), FastAPI(openapi_url=None)
    routes = public_routes(
        Parts(
            services=service,
            identity=identity,
            cookies=cookies,
            clock=clock,
            user_cursors=Cursors(secret_key, purpose="auth.users"),
            audit_cursors=Cursors(secret_key, purpose="auth.audit"),
        )
    )
    add_routes(public, routes, prefix=PREFIX)
    add_routes(internal, internal_routes(service, clock=clock), prefix="")
    dispatch = Dispatch({PREFIX: public, "/internal/v1/auth": internal}, {})
    edge = Edge(dispatch, identity=identity, ids=ids, error_shapes={})
    try:
        yield Host(edge, service, database, identity, hasher)
    finally:
        hasher.close()
        await database.close()


def client_of(host: Host, **headers: str) -> httpx.AsyncClient:
    """Make a client of a host, at a fixed address."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=host.edge, client=("192.0.2.1", 50000)),
        base_url="http://trading.test",
        headers=headers,
        timeout=10,
    )
