"""Processes and ports of this host: who is alive, who is ours, who owns a port.

A process is known by its pid **and** its start time, so a reused pid is never taken for ours.
What lives here reads the kernel's tables and sends signals; it knows nothing of modules.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process: `started` is in kernel ticks since boot (Linux) or microseconds (others)."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class PortOwner:
    """Who listens on a port; `pid` is None where the kernel doesn't tell us."""

    port: int
    pid: int | None
    command: str | None

    def __str__(self) -> str:
        if self.pid is None:
            return f"port {self.port} is in use by another user's process"
        return f"port {self.port} is in use by pid {self.pid} ({self.command})"


def find_start(pid: int) -> int | None:
    """Return when a process began, or None where it isn't alive (a zombie counts as dead)."""
    if sys.platform == "linux":
        try:
            # Field 22 of proc(5); the command before it may hold blanks and brackets.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (OSError, UnicodeDecodeError):
            return None
        return None if fields[0] in {"Z", "X"} else int(fields[19])
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return int(process.create_time() * 1_000_000)
    except psutil.Error:
        return None


def record_of(pid: int) -> ProcessRecord | None:
    """Return the record of a living process, or None."""
    started = find_start(pid)
    return None if started is None else ProcessRecord(pid, started)


def is_alive(record: ProcessRecord) -> bool:
    """Say whether the very process of the record still runs."""
    return find_start(record.pid) == record.started


def write_record(path: Path, pid: int) -> ProcessRecord:
    """Note a living process in a file of ours; replaces what was there."""
    record = record_of(pid)
    if record is None:
        raise ProcessLookupError(pid)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps({"pid": record.pid, "started": record.started}))
    partial.replace(path)
    return record


def read_record(path: Path) -> ProcessRecord | None:
    """Return a noted process; None for a file that is missing, empty or not ours."""
    try:
        found = json.loads(path.read_text())
        pid, started = found["pid"], found["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    if type(pid) is not int or type(started) is not int or pid <= 1:
        return None
    return ProcessRecord(pid, started)


def ensure_supervised(folder: Path) -> None:
    """End this process where the supervisor that began it is gone already.

    It may be killed in the moment between starting a process and tying its life to its own.
    """
    if "SUPERVISOR_ENABLED" not in os.environ:
        return
    supervisor = read_record(folder / "supervisord.json")
    if supervisor is not None and not is_alive(supervisor):
        raise SystemExit("the supervisor that started this process is gone")


def tie_to_parent(parent: int) -> None:
    """Have this process told to end (SIGTERM) when its parent ends, however that ends.

    Linux's kernel does it; elsewhere a thread looks every second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            raise SystemExit("the process that started this one is gone")
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def read_living(folder: Path) -> list[ProcessRecord]:
    """Return the noted processes of a folder that are still alive."""
    records = (read_record(path) for path in sorted(folder.glob("*.json")))
    return [record for record in records if record is not None and is_alive(record)]


def orphans_of_group(record: ProcessRecord, *, executable: Path) -> list[ProcessRecord]:
    """Return processes left over from a dead group leader that run the same program.

    The kernel gives no new process the id of a group that still has members; the program's path
    is compared as well, in case the group has long been empty and its number reused.
    """
    if is_alive(record):
        return []
    found = []
    for process in psutil.process_iter(["pid"]):
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) != record.pid or process.pid == os.getpid():
                continue
            if Path(process.exe()).resolve() == executable.resolve():
                member = record_of(process.pid)
                if member is not None and member.started >= record.started:
                    found.append(member)
    return found


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal the very process of the record; False where it is gone."""
    if not is_alive(record):
        return False
    with suppress(ProcessLookupError):
        os.kill(record.pid, number)
        return True
    return False


def terminate(records: Sequence[ProcessRecord], *, grace_seconds: float) -> list[ProcessRecord]:
    """Ask processes to end, wait, then kill what is left; return what had to be killed."""
    for record in records:
        send(record, signal.SIGTERM)
    remaining = wait_gone(records, timeout_seconds=grace_seconds)
    for record in remaining:
        send(record, signal.SIGKILL)
    wait_gone(remaining, timeout_seconds=5)
    return remaining


def wait_gone(records: Iterable[ProcessRecord], *, timeout_seconds: float) -> list[ProcessRecord]:
    """Wait until processes have ended; return those that haven't."""
    deadline = time.monotonic() + timeout_seconds
    remaining = [record for record in records if is_alive(record)]
    while remaining and time.monotonic() < deadline:
        time.sleep(0.02)
        remaining = [record for record in remaining if is_alive(record)]
    return remaining


def find_port_owner(host: str, port: int) -> PortOwner | None:
    """Return who keeps us from listening on a port, or None where it is free.

    Raises:
        PermissionError: the port is privileged and we are not.
    """
    bind_host = "" if host in {"*", "0.0.0.0", "::", "[::]"} else host.strip("[]")  # noqa: S104
    family = socket.AF_INET6 if ":" in bind_host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # A listener blocks us all the same; connections in TIME_WAIT don't.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((bind_host, port))
            probe.listen(1)
        except PermissionError:
            raise
        except OSError:
            return _describe_owner(port)
    return None


def memory_bytes(pid: int) -> int | None:
    """Return the memory that a process takes, or None where it is gone.

    Modules are forks of one preloaded process: where the system tells (Linux), what they share is
    divided among them, so that the numbers add up; elsewhere it is what is resident.
    """
    try:
        process = psutil.Process(pid)
        with suppress(psutil.AccessDenied):
            share = getattr(process.memory_full_info(), "pss", 0)
            if share:
                return int(share)
        return int(process.memory_info().rss)
    except psutil.Error:
        return None


def _describe_owner(port: int) -> PortOwner:
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
            if listens and connection.pid is not None:
                with suppress(psutil.Error):
                    process = psutil.Process(connection.pid)
                    # The name alone: arguments may hold what must not be printed.
                    return PortOwner(port, connection.pid, process.name())
    return PortOwner(port, None, None)
