"""A module's routes of one version: paths, handlers, who may call them, which errors they give.

A route with ``hot`` is served by that handler instead of FastAPI's parameter solving, from a path
table in front of the router as well as from the router; the endpoint's signature then only
documents it, and a parity test holds the two to the same answers. With ``express`` besides, answers
that are ready leave before anything else is done for the request; see ``runtime.http.express``.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Header
from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.errors import TradingError, UnauthenticatedError
from trading_api.runtime.http.access import Access, authorize
from trading_api.runtime.http.body import LIMIT_BYTES, StrictRequest, UnsupportedMediaTypeError
from trading_api.runtime.http.express import ExpressRoute, FindAnswer
from trading_api.runtime.http.late import LateRoute
from trading_api.runtime.http.problems import (
    MEDIA_TYPE,
    PROBLEM_REFERENCE,
    ErrorShape,
    status_of,
)
from trading_api.runtime.http.quotas import charge
from trading_api.runtime.identity import Principal
from trading_api.runtime.rates import RateClass

F = TypeVar("F", bound=Callable[..., Any])
HotHandler = Callable[[Request, Principal | None], Awaitable[Response]]
BodyKind = Literal["json", "form", "json_or_form", "any"]

BODY_LIMIT_KEY = "trading.body_limit"
ROUTE_KEY = "trading.route"


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="repeat the request with the same key and body and get the first answer",
    ),
]


@dataclass(frozen=True, slots=True)
class Declaration:
    """One route as its module declares it.

    Attributes:
        method: GET, POST, PUT, PATCH or DELETE.
        path: behind the router's prefix, with ``{parameters}``.
        body: what content types it reads.
        body_limit_bytes: largest body.
        rate: the quota that it counts towards; by the access where None, see ``rate_class``.
        express: finds finished answers of a GET without parameters in its path.
        options: what FastAPI's ``add_api_route`` takes besides.
    """

    method: str
    path: str
    endpoint: Callable[..., Any]
    access: Access
    hot: HotHandler | None = None
    errors: tuple[type[TradingError], ...] = ()
    body: BodyKind = "json"
    body_limit_bytes: int = LIMIT_BYTES
    rate: RateClass | None = None
    express: FindAnswer | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def rate_class(self) -> RateClass:
        """The quota it counts towards: what needs to trade or withdraw counts as orders."""
        if self.rate is not None:
            return self.rate
        scope = self.access.needed_scope or ""
        is_money = self.method != "GET" and scope.endswith((":trade", ":withdraw"))
        return "orders" if is_money else "rest"


class ModuleRouter:
    """Collects a module's route declarations; the process turns them into routes.

    Args:
        tags: OpenAPI tags of all its routes.
        error_shape: how errors under this router look; problem+json where None.
    """

    def __init__(self, *, tags: Sequence[str] = (), error_shape: ErrorShape | None = None) -> None:
        self.tags = list(tags)
        self.declarations: list[Declaration] = []
        self.error_shapes: dict[str, ErrorShape] = {"": error_shape} if error_shape else {}

    def route(
        self,
        method: str,
        path: str,
        *,
        access: Access,
        hot: HotHandler | None = None,
        errors: Sequence[type[TradingError]] = (),
        body: BodyKind = "json",
        body_limit_bytes: int = LIMIT_BYTES,
        rate: RateClass | None = None,
        express: FindAnswer | None = None,
        **options: Any,
    ) -> Callable[[F], F]:
        """Declare a route; ``options`` go to FastAPI (response_model, status_code, summary…)."""

        def declare(endpoint: F) -> F:
            declaration = Declaration(
                method,
                path,
                endpoint,
                access,
                hot=hot,
                errors=tuple(errors),
                body=body,
                body_limit_bytes=body_limit_bytes,
                rate=rate,
                express=express,
                options=options,
            )
            self.declarations.append(declaration)
            return endpoint

        return declare

    def get(self, path: str, *, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a GET route; see ``route``."""
        return self.route("GET", path, access=access, **options)

    def post(self, path: str, *, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a POST route; see ``route``."""
        return self.route("POST", path, access=access, **options)

    def put(self, path: str, *, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a PUT route; see ``route``."""
        return self.route("PUT", path, access=access, **options)

    def patch(self, path: str, *, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a PATCH route; see ``route``."""
        return self.route("PATCH", path, access=access, **options)

    def delete(self, path: str, *, access: Access, **options: Any) -> Callable[[F], F]:
        """Declare a DELETE route; see ``route``."""
        return self.route("DELETE", path, access=access, **options)

    def include(self, router: "ModuleRouter", *, prefix: str) -> None:
        """Take over another router's routes under a prefix, its error shape with them."""
        for each in router.declarations:
            options = {"tags": router.tags, **each.options}
            self.route(
                each.method,
                prefix + each.path,
                access=each.access,
                hot=each.hot,
                errors=each.errors,
                body=each.body,
                body_limit_bytes=each.body_limit_bytes,
                rate=each.rate,
                express=each.express,
                **options,
            )(each.endpoint)
        for inner, shape in router.error_shapes.items():
            self.error_shapes[prefix + inner] = shape


Handler = Callable[[Request], Awaitable[Response]]


def handler_of(declaration: Declaration, template: str, inner: Handler | None) -> Handler:
    """Put access, quota and strict parsing in front of a route's handler.

    Args:
        template: the absolute path with parameters, as metrics name it.
        inner: FastAPI's own handler; not used where the declaration is hot.
    """
    hot, access, rate_class = declaration.hot, declaration.access, declaration.rate_class
    reads_body = declaration.method in ("POST", "PUT", "PATCH", "DELETE")

    async def handle(request: Request) -> Response:
        request.scope[ROUTE_KEY] = template
        request.scope[BODY_LIMIT_KEY] = declaration.body_limit_bytes
        try:
            principal = await authorize(request, access)
        except UnauthenticatedError:
            # Guessing tokens costs the one who guesses.
            await charge(request.scope, rate_class, None)
            raise
        await charge(request.scope, rate_class, principal)
        if isinstance(request, StrictRequest):
            strict = request
        else:
            strict = StrictRequest(request.scope, request.receive)
        if reads_body:
            await _read_body(strict, declaration)
        if hot is not None:
            return await hot(strict, principal)
        assert inner is not None
        return await inner(strict)

    return handle


def add_routes(
    app: FastAPI, router: ModuleRouter, *, prefix: str
) -> dict[tuple[str, str], Handler]:
    """Add a router's routes to an app under a prefix; return the hot ones by method and path."""
    hot: dict[tuple[str, str], Handler] = {}
    for declaration in router.declarations:
        template = prefix + declaration.path
        if declaration.hot is not None:
            hot[declaration.method, template] = handler_of(declaration, template, None)
        options = {"tags": router.tags, **declaration.options}
        responses = {**_responses(declaration), **options.pop("responses", {})}
        extra = {
            **_security(declaration.access),
            "x-rate-class": declaration.rate_class,
            **options.pop("openapi_extra", {}),
        }
        app.router.add_api_route(
            template or "/",
            declaration.endpoint,
            methods=[declaration.method],
            route_class_override=_route_class(declaration, template),
            responses=responses,
            openapi_extra=extra,
            **options,
        )
    return hot


def express_routes(router: ModuleRouter, *, prefix: str) -> dict[str, ExpressRoute]:
    """Return a router's routes that may have answers ready, by absolute path."""
    return {
        prefix + each.path: ExpressRoute(
            prefix + each.path, each.access, each.rate_class, each.express
        )
        for each in router.declarations
        if each.express is not None
    }


def _route_class(declaration: Declaration, template: str) -> type[LateRoute]:
    class DeclaredRoute(LateRoute):
        def get_route_handler(self) -> Any:
            inner = None if declaration.hot is not None else super().get_route_handler()
            return handler_of(declaration, template, inner)

    return DeclaredRoute


async def _read_body(request: StrictRequest, declaration: Declaration) -> None:
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise UnsupportedMediaTypeError("send the body without Content-Encoding")
    if declaration.body == "any":
        return
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or content_type.endswith("+json")
    is_form = content_type in ("application/x-www-form-urlencoded", "multipart/form-data")
    if declaration.body in ("json", "json_or_form") and is_json:
        await request.load_json()
        return
    if declaration.body in ("form", "json_or_form") and is_form:
        return
    if await request.body():
        raise UnsupportedMediaTypeError(
            f"send the body as {_CONTENT_TYPES[declaration.body]}, not {content_type!r:.80}"
        )


_CONTENT_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "json_or_form": "application/json or application/x-www-form-urlencoded",
}


def _security(access: Access) -> dict[str, Any]:
    if access.kind == "public":
        return {"security": []}
    if access.kind == "internal":
        return {"security": [{"service": []}]}
    needed = [access.needed_scope] if access.needed_scope else sorted(access.one_of_roles)
    keys: list[dict[str, list[str]]] = [{"apiKey": needed}] if access.with_keys else []
    return {
        "security": [{"bearer": needed}, {"cookie": needed}, *keys],
        **({"x-shared": True} if access.shared else {}),
        **({"x-scope": access.needed_scope} if access.needed_scope else {}),
        **({"x-roles": sorted(access.one_of_roles)} if access.one_of_roles else {}),
    }


def _responses(declaration: Declaration) -> dict[int | str, dict[str, Any]]:
    # Of these, nginx answers 414 before a process sees anything.
    codes: dict[int, list[str]] = {400: [], 414: [], 422: [], 503: []}
    if declaration.access.kind != "internal":
        codes[429] = []
    if declaration.access.kind != "public":
        codes |= {401: [], 403: []}
    if declaration.method in ("POST", "PUT", "PATCH"):
        codes |= {413: [], 415: []}
    for error in declaration.errors:
        codes.setdefault(status_of(error), []).append(error.code)
    return {
        status: {
            # By name: as a model, FastAPI would make a validator for each status of each route.
            "content": {MEDIA_TYPE: {"schema": {"$ref": PROBLEM_REFERENCE}}},
            "description": ", ".join(f"`{code}`" for code in named) or _DESCRIPTIONS[status],
        }
        for status, named in sorted(codes.items())
    }


_DESCRIPTIONS = {
    400: "The request can't be read",
    401: "Nobody we can trust is asking",
    403: "Known, but not allowed",
    404: "Not there, or not yours",
    409: "The state or a rule doesn't allow it",
    410: "It is kept no longer",
    413: "The body is too large",
    414: "The address is too long: path and query share 8 KiB",
    415: "The body's type isn't read here",
    422: "A field breaks a rule",
    429: "Too many requests",
    503: "Not available right now",
}
