"""Operations, authentication and limits of a socket, in-process."""

import asyncio
import json
from typing import Any

import pytest
from tests.ws.conftest import MakeWorld, World

from trading_api.runtime.ws import Limits
from trading_api.testkit.ws import HandshakeRefusedError, SocketClient, SocketClosedError

ORDERS = {"accountId": "acc_1"}


async def test_subscribe_when_prices_then_answer_snapshot_and_updates(
    world: World, client: SocketClient
) -> None:
    world.ticks.values["A"] = 1
    answer = await client.subscribe("ticks", {"symbols": ["A"]})
    assert answer == {
        "status": "ok",
        "message": "subscribed",
        "topic": 'ticks:{"symbols":["A"]}',
        "epoch": world.hub.price_epoch,
    }
    world.ticks.tick("A", 2)
    snapshot, update = await client.updates(2)
    topic = answer["topic"]
    assert snapshot == {"topic": topic, "snapshot": True, "payload": {"symbol": "A", "value": 1}}
    assert update == {"topic": topic, "payload": {"symbol": "A", "value": 2}}


async def test_subscribe_when_events_then_offset_and_previous_offset_chain(
    world: World, client: SocketClient
) -> None:
    world.journal.append("acc_1", "orders")
    world.journal.append("acc_1", "fills")
    answer = await client.subscribe("orders", ORDERS)
    assert (answer["status"], answer["epoch"], answer["offset"]) == ("ok", "e1", 2)
    (snapshot,) = await client.updates(1)
    assert snapshot["payload"] == [{"text": "n1"}]
    assert (snapshot["snapshot"], snapshot["offset"], snapshot["epoch"]) == (True, 2, "e1")
    world.journal.append("acc_1", "fills")
    world.hub.wake("test:acc_1", world.journal.append("acc_1", "orders"))
    (update,) = await client.updates(1)
    assert (update["offset"], update["previous_offset"]) == (4, 2)
    world.hub.wake("test:acc_1", world.journal.append("acc_1", "orders"))
    (update,) = await client.updates(1)
    assert (update["offset"], update["previous_offset"]) == (5, 4)
    assert "recovered" not in answer


async def test_wake_when_two_clients_share_a_stream_then_the_table_is_read_once(
    world: World, client: SocketClient
) -> None:
    async with world.socket() as other:
        await client.subscribe("orders", ORDERS)
        await other.subscribe("orders", ORDERS)
        await other.subscribe("fills", ORDERS)
        await client.updates(1)
        await other.updates(2)
        reads = world.journal.reads
        for _ in range(3):
            world.journal.append("acc_1", "orders")
        world.hub.wake("test:acc_1", world.journal.append("acc_1", "fills"))
        assert [each["offset"] for each in await client.updates(3)] == [1, 2, 3]
        assert [each["offset"] for each in await other.updates(4)] == [1, 2, 3, 4]
        assert world.journal.reads == reads + 1


async def test_subscribe_when_another_users_account_then_same_answer_as_for_a_missing_one(
    client: SocketClient,
) -> None:
    foreign = await client.subscribe("orders", {"accountId": "acc_9"})
    missing = await client.subscribe("orders", {"accountId": "acc_0"})
    assert foreign["status"] == missing["status"] == "error"
    assert foreign["error"]["status"] == 404
    for answer in (foreign, missing):
        answer["error"].pop("request_id")
    assert foreign == missing


async def test_subscribe_when_scope_is_missing_then_refused(world: World) -> None:
    async with world.socket(token=world.tokens.token(scopes=())) as client:
        answer = await client.subscribe("ticks", {"symbols": ["A"]})
        assert answer["error"]["status"] == 403


async def test_subscribe_when_parameters_are_wrong_then_fields_are_named(
    client: SocketClient,
) -> None:
    answer = await client.subscribe("orders", {"accountId": 5, "extra": 1})
    assert answer["error"]["status"] == 422
    assert {each["field"] for each in answer["error"]["errors"]} == {"accountId", "extra"}
    answer = await client.subscribe("orders", ORDERS, recover={"epoch": "e1"})
    assert [each["field"] for each in answer["error"]["errors"]] == ["recover.offset"]


