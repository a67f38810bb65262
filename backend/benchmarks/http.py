"""A hot authenticated route, and 5,000 bars of history, beside bare ASGI, nginx and FastAPI + ORM.

python -m benchmarks.http [--seconds 10] [--out docs/benchmarks]
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from benchmarks.harness import (
    BACKEND,
    Goal,
    Measured,
    Peer,
    folder,
    get,
    measure,
    program,
    report,
    served,
    uvicorn,
)
from trading_api.manager.binaries import find_nginx
from trading_api.runtime.secrets import ensure_secrets

BARS = 5000


def nginx_config(where: Path, upstreams: dict[str, Path], static: Path) -> Path:
    """Write a front that proxies as ours does, one socket for each upstream and one for a file."""
    blocks = []
    for name, target in upstreams.items():
        blocks.append(
            f"upstream {name} {{ server unix:{target}; keepalive 16; }}\n"
            f"server {{ listen unix:{where}/{name}.front; location / {{"
            f" proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection '';"
            f" proxy_set_header Host $http_host; proxy_set_header X-Request-ID $request_id;"
            f" proxy_buffers 16 32k; proxy_buffer_size 32k;"
            f" proxy_busy_buffers_size 64k; }} }}"
        )
    blocks.append(f"server {{ listen unix:{where}/static.front; root {static}; }}")
    config = where / "nginx.conf"
    text = "\n".join(blocks)
    user = f"user {os.environ.get('USER', 'root')};" if os.geteuid() == 0 else ""
    config.write_text(
        f"daemon off; worker_processes 1; pid {where}/nginx.pid; {user}\n"
        f"error_log {where}/error.log; events {{ worker_connections 512; }}\n"
        f"http {{ access_log off; default_type application/json; keepalive_requests 1000000;\n"
        f"client_body_temp_path {where}/t1; proxy_temp_path {where}/t2;\n"
        f"fastcgi_temp_path {where}/t3; uwsgi_temp_path {where}/t4; scgi_temp_path {where}/t5;\n"
        f"{text}\n}}\n"
    )
    return config


@contextlib.contextmanager
def ours(where: Path) -> Iterator[tuple[int, Path]]:
    """Run auth and datafeed in one process as production does; yield its pid and socket."""
    environ = {
        "TRADING_LOCAL_DIR": str(where / "local"),
        "ENABLED_MODULES": "auth,datafeed",  # of migrate and seed
        "LOG_LEVEL": "WARNING",
        "BAR_BROADCASTER_ENABLED": "false",
        "REDIS_URL": f"unix://{where}/nobody.sock",
    }
    ensure_secrets(where / "local" / "secrets", modules=("auth", "datafeed"))
    for verb in ("migrate", "seed"):
        subprocess.run(
            [sys.executable, "-m", "trading_api", verb],
            env={**os.environ, **environ, "PYTHONPATH": str(BACKEND / "src")},
            cwd=BACKEND, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    socket = where / "ours.sock"
    with program(served("auth,datafeed", socket), environ, socket) as pid:
        yield pid, socket


Json = dict[str, object]


async def call(socket: Path, method: str, path: str, body: dict[str, str]) -> Json:
    """Make one request over a socket and return its JSON."""
    raw = json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(str(socket))
    writer.write(
        f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n".encode()
        + raw
    )
    answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    assert b" 20" in head[:14], answer[:300]
    found: Json = json.loads(content)
    return found


async def fetch(socket: Path, request: bytes) -> bytes:
    """Send a GET request over a socket and return the answer's body."""
    reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 22)
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert b" 200 " in head[:15], head
    found = re.search(rb"content-length: *(\d+)", head)
    assert found is not None, head
    body = await reader.readexactly(int(found[1]))
    writer.close()
    return body


async def sign_in(socket: Path) -> str:
    """Register somebody and return the header lines of a bearer token."""
    person = {"email": "bench@example.com", "password": "a long enough pass phrase"}
    await call(socket, "POST", "/api/v1/auth/register", {**person, "full_name": "Bench"})
    login = await call(socket, "POST", "/api/v1/auth/login", person)
    # nginx adds a request id; without nginx we do.
    request_id = "0123456789abcdef0123456789abcdef"
    return f"Authorization: Bearer {login['access_token']}\r\nX-Request-ID: {request_id}\r\n"


