"""From a tick in one process to the frame at a client of another: bus, hub, nginx.

A publisher hands prices to its hub; they go over the bus to a process that serves sockets behind
nginx. Most clients only read, in a process of their own; twenty tell when a frame came, half of
them the first in the fan-out's order and half the last. What is measured is the way alone:
datafeed makes its quotes and bars in steps of half a second, whatever the way costs.

    python -m benchmarks.ticks --clients 1,10,100,1000 --ticks 200
"""

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import psutil
import uvicorn
import uvloop

from benchmarks.fanout import MESSAGE, Client, Clients, QuotesChannel
from benchmarks.harness import BACKEND, Goal, Measured, folder, program, report
from benchmarks.plots import save_plot
from trading_api.kernel.clock import SystemClock
from trading_api.manager.binaries import find_nginx
from trading_api.runtime.bus import Bus
from trading_api.runtime.identity import Identity
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.runtime.ws import Hub, WebSocketEndpoint
from trading_api.runtime.ws.protocol import UVICORN_OPTIONS
from trading_api.testkit.bus import BusServer

TIMED = 20
FEED = "quotes:S0"
PARTS = ("hub and sockets", "nginx", "publisher", "bus")


# Processes


async def serve(path: str, url: str) -> None:
    """Serve sockets whose prices come over the bus."""
    bus = Bus(url)
    await bus.start()
    settings = load_settings(PlatformSettings, {"TRADING_LOCAL_DIR": str(Path(path).parent)})
    clock = SystemClock()
    endpoint = WebSocketEndpoint(
        [QuotesChannel()],
        hub=Hub(module="bench", instance="serve", clock=clock, bus=bus),
        identity=Identity(settings=settings, clock=clock),
        settings=settings,
        clock=clock,
    )
    config = uvicorn.Config(
        endpoint, uds=path, lifespan="off", log_config=None, access_log=False, **UVICORN_OPTIONS
    )
    await uvicorn.Server(config).serve()


async def publish(url: str) -> None:
    """Publish as many ticks as each line of the input says, at its rate, then answer."""
    bus = Bus(url)
    await bus.start()
    await bus.wait_until_up()
    hub = Hub(module="bench", instance="publish", clock=SystemClock(), bus=bus)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        ticks, rate = line.split()
        started = time.monotonic()
        for tick in range(int(ticks)):
            hub.publish(FEED, orjson.dumps({**MESSAGE, "at": time.monotonic_ns()}))
            await asyncio.sleep(max(0.0, started + (tick + 1) / float(rate) - time.monotonic()))
        sys.stdout.write("done\n")
        sys.stdout.flush()
    await bus.stop()


