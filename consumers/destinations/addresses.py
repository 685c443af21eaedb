"""IP addresses as destinations want them: public, IPv4 where it is IPv4."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

NOT_AN_ADDRESS = "client_ip_address left out: not an address"
NOT_PUBLIC = "client_ip_address left out: not a public address"
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# For documentation: nobody has one, and examples and tests are full of them.
_EXAMPLES = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"))
)


@lru_cache(maxsize=4_096)
def public_address(text: str) -> tuple[str, str]:
    """Return a public address without port, brackets or zone, and "", or "" and the remark.

    An IPv4 address that is written as IPv6 (::ffff:203.0.113.5, NAT64) becomes IPv4 again: the pixel sees that one.
    Private, loopback, link-local, shared, multicast and reserved addresses say nothing about the person.
    """
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return "", NOT_AN_ADDRESS
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in _EXAMPLES):
        return str(address), ""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return "", NOT_PUBLIC
    return str(address), ""
