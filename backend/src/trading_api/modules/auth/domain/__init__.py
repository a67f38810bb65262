"""The rules of users, passwords, sessions and throttling; no I/O."""

from trading_api.modules.auth.domain.passwords import PasswordRules, normalize_password
from trading_api.modules.auth.domain.sessions import (
    Device,
    Refused,
    Rotation,
    Session,
    SessionRules,
    hash_token,
    judge_refresh,
    new_refresh_token,
    seal_child,
    unseal_child,
)
from trading_api.modules.auth.domain.throttling import LoginThrottle, Rate, Toll
from trading_api.modules.auth.domain.users import (
    EmailAddress,
    Role,
    User,
    access_claims,
    fold_email,
    parse_email,
    scopes_of,
)

__all__ = [
    "Device",
    "EmailAddress",
    "LoginThrottle",
    "PasswordRules",
    "Rate",
    "Refused",
    "Role",
    "Rotation",
    "Session",
    "SessionRules",
    "Toll",
    "User",
    "access_claims",
    "fold_email",
    "hash_token",
    "judge_refresh",
    "new_refresh_token",
    "normalize_password",
    "parse_email",
    "scopes_of",
    "seal_child",
    "unseal_child",
]