class Reader(asyncio.Protocol):
    """A client that subscribes and then only reads."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._is_open = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(_handshake())

    def data_received(self, data: bytes) -> None:
        if not self._is_open and b"\r\n\r\n" in data:
            self._is_open = True
            self._transport.write(_subscribe())
        self._crowd.received += len(data)
        if self._is_open and b".response" in data:
            self._crowd.answered += 1


class Crowd:
    """What the readers of a process counted."""

    def __init__(self) -> None:
        self.received = 0
        self.answered = 0


async def crowd(path: str, count: int) -> None:
    """Hold connections until the input ends."""
    own = Crowd()
    loop = asyncio.get_running_loop()
    kept = [await loop.create_unix_connection(lambda: Reader(own), path) for _ in range(count)]
    while own.answered < count:
        await asyncio.sleep(0.01)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.readline)
    for transport, _ in kept:
        transport.abort()


def _handshake() -> bytes:
    return (
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


def _subscribe() -> bytes:
    body = orjson.dumps({"type": "quotes.subscribe", "payload": {"symbols": ["S0"]}})
    # Masked with zeros: the text stays as it is.
    return b"\x81" + bytes([0x80 | len(body)]) + b"\0\0\0\0" + body


def _nginx_config(where: Path) -> Path:
    """Write a front that proxies sockets as ours does."""
    user = f"user {os.environ.get('USER', 'root')};" if os.geteuid() == 0 else ""
    config = where / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {where}/nginx.pid; {user}"
        f"\nerror_log {where}/error.log; events {{ worker_connections 8192; }}\n"
        "http { access_log off;\n"
        f"client_body_temp_path {where}/t1; proxy_temp_path {where}/t2;\n"
        f"fastcgi_temp_path {where}/t3; uwsgi_temp_path {where}/t4; scgi_temp_path {where}/t5;\n"
        f"upstream ours {{ server unix:{where}/serve; }}\n"
        f"server {{ listen unix:{where}/front backlog=4096; location / {{ proxy_pass http://ours;"
        " proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
        " proxy_set_header Connection upgrade; proxy_set_header Host $http_host;"
        " proxy_read_timeout 1h; } } }\n"
    )
    return config


# Measuring


class Stage:
    """The processes between a tick and a client, and what they used."""

    def __init__(self, where: Path, pids: dict[str, Sequence[int]], publisher: Any) -> None:
        self.front = str(where / "front")
        self._pids = pids
        self._publisher = publisher

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of each part so far."""
        return {name: sum(_cpu_of(pid) for pid in pids) for name, pids in self._pids.items()}

    async def tick(self, count: int, rate: float) -> None:
        """Publish so many ticks."""
        self._publisher.stdin.write(f"{count} {rate}\n".encode())
        # The bus logs there as well.
        while (line := await self._publisher.stdout.readline()) != b"done\n":
            assert line, "the publisher ended"


def _cpu_of(pid: int) -> float:
    """Return a process's CPU seconds: to the nanosecond where the kernel tells, else to 10 ms."""
    threads = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
    if threads:
        return sum(int(each.read_text().split()[0]) for each in threads) / 1e9
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@contextlib.asynccontextmanager
async def staged() -> AsyncIterator[Stage]:
    """Start the bus, the process of the sockets, nginx and the publisher."""
    async with folder() as where, contextlib.AsyncExitStack() as stack:
        bus = BusServer(keeps_data=False)
        bus.start()
        stack.callback(bus.remove)
        await bus.wait_until_ready()
        own = [sys.executable, "-m", "benchmarks.ticks", "--url", bus.url, "--path"]
        command = [*own, str(where / "serve"), "--work", "serve"]
        server = stack.enter_context(program(command, {}, where / "serve"))
        nginx = [str(find_nginx(os.environ)), "-c", str(_nginx_config(where)), "-p", str(where)]
        master = stack.enter_context(program(nginx, {}, where / "front"))
        workers = [each.pid for each in psutil.Process(master).children()]
        publisher = await _child([*own, "", "--work", "publish"])
        stack.push_async_callback(_end, publisher)
        pids = {
            "hub and sockets": (server,),
            "nginx": workers,
            "publisher": (publisher.pid,),
            "bus": (bus.pid,),
        }
        yield Stage(where, pids, publisher)


