"""The wallet's channels on a real socket: snapshot, updates without a hole, recovery, who may."""

from collections.abc import AsyncIterator
from decimal import Decimal

import jsonschema
import pytest

from trading_api.modules.wallet.adapters.manual_rail import ManualRail
from trading_api.modules.wallet.adapters.sandbox_rail import SandboxRail
from trading_api.modules.wallet.tests.conftest import NOW, make_service
from trading_api.modules.wallet.ws.v1 import build_channels
from trading_api.runtime.identity import Identity
from trading_api.runtime.ws import Hub, WebSocketEndpoint
from trading_api.runtime.ws.asyncapi import asyncapi_of
from trading_api.testkit.http import access_token
from trading_api.testkit.ws import SocketClient, asgi_socket

ALICE = "usr_alice"


class Wallets:
    """The service, its channels on an endpoint, and sockets of its users."""

    def __init__(self, database, settings, clock, rail) -> None:
        self.hub = Hub(module="wallet", instance="w1", bus=None, clock=clock)
        self.service = make_service(database, clock, self.hub.wake, rail)
        self.endpoint = WebSocketEndpoint(
            build_channels(self.service, clock=clock),
            hub=self.hub,
            identity=Identity(settings=settings, clock=clock),
            settings=settings,
            clock=clock,
        )
        self._settings, self._clock = settings, clock

    def socket(self, user_id=ALICE, scopes=("wallet:read",)):
        token = access_token(self._settings, self._clock, user_id=user_id, scopes=scopes)
        return asgi_socket(self.endpoint, "/api/v1/wallet/ws", token=token)

    async def deposit(self, amount: str, *, user_id=ALICE, currency="USD"):
        return await self.service.deposit(
            user_id=user_id,
            amount=Decimal(amount),
            currency=currency,
            description="",
            idempotency_key=None,
            now=NOW,
        )

    def ensure_documented(self, client: SocketClient) -> None:
        document = asyncapi_of("wallet", "v1", list(self.endpoint.channels.values()))
        for frame in client.frames:
            message = document["components"]["messages"][frame["type"]]
            schema = {**message["payload"], "components": document["components"]}
            jsonschema.Draft202012Validator(schema).validate(frame)


@pytest.fixture(params=[SandboxRail, ManualRail])
async def wallets(request, database, settings, clock) -> AsyncIterator[Wallets]:
    made = Wallets(database, settings, clock, request.param())
    yield made
    await made.endpoint.close_all()
    assert made.hub.is_idle(), "a subscription outlived its socket"
    await made.hub.stop()


@pytest.mark.parametrize("wallets", [SandboxRail], indirect=True)
async def test_channels_when_money_moves_then_snapshot_and_updates_without_a_hole(wallets):
    await wallets.deposit("10")
    async with wallets.socket() as client:
        opened = await client.subscribe("balances", {})
        assert (opened["status"], opened["topic"], opened["offset"]) == ("ok", "balances:{}", 2)
        await client.subscribe("transactions", {})
        first, second = await client.updates(2)
        assert first["payload"] == [
            {"currency": "USD", "total": "10.00", "held": "0.00", "available": "10.00"}
        ]
        assert [line["running_balance"] for line in second["payload"]] == ["10.00"]
        receipt = await wallets.deposit("5.25")
        await wallets.deposit("1", currency="EUR")
        updates = await client.updates(4)
        assert [update["offset"] for update in updates] == [3, 4, 5, 6]
        assert updates[0]["payload"]["entry_id"] == receipt.entry_id
        assert updates[1]["payload"]["total"] == "15.25"
        assert updates[3]["payload"]["currency"] == "EUR"
        wallets.ensure_documented(client)


@pytest.mark.parametrize("wallets", [SandboxRail], indirect=True)
async def test_channel_when_resumed_then_exactly_what_was_missed(wallets):
    async with wallets.socket() as client:
        opened = await client.subscribe("balances", {})
        await client.updates(1)
    for amount in ("1", "2", "3"):
        await wallets.deposit(amount)
    recover = {"epoch": opened["epoch"], "offset": opened["offset"]}
    async with wallets.socket() as client:
        again = await client.subscribe("balances", {}, recover=recover)
        assert again["recovered"] is True
        totals = [update["payload"]["total"] for update in await client.updates(3)]
        assert totals == ["1.00", "3.00", "6.00"]
    async with wallets.socket() as client:
        fresh = await client.subscribe("balances", {}, recover={**recover, "epoch": "another"})
        assert fresh["recovered"] is False
        snapshot = (await client.updates(1))[0]["payload"]
        assert [balance["total"] for balance in snapshot] == ["6.00"]
        wallets.ensure_documented(client)


@pytest.mark.parametrize("wallets", [ManualRail], indirect=True)
async def test_balances_when_a_withdrawal_waits_then_hold_is_told(wallets):
    first = await wallets.deposit("50")
    service = wallets.service
    async with wallets.socket() as client:
        await client.subscribe("balances", {})
        await client.updates(1)
        await service.settle_funding(funding_id=first.funding_id, operator_id="op", now=NOW)
        await service.withdraw(
            user_id=ALICE,
            amount=Decimal(20),
            currency="USD",
            description="",
            idempotency_key=None,
            now=NOW,
        )
        settled, held = await client.updates(2)
        assert settled["payload"]["available"] == "50.00"
        assert held["payload"] == {
            "currency": "USD",
            "total": "50.00",
            "held": "20.00",
            "available": "30.00",
        }


@pytest.mark.parametrize("wallets", [SandboxRail], indirect=True)
async def test_channels_when_another_user_or_scope_then_nothing_is_seen(wallets):
    await wallets.deposit("10")
    async with wallets.socket("usr_bob") as bob:
        await bob.subscribe("transactions", {})
        assert (await bob.updates(1))[0]["payload"] == []
        await wallets.deposit("10")
        await wallets.deposit("3", user_id="usr_bob")
        update = (await bob.updates(1))[0]
        assert (update["offset"], update["payload"]["amount"]) == (1, "3.00")
    async with wallets.socket(scopes=("datafeed:read",)) as client:
        answer = await client.subscribe("balances", {})
        assert answer["status"] == "error"
    async with wallets.socket() as client:
        answer = await client.subscribe("balances", {"user_id": "usr_bob"})
        assert answer["status"] == "error"
