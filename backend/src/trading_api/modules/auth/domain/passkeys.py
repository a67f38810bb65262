"""Passkeys: key pairs in a user's device that sign in without a password (WebAuthn)."""

from dataclasses import dataclass
from datetime import datetime

PER_USER_MAX = 20


@dataclass(frozen=True, slots=True)
class Passkey:
    """A registered passkey.

    Attributes:
        credential_id: base64url, as the authenticator calls it; unique everywhere.
        public_key: base64url of its COSE key.
        sign_count: of its last signature; 0 where it doesn't count. One that doesn't grow betrays a
            copy.
        name: the user's own word for it.
        is_backed_up: it is kept in the user's cloud, not in one device alone.
    """

    id: str
    user_id: str
    credential_id: str
    public_key: str
    sign_count: int
    name: str
    is_backed_up: bool
    created_at: datetime
    last_used_at: datetime | None


def is_copy(*, stored_count: int, new_count: int) -> bool:
    """Tell whether a signature's counter betrays that the passkey was copied (WebAuthn 7.2)."""
    return (stored_count > 0 or new_count > 0) and new_count <= stored_count
