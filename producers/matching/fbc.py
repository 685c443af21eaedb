"""Meta's click id (fbc) and browser id (fbp): build, parse, check.

Contract: an fbc is built once, from the case-exact fbclid and the moment when it was first seen; a value that starts
with "fb." is an fbc already and is never wrapped or stamped again (Meta rejects the whole event for it, error
100/2804001). Both come in 4 segments, `fb.{index}.{milliseconds}.{payload}`, and in 5, with the appendix of Meta's
parameter builder (2 or 8 characters). Parsing never raises. A placeholder (`undefined`, `{{fbclid}}`) is no click id.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from attributary.producers.matching.text import is_placeholder

EARLIEST_MS = 1_000_000_000_000  # September 2001: a smaller number is a time in seconds
SERVER_SUBDOMAIN_INDEX = 1  # Meta: com is 0, example.com 1, www.example.com 2; servers use 1

_FORM = re.compile(r"fb\.([0-2])\.(\d{10,13})\.([A-Za-z0-9_-]+)(?:\.([A-Za-z0-9_-]{2}|[A-Za-z0-9_-]{8}))?")
_PAYLOAD = re.compile(r"[A-Za-z0-9_-]+")
_RANDOM = re.compile(r"\d{1,20}")


class BrowserValue(NamedTuple):
    """The parts of an fbc or fbp.

    Attributes:
        subdomain_index: where the cookie was set: 0, 1 or 2.
        created_ms: milliseconds since 1970-01-01 UTC.
        payload: the fbclid (fbc) or the random number (fbp), byte for byte.
        appendix: the fifth segment of Meta's parameter builder, None when there is none.
    """

    subdomain_index: int
    created_ms: int
    payload: str
    appendix: str | None = None

    def __str__(self) -> str:
        head = f"fb.{self.subdomain_index}.{self.created_ms}.{self.payload}"
        return head if self.appendix is None else f"{head}.{self.appendix}"


def parse(value: str) -> BrowserValue | None:
    """Give the parts of an fbc or fbp of 4 or 5 segments, None when it is neither."""
    match = _FORM.fullmatch(value) if value.isascii() else None
    if match is None:
        return None
    index, created, payload, appendix = match.groups()
    return BrowserValue(int(index), int(created), payload, appendix)


def is_fbc(value: str) -> bool:
    """Return whether the value is a click id: Meta's form, a time in milliseconds, and no placeholder inside."""
    parts = parse(value)
    return parts is not None and parts.created_ms >= EARLIEST_MS and not is_placeholder(parts.payload)


def is_fbp(value: str) -> bool:
    """Say whether Meta would take the value as a browser id: the payload is a number."""
    parts = parse(value)
    good = parts is not None and parts.created_ms >= EARLIEST_MS and _RANDOM.fullmatch(parts.payload) is not None
    return good and parts is not None and not is_placeholder(parts.payload)


def build_fbc(fbclid: str, first_seen_ms: int, *, subdomain_index: int = SERVER_SUBDOMAIN_INDEX) -> str | None:
    """Build a click id, once, at click time.

    Args:
        fbclid: the parameter of the landing URL, byte for byte; a finished fbc is given back as it is.
        first_seen_ms: when this fbclid was first seen, in milliseconds; never "now" on a later event.
        subdomain_index: 1 for servers.

    Returns:
        None when Meta would reject the value.
    """
    if fbclid.startswith("fb."):
        return fbclid if is_fbc(fbclid) else None
    if not fbclid.isascii() or not _PAYLOAD.fullmatch(fbclid):
        return None
    built = str(BrowserValue(subdomain_index, first_seen_ms, fbclid))
    return built if is_fbc(built) else None


def build_fbp(random_number: int, created_ms: int, *, subdomain_index: int = SERVER_SUBDOMAIN_INDEX) -> str:
    """Build a browser id for a visitor that has none; the caller draws the number and keeps the result."""
    return str(BrowserValue(subdomain_index, created_ms, str(random_number)))


def renewed_fbc(current: str | None, fbclid: str | None, seen_ms: int) -> str | None:
    """Give the click id to keep: the current one, unless the landing URL brings another fbclid.

    Args:
        current: the value of the _fbc cookie, None without one.
        fbclid: the parameter of the landing URL, None without one.
        seen_ms: time of the landing in milliseconds.
    """
    known = parse(current) if current else None
    if not fbclid:
        return current if known else None
    if known is not None and known.payload == fbclid:
        return current
    return build_fbc(fbclid, seen_ms) or (current if known else None)
