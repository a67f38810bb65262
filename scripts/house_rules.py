#!/usr/bin/env python3
"""Rules of this house that no tool knows: each a few lines over the syntax tree.

    scripts/house_rules.py [--only RULE] [SOURCE]

prints one line per violation, ``path:line: rule: what``, and exits 1 when there is any.
"""

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "backend" / "src" / "trading_api"
ROOMS_REQUIRED = ("__init__.py", "module.py")

Violation = tuple[int, str]
Rule = Callable[[Path, ast.Module], Iterator[Violation]]


def no_float(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """Money, prices and quantities are integers or Decimal: no float where they live."""
    pure = path.parts[0] in ("kernel", "ledger") or "domain" in path.stem or path.stem == "tables"
    if not pure and not any(part == "domain" for part in path.parts):
        return
    if path.parts[0] == "kernel" and path.stem == "clock":  # durations of the monotonic clock
        return
    if "datafeed" in path.parts and path.stem in ("bars", "columns"):  # chart columns
        return
    for node in ast.walk(tree):
        for annotation in _annotations(node):
            if any(isinstance(n, ast.Name) and n.id == "float" for n in ast.walk(annotation)):
                yield annotation.lineno, "float in an annotation"


def commit_in_database_only(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """Transactions end in runtime.database alone."""
    if path.parts[:2] == ("runtime", "database"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("commit", "rollback"):
                yield node.lineno, f".{node.func.attr}() outside runtime/database"


def services_are_keyword_only(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """A use case is async and takes its arguments by name."""
    if "modules" not in path.parts or "service" not in (path.stem, path.parent.name):
        return
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or not node.name.endswith("Service"):
            continue
        for method in node.body:
            if not isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if method.name.startswith("_") or _is_property(method):
                continue
            if len(method.args.args) > 1:
                yield method.lineno, f"{node.name}.{method.name} takes positional arguments"


def modules_have_their_rooms(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """Every module has its manifest and a docstring that says what it owns."""
    if len(path.parts) == 3 and path.parts[0] == "modules" and path.name == "__init__.py":
        if not ast.get_docstring(tree):
            yield 1, "a module's __init__ says what it owns"
        if any(not isinstance(node, ast.Expr) for node in tree.body):
            yield 1, "a module's __init__ holds no code"


def seams_for_time_and_chance(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """Domain, services, ledger and contracts read no clock and no randomness."""
    pure = path.parts[0] in ("contracts", "ledger") or any(
        part in ("domain", "service", "repository", "schemas", "tables")
        for part in (path.stem, *path.parts)
    )
    if not pure or ("modules" not in path.parts and path.parts[0] not in ("contracts", "ledger")):
        return
    forbidden = {
        ("datetime", "now"), ("datetime", "utcnow"), ("time", "time"), ("time", "time_ns"),
        ("time", "monotonic"), ("uuid", "uuid4"), ("os", "environ"), ("os", "urandom"),
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in forbidden or node.value.id == "random":
                yield node.lineno, f"{node.value.id}.{node.attr} outside its seam"


def no_bare_tasks(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """Background work is declared to the runtime, which supervises it."""
    if path.parts[0] in ("runtime", "manager", "testkit"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("create_task", "ensure_future"):
            yield node.lineno, f"{node.attr} outside the runtime"


def no_status_text(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """States are enumerations; comparing with a text hides a spelling mistake."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Attribute):
            continue
        texts = [c for c in node.comparators if isinstance(c, ast.Constant)]
        if node.left.attr in ("status", "state") and any(isinstance(c.value, str) for c in texts):
            if path.parts[0] == "modules" and path.stem != "schemas":
                yield node.lineno, f".{node.left.attr} compared with a text"


def calls_have_time_limits(path: Path, tree: ast.Module) -> Iterator[Violation]:
    """Every HTTP client is made with a time limit."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("AsyncClient", "Client") and _owner(node.func) == "httpx":
                if not any(keyword.arg == "timeout" for keyword in node.keywords):
                    yield node.lineno, "an httpx client without a timeout"


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        no_float,
        commit_in_database_only,
        services_are_keyword_only,
        modules_have_their_rooms,
        seams_for_time_and_chance,
        no_bare_tasks,
        no_status_text,
        calls_have_time_limits,
    )
}


def check(source: Path, only: str | None = None) -> list[str]:
    """Return every violation below ``source``, one line each."""
    found: list[str] = []
    for file in sorted(source.rglob("*.py")):
        path = file.relative_to(source)
        if "tests" in path.parts or "versions" in path.parts:
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for name, rule in RULES.items():
            if only in (None, name):
                found += [f"{path}:{line}: {name}: {what}" for line, what in rule(path, tree)]
    found += _missing_rooms(source) if only in (None, "modules_have_their_rooms") else []
    return found


def _missing_rooms(source: Path) -> list[str]:
    folders = [p for p in (source / "modules").glob("*") if (p / "__init__.py").exists()]
    return [
        f"modules/{folder.name}:1: modules_have_their_rooms: lacks {room}"
        for folder in sorted(folders)
        for room in ROOMS_REQUIRED
        if not (folder / room).exists()
    ]


def _annotations(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.AnnAssign) or (
        isinstance(node, ast.arg) and node.annotation is not None
    ):
        yield node.annotation
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        yield node.returns


def _is_property(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in method.decorator_list)


def _owner(attribute: ast.Attribute) -> str:
    return attribute.value.id if isinstance(attribute.value, ast.Name) else ""


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", __doc__ or ""))
    parser.add_argument("source", nargs="?", type=Path, default=SOURCE)
    parser.add_argument("--only", choices=sorted(RULES))
    arguments = parser.parse_args()
    violations = check(arguments.source, arguments.only)
    for each in violations:
        sys.stdout.write(f"{each}\n")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
