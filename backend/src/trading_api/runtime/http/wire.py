"""Types of fields on the wire: what a request may hold, and how exact values are written."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)
from pydantic import StrictBool as StrictBool
from pydantic import StrictInt as StrictInt

_DECIMAL = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,8})?", re.ASCII)


class RequestModel(BaseModel):
    """Base of every request body and parameter set: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ResponseModel(BaseModel):
    """Base of every answer."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


def _exact_decimal(value: Any) -> Decimal:
    if isinstance(value, str):
        text = value
    elif isinstance(value, Decimal | int) and not isinstance(value, bool):
        text = f"{value:f}" if isinstance(value, Decimal) else str(value)
    else:
        raise ValueError('must be a decimal number, best as text such as "10.50"')
    if _DECIMAL.fullmatch(text) is None or (text.startswith("-0") and not text.strip("-0.")):
        raise ValueError("must be a plain decimal: at most 18 digits and 8 decimals, not -0")
    return Decimal(text)


WireDecimal = Annotated[
    Decimal,
    BeforeValidator(_exact_decimal),
    PlainSerializer(lambda value: f"{value:f}", return_type=str, when_used="json"),
    Field(json_schema_extra={"anyOf": [{"type": "string"}, {"type": "number"}]}),
]
"""A signed decimal: text (``-?(0|[1-9][0-9]{0,17})(\\.[0-9]{1,8})?``) or a JSON number, exact."""

Symbol = Annotated[
    str,
    BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value),
    StringConstraints(pattern=r"^[A-Z0-9][A-Z0-9._:/-]{0,31}$"),
]
"""A symbol as clients write it, ``AAPL`` or ``DEMO:AAPL``; upper-cased before matching."""


def text(*, minimum: int = 1, maximum: int) -> Any:
    """Return a text type of bounded length, surrounding white space removed."""
    return Annotated[
        str, StringConstraints(min_length=minimum, max_length=maximum, strip_whitespace=True)
    ]
