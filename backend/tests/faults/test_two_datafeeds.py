"""Two instances of datafeed behind nginx: the leader is killed, and nobody misses a bar."""

import asyncio
import contextlib
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import pytest
from sqlalchemy.engine import URL
from websockets.exceptions import InvalidHandshake

from trading_api.testkit.bus import eventually
from trading_api.testkit.fleet import Fleet, free_port
from trading_api.testkit.postgresql import create_database, drop_database, session_server
from trading_api.testkit.ws import SocketClosedError, network_socket

pytestmark = [pytest.mark.fleet, pytest.mark.xdist_group("fleet"), pytest.mark.timeout(120)]

CONFIG = """
nginx: {port: 8000}
servers:
  datafeed: {modules: [datafeed], instances: 2}
"""
BARS = {"symbol": "SIM:ALPHA", "resolution": "1S"}
QUOTES = {"symbols": ["SIM:ALPHA"]}
TAKEOVER_SECONDS = 8
"""A lease lasts five; the provider is asked for its instruments and what was missed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The fleet of the two, and its database."""

    fleet: Fleet
    database: URL

    async def leader(self) -> str:
        """Return the name of the instance that feeds the provider's market."""
        url = self.database.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = await asyncpg.connect(url)
        try:
            found: str = await connection.fetchval(
                "SELECT owner FROM datafeed.leases WHERE name = 'provider-simulated'"
            )
        finally:
            await connection.close()
        return found

    async def history(self, from_: int, to: int) -> dict[int, dict[str, Any]]:
        """Return the seconds that start in [from_, to), by their start in milliseconds."""
        query: dict[str, str | int] = {"from_time": from_, "to_time": to, **BARS}
        async with self.fleet.client() as client:
            answer = await client.get("/api/v1/datafeed/bars", params=query)
        assert answer.status_code == 200, answer.text
        return {bar["time"]: bar for bar in answer.json()["bars"]}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The smallest fleet with two instances: nginx, the bus, datafeed twice."""
    with contextlib.ExitStack() as stack:
        server, name = session_server(), f"datafeeds_{os.getpid()}"
        database = create_database(server, name)
        stack.callback(drop_database, server, name)
        environ = {
            "ENABLED_MODULES": "datafeed",
            "DATABASE_URL": database.render_as_string(hide_password=False),
            "DATAFEED_PUBLIC": "true",
            "DATAFEED_PROVIDERS": "simulated",
            "DATAFEED_SIMULATED_SYMBOLS": "ALPHA",
            "DATAFEED_HISTORY_HOURS": "1",
        }
        fleet = Fleet(tmp_path_factory.mktemp("pair"), free_port(), environ)
        config = fleet.local / "config.yaml"
        config.write_text(CONFIG)
        stack.callback(fleet.stop)
        done = fleet.manage("start", str(config))
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{fleet.logs()}"
        yield Pair(fleet, database)


@dataclass(slots=True)
class Stay:
    """One connection: bars by their start, as last seen there; quotes by time of arrival."""

    epoch: str
    bars: dict[int, dict[str, Any]] = field(default_factory=dict)
    times: list[int] = field(default_factory=list)
    quotes: int = 0
    recovered: bool | None = None


class Reader:
    """A client of bars and quotes that comes back when its connection ends."""

    def __init__(self, fleet: Fleet) -> None:
        self._url = f"{fleet.ws_url}/api/v1/datafeed/ws"
        self.stays: list[Stay] = []

    @property
    def now(self) -> Stay:
        return self.stays[-1]

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            with contextlib.suppress(SocketClosedError, InvalidHandshake, OSError, EOFError):
                await self._stay()
            await asyncio.sleep(0.1)

    async def _stay(self) -> None:
        async with network_socket(self._url, open_timeout=10, proxy=None) as socket:
            recover = {"epoch": self.now.epoch, "offset": 0} if self.stays else None
            answer = await socket.subscribe("bars", BARS, recover=recover)
            assert answer["status"] == "ok", answer
            stay = Stay(answer["epoch"], recovered=answer.get("recovered"))
            self.stays.append(stay)
            assert (await socket.subscribe("quotes", QUOTES))["status"] == "ok"
            while True:
                update = (await socket.next())["payload"]
                if update["topic"].startswith("quotes"):
                    stay.quotes += 1
                    continue
                bar = update["payload"]
                stay.bars[bar["time"]] = bar
                stay.times.append(bar["time"])


def public_name(instance: str) -> str:
    """Return what the epochs of an instance begin with."""
    return hashlib.blake2b(instance.encode(), digest_size=8).hexdigest()


@contextlib.asynccontextmanager
async def readers_of_both(fleet: Fleet) -> AsyncIterator[list[Reader]]:
    """Two readers, each on an instance of its own."""
    readers: dict[str, Reader] = {}
    tasks: list[asyncio.Task[None]] = []
    try:
        for _ in range(8):
            reader = Reader(fleet)
            task = asyncio.create_task(reader.run())
            tasks.append(task)
            await eventually(lambda reader=reader: bool(reader.stays))  # type: ignore[misc]
            if readers.setdefault(reader.now.epoch, reader) is not reader:
                task.cancel()
            if len(readers) == 2:
                break
        assert len(readers) == 2, "nginx sends everybody to the same instance"
        yield list(readers.values())
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


async def test_leader_when_killed_then_the_other_leads_and_no_bar_is_missed(pair: Pair):
    await wait_for_seconds_left(TAKEOVER_SECONDS + 6)
    async with readers_of_both(pair.fleet) as readers:
        await eventually(lambda: all(len(each.now.bars) >= 3 for each in readers))
        leader = await pair.leader()
        stays = {each.now.epoch.partition(".")[0]: each for each in readers}
        led = stays[public_name(leader)]
        (follower,) = (each for each in readers if each is not led)
        os.kill(int(leader.rpartition("@")[2].split(":")[1]), signal.SIGKILL)
        killed_at = time.monotonic()
        seen = max(follower.now.bars)

        async def is_taken_over() -> bool:
            return await pair.leader() != leader

        await eventually(is_taken_over, within_seconds=TAKEOVER_SECONDS)
        # Both see what the new leader tells, and the fresh process hears of it as well.
        await eventually(
            lambda: all(
                len(each.stays) > 0 and max(each.now.bars, default=0) > seen + 4_000
                for each in readers
            ),
            within_seconds=TAKEOVER_SECONDS + 6,
        )
        assert time.monotonic() - killed_at < 2 * TAKEOVER_SECONDS
        # Who was cut off is told that it starts anew; who wasn't noticed nothing but a pause.
        assert len(follower.stays) == 1
        assert len(led.stays) >= 2
        assert led.now.recovered is False
        assert led.now.epoch != led.stays[0].epoch
        assert all(each.now.quotes for each in readers)
    for reader in readers:
        for stay in reader.stays:
            assert stay.times == sorted(stay.times), "a bar came after a newer one"
            await ensure_history_agrees(pair, stay)


async def ensure_history_agrees(pair: Pair, stay: Stay) -> None:
    """What a connection saw of each bar last is what every instance answers, no more, no less."""
    times = sorted(stay.bars)
    closed = {time: stay.bars[time] for time in times[:-1]}
    found: list[dict[int, dict[str, Any]]] = []

    async def agrees() -> bool:
        # Four in a row, by turns: the fresh process answers as well.
        found[:] = [await pair.history(times[0] // 1_000, times[-1] // 1_000) for _ in range(4)]
        return all(each == closed for each in found)

    try:
        await eventually(agrees, within_seconds=5)
    except TimeoutError:
        differing = [
            (time, closed.get(time), each.get(time))
            for each in found
            for time in sorted(each.keys() | closed.keys())
            if each.get(time) != closed.get(time)
        ]
        pytest.fail(f"of {len(closed)} bars differ: {differing[:4]}")


async def wait_for_seconds_left(seconds: int) -> None:
    """Wait for a minute with so many seconds left: one that ends unled is the provider's own."""
    left = 60 - time.time() % 60
    if left < seconds:
        await asyncio.sleep(left + 0.5)
