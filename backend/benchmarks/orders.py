"""Orders a second, in process and over HTTP, beside pgbench running the statements of an order.

python -m benchmarks.orders [--seconds 5] [--in-flight 8,64,256]

Every order is a market order with all checks on: idempotency key, account lock, risk, execution,
position, balanced postings with their chain, events, facts. pgbench inserts an order, its
execution and two postings and updates two balances, each client in transactions of its own, on the
same server with fsync on. SQLite writes through to disk too, and is what HTTP is measured on. After
the runs the broker's own checks must find nothing.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.harness import BACKEND, find_pgbench, program, served
from benchmarks.http import call, nginx_config
from trading_api.kernel.clock import SystemClock
from trading_api.manager.binaries import find_nginx
from trading_api.modules.broker.domain.instrument import Quote
from trading_api.modules.broker.tests.builders import BUY, SELL, FakeMarket, a_ticket
from trading_api.modules.broker.tests.conftest import Venue, build_venue
from trading_api.runtime.database import Database
from trading_api.runtime.database.migrations import upgrade
from trading_api.runtime.database.revisions import Migrations
from trading_api.runtime.secrets import ensure_secrets
from trading_api.testkit.postgresql import create_database, durable_server

PEER_CLIENTS = 8
MODULES = ("auth", "datafeed", "broker")

_TABLES = """
CREATE TABLE b_orders (id bigserial PRIMARY KEY, account int, symbol text, side text, quantity int,
  price bigint, status text, at timestamptz DEFAULT now());
CREATE TABLE b_executions (id bigserial PRIMARY KEY, order_id bigint, price bigint, quantity int);
CREATE TABLE b_postings (id bigserial PRIMARY KEY, account int, amount bigint);
CREATE TABLE b_balances (account int PRIMARY KEY, balance bigint);
INSERT INTO b_balances SELECT n, 0 FROM generate_series(0, 1000) n;
"""

_SCRIPT = r"""
\set account random(1, 1000)
BEGIN;
INSERT INTO b_orders (account, symbol, side, quantity, price, status)
  VALUES (:account, 'DEMO:AAPL', 'BUY', 1, 20000, 'FILLED');
INSERT INTO b_executions (order_id, price, quantity)
  VALUES (currval('b_orders_id_seq'), 20000, 1);
