"""Routes for admins: users and the audit."""

from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from trading_api.modules.auth import errors
from trading_api.modules.auth.api.cookies import caller_of
from trading_api.modules.auth.api.parts import PRIVATE, Parts
from trading_api.modules.auth.domain import Role, fold_email
from trading_api.modules.auth.schemas import (
    AdministeredUserView,
    AuditEntryView,
    UserPatch,
)
from trading_api.modules.auth.service.administration import AuditFilter
from trading_api.runtime.http.access import Access, CurrentPrincipal
from trading_api.runtime.http.cursors import CursorInvalidError
from trading_api.runtime.http.routing import ModuleRouter

_ADMIN = Access.roles("admin")
_Limit = Annotated[int, Query(ge=1, le=500, description="rows of a page")]
_Cursor = Annotated[
    str | None, Query(max_length=512, description="`X-Next-Cursor` of the page before")
]
_NEXT = {
    200: {
        "headers": {
            "X-Next-Cursor": {
                "description": "where the next page begins; absent on the last",
                "schema": {"type": "string"},
            }
        }
    }
}


def add_administration(router: ModuleRouter, parts: Parts) -> None:
    """Add the routes about other people."""
    service, clock = parts.services.administration, parts.clock

    @router.get(
        "/users",
        access=_ADMIN,
        summary="Users, oldest first",
        response_model=list[AdministeredUserView],
        responses=_NEXT,
        errors=[CursorInvalidError],
        dependencies=PRIVATE,
    )
    async def list_users(
        response: Response,
        limit: _Limit = 100,
        cursor: _Cursor = None,
        email: Annotated[
            str | None, Query(max_length=254, description="part of the address")
        ] = None,
    ) -> list[AdministeredUserView]:
        filters = {"email": email}
        after_id = None
        if cursor is not None:
            after_id = str(parts.user_cursors.decode(cursor, filters=filters)["id"])
        found = await service.list_users(
            after_id=after_id,
            limit=limit + 1,
            email_part=None if email is None else fold_email(email),
        )
        if len(found) > limit:
            found = found[:limit]
            response.headers["X-Next-Cursor"] = parts.user_cursors.encode(
                {"id": found[-1].id}, filters=filters
            )
        return [AdministeredUserView.of_user(each) for each in found]

    @router.get(
        "/users/{user_id}",
        access=_ADMIN,
        summary="A user",
        response_model=AdministeredUserView,
        errors=[errors.UserNotFoundError],
        dependencies=PRIVATE,
    )
    async def get_user(user_id: str) -> AdministeredUserView:
        return AdministeredUserView.of_user(await parts.services.users.get_user(user_id=user_id))

    @router.patch(
        "/users/{user_id}",
        access=_ADMIN,
        summary="Give a user roles, or switch the user on or off",
        description="Ends every session of the user.",
        response_model=AdministeredUserView,
        errors=[errors.UserNotFoundError, errors.LastAdminError],
        dependencies=PRIVATE,
    )
    async def change_user(
        request: Request, principal: CurrentPrincipal, user_id: str, body: UserPatch
    ) -> AdministeredUserView:
        user = await service.change_user(
            caller=caller_of(request, principal),
            user_id=user_id,
            roles=None if body.roles is None else frozenset(Role(each) for each in body.roles),
            is_active=body.is_active,
            now=clock.now(),
        )
        return AdministeredUserView.of_user(user)

    @router.get(
        "/audit",
        access=_ADMIN,
        summary="What happened, newest first",
        response_model=list[AuditEntryView],
        responses=_NEXT,
        errors=[CursorInvalidError],
        dependencies=PRIVATE,
    )
    async def list_audit(
        response: Response,
        limit: _Limit = 100,
        cursor: _Cursor = None,
        actor_id: Annotated[str | None, Query(max_length=64)] = None,
        action: Annotated[str | None, Query(max_length=64)] = None,
        object: Annotated[  # noqa: A002 - the name on the wire
            str | None, Query(max_length=128, description="such as `user:usr_…`")
        ] = None,
    ) -> list[AuditEntryView]:
        filters = {"actor_id": actor_id, "action": action, "object": object}
        before = None
        if cursor is not None:
            before = int(parts.audit_cursors.decode(cursor, filters=filters)["s"])
        rows = await service.list_audit(
            before_sequence=before,
            limit=limit + 1,
            wanted=AuditFilter(actor_id=actor_id, action=action, about=object),
        )
        if len(rows) > limit:
            rows = rows[:limit]
            response.headers["X-Next-Cursor"] = parts.audit_cursors.encode(
                {"s": rows[-1].sequence}, filters=filters
            )
        return [AuditEntryView.of(each) for each in rows]
