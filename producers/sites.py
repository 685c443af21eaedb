"""Who stands behind a host name or a utm_source: lists of sites, matched from the most to the least specific.

Invariant: a name is matched by its registrable domain (public suffix list), never by a part of the text, so that
``google.evil.example`` is not Google. Nothing here opens a connection: the suffix list is the one in the package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import tldextract

_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
_CACHED_HOSTS = 16_384


class HostParts(NamedTuple):
    """A host name, taken apart."""

    registrable: str  # example.co.uk of www.shop.example.co.uk; the whole host when it has no public suffix
    brand: str  # example


@lru_cache(maxsize=_CACHED_HOSTS)
def split_host(host: str) -> HostParts:
    """Return the registrable domain and its name before the public suffix.

    Below a suffix that nobody registered (shop.internal) the last two labels are the domain, without a brand.

    Args:
        host: lower case, without port.
    """
    parts = _suffixes.extract_str(host)
    if not parts.domain or not parts.suffix:
        return HostParts(host if _is_address(host) else ".".join(host.split(".")[-2:]), "")
    return HostParts(f"{parts.domain}.{parts.suffix}", parts.domain)


def _is_address(host: str) -> bool:
    """Tell whether a host is an IP address, in which the last numbers are no domain."""
    return ":" in host or host.rpartition(".")[2].isdigit()


def parents(host: str) -> Iterable[str]:
    """Yield a host and the domains above it, longest first: a.b.c, b.c, c."""
    while host:
        yield host
        _, _, host = host.partition(".")


def is_within(host: str, domain: str) -> bool:
    """Tell whether a host is a domain or lies below it."""
    return host == domain or host.endswith("." + domain)


class SiteLists:
    """Named lists of sites.

    Args:
        lists: by name: ``hosts``, ``brands`` and ``words``, each a list of texts or missing.

    Raises:
        ValueError: when two lists hold the same entry.
    """

    def __init__(self, lists: Mapping[str, Mapping[str, Any]]) -> None:
        self._hosts = _inverted(lists, "hosts")
        self._brands = _inverted(lists, "brands")
        self._words = _inverted(lists, "words")

    def of_host(self, host: str) -> str | None:
        """Return the list that holds a host, None when no list does."""
        for name in parents(host):
            if found := self._hosts.get(name):
                return found
        return self._brands.get(split_host(host).brand)

    def of_source(self, source: str) -> str | None:
        """Return the list that holds a source: a host name, a brand, or a word of utm_source; lower case."""
        found = self._words.get(source) or self._brands.get(source)
        return found or (self.of_host(source) if "." in source else None)


def _inverted(lists: Mapping[str, Mapping[str, Any]], part: str) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name, entries in lists.items():
        for entry in entries.get(part, ()):
            if owners.setdefault(str(entry), name) != name:
                raise ValueError(f"channels.yaml: {entry} is in two lists of {part}: {owners[str(entry)]} and {name}")
    return owners
