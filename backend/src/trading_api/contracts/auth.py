"""What auth publishes."""

from typing import ClassVar

from trading_api.contracts.envelope import Event


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
