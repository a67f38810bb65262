"""What auth publishes."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from trading_api.contracts.envelope import Event

REVOCATION_CHANNEL = "trading:{auth}:revocation"
"""Pub/sub channel of ``RevocationNotice``; whoever misses one asks auth for the list."""

REVOCATIONS_PATH = "/internal/v1/auth/revocations"
"""Answers ``?since=<as_of_us>`` with a ``RevocationNotice``."""


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


class RevokedSession(BaseModel):
    """A session whose tokens are refused from now on.

    Attributes:
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
