"""Every route says what it answers: a route without a response model has an undocumented shape."""

from collections.abc import Iterator, Mapping
from typing import Any

_METHODS = frozenset({"get", "post", "put", "patch", "delete"})
_WITHOUT_BODY = ("204", "205", "3")


def find_undeclared_responses(openapi: Mapping[str, Any]) -> list[str]:
    """Return ``METHOD path: status`` of each success whose body has no schema."""
    return list(_undeclared(openapi))


def _undeclared(openapi: Mapping[str, Any]) -> Iterator[str]:
    for path, operations in openapi.get("paths", {}).items():
        for method, operation in operations.items():
            if method not in _METHODS:
                continue
            successes = {
                status: response
                for status, response in operation.get("responses", {}).items()
                if status.startswith(("2", "3"))
            }
            if not successes:
                yield f"{method.upper()} {path}: no success is declared"
            for status, response in successes.items():
                if status.startswith(_WITHOUT_BODY):
                    continue
                schemas = [each.get("schema") for each in response.get("content", {}).values()]
                if not schemas or not all(schemas):
                    yield f"{method.upper()} {path}: {status} has no response model"
