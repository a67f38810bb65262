"""What auth needs from outside its rules: hashing, signing, telling the other processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome of comparing a password.

    Attributes:
        upgraded_hash: a hash to store instead, by today's parameters; None where the stored one
            is fine or the password is wrong.
    """

    is_correct: bool
    upgraded_hash: str | None


class PasswordHasher(Protocol):
    """Hashes passwords off the event loop, a few at a time."""

    async def hash(self, password: str) -> str:
        """Hash a new password.

        Raises:
            PasswordPoolBusyError: too many wait.
        """
        ...

    async def verify(self, password: str, password_hash: str | None) -> Verification:
        """Compare; None takes the same time and is never correct.

        Raises:
            PasswordPoolBusyError: too many wait.
        """
        ...


class TokenSigner(Protocol):
    """Holds the key that signs access tokens."""

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return a signed token."""
        ...

    def public_keys(self) -> Mapping[str, Any]:
        """Return the key set that verifies them (RFC 7517)."""
        ...


class RevocationAnnouncer(Protocol):
    """Tells every process that sessions ended."""

    def announce(
        self, session_ids: Sequence[str], *, revoked_at: datetime, until: datetime
    ) -> None:
        """Tell it now where the bus is up; processes that can't hear it come and ask.

        Args:
            until: when the sessions' last access tokens have expired.
        """
        ...