async def test_subscribe_when_twice_then_counted_once_and_state_anew(
    world: World, client: SocketClient
) -> None:
    world.ticks.values["A"] = 1
    await client.subscribe("ticks", {"symbols": ["A"]})
    again = await client.subscribe("ticks", {"symbols": ["A"]})
    assert again["status"] == "ok"
    assert world.hub.counters.subscriptions == 1
    world.ticks.tick("A", 2)
    assert [each.get("snapshot") for each in await client.updates(3)] == [True, True, None]
    assert (await client.unsubscribe("ticks", {"symbols": ["A"]}))["status"] == "ok"
    assert world.hub.is_idle()


async def test_unsubscribe_when_unknown_then_error_and_the_socket_stays(
    client: SocketClient,
) -> None:
    answer = await client.unsubscribe("ticks", {"symbols": ["A"]})
    assert answer["status"] == "error"
    assert answer["error"]["code"] == "platform.websocket.subscription_not_found"
    assert await client.request("ping") == {}


async def test_unsubscribe_when_done_then_updates_end(world: World, client: SocketClient) -> None:
    await client.subscribe("ticks", {"symbols": ["A"]})
    world.ticks.tick("A", 1)
    await client.unsubscribe("ticks", {"symbols": ["A"]})
    world.ticks.tick("A", 2)
    await client.request("ping")
    values = [f["payload"]["payload"]["value"] for f in client.frames if "update" in f["type"]]
    assert values == [1]


async def test_operation_when_unknown_then_error_frame_with_the_id(client: SocketClient) -> None:
    await client.send("nothing.subscribe", id_=7)
    frame = await client.next()
    assert (frame["type"], frame["id"]) == ("error", 7)
    assert frame["payload"]["code"] == "platform.websocket.operation_unknown"


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        (["{", "[1", "nul"], 1007),
        ([b"\x00", b"{}", b""], 1003),
        (['{"payload":{}}', '["type"]', '{"type":"ping","id":{}}'], 1003),
    ],
)
async def test_messages_when_three_are_unreadable_then_closed(
    client: SocketClient, messages: list[str | bytes], code: int
) -> None:
    for message in messages:
        await client.link.send(message)
    closed = await client.closed()
    assert closed.code == code
    assert [each["type"] for each in client.frames] == ["error"] * 3


async def test_message_when_too_long_then_closed_1009(client: SocketClient) -> None:
    await client.link.send(json.dumps({"type": "ping", "payload": {"x": "é" * 33_000}}))
    assert (await client.closed()).code == 1009


async def test_messages_when_more_than_twenty_a_second_then_closed_4429(
    world: World, client: SocketClient
) -> None:
    for _ in range(20):
        await client.request("ping")
    world.clock.advance(0.1)
    for _ in range(3):
        await client.send("ping")
    assert (await client.closed()).code == 4429
    assert [each["type"] for each in client.frames].count("pong") == 22


async def test_topics_when_over_the_bound_then_refused(make_world: MakeWorld) -> None:
    world = make_world(limits=Limits(topics_max=2))
    async with world.socket() as client:
        for symbol in ("A", "B"):
            assert (await client.subscribe("ticks", {"symbols": [symbol]}))["status"] == "ok"
        refused = await client.subscribe("ticks", {"symbols": ["C"]})
        assert refused["error"]["code"] == "platform.websocket.topics_exceeded"
        await client.unsubscribe("ticks", {"symbols": ["A"]})
        assert (await client.subscribe("ticks", {"symbols": ["C"]}))["status"] == "ok"


async def test_sockets_when_over_the_users_bound_then_closed_1008(make_world: MakeWorld) -> None:
    world = make_world(limits=Limits(sockets_per_user_max=1))
    async with world.socket() as first, world.socket() as second:
        assert (await second.closed()).code == 1008
        assert await first.request("ping") == {}
        async with world.socket(token=world.tokens.token("usr_b")) as other:
            assert await other.request("ping") == {}


