"""What is generated from the code is committed and current; each check was seen to fail."""

import copy
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trading_api.runtime.specs import (
    fill_section,
    find_differences,
    find_undeclared_responses,
    write_files,
)
from trading_api.runtime.specs.specs import SPEC_GLOB

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script behind `make generate`."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "scripts/generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def documents(generate: ModuleType) -> dict[str, dict[str, Any]]:
    app = generate.compose()
    return {
        module: app.openapi(module, version)
        for module, versions in app.versions().items()
        for version in versions
    }


def test_golden_specs_and_tables_are_current(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        generate.main(["write"])
    assert generate.main(["check"]) == 0, capsys.readouterr().out


def test_every_route_declares_its_response_model(
    generate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate.main(["responses"]) == 0, capsys.readouterr().out


def test_unknown_verb_is_a_usage_error(generate: ModuleType) -> None:
    assert generate.main(["wirte"]) == 2


def test_undeclared_responses_when_planted_then_named(
    documents: dict[str, dict[str, Any]],
) -> None:
    document = copy.deepcopy(documents["gateway"])
    answer = document["paths"]["/api/v1/versions"]["get"]["responses"]["200"]
    answer["content"]["application/json"]["schema"] = {}
    document["paths"]["/x"] = {"post": {"responses": {"204": {}, "422": {}}}}
    document["paths"]["/y"] = {"delete": {"responses": {}}}
    assert find_undeclared_responses(document) == [
        "GET /api/v1/versions: 200 has no response model",
        "DELETE /y: no success is declared",
    ]


def test_differences_when_changed_missing_or_left_over_then_named(tmp_path: Path) -> None:
    files = {"a/v1/openapi.json": "1", "b/v1/openapi.json": "2"}
    assert len(write_files(tmp_path, files, owned=SPEC_GLOB)) == 2
    assert find_differences(tmp_path, files, owned=SPEC_GLOB) == []
    (tmp_path / "a/v1/openapi.json").write_text("other")
    del files["b/v1/openapi.json"]
    found = find_differences(tmp_path, files, owned=SPEC_GLOB)
    assert [path.parts[-3] for path in found] == ["a", "b"]
    write_files(tmp_path, files, owned=SPEC_GLOB)
    assert not (tmp_path / "b/v1/openapi.json").exists()


def test_fill_section_when_it_is_not_there_then_says_so() -> None:
    text = "a\n<!-- generated: x -->\nold\n<!-- end: x -->\nb"
    assert fill_section(text, "x", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="generated: y"):
        fill_section(text, "y", "new")


def test_every_reference_in_a_spec_leads_somewhere(documents: dict[str, dict[str, Any]]) -> None:
    for module, document in documents.items():
        for reference in _references(document):
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                assert part in found, f"{module}: {reference}"
                found = found[part]


def test_specs_say_who_may_call_and_how_errors_look(documents: dict[str, dict[str, Any]]) -> None:
    for module, document in documents.items():
        for path, operations in document["paths"].items():
            assert not path.startswith("/internal"), path
            for method, operation in operations.items():
                assert "security" in operation, f"{module}: {method} {path}"
                assert operation["tags"], f"{module}: {method} {path}"
                assert "HTTPValidationError" not in str(operation), path
    assert "/" in documents["gateway"]["paths"]


def test_docs_link_to_files_that_exist() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for item in value.values() for each in _references(item)]
    if isinstance(value, list):
        return [each for item in value for each in _references(item)]
    return []
