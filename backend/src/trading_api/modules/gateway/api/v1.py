"""Version 1 of the gateway's routes, all at the root or directly under ``/api/v1``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trading_api import __version__
from trading_api.kernel.errors import NotFoundError
from trading_api.modules.gateway.api import pages
from trading_api.modules.gateway.domain import CURRENT_VERSION, DocumentKind, HealthStatus
from trading_api.modules.gateway.schemas import (
    ApiVersionsView,
    ApiVersionView,
    ModuleView,
    PlatformHealthView,
    ProcessView,
    RootView,
)
from trading_api.modules.gateway.service import TITLE, GatewayService
from trading_api.runtime.http.access import Access, OptionalPrincipal
from trading_api.runtime.http.documents import (
    ASSETS_PREFIX,
    PAGE_POLICY,
    redoc_page,
    swagger_page,
)
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.http.socket_page import asyncapi_page
from trading_api.runtime.identity import Principal

BASE = f"/api/{CURRENT_VERSION}"

LINKS: Mapping[str, str] = {
    "docs": f"{BASE}/docs",
    "redoc": f"{BASE}/redoc",
    "openapi": f"{BASE}/openapi.json",
    "asyncapi": f"{BASE}/ws/asyncapi.json",
    "asyncapi_docs": f"{BASE}/ws/asyncapi",
    "health": f"{BASE}/health",
    "versions": f"{BASE}/versions",
    "modules": f"{BASE}/modules",
}

OPERATOR_ROLES = frozenset({"operator", "admin"})


def build_router(service: GatewayService, *, is_production: bool) -> ModuleRouter:
    """Declare the platform's routes.

    Args:
        is_production: the documents and their pages then need an operator, and health tells
            reasons to operators alone.
    """
    router = ModuleRouter(tags=["gateway"])
    _add_platform_routes(router, service, is_production=is_production)
    _add_document_routes(
        router, service, Access.roles(*OPERATOR_ROLES) if is_production else Access.public()
    )
    return router


def _add_platform_routes(
    router: ModuleRouter, service: GatewayService, *, is_production: bool
) -> None:
    @router.get(
        "/",
        access=Access.public(),
        response_model=RootView,
        responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    )
    async def get_root(request: Request) -> Response:
        """Describe this installation; a page where the client asks for text/html."""
        names = list(await service.list_module_names())
        if pages.names_html(request.headers.get("accept", "")):
            return pages.start_page(TITLE, __version__, names)
        view = RootView(
            name=TITLE,
            version=__version__,
            api_version=CURRENT_VERSION,
            modules=names,
            links=dict(LINKS),
        )
        return JSONResponse(view.model_dump(mode="json"), headers={"Vary": "Accept"})

    async def get_health(principal: OptionalPrincipal) -> Response:
        """Tell how every module, the bus and the databases are.

        All modules are asked at once and have one second. Answers 503 exactly where a module
        can't serve; a platform without its bus is degraded and answers 200.
        """
        health = await service.assess_health()
        view = PlatformHealthView.of(
            health, with_details=not is_production or _is_operator(principal)
        )
        status = 503 if health.status is HealthStatus.UNHEALTHY else 200
        return JSONResponse(view.model_dump(mode="json"), status_code=status)

    for path in ("/health", f"{BASE}/health"):
        router.get(
            path,
            access=Access.public(),
            response_model=PlatformHealthView,
            responses={503: {"model": PlatformHealthView, "description": "a module can't serve"}},
        )(get_health)

    @router.get(f"{BASE}/versions", access=Access.public(), response_model=ApiVersionsView)
    async def list_versions() -> ApiVersionsView:
        """List the API's versions with their dates and breaking changes, planned ones too."""
        versions = await service.list_versions()
        return ApiVersionsView(
            current_version=CURRENT_VERSION,
            available_versions=[ApiVersionView.of(each) for each in versions],
            documentation_url=LINKS["docs"],
            support_contact=f"the operator of this installation (trading-api {__version__})",
        )

    @router.get(f"{BASE}/version", access=Access.public(), response_model=ApiVersionView)
    async def get_version() -> ApiVersionView:
        """Describe the version that clients should use now."""
        return ApiVersionView.of(await service.get_current_version())

    @router.get(
        f"{BASE}/modules", access=Access.user(with_keys=True), response_model=list[ModuleView]
    )
    async def list_modules() -> list[ModuleView]:
        """List the modules and the processes that serve them, from their heartbeats."""
        return _by_module(await service.list_processes())


def _add_document_routes(router: ModuleRouter, service: GatewayService, access: Access) -> None:
    hidden: dict[str, Any] = {
        "access": access,
        "include_in_schema": False,
        "response_model": None,
    }

    def serve_document(kind: DocumentKind, *paths: str) -> None:
        async def get_document() -> Response:
            return JSONResponse(dict(await service.merge_documents(kind=kind)))

        for path in paths:
            router.get(path, **hidden)(get_document)

    serve_document("openapi", "/openapi.json", f"{BASE}/openapi.json")
    serve_document("asyncapi", "/asyncapi.json", f"{BASE}/ws/asyncapi.json")

    async def get_docs() -> Response:
        return swagger_page(title=TITLE, openapi_url=LINKS["openapi"])

    async def get_redoc() -> Response:
        return redoc_page(title=TITLE, openapi_url=LINKS["openapi"])

    async def get_asyncapi_page() -> Response:
        document = await service.merge_documents(kind="asyncapi")
        return asyncapi_page(document, title=TITLE, document_url=LINKS["asyncapi"])

    for path in ("/docs", f"{BASE}/docs"):
        router.get(path, **hidden)(get_docs)
    for path in ("/redoc", f"{BASE}/redoc"):
        router.get(path, **hidden)(get_redoc)
    router.get(f"{BASE}/ws/asyncapi", **hidden)(get_asyncapi_page)

    @router.get(
        ASSETS_PREFIX + "/{name}",
        access=Access.public(),
        include_in_schema=False,
        response_model=None,
    )
    async def get_asset(name: str) -> Response:
        asset = pages.find_asset(name)
        if asset is None:
            raise NotFoundError(f"there is no asset {name!r:.80}")
        return Response(
            asset.content,
            media_type=asset.media_type,
            headers={
                # The pages ask with the package's version in the query, so a new one is a new URL.
                "Cache-Control": "public, max-age=31536000, immutable",
                "Content-Security-Policy": PAGE_POLICY,
            },
        )


def _is_operator(principal: Principal | None) -> bool:
    return principal is not None and bool(principal.roles & OPERATOR_ROLES)


def _by_module(processes: Sequence[Any]) -> list[ModuleView]:
    instances: dict[str, list[ProcessView]] = defaultdict(list)
    versions: dict[str, set[str]] = defaultdict(set)
    for process in processes:
        for module, names in process.modules.items():
            instances[module].append(ProcessView.of(process))
            versions[module].update(names)
    return [
        ModuleView(module=module, versions=sorted(versions[module]), instances=instances[module])
        for module in sorted(instances)
    ]
