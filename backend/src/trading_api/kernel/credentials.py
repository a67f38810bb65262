"""The text of API keys and share tokens: ``tp_live_<8>_<43><6>`` and ``tp_share_<8>_<43><6>``.

Eight characters name the key and are no secret; 43 are the secret, 256 random bits; six are a
CRC-32 of all that stands before them, so that a mistyped or invented key is refused without asking
anybody, and scanners for leaked secrets know ours. All are base62.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from zlib import crc32

CredentialKind = Literal["live", "share"]

CREDENTIAL_PREFIX = "tp_"

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NAME_LENGTH = 8
_SECRET_LENGTH = 43
_CHECK_LENGTH = 6
_TEXT = re.compile(
    rf"tp_(live|share)_([0-9A-Za-z]{{{_NAME_LENGTH}}})_"
    rf"([0-9A-Za-z]{{{_SECRET_LENGTH}}})([0-9A-Za-z]{{{_CHECK_LENGTH}}})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A key as it may be stored and sent on: without its secret.

    Attributes:
        id: ``key_<8>`` or ``shr_<8>``.
        secret_hash: SHA-256 of the secret, hexadecimal; it needs no salt, being of random bits.
    """

    id: str
    kind: CredentialKind
    secret_hash: str


def new_credential(
    kind: CredentialKind, random_bytes: Callable[[int], bytes]
) -> tuple[str, Credential]:
    """Return the text of a new key, to be shown once, and what may be kept of it."""
    name = _base62(int.from_bytes(random_bytes(16), "big"), _NAME_LENGTH)
    secret = _base62(int.from_bytes(random_bytes(48), "big"), _SECRET_LENGTH)
    text = f"tp_{kind}_{name}_{secret}"
    text += _check(text)
    found = parse_credential(text)
    assert found is not None
    return text, found


def parse_credential(text: str) -> Credential | None:
    """Read a key; None where it isn't one, or mistyped."""
    found = _TEXT.fullmatch(text)
    if found is None or _check(text[:-_CHECK_LENGTH]) != found[4]:
        return None
    kind: CredentialKind = "live" if found[1] == "live" else "share"
    prefix = "key" if kind == "live" else "shr"
    return Credential(f"{prefix}_{found[2]}", kind, hashlib.sha256(found[3].encode()).hexdigest())


def _check(text: str) -> str:
    return _base62(crc32(text.encode("ascii")), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
