"""Request bodies, read strictly: what JSON leaves open is closed here, before any model sees it.

Refused: duplicate keys and unreadable bytes (400); NaN and infinities, lone surrogates, NUL
characters, integers of more than 18 digits, numbers with absurd exponents and nesting deeper
than 32 (422). Numbers with a fraction arrive as Decimal, exactly as written.
"""

import json
import re
from decimal import Decimal
from typing import Any, ClassVar

from starlette.requests import Request

from trading_api.kernel.errors import (
    ErrorCode,
    FieldError,
    InvalidInputError,
    MalformedRequestError,
    PlatformErrorCode,
    TradingError,
)

LIMIT_BYTES = 64 * 1024
DEPTH_MAX = 32
INTEGER_DIGITS_MAX = 18
EXPONENT_MAX = 30

_SURROGATE = re.compile("[\ud800-\udfff\x00]")


class BodyTooLargeError(MalformedRequestError):
    """The body is over the limit of its route."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.REQUEST_TOO_LARGE
    title: ClassVar[str] = "Request body too large"


class UnsupportedMediaTypeError(MalformedRequestError):
    """The body isn't of a type that this route reads."""

    code: ClassVar[ErrorCode] = PlatformErrorCode.REQUEST_UNSUPPORTED_MEDIA_TYPE
    title: ClassVar[str] = "Unsupported media type"


def parse_json(raw: bytes) -> Any:
    """Parse a JSON text strictly; see the module's docstring for what is refused.

    Raises:
        MalformedRequestError: not UTF-8, not JSON, or an object with a key twice.
        InvalidInputError: readable, but holds what no field may hold.
    """
    if raw.startswith(b"\xef\xbb\xbf"):
        raise MalformedRequestError("the body begins with a byte order mark; send plain UTF-8")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
    except TradingError:
        raise
    except UnicodeDecodeError as error:
        raise MalformedRequestError("the body is not UTF-8") from error
    except RecursionError as error:
        raise _invalid("nesting", "the body is nested too deeply") from error
    except ValueError as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise MalformedRequestError(f"the body is not JSON{where}") from error
    _ensure_clean(value, depth=0)
    return value


class StrictRequest(Request):
    """A request whose JSON was parsed by ``parse_json`` before anybody asks for it."""

    _parsed: Any = None

    async def load_json(self) -> None:
        """Read and parse the body now, so that its errors reach the client as they are."""
        raw = await self.body()
        self._parsed = parse_json(raw) if raw else None

    async def json(self) -> Any:
        """Return what ``load_json`` parsed."""
        return self._parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedRequestError(
            "an object has a key twice",
            errors=[FieldError(twice[:100], "duplicate_key", "may appear once")],
        )
    return result


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INTEGER_DIGITS_MAX:
        raise _invalid("number_too_long", f"a number has more than {INTEGER_DIGITS_MAX} digits")
    return int(text)


def _number(text: str) -> Decimal:
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    if len(text) > 64 or not isinstance(exponent, int) or abs(value.adjusted()) > EXPONENT_MAX:
        raise _invalid("number_out_of_range", "a number is out of range")
    return value


def _constant(text: str) -> Any:
    raise _invalid("finite_number", f"{text} is not a number here")


def _ensure_clean(value: Any, *, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise _invalid("nesting", f"the body is nested deeper than {DEPTH_MAX}")
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise _invalid("text", "a text holds a NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for name, item in value.items():
            _ensure_clean(name, depth=depth + 1)
            _ensure_clean(item, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            _ensure_clean(item, depth=depth + 1)


def _invalid(rule: str, message: str) -> InvalidInputError:
    return InvalidInputError(message, errors=[FieldError("", rule, message)])