async def run(seconds: float, only: str) -> None:
    """Measure and print the tables; with ``only`` the peers whose name matches it."""
    async with folder() as where:
        bare_socket, orm_socket = where / "bare.sock", where / "orm.sock"
        database = {"BENCH_DATABASE_URL": f"sqlite+aiosqlite:///{where}/orm.db"}
        fill = f"import asyncio; from benchmarks.peers import fill; asyncio.run(fill({BARS}))"
        subprocess.run(
            [sys.executable, "-c", fill],
            env={**os.environ, **database, "PYTHONPATH": str(BACKEND)},
            cwd=BACKEND,
            check=True,
        )
        with contextlib.ExitStack() as stack:
            pid, socket = stack.enter_context(ours(where))
            bare = stack.enter_context(
                program(uvicorn("benchmarks.peers:bare", bare_socket), {}, bare_socket)
            )
            orm = stack.enter_context(
                program(uvicorn("benchmarks.peers:orm", orm_socket), database, orm_socket)
            )
            headers = await sign_in(socket)
            now = int(time.time()) // 60 * 60

            def bars(end: int, count: int) -> bytes:
                path = "/api/v1/datafeed/bars?symbol=DEMO:AAPL&resolution=1&from_time=0"
                return get(f"{path}&to_time={end}&count_back={count}", headers=headers)

            repeated, hot = bars(now, BARS), bars(now, 2)
            static = where / "static"
            static.mkdir()
            # The very bytes that ours answers.
            (static / "bars.json").write_bytes(await fetch(socket, repeated))
            config = nginx_config(where, {"ours": socket, "bare": bare_socket}, static)
            front = where / "static.front"
            nginx = [str(find_nginx(os.environ)), "-c", str(config), "-p", str(where)]
            master = stack.enter_context(program(nginx, {}, front))
            workers = _children(master)

            def different(number: int) -> bytes:
                return bars(now - (number % 20_000) * 60, BARS)

            def root(_: int) -> bytes:
                return get("/")

            def constant(request: bytes) -> Callable[[int], bytes]:
                return lambda _: request

            own_front, bare_front = f"{where}/ours.front", f"{where}/bare.front"
            with_nginx, direct = (pid, *workers), (pid,)
            peers = [
                Peer("bare ASGI", str(bare_socket), (bare,), root),
                Peer("ours: hot, JWT", str(socket), direct, constant(hot)),
                Peer("bare ASGI, nginx", bare_front, (bare, *workers), root),
                Peer("ours: hot, JWT, nginx", own_front, with_nginx, constant(hot)),
                Peer("nginx static file", str(front), workers, constant(get("/bars.json"))),
                Peer("ours: 5,000 bars", str(socket), direct, constant(repeated)),
                Peer("ours: 5,000 bars, nginx", own_front, with_nginx, constant(repeated)),
                Peer("ours: 5,000 bars, different", str(socket), direct, different),
                Peer("ORM: 5,000 bars", str(orm_socket), (orm,), constant(get("/bars"))),
            ]
            wanted = [each for each in peers if re.search(only, each.name)]
            measured = await measure(wanted, seconds=seconds)
        report("HTTP", measured, goals(measured))


def goals(measured: list[Measured]) -> list[Goal]:
    """Return the ratios: how many times we answer while the peer answers once, per CPU second."""
    cost = {each.name: each.cpu_us for each in measured}

    def ratio(ours: str, peer: str, goal: str) -> Goal:
        return (f"{ours} : {peer}", cost[peer] / cost[ours], goal)

    found = [
        ("ours: hot, JWT, nginx", "bare ASGI, nginx", ">= 0.8"),
        ("ours: hot, JWT", "bare ASGI", "-"),
        ("ours: 5,000 bars", "nginx static file", ">= 0.9"),
        ("ours: 5,000 bars, nginx", "nginx static file", ">= 0.6"),
        ("ours: 5,000 bars, different", "nginx static file", ">= 0.35"),
        ("ours: 5,000 bars", "ORM: 5,000 bars", ">= 100"),
    ]
    return [ratio(*each) for each in found if cost.keys() >= {each[0], each[1]}]


def _children(master: int) -> tuple[int, ...]:
    return tuple(child.pid for child in psutil.Process(master).children())


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each peer")
    parser.add_argument("--only", default="", help="pattern of the names of peers")
    arguments = parser.parse_args()
    asyncio.run(run(arguments.seconds, arguments.only))


if __name__ == "__main__":
    main()
