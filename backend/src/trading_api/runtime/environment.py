"""The environment of a process: `.env` files and how they lie under the process's own variables.

Precedence: process environment > `servers.<name>.env` > `.env` > config file > default. What lives
here reads files and merges mappings; what the variables mean is each owner's settings class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trading_api.runtime.topology import DeploymentConfigError, Mistake

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_BYTES_MAX = 256 * 1024


def load_dotenv(paths: Sequence[Path]) -> dict[str, str]:
    """Read `.env` files; a later one wins over an earlier. Missing files are skipped.

    Raises:
        DeploymentConfigError: lists each bad line by number and key, never with its value.
    """
    merged: dict[str, str] = {}
    for path in paths:
        if not path.is_file():
            continue
        values, mistakes = parse_dotenv(path.read_bytes())
        if mistakes:
            raise DeploymentConfigError(str(path), mistakes)
        merged |= values
    return merged


def dotenv_paths() -> tuple[Path, ...]:
    """Return where `.env` may lie: the checkout's root and `backend/`, else the working folder."""
    backend = Path(__file__).resolve().parents[3]
    if (backend / "pyproject.toml").is_file():
        return (backend.parent / ".env", backend / ".env")
    return (Path.cwd() / ".env",)


def merge_environment(
    own: Mapping[str, str], *, server: Mapping[str, str], dotenv: Mapping[str, str]
) -> dict[str, str]:
    """Return one flat environment in the order of precedence."""
    return {**dotenv, **server, **own}


def parse_dotenv(content: bytes) -> tuple[dict[str, str], list[Mistake]]:
    r"""Read the lines `NAME=value` of a file; comments and `export ` are allowed.

    A value may stand in single quotes (literal) or double quotes (backslash escapes `\n`, `\"`,
    `\\`). Without quotes it ends at the line's end and holds no blank, quote or `#`: those are
    where readers of such files disagree, so they are mistakes here.
    """
    if len(content) > _FILE_BYTES_MAX:
        return {}, [Mistake("", f"is larger than {_FILE_BYTES_MAX // 1024} KiB")]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return {}, [Mistake("", f"is not UTF-8 at byte {error.start}")]
    values: dict[str, str] = {}
    mistakes: list[Mistake] = []
    # Only line ends count here: str.splitlines would also cut at form feeds and the like.
    for number, raw_line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        line = raw_line.strip()
        if not line or line.startswith("#"):
            continue
        name, equals, rest = line.removeprefix("export ").partition("=")
        name = name.strip()
        where = f"line {number}"
        if not equals or not _NAME.fullmatch(name):
            mistakes.append(Mistake(where, "must read NAME=value"))
            continue
        where = f"line {number} ({name})"
        if name in values:
            mistakes.append(Mistake(where, "is set twice"))
            continue
        value, problem = _parse_value(rest.strip())
        values[name] = value
        if problem:
            mistakes.append(Mistake(where, problem))
    return values, mistakes


def _parse_value(text: str) -> tuple[str, str | None]:
    if "\0" in text:
        return "", "holds a NUL byte"
    quote = text[:1]
    if quote == "'":
        if len(text) < 2 or not text.endswith("'") or "'" in text[1:-1]:
            return "", "has an unfinished single quote"
        return text[1:-1], None
    if quote == '"':
        if not re.fullmatch(r'"(?:[^"\\]|\\.)*"', text):
            return "", "has an unfinished double quote"
        escapes = {"n": "\n", "t": "\t"}
        return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), text[1:-1]), None
    if re.search(r"[\s#'\"]", text):
        return "", "needs quotes: it holds a blank, a quote or '#'"
    return text, None