async def _child(command: Sequence[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=BACKEND,
        env={**os.environ, "PYTHONPATH": f"{BACKEND / 'src'}:{BACKEND}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    await process.wait()


async def measure(stage: Stage, count: int, *, ticks: int, rate: float) -> dict[str, float]:
    """Connect so many clients, publish, and return latencies and CPU of each part."""
    clients = Clients()
    clients.subscribe = _subscribe()
    loop = asyncio.get_running_loop()
    timed = min(count, TIMED)
    transports = []

    async def connect(number: int) -> None:
        for _ in range(number):
            transport, _ = await loop.create_unix_connection(
                lambda: Client(clients, reads_times=True, stalls=False), stage.front
            )
            transports.append(transport)
        while clients.answered < len(transports):
            await asyncio.sleep(0.01)

    await connect(timed - timed // 2)
    others = None
    if count > timed:
        own = [sys.executable, "-m", "benchmarks.ticks", "--work", "crowd", "--path", stage.front]
        others = await _child([*own, "--clients", str(count - timed)])
        assert others.stdout is not None
        assert await others.stdout.readline() == b"ready\n"
    await connect(timed // 2)
    # The first ones find nothing ready yet.
    await stage.tick(5, rate)
    await asyncio.sleep(0.2)
    clients.latencies.clear()
    clients.frames = 0
    before = stage.cpu()
    await stage.tick(ticks, rate)
    await asyncio.sleep(0.3)
    used = {name: seconds - before[name] for name, seconds in stage.cpu().items()}
    times = sorted(clients.latencies)
    for transport in transports:
        transport.abort()
    if others is not None:
        await _end(others)
    await asyncio.sleep(0.2)
    result = {name: 1e6 * seconds / ticks for name, seconds in used.items()}
    result |= {
        "arrived": clients.frames / (ticks * timed),
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
    }
    return result


def _subscribers(count: int) -> str:
    return f"{count:,} subscriber{'s' * (count > 1)}"


async def compare(arguments: argparse.Namespace) -> None:
    counts = [int(each) for each in arguments.clients.split(",")]
    load = os.getloadavg()[0]
    runs: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
    async with staged() as stage:
        for _ in range(arguments.repeats):
            for count in counts:
                found = await measure(stage, count, ticks=arguments.ticks, rate=arguments.rate)
                runs[count].append(found)

    def middle(count: int, name: str) -> float:
        return statistics.median(run[name] for run in runs[count])

    def total(run: dict[str, float]) -> float:
        return max(1e-3, sum(run[part] for part in PARTS))

    measured = []
    for count in counts:
        totals = [total(run) for run in runs[count]]
        cost = statistics.median(totals)
        spread = (max(totals) - min(totals)) / cost
        # All processes between tick and client, for each frame that leaves.
        measured.append(Measured(_subscribers(count), cost / count, 1e6 / cost, spread))
    goals: list[Goal] = []
    for count in counts:
        goal = "<= 10 when quiet" if count == 1_000 else ""
        goals.append((f"p50 ms, {_subscribers(count)}", middle(count, "p50"), ""))
        goals.append((f"p99 ms, {_subscribers(count)}", middle(count, "p99"), goal))
    for part in PARTS:
        goals.append((f"CPU µs a tick, {part}, {counts[-1]:,} subscribers",
                      middle(counts[-1], part), ""))  # fmt: skip
    if len(counts) > 1:
        last, one = measured[-1].cpu_us, measured[-2].cpu_us
        name = f"CPU of a frame, {counts[-1]:,} subscribers : {counts[-2]:,}"
        goals.append((name, last / one, "<= 1.1"))
    arrived = min(middle(count, "arrived") for count in counts)
    goals.append(("share that arrives, the least of all", arrived, "1"))
    report(
        "A tick by bus, hub and nginx to WebSocket clients: CPU of all of them per frame, ticks/s",
        measured,
        goals,
    )
    sys.stdout.write(f"load when it began: {load:.1f}\n")
    if arguments.plots and len(counts) > 1:
        save_plot(
            arguments.plots / "subscribers.svg",
            title="CPU of a tick against subscribers",
            x_label="subscribers",
            y_label="CPU µs a tick",
            lines={
                part: [(count, max(middle(count, part), 1.0)) for count in counts] for part in PARTS
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", default="1,10,100,1000", help="numbers of them, by comma")
    parser.add_argument("--ticks", type=int, default=200, help="of each round")
    parser.add_argument("--rate", type=float, default=20, help="ticks per second")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plots", type=Path, help="folder for the plot")
    parser.add_argument("--work", choices=("serve", "publish", "crowd"), help=argparse.SUPPRESS)
    parser.add_argument("--path", default="", help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    work: Any
    match arguments.work:
        case "serve":
            work = serve(arguments.path, arguments.url)
        case "publish":
            work = publish(arguments.url)
        case "crowd":
            work = crowd(arguments.path, int(arguments.clients))
        case _:
            work = compare(arguments)
    uvloop.run(work)


if __name__ == "__main__":
    main()
