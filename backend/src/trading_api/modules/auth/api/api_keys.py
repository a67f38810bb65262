"""Routes about API keys and share tokens."""

from typing import Annotated, Any

from fastapi import Path
from starlette.requests import Request

from trading_api.contracts.auth import API_KEYS_PATH, ApiKeyAnswer, ApiKeyQuestion
from trading_api.kernel.clock import Clock
from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, PROOF_ERRORS, Parts
from trading_api.modules.auth.schemas import (
    ApiKeyMadeView,
    ApiKeyRequest,
    ApiKeyView,
    ShareTokenMadeView,
    ShareTokenRequest,
    ShareTokenView,
    secret_text,
)
from trading_api.modules.auth.service import AuthServices
from trading_api.runtime.http.access import Access, CurrentPrincipal
from trading_api.runtime.http.routing import ModuleRouter

_MANAGE = Access.scope("auth:manage")
_MAKING_ERRORS = (
    errors.ApiKeyScopeError,
    errors.ApiKeyLimitError,
    errors.ApiKeyRefusedError,
    errors.UserDisabledError,
    errors.SessionEndedError,
)

KeyId = Annotated[str, Path(alias="key_id", min_length=1, max_length=64)]
TokenId = Annotated[str, Path(alias="token_id", min_length=1, max_length=64)]


def add_api_keys(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about API keys."""
    service, cookies, clock = parts.services.api_keys, parts.cookies, parts.clock

    @router.post(
        "/api-keys",
        access=_MANAGE,
        summary="Make an API key",
        description="The key is shown in this answer and never again. It comes in the header "
        "`X-API-Key`, over HTTP and in a WebSocket's handshake; where a header is hard to set, as "
        "the bearer. A key that may do more than read takes the password once more.",
        rate="login",
        status_code=201,
        response_model=ApiKeyMadeView,
        errors=[*_MAKING_ERRORS, *PROOF_ERRORS],
        dependencies=PRIVATE,
    )
    async def create_api_key(
        request: Request, principal: CurrentPrincipal, body: ApiKeyRequest
    ) -> ApiKeyMadeView:
        text, key = await service.create_key(
            name=body.name,
            scopes=frozenset(body.scopes),
            expires_at=body.expires_at,
            ip_allow=tuple(body.ip_allow),
            password=secret_text(body.password),
            caller=caller_of(request, principal),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return ApiKeyMadeView.made(key, text)

    @router.get(
        "/api-keys",
        access=_MANAGE,
        summary="My API keys, newest first",
        response_model=list[ApiKeyView],
        dependencies=PRIVATE,
    )
    async def list_api_keys(principal: CurrentPrincipal) -> list[ApiKeyView]:
        found = await service.list_keys(user_id=principal.user_id, kind="live", now=clock.now())
        return [ApiKeyView.of(each) for each in found]

    @router.delete(
        "/api-keys/{key_id}",
        access=_MANAGE,
        summary="Revoke an API key",
        description="Refused everywhere within five seconds; its sockets are closed.",
        status_code=204,
        errors=[errors.ApiKeyNotFoundError],
        dependencies=PRIVATE,
    )
    async def revoke_api_key(request: Request, principal: CurrentPrincipal, key_id: KeyId) -> None:
        await service.revoke_key(
            user_id=principal.user_id,
            key_id=key_id,
            kind="live",
            caller=caller_of(request, principal),
            now=clock.now(),
        )


def add_share_tokens(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about share tokens."""
    service, cookies, clock = parts.services.api_keys, parts.cookies, parts.clock

    @router.post(
        "/share-tokens",
        access=_MANAGE,
        summary="Share a trading account with a guest",
        description="Who has the token reads that account and nothing else, as an API key: in the "
        "header `X-API-Key` or as the bearer. It is shown in this answer and never again.",
        status_code=201,
        response_model=ShareTokenMadeView,
        errors=_MAKING_ERRORS,
        dependencies=PRIVATE,
    )
    async def create_share_token(
        request: Request, principal: CurrentPrincipal, body: ShareTokenRequest
    ) -> ShareTokenMadeView:
        text, key = await service.create_share_token(
            account_id=body.account_id,
            name=body.name,
            expires_at=body.expires_at,
            caller=caller_of(request, principal),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return ShareTokenMadeView.made(key, text)

    @router.get(
        "/share-tokens",
        access=_MANAGE,
        summary="My share tokens, newest first",
        response_model=list[ShareTokenView],
        dependencies=PRIVATE,
    )
    async def list_share_tokens(principal: CurrentPrincipal) -> list[ShareTokenView]:
        found = await service.list_keys(user_id=principal.user_id, kind="share", now=clock.now())
        return [ShareTokenView.of(each) for each in found]

    @router.delete(
        "/share-tokens/{token_id}",
        access=_MANAGE,
        summary="Stop sharing",
        status_code=204,
        errors=[errors.ApiKeyNotFoundError],
        dependencies=PRIVATE,
    )
    async def revoke_share_token(
        request: Request, principal: CurrentPrincipal, token_id: TokenId
    ) -> None:
        await service.revoke_key(
            user_id=principal.user_id,
            key_id=token_id,
            kind="share",
            caller=caller_of(request, principal),
            now=clock.now(),
        )


def add_resolving(router: ModuleRouter, services: AuthServices, clock: Clock) -> None:
    """Add the route by which other processes ask whose key it is."""
    options: dict[str, Any] = {"errors": [errors.ApiKeyNotFoundError], "dependencies": PRIVATE}

    @router.post(
        API_KEYS_PATH,
        access=Access.internal(),
        summary="Whose key this is",
        response_model=ApiKeyAnswer,
        **options,
    )
    async def resolve_api_key(body: ApiKeyQuestion) -> ApiKeyAnswer:
        return await services.api_keys.resolve(question=body, now=clock.now())
