"""The module put together: its parts, the start it refuses, and the command that proves money."""

from typing import Any, cast

import pytest
import structlog
from sqlalchemy import text

from trading_api.contracts.auth import UserRegistered
from trading_api.contracts.envelope import Envelope
from trading_api.kernel.ids import UuidV7Ids
from trading_api.modules.wallet.module import WalletModule
from trading_api.runtime.module import ModuleContext, ModuleParts
from trading_api.runtime.settings import ConfigurationError
from trading_api.runtime.ws import Hub
from trading_api.testkit.http import access_token, client_of


def build(database, settings, clock, **environ: str) -> ModuleParts:
    return WalletModule().build(
        ModuleContext(
            name="wallet",
            instance="wallet_0@test",
            process_name="wallet_0",
            settings=settings,
            environ=environ,
            database=database,
            bus=cast("Any", None),
            clock=clock,
            ids=UuidV7Ids(),
            identity=cast("Any", None),
            peers=cast("Any", None),
            hub=Hub(module="wallet", instance="w1", bus=None, clock=clock),
            log=structlog.get_logger("wallet"),
        )
    )


async def test_module_when_built_then_serves_consumes_and_relays(database, settings, clock):
    parts = build(database, settings, clock)
    assert [channel.route for channel in parts.channels["v1"]] == ["balances", "transactions"]
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


async def test_verify_command_when_ledger_is_edited_then_exit_65(database, settings, clock, capsys):
    parts = build(database, settings, clock)
    token = access_token(settings, clock, scopes=["wallet:trade"])
    async with client_of(
        parts.routers["v1"], prefix="/api/v1/wallet", settings=settings, clock=clock, token=token
    ) as client:
        assert (await client.post("/deposit", json={"amount": "5"})).status_code == 201
    verify = next(each for each in parts.commands if each.name == "verify-ledger")
    assert await verify.run([]) == 0
    assert capsys.readouterr().out == "wallet ledger: 0 violations\n"
    async with database.transaction() as transaction:
        await transaction.execute(
            text("UPDATE wallet.ledger_accounts SET balance_minor = 501 WHERE is_customer")
        )
    assert await verify.run([]) == 65
    assert "L3 wal_" in capsys.readouterr().out


async def test_module_when_sandbox_in_production_then_start_is_refused(database, settings, clock):
    production = settings.model_copy(update={"environment": "production"})
    with pytest.raises(ConfigurationError, match="WALLET_PAYMENT_RAIL"):
        build(database, production, clock, WALLET_PAYMENT_RAIL="sandbox")
