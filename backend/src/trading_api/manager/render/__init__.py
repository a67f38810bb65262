"""Text of every deployment file, rendered from the topology; nothing here starts or writes.

A `Renderer` turns a topology into files by relative path. `write_files` and `find_differences` are
the only things that touch the disk, for `trading-api render` and `render --check`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined

from trading_api.runtime.topology import Topology


class Renderer(Protocol):
    """One target's files: nginx, supervisor, compose, systemd or Kubernetes."""

    name: str

    def render(self, topology: Topology) -> Mapping[str, str]:
        """Return file contents by path, relative to the folder they are written below."""
        ...


def render_template(name: str, **values: Any) -> str:
    """Fill one of the package's templates; an unknown name in it is an error."""
    return _environment.get_template(name).render(**values)


def write_files(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Write rendered files below `folder` and return those that changed."""
    changed = []
    for name, text in files.items():
        path = folder / name
        if path.is_file() and path.read_text() == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".new")
        partial.write_text(text)
        partial.replace(path)
        changed.append(path)
    return changed


def find_differences(folder: Path, files: Mapping[str, str]) -> list[Path]:
    """Return the files below `folder` that are missing or not what a fresh render says."""
    return [
        folder / name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_text() != text
    ]


def ident(name: str) -> str:
    """Return a module's name as one word: `copy-trading` → `copy_trading`."""
    return name.replace("-", "_")


def quote_nginx(text: str) -> str:
    """Quote what nginx would otherwise cut at a blank, brace or semicolon."""
    return json.dumps(text) if set(text) & set(" ;{}\"'#\\\t") else text


# Not HTML: autoescape would turn quotes of configuration into entities.
_environment = Environment(  # noqa: S701
    loader=PackageLoader("trading_api.manager.render", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_environment.filters["ident"] = ident
_environment.filters["nginx"] = quote_nginx
