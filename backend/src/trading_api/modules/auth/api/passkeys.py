"""Routes about passkeys."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.errors import CrossSiteRequestError
from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, PROOF_ERRORS, Parts
from trading_api.modules.auth.schemas import (
    PasskeyOptionsView,
    PasskeyRequest,
    PasskeySignInRequest,
    PasskeyView,
    ProofRequest,
    TokenView,
    secret_text,
)
from trading_api.runtime.http.access import Access, CurrentPrincipal
from trading_api.runtime.http.routing import ModuleRouter


def add_passkeys(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about registering passkeys and signing in with them."""
    service, cookies, clock = parts.services.passkeys, parts.cookies, parts.clock

    @router.get(
        "/passkeys",
        access=Access.user(),
        summary="My passkeys",
        response_model=list[PasskeyView],
        dependencies=PRIVATE,
    )
    async def list_passkeys(principal: CurrentPrincipal) -> list[PasskeyView]:
        found = await service.list_passkeys(user_id=principal.user_id)
        return [PasskeyView.of(each) for each in found]

    @router.post(
        "/passkeys/options",
        access=Access.user(),
        rate="login",
        summary="What the browser needs to make a passkey",
        response_model=PasskeyOptionsView,
        errors=[errors.PasskeyTakenError, *PROOF_ERRORS],
        dependencies=PRIVATE,
    )
    async def offer_passkey(
        request: Request, principal: CurrentPrincipal, body: ProofRequest
    ) -> Any:
        options = await service.offer(
            caller=caller_of(request, principal),
            password=secret_text(body.password),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return PasskeyOptionsView(public_key=dict(options))

    @router.post(
        "/passkeys",
        access=Access.user(),
        rate="login",
        summary="Register a passkey",
        status_code=201,
        response_model=PasskeyView,
        errors=[
            errors.ChallengeInvalidError,
            errors.PasskeyInvalidError,
            errors.PasskeyTakenError,
            errors.UserDisabledError,
            errors.SessionEndedError,
        ],
        dependencies=PRIVATE,
    )
    async def register_passkey(
        request: Request, principal: CurrentPrincipal, body: PasskeyRequest
    ) -> PasskeyView:
        passkey = await service.register(
            caller=caller_of(request, principal),
            name=body.name,
            credential=body.credential,
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return PasskeyView.of(passkey)

    @router.delete(
        "/passkeys/{passkey_id}",
        access=Access.user(),
        summary="Remove a passkey",
        status_code=204,
        errors=[errors.PasskeyNotFoundError],
        dependencies=PRIVATE,
    )
    async def remove_passkey(
        request: Request, principal: CurrentPrincipal, passkey_id: str
    ) -> None:
        await service.remove(
            caller=caller_of(request, principal),
            passkey_id=passkey_id,
            device=cookies.device_of(request),
            now=clock.now(),
        )

    @router.post(
        "/passkeys/sign-in/options",
        access=Access.public(),
        rate="login",
        summary="What the browser needs to sign in with a passkey",
        response_model=PasskeyOptionsView,
        errors=[CrossSiteRequestError],
        dependencies=PRIVATE,
    )
    async def ask_for_passkey(request: Request) -> PasskeyOptionsView:
        parts.identity.ensure_own_site(request.scope)
        return PasskeyOptionsView(public_key=dict(await service.ask(now=clock.now())))

    @router.post(
        "/passkeys/sign-in",
        access=Access.public(),
        rate="login",
        summary="Sign in with a passkey",
        description="A passkey stands for password and second factor both.",
        response_model=TokenView,
        errors=[
            CrossSiteRequestError,
            errors.ChallengeInvalidError,
            errors.PasskeyInvalidError,
            errors.UserDisabledError,
        ],
        dependencies=PRIVATE,
    )
    async def sign_in(
        request: Request, response: Response, body: PasskeySignInRequest
    ) -> TokenView:
        parts.identity.ensure_own_site(request.scope)
        found = await service.sign_in(
            credential=body.credential,
            device=cookies.device_of(request, response),
            now=clock.now(),
        )
        return parts.hand_out(request, response, found)
