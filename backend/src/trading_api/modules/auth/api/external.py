"""Routes by which browsers go to an outside provider and come back signed in."""

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from trading_api.modules.auth import errors
from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.schemas import ProvidersView
from trading_api.modules.auth.service import Challenge
from trading_api.runtime.http.access import Access
from trading_api.runtime.http.routing import ModuleRouter

JOURNEY_SECONDS = 600

ProviderName = Annotated[str, Path(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Parameter = Annotated[str | None, Query(max_length=4096)]

_ERRORS = (errors.ExternalProviderUnknownError, errors.ExternalSignInRefusedError)


def _redirects(status: int, description: str) -> dict[int | str, dict[str, Any]]:
    header = {"description": "where to", "schema": {"type": "string"}}
    return {status: {"description": description, "headers": {"Location": header}}}


def add_external(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes."""
    service, cookies, clock = parts.services.external, parts.cookies, parts.clock

    @router.get(
        "/oauth/providers",
        access=Access.public(),
        summary="Providers to sign in by",
        response_model=ProvidersView,
        dependencies=PRIVATE,
    )
    async def list_providers() -> ProvidersView:
        return ProvidersView(providers=service.names)

    @router.get(
        "/oauth/{provider}/login",
        access=Access.public(),
        rate="login",
        summary="Go to a provider to sign in",
        description="For browsers: sends them to the provider by OpenID Connect's code flow with "
        "PKCE. `next` is the path on this site where it ends.",
        status_code=302,
        response_class=RedirectResponse,
        response_model=None,
        responses=_redirects(302, "To the provider"),
        errors=_ERRORS,
    )
    async def begin(
        provider: ProviderName,
        next_path: Annotated[str | None, Query(alias="next", max_length=2048)] = None,
    ) -> Response:
        url, binding = await service.begin(provider=provider, next_path=next_path, now=clock.now())
        answer = RedirectResponse(url, status_code=302, headers={"Cache-Control": "no-store"})
        cookies.set_journey(answer, binding, JOURNEY_SECONDS)
        return answer

    @router.get(
        "/oauth/{provider}/callback",
        access=Access.public(),
        rate="login",
        summary="Come back from a provider",
        description="Sets the cookies of a sign-in and goes on to `next`. Where the user has a "
        "second factor, `next` gets the fragment `#mfa_challenge=…` for `/2fa/verify` instead.",
        status_code=303,
        response_class=RedirectResponse,
        response_model=None,
        responses=_redirects(303, "To where the sign-in began for"),
        errors=[*_ERRORS, errors.ExternalEmailError, errors.UserDisabledError],
    )
    async def finish(
        request: Request,
        provider: ProviderName,
        state: Parameter = None,
        code: Parameter = None,
        issuer: Annotated[str | None, Query(alias="iss", max_length=2048)] = None,
    ) -> Response:
        answer = RedirectResponse("/", status_code=303, headers={"Cache-Control": "no-store"})
        found, path = await service.finish(
            provider=provider,
            state=state or "",
            code=code,
            issuer=issuer,
            binding=cookies.journey(request),
            device=cookies.device_of(request, answer),
            now=clock.now(),
        )
        cookies.clear_journey(answer)
        if isinstance(found, Challenge):
            path = f"{path}#mfa_challenge={quote(found.token)}"
        else:
            parts.hand_out(request, answer, found)
        answer.headers["Location"] = path
        return answer
