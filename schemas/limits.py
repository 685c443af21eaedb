"""What the rules measure with: limits, sets of allowed words, and the cheap tests that the checks are made of.

Invariant: every test takes any value of the right type in constant time once its answer is known; memory for known
answers is bounded in number and in length.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

from iso4217 import Currency

TENANT_CHARACTERS = 64
ID_CHARACTERS = 200
WORD_CHARACTERS = 100
TEXT_CHARACTERS = 500
URL_CHARACTERS = 4096
MAP_ENTRIES = 100
ITEMS = 1000
SPEND_ROWS = 2000

MICROS_PER_DAY = 86_400_000_000
EARLIEST_MICROS = 946_684_800_000_000  # 2000-01-01 UTC: an earlier time is a unit mix-up or a broken clock
LATEST_MICROS = 4_102_444_800_000_000  # 2100-01-01 UTC, where nobody says what time it is now
AHEAD_MICROS = MICROS_PER_DAY  # how far a device's clock may run ahead

# 100 billion units: above any order, and sums of many stay far inside 64 bits.
MOST_VALUE_MICROS = 10**17
MOST_CLAIMED = 10**9  # conversions that a platform may claim for one row of spend

ACTION_SOURCES = frozenset(
    {
        "website", "app", "email", "phone_call", "chat", "physical_store", "system_generated", "business_messaging",
        "other",
    }
)  # fmt: skip
CONVERSION_KINDS = frozenset({"conversion", "refund", "cancellation", "restatement"})
JOB_KINDS = frozenset({"analyze_journey", "analyze_batch", "train", "activate", "rollback", "backtest", "cancel"})
ERASURE_KINDS = ("user", "anonymous", "order", "email")
ERASURE_MODES = ("delete", "delete-and-suppress", "suppress", "unsuppress")

NO_CURRENCY = "XXX"
# Withdrawn since 2020, still in orders that are restated or imported; exponents from ISO 4217's list of historic codes.
_WITHDRAWN_EXPONENTS = {"ANG": 2, "BGN": 2, "CUC": 2, "HRK": 2, "SLL": 2, "ZWL": 2}
# Micros in one minor unit, by currency. Codes without a minor unit (XAU, XDR, XTS, ...) price nothing and are left out.
MINOR_UNIT_MICROS = {
    code: 10 ** (6 - exponent)
    for code, exponent in (_WITHDRAWN_EXPONENTS | {entry.code: entry.exponent for entry in Currency}).items()
    if exponent is not None
}

_TENANT = re.compile(r"[a-z0-9._-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RuleViolation(NamedTuple):
    """A record breaks a rule; the text never holds the value."""

    field: str
    rule: str


@functools.lru_cache(maxsize=4096)
def _is_tenant(text: str) -> bool:
    return _TENANT.fullmatch(text) is not None


@functools.lru_cache(maxsize=4096)
def _is_word(text: str) -> bool:
    return text == text.strip().lower() and text.isprintable()


@functools.lru_cache(maxsize=1024)
def is_country(text: str) -> bool:
    """Tell whether a text has the shape of an ISO 3166-1 alpha-2 code; give it two characters at most."""
    return len(text) == 2 and text.isascii() and text.isalpha() and text.isupper()


def is_tenant(text: str) -> bool:
    """Tell whether a text may name a tenant."""
    return 0 < len(text) <= TENANT_CHARACTERS and _is_tenant(text)


def is_word(text: str) -> bool:
    """Tell whether a text is a lower-case word of an open set, such as a platform or a channel; a terminal shows it."""
    return 0 < len(text) <= WORD_CHARACTERS and _is_word(text)


def is_sha256(text: str) -> bool:
    """Tell whether a text is a lower-case hex SHA-256."""
    return _SHA256.fullmatch(text) is not None


def check_time(field: str, micros: int, now_micros: int | None) -> RuleViolation | None:
    """Refuse times before 2000 and, when the time now is known, more than a day ahead of it."""
    latest = LATEST_MICROS if now_micros is None else now_micros + AHEAD_MICROS
    if EARLIEST_MICROS <= micros <= latest:
        return None
    if micros < EARLIEST_MICROS:
        return RuleViolation(field, "must not be before 2000-01-01 (microseconds UTC)")
    return RuleViolation(field, "must not be more than one day in the future (microseconds UTC)")


def check_texts(field: str, texts: Mapping[str, str]) -> RuleViolation | None:
    """Refuse maps with too many entries or too long names or texts."""
    if len(texts) > MAP_ENTRIES:
        return RuleViolation(field, f"must have {MAP_ENTRIES} entries at most")
    if texts and max(map(len, texts)) > ID_CHARACTERS:
        return RuleViolation(field, f"the names in it must have {ID_CHARACTERS} characters at most")
    if texts and max(map(len, texts.values())) > URL_CHARACTERS:
        return RuleViolation(field, f"the texts in it must have {URL_CHARACTERS} characters at most")
    return None
