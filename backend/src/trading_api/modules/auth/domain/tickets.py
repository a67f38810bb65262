"""Tickets: random tokens that are good once, for one purpose, for a short time.

Only their digest is stored. A mail or an answer carries the token itself.
"""

import base64
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

TICKET_BYTES = 32
_TICKET = re.compile(r"tk_[A-Za-z0-9_-]{43}", re.ASCII)


class Purpose(StrEnum):
    """What a ticket is good for."""

    SECOND_FACTOR = "second_factor"
    EMAIL_VERIFY = "email_verify"
    PASSWORD_RESET = "password_reset"  # noqa: S105
    PASSKEY_REGISTER = "passkey_register"
    PASSKEY_SIGN_IN = "passkey_sign_in"
    EXTERNAL_SIGN_IN = "external_sign_in"
    EXTERNAL_TOKEN = "external_token"  # noqa: S105


LIFETIMES = {
    Purpose.SECOND_FACTOR: timedelta(minutes=5),
    Purpose.EMAIL_VERIFY: timedelta(minutes=30),
    Purpose.PASSWORD_RESET: timedelta(minutes=30),
    Purpose.PASSKEY_REGISTER: timedelta(minutes=5),
    Purpose.PASSKEY_SIGN_IN: timedelta(minutes=5),
    Purpose.EXTERNAL_SIGN_IN: timedelta(minutes=10),
    Purpose.EXTERNAL_TOKEN: timedelta(minutes=20),
}

ATTEMPTS_MAX = 5
"""Wrong second factors that one challenge survives."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """A stored ticket.

    Attributes:
        user_id: whose it is; None where nobody is known yet.
        data: what its purpose needs to remember, such as a device's fingerprint.
        attempts: how often it was tried in vain.
        used_at: None while it is good.
    """

    token_hash: str
    purpose: Purpose
    user_id: str | None
    data: str
    created_at: datetime
    expires_at: datetime
    attempts: int = 0
    used_at: datetime | None = None


def write_ticket(random_bytes: bytes) -> str:
    """Write 32 random bytes as a ticket's token."""
    assert len(random_bytes) == TICKET_BYTES
    return "tk_" + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def is_ticket(text: str) -> bool:
    """Tell whether a text has a ticket's form."""
    return _TICKET.fullmatch(text) is not None
