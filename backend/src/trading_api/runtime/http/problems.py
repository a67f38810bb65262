"""Errors on the wire: RFC 9457 problem+json, from one table of category and status."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from trading_api.kernel import errors
from trading_api.kernel.errors import FieldError, PlatformErrorCode, TradingError
from trading_api.runtime.http.body import BodyTooLargeError, UnsupportedMediaTypeError

STATUS_BY_CATEGORY: Mapping[type[TradingError], int] = {
    BodyTooLargeError: 413,
    UnsupportedMediaTypeError: 415,
    errors.MalformedRequestError: 400,
    errors.InvalidInputError: 422,
    errors.UnauthenticatedError: 401,
    errors.PermissionDeniedError: 403,
    errors.GoneError: 410,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.DeniedError: 409,
    errors.RateLimitedError: 429,
    errors.UnavailableError: 503,
}

MEDIA_TYPE = "application/problem+json"

PROBLEM_REFERENCE = "#/components/schemas/Problem"
"""How a document names the shape of errors."""

ECHO_LENGTH_MAX = 4096

QUOTA_PROBLEM = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The registered type of a used-up quota (draft-ietf-httpapi-ratelimit-headers)."""

_CODE_BY_STATUS = {
    400: PlatformErrorCode.REQUEST_MALFORMED,
    404: PlatformErrorCode.RESOURCE_NOT_FOUND,
    405: PlatformErrorCode.REQUEST_METHOD_NOT_ALLOWED,
    413: PlatformErrorCode.REQUEST_TOO_LARGE,
    415: PlatformErrorCode.REQUEST_UNSUPPORTED_MEDIA_TYPE,
}


class ProblemField(BaseModel):
    """One field that broke one rule."""

    field: str = Field(description="path of the field, dotted; empty for the whole request")
    rule: str = Field(description="stable name of the rule")
    message: str = Field(description="what the rule wants")


class Problem(BaseModel):
    """What every refused request is answered with (RFC 9457)."""

    type: str = Field(description="identifies the kind of problem: `about:blank#<code>`")
    title: str
    status: int
    detail: str = Field(description="what happened and what to do next; may change")
    instance: str = Field(description="path of the request")
    code: str = Field(description="stable, dotted; decide on this")
    request_id: str | None = Field(description="quote it when you ask for help")
    errors: list[ProblemField] = Field(default_factory=list)
    context: dict[str, Any] = Field(
        default_factory=dict, description="the numbers that decided it, where there are any"
    )


ErrorShape = Callable[[Problem], Response]
"""Turns a problem into the answer of a dialect that has errors of its own shape."""


def status_of(error_type: type[TradingError]) -> int:
    """Return the HTTP status of an error's category; 500 for one outside the tree."""
    for category, status in STATUS_BY_CATEGORY.items():
        if issubclass(error_type, category):
            return status
    return 500


def problem_of(error: Exception, *, path: str, request_id: str | None) -> Problem:
    """Translate any exception; an unexpected one tells the client nothing but the request id."""
    if isinstance(error, TradingError):
        status = status_of(type(error))
        is_quota = isinstance(error, errors.RateLimitedError)
        return Problem(
            type=QUOTA_PROBLEM if is_quota else f"about:blank#{error.code}",
            title=error.title,
            status=status,
            detail=error.message[:ECHO_LENGTH_MAX],
            instance=path,
            code=error.code,
            request_id=request_id,
            errors=[
                ProblemField(field=each.field, rule=each.rule, message=each.message)
                for each in error.errors
            ],
            context=_json_ready(error.context),
        )
    if isinstance(error, RequestValidationError):
        fields = field_errors(list(error.errors()))
        invalid = errors.InvalidInputError(
            "; ".join(f"{each.field or 'request'}: {each.message}" for each in fields),
            errors=fields,
        )
        return problem_of(invalid, path=path, request_id=request_id)
    status, detail = 500, "something failed on our side; nothing is known to have changed"
    code: str = PlatformErrorCode.INTERNAL
    if isinstance(error, HTTPException):
        status, detail = error.status_code, str(error.detail)
        code = _CODE_BY_STATUS.get(status, PlatformErrorCode.INTERNAL)
    return Problem(
        type=f"about:blank#{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=path,
        code=code,
        request_id=request_id,
    )


def response_of(problem: Problem, *, error: Exception | None = None) -> Response:
    """Encode a problem with the headers its status asks for."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, TradingError) and error.retry_after_seconds is not None:
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)
    if problem.status == 401:
        headers["WWW-Authenticate"] = f'Bearer error="{problem.code}"'
    body = problem.model_dump(exclude_none=True)
    if not body["context"]:
        del body["context"]
    return Response(
        orjson.dumps(body, default=str),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def field_errors(found: list[Any]) -> list[FieldError]:
    """Translate pydantic's errors; the rejected values themselves are never echoed."""
    translated = []
    for each in found[:20]:
        location = [str(part) for part in each["loc"] if part not in ("body", "query", "path")]
        if location and location[0] == "header":
            location = location[1:]
        context = each.get("ctx") or {}
        cause = context.get("error")
        if isinstance(cause, TradingError):
            rule, message = cause.code.rsplit(".", 1)[-1], cause.message
        else:
            rule, message = each["type"], each["msg"].removeprefix("Value error, ")
        translated.append(FieldError(".".join(location)[:200], rule, message[:400]))
    return translated


def _json_ready(context: Mapping[str, object]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str | int | bool | list | dict) else str(value)
        for name, value in context.items()
        if value is not None
    }
