"""``trading-api new-module NAME``: a module with every room, ready to be changed.

What it writes passes the checks and its own tests as it is, is found by the registry and served.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from trading_api.runtime.settings import ConfigurationError

DEFAULT_NOUN = "item"

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
_NOUN = re.compile(r"[a-z]+(_[a-z]+)*", re.ASCII)
_NAME_LENGTH_MAX = 24
_NOUN_LENGTH_MAX = 16
# They name processes, databases or URLs of the platform itself.
_RESERVED = frozenset({"all", "bus", "docs", "health", "internal", "main", "nginx", "public", "ws"})


@dataclass(frozen=True, slots=True)
class NewModule:
    """The words of a module that is to be written.

    Attributes:
        name: kebab-case, as in URLs.
        noun: what it keeps, singular, lower case; its table and routes have the plural in ``s``.
    """

    name: str
    noun: str = DEFAULT_NOUN

    @property
    def package(self) -> str:
        """Return the Python package's name."""
        return self.name.replace("-", "_")

    def words(self) -> dict[str, str]:
        """Return what the templates are filled with."""
        return {
            "name": self.name,
            "package": self.package,
            "schema": self.package,
            "title": self.name.replace("-", " ").capitalize(),
            "Module": _camel(self.package),
            "PREFIX": f"{self.package.upper()}_",
            "noun": self.noun,
            "nouns": f"{self.noun}s",
            "Noun": _camel(self.noun),
            "NOUN": self.noun.upper(),
            "id_prefix": re.sub(r"[aeiou_]", "", self.noun)[:3] or self.noun[:3],
        }


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        package: the module's folder.
        files: every file of it.
        configs: the deployment configs that got a server for it.
    """

    package: Path
    files: Sequence[Path]
    configs: Sequence[Path]


def write_module(new: NewModule, *, backend: Path) -> Written:
    """Write a module's package below ``backend``, and a server for it into each deployment config.

    Raises:
        ConfigurationError: lists what is wrong with the names; nothing was written.
    """
    package = backend / "src" / "trading_api" / "modules" / new.package
    mistakes = _find_mistakes(new, package)
    if mistakes:
        raise ConfigurationError(mistakes)
    words = new.words()
    environment = Environment(  # noqa: S701 - the templates are Python, not HTML
        undefined=StrictUndefined, keep_trailing_newline=True
    )
    files = []
    for relative, template in _templates():
        path = package / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(environment.from_string(template).render(words), encoding="utf-8")
        files.append(path)
    _format(package)
    configs = [
        path
        for path in (backend / "dev-config.yaml", backend.parent / "deploy" / "production.yaml")
        if path.is_file()
    ]
    for path in configs:
        path.write_text(add_server(path.read_text(encoding="utf-8"), new.name), encoding="utf-8")
    return Written(package, files, configs)


def add_server(text: str, name: str) -> str:
    """Return a deployment config's text with a server for the module, comments kept.

    Raises:
        ConfigurationError: the config has no ``servers`` to add to.
    """
    lines = text.splitlines(keepends=True)
    try:
        start = next(i for i, line in enumerate(lines) if re.match(r"servers:\s*(#.*)?$", line))
    except StopIteration:
        raise ConfigurationError(["servers: the config has none; name the module there"]) from None
    end = start + 1
    last = start
    while end < len(lines) and (lines[end].startswith((" ", "#")) or not lines[end].strip()):
        if lines[end].startswith(" ") and lines[end].strip():
            last = end
        end += 1
    indent = re.match(r" *", lines[start + 1] if start + 1 < len(lines) else "  ")
    step = (indent.group() if indent else "") or "  "
    if not lines[last].endswith("\n"):
        lines[last] += "\n"
    lines.insert(last + 1, f"{step}{name}: {{modules: [{name}]}}\n")
    return "".join(lines)


def _find_mistakes(new: NewModule, package: Path) -> list[str]:
    mistakes = []
    if _NAME.fullmatch(new.name) is None or len(new.name) > _NAME_LENGTH_MAX:
        mistakes.append(
            f"{new.name!r:.80} is no module name: lower-case words joined by hyphens, "
            f"at most {_NAME_LENGTH_MAX} characters"
        )
    elif new.name in _RESERVED or keyword.iskeyword(new.package):
        mistakes.append(f"{new.name!r} is a word of the platform or of Python; choose another")
    elif package.exists():
        mistakes.append(f"the module {new.name!r} is there already: {package}")
    is_noun = _NOUN.fullmatch(new.noun) is not None and len(new.noun) <= _NOUN_LENGTH_MAX
    if not is_noun or keyword.iskeyword(new.noun):
        mistakes.append(
            f"{new.noun!r:.80} is no noun: lower-case letters, words joined by `_`, "
            f"at most {_NOUN_LENGTH_MAX} characters"
        )
    return mistakes


def _templates() -> Sequence[tuple[str, str]]:
    root = resources.files("trading_api.manager").joinpath("templates", "new_module")
    return sorted(_walk(root, ""))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, str]]:
    found = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _walk(each, f"{prefix}{each.name}/")
        elif each.name.endswith(".j2"):
            found.append((prefix + each.name.removesuffix(".j2"), each.read_text("utf-8")))
    return found


def _format(package: Path) -> None:
    """Break lines as the formatter would, which depends on the names' lengths."""
    ruff = Path(sys.executable).with_name("ruff")
    if ruff.is_file():
        subprocess.run([str(ruff), "format", "-q", str(package)], check=True, timeout=60)


def _camel(snake: str) -> str:
    return "".join(part.capitalize() for part in snake.split("_"))
