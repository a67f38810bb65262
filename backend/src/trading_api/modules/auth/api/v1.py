"""Version 1 of auth's HTTP API."""

from typing import Annotated

from fastapi import Query

from trading_api.contracts.auth import REVOCATIONS_PATH, RevocationNotice
from trading_api.kernel.clock import Clock
from trading_api.modules.auth.api.account import add_account
from trading_api.modules.auth.api.administration import add_administration
from trading_api.modules.auth.api.api_keys import add_api_keys, add_resolving, add_share_tokens
from trading_api.modules.auth.api.external import add_external
from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.api.passkeys import add_passkeys
from trading_api.modules.auth.api.passwords import add_passwords
from trading_api.modules.auth.api.second_factor import add_second_factor
from trading_api.modules.auth.api.sign_in import add_sign_in
from trading_api.modules.auth.api.token_endpoints import add_token_endpoints
from trading_api.modules.auth.api.tokens import add_tokens
from trading_api.modules.auth.service import AuthServices
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.routing import ModuleRouter


def public_routes(parts: Parts) -> ModuleRouter:
    """Return the routes under ``/api/v1/auth``."""
    router = ModuleRouter(tags=["auth"])
    add_sign_in(router, parts)
    add_second_factor(router, parts)
    add_passwords(router, parts)
    add_passkeys(router, parts)
    add_account(router, parts)
    add_administration(router, parts)
    add_external(router, parts)
    add_tokens(router, parts)
    add_token_endpoints(router, parts)
    add_api_keys(router, parts)
    add_share_tokens(router, parts)
    return router


def internal_routes(service: AuthServices, *, clock: Clock) -> ModuleRouter:
    """Return the routes for other modules, at absolute paths."""
    router = ModuleRouter(tags=["auth"])
    add_resolving(router, service, clock)

    @router.get(
        REVOCATIONS_PATH,
        access=Access.internal(),
        summary="Sessions that ended lately",
        response_model=RevocationNotice,
        dependencies=PRIVATE,
    )
    async def list_revocations(
        since: Annotated[int, Query(ge=0, le=2**60, description="`as_of_us` heard last")] = 0,
    ) -> RevocationNotice:
        return await service.sessions.list_revocations(since_us=since, now=clock.now())

    return router
