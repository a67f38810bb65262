import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trading_api.manager import processes
from trading_api.manager.processes import ProcessRecord

DEAF = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(1, flush=True)
sys.stdin.read()
"""

LEADER = """
import subprocess, sys
member = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(member.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def child():
    """A process that waits until it is told to end."""
    started = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
    )  # fmt: skip
    yield started
    started.kill()
    started.communicate()


def test_start_time_tells_the_living_from_the_dead(child):
    record = processes.record_of(child.pid)
    assert record is not None
    assert processes.is_alive(record)
    child.kill()
    child.communicate()
    assert not processes.is_alive(record)
    assert processes.record_of(child.pid) is None


def test_zombie_counts_as_dead(child):
    record = processes.record_of(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert record is not None
    assert not processes.is_alive(record)


def test_record_survives_its_file(tmp_path, child):
    path = tmp_path / "pids" / "x.json"
    record = processes.write_record(path, child.pid)
    assert processes.read_record(path) == record
    assert processes.read_living(path.parent) == [record]


@pytest.mark.parametrize(
    "content",
    ["", "123", "null", "[]", '{"pid": 5}', '{"pid": "5", "started": 1}', "\0\xff", "{",
     '{"pid": true, "started": 1}', '{"pid": 1, "started": 1}', '{"pid": -1, "started": 1}'],
)  # fmt: skip
def test_garbage_in_a_record_is_nobody(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content)
    assert processes.read_record(path) is None
    assert processes.read_living(tmp_path) == []


def test_missing_record_is_nobody(tmp_path):
    assert processes.read_record(tmp_path / "none.json") is None


def test_a_stranger_with_a_reused_pid_is_never_signaled(tmp_path, child):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"pid": child.pid, "started": 1}))
    record = processes.read_record(path)
    assert record is not None
    assert processes.read_living(tmp_path) == []
    assert not processes.send(record, signal.SIGKILL)
    assert processes.terminate([record], grace_seconds=1) == []
    assert child.poll() is None


def test_terminate_asks_first_and_kills_what_stays():
    deaf = subprocess.Popen(
        [sys.executable, "-c", DEAF],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert deaf.stdout is not None
    deaf.stdout.readline()
    record = processes.record_of(deaf.pid)
    assert record is not None
    assert processes.terminate([record], grace_seconds=0.2) == [record]
    deaf.communicate()
    assert deaf.returncode == -signal.SIGKILL


def test_orphans_are_of_the_same_group_and_program(tmp_path):
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert leader.stdout is not None
    member = int(leader.stdout.readline())
    record = processes.record_of(leader.pid)
    program = Path(sys.executable)
    assert record is not None
    assert processes.orphans_of_group(record, executable=program) == []
    leader.kill()
    leader.wait()
    found = processes.orphans_of_group(record, executable=program)
    assert [each.pid for each in found] == [member]
    assert processes.orphans_of_group(record, executable=Path("/bin/true")) == []
    assert processes.terminate(found, grace_seconds=5) == []
    leader.communicate()


def test_port_owner_is_named(child):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener.listen()
        owner = processes.find_port_owner("127.0.0.1", port)
        assert owner is not None
        assert owner.pid == os.getpid()
        assert str(owner).startswith(f"port {port} is in use by pid {os.getpid()} (")
        assert processes.find_port_owner("0.0.0.0", port) is not None
    assert processes.find_port_owner("127.0.0.1", port) is None


def test_memory_of_the_dead_is_unknown():
    assert (processes.memory_bytes(os.getpid()) or 0) > 1_000_000
    assert processes.memory_bytes(ProcessRecord(2**22 + 1, 1).pid) is None


FORKING = """
import os, signal
shared = bytearray(b"x") * (64 << 20)
if os.fork() == 0:
    print(os.getpid(), flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what is shared")
def test_memory_shared_with_a_parent_is_divided():
    command = [sys.executable, "-c", FORKING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            assert 32 << 20 < (processes.memory_bytes(pid) or 0) < 50 << 20
        finally:
            os.kill(pid, signal.SIGKILL)
            parent.kill()


def test_process_whose_supervisor_is_gone_ends_at_once(tmp_path, monkeypatch):
    processes.ensure_supervised(tmp_path)
    monkeypatch.setenv("SUPERVISOR_ENABLED", "1")
    processes.ensure_supervised(tmp_path)
    path = tmp_path / "supervisord.json"
    processes.write_record(path, os.getpid())
    processes.ensure_supervised(tmp_path)
    path.write_text(json.dumps({"pid": os.getpid(), "started": 1}))
    with pytest.raises(SystemExit):
        processes.ensure_supervised(tmp_path)
