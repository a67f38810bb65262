"""Runs a server for as long as another process lives.

    guardian.py [--detach] [--remove FOLDER] PID PROGRAM …

A test session that is killed can't clean up after itself; this does it instead.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
from types import FrameType

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 5.0


def main(arguments: list[str]) -> int:
    """Start the program; end it when the watched process is gone; return its exit code.

    With ``--detach`` the caller needn't wait for it; with ``--remove`` the folder goes with the
    watched process.
    """
    if arguments[0] == "--detach":
        arguments = arguments[1:]
        if os.fork():
            return 0
        os.setsid()
    folder = ""
    if arguments[0] == "--remove":
        folder, arguments = arguments[1], arguments[2:]
    watched, command = int(arguments[0]), arguments[1:]
    child = subprocess.Popen(command)

    def stop(number: int, _frame: FrameType | None) -> None:
        child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _wait(child, watched)
    is_orphaned = child.poll() is None
    if is_orphaned:
        child.send_signal(signal.SIGINT)
    try:
        code = child.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    if folder and is_orphaned:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _wait(child: subprocess.Popen[bytes], watched: int) -> None:
    """Return when either process has ended."""
    try:
        handles = [os.pidfd_open(child.pid), os.pidfd_open(watched)]
    except (AttributeError, OSError):
        while child.poll() is None and _is_alive(watched):
            try:
                child.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
        return
    poll = select.poll()
    for handle in handles:
        poll.register(handle, select.POLLIN)
    poll.poll()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
