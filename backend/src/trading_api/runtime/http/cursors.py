"""Signed cursors: where a page of a list ended, kept by the client, unforgeable by it.

A cursor holds the position and a digest of the filters it was made under, so that it is refused
with other filters, for another owner or after being edited.
"""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from trading_api.kernel.errors import ErrorCode, FieldError, InvalidInputError

CURSOR_LENGTH_MAX = 512
_MAC_BYTES = 16


class CursorErrorCode(ErrorCode):
    """Stable codes of this room."""

    INVALID = "platform.cursor.invalid"


class CursorInvalidError(InvalidInputError):
    """The cursor was not made by us for this list and these filters."""

    code: ClassVar[ErrorCode] = CursorErrorCode.INVALID
    title: ClassVar[str] = "Cursor not accepted"


class Cursors:
    """Makes and reads the cursors of one list.

    Args:
        secret_key: The platform's secret; never used as it is, a key is derived from it.
        purpose: Names the list, such as `wallet.transactions`; no other takes its cursors.
    """

    def __init__(self, secret_key: bytes, *, purpose: str) -> None:
        self._key = hmac.digest(secret_key, f"cursor:{purpose}".encode(), "sha256")

    def encode(self, position: Mapping[str, Any], *, filters: Mapping[str, Any]) -> str:
        """Return the cursor for a JSON-ready position."""
        content = json.dumps(
            {"p": position, "f": _digest(filters)}, sort_keys=True, separators=(",", ":")
        ).encode()
        cursor = base64.urlsafe_b64encode(self._mac(content) + content).rstrip(b"=").decode()
        assert len(cursor) <= CURSOR_LENGTH_MAX, "a position is a few numbers and ids"
        return cursor

    def decode(self, cursor: str, *, filters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the position that `encode` was given.

        Raises:
            CursorInvalidError: Edited, of another list, or made under other filters.
        """
        if len(cursor) > CURSOR_LENGTH_MAX:
            raise _invalid()
        try:
            raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError) as error:
            raise _invalid() from error
        mac, content = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(content)):
            raise _invalid()
        found = json.loads(content)
        if found["f"] != _digest(filters):
            raise _invalid()
        position: dict[str, Any] = found["p"]
        return position

    def _mac(self, content: bytes) -> bytes:
        return hmac.digest(self._key, content, "sha256")[:_MAC_BYTES]


def _digest(filters: Mapping[str, Any]) -> str:
    text = json.dumps(filters, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _invalid() -> CursorInvalidError:
    message = "begin the list anew: this cursor was not made for it and these filters"
    return CursorInvalidError(message, errors=[FieldError("cursor", "invalid", message)])