async def test_handshake_when_full_then_503_instead_of_a_socket(make_world: MakeWorld) -> None:
    world = make_world(limits=Limits(sockets_max=1))
    async with world.socket():
        with pytest.raises(HandshakeRefusedError) as refused:
            async with world.socket():
                pass
        assert refused.value.status == 503
        assert refused.value.headers["retry-after"] == "10"
        assert json.loads(refused.value.body)["code"] == "platform.module.unavailable"
    async with world.socket() as client:
        assert await client.request("ping") == {}


# Authentication


async def test_handshake_when_bearer_in_subprotocol_then_trading_v1_is_chosen(
    world: World,
) -> None:
    offered = ["trading.v1", f"bearer.{world.tokens.token()}"]
    async with world.socket(subprotocols=offered) as client:
        assert client.subprotocol == "trading.v1"
        assert (await client.subscribe("ticks", {"symbols": []}))["status"] == "ok"


@pytest.mark.parametrize("origin", [None, "https://evil.example", "null"])
async def test_handshake_when_cookie_from_elsewhere_then_403_before_the_accept(
    world: World, origin: str | None
) -> None:
    headers = [("host", "localhost:8000"), ("cookie", f"access_token={world.tokens.token()}")]
    if origin is not None:
        headers.append(("origin", origin))
    with pytest.raises(HandshakeRefusedError) as refused:
        async with world.socket(headers=headers):
            pass
    assert refused.value.status == 403


async def test_handshake_when_cookie_from_our_origin_then_signed_in(world: World) -> None:
    headers = [
        ("host", "localhost:8000"),
        ("origin", "http://localhost:8000"),
        ("cookie", f"access_token={world.tokens.token()}"),
    ]
    async with world.socket(headers=headers) as client:
        assert (await client.subscribe("orders", ORDERS))["status"] == "ok"


async def test_handshake_when_carriers_disagree_then_400(world: World) -> None:
    with pytest.raises(HandshakeRefusedError) as refused:
        async with world.socket(
            token=world.tokens.token("usr_a"),
            subprotocols=[f"bearer.{world.tokens.token('usr_b')}"],
        ):
            pass
    assert refused.value.status == 400


async def test_handshake_when_token_is_not_accepted_then_error_and_4401(world: World) -> None:
    async with world.socket(token="x.y.z") as client:
        assert (await client.next())["payload"]["status"] == 401
        assert (await client.closed()).code == 4401


async def test_auth_when_sent_as_first_message_then_signed_in(world: World) -> None:
    async with world.socket(headers=[]) as client:
        refused = await client.subscribe("ticks", {"symbols": []})
        assert refused["error"]["status"] == 401
        answer = await client.request("auth", {"token": world.tokens.token()})
        assert answer["status"] == "ok"
        assert (await client.subscribe("ticks", {"symbols": []}))["status"] == "ok"
        world.clock.advance(11)
        world.endpoint.sweep()
        assert await client.request("ping") == {}


async def test_auth_when_never_sent_then_closed_4408_after_ten_seconds(world: World) -> None:
    async with world.socket(headers=[]) as client:
        await client.request("ping")
        world.clock.advance(9.9)
        world.endpoint.sweep()
        await client.request("ping")
        world.clock.advance(0.1)
        world.endpoint.sweep()
        assert (await client.closed()).code == 4408


async def test_auth_when_listening_to_what_is_public_then_not_needed(world: World) -> None:
    async with world.socket(headers=[]) as client:
        await client.subscribe("public-ticks", {"symbols": ["A"]})
        world.clock.advance(60)
        world.endpoint.sweep()
        assert await client.request("ping") == {}


async def test_token_when_expired_then_warned_and_closed_4401_after_the_grace(
    world: World,
) -> None:
    async with world.socket(token=world.tokens.token(ttl_seconds=60)) as client:
        await client.subscribe("ticks", {"symbols": ["A"]})
        world.clock.advance(60)
        world.endpoint.sweep()
        frame = await client.next()
        assert frame == {"type": "auth.expired", "payload": {"grace_seconds": 25.0}}
        refused = await client.subscribe("ticks", {"symbols": ["B"]})
        assert refused["error"]["status"] == 401
        world.ticks.tick("A", 1)
        await client.updates(1)
        world.clock.advance(25)
        world.endpoint.sweep()
        assert (await client.closed()).code == 4401


