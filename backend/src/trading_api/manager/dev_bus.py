"""A bus for `dev`, where no supervisor runs one."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from trading_api.manager import binaries
from trading_api.manager.render.supervisor import bus_command, bus_socket
from trading_api.manager.surroundings import Surroundings

_STOP_SECONDS = 10


@contextmanager
def dev_bus(around: Surroundings) -> Iterator[None]:
    """Run the bus beside this process, unless one is given or a fleet's own is up already.

    Raises:
        BinaryNotFoundError: there is no server to run; set `REDIS_URL`.
    """
    if around.merged.get("REDIS_URL") or around.merged.get("REDIS_HOST"):
        yield
        return
    path = bus_socket(around.paths)
    os.environ["REDIS_URL"] = f"unix://{path}"
    if _answers(str(path)):
        yield
        return
    for folder in (path.parent, around.paths.data / "bus", around.paths.log):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = bus_command(str(binaries.find_bus_server()), around.paths)
    setpriv = binaries.find_setpriv()
    tied = [str(setpriv), "--pdeathsig", "TERM", "--"] if setpriv else []
    with (around.paths.log / "bus.log").open("ab") as log:
        server = subprocess.Popen(
            [*tied, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the modules; the bus ends after them.
            process_group=0,
        )
    try:
        yield
    finally:
        server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(path)
        except OSError:
            return False
        return True
