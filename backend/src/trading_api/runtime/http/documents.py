"""OpenAPI documents and the pages that show them, from local assets, one per module and version."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse

from trading_api import __version__
from trading_api.runtime.identity import Identity

ASSETS_PREFIX = "/docs/assets"
"""Where the gateway serves the scripts and styles of the pages."""

PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; worker-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'"
)


def assets_directory() -> Path:
    """Return the folder with Swagger UI's and ReDoc's scripts, as their package ships them."""
    return Path(str(resources.files("fastapi_offline"))) / "static"


def security_schemes(identity: Identity) -> dict[str, Any]:
    """Return the carriers of a sign-in, as OpenAPI names them."""
    return {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "cookie": {"type": "apiKey", "in": "cookie", "name": identity.access_cookie},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "service": {"type": "http", "scheme": "bearer", "bearerFormat": "svc+jwt"},
    }


def openapi_of(
    app: FastAPI, *, title: str, summary: str, version: str, identity: Identity
) -> dict[str, Any]:
    """Return the OpenAPI document of the app's public routes under one API version."""
    prefix = f"/api/{version}/"
    routes = [
        route
        for route in app.router.routes
        if getattr(route, "path", "").startswith(prefix) or not _is_versioned(route)
    ]
    document = get_openapi(
        title=title,
        version=__version__,
        summary=summary,
        routes=routes,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = security_schemes(identity)
    # FastAPI describes its own shape of 422; ours is a problem like every other refusal.
    for unused in ("HTTPValidationError", "ValidationError"):
        components.get("schemas", {}).pop(unused, None)
    for path in document["paths"].values():
        for operation in path.values():
            for response in operation.get("responses", {}).values():
                _as_problem(response)
    return document


def swagger_page(*, title: str, openapi_url: str) -> HTMLResponse:
    """Return a Swagger UI page that loads nothing from any other host."""
    return _page(
        title,
        '<link rel="stylesheet" href="/docs/assets/swagger-ui.css">',
        f'<div id="swagger-ui" data-url="{openapi_url}"></div>'
        '<script src="/docs/assets/swagger-ui-bundle.js"></script>'
        '<script src="/docs/assets/start-swagger.js"></script>',
    )


def redoc_page(*, title: str, openapi_url: str) -> HTMLResponse:
    """Return a ReDoc page that loads nothing from any other host."""
    return _page(
        title,
        "",
        f'<redoc spec-url="{openapi_url}"></redoc>'
        '<script src="/docs/assets/redoc.standalone.js"></script>',
    )


START_SWAGGER = """\
const element = document.getElementById("swagger-ui");
SwaggerUIBundle({ url: element.dataset.url, dom_id: "#swagger-ui", deepLinking: true });
"""


def _page(title: str, head: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{head}</head>'
        f"<body>{body}</body></html>",
        headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"},
    )


def _is_versioned(route: Any) -> bool:
    return getattr(route, "path", "").startswith("/api/")


def _as_problem(response: dict[str, Any]) -> None:
    content = response.get("content", {}).get("application/json")
    if content is not None and content.get("schema", {}).get("$ref", "").endswith("/Problem"):
        response["content"] = {"application/problem+json": content}


__all__: Sequence[str] = (
    "ASSETS_PREFIX",
    "PAGE_POLICY",
    "START_SWAGGER",
    "assets_directory",
    "openapi_of",
    "redoc_page",
    "security_schemes",
    "swagger_page",
)
