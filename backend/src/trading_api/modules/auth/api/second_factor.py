"""Routes about the second factor."""

from starlette.requests import Request

from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, PROOF_ERRORS, Parts
from trading_api.modules.auth.schemas import (
    CodeRequest,
    DoneView,
    ProofRequest,
    RecoveryCodesView,
    SecondFactorView,
    SetUpView,
    secret_text,
)
from trading_api.runtime.http.access import Access, CurrentPrincipal
from trading_api.runtime.http.routing import ModuleRouter


def add_second_factor(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about switching the second factor on and off."""
    service, cookies, clock = parts.services.second_factor, parts.cookies, parts.clock

    @router.get(
        "/2fa",
        access=Access.user(),
        summary="Whether a second factor protects me",
        response_model=SecondFactorView,
        dependencies=PRIVATE,
    )
    async def get_status(principal: CurrentPrincipal) -> SecondFactorView:
        return SecondFactorView.of(await service.get_status(user_id=principal.user_id))

    @router.get(
        "/2fa/setup",
        access=Access.user(),
        summary="What an authenticator app needs",
        description="Changes nothing; the answer is the same within a session until the second "
        "factor is enabled.",
        response_model=SetUpView,
        errors=[errors.SecondFactorOnError],
        dependencies=PRIVATE,
    )
    async def set_up(request: Request, principal: CurrentPrincipal) -> SetUpView:
        return SetUpView.of(await service.set_up(caller=caller_of(request, principal)))

    @router.post(
        "/2fa/enable",
        access=Access.user(),
        rate="login",
        summary="Switch the second factor on",
        description="Answers with recovery codes, which are shown this once.",
        response_model=RecoveryCodesView,
        errors=[errors.SecondFactorOnError, errors.CodeWrongError, *PROOF_ERRORS],
        dependencies=PRIVATE,
    )
    async def enable(
        request: Request, principal: CurrentPrincipal, body: CodeRequest
    ) -> RecoveryCodesView:
        codes = await service.enable(
            caller=caller_of(request, principal),
            code=body.code,
            password=secret_text(body.password),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return RecoveryCodesView(recovery_codes=codes)

    @router.post(
        "/2fa/disable",
        access=Access.user(),
        rate="login",
        summary="Switch the second factor off",
        response_model=DoneView,
        errors=[
            errors.SecondFactorOffError,
            errors.PasswordTooShortAloneError,
            errors.CodeWrongError,
            *PROOF_ERRORS,
        ],
        dependencies=PRIVATE,
    )
    async def disable(request: Request, principal: CurrentPrincipal, body: CodeRequest) -> DoneView:
        await service.disable(
            caller=caller_of(request, principal),
            code=body.code,
            password=secret_text(body.password),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return DoneView(message="the second factor is off")

    @router.post(
        "/2fa/recovery-codes",
        access=Access.user(),
        rate="login",
        summary="Replace my recovery codes",
        response_model=RecoveryCodesView,
        errors=[errors.SecondFactorOffError, *PROOF_ERRORS],
        dependencies=PRIVATE,
    )
    async def renew_recovery_codes(
        request: Request, principal: CurrentPrincipal, body: ProofRequest
    ) -> RecoveryCodesView:
        codes = await service.renew_recovery_codes(
            caller=caller_of(request, principal),
            password=secret_text(body.password),
            device=cookies.device_of(request),
            now=clock.now(),
        )
        return RecoveryCodesView(recovery_codes=codes)
