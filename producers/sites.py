"""Who stands behind a host name or a utm_source: lists of sites, matched from the most to the least specific.

Invariant: a name is matched by its registrable domain (public suffix list), never by a part of the text, so that
``google.evil.example`` is not Google. Nothing here opens a connection: the suffix list is the one in the package.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import idna
import tldextract

_suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True)
_CACHED_HOSTS = 16_384
_CACHED_ORIGINS = 2_048
_LONGEST_HOST = 253  # RFC 1035
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[A-Za-z0-9.:-]{1,253}(?=[/?#]|$)")
_HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*|[0-9a-f:]+:[0-9a-f:]+")
_WEB_SCHEMES = frozenset({"http", "https", "android-app", "ios-app"})


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


def ascii_host(host: str) -> str:
    """Return a host name as browsers send it: lower case, international names in Punycode (IDNA 2008, UTS 46).

    Returns the name in lower case when it is no domain name.
    """
    host = host.strip().rstrip(".").lower()
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode()
    except idna.IDNAError:
        return host


def web_host(url: str) -> str:
    """Return the host of a page that can be a referrer; empty when there is none.

    A browser's extension, a file, this computer and an address of a private network bring nobody.
    """
    origin = _ORIGIN.match(url)  # there are many pages of few hosts, and nothing behind a host changes it
    return _host_of(url) if origin is None else _host_of_origin(origin[0])


@lru_cache(maxsize=_CACHED_ORIGINS)
def _host_of_origin(origin: str) -> str:
    return _host_of(origin)


def _host_of(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        host = ascii_host(parts.hostname or "")
    except ValueError:  # a bracket that is no IPv6 address, and the like
        return ""
    if parts.scheme not in _WEB_SCHEMES or len(host) > _LONGEST_HOST or host == "localhost":
        return ""
    if _is_address(host):
        try:
            return host if ipaddress.ip_address(host).is_global else ""
        except ValueError:
            return ""
    return "" if host.endswith(".localhost") else host


def own_domain(text: str) -> str:
    """Return the domain of a setting: without scheme, port, path, ``www.`` and ``*.``, in Punycode.

    Raises:
        ValueError: it names no host, or a suffix under which strangers register (``com``, ``co.uk``, ``github.io``).
    """
    name = text.strip().rpartition("://")[2]
    name = re.split(r"[/?#]", name, maxsplit=1)[0].rpartition("@")[2]
    name = ascii_host(re.sub(r":[0-9]*$", "", name)).removeprefix("*.").removeprefix(".").removeprefix("www.")
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(f"own domain {text!r}: must name a host, for example shop.example.com")
    parts = _suffixes.extract_str(name)
    if parts.suffix and not parts.domain:
        raise ValueError(f"own domain {text!r}: strangers have domains below it; name your own")
    return name


class SiteLists:
    """Named lists of sites.

    Args:
        lists: by name: ``hosts``, ``brands`` and ``words``, each a list of texts or missing; ``portals``, a pattern of
            what may stand before the registrable domain, by brand; ``subdomains``, such a pattern for any domain.

    Raises:
        ValueError: when two lists hold the same entry.
    """

    def __init__(self, lists: Mapping[str, Mapping[str, Any]]) -> None:
        self._hosts = _inverted(lists, "hosts")
        self._brands = _inverted(lists, "brands")
        self._words = _inverted(lists, "words")
        self._portals: dict[str, list[tuple[re.Pattern[str], str]]] = {}
        for name, entries in lists.items():
            for brand, pattern in entries.get("portals", {}).items():
                self._portals.setdefault(str(brand), []).append((re.compile(pattern), name))
        self._subdomains: list[tuple[re.Pattern[str], str]] = [
            (re.compile(entries["subdomains"]), name) for name, entries in lists.items() if "subdomains" in entries
        ]

    def of_host(self, host: str) -> str | None:
        """Return the list that holds a host, None when no list does."""
        for name in parents(host):
            if found := self._hosts.get(name):
                return found
        registrable, brand = split_host(host)
        if listed := self._brands.get(brand):
            return listed
        before = host[: -len(registrable)].rstrip(".") if len(host) > len(registrable) else ""
        for pattern, listed in (*self._portals.get(brand, ()), *(self._subdomains if before else ())):
            if pattern.fullmatch(before):
                return str(listed)
        return None

    def of_source(self, source: str) -> str | None:
        """Return the list that holds a source: a host name, a brand, or a word of utm_source; lower case."""
        found = self._words.get(source) or self._brands.get(source)
        if found is None and source in self._portals:
            found = next((name for pattern, name in self._portals[source] if pattern.fullmatch("")), None)
        return found or (self.of_host(source) if "." in source else None)


def _inverted(lists: Mapping[str, Mapping[str, Any]], part: str) -> dict[str, str]:
    owners: dict[str, str] = {}
    for name, entries in lists.items():
        for entry in entries.get(part, ()):
            if owners.setdefault(str(entry), name) != name:
                raise ValueError(f"channels.yaml: {entry} is in two lists of {part}: {owners[str(entry)]} and {name}")
    return owners
