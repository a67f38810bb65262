"""What the gateway does: look at all modules, and put their answers together."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from trading_api.kernel.clock import Clock
from trading_api.modules.gateway.domain import (
    API_VERSIONS,
    CURRENT_VERSION,
    ApiVersion,
    DocumentKind,
    PlatformHealth,
    assess_platform,
    merge_asyncapi,
    merge_openapi,
)
from trading_api.modules.gateway.ports import Modules
from trading_api.runtime.announce import Announcement, ProcessRegistry

HEALTH_KEPT_SECONDS = 0.5
"""Health is public: however many ask for it, the modules are asked twice a second."""

DOCUMENTS_KEPT_SECONDS = 5.0

TITLE = "Trading API"
SUMMARY = "Market data, paper trading, wallets and sign-in, one process per module"

T = TypeVar("T")


class BusState(Protocol):
    """Whether the bus answers."""

    @property
    def is_up(self) -> bool:
        """Tell whether the bus answered lately."""
        ...


class GatewayService:
    """The platform seen as one.

    Args:
        version: of the program.
    """

    def __init__(
        self,
        *,
        modules: Modules,
        processes: ProcessRegistry,
        bus: BusState,
        clock: Clock,
        version: str,
    ) -> None:
        self._modules = modules
        self._processes = processes
        self._bus = bus
        self._clock = clock
        self._version = version
        self._started = clock.monotonic()
        self._health = _Kept[PlatformHealth](clock, HEALTH_KEPT_SECONDS)
        self._documents = {
            "openapi": _Kept[dict[str, Any]](clock, DOCUMENTS_KEPT_SECONDS),
            "asyncapi": _Kept[dict[str, Any]](clock, DOCUMENTS_KEPT_SECONDS),
        }

    async def assess_health(self) -> PlatformHealth:
        """Ask all modules at once how they are; the answer is at most half a second old."""
        return await self._health.get(self._assess_health)

    async def list_processes(self) -> Sequence[Announcement]:
        """Return every announced process, this one always among them."""
        return await self._processes.list_processes()

    async def list_module_names(self) -> Sequence[str]:
        """Return the modules that are meant to run, sorted."""
        return sorted(self._modules.names())

    async def list_versions(self) -> Sequence[ApiVersion]:
        """Return the API's versions, oldest first, planned ones too."""
        return API_VERSIONS

    async def get_current_version(self) -> ApiVersion:
        """Return the version that clients should use now."""
        return next(each for each in API_VERSIONS if each.name == CURRENT_VERSION)

    async def merge_documents(self, *, kind: DocumentKind) -> Mapping[str, Any]:
        """Return all modules' documents as one, at most five seconds old.

        A module that doesn't answer is left out and named under ``x-missing-modules``.
        """
        return await self._documents[kind].get(lambda: self._merge_documents(kind))

    async def _assess_health(self) -> PlatformHealth:
        names = self._modules.names()
        probes, processes = await asyncio.gather(
            asyncio.gather(*(self._modules.probe(name) for name in names)),
            self._processes.list_processes(),
        )
        instances = Counter(name for each in processes if each.is_live for name in each.modules)
        return assess_platform(
            probes,
            instances=instances,
            is_bus_up=self._bus.is_up,
            version=self._version,
            uptime_seconds=int(self._clock.monotonic() - self._started),
        )

    async def _merge_documents(self, kind: DocumentKind) -> dict[str, Any]:
        names = sorted(self._modules.names())
        found = await asyncio.gather(*(self._modules.fetch_document(name, kind) for name in names))
        documents = {
            name: each for name, each in zip(names, found, strict=True) if each is not None
        }
        if kind == "openapi":
            merged = merge_openapi(documents, title=TITLE, version=self._version, summary=SUMMARY)
            missing = [name for name in names if name not in documents]
            if missing:
                merged["x-missing-modules"] = missing
            return merged
        # A module without a socket has no such document; that is no loss.
        return merge_asyncapi(documents, title=TITLE, version=self._version, description=SUMMARY)


class _Kept(Generic[T]):
    """An answer that many share for a short while; one question runs at a time."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._until = 0.0

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            if self._value is None or self._clock.monotonic() >= self._until:
                self._value = await ask()
                self._until = self._clock.monotonic() + self._seconds
            return self._value
