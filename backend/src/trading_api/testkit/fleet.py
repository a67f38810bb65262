"""A whole fleet for tests: the manager starts it in a folder and on a port of its own."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

BACKEND = Path(__file__).resolve().parents[3]
START_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet that the manager runs; every call goes through its command line.

    Attributes:
        local: its folder of data, secrets, sockets and logs.
        port: nginx's.
        environ: set over the test's own environment.
    """

    local: Path
    port: int
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the address of the front door."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Return the address of the front door for WebSockets."""
        return f"ws://127.0.0.1:{self.port}"

    def manage(
        self, *arguments: str, timeout_seconds: float = START_TIMEOUT_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a verb of the manager to its end."""
        return subprocess.run(
            [sys.executable, "-m", "trading_api", *arguments],
            cwd=BACKEND,
            env=self._environ(),
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def start(self) -> str:
        """Start everything and wait until it is ready; return what the manager printed."""
        done = self.manage("start")
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def stop(self) -> None:
        """Stop everything; harmless when nothing runs."""
        self.manage("stop")

    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` says."""
        done = self.manage("status", "--json")
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def client(self) -> httpx.AsyncClient:
        """Return a client of the front door, without any credential."""
        return httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False)

    def logs(self) -> str:
        """Return the newest log lines of every process."""
        return self.manage("logs", "-n", "40").stdout

    def _environ(self) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "LANG", "TMPDIR", "NGINX_BIN", "USER")
        }
        return {
            **inherited,
            "PYTHONPATH": str(BACKEND / "src"),
            "TRADING_LOCAL_DIR": str(self.local),
            "BACKEND_PORT": str(self.port),
            "NO_COLOR": "1",
            "COLUMNS": "160",
            **self.environ,
        }


def free_port() -> int:
    """Return a TCP port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