async def test_refresh_when_in_time_then_the_socket_goes_on(world: World) -> None:
    async with world.socket(token=world.tokens.token(ttl_seconds=60)) as client:
        world.clock.advance(60)
        world.endpoint.sweep()
        await client.next()
        answer = await client.request("auth.refresh", {"token": world.tokens.token()})
        assert answer["status"] == "ok"
        world.clock.advance(30)
        world.endpoint.sweep()
        assert await client.request("ping") == {}


async def test_refresh_when_another_user_then_refused(world: World, client: SocketClient) -> None:
    answer = await client.request("auth.refresh", {"token": world.tokens.token("usr_b")})
    assert answer["error"]["code"] == "platform.websocket.principal_changed"


async def test_refresh_when_scope_is_gone_then_its_subscriptions_end(
    world: World, client: SocketClient
) -> None:
    await client.subscribe("ticks", {"symbols": ["A"]})
    await client.request("auth.refresh", {"token": world.tokens.token(scopes=())})
    frame = await client.next()
    assert frame["type"] == "ticks.unsubscribe.response"
    assert frame["payload"]["error"]["status"] == 403
    assert world.hub.is_idle()


async def test_session_when_revoked_then_closed_by_the_next_sweep(
    world: World, client: SocketClient
) -> None:
    async with world.socket(token=world.tokens.token(session_id="ses_b")) as other:
        await client.subscribe("ticks", {"symbols": ["A"]})
        await other.request("ping")
        end = int(world.clock.now().timestamp()) + 900
        world.identity.revoke("ses_a", until_seconds=end)
        world.endpoint.sweep()
        assert (await client.closed()).code == 4401
        assert await other.request("ping") == {}


# The end


async def test_disconnect_when_subscribed_then_everything_is_freed(world: World) -> None:
    async with world.socket() as client:
        await client.subscribe("ticks", {"symbols": ["A", "B"]})
        await client.subscribe("orders", ORDERS)
        await client.subscribe("fills", ORDERS)
        assert world.hub.counters.subscriptions == 3
        assert set(world.hub.listened()) == {"ticks:A", "ticks:B"}
    assert world.hub.is_idle()
    assert world.hub.counters.subscriptions == 0
    assert not world.endpoint.connections


async def test_disconnect_when_in_the_middle_of_a_snapshot_then_everything_is_freed(
    world: World,
) -> None:
    async with world.socket() as client:
        world.journal.snapshot_gate.shut()
        await client.send("orders.subscribe", ORDERS)
        await world.journal.snapshot_gate.reached.wait()
        world.journal.snapshot_gate.open()
    assert world.hub.is_idle()


async def test_stop_when_sockets_are_open_then_1012_and_no_new_ones(world: World) -> None:
    async with world.socket() as client:
        await client.subscribe("ticks", {"symbols": ["A"]})
        world.ticks.tick("A", 1)
        reading = asyncio.create_task(client.closed())
        await world.endpoint.close_all()
        closed = await reading
        assert closed.code == 1012
        assert closed.reason.startswith("restart; come back in ")
        with pytest.raises(HandshakeRefusedError) as refused:
            async with world.socket():
                pass
        assert refused.value.status == 503


async def test_snapshot_when_the_module_fails_then_500_without_details_and_the_socket_stays(
    world: World, client: SocketClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(world.endpoint.channels["orders"], "snapshot", fail)
    answer = await client.subscribe("orders", ORDERS)
    assert answer["error"]["status"] == 500
    assert "secret" not in json.dumps(answer)
    assert answer["error"]["request_id"].startswith("req_")
    assert world.hub.is_idle()
    assert world.hub.counters.errors == 1


async def test_snapshot_when_too_slow_then_503(make_world: MakeWorld) -> None:
    world = make_world(limits=Limits(snapshot_timeout_seconds=0.01))
    world.journal.snapshot_gate.shut()
    async with world.socket() as client:
        answer = await client.subscribe("orders", ORDERS)
        assert answer["error"]["status"] == 503
        assert world.hub.is_idle()


async def test_closed_error_names_code_and_reason() -> None:
    assert str(SocketClosedError(4401, "why")) == "4401 why"
