"""How many failed sign-ins are let through, per account and per address.

The generic cell rate algorithm: one number per key, the instant at which its allowance is full
again. An attempt is charged before the password is looked at, so parallel guesses count too,
and given back when it succeeds.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from trading_api.kernel.addresses import network_of

FAILURES_MAX = 100
"""Failures in a row for one account from strange devices (NIST SP 800-63B, 3.2.2); then only a
known device, a passkey or a password reset helps."""

FAILURES_KEPT = timedelta(days=30)
"""How long failures in a row are remembered without a new one."""

SLOWER_FROM = ((20, 4), (40, 20))
"""From so many failures in a row on, each costs so many times as much as the first ones."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, then one per ``interval``."""

    burst: int
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Toll:
    """One charge: the key that pays and its rate.

    Attributes:
        counts_failures: failures in a row make it slower, and ``FAILURES_MAX`` close it.
    """

    key: str
    rate: Rate
    counts_failures: bool = False


@dataclass(frozen=True, slots=True)
class LoginThrottle:
    """The rates of attempts.

    Attributes:
        account: passwords for one account.
        address: passwords from one address.
        code: second factors of one user.
        mail: mails that strangers can cause, to one address.
    """

    account: Rate
    address: Rate
    code: Rate
    mail: Rate

    def tolls(self, *, folded_email: str, address: str, known_device: str | None) -> list[Toll]:
        """Return what one attempt is charged, sorted by key.

        Args:
            known_device: fingerprint of a device on which this user signed in before and that
                nobody can guess. It has an allowance of its own, so strangers who try this
                account can't lock it out.
        """
        account = self.account_key(folded_email)
        return sorted(
            (
                Toll(_of_device(account, known_device), self.account, counts_failures=True),
                Toll(f"address:{network_of(address)}", self.address),
            ),
            key=lambda toll: toll.key,
        )

    def account_key(self, folded_email: str) -> str:
        """Return the key of an account's attempts from strange devices."""
        return f"account:{_digest(folded_email)}"

    def code_tolls(self, *, user_id: str, known_device: str | None) -> list[Toll]:
        """Return what one attempt with a second factor is charged."""
        key = _of_device(f"code:{user_id}", known_device)
        return [Toll(key, self.code, counts_failures=True)]

    def mail_toll(self, *, folded_email: str) -> Toll:
        """Return what one mail is charged that anybody can ask for."""
        return Toll(f"mail:{_digest(folded_email)}", self.mail)


def _digest(folded_email: str) -> str:
    return hashlib.sha256(folded_email.encode("utf-8", "replace")).hexdigest()


def _of_device(key: str, known_device: str | None) -> str:
    return key if known_device is None else f"{key}:{known_device}"
