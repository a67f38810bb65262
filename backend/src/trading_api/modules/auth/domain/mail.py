"""The mails that auth sends, and when a failed one is tried again."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

ATTEMPTS_MAX = 12
FIRST_RETRY = timedelta(seconds=10)
LONGEST_RETRY = timedelta(hours=1)
USELESS_AFTER = timedelta(minutes=30)
"""A mail that somebody waits for is dropped when it couldn't be sent by then."""


class MailKind(StrEnum):
    """What a mail says."""

    EMAIL_VERIFY = "email_verify"
    EMAIL_TAKEN = "email_taken"
    PASSWORD_RESET = "password_reset"  # noqa: S105
    PASSWORD_CHANGED = "password_changed"  # noqa: S105
    NEW_DEVICE = "new_device"
    REFRESH_REUSED = "refresh_reused"
    SECOND_FACTOR_ON = "second_factor_on"
    SECOND_FACTOR_OFF = "second_factor_off"
    RECOVERY_CODE_USED = "recovery_code_used"
    PASSKEY_ADDED = "passkey_added"
    PASSKEY_REMOVED = "passkey_removed"
    API_KEY_ADDED = "api_key_added"
    SHARE_TOKEN_ADDED = "share_token_added"  # noqa: S105
    PROVIDER_CONNECTED = "provider_connected"


ASKED_FOR = frozenset({MailKind.EMAIL_VERIFY, MailKind.EMAIL_TAKEN, MailKind.PASSWORD_RESET})
"""Strangers can cause these, so each address gets a few of them only."""


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail in the queue. It holds no secret: tokens are made when it is sent.

    Attributes:
        recipient: an address as its owner writes it; whether a user has it is looked up when the
            mail is sent, so that asking takes the same time for every address.
        data: words for the text, such as the device's.
    """

    id: str
    kind: MailKind
    recipient: str
    data: Mapping[str, str]
    created_at: datetime
    attempts: int = 0

    def is_useless(self, now: datetime) -> bool:
        """Tell whether nobody waits for it any more."""
        return self.kind in ASKED_FOR and now - self.created_at > USELESS_AFTER

    def next_try(self, now: datetime) -> datetime | None:
        """Return when to try again after a failure; None to give up."""
        if self.attempts + 1 >= ATTEMPTS_MAX:
            return None
        return now + min(FIRST_RETRY * int(2**self.attempts), LONGEST_RETRY)


@dataclass(frozen=True, slots=True)
class Message:
    """A mail as it is sent: plain text, one recipient."""

    id: str
    recipient: str
    subject: str
    text: str


_NOT_YOU = (
    "If this wasn't you, change your password now and end the sessions you don't know:\n{site}\n"
)

_TEXTS: dict[MailKind, tuple[str, str]] = {
    MailKind.EMAIL_VERIFY: (
        "Confirm your e-mail address",
        (
            "Somebody, probably you, registered with this address. "
            "Confirm it within 30 minutes with the password you chose:\n\n"
            "{site}#verify-email={token}\n\n"
            "Or send this code with it to POST /api/v1/auth/email/verify: {token}\n\n"
            "If that password isn't accepted, somebody else registered with your address after "
            "you; reset the password then.\n\n"
            "If you didn't register, ignore this mail; nothing happens then.\n"
        ),
    ),
    MailKind.EMAIL_TAKEN: (
        "You have an account already",
        (
            "Somebody, probably you, registered with this address, which has an account already. "
            "Sign in with it, or reset its password:\n\n{site}\n\n"
            "If it wasn't you, ignore this mail; nothing has changed.\n"
        ),
    ),
    MailKind.PASSWORD_RESET: (
        "Reset your password",
        (
            "Set a new password within 30 minutes:\n\n{site}#reset-password={token}\n\n"
            "Or send this code with it to POST /api/v1/auth/password/reset: {token}\n\n"
            "If you didn't ask for this, ignore this mail; your password stays as it is.\n"
        ),
    ),
    MailKind.PASSWORD_CHANGED: (
        "Your password was changed",
        (
            "The password of your account was changed at {at} from {address}. "
            "Every device was signed out.{also}\n\n"
            "If this wasn't you, reset the password at once:\n{site}\n"
        ),
    ),
    MailKind.NEW_DEVICE: (
        "New sign-in to your account",
        "Your account was signed in to from a device that we haven't seen before:\n\n"
        "when: {at}\nwhere: {address}\ndevice: {device}\n\n" + _NOT_YOU,
    ),
    MailKind.REFRESH_REUSED: (
        "One of your sessions was ended",
        "A used sign-in token was presented a second time, so a copy of it may be in other hands. "
        "That session was ended.\n\n"
        "when: {at}\nwhere: {address}\ndevice: {device}\n\n" + _NOT_YOU,
    ),
    MailKind.SECOND_FACTOR_ON: (
        "A second factor protects your account now",
        "Signing in needs a code of your authenticator from now on ({at}, {address}).\n\n"
        + _NOT_YOU,
    ),
    MailKind.SECOND_FACTOR_OFF: (
        "The second factor of your account was switched off",
        "Signing in needs your password alone from now on ({at}, {address}).\n\n" + _NOT_YOU,
    ),
    MailKind.RECOVERY_CODE_USED: (
        "A recovery code of your account was used",
        "Somebody, probably you, signed in with a recovery code ({at}, {address}). "
        "Codes left: {left}.\n\n" + _NOT_YOU,
    ),
    MailKind.PASSKEY_ADDED: (
        "A passkey was added to your account",
        "The passkey {name} can sign you in from now on ({at}, {address}).\n\n" + _NOT_YOU,
    ),
    MailKind.PASSKEY_REMOVED: (
        "A passkey was removed from your account",
        "The passkey {name} can't sign you in any more ({at}, {address}).\n\n" + _NOT_YOU,
    ),
    MailKind.PROVIDER_CONNECTED: (
        "Another way to sign in to your account",
        "Your account at the sign-in provider {provider} can sign you in from now on "
        "({at}, {address}).\n\n" + _NOT_YOU,
    ),
    MailKind.API_KEY_ADDED: (
        "An API key was made for your account",
        (
            "The API key {name} may act for you from now on: {scopes} ({at}, {address}).\n\n"
            "If this wasn't you, revoke it and change your password now:\n{site}\n"
        ),
    ),
    MailKind.SHARE_TOKEN_ADDED: (
        "A trading account of yours is shared",
        (
            "Who has the share token {name} sees the trading account {account} from now on "
            "({at}, {address}).\n\n"
            "If this wasn't you, revoke it and change your password now:\n{site}\n"
        ),
    ),
}


def compose(mail: Mail, *, site: str, token: str = "") -> Message:
    """Write a mail.

    Args:
        site: address of the site, for people.
        token: of the ticket that the mail carries; "" where it carries none.
    """
    subject, text = _TEXTS[mail.kind]
    words = {"address": "unknown", "device": "unknown", "also": "", **mail.data}
    return Message(mail.id, mail.recipient, subject, text.format_map(words | _own(site, token)))


def _own(site: str, token: str) -> dict[str, str]:
    return {"site": site.rstrip("/") + "/", "token": token}
