"""The composition root of a process: any set of modules becomes one ASGI app.

Nothing in a module knows whether it shares its process. The manager serves one module per
process; ``make dev`` serves them all in one.
"""

import gc
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from trading_api import __version__
from trading_api.kernel.clock import Clock, SystemClock, to_us
from trading_api.kernel.errors import UnavailableError
from trading_api.kernel.ids import IdSource, UuidV7Ids
from trading_api.runtime.announce import Announcement, ProcessRegistry, ProcessState
from trading_api.runtime.api_keys import ApiKeys
from trading_api.runtime.background import background_of
from trading_api.runtime.bus import Bus
from trading_api.runtime.database import Database
from trading_api.runtime.database.revisions import Migrations, ensure_at_head
from trading_api.runtime.facts import facts_router
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.dispatch import Dispatch
from trading_api.runtime.http.documents import openapi_of, redoc_page, swagger_page
from trading_api.runtime.http.edge import API_HEADERS, Edge
from trading_api.runtime.http.express import Express, ExpressLane
from trading_api.runtime.http.health import Readiness, health_router
from trading_api.runtime.http.late import LateRoute
from trading_api.runtime.http.problems import ErrorShape
from trading_api.runtime.http.routing import (
    Handler,
    ModuleRouter,
    add_routes,
    express_routes,
)
from trading_api.runtime.http.socket_page import asyncapi_page
from trading_api.runtime.identity import Identity, ServiceTokens
from trading_api.runtime.module import (
    API_PREFIX,
    BackgroundTask,
    Check,
    Module,
    ModuleContext,
    ModuleParts,
    ModuleVersion,
)
from trading_api.runtime.peers import Peers
from trading_api.runtime.rates import RateLimiter, rates_of
from trading_api.runtime.revocations import watch_revocations
from trading_api.runtime.settings import PlatformSettings
from trading_api.runtime.tasks import TaskRunner
from trading_api.runtime.ws import Hub
from trading_api.runtime.ws.asyncapi import asyncapi_of
from trading_api.runtime.ws.socket import WebSocketEndpoint

log = structlog.get_logger("app")

ADDRESS_NAME = "PROCESS_ADDRESS"
"""Environment name by which whoever starts a process tells it where it listens."""

_DEFAULT_SOCKET_MODULE = "datafeed"


@dataclass(frozen=True, slots=True)
class HostedModule:
    """One module in this process, built.

    Attributes:
        migrations: its revisions; None where it has no database.
        apps: FastAPI app of each API version, and of its absolute routes under "".
    """

    module: Module
    context: ModuleContext
    parts: ModuleParts
    migrations: Migrations | None
    readiness: Readiness
    runner: TaskRunner
    apps: Mapping[str, FastAPI]
    sockets: Mapping[str, WebSocketEndpoint]


