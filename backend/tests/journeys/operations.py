"""Every operation of every module, read from the documents that the platform serves of itself."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

MODULES = ("auth", "broker", "datafeed", "gateway", "wallet")
UNSAFE = ("post", "put", "patch", "delete")
Json = dict[str, Any]

ID = re.compile(r"[a-z]{2,5}_[0-9A-Za-z]{8,}")
"""What our ids look like, wherever they stand in an answer."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        identifiers: parameters that name somebody's thing: name and place (path, query, header).
        body: an example of its JSON body; None where it takes none.
    """

    method: str
    path: str
    is_public: bool
    scope: str | None
    roles: tuple[str, ...]
    with_keys: bool
    identifiers: tuple[tuple[str, str], ...]
    body: Any | None
    has_json: bool

    @property
    def is_endless(self) -> bool:
        """It answers for as long as somebody listens."""
        return self.path.endswith(("/stream", "/streaming", "/poll"))

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    def request(
        self, identifier: str = "", *, named: tuple[str, str] | None = None
    ) -> tuple[str, str, Json]:
        """Return method, path and options of a request.

        Args:
            identifier: stands in every parameter of the path, and in ``named``.
        """
        path = re.sub(r"\{[^}]+\}", identifier or "unknown", self.path)
        options: Json = {}
        if named is not None and named[1] == "query":
            options["params"] = {named[0]: identifier}
        if named is not None and named[1] == "header":
            options["headers"] = {named[0]: identifier}
        if self.has_json:
            options["json"] = self.body
        return self.method.upper(), path, options


async def read_operations(client: httpx.AsyncClient) -> list[Operation]:
    """Return the operations of all modules."""
    found: list[Operation] = []
    for module in MODULES:
        answer = await client.get(f"/api/v1/{module}/openapi.json")
        assert answer.status_code == 200, answer.text
        found += _operations(answer.json())
    assert len(found) > 40
    return found


def ids_in(answer: Any) -> set[str]:
    """Return every id in an answer, however deep."""
    if isinstance(answer, dict):
        return set().union(*map(ids_in, answer.values())) if answer else set()
    if isinstance(answer, list):
        return set().union(*map(ids_in, answer)) if answer else set()
    return {answer} if isinstance(answer, str) and ID.fullmatch(answer) else set()


def _operations(document: Json) -> Iterator[Operation]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            schema = content.get("application/json", {}).get("schema")
            security = operation.get("security", [])
            yield Operation(
                method=method,
                path=path,
                is_public=not security,
                scope=operation.get("x-scope"),
                roles=tuple(operation.get("x-roles", ())),
                with_keys=any("apiKey" in each for each in security),
                identifiers=tuple(
                    (each["name"], each["in"])
                    for each in operation.get("parameters", ())
                    if each["in"] == "path" or re.search(r"(?i)(_|-|[a-z])id$", each["name"])
                ),
                body=None if schema is None else example(schema, document),
                has_json=schema is not None,
            )


def example(schema: Json, document: Json, depth: int = 0) -> Any:
    """Return a value that a schema allows, as small as can be; patterns are not looked at."""
    if "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        return example(target, document, depth)
    for known in ("example", "default", "const"):
        if known in schema:
            return schema[known]
    if schema.get("examples"):
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    for choices in ("anyOf", "oneOf", "allOf"):
        if schema.get(choices):
            return example(schema[choices][0], document, depth)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        needed = schema.get("required", ())
        return {
            name: example(schema["properties"][name], document, depth + 1)
            for name in needed
            if name in schema.get("properties", {})
        }
    if kind == "array":
        return [example(schema.get("items", {}), document, depth + 1)] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    return {"email": "a@example.com", "uri": "https://example.com/"}.get(
        schema.get("format", ""), "a" * max(8, schema.get("minLength", 0))
    )
