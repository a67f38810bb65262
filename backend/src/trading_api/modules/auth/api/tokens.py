"""Routes about access tokens and the keys that verify them."""

from starlette.requests import Request
from starlette.responses import JSONResponse

from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.schemas import (
    KeySetView,
    TokenStatusView,
)
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.routing import ModuleRouter

KEYS_MAX_AGE_SECONDS = 300


def add_tokens(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about access tokens and keys."""
    service, identity = parts.services, parts.identity

    async def inspect(request: Request) -> TokenStatusView:
        principal, status = await identity.inspect(request.scope)
        if principal is None:
            return TokenStatusView(active=False, status=status)
        return TokenStatusView(
            active=True,
            status="valid",
            token_type="Bearer",  # noqa: S106
            exp=principal.expires_at_seconds,
            sub=principal.user_id,
            sid=principal.session_id,
            scope=" ".join(sorted(principal.scopes)),
            roles=sorted(principal.roles),
        )

    for path in ("/introspect", "/verify"):
        router.get(
            path,
            access=Access.public(),
            summary="What my access token is worth",
            description="Answers 200 whatever the token is; it comes by header or cookie.",
            response_model=TokenStatusView,
            operation_id=f"auth_{path.strip('/')}_v1",
            dependencies=PRIVATE,
        )(inspect)

    @router.get(
        "/.well-known/jwks.json",
        access=Access.public(),
        summary="Keys that verify access tokens",
        response_model=KeySetView,
    )
    async def get_keys() -> JSONResponse:
        return JSONResponse(
            dict(service.sessions.public_keys()),
            headers={"Cache-Control": f"public, max-age={KEYS_MAX_AGE_SECONDS}"},
        )