class ProcessApp:
    """The ASGI app of one process.

    Args:
        modules: classes by module name.
        environ: the process's environment, for the modules' own settings.
        process_name: such as ``broker_0``.
    """

    def __init__(
        self,
        modules: Mapping[str, type[Module]],
        *,
        settings: PlatformSettings,
        environ: Mapping[str, str],
        process_name: str,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._settings = settings
        self._process_name = process_name
        self._clock = clock
        self.bus = Bus(settings.bus_url())
        first = next(iter(modules))
        tokens = ServiceTokens(settings=settings, module=first, clock=clock)
        self.peers = Peers(settings=settings, tokens=tokens)
        self.identity = Identity(
            settings=settings,
            clock=clock,
            fetch_keys=self._fetch_keys,
            resolve_api_key=ApiKeys(auth=self.peers.client("auth"), clock=clock).resolve,
        )
        self._instance = _instance_name(process_name)
        self._environ = environ
        self._ids = ids
        self._hot: dict[tuple[str, str], Handler] = {}
        self.limiter = RateLimiter(bus=self.bus, clock=clock, rates=rates_of(settings))
        self.express_lane = self._make_express_lane()
        self._shapes: dict[str, ErrorShape] = {}
        self._prefixes: dict[str, FastAPI] = {}
        self._is_started = False
        self._openapi: dict[tuple[str, str], dict[str, Any]] = {}
        self.processes = self._registry(modules)
        announcing = BackgroundTask("announce", lambda _: self.processes.keep_announcing())
        watching = watch_revocations(self.identity, self.bus, self.peers)
        self._runner = TaskRunner([announcing, watching], leases=None, clock=clock)
        self.hosted = {name: self._host(module) for name, module in modules.items()}
        self.peers.add_local(tuple(modules), self)
        edge = Edge(
            Dispatch(self._prefixes, self._hot),
            identity=self.identity,
            ids=ids,
            error_shapes=self._shapes,
            limiter=self.limiter,
        )
        self._http = Express(self._with_cors(edge), self.express_lane)
        self._sockets = {
            f"{API_PREFIX}/{version}/{name}/ws": endpoint
            for name, hosted in self.hosted.items()
            for version, endpoint in hosted.sockets.items()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "http":
            own = _PROCESS_PATHS.get(scope["path"])
            if own is not None:
                response: Response = await own(self)
                await response(scope, receive, send)
            else:
                await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._serve_socket(scope, receive, send)
        else:
            await self._serve_lifespan(receive, send)

    async def start(self) -> None:
        """Reconcile every module with its database, then begin background work.

        Raises:
            NotAtHeadError: a database wasn't migrated to this program's revision.
        """
        await self.bus.start()
        for hosted in self.hosted.values():
            if hosted.migrations is not None:
                await ensure_at_head(hosted.context.require_database(), hosted.migrations)
            await hosted.module.start()
            await hosted.runner.start()
        self._is_started = True
        await self._runner.start()
        log.info("process_started", modules=list(self.hosted), version=__version__)

    def drain(self) -> None:
        """Be not ready any more, and end answers without an end; harmless when repeated.

        The HTTP protocol calls it when the server stops, which waits for every answer before it
        calls ``stop``.
        """
        for hosted in self.hosted.values():
            hosted.readiness.is_draining = True
            hosted.module.drain()

    async def stop(self) -> None:
        """Drain: not ready, sockets closed with 1012, background work ended, connections closed."""
        self.drain()
        for hosted in self.hosted.values():
            for endpoint in hosted.sockets.values():
                await endpoint.close_all()
        await self._runner.stop()
        await self.processes.withdraw()
        for hosted in reversed(self.hosted.values()):
            await hosted.runner.stop()
            await hosted.module.stop()
            await hosted.context.hub.stop()
            if hosted.context.database is not None:
                await hosted.context.database.close()
        await self.peers.close()
        await self.bus.stop()
        log.info("process_stopped", modules=list(self.hosted))

    def openapi(self, module: str, version: str) -> dict[str, Any]:
        """Return the OpenAPI document of one version of a module; made at the first call."""
        document = self._openapi.get((module, version))
        if document is None:
            hosted = self.hosted[module]
            manifest = hosted.module.manifest
            document = self._openapi[module, version] = openapi_of(
                [hosted.apps[name] for name in (version, "") if name in hosted.apps],
                title=manifest.name,
                summary=manifest.summary,
                version=version,
                identity=self.identity,
            )
        return document

    def complete_routes(self) -> None:
        """Build every route now; raises ``FastAPIError`` where an endpoint can't be served."""
        for app in self._prefixes.values():
            for route in app.routes:
                if isinstance(route, LateRoute):
                    route.complete()

    def versions(self) -> Mapping[str, tuple[str, ...]]:
        """Return the served API versions by module."""
        return {
            name: tuple(version for version in hosted.apps if version)
            for name, hosted in self.hosted.items()
        }

    def asyncapi(self, module: str, version: str) -> dict[str, Any] | None:
        """Return the AsyncAPI document of one version's socket; None where it has none."""
        channels = self.hosted[module].parts.channels.get(version)
        return None if not channels else asyncapi_of(module, version, channels)

    async def livez(self) -> Response:
        """Answer while the event loop turns."""
        return JSONResponse({"status": "alive"})

    async def readyz(self) -> Response:
        """Answer 200 when every module of this process can serve, else 503 with the reasons."""
        modules: dict[str, Any] = {}
        is_ready = True
        for name, hosted in self.hosted.items():
            failures = await hosted.readiness.failures()
            degradations = await hosted.readiness.degradations()
            is_ready = is_ready and not failures
            modules[name] = {
                "ready": not failures,
                "checks": hosted.readiness.names,
                "failures": failures,
                "degraded": degradations,
            }
        body = {
            "ready": is_ready,
            "process": self._process_name,
            "version": __version__,
            "modules": modules,
        }
        return JSONResponse(body, status_code=200 if is_ready else 503)

    async def metrics(self) -> Response:
        """Answer Prometheus' exposition of this process."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    def _registry(self, modules: Mapping[str, type[Module]]) -> ProcessRegistry:
        now_us = to_us(self._clock.now())
        own = Announcement(
            instance=self._instance,
            process=self._process_name,
            modules={
                name: [each.name for each in module.manifest.versions]
                for name, module in modules.items()
            },
            version=__version__,
            address=self._environ.get(ADDRESS_NAME, ""),
            started_at_us=now_us,
            heartbeat_at_us=now_us,
            state="starting",
        )
        return ProcessRegistry(
            bus=self.bus, clock=self._clock, own=own, find_state=self._find_state
        )

    async def _find_state(self) -> ProcessState:
        if not self._is_started:
            return "starting"
        for hosted in self.hosted.values():
            if hosted.readiness.is_draining:
                return "stopping"
            if await hosted.readiness.failures():
                return "not_ready"
        return "ready"

    def _host(self, module_class: type[Module]) -> HostedModule:
        module = module_class()
        manifest = module.manifest
        context = self._context(module)
        parts = module.build(context)
        migrations = None
        if context.database is not None:
            package = module_class.__module__.rpartition(".")[0]
            migrations = Migrations.of_package(manifest.name, package)
        readiness = Readiness(
            required=[*_database_checks(context), *parts.checks],
            degrading=[Check("bus", self._ensure_bus)],
        )
        sockets = {
            version: WebSocketEndpoint(
                channels=channels,
                hub=context.hub,
                identity=self.identity,
                settings=self._settings,
                clock=self._clock,
            )
            for version, channels in parts.channels.items()
        }
        tasks: list[BackgroundTask] = [*parts.tasks, *background_of(context, manifest, parts)]
        return HostedModule(
            module=module,
            context=context,
            parts=parts,
            migrations=migrations,
            readiness=readiness,
            runner=TaskRunner(tasks, leases=parts.leases, clock=self._clock),
            apps=self._apps(module, context, parts, readiness),
            sockets=sockets,
        )

    def _context(self, module: Module) -> ModuleContext:
        name = module.manifest.name
        database = None
        if module.manifest.needs_database:
            database = Database(
                self._settings.database_url_of(name, self._environ),
                schema=name,
                pool_size=self._settings.database_pool_size,
                pool_overflow=self._settings.database_pool_overflow,
            )
        return ModuleContext(
            name=name,
            instance=self._instance,
            process_name=self._process_name,
            settings=self._settings,
            environ=self._environ,
            database=database,
            bus=self.bus,
            clock=self._clock,
            ids=self._ids,
            identity=self.identity,
            peers=self.peers,
            hub=Hub(module=name, bus=self.bus, instance=self._instance, clock=self._clock),
            processes=self.processes,
            log=structlog.get_logger(name),
        )

    def _apps(
        self, module: Module, context: ModuleContext, parts: ModuleParts, readiness: Readiness
    ) -> dict[str, FastAPI]:
        manifest = module.manifest
        apps: dict[str, FastAPI] = {}
        for version in manifest.versions:
            router = parts.routers.get(version.name)
            if router is None:
                continue
            prefix = f"{API_PREFIX}/{version.name}/{manifest.name}"
            app = _bare_app(manifest.name)
            self._add(app, health_router(manifest, version, readiness, self._clock), prefix)
            self._add(app, self._documents_router(manifest.name, version, parts), prefix)
            self._add(app, router, prefix)
            apps[version.name] = self._prefixes[prefix] = app
        absolute = parts.absolute or ModuleRouter()
        if parts.outbox is not None:
            absolute.include(facts_router(parts.outbox, context.require_database()), prefix="")
        if absolute.declarations:
            app = apps[""] = _bare_app(manifest.name)
            self._add(app, absolute, "")
            for prefix in (*manifest.url_prefixes, f"/internal/v1/{manifest.name}"):
                self._prefixes[prefix] = app
        return apps

    def _add(self, app: FastAPI, router: ModuleRouter, prefix: str) -> None:
        self._hot |= add_routes(app, router, prefix=prefix)
        self.express_lane.add(express_routes(router, prefix=prefix))
        for inner, shape in router.error_shapes.items():
            self._shapes[prefix + inner] = shape

    def _documents_router(
        self, name: str, version: ModuleVersion, parts: ModuleParts
    ) -> ModuleRouter:
        router = ModuleRouter(tags=[name])
        base = f"{API_PREFIX}/{version.name}/{name}"
        # The gateway asks as a service when it merges the documents.
        operators = Access.roles("operator", "admin", "service")
        access = operators if self._settings.is_production else None
        options: dict[str, Any] = {
            "access": access or Access.public(),
            "include_in_schema": False,
            "response_model": None,
        }

        @router.get("/openapi.json", **options)
        async def get_openapi() -> Response:
            return JSONResponse(self.openapi(name, version.name))

        @router.get("/docs", **options)
        async def get_docs() -> Response:
            return swagger_page(title=f"{name} {version.name}", openapi_url=f"{base}/openapi.json")

        @router.get("/redoc", **options)
        async def get_redoc() -> Response:
            return redoc_page(title=f"{name} {version.name}", openapi_url=f"{base}/openapi.json")

        if version.name in parts.channels:

            @router.get("/ws/asyncapi.json", **options)
            async def get_asyncapi() -> Response:
                return JSONResponse(self.asyncapi(name, version.name))

            @router.get("/ws/asyncapi", **options)
            async def get_asyncapi_page() -> Response:
                return asyncapi_page(
                    self.asyncapi(name, version.name) or {},
                    title=f"{name} {version.name}",
                    document_url=f"{base}/ws/asyncapi.json",
                )

        return router

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._sockets.get(scope["path"].rstrip("/"))
        if endpoint is None:
            endpoint = self._socket_by_query(scope)
        if endpoint is None:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "no such socket"})
            return
        await endpoint(scope, receive, send)

    def _socket_by_query(self, scope: Scope) -> WebSocketEndpoint | None:
        version = scope["path"].removeprefix(f"{API_PREFIX}/").removesuffix("/ws")
        if "/" in version:
            return None
        query = dict(
            part.partition("=")[::2] for part in scope["query_string"].decode("latin-1").split("&")
        )
        name = query.get("type") or _DEFAULT_SOCKET_MODULE
        return self._sockets.get(f"{API_PREFIX}/{version}/{name}/ws")

    async def _serve_lifespan(self, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        try:
            await self.start()
        except Exception as error:
            log.error("process_failed_to_start", error=str(error), exc_info=error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        # What was made up to here stays for good; the collector needn't look through it again.
        gc.collect()
        gc.freeze()
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    def _with_cors(self, inner: ASGIApp) -> ASGIApp:
        if not self._settings.allowed_origins:
            return inner
        return CORSMiddleware(
            inner,
            allow_origins=sorted(self._settings.allowed_origins),
            allow_credentials=self._settings.cors_allow_credentials,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "X-Account-Id",
                "X-API-Key",
            ],
            expose_headers=[
                "Idempotent-Replayed",
                "RateLimit",
                "RateLimit-Policy",
                "Retry-After",
                "X-Next-Cursor",
                "X-Request-ID",
            ],
        )

    def _make_express_lane(self) -> ExpressLane:
        # As the CORS middleware does, so that no cache mixes answers to different origins.
        vary = ((b"vary", b"Origin"),) if self._settings.allowed_origins else ()
        return ExpressLane(
            identity=self.identity, headers=(*API_HEADERS, *vary), limiter=self.limiter
        )

    async def _ensure_bus(self) -> None:
        if not self.bus.is_up:
            raise UnavailableError("the bus does not answer")

    async def _fetch_keys(self) -> Mapping[str, Any]:
        answer = await self.peers.client("auth").get("/api/v1/auth/.well-known/jwks.json")
        if answer.status_code != 200:
            raise UnavailableError("auth did not hand out its keys", module="auth")
        keys: Mapping[str, Any] = answer.json()
        return keys


def create_app(
    modules: Mapping[str, type[Module]],
    *,
    settings: PlatformSettings,
    environ: Mapping[str, str] | None = None,
    process_name: str = "process",
    clock: Clock | None = None,
    ids: IdSource | None = None,
) -> ProcessApp:
    """Compose the app of a process from module classes by name.

    Args:
        environ: for the modules' own settings; the process's own where None.
        clock: the system's where None.
        ids: random UUIDv7 where None.
    """
    return ProcessApp(
        modules,
        settings=settings,
        environ=os.environ if environ is None else environ,
        process_name=process_name,
        clock=clock or SystemClock(),
        ids=ids or UuidV7Ids(),
    )


_PROCESS_PATHS = {
    "/livez": ProcessApp.livez,
    "/readyz": ProcessApp.readyz,
    "/metrics": ProcessApp.metrics,
}


def _bare_app(title: str) -> FastAPI:
    return FastAPI(
        title=title, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False
    )


def _database_checks(context: ModuleContext) -> list[Check]:
    return [] if context.database is None else [Check("database", context.database.ping)]


def _instance_name(process_name: str) -> str:
    return f"{process_name}@{socket.gethostname()}:{os.getpid()}:{time.time_ns():x}"
