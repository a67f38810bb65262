"""Routes about forgotten and changed passwords, and about confirming an address."""

from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.errors import CrossSiteRequestError
from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, PROOF_ERRORS, Parts
from trading_api.modules.auth.domain import parse_email
from trading_api.modules.auth.schemas import (
    DoneView,
    EmailRequest,
    EmailVerifyRequest,
    PasswordChangeRequest,
    PasswordResetRequest,
    TokenView,
    secret_text,
)
from trading_api.runtime.http.access import Access, CurrentPrincipal
from trading_api.runtime.http.routing import ModuleRouter

_ASKED = "if that address can get such a mail, it is on its way"


def add_passwords(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about passwords and addresses."""
    services, identity, cookies, clock = (
        parts.services,
        parts.identity,
        parts.cookies,
        parts.clock,
    )

    @router.post(
        "/password/change",
        access=Access.user(),
        rate="login",
        summary="Change my password",
        description="Ends every session; this device gets a new one.",
        response_model=TokenView,
        errors=[errors.PasswordRefusedError, errors.PasswordPoolBusyError, *PROOF_ERRORS],
        dependencies=PRIVATE,
    )
    async def change_password(
        request: Request,
        response: Response,
        principal: CurrentPrincipal,
        body: PasswordChangeRequest,
    ) -> TokenView:
        found = await services.passwords.change(
            caller=caller_of(request, principal),
            current=secret_text(body.current_password),
            new=body.new_password.get_secret_value(),
            device=cookies.device_of(request, response),
            now=clock.now(),
        )
        return parts.hand_out(request, response, found)

    @router.post(
        "/password/forgot",
        access=Access.public(),
        rate="login",
        summary="Have a mail sent to set a new password",
        description="Always answers the same.",
        status_code=202,
        response_model=DoneView,
        errors=[CrossSiteRequestError, errors.EmailInvalidError],
        dependencies=PRIVATE,
    )
    async def forget_password(request: Request, body: EmailRequest) -> DoneView:
        identity.ensure_own_site(request.scope)
        await services.passwords.ask_for_reset(email=parse_email(body.email), now=clock.now())
        return DoneView(message=_ASKED)

    @router.post(
        "/password/reset",
        access=Access.public(),
        rate="login",
        summary="Set a new password with the token of the mail",
        description="Ends every session. A second factor stays on.",
        response_model=DoneView,
        errors=[
            CrossSiteRequestError,
            errors.MailTokenInvalidError,
            errors.PasswordRefusedError,
            errors.PasswordPoolBusyError,
        ],
        dependencies=PRIVATE,
    )
    async def reset_password(request: Request, body: PasswordResetRequest) -> DoneView:
        identity.ensure_own_site(request.scope)
        await services.passwords.reset(
            token=body.token.get_secret_value(),
            new=body.password.get_secret_value(),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return DoneView(message="the new password is set; log in with it")

    @router.post(
        "/email/verify",
        access=Access.public(),
        rate="login",
        summary="Confirm my address with the token of the mail and my password",
        description="The password is that of the registration. Who doesn't know it, since somebody "
        "else registered, resets it (`/password/forgot`); that confirms the address too.",
        response_model=DoneView,
        errors=[
            CrossSiteRequestError,
            errors.MailTokenInvalidError,
            errors.CredentialsInvalidError,
            errors.LoginThrottledError,
            errors.PasswordPoolBusyError,
        ],
        dependencies=PRIVATE,
    )
    async def verify_email(request: Request, body: EmailVerifyRequest) -> DoneView:
        identity.ensure_own_site(request.scope)
        await services.registration.confirm_email(
            token=body.token.get_secret_value(),
            password=body.password.get_secret_value(),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return DoneView(message="the address is confirmed; log in")

    @router.post(
        "/email/resend",
        access=Access.public(),
        rate="login",
        summary="Have the mail sent again that confirms an address",
        description="Always answers the same.",
        status_code=202,
        response_model=DoneView,
        errors=[CrossSiteRequestError, errors.EmailInvalidError],
        dependencies=PRIVATE,
    )
    async def resend_confirmation(request: Request, body: EmailRequest) -> DoneView:
        identity.ensure_own_site(request.scope)
        await services.registration.ask_for_confirmation(
            email=parse_email(body.email), now=clock.now()
        )
        return DoneView(message=_ASKED)
