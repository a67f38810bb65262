"""The gateway's start page, and the assets of the pages that show documents.

No page loads anything from another host, and none runs a script that isn't allowed by name.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources

from starlette.responses import HTMLResponse

from trading_api.runtime.http.documents import START_SWAGGER, assets_directory, hash_source

_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".png": "image/png"}
_SHIPPED = ("swagger-ui.css", "swagger-ui-bundle.js", "redoc.standalone.js")
_GENERATED = {"start-swagger.js": START_SWAGGER}


@dataclass(frozen=True, slots=True)
class Asset:
    """A script or style of a page."""

    content: bytes
    media_type: str


@cache
def find_asset(name: str) -> Asset | None:
    """Return an asset by its exact name; None for any other name, so no path can be walked."""
    suffix = name[name.rfind(".") :]
    if name in _GENERATED:
        return Asset(_GENERATED[name].encode(), _MEDIA_TYPES[suffix])
    if name in _SHIPPED:
        return Asset((assets_directory() / name).read_bytes(), _MEDIA_TYPES[suffix])
    return None


def names_html(accept: str) -> bool:
    """Tell whether an Accept header names text/html; ``*/*`` doesn't, as curl sends it."""
    for each in accept.split(","):
        media_type, _, parameters = each.partition(";")
        if media_type.strip().lower() == "text/html":
            return re.search(r"\bq\s*=\s*0(\.0*)?\s*(;|$)", parameters) is None
    return False


def start_page(title: str, version: str, modules: Sequence[str]) -> HTMLResponse:
    """Return the page at ``/``: where the documents are and how every module is, live."""
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td><span class="state">asking…</span></td>'
        "<td></td><td></td><td></td><td></td></tr>"
        for name in modules
    )
    template, policy = _start_template()
    page = (
        template.replace("%TITLE%", escape(title))
        .replace("%VERSION%", escape(version))
        .replace("%ROWS%", rows)
    )
    return HTMLResponse(
        page,
        headers={
            "Content-Security-Policy": policy,
            "Cache-Control": "no-cache",
            "Vary": "Accept",
        },
    )


@cache
def _start_template() -> tuple[str, str]:
    template = resources.files(__package__).joinpath("start.html").read_text("utf-8")
    script = _between(template, "<script>", "</script>")
    style = _between(template, "<style>", "</style>")
    policy = (
        f"default-src 'none'; script-src {hash_source(script)}; style-src {hash_source(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return template, policy


def _between(text: str, start: str, end: str) -> str:
    _, _, rest = text.partition(start)
    return rest.partition(end)[0]
