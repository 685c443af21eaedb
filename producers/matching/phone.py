"""A phone number as E.164 digits, by the rules of libphonenumber.

Contract: `e164_digits` gives country code and number without a plus, or "" when the country cannot be told; it
never guesses a country that neither the number, nor the person's country, nor the default region names, and
never raises. Extensions, the "(0)" of "+49 (0)171" and the digits of other scripts are understood.
"""

from __future__ import annotations

import re
from functools import lru_cache

import phonenumbers

from attributary.producers.matching.text import ascii_digits, clean

_INTERNATIONAL = re.compile(r"^[\s(\[]*(?:\+|00)")
_LONGEST = 64  # characters; libphonenumber refuses above 250, and no number of a person comes near
_REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)


def e164_digits(value: str, *regions: str | None) -> str:
    """Give the digits of E.164, for example 491711234567.

    Args:
        value: the number as a person typed it.
        regions: ISO 3166-1 alpha-2 codes to try, in this order, when the number itself names no country.
    """
    text = ascii_digits(clean(value)).replace("\uff0b", "+")
    if not text or len(text) > _LONGEST:
        return ""
    if _INTERNATIONAL.match(text):
        return _parsed(_INTERNATIONAL.sub("+", text), None, strict=False)
    known = [region.upper() for region in regions if region and region.upper() in _REGIONS]
    for region in known:
        if digits := _national(text, region):
            return digits
    if text.lstrip(" (").startswith("0"):
        return ""
    return _parsed("+" + text, None, strict=True)


def _national(text: str, region: str) -> str:
    """Read a number without a plus in one region.

    Where national numbers are written with a leading 0, a number without it already carries its country code;
    elsewhere (North America, Spain, ...) the national reading comes first, or 321 234 5678 of Florida would
    become a number of Belgium.
    """
    if _trunk_prefix(region) == "0" and not text.lstrip(" (").startswith("0"):
        return _parsed("+" + text, None, strict=True) or _parsed(text, region, strict=True)
    return _parsed(text, region, strict=True)


@lru_cache(maxsize=512)
def _trunk_prefix(region: str) -> str | None:
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    prefix: str | None = metadata.national_prefix if metadata else None
    return prefix


def _parsed(text: str, region: str | None, *, strict: bool) -> str:
    """Parse; strict asks for a number of a known range, else a possible length is enough."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return ""
    good = phonenumbers.is_valid_number(number) if strict else phonenumbers.is_possible_number(number)
    if not good:
        return ""
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)).removeprefix("+")
