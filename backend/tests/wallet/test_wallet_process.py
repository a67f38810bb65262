"""The wallet in a process: its parts, the start it refuses, and the command that proves money."""

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from trading_api.app import ProcessApp, create_app
from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.modules.wallet.module import WalletModule
from trading_api.runtime.database import Database
from trading_api.runtime.settings import ConfigurationError, PlatformSettings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token
from trading_api.testkit.migrated import migrate


@pytest.fixture
async def app(
    database_url: str, settings: PlatformSettings, environ: dict[str, str], clock: FixedClock
) -> AsyncIterator[ProcessApp]:
    """A process that hosts the wallet, not started: no bus, no background work."""
    made = create_app(
        {"wallet": WalletModule},
        settings=settings,
        environ={**environ, "WALLET_DATABASE_URL": database_url},
        process_name="wallet_0",
        clock=clock,
    )
    database = made.hosted["wallet"].context.require_database()
    await migrate(database, "wallet")
    yield made
    await database.close()


@pytest.fixture
def database(app: ProcessApp) -> Database:
    return app.hosted["wallet"].context.require_database()


async def test_module_when_built_then_serves_consumes_and_relays(app, database, clock):
    parts = app.hosted["wallet"].parts
    routes = [channel.route for channel in parts.channels["v1"]]
    assert routes == ["balances", "transactions", "transfers"]
    assert parts.outbox is not None
    assert parts.inbox is not None
    consumer = parts.consumers[0]
    assert (consumer.producer, consumer.event) == ("auth", UserRegistered)
    event = UserRegistered(user_id="usr_alice", email="a@example.org", full_name="A")
    envelope = Envelope(
        id="evt_1",
        type=event.TYPE,
        version=1,
        producer="auth",
        key="usr_alice",
        sequence=1,
        occurred_at=clock.now(),
        recorded_at=clock.now(),
        data=event.model_dump(),
    )
    for _ in range(2):
        await consumer.handle(envelope, event)
    async with database.snapshot() as transaction:
        assert await transaction.scalar(text("SELECT count(*) FROM wallet.wallets")) == 1


async def test_verify_command_when_ledger_is_edited_then_exit_65(
    app, database, settings, clock, capsys
):
    token = access_token(settings, clock, scopes=["wallet:trade"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://tests/api/v1/wallet",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        assert (await client.post("/deposit", json={"amount": "5"})).status_code == 201
        assert (await client.get("/openapi.json")).json()["paths"].keys() >= {
            "/api/v1/wallet",
            "/api/v1/wallet/deposit",
            "/api/v1/wallet/withdraw",
            "/api/v1/wallet/transactions",
        }
    parts = app.hosted["wallet"].parts
    verify = next(each for each in parts.commands if each.name == "verify-ledger")
    assert await verify.run([]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "wallet ledger: 0 violations"
    # There is no broker here to ask.
    assert told[0].startswith("not checked: clearing: ")
    async with database.transaction() as transaction:
        await transaction.execute(
            text("UPDATE wallet.ledger_accounts SET balance_minor = 501 WHERE is_customer")
        )
    assert await verify.run([]) == 65
    assert "L3 wal_" in capsys.readouterr().out


def test_module_when_sandbox_in_production_then_start_is_refused(settings, environ):
    with pytest.raises(ConfigurationError, match="WALLET_PAYMENT_RAIL"):
        create_app(
            {"wallet": WalletModule},
            settings=settings.model_copy(update={"environment": "production"}),
            environ={**environ, "WALLET_PAYMENT_RAIL": "sandbox"},
        )
