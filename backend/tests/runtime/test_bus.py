import asyncio
import os
import socket
import time

import pytest

from trading_api.runtime.bus import Bus, BusCommandError, BusUnavailableError
from trading_api.runtime.bus.bus import QUEUE_SIZE_MAX
from trading_api.runtime.bus.link import Address
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


async def test_bus_when_the_other_end_speaks_nonsense_then_stays_down() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    listener = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(answer, sock=listener)
    bus = Bus(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
    await bus.start()
    with pytest.raises(BusUnavailableError):
        await bus.open_link()
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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/bus.sock", ("/run/bus.sock", "localhost", 6379, False, "", "", 0)),
        (
            "unix://u:p%40@/run/bus.sock?db=3",
            ("/run/bus.sock", "localhost", 6379, False, "u", "p@", 3),
        ),
        ("redis://cache:7000/2", ("", "cache", 7000, False, "", "", 2)),
        ("rediss://:secret@cache", ("", "cache", 6379, True, "", "secret", 0)),
    ],
)
def test_parse_when_a_known_scheme_then_the_address(url: str, expected: tuple[object, ...]) -> None:
    assert Address.parse(url) == Address(*expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["http://x", "unix://", "redis://h/notanumber", ""])
def test_parse_when_unreadable_then_value_error(url: str) -> None:
    with pytest.raises(ValueError):
        Address.parse(url)
