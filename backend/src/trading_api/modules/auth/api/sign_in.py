"""Routes that begin, prolong and end a sign-in."""

from typing import Annotated, Any

from fastapi import Body
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trading_api.kernel.errors import (
    CrossSiteRequestError,
    FieldError,
    MalformedRequestError,
    UnauthenticatedError,
)
from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import Cookies, caller_of
from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.domain import parse_email
from trading_api.modules.auth.schemas import (
    ChallengeRequest,
    ChallengeView,
    DoneView,
    LoginRequest,
    ProviderLoginRequest,
    RefreshRequest,
    RegisterRequest,
    TokenView,
    UserView,
)
from trading_api.modules.auth.service import Challenge
from trading_api.runtime import context
from trading_api.runtime.http.access import Access, CurrentPrincipal, OptionalPrincipal
from trading_api.runtime.http.problems import problem_of, response_of
from trading_api.runtime.http.routing import ModuleRouter
from trading_api.runtime.identity import Identity

_FORM_FIELDS = {"grant_type", "username", "password", "scope", "client_id", "client_secret"}
_LOGIN_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "anyOf": [
                        LoginRequest.model_json_schema(),
                        ProviderLoginRequest.model_json_schema(),
                    ]
                }
            },
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "required": ["username", "password"],
                    "properties": {
                        "grant_type": {"type": "string", "const": "password"},
                        "username": {"type": "string", "description": "the e-mail address"},
                        "password": {"type": "string", "format": "password"},
                    },
                }
            },
        },
    }
}
_REFRESH_ERRORS = (
    CrossSiteRequestError,
    errors.RefreshTokenInvalidError,
    errors.RefreshTokenExpiredError,
    errors.RefreshTokenReusedError,
    errors.SessionEndedError,
)


