"""Fan-out of one price to many WebSocket clients: our hub against the usual loop, in one run.

Every variant serves the same updates to the same clients from a process of its own on one core,
the clients run in this process on another. Rounds of the variants are interleaved; the number to
compare is CPU time of the server per delivered frame.

    python -m benchmarks.fanout --clients 500 --repeats 3
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import orjson
import uvicorn
import uvloop
from pydantic import BaseModel

from benchmarks.harness import Goal, Measured, report
from trading_api.kernel.clock import SystemClock
from trading_api.runtime.http import Access, RequestModel
from trading_api.runtime.identity import Identity
from trading_api.runtime.settings import PlatformSettings, load_settings
from trading_api.runtime.ws import Hub, PriceChannel, WebSocketEndpoint
from trading_api.runtime.ws.protocol import UVICORN_OPTIONS

VARIANTS = {
    "naive": "ConnectionManager: await send_json to each",
    "send_text": "hub, plain ASGI send",
    "raw": "hub, prebuilt frames",
    "raw_coalesced": "hub, prebuilt frames, messages of one tick in one write",
    "raw_stalled": "hub, prebuilt frames, a tenth of the clients never reads",
}
PER_TICK = {"raw_coalesced": 20}
SYMBOL_COUNT = 20
FILLING = "FILLING"
MESSAGE = {"symbol": "DEMO:AAPL", "bid": "430.46", "ask": "430.48", "last": "430.47",
           "volume": 120_400, "change": "1.25", "change_percent": "0.29"}  # fmt: skip


# Server


class Params(RequestModel):
    symbols: tuple[str, ...]


class Quote(BaseModel):
    symbol: str


class QuotesChannel(PriceChannel[Params]):
    """Quotes."""

    route: ClassVar = "quotes"
    params: ClassVar = Params
    update: ClassVar = Quote
    access: ClassVar = Access.public()

    def feeds(self, params: Params) -> Sequence[str]:
        return [f"quotes:{symbol}" for symbol in params.symbols]

    async def snapshot(self, principal: Any, params: Params) -> Sequence[Any]:
        return []


class ConnectionManager:
    """What tutorials do."""

    def __init__(self) -> None:
        self.sends: list[Callable[[Any], Awaitable[None]]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        await send({"type": "websocket.send", "text": '{"type":"quotes.subscribe.response"}'})
        self.sends.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async def broadcast(self, message: Any) -> None:
        for send in list(self.sends):
            # Starlette's send_json.
            text = json.dumps(message, separators=(",", ":"), ensure_ascii=False)
            await send({"type": "websocket.send", "text": text})


async def serve(variant: str, path: str, *, ticks: int, rate: float, clients: int) -> None:
    per_tick = PER_TICK.get(variant, 1)
    manager = ConnectionManager()
    settings = load_settings(PlatformSettings, {"TRADING_LOCAL_DIR": tempfile.gettempdir()})
    clock = SystemClock()
    hub = Hub(module="bench", instance="bench", clock=clock)
    endpoint = WebSocketEndpoint(
        [QuotesChannel()],
        hub=hub,
        identity=Identity(settings=settings, clock=clock),
        settings=settings,
        clock=clock,
    )
    options = dict(UVICORN_OPTIONS)
    if variant in ("naive", "send_text"):
        options["ws"] = "websockets-sansio"
    app: Any = manager if variant == "naive" else endpoint
    server = uvicorn.Server(
        uvicorn.Config(app, uds=path, lifespan="off", log_config=None, access_log=False, **options)
    )
    serving = asyncio.create_task(server.serve())

    def ready() -> int:
        return len(manager.sends) if variant == "naive" else hub.counters.subscriptions

    while ready() < clients:
        await asyncio.sleep(0.01)
    names = [f"S{number}" for number in range(SYMBOL_COUNT)]
    topic = "quotes:" + json.dumps({"symbols": names}, separators=(",", ":"))
    await asyncio.sleep(0.3)
    if variant == "raw_stalled":
        await fill_buffers(hub, stalled=clients // 10)
    conflated = hub.counters.conflated
    cpu, started = time.process_time(), time.monotonic()
    # The clients' core must keep up, or the server is measured parking.
    rate = rate * 5 / per_tick if per_tick > 5 else rate
    number = 0
    for tick in range(ticks):
        for _ in range(per_tick):
            symbol = names[number % SYMBOL_COUNT]
            number += 1
            payload = {**MESSAGE, "symbol": symbol, "at": time.monotonic_ns()}
            if variant == "naive":
                await manager.broadcast(
                    {"type": "quotes.update", "payload": {"topic": topic, "payload": payload}}
                )
            else:
                hub.publish(f"quotes:{symbol}", orjson.dumps(payload))
        late = started + (tick + 1) / rate - time.monotonic()
        await asyncio.sleep(max(0.0, late))
    await asyncio.sleep(0.2)
    seconds = time.monotonic() - started
    cpu = time.process_time() - cpu
    counters = hub.counters
    readers = clients - (clients // 10 if variant == "raw_stalled" else 0)
    delivered = ticks * per_tick * readers
    result = {
        "cpu_us": 1e6 * cpu / delivered,
        "seconds": seconds,
        "delivered": delivered,
        "conflated": counters.conflated - conflated,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(serving, 30)


async def fill_buffers(hub: Hub, *, stalled: int) -> None:
    """Publish what only the stalled ones want, until the hub parks it for each of them."""
    payload = orjson.dumps({"filling": "x" * 16_384})
    while hub.counters.conflated < stalled:
        hub.publish(f"quotes:{FILLING}", payload)
        await asyncio.sleep(0.01)


# Clients


class Client(asyncio.Protocol):
    """Makes the handshake, subscribes, counts frames; one of them reads the times."""

    def __init__(self, hub: "Clients", *, reads_times: bool, stalls: bool) -> None:
        self._hub = hub
        self._reads_times = reads_times
        self._stalls = stalls
        self._buffer = b""
        self._is_open = False
        self._answered = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            self._buffer += data
            if b"\r\n\r\n" in self._buffer:
                self._is_open = True
                self._buffer = self._buffer.partition(b"\r\n\r\n")[2]
                hub = self._hub
                self.transport.write(hub.subscribe_filled if self._stalls else hub.subscribe)
            return
        self._buffer += data
        self._take_frames()

    def _take_frames(self) -> None:
        buffer, position = self._buffer, 0
        while len(buffer) - position >= 4:
            length, head = buffer[position + 1], 2
            if length == 126:
                length, head = int.from_bytes(buffer[position + 2 : position + 4], "big"), 4
            end = position + head + length
            if end > len(buffer):
                break
            if not self._answered:
                self._answered = True
                self._hub.answered += 1
                if self._stalls:
                    self.transport.pause_reading()
            else:
                self._hub.frames += 1
                if self._reads_times:
                    at = orjson.loads(buffer[position + head : end])["payload"]["payload"]["at"]
                    self._hub.latencies.append((time.monotonic_ns() - at) / 1e6)
            position = end
        self._buffer = buffer[position:]


class Clients:
    def __init__(self) -> None:
        names = [f"S{number}" for number in range(SYMBOL_COUNT)]
        self.subscribe = _subscribe(names)
        self.subscribe_filled = _subscribe([*names, FILLING])
        self.answered = 0
        self.frames = 0
        self.latencies: list[float] = []


def _subscribe(names: list[str]) -> bytes:
    body = orjson.dumps({"type": "quotes.subscribe", "payload": {"symbols": names}})
    # Masked with zeros: the text stays as it is.
    return b"\x81\xfe" + len(body).to_bytes(2, "big") + b"\0\0\0\0" + body


async def measure(variant: str, arguments: argparse.Namespace) -> dict[str, float]:
    per_tick = PER_TICK.get(variant, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.fanout", "--serve", variant, "--path", path,
            *("--clients", str(arguments.clients), "--ticks", str(arguments.ticks)),
            *("--rate", str(arguments.rate)),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        while not Path(path).exists():
            await asyncio.sleep(0.02)
        clients = Clients()
        stalled = arguments.clients // 10 if variant == "raw_stalled" else 0
        transports = []
        loop = asyncio.get_running_loop()
        for number in range(arguments.clients):
            transport, _ = await loop.create_unix_connection(
                lambda number=number: Client(  # type: ignore[misc]
                    clients, reads_times=number % 50 == 49, stalls=number < stalled
                ),
                path,
            )
            transports.append(transport)
        result = json.loads(await process.stdout.readline())
        await asyncio.sleep(0.2)
        expected = arguments.ticks * per_tick * (arguments.clients - stalled)
        result["arrived"] = clients.frames / expected
        times = sorted(clients.latencies)
        result["p50_ms"], result["p99_ms"] = times[len(times) // 2], times[len(times) * 99 // 100]
        for transport in transports:
            transport.abort()
        process.terminate()
        await process.wait()
    return dict(result)


async def compare(arguments: argparse.Namespace) -> None:
    runs: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.repeats):
        for variant in VARIANTS:
            runs[variant].append(await measure(variant, arguments))
    measured = {
        variant: Measured(
            text,
            statistics.median(run["cpu_us"] for run in runs[variant]),
            1e6 / statistics.median(run["cpu_us"] for run in runs[variant]),
            _spread([run["cpu_us"] for run in runs[variant]]),
        )
        for variant, text in VARIANTS.items()
    }

    def ratio(above: str, below: str) -> float:
        return measured[above].cpu_us / measured[below].cpu_us

    def middle(variant: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[variant])

    goals: list[Goal] = [
        ("naive loop : one prebuilt frame per client and message", ratio("naive", "raw"), ">= 4"),
        ("naive loop : plain ASGI send", ratio("naive", "send_text"), ""),
        ("plain ASGI send : prebuilt frame", ratio("send_text", "raw"), ""),
        ("coalesced deliveries/s on one core, millions", measured["raw_coalesced"].rate / 1e6,
         ">= 1"),
        ("share that arrives beside stalled readers", middle("raw_stalled", "arrived"), ">= 0.99"),
        ("p99 beside stalled readers : without them",
         middle("raw_stalled", "p99_ms") / middle("raw", "p99_ms"), "<= 1.1"),
        *((f"p99 ms, {VARIANTS[variant]}", middle(variant, "p99_ms"), "") for variant in VARIANTS),
        ("updates conflated for each stalled reader",
         middle("raw_stalled", "conflated") / max(1, arguments.clients // 10), "> 0"),
        ("share that arrives, the least of all variants",
         min(middle(variant, "arrived") for variant in VARIANTS), "1"),
    ]  # fmt: skip
    title = f"Fan-out to {arguments.clients} clients, CPU per delivered frame"
    report(title, list(measured.values()), goals)


def _spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--ticks", type=int, default=200, help="publishing turns per round")
    parser.add_argument("--rate", type=float, default=40, help="turns per second")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if arguments.serve:
        _pin(0)
        work: Any = serve(
            arguments.serve,
            arguments.path,
            ticks=arguments.ticks,
            rate=arguments.rate,
            clients=arguments.clients,
        )
    else:
        _pin(1)
        work = compare(arguments)
    uvloop.run(work)


def _pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


if __name__ == "__main__":
    main()
