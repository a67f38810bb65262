"""The manager with a fleet of two small modules: real supervisord, nginx, bus and processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from trading_api.manager import processes
from trading_api.testkit.fleet import BACKEND, Fleet, free_port

pytestmark = pytest.mark.fleet

STAND_IN = Path(__file__).parent / "stand_in"

CONFIG = """
nginx:
  port: {port}
  worker_processes: 1
  limits: {{requests_per_second: 100000, request_burst: 100000, connections_per_client: 1000}}
servers:
  echo: {{modules: [echo], env: {{GREETING: "100% 'quoted'"}}}}
  tally: {{modules: [tally]}}
"""


def a_fleet(root: Path, text: str = CONFIG, **environ: str) -> Fleet:
    port = free_port()
    (root / "fleet.yaml").write_text(text.format(port=port))
    settings = {
        "PYTHONPATH": f"{BACKEND / 'src'}:{STAND_IN}",
        "ENABLED_MODULES": "echo,tally",
        "TRADING_CONFIG": str(root / "fleet.yaml"),
        **environ,
    }
    return Fleet(local=root / "local", port=port, environ=settings)


@pytest.fixture(scope="module")
def shared() -> Iterator[Fleet]:
    """One fleet for the whole file; `fleet` brings it up again where a test has broken it."""
    with tempfile.TemporaryDirectory(prefix="tapi-") as name:
        found = a_fleet(Path(name))
        yield found
        found.stop()


@pytest.fixture
def fleet(shared: Fleet) -> Fleet:
    if not is_well(shared):
        shared.start()
    return shared


def is_well(fleet: Fleet) -> bool:
    """Ask without the manager, which takes a second each time."""
    if len(records_of(fleet)) != 5:
        return False
    try:
        return who(fleet).status_code == who(fleet, "tally").status_code == 200
    except httpx.TransportError:
        return False


def rows_of(fleet: Fleet) -> dict[str, dict[str, Any]]:
    return {row["instance"]: row for row in fleet.status()["processes"]}


def pids_of(fleet: Fleet) -> dict[str, int]:
    return {name: row["pid"] for name, row in rows_of(fleet).items()}


def records_of(fleet: Fleet) -> list[processes.ProcessRecord]:
    return processes.read_living(fleet.local / "run" / "pids")


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def who(fleet: Fleet, module: str = "echo", *, timeout: float = 5) -> httpx.Response:
    return httpx.get(f"{fleet.url}/api/v1/{module}/who", timeout=timeout, trust_env=False)


def test_start_is_idempotent_and_says_so(fleet):
    before = pids_of(fleet)
    said = fleet.start()
    assert "is up already" in said
    assert f"http://localhost:{fleet.port}/api/v1/echo" in said
    assert pids_of(fleet) == before


def test_status_shows_every_process(fleet):
    status = fleet.status()
    rows = rows_of(fleet)
    assert status["well"] is True
    assert list(rows) == ["echo_0", "tally_0", "nginx", "bus"]
    assert all(row["state"] == "running" and row["is_ready"] for row in rows.values())
    assert rows["echo_0"]["memory_bytes"] > 2_000_000
    assert rows["bus"]["version"].startswith("valkey")
    table = fleet.manage("status")
    assert table.returncode == 0
    assert "All well." in table.stdout
    assert "echo_0" in table.stdout


def test_settings_of_a_server_reach_its_process_alone(fleet):
    assert who(fleet).json()["greeting"] == "100% 'quoted'"
    assert who(fleet, "tally").json()["greeting"] == ""


def test_killed_module_comes_back_and_the_others_go_on(fleet):
    before = rows_of(fleet)
    os.kill(before["echo_0"]["pid"], signal.SIGKILL)
    wait_for(
        lambda: who(fleet).status_code == 502 or who(fleet).json()["pid"] != before["echo_0"]["pid"]
    )
    assert who(fleet, "tally").json()["pid"] == before["tally_0"]["pid"]
    wait_for(lambda: who(fleet).status_code == 200)
    after = rows_of(fleet)
    assert after["echo_0"]["restarts"] == before["echo_0"]["restarts"] + 1
    assert after["tally_0"]["pid"] == before["tally_0"]["pid"]


def test_module_that_is_away_is_answered_with_a_problem(fleet):
    os.kill(pids_of(fleet)["echo_0"], signal.SIGKILL)
    answer = who(fleet)
    assert answer.status_code == 502
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["code"] == "edge.module.unavailable"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    wait_for(lambda: who(fleet).status_code == 200)


@pytest.mark.parametrize("program", ["nginx", "bus"])
def test_killed_program_comes_back_without_leftovers(fleet, program):
    before = pids_of(fleet)
    os.kill(before[program], signal.SIGKILL)
    wait_for(lambda: (row := rows_of(fleet)[program])["is_ready"] and row["pid"] != before[program])
    assert who(fleet).status_code == 200
    workers = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True).stdout
    masters = {line.split()[0] for line in workers.splitlines() if "nginx: worker" in line}
    assert "1" not in masters


def test_killed_supervisor_leaves_no_orphans_and_a_start_recovers(fleet):
    supervisor = processes.read_record(fleet.local / "run" / "pids" / "supervisord.json")
    assert supervisor is not None
    before = records_of(fleet)
    assert len(before) == 5
    os.kill(supervisor.pid, signal.SIGKILL)
    assert processes.wait_gone(before, timeout_seconds=15) == []
    down = fleet.manage("status")
    assert down.returncode == 1
    assert "Something is down." in down.stdout
    fleet.start()
    assert fleet.status()["well"] is True
    assert who(fleet).status_code == 200


def test_restart_of_a_module_leaves_the_others_alone(fleet):
    before = pids_of(fleet)
    done = fleet.manage("restart", "tally")
    assert done.returncode == 0, done.stderr
    after = pids_of(fleet)
    assert after["tally_0"] != before["tally_0"]
    assert {**after, "tally_0": 0} == {**before, "tally_0": 0}
    unknown = fleet.manage("restart", "nope")
    assert unknown.returncode == 1
    assert "running: echo, tally" in unknown.stderr


def test_logs_are_merged_and_filtered(fleet):
    request_id = f"test-{time.time_ns()}"
    httpx.get(f"{fleet.url}/api/v1/echo/none", headers={"x-request-id": request_id}, timeout=5)
    wait_for(lambda: request_id in fleet.manage("logs", "nginx", "-n", "20").stdout)
    found = fleet.manage("logs", "--request-id", request_id).stdout.splitlines()
    assert {line.split()[0] for line in found} == {"echo_0", "nginx"}
    assert fleet.manage("logs", "tally", "--request-id", request_id).stdout == ""
    assert fleet.manage("logs", "--level", "loud").returncode == 2
    assert fleet.manage("logs", "nope").returncode == 1


def test_stop_ends_everything_and_says_when_there_is_nothing(fleet):
    before = records_of(fleet)
    assert fleet.manage("stop").stdout == "Stopped.\n"
    assert [record for record in before if processes.is_alive(record)] == []
    assert processes.find_port_owner("127.0.0.1", fleet.port) is None
    again = fleet.manage("stop")
    assert (again.returncode, again.stdout) == (0, "Nothing was running.\n")


def test_stale_and_garbage_records_are_harmless(fleet):
    fleet.stop()
    pids = fleet.local / "run" / "pids"
    pids.mkdir(exist_ok=True)
    with subprocess.Popen(["sleep", "600"]) as stranger:
        (pids / "echo_0.json").write_text(json.dumps({"pid": stranger.pid, "started": 7}))
        (pids / "supervisord.json").write_text(json.dumps({"pid": stranger.pid, "started": 7}))
        (pids / "nginx.json").write_text("garbage")
        (pids / "bus.json").write_text("")
        fleet.start()
        fleet.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_process_that_a_supervisor_lost_is_ended_by_the_next_start(fleet):
    fleet.stop()
    pids = fleet.local / "run" / "pids"
    with subprocess.Popen(["sleep", "600"]) as lost:
        processes.write_record(pids / "echo_0.json", lost.pid)
        fleet.start()
        assert lost.wait(timeout=5) == -signal.SIGTERM


def test_taken_port_is_refused_and_its_owner_left_alone(short_folder):
    fleet = a_fleet(short_folder)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", fleet.port))
        stranger.listen()
        began = time.monotonic()
        done = fleet.manage("start")
        assert time.monotonic() - began < 10
    assert done.returncode == 1
    assert f"port {fleet.port} is in use by pid {os.getpid()}" in done.stderr
    assert not (fleet.local / "run" / "pids").exists()


@pytest.mark.parametrize(
    ("environ", "text", "code", "said"),
    [
        ({"ENABLED_MODULES": "echo,eko"}, CONFIG, 78, "there is no module 'eko'"),
        ({"BACKEND_PORT": "eighty"}, CONFIG, 78, "BACKEND_PORT: must be a port number"),
        ({}, "servers: {{}}", 78, "servers: must name at least one server"),
        ({}, "servers: {{echo: {{modules: [echo]}}}}", 78, "no server names the module 'tally'"),
        ({"STAND_IN_FAILS": "tally"}, CONFIG, 1, "the module 'tally' can't be built: RuntimeError"),
        ({"NGINX_BIN": "/none"}, CONFIG, 1, "NGINX_BIN names no program"),
    ],
)
def test_broken_start_is_refused_with_one_message_and_nothing_runs(
    short_folder, environ, text, code, said
):
    fleet = a_fleet(short_folder, text, **environ)
    done = fleet.manage("start")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert records_of(fleet) == []


def test_module_that_ends_at_its_start_is_shown_with_its_last_words(short_folder):
    fleet = a_fleet(short_folder, STAND_IN_FAILS_AT_START="tally")
    done = fleet.manage("start")
    assert done.returncode == 1
    assert "tally_0_g1 ended instead of getting ready" in done.stderr
    assert "tally can't start today" in done.stderr
    assert records_of(fleet) == []
    assert processes.find_port_owner("127.0.0.1", fleet.port) is None


def test_module_that_cannot_be_imported_is_named(short_folder):
    (short_folder / "broken-1.0.dist-info").mkdir()
    (short_folder / "broken-1.0.dist-info/METADATA").write_text("Name: broken\nVersion: 1.0\n")
    (short_folder / "broken-1.0.dist-info/entry_points.txt").write_text(
        "[trading_api.modules]\nbroken = no_such_package:Module\n"
    )
    path = f"{BACKEND / 'src'}:{STAND_IN}:{short_folder}"
    done = a_fleet(short_folder, PYTHONPATH=path).manage("start")
    assert done.returncode == 78
    assert "module broken (no_such_package:Module) can't be imported" in done.stderr


def test_verb_of_a_module_runs_with_its_arguments(short_folder):
    fleet = a_fleet(short_folder)
    fleet.manage("migrate")
    done = fleet.manage("greet", "you")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["hello from echo ['you']", "hello from tally ['you']"]
    assert fleet.manage("nonsense").returncode == 2


def test_folder_too_deep_for_sockets_works(short_folder):
    root = short_folder / ("deep" * 30)
    root.mkdir()
    fleet = a_fleet(root)
    try:
        fleet.start()
        assert fleet.status()["well"] is True
    finally:
        fleet.stop()


def test_killed_gunicorn_takes_its_workers_along(short_folder):
    fleet = a_fleet(short_folder, CONFIG.replace("[tally]", "[tally], workers: 2"))
    try:
        fleet.start()
        master = pids_of(fleet)["tally_0"]
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        workers = [processes.record_of(int(pid)) for pid in children]
        assert len(workers) == 2
        assert who(fleet, "tally").json()["pid"] in {each.pid for each in workers if each}
        os.kill(master, signal.SIGKILL)
        assert processes.wait_gone([each for each in workers if each], timeout_seconds=15) == []
        wait_for(lambda: pids_of(fleet)["tally_0"] not in {None, master})
        wait_for(lambda: who(fleet, "tally", timeout=60).status_code == 200)
    finally:
        fleet.stop()


def exchange(port: int, raw: bytes, *, half_closes: bool) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(raw)
        if half_closes:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
        return answer


HEAD = (
    b"POST /api/v1/echo/length HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\n"
)
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (HEAD + b"Content-Length: 3\r\n\r\n123", 200),
        (CHUNKED + b"\r\n3\r\n123\r\n0\r\n\r\n", 200),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n123", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n123", 400),
        (HEAD + b"Content-Length: +3\r\n\r\n123", 400),
        (HEAD + b"Content-Length: 3, 3\r\n\r\n123", 400),
        (HEAD + b"Content-Length : 3\r\n\r\n123", 400),
        (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
        (HEAD + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", 400),
        (HEAD + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n", 400),
        (b"GET /api/v1/echo/who HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET /api/v1/echo/who HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n", 400),
        (b"POST /api/v1/echo/length HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (CHUNKED + b"\r\nfffffffffffffffff\r\n123\r\n0\r\n\r\n", 400),
        (HEAD + b"Content-Length: 65537\r\n\r\n", 413),
        (b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 9000 + b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET //internal/v1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /a/..%2freadyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        (b"GET /%6detrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
    ],
)  # fmt: skip
def test_framing_is_decided_at_the_edge(fleet, raw, status):
    # To nginx a client that half-closes while a module works has gone away.
    answer = exchange(fleet.port, raw, half_closes=status >= 400)
    assert answer.split(b" ")[1] == str(status).encode(), answer
    body = answer.partition(b"\r\n\r\n")[2]
    if status >= 400:
        assert b"Content-Type: application/problem+json" in answer
        assert json.loads(body)["status"] == status
    elif raw.startswith(b"POST"):
        assert json.loads(body)["length"] == 3


def test_what_a_client_claims_about_itself_stops_at_the_edge(fleet):
    claimed = {
        "x-request-id": "mine.is:well-formed_1",
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-host": "evil.example",
        "x-real-ip": "6.6.6.6",
        "forwarded": "for=6.6.6.6",
        "x-user-id": "root",
        "x-internal-token": "please",
        "x_user_id": "root",
    }
    answer = httpx.post(f"{fleet.url}/api/v1/echo/length", headers=claimed, timeout=5)
    assert answer.json()["headers"] == {
        "x-request-id": "mine.is:well-formed_1",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": f"127.0.0.1:{fleet.port}",
        "x-forwarded-port": str(fleet.port),
    }
    assert answer.headers["x-request-id"] == "mine.is:well-formed_1"


def test_connections_to_the_modules_are_kept(fleet):
    with httpx.Client(base_url=fleet.url, trust_env=False, timeout=5) as client:
        for _ in range(50):
            assert client.get("/api/v1/echo/who").status_code == 200
    entries = subprocess.run(["ss", "-xH"], capture_output=True, text=True).stdout
    open_now = [line for line in entries.splitlines() if "echo_0_g1.sock" in line]
    assert 1 <= len(open_now) <= 16


def test_reload_under_load_fails_no_request(fleet):
    master = pids_of(fleet)["nginx"]
    failures = 0
    # Each on a connection of its own: an idle one may be closed just as a request is sent on it,
    # reload or not, and HTTP leaves it to the client to send that again.
    once = {"Connection": "close"}
    with httpx.Client(base_url=fleet.url, trust_env=False, timeout=5, headers=once) as client:
        for turn in range(100):
            if turn % 20 == 0:
                os.kill(master, signal.SIGHUP)
            failures += client.get("/api/v1/echo/who").status_code != 200
    assert failures == 0


def test_foreground_process_serves_without_a_fleet(short_folder):
    fleet = a_fleet(short_folder)
    fleet.manage("migrate")
    port = free_port()
    command = [sys.executable, "-m", "trading_api", "serve", "echo", "--port", str(port)]
    environ = {**os.environ, **fleet.environ, "TRADING_LOCAL_DIR": str(fleet.local)}
    with subprocess.Popen(command, cwd=BACKEND, env=environ, stdout=subprocess.DEVNULL) as process:

        def is_ready() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(is_ready)
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/echo/who").json()["greeting"] != ""
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) in {0, -signal.SIGTERM}