def add_sign_in(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about beginning, prolonging and ending a sign-in."""
    service, identity, cookies, clock = parts.services, parts.identity, parts.cookies, parts.clock

    @router.post(
        "/register",
        rate="login",
        access=Access.public(),
        summary="Make a user",
        description="Where addresses are confirmed by mail, the answer is 202 and the same "
        "whether or not a user has that address.",
        status_code=201,
        response_model=UserView,
        responses={202: {"model": DoneView, "description": "A mail tells how to go on"}},
        errors=[
            CrossSiteRequestError,
            errors.EmailTakenError,
            errors.EmailInvalidError,
            errors.PasswordRefusedError,
            errors.PasswordPoolBusyError,
        ],
        dependencies=PRIVATE,
    )
    async def register(request: Request, body: RegisterRequest) -> Any:
        identity.ensure_own_site(request.scope)
        application: dict[str, Any] = {
            "email": parse_email(body.email),
            "password": body.password.get_secret_value(),
            "full_name": body.full_name,
            "caller": caller_of(request, None),
            "now": clock.now(),
        }
        if service.policy.confirms_email:
            await service.registration.apply(**application)
            answer = DoneView(message="open the mail that we sent you, and follow its link")
            return JSONResponse(
                answer.model_dump(), status_code=202, headers={"Cache-Control": "no-store"}
            )
        return UserView.of(await service.registration.register(**application))

    @router.post(
        "/login",
        rate="login",
        access=Access.public(),
        body="json_or_form",
        summary="Sign in with a password",
        description="Takes JSON, or the form of OAuth2's password grant; or `google_token`, an ID "
        "token that the client got from Google itself. Where the user has a "
        "second factor and the request no code, the answer is a challenge for `/2fa/verify` and "
        "no token.",
        response_model=TokenView | ChallengeView,
        errors=[
            CrossSiteRequestError,
            errors.CredentialsInvalidError,
            errors.SecondFactorInvalidError,
            errors.UserDisabledError,
            errors.EmailUnverifiedError,
            errors.LoginThrottledError,
            errors.ExternalSignInRefusedError,
            errors.ExternalProviderUnknownError,
            errors.ExternalEmailError,
            errors.PasswordPoolBusyError,
        ],
        openapi_extra=_LOGIN_BODY,
        dependencies=PRIVATE,
    )
    async def log_in(request: Request, response: Response) -> TokenView | ChallengeView:
        identity.ensure_own_site(request.scope)
        body = await _read_login(request)
        device, now = cookies.device_of(request, response), clock.now()
        if isinstance(body, ProviderLoginRequest):
            found = await service.external.sign_in_with_token(
                provider="google",
                token=body.google_token.get_secret_value(),
                device=device,
                now=now,
            )
        else:
            found = await service.sign_in.log_in(
                email=body.email,
                password=body.password.get_secret_value(),
                device=device,
                now=now,
                code=body.totp,
            )
        if isinstance(found, Challenge):
            return ChallengeView.of(found)
        return parts.hand_out(request, response, found)

    @router.post(
        "/2fa/verify",
        access=Access.public(),
        rate="login",
        summary="Finish a sign-in with a code",
        description="Takes the challenge that `/login` answered with, on the same device.",
        response_model=TokenView,
        errors=[
            CrossSiteRequestError,
            errors.ChallengeInvalidError,
            errors.SecondFactorInvalidError,
            errors.UserDisabledError,
            errors.LoginThrottledError,
        ],
        dependencies=PRIVATE,
    )
    async def answer_challenge(
        request: Request, response: Response, body: ChallengeRequest
    ) -> TokenView:
        identity.ensure_own_site(request.scope)
        found = await service.sign_in.answer_challenge(
            challenge=body.challenge.get_secret_value(),
            code=body.code,
            device=cookies.device_of(request, response),
            now=clock.now(),
        )
        return parts.hand_out(request, response, found)

    @router.post(
        "/refresh-token",
        access=Access.public(),
        summary="Exchange the refresh token for a new pair",
        response_model=TokenView,
        errors=_REFRESH_ERRORS,
        dependencies=PRIVATE,
    )
    async def refresh_token(
        request: Request,
        response: Response,
        body: Annotated[RefreshRequest | None, Body()] = None,
    ) -> Any:
        token = _refresh_token(request, body, identity, cookies)
        if token is None:
            raise errors.RefreshTokenInvalidError("send the refresh token, or log in")
        try:
            found = await service.sessions.refresh(
                refresh_token=token, device=cookies.device_of(request), now=clock.now()
            )
        except UnauthenticatedError as error:
            # A browser would keep sending a token that can never be good again.
            refusal = response_of(
                problem_of(error, path=request.url.path, request_id=_request_id()), error=error
            )
            cookies.clear_tokens(refusal)
            return refusal
        return parts.hand_out(request, response, found)

    @router.post(
        "/logout",
        access=Access.public(),
        summary="End this sign-in",
        response_model=DoneView,
        errors=[CrossSiteRequestError],
        dependencies=PRIVATE,
    )
    async def log_out(
        request: Request,
        response: Response,
        principal: OptionalPrincipal,
        body: Annotated[RefreshRequest | None, Body()] = None,
    ) -> DoneView:
        identity.ensure_own_site(request.scope)
        await service.sessions.log_out(
            refresh_token=_refresh_token(request, body, identity, cookies),
            caller=caller_of(request, principal),
            now=clock.now(),
        )
        cookies.clear_tokens(response)
        return DoneView(message="signed out")

    @router.post(
        "/logout-all",
        access=Access.user(),
        summary="End every sign-in of this user",
        response_model=DoneView,
        dependencies=PRIVATE,
    )
    async def log_out_everywhere(
        request: Request, response: Response, principal: CurrentPrincipal
    ) -> DoneView:
        count = await service.sessions.log_out_everywhere(
            user_id=principal.user_id,
            caller=caller_of(request, principal),
            now=clock.now(),
        )
        cookies.clear_tokens(response)
        return DoneView(message=f"signed out of {count} sessions")


def _refresh_token(
    request: Request, body: RefreshRequest | None, identity: Identity, cookies: Cookies
) -> str | None:
    """Return the refresh token of body or cookie; a cookie counts only from our own site."""
    if body is not None and body.refresh_token is not None:
        return body.refresh_token.get_secret_value()
    cookie = cookies.refresh_token(request)
    if cookie is not None:
        identity.ensure_own_site(request.scope, has_cookie=True)
    return cookie


async def _read_login(request: Request) -> LoginRequest | ProviderLoginRequest:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type.endswith("json"):
        fields, names = await request.json(), {}
    else:
        fields, names = await _read_form(request), {"email": "username"}
    model: type[LoginRequest | ProviderLoginRequest] = LoginRequest
    if isinstance(fields, dict) and "google_token" in fields:
        model = ProviderLoginRequest
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        found = [
            {**each, "loc": ("body", *(names.get(str(part), part) for part in each["loc"]))}
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise RequestValidationError(found) from None


async def _read_form(request: Request) -> dict[str, str]:
    form = await request.form(max_files=0, max_fields=len(_FORM_FIELDS))
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if name not in _FORM_FIELDS or not isinstance(value, str):
            raise MalformedRequestError(
                "the form holds a field that isn't OAuth2's",
                errors=[FieldError(name[:100], "extra_forbidden", "is not known here")],
            )
        if name in fields:
            raise MalformedRequestError(
                "the form has a field twice",
                errors=[FieldError(name, "duplicate_key", "may appear once")],
            )
        fields[name] = value
    if fields.get("grant_type", "password") != "password":
        message = "only the password grant is served"
        raise MalformedRequestError(
            message, errors=[FieldError("grant_type", "literal_error", message)]
        )
    return {
        to: fields[name]
        for name, to in (("username", "email"), ("password", "password"))
        if name in fields
    }


def _request_id() -> str | None:
    return context.request_id.get()
