"""What counts as one client where clients are counted by address."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return what stands for one client: an IPv4 address, or an IPv6 network of 64 bits.

    Whatever is no address, such as a socket's name, stands for itself, cut to 64 characters.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        # A subscriber owns at least a /64; counting its addresses one by one limits nobody.
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)
