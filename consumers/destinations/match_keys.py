"""The hashes and identifiers of a person that an event carries, as destinations beside Meta and GA4 take them.

Contract: pure; never raises on a conversion. Two families of hashes stand on the topic: under Meta's rules (a phone
number is digits) and under Google's (a phone number keeps its plus). E-mail addresses are trimmed and lower-cased in
Meta's family, which most ask for; Reddit wants them bare: without dots and tag, whatever the domain. A hash of nothing
is left out with a remark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.consumers.destinations.addresses import public_address
from attributary.producers.matching import hash_user_data_with_remarks, usable_hashes
from attributary.producers.matching.google import HASHED_KEYS as GOOGLE_KEYS
from attributary.producers.matching.text import as_hash, clean, is_placeholder, sha256_hex
from attributary.producers.matching.user_data import BARE_EMAIL, PLAIN_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_META_KEYS = frozenset(
    ("em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id", "f5first", "f5last", "fi")
) | {"dobd", "dobm", "doby", BARE_EMAIL}


class MatchKeys(NamedTuple):
    """What recognises a person; each a list of lower-case SHA-256 in hexadecimal, best first.

    Attributes:
        emails: trimmed and lower-cased before hashing.
        phones: E.164 with its plus before hashing.
        external_ids: the tenant's id of the person, trimmed, its case kept.
        first_names: lower-case letters.
        last_names: lower-case letters.
        postal_codes: lower-case, without blanks.
        bare_emails: without the dots and the +tag of the local part, whatever the domain.
        by_meta_key: all hashes under Meta's rules, where a phone number has no plus.
        by_google_key: all hashes under Google's rules.
    """

    emails: Sequence[str]
    phones: Sequence[str]
    external_ids: Sequence[str]
    first_names: Sequence[str]
    last_names: Sequence[str]
    postal_codes: Sequence[str]
    bare_emails: Sequence[str]
    by_meta_key: Mapping[str, Sequence[str]]
    by_google_key: Mapping[str, Sequence[str]]


def match_keys(
    conversion: Mapping[str, Any], default_region: str | None, remarks: list[str], *, wants_plus: bool = True
) -> MatchKeys:
    """Return the hashes of an event's person; plain fields are hashed on the way.

    Args:
        conversion: the event.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        remarks: gets a remark for what is left out.
        wants_plus: the destination hashes a phone number with its plus.
    """
    given = conversion["user_data"]
    meta: Mapping[str, list[str]] = {}
    google: Mapping[str, list[str]] = {}
    if given:
        if any(given[field] for field in PLAIN_FIELDS):
            given, left_out = hash_user_data_with_remarks(given, default_region=default_region)
            remarks += left_out["meta"]
        meta, more = usable_hashes(given["meta_hashes"], _META_KEYS)
        google, others = usable_hashes(given["google_hashes"], GOOGLE_KEYS)
        remarks += [*more, *others]
        if wants_plus and "ph" in meta and "sha256_phone_number" not in google:
            remarks.append("phone left out: only its hash without the plus is on the topic")
    external_ids = meta.get("external_id") or _user_id(conversion, remarks)
    return MatchKeys(
        meta.get("em", ()),
        google.get("sha256_phone_number", ()),
        external_ids,
        meta.get("fn", ()),
        meta.get("ln", ()),
        meta.get("zp", ()),
        # Of a Gmail address Google's first form is the bare one; of another with a dot or a tag the client adds it.
        meta.get(BARE_EMAIL) or google.get("sha256_email_address", ())[:1] or meta.get("em", ()),
        {key: values for key, values in meta.items() if key != BARE_EMAIL} | {"external_id": external_ids},
        google,
    )


def _user_id(conversion: Mapping[str, Any], remarks: list[str]) -> Sequence[str]:
    text = clean(conversion["user_id"] or "")
    if not text:
        return ()
    if is_placeholder(text):
        remarks.append("user_id left out: a placeholder")
        return ()
    return [as_hash(text) or sha256_hex(text)]


def click_id(conversion: Mapping[str, Any], *names: str) -> str | None:
    """Return the first click id of some names, byte for byte; None without one."""
    click_ids = conversion["click_ids"]
    return next(
        (click_ids[name] for name in names if click_ids.get(name) and not is_placeholder(click_ids[name])), None
    )


def address(conversion: Mapping[str, Any], remarks: list[str]) -> str | None:
    """Return the person's public IP address, None without one."""
    if not (given := conversion["client_ip_address"]):
        return None
    plain, remark = public_address(given)
    if not plain:
        remarks.append(remark)
    return plain or None
