"""HTTP: the edge middleware, strict bodies, problems, routes with declared access, documents."""

from trading_api.runtime.http.access import Access, CurrentPrincipal, OptionalPrincipal
from trading_api.runtime.http.problems import Problem
from trading_api.runtime.http.routing import IdempotencyKey, ModuleRouter
from trading_api.runtime.http.wire import RequestModel, ResponseModel

__all__ = [
    "Access",
    "CurrentPrincipal",
    "IdempotencyKey",
    "ModuleRouter",
    "OptionalPrincipal",
    "Problem",
    "RequestModel",
    "ResponseModel",
]
