"""What a request says beside its records: the browser, the visitor's address and cookie, signals about consent.

Invariant: a visit decides nothing by itself; it holds what a record may take over, after consent was asked. Without
``ad_storage`` no cookie is set or read and no address is kept. ``Sec-GPC: 1`` takes back ``ad_user_data`` and
``ad_personalization``, whatever a record says.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from attributary.producers.collector.addresses import Address, client_address, kept_address
from attributary.producers.collector.config import CollectorConfig
from attributary.producers.collector.keys import Key
from attributary.producers.sites import ascii_host, split_host
from attributary.schemas.limits import is_country

COOKIE_SECONDS = 390 * 86_400  # browsers cut cookies at 400 days (rfc6265bis)
_COOKIE_VERSION = "1."
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_AGENT_CHARACTERS = 2_048
_TAKEN_BACK = {"ad_user_data": False, "ad_personalization": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request's surroundings.

    Attributes:
        key: the key that it came with.
        now_micros: when it came; for rules and the clock's correction, never part of a record.
        user_agent: the browser's, for write keys; None for servers.
        address: what may be kept of the client's address.
        country: from the header of a trusted CDN.
        cookie_id: anonymous id of a valid cookie.
        opted_out: the browser sends Sec-GPC, or DNT where that counts.
    """

    key: Key
    now_micros: int
    user_agent: str | None = None
    address: str | None = None
    country: str | None = None
    cookie_id: str | None = None
    opted_out: bool = False

    def consent(self, given: Mapping[str, bool] | None) -> dict[str, bool] | None:
        """Return what holds for a record: its own words, then the key's default, then the browser's signal."""
        merged = {**self.key.consent, **(given or {})}
        if self.opted_out:
            merged |= _TAKEN_BACK
        return merged or (None if given is None else {})


def visit_of(request: Request, key: Key, address: Address | None, config: CollectorConfig) -> Visit:
    """Return what a request says.

    Args:
        request: the request.
        key: its key.
        address: the client's address, as far as it can be believed.
        config: settings.
    """
    headers = request.headers
    opted_out = headers.get("sec-gpc") == "1" or (config.honour_dnt and headers.get("dnt") == "1")
    now_micros = time.time_ns() // 1000
    if key.is_secret:  # a server's request says nothing about the visitor
        return Visit(key=key, now_micros=now_micros)
    agent = headers.get("user-agent", "")[:_AGENT_CHARACTERS]
    country = headers.get(config.country_header, "").upper() if config.country_header else ""
    return Visit(
        key=key,
        now_micros=now_micros,
        user_agent=agent or None,
        address=kept_address(address, config.ip),
        country=country if len(country) == 2 and is_country(country) and country not in {"XX", "T1"} else None,
        cookie_id=read_cookie(headers.getlist("cookie"), config.cookie_name),
        opted_out=opted_out,
    )


def address_of(request: Request, config: CollectorConfig) -> Address | None:
    """Return the client's address, as far as it can be believed."""
    peer = request.client.host if request.client else None
    return client_address(peer, request.headers.getlist("x-forwarded-for"), config.trusted_proxies)


def read_cookie(values: list[str], name: str) -> str | None:
    """Return the anonymous id of the first valid cookie; a foreign or broken value is no cookie."""
    for value in values:
        for pair in value[:8_192].split(";"):
            given, _, text = pair.partition("=")
            text = text.strip()
            if name and given.strip() == name and text.startswith(_COOKIE_VERSION):
                found = text[len(_COOKIE_VERSION) :]
                if _UUID.fullmatch(found):
                    return found
    return None


def cookie_header(request: Request, anonymous_id: str | None, config: CollectorConfig) -> str:
    """Return the ``Set-Cookie`` that keeps an id, or that ends the cookie when there is none."""
    host = _own_host(request)
    parts = split_host(host)
    domain = f"; Domain={parts.registrable}" if parts.brand and _is_host(parts.registrable) else ""
    value = "" if anonymous_id is None else f"{_COOKIE_VERSION}{anonymous_id}"
    age = 0 if anonymous_id is None else COOKIE_SECONDS
    return f"{config.cookie_name}={value}; Max-Age={age}; Path=/{domain}; Secure; HttpOnly; SameSite=Lax"


def is_first_party(request: Request) -> bool:
    """Tell whether the page and the collector are one site, so that a cookie of it is the page's own."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in {"same-origin", "same-site"}
    origin = request.headers.get("origin")
    if origin is None:
        return False
    theirs, ours = ascii_host(origin.partition("://")[2].partition(":")[0]), _own_host(request)
    return bool(theirs) and split_host(theirs).registrable == split_host(ours).registrable


def minted_id(key: Key, event_id: str, occurred_micros: int) -> str:
    """Return a new anonymous id in the form of a UUIDv7: the same for the same event, so a repeated request gets it."""
    digest = hashlib.blake2b(event_id.encode(), key=key.sha256.encode()[:64], digest_size=10).hexdigest()
    stamp = max(0, occurred_micros // 1000) & ((1 << 48) - 1)
    variant = "89ab"[int(digest[0], 16) & 3]
    return f"{stamp >> 16:08x}-{stamp & 0xFFFF:04x}-7{digest[1:4]}-{variant}{digest[5:8]}-{digest[8:20]}"


def _own_host(request: Request) -> str:
    """Return the host of the header, without its port; empty when it is none."""
    try:
        return ascii_host(urlsplit(f"//{request.headers.get('host', '')}").hostname or "")
    except ValueError:  # a bracket that is no IPv6 address
        return ""


def _is_host(text: str) -> bool:
    return re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", text) is not None
