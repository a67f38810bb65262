"""The second factor: time-based codes (RFC 6238) and recovery codes that work once."""

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import pyotp

STEP_SECONDS = 30
DIGITS = 6
SECRET_BYTES = 20
"""RFC 4226 asks for 160 bits."""

RECOVERY_CODES = 10
_RECOVERY_BYTES = 10
_DRIFT_STEPS = (0, -1, 1)
"""A code is good for its own half minute and the one on either side (RFC 6238, 5.2)."""

_TOTP = re.compile(r"[0-9]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SecondFactor:
    """A user's second factor.

    Attributes:
        sealed_secret: openable by this platform alone; None while it is off.
        enabled_at: None while it is off.
        last_step: the half minute since 1970 of the last code accepted; no code of it or of one
            before is accepted again.
        generation: how often it was switched off; part of what the next secret is made of.
    """

    user_id: str
    sealed_secret: str | None = None
    enabled_at: datetime | None = None
    last_step: int | None = None
    generation: int = 0

    @property
    def is_on(self) -> bool:
        """Tell whether signing in needs it."""
        return self.enabled_at is not None


def make_secret(entropy: bytes) -> str:
    """Write 20 bytes as authenticator apps take them: base32."""
    assert len(entropy) == SECRET_BYTES
    return base64.b32encode(entropy).decode()


def otpauth_uri(secret: str, *, email: str, issuer: str) -> str:
    """Return the key URI that authenticator apps read from a QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=issuer)


def plain_code(typed: str) -> str:
    """Return a code without the spaces and dashes that people type."""
    return re.sub(r"[\s-]", "", unicodedata.normalize("NFKC", typed))


def is_totp(code: str) -> bool:
    """Tell whether a code has the form of an authenticator's, else it may be a recovery code."""
    return _TOTP.fullmatch(code) is not None


def match_totp(secret: str, code: str, *, now: datetime, last_step: int | None) -> int | None:
    """Return the half minute since 1970 whose code this is; None where it is no good now.

    Args:
        last_step: codes of this half minute or before are replays.
    """
    current = int(now.timestamp()) // STEP_SECONDS
    generator = pyotp.HOTP(secret, digits=DIGITS)
    found = None
    # Every candidate is computed and compared, so time tells nothing of which one matched.
    for drift in _DRIFT_STEPS:
        step = current + drift
        is_equal = hmac.compare_digest(generator.at(step), code)
        if is_equal and found is None and (last_step is None or step > last_step):
            found = step
    return found


def new_recovery_codes(random_bytes: Callable[[int], bytes]) -> list[str]:
    """Return codes of 80 random bits each, in groups that people can copy."""
    codes = []
    for _ in range(RECOVERY_CODES):
        text = base64.b32encode(random_bytes(_RECOVERY_BYTES)).decode().lower()
        codes.append("-".join(text[start : start + 4] for start in range(0, len(text), 4)))
    return codes


def hash_recovery_code(user_id: str, code: str) -> str:
    """Return the form in which a recovery code is stored; 80 random bits need no slow hash."""
    return hashlib.sha256(f"{user_id}:{plain_code(code).lower()}".encode()).hexdigest()
