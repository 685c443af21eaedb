"""The rules of records of spend: a report is of one account's day and level, and each row names what it is of, once.

Invariant: a record that keeps them is stored as it is; ids stand exactly down to the level, so rows of one level can be
told apart and never added twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attributary.attribution_core.domain.identity_rules import IdentityRules
from attributary.attribution_core.spend.slices import LEVELS, entity_of

from .limits import (
    ID_CHARACTERS,
    MINOR_UNIT_MICROS,
    MOST_CLAIMED,
    MOST_VALUE_MICROS,
    SPEND_ROWS,
    TEXT_CHARACTERS,
    RuleViolation,
    check_time,
    is_tenant,
    is_word,
)

_EPOCH = date(1970, 1, 1)
_FIRST_DAY, _END_DAY = ((date(year, 1, 1) - _EPOCH).days for year in (2000, 2100))
_MOST_COUNTED = 2**62
_AMOUNTS = ("net_micros", "tax_micros", "claimed_value_micros")
_COUNTS = ("impressions", "clicks")
# Of fields with a default, as the schema has them: a producer may leave them out.
_LINE = dict.fromkeys((f"{kind}_{part}" for kind in LEVELS[1:] for part in ("id", "name")), "") | dict.fromkeys(
    ("tax_micros", "impressions", "clicks", "claimed_conversions_micros", "claimed_value_micros"), 0
)


def check_spend_facts(
    record: Mapping[str, Any], now_micros: int | None, _identities: IdentityRules
) -> RuleViolation | None:
    """Return the first rule that a record breaks; fields of other types than the schema's raise what they raise."""
    return _slice(record) or check_time("reported_at", record["reported_at"], now_micros) or _rows(record)


def _slice(record: Mapping[str, Any]) -> RuleViolation | None:
    rules = (
        (
            "tenant_id",
            is_tenant(record["tenant_id"]),
            "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore",
        ),
        ("event_id", 0 < len(record["event_id"]) <= ID_CHARACTERS, f"must have 1 to {ID_CHARACTERS} characters"),
        ("account", 0 < len(record["account"]) <= ID_CHARACTERS, f"must have 1 to {ID_CHARACTERS} characters"),
        ("report_id", len(record["report_id"]) <= ID_CHARACTERS, f"must have {ID_CHARACTERS} characters at most"),
        ("platform", is_word(record["platform"]), "must be a lower-case word of 1 to 100 characters"),
        (
            "day",
            _FIRST_DAY <= record["day"] < _END_DAY,
            "must be between 2000-01-01 and 2099-12-31 (days since 1970-01-01)",
        ),
        ("level", record["level"] in LEVELS, f"must be one of {', '.join(LEVELS)}"),
        (
            "time_zone",
            not record["time_zone"] or _is_zone(record["time_zone"]),
            "must be a name of the IANA database, such as Europe/Berlin",
        ),
    )
    return next((RuleViolation(field, rule) for field, holds, rule in rules if not holds), None)


@lru_cache(maxsize=1024)
def _is_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _rows(record: Mapping[str, Any]) -> RuleViolation | None:
    rows, level = record["rows"], record["level"]
    if len(rows) > SPEND_ROWS:
        return RuleViolation("rows", f"must have {SPEND_ROWS:,} entries at most")
    if not rows and not record["is_complete"]:
        return RuleViolation("rows", "must have at least one entry, or is_complete must be true")
    entities = set()
    for line in rows:
        row = _LINE | line
        if broken := _names(row, level) or _numbers(row):
            return broken
        entities.add(entity_of(level, record["account"], row))
    if len(entities) < len(rows):
        return RuleViolation("rows", f"must have each {level.replace('_', ' ')} once")
    return None


def _names(row: Mapping[str, Any], level: str) -> RuleViolation | None:
    """Check that ids stand down to the level and no further; that of the ad set may be missing above an ad."""
    depth = LEVELS.index(level)
    for number, kind in enumerate(LEVELS[1:], 1):
        given, name = row[f"{kind}_id"], row[f"{kind}_name"]
        if len(given) > ID_CHARACTERS:
            return RuleViolation(f"rows.{kind}_id", f"must have {ID_CHARACTERS} characters at most")
        if len(name) > TEXT_CHARACTERS:
            return RuleViolation(f"rows.{kind}_name", f"must have {TEXT_CHARACTERS} characters at most")
        if number > depth and (given or name):
            return RuleViolation(f"rows.{kind}_id", f"must be empty at the level {level}")
        if not given and (number == depth or (number < depth and kind == "campaign")):
            return RuleViolation(f"rows.{kind}_id", f"must be set at the level {level}; name:<name> without an id")
    return None


def _numbers(row: Mapping[str, Any]) -> RuleViolation | None:
    if row["currency"] not in MINOR_UNIT_MICROS:
        return RuleViolation("rows.currency", "must be an ISO 4217 code with a minor unit, upper case")
    for field in _AMOUNTS:
        if abs(row[field]) > MOST_VALUE_MICROS:
            return RuleViolation(f"rows.{field}", "must be less than 100 billion units")
    for field in _COUNTS:
        if not 0 <= row[field] < _MOST_COUNTED:
            return RuleViolation(f"rows.{field}", "must be 0 or more")
    if abs(row["claimed_conversions_micros"]) > MOST_CLAIMED * 1_000_000:
        return RuleViolation("rows.claimed_conversions_micros", "must be less than a billion conversions")
    return None
