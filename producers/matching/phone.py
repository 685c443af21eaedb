"""A phone number as E.164 digits, by the rules and in the order of libphonenumber.

Contract: `e164_digits` returns country code and number without a plus, or "" when the number is not valid anywhere that
we may look; it never raises. Invariant: a number is read as a national number of the person's country first, then of
the default region, and only then as one that carries its country code without a plus: the other order makes numbers of
Missouri out of Chinese ones. One exception: a mobile number of the same country with its code, where the national
reading is a landline (491711234567 in Germany). Extensions, the "(0)" of "+49 (0)171", the digits of other scripts,
`tel:` and what spreadsheets add are understood.
"""

from __future__ import annotations

import re

import phonenumbers

from attributary.producers.matching.text import ascii_digits, clean, without_joiners

_INTERNATIONAL = re.compile(r"^[\s(\[]*(?:\+|00)")
# RFC 3966 and its relatives: the number stands between the scheme and the first parameter or query.
_SCHEME = re.compile(r"(?:tel|sms|smsto|callto|facetime|whatsapp|viber|mobile|phone)\s*:\s*(?://)?", re.IGNORECASE)
_AS_FLOAT = re.compile(r"(\+?[0-9]{7,15})\.0+")  # 16505551212.0: a column of numbers with gaps
_CONTEXT = re.compile(r";phone-context=(\+[0-9-]+)", re.IGNORECASE)
_MAX_CHARACTERS = 64  # libphonenumber refuses above 250, and no number of a person comes near
_MOBILE = frozenset((phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE))
_REGIONS = frozenset(phonenumbers.SUPPORTED_REGIONS)


def e164_digits(value: str, *regions: str | None) -> str:
    """Return the digits of E.164, for example 491711234567.

    Args:
        value: the number as a person typed it.
        regions: ISO 3166-1 alpha-2 codes to try, in this order, when the number has no plus.
    """
    text = _bare(ascii_digits(without_joiners(clean(value))).replace("\uff0b", "+"))
    if not text or len(text) > _MAX_CHARACTERS:
        return ""
    if _INTERNATIONAL.match(text):
        return _digits(_number(_INTERNATIONAL.sub("+", text), None, strict=False))
    for region in regions:
        if region and region.upper() in _REGIONS and (digits := _national(text, region.upper())):
            return digits
    if text.lstrip(" (").startswith("0"):
        return ""
    return _digits(_number("+" + text, None))


def _national(text: str, region: str) -> str:
    """Read a number as one of a region, with or without the region's own country code."""
    national = _number(text, region)
    code = str(phonenumbers.country_code_for_region(region))
    if national is None or not text.lstrip(" (").startswith(code):
        return _digits(national)
    coded = _number("+" + text, None)
    if coded is not None and _is_mobile(coded) and not _is_mobile(national):
        return _digits(coded)
    return _digits(national)


def _is_mobile(number: phonenumbers.PhoneNumber) -> bool:
    return phonenumbers.number_type(number) in _MOBILE


def _bare(text: str) -> str:
    """Take off a scheme with its parameters, the quotes of a spreadsheet, and the ".0" of a column of floats."""
    text = text.strip("'\"`\u2018\u2019\u00b4= ")
    if scheme := _SCHEME.match(text):
        text = text[scheme.end() :]
        context = _CONTEXT.search(text)
        text = re.split("[;?,]", text, maxsplit=1)[0]
        if context and not text.startswith("+"):
            text = context[1] + text
    whole = _AS_FLOAT.fullmatch(text)
    return whole[1] if whole else text


def _number(text: str, region: str | None, *, strict: bool = True) -> phonenumbers.PhoneNumber | None:
    """Parse; strict asks for a number of a known range, else a possible length is enough."""
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    good = phonenumbers.is_valid_number(number) if strict else phonenumbers.is_possible_number(number)
    return number if good else None


def _digits(number: phonenumbers.PhoneNumber | None) -> str:
    if number is None:
        return ""
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)).removeprefix("+")
