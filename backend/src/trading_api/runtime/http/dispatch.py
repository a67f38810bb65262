"""Finds the handler of a request: first the table of hot paths, then the module by prefix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from trading_api.runtime.http.body import StrictRequest
from trading_api.runtime.http.routing import Handler


@dataclass(frozen=True, slots=True)
class _Template:
    """A hot path with one parameter in the middle or at the end."""

    method: str
    before: str
    name: str
    after: str
    handler: Handler

    def match(self, method: str, path: str) -> str | None:
        if method != self.method or not path.startswith(self.before):
            return None
        value = path[len(self.before) :]
        if self.after:
            if not value.endswith(self.after):
                return None
            value = value[: -len(self.after)]
        return value if value and "/" not in value else None


class Dispatch:
    """Routes one process's requests.

    Args:
        apps: FastAPI app of each absolute URL prefix; the longest matching prefix serves.
        hot: handlers in front of the routers, by method and path template with at most one
            ``{parameter}``.
    """

    def __init__(self, apps: Mapping[str, FastAPI], hot: Mapping[tuple[str, str], Handler]) -> None:
        self._prefixes = sorted(
            ((prefix, app, AsyncExitStackMiddleware(app.router)) for prefix, app in apps.items()),
            key=lambda each: -len(each[0]),
        )
        self._exact: dict[tuple[str, str], Handler] = {}
        self._templates: list[_Template] = []
        for (method, path), handler in hot.items():
            if "{" not in path:
                self._exact[method, path] = handler
                continue
            before, _, rest = path.partition("{")
            name, _, after = rest.partition("}")
            assert "{" not in after, f"hot path {path} has more than one parameter"
            self._templates.append(_Template(method, before, name, after, handler))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an HTTP request whose path has no trailing slash."""
        handler = self._find_hot(scope)
        if handler is not None:
            request = StrictRequest(scope, receive)
            response = await handler(request)
            await response(scope, receive, send)
            return
        path = scope["path"]
        for prefix, app, served in self._prefixes:
            if prefix == "/" or path == prefix or path.startswith(prefix + "/"):
                scope["app"] = app
                await served(scope, receive, send)
                return
        raise HTTPException(404, f"nothing is at {path[:200]!r}")

    def _find_hot(self, scope: Scope) -> Handler | None:
        method, path = scope["method"], scope["path"]
        handler = self._exact.get((method, path))
        if handler is not None:
            return handler
        for template in self._templates:
            value = template.match(method, path)
            if value is not None:
                parameters: dict[str, Any] = {template.name: value}
                scope["path_params"] = parameters
                return template.handler
        return None
