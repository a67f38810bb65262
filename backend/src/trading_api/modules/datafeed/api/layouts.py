"""Chart storage in the shape of TradingView's save and load, version 1.1.

A chart sends ``client`` and ``user`` with every call. ``client`` keeps one front end's layouts
apart from another's; ``user`` is read and ignored: the owner is who signed in. Errors are
``{"status": "error", "message": …}`` with the usual status.
"""

from typing import Annotated, Any, Literal

import orjson
from fastapi import Query
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from trading_api.kernel.clock import Clock
from trading_api.kernel.errors import FieldError, InvalidInputError, MalformedRequestError
from trading_api.modules.datafeed.domain.layout import (
    CONTENT_BYTES_MAX,
    Owner,
    TemplateKey,
    TemplateKind,
)
from trading_api.modules.datafeed.errors import (
    ChartStorageFullError,
    LayoutNotFoundError,
    TemplateNotFoundError,
)
from trading_api.modules.datafeed.service.layouts import LayoutService
from trading_api.runtime.http import Access, CurrentPrincipal, ModuleRouter, ResponseModel
from trading_api.runtime.http.problems import Problem

PREFIX = "/charts-storage/1.1"
BODY_BYTES_MAX = 3 * CONTENT_BYTES_MAX + 64 * 1024
"""A form may write a byte as three (``%7B``)."""

_ACCESS = Access.scope("datafeed:read")
_NAME_MAX = 256

_Client = Annotated[str, Query(max_length=64, description="the front end; free text")]
_User = Annotated[str, Query(max_length=256, description="ignored: the owner is who signed in")]
_Chart = Annotated[str, Query(max_length=64, description="a layout's id")]
_Name = Annotated[str, Query(max_length=_NAME_MAX)]
_NeededName = Annotated[str, Query(min_length=1, max_length=_NAME_MAX)]
_Tool = Annotated[str, Query(max_length=64, description="the drawing tool")]


class DoneView(ResponseModel):
    """It is done."""

    status: Literal["ok"]
    id: str | None = Field(None, description="of a layout that was saved anew")


class FoundView(ResponseModel):
    """What was asked for: a list, or one thing with its content."""

    status: Literal["ok"]
    data: list[dict[str, Any]] | list[str] | dict[str, Any]


class FailureView(ResponseModel):
    """Every error of chart storage."""

    status: Literal["error"]
    message: str
    code: str = Field(description="stable, dotted; decide on this")


_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": FailureView} for status in (400, 401, 403, 404, 409, 413, 414, 415, 422, 503)
}
_OPTIONS: dict[str, Any] = {"responses": _FAILURES, "response_model_exclude_none": True}


def storage_error(problem: Problem) -> Response:
    """Return any error in the shape that charts show to their users."""
    body = {"status": "error", "message": problem.detail, "code": problem.code}
    headers = {"Cache-Control": "no-store"}
    if problem.status == 401:
        headers["WWW-Authenticate"] = f'Bearer error="{problem.code}"'
    return Response(
        orjson.dumps(body),
        status_code=problem.status,
        headers=headers,
        media_type="application/json",
    )


def build_layouts_router(*, layouts: LayoutService, clock: Clock) -> ModuleRouter:
    """Build the routes behind ``PREFIX``."""
    router = ModuleRouter(tags=["datafeed charts"], error_shape=storage_error)
    _add_charts(router, layouts, clock)
    _add_study_templates(router, layouts, clock)
    _add_drawing_templates(router, layouts, clock)
    return router


