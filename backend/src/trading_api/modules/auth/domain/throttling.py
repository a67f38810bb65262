"""How many failed sign-ins are let through, per account and per address.

The generic cell rate algorithm: one number per key, the instant at which its allowance is full
again. An attempt is charged before the password is looked at, so parallel guesses count too,
and given back when it succeeds.
"""

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Rate:
    """``burst`` at once, then one per ``interval``."""

    burst: int
    interval: timedelta


@dataclass(frozen=True, slots=True)
class Toll:
    """One charge: the key that pays and its rate."""

    key: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class LoginThrottle:
    """The rates of sign-ins."""

    account: Rate
    address: Rate

    def tolls(self, *, folded_email: str, address: str, known_device: str | None) -> list[Toll]:
        """Return what one attempt is charged, sorted by key.

        Args:
            known_device: fingerprint of a device on which this user signed in before and that
                nobody can guess. It has an allowance of its own, so strangers who try this
                account can't lock it out.
        """
        account = hashlib.sha256(folded_email.encode("utf-8", "replace")).hexdigest()
        device = f":{known_device}" if known_device is not None else ""
        return sorted(
            (
                Toll(f"account:{account}{device}", self.account),
                Toll(f"address:{address_bucket(address)}", self.address),
            ),
            key=lambda toll: toll.key,
        )


def address_bucket(address: str) -> str:
    """Return what counts as one address: a single IPv4 address, or an IPv6 network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
