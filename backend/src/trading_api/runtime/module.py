"""What a module is: a manifest, and the parts it is built of from a context."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from trading_api.contracts.envelope import Envelope, Event
from trading_api.kernel.clock import Clock
from trading_api.kernel.ids import IdSource
from trading_api.ledger.checks import Violation
from trading_api.runtime.announce import ProcessRegistry
from trading_api.runtime.bus import Bus
from trading_api.runtime.database import (
    Database,
    Inbox,
    Lease,
    Leases,
    Outbox,
    Transaction,
)
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.identity import Identity
from trading_api.runtime.peers import Peers
from trading_api.runtime.settings import PlatformSettings
from trading_api.runtime.ws import Channel, Hub

API_PREFIX = "/api"


@dataclass(frozen=True, slots=True)
class ModuleVersion:
    """One version of a module's API.

    Attributes:
        name: ``v1``, as in the URL.
        released: None while it is planned.
        sunset: when it stops answering; None while no end is planned.
    """

    name: str
    status: Literal["stable", "planned", "deprecated"] = "stable"
    released: date | None = None
    sunset: date | None = None
    deprecation_notice: str | None = None
    breaking_changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the platform knows of a module without building it.

    Attributes:
        name: kebab-case; its URLs are ``/api/<version>/<name>``, its database has that name.
        summary: what it owns, one line.
        url_prefixes: absolute prefixes it serves besides its own.
        publishes: events it writes to its outbox.
        consumes: other modules' events it handles.
    """

    name: str
    summary: str
    versions: tuple[ModuleVersion, ...] = (ModuleVersion("v1", released=date(2026, 11, 22)),)
    tags: tuple[str, ...] = ()
    url_prefixes: tuple[str, ...] = ()
    publishes: tuple[type[Event], ...] = ()
    consumes: tuple[type[Event], ...] = ()
    has_websocket: bool = False
    needs_database: bool = True

    def prefixes(self) -> tuple[str, ...]:
        """Return every public URL prefix, its own first."""
        own = (f"{API_PREFIX}/{version.name}/{self.name}" for version in self.versions)
        return (*own, *self.url_prefixes)


@dataclass(frozen=True, slots=True)
class Consumer:
    """A handler of one kind of event of another module.

    Attributes:
        producer: the module that publishes it.
        handle: one service call, whose transaction claims the inbox row first.
    """

    producer: str
    event: type[Event]
    handle: Callable[[Envelope, Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class BackgroundTask:
    """Work that goes on while the process lives; started again with back-off when it fails.

    Attributes:
        lease: name of the lease under which one instance alone does it; None for all.
        run: gets the lease, or None where it has none; cancelled at stop or when the lease goes.
    """

    name: str
    run: Callable[[Lease | None], Awaitable[None]]
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """A condition of readiness: ``run`` raises with the reason while it isn't met."""

    name: str
    run: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof of a module's stored data from scratch, read-only; ``trading-api verify`` runs it.

    Attributes:
        name: what is proven, such as ``ledger``.
        ids: the invariants it can find broken.
        run: returns what is broken; empty where everything holds; raises ``NotCheckedError``
            where that can't be told.
    """

    name: str
    ids: tuple[str, ...]
    run: Callable[[], Awaitable[Sequence[Violation]]]


@dataclass(frozen=True, slots=True)
class Command:
    """A verb of the manager that a module brings.

    Attributes:
        run: gets the arguments behind the verb and returns the exit code.
    """

    name: str
    help: str
    run: Callable[[Sequence[str]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class ModuleContext:
    """What a module is built from; handed through constructors, never looked up.

    Attributes:
        instance: unique among all processes that ever lived.
        environ: the process's environment, for the module's own settings class.
        database: the module's own; None where its manifest needs none.
        process_name: such as ``broker_0``, for people.
        processes: the live registry of all processes of the platform.
    """

    name: str
    instance: str
    process_name: str
    settings: PlatformSettings
    environ: Mapping[str, str]
    database: Database | None
    bus: Bus
    clock: Clock
    ids: IdSource
    identity: Identity
    peers: Peers
    hub: Hub
    processes: ProcessRegistry
    log: Any

    def require_database(self) -> Database:
        """Return the database of a module whose manifest needs one."""
        assert self.database is not None, f"{self.name} declares needs_database"
        return self.database


@dataclass(frozen=True, slots=True)
class ModuleParts:
    """What a module consists of once built.

    Attributes:
        routers: routes by version, behind ``/api/<version>/<name>``.
        absolute: routes at absolute paths: the manifest's ``url_prefixes``, and
            ``/internal/v1/<name>`` for other modules.
        channels: WebSocket channels by version.
        outbox: relayed to the bus; None where the module publishes nothing.
        leases: needed by tasks that have a lease, and by the outbox's relay.
        proofs: run every hour, and by ``trading-api verify``.
        after_restore: what else must change in the transaction after the module's database was
            restored, such as the epochs of event streams.
    """

    routers: Mapping[str, ModuleRouter] = field(default_factory=lambda: MappingProxyType({}))
    absolute: ModuleRouter | None = None
    channels: Mapping[str, Sequence[Channel[Any]]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    consumers: Sequence[Consumer] = ()
    tasks: Sequence[BackgroundTask] = ()
    checks: Sequence[Check] = ()
    commands: Sequence[Command] = ()
    outbox: Outbox | None = None
    inbox: Inbox | None = None
    leases: Leases | None = None
    proofs: Sequence[Proof] = ()
    after_restore: Sequence[Callable[[Transaction], Awaitable[None]]] = ()


class Module(ABC):
    """A part of the platform with its own words, tables and URLs."""

    manifest: ClassVar[Manifest]

    @abstractmethod
    def build(self, context: ModuleContext) -> ModuleParts:
        """Build repository, adapters and service, and hand out what the process serves."""

    async def start(self) -> None:  # noqa: B027 - most modules have nothing to do
        """Reconcile with the database before the module reports ready."""

    def drain(self) -> None:  # noqa: B027
        """End answers that have no end of their own: the process stops. Harmless when repeated.

        Called as soon as the server was told to stop, while it still answers other requests.
        """

    async def stop(self) -> None:  # noqa: B027
        """Release what ``start`` took; requests have ended by now."""
