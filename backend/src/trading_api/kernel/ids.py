"""Identifiers: a prefix that says what it names, then a sortable 128-bit UUIDv7 (RFC 9562)."""

import os
import threading
import time
from base64 import b32hexencode
from typing import Protocol

_RANDOM_BITS = 74
_RANDOM_MAX = (1 << _RANDOM_BITS) - 1


class IdSource(Protocol):
    """Where new identifiers come from."""

    def new(self, prefix: str) -> str:
        """Return ``<prefix>_`` and 26 characters that sort by creation within this process."""
        ...


class UuidV7Ids:
    """UUIDv7 identifiers in lower-case base32hex, strictly increasing within the process.

    The clock going back, or many ids in one millisecond, counts on from the last id instead
    of drawing anew, so the order holds.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._millisecond = 0
        self._random = 0

    def new(self, prefix: str) -> str:
        """Return the next identifier; safe from any thread."""
        with self._lock:
            millisecond = time.time_ns() // 1_000_000
            if millisecond > self._millisecond:
                self._millisecond = millisecond
                # The top bit stays free so that counting on can't overflow in practice.
                self._random = int.from_bytes(os.urandom(10), "big") & (_RANDOM_MAX >> 1)
            else:
                self._random += 1
            value = _uuid7(self._millisecond, self._random)
        return f"{prefix}_{b32hexencode(value.to_bytes(16, 'big')).decode()[:26].lower()}"


def _uuid7(millisecond: int, random: int) -> int:
    random_a, random_b = random >> 62, random & ((1 << 62) - 1)
    return (millisecond << 80) | (0x7 << 76) | (random_a << 64) | (0b10 << 62) | random_b