INSERT INTO b_postings (account, amount) VALUES (:account, -2);
INSERT INTO b_postings (account, amount) VALUES (0, 2);
UPDATE b_balances SET balance = balance - 2 WHERE account = :account;
UPDATE b_balances SET balance = balance + 2 WHERE account = 1001 - :account;
COMMIT;
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What one run reached: orders a second, and milliseconds at which 99 of 100 were answered."""

    name: str
    in_flight: int
    rate: float
    p99_ms: float | None


class _LiveMarket(FakeMarket):
    """A market whose one quote is always new."""

    def find(self, symbol: str) -> Quote | None:
        found = super().find(symbol)
        if found is None:
            return None
        return replace(found, at=self._now(), sequence=found.sequence + 1)


async def in_process(url: str, name: str, in_flight: Sequence[int], seconds: float) -> list[Row]:
    """Place orders by calling the service."""
    clock = SystemClock()
    database = Database(url, schema="broker")
    await upgrade(database, Migrations.of_package("broker", "trading_api.modules.broker"))
    market = _LiveMarket(clock.now)
    market.quote("199.90", "200.00")
    venue = build_venue(database, clock, market)
    rows = []
    for count in in_flight:
        users = [f"usr_{count}_{number}" for number in range(count)]
        for user in users:
            await _place(venue, user, 0)
        rows.append(await _measure(name, count, seconds, lambda user, n: _place(venue, user, n)))
    violations = await venue.reports.verify()
    await database.close()
    assert violations == [], violations[:5]
    return rows


async def _place(venue: Venue, user: str, number: int) -> None:
    await venue.orders.place_order(
        user_id=user,
        account_id=None,
        ticket=a_ticket(1, side=SELL if number % 2 else BUY),
        client_order_id=None,
        idempotency_key=f"{user}-{number}",
        now=venue.clock.now(),
    )


async def _measure(name: str, in_flight: int, seconds: float, place: Any) -> Row:
    taken: list[float] = []
    started = time.perf_counter()

    async def client(user: str) -> None:
        number = 0
        while time.perf_counter() - started < seconds:
            number += 1
            before = time.perf_counter()
            await place(user, number)
            taken.append(time.perf_counter() - before)

    await asyncio.gather(*(client(f"usr_{in_flight}_{each}") for each in range(in_flight)))
    elapsed = time.perf_counter() - started
    taken.sort()
    return Row(name, in_flight, len(taken) / elapsed, taken[int(len(taken) * 0.99)] * 1000)


@contextlib.contextmanager
def platform(where: Path) -> Iterator[Path]:
    """Run auth, datafeed and broker in one process; yield its socket."""
    environ = {
        "TRADING_LOCAL_DIR": str(where / "local"),
        "ENABLED_MODULES": ",".join(MODULES),
        "LOG_LEVEL": "WARNING",
        "REDIS_URL": f"unix://{where}/nobody.sock",
    }
    ensure_secrets(where / "local" / "secrets", modules=MODULES)
    for verb in ("migrate", "seed"):
        subprocess.run(
            [sys.executable, "-m", "trading_api", verb],
            env={**os.environ, **environ, "PYTHONPATH": str(BACKEND / "src")},
            cwd=BACKEND, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    socket = where / "ours.sock"
    with program(served(",".join(MODULES), socket), environ, socket):
        yield socket
    subprocess.run(
        [sys.executable, "-m", "trading_api", "verify", "broker"],
        env={**os.environ, **environ, "PYTHONPATH": str(BACKEND / "src")},
        cwd=BACKEND, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


async def over_http(name: str, in_flight: Sequence[int], seconds: float) -> list[Row]:
    """Place orders as clients do: JSON and a bearer token, through nginx."""
    with tempfile.TemporaryDirectory(prefix="bench") as folder, contextlib.ExitStack() as stack:
        where = Path(folder)
        socket = stack.enter_context(platform(where))
        (where / "static").mkdir()
        config = nginx_config(where, {"ours": socket}, where / "static")
        front = where / "ours.front"
        nginx = [str(find_nginx(os.environ)), "-c", str(config), "-p", str(where)]
        stack.enter_context(program(nginx, {}, front))
        headers = [await _sign_in(socket, number) for number in range(max(in_flight))]
        return [await _measure_http(name, front, headers[:count], seconds) for count in in_flight]


async def _sign_in(socket: Path, number: int) -> str:
    person = {"email": f"bench{number}@example.com", "password": "a long enough pass phrase"}
    await call(socket, "POST", "/api/v1/auth/register", {**person, "full_name": "Bench"})
    login = await call(socket, "POST", "/api/v1/auth/login", person)
    return f"Authorization: Bearer {login['access_token']}\r\n"


async def _measure_http(name: str, front: Path, headers: Sequence[str], seconds: float) -> Row:
    connections = [await asyncio.open_unix_connection(str(front)) for _ in headers]

    async def place(user: str, number: int) -> None:
        index = int(user.rpartition("_")[2])
        reader, writer = connections[index]
        side = -1 if number % 2 else 1
        body = json.dumps({"symbol": "DEMO:AAPL", "type": 2, "side": side, "qty": "1"}).encode()
        writer.write(
            f"POST /api/v1/broker/orders HTTP/1.1\r\nHost: bench\r\n{headers[index]}"
            f"Idempotency-Key: {user}-{number}-{time.time_ns()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        assert b" 200 " in head[:15], answer

    count = len(headers)
    await asyncio.gather(*(place(f"usr_{count}_{each}", 0) for each in range(count)))
    try:
        return await _measure(name, count, seconds, place)
    finally:
        for _, writer in connections:
            writer.close()


async def pgbench(url: str, seconds: float) -> Row:
    """Run the peer."""
    import asyncpg

    plain = url.replace("postgresql+asyncpg", "postgresql")
    connection = await asyncpg.connect(plain)
    await connection.execute(_TABLES)
    await connection.close()
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_SCRIPT)
        script.flush()
        process = await asyncio.create_subprocess_exec(
            find_pgbench(), "-n", "-c", str(PEER_CLIENTS), "-j", "1",
            "-T", str(max(1, int(seconds))), "-f", script.name, plain,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
    found = re.search(r"tps = ([0-9.]+)", output)
    assert found is not None, output
    return Row("pgbench, the six statements alone", PEER_CLIENTS, float(found[1]), None)


async def run(seconds: float, in_flight: Sequence[int]) -> None:
    """Measure and print the table."""
    server = durable_server(Path(tempfile.mkdtemp(prefix="bench")))
    urls = [
        create_database(server, f"bench_{os.getpid()}_{number}").render_as_string(
            hide_password=False
        )
        for number in range(2)
    ]
    rows = [await pgbench(urls[0], seconds)]
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        sqlite = f"sqlite+aiosqlite:///{folder}/broker.db"
        rows += await in_process(sqlite, "in process, SQLite", in_flight, seconds)
    rows += await in_process(urls[1], "in process, PostgreSQL", in_flight, seconds)
    web = [each for each in in_flight if each <= 64]
    rows += await over_http("HTTP, JWT, nginx, SQLite", web, seconds)
    rows.append(await pgbench(urls[1], seconds))
    _print(rows)


def _print(rows: Sequence[Row]) -> None:
    peers = [each.rate for each in rows if each.p99_ms is None]
    peer = sum(peers) / len(peers)
    table = Table(title="Orders, all checks on")
    for column in ("run", "in flight", "orders/s", "p99 ms", ": pgbench"):
        table.add_column(column, justify="left" if column == "run" else "right")
    for each in rows:
        latency = "" if each.p99_ms is None else f"{each.p99_ms:.0f}"
        table.add_row(
            each.name, str(each.in_flight), f"{each.rate:,.0f}", latency, f"{each.rate / peer:.2f}"
        )
    Console(width=110).print(table)


def main() -> None:
    """Run from the command line."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each run")
    parser.add_argument("--in-flight", default="8,64,256", help="orders at a time, by comma")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.seconds, [int(each) for each in arguments.in_flight.split(",")]))


if __name__ == "__main__":
    main()
