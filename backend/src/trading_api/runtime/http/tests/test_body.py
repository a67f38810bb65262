from decimal import Decimal
from typing import Any

import pytest

from trading_api.kernel.errors import InvalidInputError, MalformedRequestError
from trading_api.runtime.http.body import parse_json


def test_numbers_with_a_fraction_arrive_exactly() -> None:
    assert parse_json(b'{"a": 0.1, "b": 1.10, "c": 7}') == {
        "a": Decimal("0.1"),
        "b": Decimal("1.10"),
        "c": 7,
    }
    assert str(parse_json(b"[1.10]")[0]) == "1.10"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b"{",
        b"",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a": 01}',
    ],
)
def test_unreadable_body_is_malformed(raw: bytes) -> None:
    with pytest.raises(MalformedRequestError):
        parse_json(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e309}',
        b'{"a": 1e-400}',
        b'{"a": 1E1000000}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a\\u0000b": 1}',
        b'{"a": "x\\u0000"}',
        b"[" * 40 + b"]" * 40,
        b"[" * 60_000 + b"]" * 60_000,
        b'{"a":' * 2000 + b"1" + b"}" * 2000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda raw: raw[:20].decode("ascii", "replace"),
)
def test_body_that_no_field_may_hold_is_invalid(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_json(raw)


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b"null", None), (b'"\\ud83d\\ude00"', "😀"), (b"-0", 0), (b"[true]", [True])],
)
def test_readable_body_is_parsed(raw: bytes, value: Any) -> None:
    assert parse_json(raw) == value
