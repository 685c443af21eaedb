"""User data under Meta's rules: normalise, then SHA-256, one function a key.

Contract: `NORMALISERS` gives for each of Meta's keys the normal form of any text, "" when the value cannot be used;
`hashed` gives the hash, passing through what is hashed already. No function raises. Where Meta's two official
implementations differ, the choice and its reason stand in docs/how-to/forward.md; the golden vectors are
those of Meta's documentation (customer-information-parameters).
"""

from __future__ import annotations

import datetime as dt
import re
from functools import lru_cache
from typing import TYPE_CHECKING

import idna

from attributary.producers.matching.phone import e164_digits
from attributary.producers.matching.regions import country_code, state_code
from attributary.producers.matching.text import (
    as_hash,
    ascii_digits,
    clean,
    is_md5,
    is_placeholder,
    lowered,
    sha256_hex,
    without_digits,
    without_joiners,
    without_punctuation,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HASHED_KEYS = ("em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id")

_EMAIL = re.compile(r"([^@\s,;:<>()\[\]\"%]+)@([^@\s]+)")
_MAILTO = re.compile(r"(?:mailto|e-?mail)\s*:\s*")
_ASCII_DOMAIN = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)+[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_DOMAIN_CHARACTERS = 253
_US_NINE_DIGITS = re.compile(r"\d{9}")
# Two-letter codes of states and countries, and short names, read like words for a missing value ("NA" is Naples).
_MAY_READ_LIKE_PLACEHOLDERS = frozenset(("ge", "db", "country", "st", "ph"))
_YEAR_FIRST = re.compile(r"(\d{4})(?:[-/. ]?)(\d{1,2})(?:[-/. ]?)(\d{1,2})(?:T.*)?")
_COMPACT = re.compile(r"(\d{4})(\d{2})(\d{2})")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/. ])(\d{1,2})[-/. ](\d{4})")
_FEMALE = frozenset(("f", "female", "woman", "girl", "w", "weiblich", "frau", "femme", "femenino", "mujer", "donna"))
_MALE = frozenset(("m", "male", "man", "boy", "männlich", "mann", "homme", "masculino", "hombre", "uomo"))

GMAIL = frozenset(("gmail.com", "googlemail.com"))


def email(value: str) -> str:
    """Return an address trimmed and in lower case, its domain as IDNA A-labels; "" for anything else.

    Browsers give a mail field's domain as A-labels (xn--...), so `jane@bücher.de` has one hash wherever it was typed.
    """
    text = without_joiners(lowered(value)).replace("\uff20", "@")
    if prefix := _MAILTO.match(text):
        text = text[prefix.end() :].partition("?")[0].strip()
    parts = _EMAIL.fullmatch(text)
    if parts is None:
        return ""
    domain = _domain(parts[2])
    return f"{parts[1]}@{domain}" if domain else ""


@lru_cache(maxsize=4_096)
def _domain(text: str) -> str:
    """Return a domain as A-labels, "" when it is none: fewer than two labels, an empty one, forbidden characters."""
    text = text.removesuffix(".")
    if not text.isascii():
        try:
            text = idna.encode(text, uts46=True, std3_rules=True).decode()
        except UnicodeError:
            return ""
    good = len(text) <= _DOMAIN_CHARACTERS and _ASCII_DOMAIN.fullmatch(text) and not text.rpartition(".")[2].isdigit()
    return text if good else ""


def phone(value: str, *regions: str | None) -> str:
    """Give country code and number, digits only; see `phone.e164_digits`."""
    return e164_digits(value, *regions)


def name(value: str) -> str:
    """Lower-case a first or last name; drop punctuation and white space (`O'Brien` -> `obrien`)."""
    return without_punctuation(lowered(value))


def date_of_birth(value: str) -> str:
    """Give YYYYMMDD; day and month are told apart by position, dots (day first) and range (16/2 is a day first)."""
    text = ascii_digits(clean(value))
    if match := _COMPACT.fullmatch(text) or _YEAR_FIRST.fullmatch(text):
        year, month, day = (int(part) for part in match.groups())
    elif match := _YEAR_LAST.fullmatch(text):
        first, separator, second, last = match.groups()
        day_first = separator == "." or int(first) > 12
        day, month = (int(first), int(second)) if day_first else (int(second), int(first))
        year = int(last)
    else:
        return ""
    try:
        return dt.date(year, month, day).strftime("%Y%m%d") if year >= 1000 else ""
    except ValueError:
        return ""


def gender(value: str) -> str:
    """Give f or m; any other word gives ""."""
    text = lowered(value)
    if text in _FEMALE:
        return "f"
    return "m" if text in _MALE else ""


def city(value: str) -> str:
    """Lower-case a city; drop digits, punctuation and white space, keep letters of every script."""
    return without_digits(without_punctuation(lowered(value)))


def state(value: str, country: str = "") -> str:
    """Give the two-letter code in the US and Canada, else the lower-case name; see `places.state_code`."""
    return state_code(value, country)


def postal_code(value: str, country: str = "") -> str:
    """Lower-case a postal code; drop white space and all that follows a dash (`94035-1234` -> `94035`).

    A code of nine digits in the United States is cut to five, as Meta asks.
    """
    text = "".join(ascii_digits(lowered(value)).partition("-")[0].split())
    return text[:5] if country == "us" and _US_NINE_DIGITS.fullmatch(text) else text


def country(value: str) -> str:
    """Give the ISO 3166-1 alpha-2 code in lower case; names are understood."""
    return country_code(value)


def external_id(value: str) -> str:
    """Trim the tenant's own id of the person; its case means something and stays."""
    return clean(value)


NORMALISERS: dict[str, Callable[[str], str]] = {
    "em": email,
    "ph": phone,
    "fn": name,
    "ln": name,
    "db": date_of_birth,
    "ge": gender,
    "ct": city,
    "st": state,
    "zp": postal_code,
    "country": country,
    "external_id": external_id,
}


def hashed_bare_email(value: str) -> str:
    """Return the SHA-256 of an address without dots and +tag in its local part; "" where that changes nothing.

    "" for an address of Gmail as well: Google's rules give its bare form.
    """
    if as_hash(value) or is_placeholder(value):
        return ""
    local, _, domain = email(value).rpartition("@")
    bare = local.partition("+")[0].replace(".", "")
    return "" if not bare or bare == local or domain in GMAIL else sha256_hex(f"{bare}@{domain}")


def hashed(key: str, value: str, *, regions: tuple[str | None, ...] = (), home: str = "") -> str:
    """Give the lower-case hexadecimal SHA-256 of a value under one of Meta's keys, "" when it cannot be used.

    Args:
        key: one of `HASHED_KEYS`.
        value: plain, or a SHA-256 already. An MD5 is dropped, hashing it would only hide it (except for an
            external id, which may look like one).
        regions: regions for a phone number without country code, best first.
        home: the person's country (alpha-2, lower case), for the states.
    """
    if known := as_hash(value):
        return "" if is_placeholder(known) else known
    if key != "external_id" and is_md5(value):
        return ""
    if key not in _MAY_READ_LIKE_PLACEHOLDERS and is_placeholder(value):
        return ""
    if key == "ph":
        normal = phone(value, *regions)
    elif key == "zp":
        normal = postal_code(value, home)
    elif key == "st":
        normal = state(value, home)
    else:
        normal = NORMALISERS[key](value)
    digest = sha256_hex(normal) if normal else ""
    return "" if is_placeholder(digest) else digest
