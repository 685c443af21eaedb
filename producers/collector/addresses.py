"""Where a request came from, as far as it can be believed, and what of it may be kept.

Invariant: ``X-Forwarded-For`` counts only from a trusted peer, read from the right past trusted hops; its left end is
the client's own text. Limits go by IPv4 address and IPv6 /64, for one line has a whole /64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from attributary.producers.collector.config import IpPolicy

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_HOPS_MAX = 50


def client_address(peer: str | None, forwarded: Iterable[str], trusted: Sequence[Network]) -> Address | None:
    """Return the client's address, None when the peer has none (a Unix socket without trusted networks).

    Args:
        peer: address of the connection's other end.
        forwarded: values of ``X-Forwarded-For``, in order.
        trusted: networks of own proxies.
    """
    found = parse_address(peer or "")
    if not trusted or not (found is None or _is_in(found, trusted)):
        return found
    hops = [hop for value in forwarded for hop in value.split(",")][-_HOPS_MAX:]
    for hop in reversed(hops):
        address = parse_address(hop)
        if address is None:
            break
        found = address
        if not _is_in(address, trusted):
            break
    return found


@lru_cache(maxsize=4096)
def parse_address(text: str) -> Address | None:
    """Return an address, with or without a port and brackets; None for anything else."""
    text = text.strip()
    if len(text) > 60:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def limit_name(address: Address | None) -> str:
    """Return the name under which an address is limited."""
    if isinstance(address, IPv6Address):
        return f"{int(address) >> 64:x}"
    return "" if address is None else str(address)


def kept_address(address: Address | None, policy: IpPolicy) -> str | None:
    """Return what of an address may be kept: all of it, its network (/24, /48), or nothing."""
    if address is None or policy == "none":
        return None
    if policy == "full":
        return str(address)
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False).network_address)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks if network.version == address.version)
