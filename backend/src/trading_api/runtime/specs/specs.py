"""OpenAPI and AsyncAPI documents of every module and version, as files."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

SPEC_GLOB = "*/*/*api.json"
"""The files that belong to the specs alone, below their folder."""


class SpecSource(Protocol):
    """A composed process that can describe its modules; it needn't be started."""

    def versions(self) -> Mapping[str, tuple[str, ...]]:
        """Return the served API versions by module."""
        ...

    def openapi(self, module: str, version: str) -> dict[str, Any]:
        """Return one version's OpenAPI document."""
        ...

    def asyncapi(self, module: str, version: str) -> dict[str, Any] | None:
        """Return one version's AsyncAPI document; None where it has no socket."""
        ...


def spec_files(source: SpecSource) -> dict[str, str]:
    """Return ``<module>/<version>/openapi.json`` and ``asyncapi.json`` of everything served."""
    files: dict[str, str] = {}
    for module, versions in source.versions().items():
        for version in versions:
            files[f"{module}/{version}/openapi.json"] = _text(source.openapi(module, version))
            asyncapi = source.asyncapi(module, version)
            if asyncapi is not None:
                files[f"{module}/{version}/asyncapi.json"] = _text(asyncapi)
    return files


def _text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
