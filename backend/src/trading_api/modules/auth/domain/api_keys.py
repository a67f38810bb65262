"""API keys and share tokens: what they may, and when they end."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from trading_api.modules.auth.domain.users import User, scopes_of

KEYS_MAX = 50
"""Live keys and share tokens of one user."""

SHARED_SCOPE = "broker:read"
"""What a share token may: read, and only its own account."""

_NEVER_GRANTED = frozenset({"auth:manage"})
"""A key can't make keys, nor change how its owner signs in."""

ApiKeyKind = Literal["live", "share"]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: the secret is known by its hash alone.

    Attributes:
        id: ``key_…``, of a share token ``shr_…``; part of the key's text, and no secret.
        secret_hash: SHA-256, hexadecimal.
        scopes: at most those of the owner.
        account_id: the trading account that a share token shows; None for API keys.
        expires_at: None for no end.
        ip_allow: networks it may come from, in CIDR notation; empty for all.
        last_used_at: to the minute; None before the first use.
    """

    id: str
    kind: ApiKeyKind
    user_id: str
    name: str
    secret_hash: str
    scopes: frozenset[str]
    account_id: str | None
    ip_allow: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    revoked_reason: str | None

    def is_live(self, now: datetime) -> bool:
        """Tell whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


def needs_proof(scopes: frozenset[str]) -> bool:
    """Tell whether who makes a key with these scopes proves again who is asking.

    A key outlives the session that made it, so what acts is never made by a session alone.
    """
    return not all(each.endswith(":read") for each in scopes)


def grantable_scopes(user: User) -> frozenset[str]:
    """Return the scopes that a user may give to a key."""
    return scopes_of(user.roles) - _NEVER_GRANTED
