"""A migrated auth database of each kind, and the service on it."""

import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.auth.adapters.sealer import KeySealer
from trading_api.modules.auth.adapters.webauthn_passkeys import WebauthnPasskeys
from trading_api.modules.auth.repository import AuthRepository
from trading_api.modules.auth.service import AuthServices, Desk
from trading_api.modules.auth.tables import outbox_table
from trading_api.modules.auth.tests.builders import (
    Announcements,
    Mails,
    PlainHasher,
    PlainSigner,
    a_policy,
)
from trading_api.runtime.database import Database, Outbox
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.migrated import migrate

MakeService = Callable[..., AuthServices]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, schema="auth", pool_size=10, pool_overflow=10)
    await migrate(made, "auth")
    yield made
    await made.close()


@pytest.fixture
def hasher() -> PlainHasher:
    return PlainHasher()


@pytest.fixture
def signer() -> PlainSigner:
    return PlainSigner()


@pytest.fixture
def announcements() -> Announcements:
    return Announcements()


@pytest.fixture
def mails() -> Mails:
    return Mails()


@pytest.fixture
def make_service(
    database: Database,
    clock: FixedClock,
    ids: UuidV7Ids,
    hasher: PlainHasher,
    signer: PlainSigner,
    announcements: Announcements,
    mails: Mails,
) -> MakeService:
    def make(**changes: Any) -> AuthServices:
        return AuthServices(
            Desk(
                database=database,
                repository=AuthRepository(),
                outbox=Outbox(outbox_table, producer="auth", ids=ids, clock=clock),
                ids=ids,
                hasher=hasher,
                signer=signer,
                announcer=announcements,
                sealer=KeySealer(b"a platform secret for tests"),
                policy=a_policy(**changes),
                random_bytes=os.urandom,
            ),
            mailer=mails,
            passkeys=WebauthnPasskeys(
                site="http://localhost:8000", name="Trading", origins=(), any_port=False
            ),
        )

    return make


@pytest.fixture
def service(make_service: MakeService) -> AuthServices:
    return make_service()
