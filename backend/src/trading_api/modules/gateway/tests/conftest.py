"""The gateway's routes behind the real edge, over modules that tests describe."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx
import pytest

from trading_api.kernel.clock import to_us
from trading_api.modules.gateway.api.v1 import build_router
from trading_api.modules.gateway.domain import DocumentKind, Probe
from trading_api.modules.gateway.service import GatewayService
from trading_api.runtime.announce import Announcement, ProcessRegistry, ProcessState
from trading_api.runtime.bus import Bus
from trading_api.runtime.settings import PlatformSettings
from trading_api.testkit.clocks import FixedClock
from trading_api.testkit.http import access_token, client_of

WELL = {"database": "ok", "bus": "ok"}


class FakeModules:
    """Modules that answer as a test says, and count how often they are asked."""

    def __init__(self) -> None:
        self.probes = {
            name: Probe(name, version="1.0.0", latency_us=1500, checks=dict(WELL))
            for name in ("broker", "wallet")
        }
        self.documents: dict[tuple[str, DocumentKind], Mapping[str, Any]] = {}
        self.asked = 0

    def names(self) -> list[str]:
        return list(self.probes)

    async def probe(self, module: str) -> Probe:
        self.asked += 1
        return self.probes[module]

    async def fetch_document(self, module: str, kind: DocumentKind) -> Mapping[str, Any] | None:
        return self.documents.get((module, kind))


class FakeBusState:
    """Whether the bus is up, as a test says."""

    is_up = True


@pytest.fixture
def modules() -> FakeModules:
    return FakeModules()


@pytest.fixture
def bus_state() -> FakeBusState:
    return FakeBusState()


@pytest.fixture
def service(modules: FakeModules, bus_state: FakeBusState, clock: FixedClock) -> GatewayService:
    async def find_state() -> ProcessState:
        return "ready"

    now_us = to_us(clock.now())
    own = Announcement(
        instance="gateway_0@host:1",
        process="gateway_0",
        modules={"gateway": ["v1"]},
        version="1.0.0",
        address="",
        started_at_us=now_us,
        heartbeat_at_us=now_us,
        state="ready",
    )
    # Never started, so away: what is tested here doesn't need it.
    processes = ProcessRegistry(
        bus=Bus("unix:///nowhere"), clock=clock, own=own, find_state=find_state
    )
    return GatewayService(
        modules=modules, processes=processes, bus=bus_state, clock=clock, version="1.0.0"
    )


AskingAs = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def asking_as(
    service: GatewayService, settings: PlatformSettings, clock: FixedClock
) -> AsyncIterator[AskingAs]:
    """Make clients: of nobody, or of a user with roles; in development or production."""
    clients: list[httpx.AsyncClient] = []

    def make(
        user_id: str | None = None, *, roles: tuple[str, ...] = (), is_production: bool = False
    ) -> httpx.AsyncClient:
        token = None
        if user_id is not None:
            token = access_token(settings, clock, user_id=user_id, roles=roles)
        router = build_router(service, is_production=is_production)
        client = client_of(router, prefix="", settings=settings, clock=clock, token=token)
        clients.append(client)
        return client

    yield make
    for each in clients:
        await each.aclose()


@pytest.fixture
def anybody(asking_as: AskingAs) -> httpx.AsyncClient:
    return asking_as()
