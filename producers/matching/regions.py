"""Countries and states as the two-letter codes that destinations match on.

Contract: a country that is not recognised gives "", because a wrong code is worse than none (Meta's own helper turns
"Österreich" into "st"). States are mapped for the United States and Canada only, and never when the person's country
is known to be another one.
"""

from __future__ import annotations

import re
from functools import cache

from attributary.producers.matching.country_names import OFFICIAL, TABLE
from attributary.producers.matching.text import lowered, without_digits, without_punctuation

_STATES = (
    "al alabama|ak alaska|az arizona|ar arkansas|ca california|co colorado|ct connecticut|de delaware|"
    "dc district of columbia|dc washington dc|fl florida|ga georgia|hi hawaii|id idaho|il illinois|in indiana|"
    "ia iowa|ks kansas|ky kentucky|la louisiana|me maine|md maryland|ma massachusetts|mi michigan|mn minnesota|"
    "ms mississippi|mo missouri|mt montana|ne nebraska|nv nevada|nh new hampshire|nj new jersey|nm new mexico|"
    "ny new york|nc north carolina|nd north dakota|oh ohio|ok oklahoma|or oregon|pa pennsylvania|pr puerto rico|"
    "ri rhode island|sc south carolina|sd south dakota|tn tennessee|tx texas|ut utah|vt vermont|va virginia|"
    "wa washington|wv west virginia|wi wisconsin|wy wyoming|"
    "ab alberta|bc british columbia|mb manitoba|nb new brunswick|nl newfoundland and labrador|nl newfoundland labrador|"
    "nl newfoundland|"
    "ns nova scotia|nt northwest territories|nu nunavut|on ontario|pe prince edward island|qc quebec|qc québec|"
    "sk saskatchewan|yt yukon"
)


# What official names put before the name: "Kingdom of Spain", "the Commonwealth of Australia".
_FORMS = tuple(
    form.replace(" ", "").replace("'", "")
    for form in (
        "arab republic of", "bolivarian republic of", "commonwealth of", "commonwealth of the",
        "cooperative republic of", "democratic and popular republic of", "democratic peoples republic of",
        "democratic republic of", "democratic socialist republic of", "federal democratic republic of",
        "federal republic of", "federated states of", "federative republic of", "grand duchy of",
        "hashemite kingdom of", "independent and sovereign republic of", "independent state of", "islamic republic of",
        "kingdom of", "kingdom of the", "peoples democratic republic of", "peoples republic of",
        "plurinational state of", "principality of", "republic of", "republic of the", "socialist republic of",
        "state of", "sultanate of", "the former yugoslav republic of", "union of", "union of the",
        "united republic of", "province of china", "eastern republic of", "federation of",
    )
)  # fmt: skip
_FORMAL = re.compile("^(?:the)?(?:" + "|".join(sorted(_FORMS, key=len, reverse=True)) + ")")


def name_key(value: str) -> str:
    """Give the form in which names of places are compared: lower case, no punctuation, no white space."""
    return without_punctuation(lowered(value))


@cache
def _countries() -> dict[str, str]:
    names: dict[str, str] = {}
    for line in filter(None, (TABLE + OFFICIAL).splitlines()):
        code, alpha3, spellings = line.split(" ", 2)
        for spelling in (code, alpha3, *spellings.split("|")):
            names.setdefault(name_key(spelling), code)
    return names


@cache
def _states() -> dict[str, str]:
    pairs = (entry.split(" ", 1) for entry in _STATES.split("|"))
    return {name_key(name): code for code, name in pairs}


def country_code(value: str) -> str:
    """Give the ISO 3166-1 alpha-2 code in lower case, or "" when the country is not recognised."""
    names = _countries()
    code = names.get(name_key(value))
    if code is not None:
        return code
    head, comma, tail = value.partition(",")
    if comma and "," not in tail:  # "Korea, Republic of", as ISO's own list has it
        code = names.get(name_key(f"{tail} {head}"))
        value = head if code is None and name_key(tail) in _FORMS else value
    return code or names.get(_FORMAL.sub("", name_key(value)), "")


def state_code(value: str, country: str = "") -> str:
    """Give the two-letter code of a state of the US or Canada, else the name in Meta's plain form.

    Args:
        value: the state or region as it was typed.
        country: ISO 3166-1 alpha-2 code of the person in lower case, "" when not known.
    """
    plain = without_digits(name_key(value))
    if country in {"", "us", "ca"}:
        return _states().get(plain, plain)
    return plain
