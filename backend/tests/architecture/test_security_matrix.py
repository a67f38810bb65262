"""The table of attacks names tests that exist, enough for each number of OWASP's list."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2]
MATRIX = BACKEND.parent / "docs" / "security-tests.md"
NUMBERS = [f"API{number}" for number in range(1, 11)]
TESTS_MIN = 3

_ROW = re.compile(r"^\| .*? \| .*? \| (API[0-9]+(?:, API[0-9]+)*) \| (.*) \|$")
_ID = re.compile(r"`([^`:]+)::([a-z0-9_]+)`")


def rows(text: str) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Return the numbers and test ids of each row."""
    found = [_ROW.match(line) for line in text.splitlines()]
    return [(row[1].split(", "), _ID.findall(row[2])) for row in found if row is not None]


@cache
def named_in(file: Path) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(file.read_text())
    return frozenset(each.name for each in ast.walk(tree) if isinstance(each, functions))


def missing(text: str) -> list[str]:
    return [
        f"{path}::{name}"
        for _, ids in rows(text)
        for path, name in ids
        if name not in named_in(BACKEND / path)
    ]


def count_by_number(text: str) -> Counter[str]:
    return Counter(number for numbers, ids in rows(text) for number in numbers for _ in ids)


def test_every_named_test_exists():
    text = MATRIX.read_text()
    assert len(rows(text)) == sum(line.startswith("| ") for line in text.splitlines()) - 1
    assert missing(text) == []


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_has_tests_enough(number: str):
    assert count_by_number(MATRIX.read_text())[number] >= TESTS_MIN


def test_a_name_that_is_gone_is_found():
    planted = "| a | b | API1 | `tests/journeys/test_idor.py::test_that_is_gone` `x.py::test_y` |"
    assert missing(planted) == ["tests/journeys/test_idor.py::test_that_is_gone", "x.py::test_y"]
