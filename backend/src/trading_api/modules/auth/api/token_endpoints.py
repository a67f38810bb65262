"""OAuth's endpoints about tokens: introspection (RFC 7662) and revocation (RFC 7009)."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trading_api.kernel.errors import (
    FieldError,
    MalformedRequestError,
    PermissionDeniedError,
    TokenInvalidError,
)
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.schemas import IntrospectionView, RevokedView
from trading_api.runtime.http.access import Access, CurrentPrincipal, OptionalPrincipal
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.identity import Principal

_INACTIVE = {"active": False}
_FIELDS = frozenset({"token", "token_type_hint", "client_id", "client_secret"})
_TOKEN_LENGTH_MAX = 8192
_SEES_ALL = frozenset({"operator", "admin", "service"})
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["token"],
                    "properties": {
                        "token": {"type": "string", "maxLength": _TOKEN_LENGTH_MAX},
                        "token_type_hint": {
                            "type": "string",
                            "description": "not needed: every kind is looked up",
                        },
                    },
                }
            }
        },
    }
}


def add_token_endpoints(router: ModuleRouter, parts: Parts) -> None:
    """Add the endpoints."""
    service, identity, clock = parts.services.tokens, parts.identity, parts.clock

    @router.post(
        "/introspect",
        access=Access.user(),
        body="form",
        summary="What a token is worth (RFC 7662)",
        description="Takes access tokens, refresh tokens, API keys and share tokens. One's own; "
        "operators, admins and other modules may ask about everybody's. Whatever isn't good, or "
        "isn't the caller's to ask about, is exactly `{\"active\": false}`.",
        response_model=IntrospectionView,
        response_model_exclude_none=True,
        openapi_extra=_BODY,
        dependencies=PRIVATE,
    )
    async def introspect_token(request: Request, principal: CurrentPrincipal) -> Response:
        found = await describe(request, await _read_token(request))
        is_own = found is not None and found["sub"] == principal.user_id
        if found is None or not (is_own or principal.roles & _SEES_ALL):
            return JSONResponse(_INACTIVE)
        return JSONResponse({"active": True, **found, "iss": parts.services.policy.issuer})

    @router.post(
        "/revoke",
        access=Access.public(),
        rate="login",
        body="form",
        summary="Give a token up (RFC 7009)",
        description="Ends the session of an access or refresh token, or an API key or share token, "
        "everywhere within five seconds. 200 for unknown tokens too.",
        response_model=RevokedView,
        openapi_extra=_BODY,
        dependencies=PRIVATE,
    )
    async def revoke_token(request: Request, principal: OptionalPrincipal) -> Response:
        token = await _read_token(request)
        verified = await verify(request, token)
        is_session = verified is not None and verified.carrier == "bearer"
        await service.revoke(
            token=token,
            session=(verified.user_id, verified.session_id) if verified and is_session else None,
            caller=caller_of(request, verified or principal),
            now=clock.now(),
        )
        return JSONResponse({}, headers={"Cache-Control": "no-store"})

    async def verify(request: Request, token: str) -> Principal | None:
        try:
            return await identity.verify_credential(token, request.scope)
        except (TokenInvalidError, PermissionDeniedError):
            return None

    async def describe(request: Request, token: str) -> dict[str, Any] | None:
        now = clock.now()
        key = await service.find_key(text=token, now=now)
        if key is not None:
            user, found = key
            return {
                "sub": user.id,
                "sid": found.id,
                "token_type": "api_key",
                "scope": " ".join(sorted(found.scopes)),
                "iat": int(found.created_at.timestamp()),
                **({"exp": int(found.expires_at.timestamp())} if found.expires_at else {}),
            }
        refresh = await service.find_refresh_token(token=token, now=now)
        if refresh is not None:
            owner, session = refresh
            return {
                "sub": owner.id,
                "sid": session.id,
                "token_type": "refresh_token",
                "iat": int(session.created_at.timestamp()),
                "exp": int(session.idle_expires_at.timestamp()),
            }
        principal = await verify(request, token)
        if principal is None or principal.carrier != "bearer":
            return None
        return {
            "sub": principal.user_id,
            "sid": principal.session_id,
            "token_type": "Bearer",
            "scope": " ".join(sorted(principal.scopes)),
            "exp": principal.expires_at_seconds,
        }


async def _read_token(request: Request) -> str:
    form = await request.form(max_files=0, max_fields=len(_FIELDS))
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in fields or not isinstance(value, str):
            raise MalformedRequestError(
                "the form has a field twice, or a file",
                errors=[FieldError(name[:100], "duplicate_key", "may appear once, as text")],
            )
        # RFC 7009 and 7662: what isn't known is ignored.
        fields[name] = value
    token = fields.get("token", "")
    if not token or len(token) > _TOKEN_LENGTH_MAX:
        message = "send the token as a form field, of at most 8 KiB"
        raise MalformedRequestError(message, errors=[FieldError("token", "missing", message)])
    return token
