"""One fleet that the tests of this folder kill, freeze and bring up again."""

import contextlib
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.faults.workload import HEAL_SECONDS, Journal, Trader

from trading_api.manager import processes
from trading_api.manager.processes import ProcessRecord
from trading_api.testkit.bus import BusServer, eventually
from trading_api.testkit.fleet import Fleet, free_port
from trading_api.testkit.postgresql import create_database, drop_database, session_server

MODULES = ("auth", "broker", "datafeed", "gateway", "wallet")
TRADERS = 2


@dataclass(frozen=True, slots=True)
class Stage:
    """A fleet, and what its processes are.

    Attributes:
        bus: where the bus isn't the fleet's own.
    """

    fleet: Fleet
    bus: BusServer | None = None
    marks: dict[str, int] = field(default_factory=dict)

    @property
    def programs(self) -> dict[str, str]:
        """Record of each program that the supervisor runs, by what it is called here."""
        found = {name: f"{name}_0" for name in MODULES} | {"nginx": "nginx"}
        return found if self.bus is not None else {**found, "bus": "bus"}

    @property
    def targets(self) -> tuple[str, ...]:
        """All that can be killed, whoever starts it again."""
        return (*MODULES, "nginx", "bus")

    def find(self, name: str) -> ProcessRecord | None:
        """Return the living process of a program, or ``supervisord``; None while it is away."""
        path = self.fleet.local / "run" / "pids" / f"{self.programs.get(name, name)}.json"
        record = processes.read_record(path)
        return record if record is not None and processes.is_alive(record) else None

    def get(self, name: str) -> ProcessRecord:
        """Return the living process of a program."""
        record = self.find(name)
        assert record is not None, f"{name} doesn't run"
        return record

    def all(self) -> dict[str, ProcessRecord]:
        """Return the living process of every program."""
        return {name: self.get(name) for name in self.programs}

    def family(self) -> list[psutil.Process]:
        """Return every process of this fleet, whoever its parent is.

        All inherit a name of the fleet's folder; nginx and the bus write over what they inherit,
        but they work in it.
        """
        return [each for each in psutil.process_iter() if self._is_of_family(each)]

    async def health(self) -> dict[str, Any]:
        """Return what the front door says; empty while it is away."""
        try:
            async with self.fleet.client() as client:
                answer = await client.get("/health")
            return {"code": answer.status_code, **answer.json()}
        except (httpx.TransportError, ValueError):
            return {}

    async def until_healthy(self) -> None:
        """Wait until every module, the bus and nginx are well."""
        await self.until_health("healthy", bus="up")

    async def until_health(self, status: str, *, bus: str) -> int:
        """Wait until the platform says that it and the bus are so; return the answer's status."""
        said: list[dict[str, Any]] = [{}]

        async def is_so() -> bool:
            said[0] = await self.health()
            return (said[0].get("status"), said[0].get("bus")) == (status, bus)

        try:
            await eventually(is_so, within_seconds=HEAL_SECONDS)
        except TimeoutError:
            pytest.fail(f"not {status}: {said[0]}")
        return int(said[0]["code"])

    def _is_of_family(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            if Path(process.cwd()).is_relative_to(self.fleet.local):
                return True
            return process.environ().get("TRADING_LOCAL_DIR") == str(self.fleet.local)
        return False

    def errors(self) -> list[str]:
        """Return the lines that the processes logged as errors since the last call."""
        found = []
        for file in sorted((self.fleet.local / "log").glob("*.log")):
            text = file.read_bytes()
            fresh = text[self.marks.get(file.name, 0) :].decode(errors="replace")
            self.marks[file.name] = len(text)
            found += [f"{file.name}: {line}" for line in fresh.splitlines() if _is_error(line)]
        return found


@pytest.fixture(
    scope="session",
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.nightly)],
)
def shared_stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The one fleet; ``stage`` brings it up again where a test has broken it."""
    with contextlib.ExitStack() as stack:
        bus, environ = None, {}
        if request.param == "postgresql":
            bus = BusServer()
            bus.start()
            stack.callback(bus.remove)
            server, name = session_server(), f"faults_{os.getpid()}"
            database = create_database(server, name)
            stack.callback(drop_database, server, name)
            url = database.render_as_string(hide_password=False)
            environ = {"DATABASE_URL": url, "REDIS_URL": bus.url}
        fleet = Fleet(tmp_path_factory.mktemp("faults"), free_port(), environ)
        stack.callback(fleet.stop)
        fleet.start()
        yield Stage(fleet, bus)


@pytest.fixture
async def stage(shared_stage: Stage) -> Stage:
    """The fleet, well and with its errors read."""
    if shared_stage.find("supervisord") is None:
        shared_stage.fleet.start()
    await shared_stage.until_healthy()
    shared_stage.errors()
    return shared_stage


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
async def traders(stage: Stage, journal: Journal) -> AsyncIterator[list[Trader]]:
    """People who keep the fleet busy."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Trader(stage.fleet, journal)) for _ in range(TRADERS)
        ]


async def until(
    condition: Callable[[], bool], traders: list[Trader], *, seconds: float = HEAL_SECONDS
) -> None:
    """Wait until a condition holds; a worker that has died ends the wait."""

    def holds() -> bool:
        for trader in traders:
            trader.ensure_working()
        return condition()

    await eventually(holds, within_seconds=seconds)


def now() -> float:
    return time.monotonic()


_ERROR = re.compile(r"Traceback|\[(?:error {4}|critical ?|alert|emerg)\]")
"""In lines of the modules and of nginx, whose own errors tell of modules that are away."""


def _is_error(line: str) -> bool:
    return _ERROR.search(line) is not None
