"""Fixtures: a real bus server, and a bus connected to it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from trading_api.runtime.bus.bus import Bus
from trading_api.testkit.bus import BusServer, started_bus


@pytest.fixture(scope="session")
def shared_bus_server() -> Iterator[BusServer]:
    """One server for the tests of this process that only need one to be there."""
    server = BusServer(keeps_data=False)
    server.start()
    yield server
    server.remove()


@pytest.fixture
async def bus(shared_bus_server: BusServer) -> AsyncIterator[Bus]:
    """A connected bus on an empty server."""
    made = await started_bus(shared_bus_server)
    await made.call("FLUSHALL")
    yield made
    await made.stop()


@pytest.fixture
def bus_server() -> Iterator[BusServer]:
    """A server of the test's own, to kill and freeze; keeps its data over a restart."""
    server = BusServer()
    server.start()
    yield server
    server.remove()
