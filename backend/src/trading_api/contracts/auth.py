"""What auth publishes."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from trading_api.contracts.envelope import Event

REVOCATION_CHANNEL = "trading:{auth}:revocation"
"""Pub/sub channel of ``RevocationNotice``; whoever misses one asks auth for the list."""

REVOCATIONS_PATH = "/internal/v1/auth/revocations"
"""Answers ``?since=<as_of_us>`` with a ``RevocationNotice``."""

API_KEYS_PATH = "/internal/v1/auth/api-keys/resolve"
"""Answers an ``ApiKeyQuestion`` with an ``ApiKeyAnswer``; 404 where the key isn't accepted."""


class UserRegistered(Event):
    """A new user exists; the key is the user id.

    Attributes:
        user_id: the new user.
        email: normalised address.
        full_name: as given, for display only.
    """

    TYPE: ClassVar[str] = "auth.user.registered"

    user_id: str
    email: str
    full_name: str


class ApiKeyQuestion(BaseModel):
    """Whose key is this?

    Attributes:
        key_id: ``key_…``, or ``shr_…`` of a share token.
        secret_hash: SHA-256 of the secret, hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key_id: str
    secret_hash: str


class ApiKeyAnswer(BaseModel):
    """Whom a key stands for at this moment.

    Attributes:
        scopes: what it may; never more than its owner may.
        account_id: the one trading account that a share token shows; None for API keys.
        expires_at_seconds: Unix seconds; None for no end.
        ip_allow: networks it may come from; empty for all.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key_id: str
    user_id: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    account_id: str | None = None
    expires_at_seconds: int | None = None
    ip_allow: tuple[str, ...] = ()


class RevokedSession(BaseModel):
    """A session or API key that is refused from now on.

    Attributes:
        session_id: of the session, or the id of the key.
        until_seconds: Unix seconds after which all its tokens have expired anyway.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    session_id: str
    until_seconds: int


class RevocationNotice(BaseModel):
    """Sessions that ended lately; without any, a sign that there is nothing newer.

    Attributes:
        as_of_us: when this was read, microseconds since 1970 UTC on auth's clock; asking since
            then gives what came later.
        latest_at_us: when the last of all sessions ended, 0 where none did. Who knows of none
            that late missed one.
        revoked: the sessions; may repeat what is known already.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    as_of_us: int
    latest_at_us: int
    revoked: tuple[RevokedSession, ...] = ()