def _add_charts(router: ModuleRouter, layouts: LayoutService, clock: Clock) -> None:
    @router.get(
        "/charts",
        access=_ACCESS,
        response_model=FoundView,
        errors=[LayoutNotFoundError],
        summary="List my saved charts, or load one",
        **_OPTIONS,
    )
    async def read_charts(
        principal: CurrentPrincipal, client: _Client = "", user: _User = "", chart: _Chart = ""
    ) -> Response:
        owner = Owner(principal.user_id, client)
        if not chart:
            return _found(
                [
                    {
                        "id": each.id,
                        "name": each.name,
                        "timestamp": int(each.saved_at.timestamp()),
                        "symbol": each.symbol,
                        "resolution": each.resolution,
                    }
                    for each in await layouts.list_layouts(owner=owner)
                ]
            )
        layout = await layouts.get_layout(owner=owner, layout_id=chart)
        return _found(
            {
                "id": layout.id,
                "name": layout.name,
                "timestamp": int(layout.saved_at.timestamp()),
                "content": layout.content,
            }
        )

    @router.post(
        "/charts",
        access=_ACCESS,
        body="form",
        body_limit_bytes=BODY_BYTES_MAX,
        response_model=DoneView,
        errors=[LayoutNotFoundError, ChartStorageFullError],
        summary="Save a chart anew, or overwrite one",
        openapi_extra=_form_of("name", "symbol", "resolution", "content"),
        **_OPTIONS,
    )
    async def save_chart(
        request: Request,
        principal: CurrentPrincipal,
        client: _Client = "",
        user: _User = "",
        chart: _Chart = "",
    ) -> Response:
        form = await _read_form(request, ("name", "content"), ("symbol", "resolution"))
        layout_id = await layouts.save_layout(
            owner=Owner(principal.user_id, client),
            layout_id=chart or None,
            name=form["name"],
            symbol=form.get("symbol", ""),
            resolution=form.get("resolution", ""),
            content=form["content"],
            now=clock.now(),
        )
        return _json({"status": "ok"} if chart else {"status": "ok", "id": layout_id})

    @router.delete(
        "/charts",
        access=_ACCESS,
        response_model=DoneView,
        errors=[LayoutNotFoundError],
        summary="Remove a saved chart",
        **_OPTIONS,
    )
    async def remove_chart(
        principal: CurrentPrincipal,
        chart: Annotated[str, Query(min_length=1, max_length=64)],
        client: _Client = "",
        user: _User = "",
    ) -> Response:
        await layouts.remove_layout(owner=Owner(principal.user_id, client), layout_id=chart)
        return _json({"status": "ok"})


def _add_study_templates(router: ModuleRouter, layouts: LayoutService, clock: Clock) -> None:
    @router.get(
        "/study_templates",
        access=_ACCESS,
        response_model=FoundView,
        errors=[TemplateNotFoundError],
        summary="List my study templates, or load one",
        **_OPTIONS,
    )
    async def read_study_templates(
        principal: CurrentPrincipal, client: _Client = "", user: _User = "", template: _Name = ""
    ) -> Response:
        owner = Owner(principal.user_id, client)
        if not template:
            names = await layouts.list_templates(owner=owner, kind=TemplateKind.STUDY)
            return _found([{"name": name} for name in names])
        key = TemplateKey(TemplateKind.STUDY, "", template)
        content = await layouts.get_template(owner=owner, key=key)
        return _found({"name": template, "content": content})

    @router.post(
        "/study_templates",
        access=_ACCESS,
        body="form",
        body_limit_bytes=BODY_BYTES_MAX,
        response_model=DoneView,
        errors=[ChartStorageFullError],
        summary="Save a study template in place of one of its name",
        openapi_extra=_form_of("name", "content"),
        **_OPTIONS,
    )
    async def save_study_template(
        request: Request, principal: CurrentPrincipal, client: _Client = "", user: _User = ""
    ) -> Response:
        form = await _read_form(request, ("name", "content"))
        await layouts.save_template(
            owner=Owner(principal.user_id, client),
            key=TemplateKey(TemplateKind.STUDY, "", form["name"]),
            content=form["content"],
            now=clock.now(),
        )
        return _json({"status": "ok"})

    @router.delete(
        "/study_templates",
        access=_ACCESS,
        response_model=DoneView,
        errors=[TemplateNotFoundError],
        summary="Remove a study template",
        **_OPTIONS,
    )
    async def remove_study_template(
        principal: CurrentPrincipal, template: _NeededName, client: _Client = "", user: _User = ""
    ) -> Response:
        await layouts.remove_template(
            owner=Owner(principal.user_id, client),
            key=TemplateKey(TemplateKind.STUDY, "", template),
        )
        return _json({"status": "ok"})


