"""Text as the matching rules of Meta and Google see it, before it is hashed.

Contract: every function takes any text, never raises, and gives "" for what cannot be used. Text with lone
surrogates is corrupt and gives "". Everything is NFC, so that a name typed on macOS (NFD) and the same name
typed elsewhere have one hash. Nothing here is ever logged.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

from attributary.attribution_core.domain.identity_rules import SAMPLE, placeholder

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_APOSTROPHES = frozenset(
    "\u00b4\u02b9\u02bb\u02bc\u02bd\u02c8\u02ca\u02cb\u2032\u2035\uff07"
)  # typed for ' on other keyboards
_INVISIBLE = frozenset(("Cc", "Cf", "Cs"))
_JOINERS = frozenset("\u200c\u200d")  # spell Persian and Indic words; nobody types them into an address


def clean(value: str) -> str:
    """Return the text in NFC without control, zero-width and direction characters, and without outer white space."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    if not value.isprintable():
        value = "".join(c for c in value if c.isspace() or c in _JOINERS or unicodedata.category(c) not in _INVISIBLE)
    return unicodedata.normalize("NFC", value).strip()


def lowered(value: str) -> str:
    """Give the cleaned text in lower case; still NFC, and the same again when done twice."""
    return unicodedata.normalize("NFC", clean(value).lower()).strip()


def is_placeholder(value: str) -> bool:
    """Return whether a value names nobody: a word for a missing value, an unfilled template, the hash of nothing."""
    rule = placeholder(value)
    # 32 hexadecimal digits in order are an example in somebody's documentation, and an id in somebody's tests.
    return rule is not None and not (rule is SAMPLE and is_md5(value))


def without_joiners(value: str) -> str:
    """Drop zero-width joiners: pasted into addresses and numbers, never meant there."""
    return value if value.isascii() else "".join(c for c in value if c not in _JOINERS)


def as_hash(value: str) -> str | None:
    """Give a value that is a SHA-256 already in lower case, else None."""
    candidate = value.strip().lower()
    return candidate if _SHA256.fullmatch(candidate) else None


def is_md5(value: str) -> bool:
    """Say whether a value looks like an MD5, which no destination of ours documents."""
    return _MD5.fullmatch(value.strip().lower()) is not None


def sha256_hex(value: str) -> str:
    """Return the SHA-256 of the UTF-8 bytes of a text, lower-case hexadecimal; half a surrogate pair counts as "?"."""
    return hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()


def without_punctuation(value: str) -> str:
    """Drop white space and punctuation of every script, and the symbols of ASCII."""
    return "".join(
        c
        for c in value
        if c not in _ASCII_PUNCTUATION
        and c not in _APOSTROPHES
        and not c.isspace()
        and not unicodedata.category(c).startswith("P")
    )


def without_symbols(value: str) -> str:
    """Drop punctuation and symbols of every script; white space stays."""
    return "".join(c for c in value if unicodedata.category(c)[0] not in "PS")


def without_digits(value: str) -> str:
    """Drop the digits of every script."""
    return "".join(c for c in value if unicodedata.category(c) != "Nd")


def ascii_digits(value: str) -> str:
    """Write the digits of every script (Arabic, Devanagari, full width, ...) as 0 to 9."""
    if value.isascii():
        return value
    return "".join(str(unicodedata.decimal(c)) if unicodedata.category(c) == "Nd" else c for c in value)
