"""What everybody else feels while fifty people sign in at once: auth's other requests meanwhile.

python -m benchmarks.logins [--seconds 10]

Half of the time nobody signs in, half of the time fifty sign in again and again, in turns; all the
while somebody signed in asks for their profile, a request with a token and a database behind it.
"""

import argparse
import asyncio
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.harness import folder, get
from benchmarks.http import call, ours, sign_in

PEOPLE = 50
PAUSE_SECONDS = 0.002
TURNS = 4
PASSWORD = "a long enough pass phrase"


async def run(seconds: float, goal_ms: float) -> bool:
    """Measure and print; return whether the goal is reached."""
    async with folder() as where:
        with ours(where) as (_pid, socket):
            headers = await sign_in(socket)
            people = [f"person{number}@example.com" for number in range(PEOPLE)]
            for email in people:
                body = {"email": email, "password": PASSWORD, "full_name": ""}
                await call(socket, "POST", "/api/v1/auth/register", body)
            request = get("/api/v1/auth/me", headers=headers)
            await ask(socket, request, 0.3)
            quiet: list[float] = []
            busy: list[float] = []
            count = 0
            for _ in range(TURNS):
                quiet += await ask(socket, request, seconds / TURNS / 2)
                is_over = asyncio.Event()
                logins = [asyncio.create_task(log_in(socket, each, is_over)) for each in people]
                try:
                    busy += await ask(socket, request, seconds / TURNS / 2)
                finally:
                    is_over.set()
                    count += sum(await asyncio.gather(*logins))
    return report(quiet, busy, logins_a_second=count / (seconds / 2), goal_ms=goal_ms)


async def ask(socket: Path, request: bytes, seconds: float) -> list[float]:
    """Ask again and again over one connection; return how long each answer took, in seconds."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    found = []
    try:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            started = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head[:15], head
            lowered = head.lower()
            start = lowered.index(b"content-length:") + 15
            await reader.readexactly(int(lowered[start : lowered.index(b"\r\n", start)]))
            found.append(time.perf_counter() - started)
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        writer.close()
    return found


async def log_in(socket: Path, email: str, is_over: asyncio.Event) -> int:
    """Sign in again and again until it is over; return how often."""
    count = 0
    while not is_over.is_set():
        body = {"email": email, "password": PASSWORD}
        await call(socket, "POST", "/api/v1/auth/login", body)
        count += 1
    return count


def report(
    quiet: list[float], busy: list[float], *, logins_a_second: float, goal_ms: float
) -> bool:
    """Print the tables; return whether the goal is reached."""
    table = Table(title=f"GET /auth/me beside {PEOPLE} people who sign in")
    for column in ("", "p50 ms", "p99 ms", "max ms", "requests"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in (("nobody signs in", quiet), (f"{PEOPLE} at once", busy)):
        table.add_row(
            name,
            f"{statistics.median(found) * 1e3:.1f}",
            f"{percentile(found, 0.99) * 1e3:.1f}",
            f"{max(found) * 1e3:.1f}",
            str(len(found)),
        )
    p99 = percentile(busy, 0.99) * 1e3
    console = Console(width=110)
    console.print(table)
    console.print(
        f"{logins_a_second:.1f} sign-ins a second; p99 meanwhile {p99:.1f} ms, goal < {goal_ms:g}"
    )
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}"
    )
    return p99 < goal_ms


def percentile(found: list[float], part: float) -> float:
    """Return the value that this part of them doesn't exceed."""
    return sorted(found)[min(len(found) - 1, int(len(found) * part))]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--goal-ms", type=float, default=100.0, help="p99 that still passes")
    options = parser.parse_args()
    sys.exit(0 if asyncio.run(run(options.seconds, options.goal_ms)) else 1)


if __name__ == "__main__":
    main()
