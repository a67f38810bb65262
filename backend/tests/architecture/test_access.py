"""Every documented operation says who may call it, in words that exist."""

import json
from pathlib import Path
from typing import Any

import pytest

from trading_api.modules.auth.domain.users import SCOPES_BY_ROLE, Role
from trading_api.runtime.rates import RATE_CLASSES

DOCUMENTS = sorted((Path(__file__).parents[3] / "docs" / "api").glob("*/*/openapi.json"))
SCOPES = frozenset().union(*SCOPES_BY_ROLE.values())
ROLES = {role.value for role in Role} | {"service"}


def mistakes(operation: dict[str, Any]) -> list[str]:
    """Return what an operation says wrong about its access."""
    found = []
    if "security" not in operation:
        found.append("doesn't say who may call it")
    if operation.get("x-rate-class") not in RATE_CLASSES:
        found.append("counts towards no quota")
    if operation.get("x-scope") not in SCOPES | {None}:
        found.append(f"asks for the scope {operation['x-scope']}, which nobody has")
    unknown = set(operation.get("x-roles", ())) - ROLES
    if unknown:
        found.append(f"asks for roles that don't exist: {sorted(unknown)}")
    if operation.get("security") and "429" not in operation["responses"]:
        found.append("doesn't document 429")
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.parts[-3])
def test_every_operation_declares_its_access(document: Path):
    paths = json.loads(document.read_text())["paths"]
    found = {
        f"{method} {path}": mistakes(operation)
        for path, methods in paths.items()
        for method, operation in methods.items()
    }
    assert {name: each for name, each in found.items() if each} == {}


def test_an_operation_without_access_is_found():
    planted = {"x-scope": "broker:everything", "x-roles": ["root"], "responses": {}}
    assert len(mistakes(planted)) == 4
