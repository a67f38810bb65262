"""Sessions and their refresh tokens.

A session is a family of refresh tokens, of which at most one, the leaf, is good. Using the leaf
makes a child that takes its place; the used token is remembered as spent. To give a repeated
request the same child, though only hashes are stored, the child is kept sealed with a pad that
only the parent token itself can make. The seal goes when the child is used.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

TOKEN_PREFIX = "rt_"  # noqa: S105
TOKEN_BYTES = 32
_TOKEN = re.compile(r"rt_[A-Za-z0-9_-]{43}", re.ASCII)
_PAD_LABEL = b"trading-api refresh child v1"


@dataclass(frozen=True, slots=True)
class Device:
    """Where a request comes from.

    Attributes:
        fingerprint: hash over what the device keeps; see ``of``.
        has_cookie: the fingerprint rests on a random cookie, so nobody can guess it.
        address: the client's address, for people and for throttling.
        user_agent: as sent, printable, cut.
    """

    fingerprint: str
    has_cookie: bool
    address: str
    user_agent: str

    @classmethod
    def of(cls, *, address: str, user_agent: str, hints: tuple[str, ...], cookie: str) -> "Device":
        """Describe a device by its user agent without versions, client hints and cookie.

        Versions stay out, since browsers update themselves within a session's life; the address
        stays out, since phones change it.
        """
        printable = "".join(each for each in user_agent if each.isprintable())[:400]
        family = re.sub(r"[0-9.]+", "", printable)
        text = "\n".join((family, *hints, cookie))
        digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
        return cls(digest, bool(cookie), address, printable)


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How long sessions and tokens live."""

    access_lifetime: timedelta
    lifetime: timedelta
    idle: timedelta
    grace: timedelta


@dataclass(frozen=True, slots=True)
class Session:
    """One sign-in on one device.

    Attributes:
        leaf_hash: hash of the refresh token that is good now.
        parent_hash: hash of the token that made the leaf; None for the first.
        sealed_leaf: the leaf, openable with the parent token; None once the leaf was used.
        expires_at: absolute end; never moves.
        idle_expires_at: end unless used before; at most ``expires_at``.
        revoked_at: None while the session lives.
    """

    id: str
    user_id: str
    device_fingerprint: str
    user_agent: str
    address: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    idle_expires_at: datetime
    leaf_hash: str
    parent_hash: str | None
    parent_rotated_at: datetime | None
    sealed_leaf: str | None
    revoked_at: datetime | None
    revoked_reason: str | None

    def is_live(self, now: datetime) -> bool:
        """Tell whether it can still be refreshed."""
        return self.revoked_at is None and now < self.idle_expires_at


@dataclass(frozen=True, slots=True)
class Rotation:
    """What replaces a leaf by its child in one statement."""

    presented_hash: str
    device_fingerprint: str
    child_hash: str
    sealed_child: str
    now: datetime


EXPIRED = "expired"
"""Why a session was ended that was found expired; so it stays expired if the clock goes back."""


class Refused(StrEnum):
    """Why a refresh token that couldn't rotate gets nothing."""

    UNKNOWN = "unknown"
    OTHER_DEVICE = "other_device"
    EXPIRED = "expired"
    ENDED = "ended"
    REUSED = "reused"


def judge_refresh(
    session: Session | None,
    *,
    presented_hash: str,
    device_fingerprint: str,
    now: datetime,
    grace: timedelta,
) -> Refused | None:
    """Decide about a token that was not the live leaf of its device when rotation was tried.

    Args:
        session: the session that ever had this token; None where there is none.

    Returns:
        None where the immediate parent came again in time and gets the same child.
    """
    if session is None:
        return Refused.UNKNOWN
    if session.revoked_at is not None:
        return Refused.EXPIRED if session.revoked_reason == EXPIRED else Refused.ENDED
    if now >= session.idle_expires_at:
        return Refused.EXPIRED
    is_same_device = session.device_fingerprint == device_fingerprint
    if presented_hash == session.leaf_hash:
        # The leaf itself is unused, so nothing was stolen twice; its owner may go on.
        return Refused.OTHER_DEVICE if not is_same_device else Refused.UNKNOWN
    if (
        presented_hash == session.parent_hash
        and session.parent_rotated_at is not None
        and session.sealed_leaf is not None
        and is_same_device
        and now - session.parent_rotated_at <= grace
    ):
        return None
    return Refused.REUSED


def new_refresh_token(random_bytes: bytes) -> str:
    """Write 32 random bytes as a refresh token."""
    assert len(random_bytes) == TOKEN_BYTES
    return TOKEN_PREFIX + base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def hash_token(token: str) -> str:
    """Return the form in which a token is stored; its 256 random bits need no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def is_refresh_token(text: str) -> bool:
    """Tell whether a text has a refresh token's form."""
    return _TOKEN.fullmatch(text) is not None


def seal_child(*, parent: str, child: str) -> str:
    """Seal a child so that only its parent opens it.

    A parent makes one child at most, so its pad is used once.
    """
    return _mask(_bytes_of(child), parent).hex()


def unseal_child(*, parent: str, sealed: str) -> str:
    """Open a sealed child with its parent."""
    return new_refresh_token(_mask(bytes.fromhex(sealed), parent))


def _mask(content: bytes, parent: str) -> bytes:
    pad = hmac.digest(_bytes_of(parent), _PAD_LABEL, "sha256")
    return bytes(each ^ other for each, other in zip(content, pad, strict=True))


def _bytes_of(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.removeprefix(TOKEN_PREFIX) + "=")
