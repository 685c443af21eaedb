"""User data under Google's rules (GA4 `user_data`, Data Manager): normalise, then SHA-256.

Contract: as in `meta`: any text, no exception, "" for what cannot be used. Differences from Meta: a phone number
keeps its plus; Gmail addresses lose the dots of the local part; names keep inner white space and lose digits.
An address of Gmail with a `+tag` has two normal forms, because Google's documentation keeps the tag and Google's own
library (Data Manager) drops it; both hashes are sent, the key takes a list.
Source: Measurement Protocol, "Send user-provided data".
"""

from __future__ import annotations

from attributary.producers.matching import meta
from attributary.producers.matching.phone import e164_digits
from attributary.producers.matching.text import (
    as_hash,
    is_md5,
    is_placeholder,
    lowered,
    sha256_hex,
    without_digits,
    without_symbols,
)

HASHED_KEYS = (
    "sha256_email_address",
    "sha256_phone_number",
    "sha256_first_name",
    "sha256_last_name",
    "sha256_street",
)


def emails(value: str) -> list[str]:
    """Give the normal forms of an address, best first."""
    text = meta.email(value)
    if not text:
        return []
    local, _, domain = text.rpartition("@")
    if domain not in meta.GMAIL:
        return [text]
    bare, plus, _ = local.partition("+")
    forms = [local.replace(".", "")] if not plus else [bare.replace(".", ""), local.replace(".", "")]
    return [f"{form}@{domain}" for form in forms if form]


def phone(value: str, *regions: str | None) -> str:
    """Give E.164 with its plus."""
    digits = e164_digits(value, *regions)
    return f"+{digits}" if digits else ""


def name(value: str) -> str:
    """Lower-case a first or last name; drop digits and symbols, keep inner white space."""
    return without_digits(without_symbols(lowered(value))).strip()


def street(value: str) -> str:
    """Lower-case street and number; drop symbols."""
    return without_symbols(lowered(value)).strip()


def hashed(key: str, value: str, *, regions: tuple[str | None, ...] = ()) -> list[str]:
    """Give the hashes of a value under one of Google's keys; an empty list when it cannot be used.

    Args:
        key: one of `HASHED_KEYS`.
        value: plain, or a SHA-256 already.
        regions: regions for a phone number without country code, best first.
    """
    if known := as_hash(value):
        return [] if is_placeholder(known) else [known]
    if is_md5(value) or (key != "sha256_phone_number" and is_placeholder(value)):
        return []
    if key == "sha256_email_address":
        forms = emails(value)
    elif key == "sha256_phone_number":
        forms = [phone(value, *regions)]
    else:
        forms = [street(value) if key == "sha256_street" else name(value)]
    digests = [sha256_hex(form) for form in forms if form]
    return [digest for digest in digests if not is_placeholder(digest)]
