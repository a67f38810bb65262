import asyncio
import os
import socket
import time

import pytest

from trading_api.runtime.bus import Bus, BusCommandError, BusUnavailableError
from trading_api.runtime.bus.bus import QUEUE_SIZE_MAX
from trading_api.testkit.bus import BusServer, eventually, started_bus


class Heard:
    """A callback that keeps what it heard."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []

    def __call__(self, channel: str, payload: bytes) -> None:
        self.messages.append((channel, payload))

    def __len__(self) -> int:
        return len(self.messages)


async def test_publish_when_subscribed_by_name_and_by_pattern_then_both_hear_in_order(
    bus: Bus,
) -> None:
    by_name, by_pattern = Heard(), Heard()
    bus.subscribe("price:AAPL", by_name)
    bus.subscribe("price:*", by_pattern)
    await bus.settle()
    for number in range(5000):
        bus.publish("price:AAPL", b"%d" % number)
    bus.publish("price:MSFT", b"x\r\n\x00")
    await eventually(lambda: len(by_pattern) == 5001)
    assert by_name.messages == [("price:AAPL", b"%d" % number) for number in range(5000)]
    assert by_pattern.messages == [*by_name.messages, ("price:MSFT", b"x\r\n\x00")]


async def test_publish_when_another_process_listens_then_it_hears(
    bus: Bus, shared_bus_server: BusServer
) -> None:
    other, heard = await started_bus(shared_bus_server), Heard()
    other.subscribe("a", heard)
    await other.settle()
    bus.publish("a", b"1")
    await eventually(lambda: len(heard) == 1)
    await other.stop()


async def test_close_when_one_of_two_subscriptions_closes_then_the_other_still_hears(
    bus: Bus,
) -> None:
    first, second = Heard(), Heard()
    closed = bus.subscribe("a", first)
    bus.subscribe("a", second)
    closed.close()
    closed.close()
    await bus.settle()
    bus.publish("a", b"1")
    await eventually(lambda: len(second) == 1)
    assert not first.messages


async def test_count_subscribers_when_closed_then_zero(bus: Bus) -> None:
    subscription = bus.subscribe("a", Heard())
    await bus.settle()
    assert await bus.count_subscribers(["a", "b"]) == {"a": 1, "b": 0}
    subscription.close()
    await bus.settle()
    assert await bus.count_subscribers(["a"]) == {"a": 0}
    assert await bus.count_subscribers([]) == {}


async def test_callback_when_it_raises_then_the_others_still_hear(bus: Bus) -> None:
    def fail(_channel: str, _payload: bytes) -> None:
        raise RuntimeError("planted")

    heard = Heard()
    bus.subscribe("a", fail)
    bus.subscribe("a", heard)
    await bus.settle()
    bus.publish("a", b"1")
    bus.publish("a", b"2")
    await eventually(lambda: len(heard) == 2)


async def test_call_when_refused_then_command_error_and_the_connection_lives(bus: Bus) -> None:
    with pytest.raises(BusCommandError):
        await bus.call("NO-SUCH-COMMAND")
    assert await bus.call("PING") == b"PONG"
    replies = await bus.calls([("SET", "k", 1), ("INCR", "k", "surplus"), ("GET", "k")])
    assert (replies[0], replies[2]) == (b"OK", b"1")
    assert isinstance(replies[1], Exception)


async def test_bus_when_the_server_never_comes_then_publishing_neither_fails_nor_grows() -> None:
    bus = Bus("unix:///nowhere/bus.sock")
    await bus.start()
    heard = Heard()
    bus.subscribe("a", heard)
    for _ in range(QUEUE_SIZE_MAX + 10):
        bus.publish("a", b"1")
    with pytest.raises(BusUnavailableError):
        await bus.call("PING")
    assert await bus.count_subscribers(["a", "b"]) == {"a": 1, "b": 0}
    assert not bus.is_up
    assert len(bus._queue) == QUEUE_SIZE_MAX
    await bus.stop()


async def test_bus_when_killed_then_down_new_epoch_and_subscriptions_come_back(
    bus_server: BusServer,
) -> None:
    bus, heard = await started_bus(bus_server), Heard()
    states: list[bool] = []
    bus.on_state(states.append)
    bus.subscribe("a", heard)
    bus.subscribe("p:*", heard)
    epoch = bus.epoch
    bus_server.kill()
    await eventually(lambda: not bus.is_up)
    assert bus.epoch != epoch
    bus.publish("a", b"while away")
    bus_server.start()
    began = time.monotonic()
    await bus.wait_until_up()
    assert time.monotonic() - began < 5
    await bus.settle()
    bus.publish("a", b"1")
    bus.publish("p:q", b"2")
    await eventually(lambda: heard.messages[-2:] == [("a", b"1"), ("p:q", b"2")])
    assert states == [False, True]
    await bus.stop()


async def test_call_when_the_server_is_frozen_then_fails_in_time_and_recovers(
    bus_server: BusServer,
) -> None:
    bus = await started_bus(bus_server)
    bus_server.freeze()
    began = time.monotonic()
    with pytest.raises(BusUnavailableError):
        await bus.call("PING")
    assert time.monotonic() - began < 0.5
    await eventually(lambda: not bus.is_up)
    began = time.monotonic()
    with pytest.raises(BusUnavailableError):
        await bus.call("PING")
    assert time.monotonic() - began < 0.05
    bus_server.thaw()
    await asyncio.wait_for(bus.wait_until_up(), 5)
    assert await bus.call("PING") == b"PONG"
    await bus.stop()


async def test_call_when_cancelled_then_later_replies_still_fit_their_calls(bus: Bus) -> None:
    waiting = asyncio.create_task(bus.call("BLPOP", "nothing", 1, timeout_seconds=5))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await bus.call("ECHO", "mine", timeout_seconds=5) == b"mine"


async def test_bus_when_the_other_end_speaks_nonsense_then_stays_down_and_tries_again() -> None:
    answered: list[bool] = []

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered.append(True)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(answer, sock=listener)
    bus = Bus(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
    await bus.start()
    await eventually(lambda: len(answered) >= 2)
    assert not bus.is_up
    await bus.stop()
    server.close()
    await server.wait_closed()


async def test_server_when_its_test_session_ends_then_it_ends_too(bus_server: BusServer) -> None:
    await bus_server.wait_until_ready()
    pid = bus_server.pid
    assert bus_server._process is not None
    bus_server._process.terminate()
    bus_server._process.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("turns", range(1, 5))
async def test_call_when_the_loop_was_held_up_then_the_answer_that_came_counts(
    turns: int, bus: Bus
) -> None:
    await bus.call("PING")
    waiting = [asyncio.create_task(work) for work in (bus.call("PING"), bus.settle())]
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - the point of it
    assert await asyncio.gather(*waiting) == [b"PONG", None]


async def test_call_when_one_blocks_then_the_others_are_answered(bus: Bus) -> None:
    blocking = asyncio.create_task(bus.call("BLPOP", "list", 5, timeout_seconds=6))
    await asyncio.gather(*(bus.call("PING", timeout_seconds=5) for _ in range(100)))
    await bus.call("RPUSH", "list", "mine")
    assert await blocking == [b"list", b"mine"]


async def test_bus_when_it_has_to_sign_in_then_by_the_url(bus_server: BusServer) -> None:
    bus = await started_bus(bus_server)
    await bus.call("CONFIG", "SET", "requirepass", "p@ss")
    signed_in = Bus(f"unix://default:p%40ss@{bus_server.socket}?db=3")
    refused = Bus(f"unix://:wrong@{bus_server.socket}")
    heard = Heard()
    signed_in.subscribe("a", heard)
    await refused.start()
    await signed_in.start()
    await asyncio.wait_for(signed_in.wait_until_up(), 5)
    signed_in.publish("a", b"1")
    await signed_in.call("SET", "k", "3")
    assert await bus.call("GET", "k") is None
    await eventually(lambda: len(heard) == 1)
    assert not refused.is_up
    for each in (signed_in, refused, bus):
        await each.stop()


async def test_bus_when_its_connections_are_cut_then_they_are_made_anew(bus: Bus) -> None:
    heard, epoch = Heard(), bus.epoch
    bus.subscribe("a", heard)
    await bus.settle()
    await bus.call("CLIENT", "KILL", "TYPE", "pubsub")
    await eventually(lambda: bus.epoch != epoch)
    await asyncio.wait_for(bus.wait_until_up(), 5)
    epoch = bus.epoch
    await bus.call("CLIENT", "KILL", "TYPE", "normal")
    await eventually(lambda: bus.epoch != epoch)
    await asyncio.wait_for(bus.wait_until_up(), 5)
    bus.publish("a", b"1")
    await eventually(lambda: len(heard) == 1)


@pytest.mark.parametrize("url", ["http://x", "", "redis://h?db=x"])
def test_bus_when_its_url_is_unreadable_then_value_error(url: str) -> None:
    with pytest.raises(ValueError):
        Bus(url)