def _add_drawing_templates(router: ModuleRouter, layouts: LayoutService, clock: Clock) -> None:
    @router.get(
        "/drawing_templates",
        access=_ACCESS,
        response_model=FoundView,
        errors=[TemplateNotFoundError],
        summary="List the names of my templates of a drawing tool, or load one",
        **_OPTIONS,
    )
    async def read_drawing_templates(
        principal: CurrentPrincipal,
        client: _Client = "",
        user: _User = "",
        tool: _Tool = "",
        name: _Name = "",
    ) -> Response:
        owner = Owner(principal.user_id, client)
        if not name:
            found = await layouts.list_templates(owner=owner, kind=TemplateKind.DRAWING, tool=tool)
            return _found(list(found))
        key = TemplateKey(TemplateKind.DRAWING, tool, name)
        content = await layouts.get_template(owner=owner, key=key)
        return _found({"name": name, "content": content})

    @router.post(
        "/drawing_templates",
        access=_ACCESS,
        body="form",
        body_limit_bytes=BODY_BYTES_MAX,
        response_model=DoneView,
        errors=[ChartStorageFullError],
        summary="Save a template of a drawing tool in place of one of its name",
        openapi_extra=_form_of("content"),
        **_OPTIONS,
    )
    async def save_drawing_template(
        request: Request,
        principal: CurrentPrincipal,
        name: _NeededName,
        client: _Client = "",
        user: _User = "",
        tool: _Tool = "",
    ) -> Response:
        form = await _read_form(request, ("content",))
        await layouts.save_template(
            owner=Owner(principal.user_id, client),
            key=TemplateKey(TemplateKind.DRAWING, tool, name),
            content=form["content"],
            now=clock.now(),
        )
        return _json({"status": "ok"})

    @router.delete(
        "/drawing_templates",
        access=_ACCESS,
        response_model=DoneView,
        errors=[TemplateNotFoundError],
        summary="Remove a template of a drawing tool",
        **_OPTIONS,
    )
    async def remove_drawing_template(
        principal: CurrentPrincipal,
        name: _NeededName,
        client: _Client = "",
        user: _User = "",
        tool: _Tool = "",
    ) -> Response:
        await layouts.remove_template(
            owner=Owner(principal.user_id, client),
            key=TemplateKey(TemplateKind.DRAWING, tool, name),
        )
        return _json({"status": "ok"})


async def _read_form(
    request: Request, needed: tuple[str, ...], optional: tuple[str, ...] = ()
) -> dict[str, str]:
    """Return a form's fields; charts send some that nobody needs, which are left out.

    Raises:
        MalformedRequestError: a field twice, or a file.
        InvalidInputError: a field is missing, too long, or holds a NUL.
    """
    form = await request.form(max_files=0, max_fields=16, max_part_size=BODY_BYTES_MAX)
    fields: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in fields or not isinstance(value, str):
            message = "may appear once, as text"
            raise MalformedRequestError(
                f"{name[:100]} {message}", errors=[FieldError(name[:100], "duplicate_key", message)]
            )
        fields[name] = value
    for name in needed:
        if not fields.get(name):
            raise _invalid(name, "missing", "is needed")
    for name in (*needed, *optional):
        limit = CONTENT_BYTES_MAX if name == "content" else _NAME_MAX
        value = fields.get(name, "")
        if len(value.encode("utf-8", "surrogatepass")) > limit:
            raise _invalid(name, "too_long", f"has more than {limit} bytes")
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise _invalid(name, "text", "holds a NUL or half a surrogate pair")
    return {name: fields[name] for name in (*needed, *optional) if name in fields}


def _invalid(field: str, rule: str, message: str) -> InvalidInputError:
    return InvalidInputError(f"{field} {message}", errors=[FieldError(field, rule, message)])


def _form_of(*fields: str) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in fields},
        "required": [name for name in fields if name in ("name", "content")],
    }
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data")
    content = {kind: {"schema": schema} for kind in kinds}
    return {"requestBody": {"required": True, "content": content}}


def _found(data: object) -> Response:
    return _json({"status": "ok", "data": data})


def _json(value: object) -> Response:
    return Response(
        orjson.dumps(value), media_type="application/json", headers={"Cache-Control": "no-store"}
    )
