"""Routes about one's own profile and sessions."""

from starlette.requests import Request
from starlette.responses import Response

from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.schemas import (
    ProfilePatch,
    SessionView,
    UserView,
)
from trading_api.runtime.http.access import Access, CurrentPrincipal
from trading_api.runtime.http.routing import ModuleRouter


def add_account(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about one's own profile and sessions."""
    service, cookies, clock = parts.services, parts.cookies, parts.clock

    @router.get(
        "/me",
        access=Access.user(with_keys=True),
        summary="Who I am",
        response_model=UserView,
        errors=[errors.UserNotFoundError],
        dependencies=PRIVATE,
    )
    async def get_me(principal: CurrentPrincipal) -> UserView:
        return UserView.of(await service.users.get_user(user_id=principal.user_id))

    @router.route(
        "PATCH",
        "/me",
        access=Access.scope("auth:manage"),
        summary="Change my profile",
        response_model=UserView,
        errors=[errors.UserNotFoundError],
        dependencies=PRIVATE,
    )
    async def update_me(
        request: Request, principal: CurrentPrincipal, body: ProfilePatch
    ) -> UserView:
        user = await service.users.update_profile(
            user_id=principal.user_id,
            changes=body.changes(),
            caller=caller_of(request, principal),
            now=clock.now(),
        )
        return UserView.of(user)

    @router.get(
        "/sessions",
        access=Access.user(),
        summary="Where I am signed in",
        response_model=list[SessionView],
        dependencies=PRIVATE,
    )
    async def list_sessions(principal: CurrentPrincipal) -> list[SessionView]:
        found = await service.sessions.list_sessions(user_id=principal.user_id, now=clock.now())
        return [SessionView.of(each, current_id=principal.session_id) for each in found]

    @router.delete(
        "/sessions/{session_id}",
        access=Access.user(),
        summary="End one of my sign-ins",
        status_code=204,
        errors=[errors.SessionNotFoundError],
        dependencies=PRIVATE,
    )
    async def end_session(
        request: Request, response: Response, principal: CurrentPrincipal, session_id: str
    ) -> None:
        await service.sessions.end_session(
            user_id=principal.user_id,
            session_id=session_id,
            caller=caller_of(request, principal),
            now=clock.now(),
        )
        if session_id == principal.session_id:
            cookies.clear_tokens(response)
