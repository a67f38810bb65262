"""OpenAPI documents and the pages that show them, from local assets, one per module and version."""

import base64
import hashlib
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse

from trading_api import __version__
from trading_api.runtime.http.problems import PROBLEM_REFERENCE, Problem
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
    apps: Sequence[FastAPI], *, title: str, summary: str, version: str, identity: Identity
) -> dict[str, Any]:
    """Return the OpenAPI document of the apps' public routes under one API version.

    Routes outside of ``/api`` belong to every version; internal ones to none.
    """
    routes = [
        route
        for app in apps
        for route in app.router.routes
        if _belongs_to(getattr(route, "path", ""), version)
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
    shapes = {**components.get("schemas", {}), **_problem_schemas()}
    components["schemas"] = {name: shapes[name] for name in sorted(shapes)}
    return document


def hash_source(text: str) -> str:
    """Return the source by which a content security policy allows an inline script or style."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def swagger_page(*, title: str, openapi_url: str) -> HTMLResponse:
    """Return a Swagger UI page that loads nothing from any other host."""
    return _page(
        title,
        f'<link rel="stylesheet" href="{_asset("swagger-ui.css")}">',
        f'<div id="swagger-ui" data-url="{openapi_url}"></div>'
        f'<script src="{_asset("swagger-ui-bundle.js")}"></script>'
        f'<script src="{_asset("start-swagger.js")}"></script>',
    )


def redoc_page(*, title: str, openapi_url: str) -> HTMLResponse:
    """Return a ReDoc page that loads nothing from any other host."""
    return _page(
        title,
        "",
        f'<redoc spec-url="{openapi_url}"></redoc>'
        f'<script src="{_asset("redoc.standalone.js")}"></script>',
    )


START_SWAGGER = """\
const element = document.getElementById("swagger-ui");
SwaggerUIBundle({ url: element.dataset.url, dom_id: "#swagger-ui", deepLinking: true });
"""


def _asset(name: str) -> str:
    """Return an asset's URL; the version in it lets browsers keep the asset for a year."""
    return f"{ASSETS_PREFIX}/{name}?v={metadata.version('fastapi-offline')}"


def _page(title: str, head: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,">{head}</head>'
        f"<body>{body}</body></html>",
        headers={"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"},
    )


def _belongs_to(path: str, version: str) -> bool:
    if path.startswith("/api/"):
        return path.startswith(f"/api/{version}/")
    return not path.startswith("/internal/")


def _problem_schemas() -> dict[str, Any]:
    template = PROBLEM_REFERENCE.replace("Problem", "{model}")
    schema = Problem.model_json_schema(ref_template=template, mode="serialization")
    return {**schema.pop("$defs", {}), "Problem": schema}


__all__: Sequence[str] = (
    "ASSETS_PREFIX",
    "PAGE_POLICY",
    "START_SWAGGER",
    "assets_directory",
    "hash_source",
    "openapi_of",
    "redoc_page",
    "security_schemes",
    "swagger_page",
)
