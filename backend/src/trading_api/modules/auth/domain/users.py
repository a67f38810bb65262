"""Users, what their roles let them do, and what an access token says of them."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from email_validator import EmailNotValidError, validate_email

from trading_api.kernel.errors import FieldError
from trading_api.modules.auth.errors import EmailInvalidError


class Role(StrEnum):
    """What somebody is to the platform; each role stands for a set of scopes."""

    USER = "user"
    READ_ONLY = "read_only"
    MASTER = "master"
    OPERATOR = "operator"
    ADMIN = "admin"


_MODULES = ("auth", "broker", "datafeed", "gateway", "replication", "wallet")
_READ = frozenset(f"{module}:read" for module in _MODULES)
_USER = _READ | {
    "auth:manage",
    "broker:trade",
    "replication:trade",
    "wallet:trade",
    "wallet:withdraw",
}
_MANAGE = frozenset(f"{module}:manage" for module in _MODULES)

SCOPES_BY_ROLE: dict[Role, frozenset[str]] = {
    Role.READ_ONLY: _READ,
    Role.USER: _USER,
    # Publishing signals is a master's; the module checks the role beside the scope.
    Role.MASTER: _USER,
    Role.OPERATOR: _READ | _MANAGE,
    Role.ADMIN: _USER | _MANAGE,
}
"""``auth:manage`` is every user's own profile and sessions; other ``manage`` scopes are operators'.

Routes about other people's data ask for a role besides.
"""


def scopes_of(roles: frozenset[Role]) -> frozenset[str]:
    """Return every scope that one of the roles stands for."""
    return frozenset().union(*(SCOPES_BY_ROLE[role] for role in roles))


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An address as its owner writes it, and the form that is unique.

    Attributes:
        address: normalised by the rules of mail: domain in lower case, NFC.
        folded: NFKC and case-folded; two users never share it.
    """

    address: str
    folded: str


def fold_email(address: str) -> str:
    """Return the form in which addresses are compared."""
    return unicodedata.normalize("NFKC", address.strip()).casefold()


def parse_email(address: str) -> EmailAddress:
    """Read an address by the rules of mail, without asking the network about its domain.

    Raises:
        EmailInvalidError: it can't be an address.
    """
    try:
        found = validate_email(address.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError as error:
        message = "this can't be an e-mail address"
        raise EmailInvalidError(message, errors=[FieldError("email", "email", message)]) from error
    return EmailAddress(found.normalized, fold_email(found.normalized))


@dataclass(frozen=True, slots=True)
class User:
    """One person.

    Attributes:
        password_hash: None where the user signs in by other means alone.
        picture: https URL; None where there is none.
        last_login_at: None before the first sign-in.
        email_verified_at: when the owner of the address confirmed it; None while nobody did.
        activated_at: since when the user may sign in and is known to the other modules; None while
            the address waits for its confirmation.
        has_short_password: good only together with a second factor.
    """

    id: str
    email: EmailAddress
    full_name: str
    picture: str | None
    password_hash: str | None
    roles: frozenset[Role]
    is_active: bool
    created_at: datetime
    last_login_at: datetime | None
    email_verified_at: datetime | None = None
    activated_at: datetime | None = None
    has_short_password: bool = False


def access_claims(
    user: User, *, session_id: str, token_id: str, issuer: str, now: datetime, lifetime_seconds: int
) -> dict[str, Any]:
    """Return what an access token says (RFC 9068, with ``sid`` and ``roles``)."""
    issued_at = int(now.timestamp())
    return {
        "iss": issuer,
        "aud": "trading-api",
        "sub": user.id,
        "sid": session_id,
        "jti": token_id,
        "iat": issued_at,
        "nbf": issued_at,
        "exp": issued_at + lifetime_seconds,
        "roles": sorted(user.roles),
        "scopes": sorted(scopes_of(user.roles)),
    }
