"""The rules that every record must satisfy beyond its schema; producers check before send, consumers after decode.

Invariant: a check returns the first broken rule, or None, for any mapping; it raises nothing, reads no clock, and its
text never holds a value. On the hot path it looks at each field once and walks no text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules

from .codec import misfit
from .conversion_rules import check_conversion_facts
from .limits import (
    ERASURE_KINDS,
    ERASURE_MODES,
    ID_CHARACTERS,
    JOB_KINDS,
    MAP_ENTRIES,
    TEXT_CHARACTERS,
    URL_CHARACTERS,
    RuleViolation,
    check_texts,
    check_time,
    is_country,
    is_sha256,
    is_tenant,
    is_word,
)
from .schema_catalog import defaults
from .spend_rules import check_spend_facts

__all__ = [
    "CHECKS",
    "RuleViolation",
    "check_conversion",
    "check_erasure_request",
    "check_identity_link",
    "check_job",
    "check_spend",
    "check_touchpoint",
    "find_unstorable_text",
]

Record = Mapping[str, Any]
Check = Callable[..., RuleViolation | None]

_TOUCHPOINT_TEXTS = (
    "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id", "ad_name",
    "utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "device",
)  # fmt: skip
_texts_of = itemgetter(*_TOUCHPOINT_TEXTS)
_URLS = ("landing_url", "referrer")
# What a record of other types than the schema's makes the checks raise.
_OTHER_TYPES = (KeyError, TypeError, AttributeError, ValueError, OverflowError)


def check_touchpoint(
    record: Record, *, now_micros: int | None = None, identities: IdentityRules = BUILT_IN
) -> RuleViolation | None:
    """Return the first rule that a touchpoint breaks.

    Args:
        record: the fields; those with a default may be missing.
        now_micros: the time now, microseconds UTC, to refuse events from the future.
        identities: which ids name nobody.
    """
    return _checked("touchpoint", _touchpoint, record, now_micros, identities)


def check_conversion(
    record: Record, *, now_micros: int | None = None, identities: IdentityRules = BUILT_IN
) -> RuleViolation | None:
    """Return the first rule that a conversion or its correction breaks; arguments as for `check_touchpoint`."""
    return _checked("conversion", _conversion, record, now_micros, identities)


def check_identity_link(
    record: Record, *, now_micros: int | None = None, identities: IdentityRules = BUILT_IN
) -> RuleViolation | None:
    """Return the first rule that an identity link breaks; arguments as for `check_touchpoint`."""
    return _checked("identity_link", _identity_link, record, now_micros, identities)


def check_job(
    record: Record, *, now_micros: int | None = None, identities: IdentityRules = BUILT_IN
) -> RuleViolation | None:
    """Return the first rule that a job breaks; arguments as for `check_touchpoint`."""
    return _checked("job", _job, record, now_micros, identities)


def check_erasure_request(
    record: Record, *, now_micros: int | None = None, identities: IdentityRules = BUILT_IN
) -> RuleViolation | None:
    """Return the first rule that a request to erase a person breaks; arguments as for `check_touchpoint`."""
    return _checked("erasure_request", _erasure_request, record, now_micros, identities)


def check_spend(
    record: Record, *, now_micros: int | None = None, identities: IdentityRules = BUILT_IN
) -> RuleViolation | None:
    """Return the first rule that a record of spend breaks; arguments as for `check_touchpoint`."""
    return _checked("spend", check_spend_facts, record, now_micros, identities)


CHECKS: dict[str, Check] = {
    "touchpoint": check_touchpoint,
    "conversion": check_conversion,
    "identity_link": check_identity_link,
    "job": check_job,
    "spend": check_spend,
    "erasure_request": check_erasure_request,
}


def find_unstorable_text(record: Record) -> RuleViolation | None:
    """Return the first field with a text that Postgres or UTF-8 cannot hold: a NUL or half a surrogate pair.

    A walk over everything in the record: for the record that made a batch fail, and for producers.
    """
    for field, value in record.items():
        rule = _unstorable(field) or _unstorable(value)
        if rule:
            return RuleViolation(field if _unstorable(field) is None else "(a field's name)", rule)
    return None


def _unstorable(value: Any) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return "must not hold a NUL character"
        try:
            value.encode()
        except UnicodeEncodeError:
            return "must not hold half a surrogate pair"
    elif isinstance(value, Mapping):
        return next(filter(None, (_unstorable(part) for entry in value.items() for part in entry)), None)
    elif isinstance(value, list | tuple):
        return next(filter(None, map(_unstorable, value)), None)
    return None


def _checked(
    name: str, check: Check, record: Record, now_micros: int | None, identities: IdentityRules
) -> RuleViolation | None:
    """Check a record; one that is not of its schema yet gets its defaults, or the wrong field is named."""
    try:
        return check(record, now_micros, identities)
    except _OTHER_TYPES:
        pass
    try:
        return check({**defaults(name), **record}, now_micros, identities)
    except _OTHER_TYPES:
        return RuleViolation(*misfit(name, record))


def _event(record: Record, identities: IdentityRules) -> RuleViolation | None:
    """Check what touchpoints and conversions share: tenant, event id and person."""
    if not is_tenant(record["tenant_id"]):
        return RuleViolation("tenant_id", "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore")
    if not 0 < len(record["event_id"]) <= ID_CHARACTERS:
        return RuleViolation("event_id", f"must have 1 to {ID_CHARACTERS} characters")
    user_id, anonymous_id = record["user_id"], record["anonymous_id"]
    if user_id is None and anonymous_id is None:
        return RuleViolation("user_id, anonymous_id", "at least one must be set")
    tenant_id = record["tenant_id"]
    return (user_id is not None and _person("user_id", user_id, tenant_id, identities)) or (
        anonymous_id is not None and _person("anonymous_id", anonymous_id, tenant_id, identities)
    ) or None  # fmt: skip


def _person(field: str, text: str, tenant_id: str, identities: IdentityRules) -> RuleViolation | None:
    if len(text) > ID_CHARACTERS:
        return RuleViolation(field, f"must have 1 to {ID_CHARACTERS} characters")
    rule = identities.broken(tenant_id, text)
    return None if rule is None else RuleViolation(field, f"names nobody: {rule}")


def _touchpoint(record: Record, now_micros: int | None, identities: IdentityRules) -> RuleViolation | None:
    broken = _event(record, identities) or check_time("occurred_at", record["occurred_at"], now_micros)
    if broken:
        return broken
    if not (is_word(record["platform"]) and is_word(record["channel"]) and is_word(record["interaction"])):
        field = next(name for name in ("platform", "channel", "interaction") if not is_word(record[name]))
        return RuleViolation(field, "must be a lower-case word of 1 to 100 characters")
    country, engagement = record["country"], record["engagement_seconds"]
    if country is not None and not (len(country) == 2 and is_country(country)):
        return RuleViolation("country", "must be two upper-case letters (ISO 3166-1 alpha-2)")
    if engagement is not None and not 0 <= engagement < math.inf:
        return RuleViolation("engagement_seconds", "must be a finite number, not negative")
    return _touchpoint_sizes(record)


def _touchpoint_sizes(record: Record) -> RuleViolation | None:
    if max(map(len, filter(None, _texts_of(record))), default=0) > ID_CHARACTERS:
        for field in _TOUCHPOINT_TEXTS:
            limit = ID_CHARACTERS if field.endswith("_id") else TEXT_CHARACTERS
            if len(record[field] or "") > limit:
                return RuleViolation(field, f"must have {limit} characters at most")
    for field in _URLS:
        url = record[field]
        if url is not None and len(url) > URL_CHARACTERS:
            return RuleViolation(field, f"must have {URL_CHARACTERS} characters at most")
    click_ids, properties, consent = record["click_ids"], record["properties"], record["consent"]
    if consent is not None and len(consent) > MAP_ENTRIES:
        return RuleViolation("consent", f"must have {MAP_ENTRIES} entries at most")
    return (click_ids and check_texts("click_ids", click_ids)) or (
        properties and check_texts("properties", properties)
    ) or None  # fmt: skip


def _conversion(record: Record, now_micros: int | None, identities: IdentityRules) -> RuleViolation | None:
    return (
        _event(record, identities)
        or check_time("occurred_at", record["occurred_at"], now_micros)
        or check_conversion_facts(record)
    )


def _identity_link(record: Record, now_micros: int | None, identities: IdentityRules) -> RuleViolation | None:
    source = record["source"]
    if source is not None and len(source) > TEXT_CHARACTERS:
        return RuleViolation("source", f"must have {TEXT_CHARACTERS} characters at most")
    for field in ("user_id", "anonymous_id"):
        if record[field] is None:
            return RuleViolation(field, "must be set")
    return _event(record, identities) or check_time("linked_at", record["linked_at"], now_micros)


def _job(record: Record, now_micros: int | None, _identities: IdentityRules) -> RuleViolation | None:
    if not is_tenant(record["tenant_id"]):
        return RuleViolation("tenant_id", "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore")
    if not 0 < len(record["job_id"]) <= ID_CHARACTERS:
        return RuleViolation("job_id", f"must have 1 to {ID_CHARACTERS} characters")
    if record["kind"] not in JOB_KINDS:
        return RuleViolation("kind", f"must be one of {', '.join(sorted(JOB_KINDS))}")
    if len(record["submitted_by"] or "") > TEXT_CHARACTERS:
        return RuleViolation("submitted_by", f"must have {TEXT_CHARACTERS} characters at most")
    return check_texts("parameters", record["parameters"]) or check_time(
        "submitted_at", record["submitted_at"], now_micros
    )


def _erasure_request(record: Record, now_micros: int | None, _identities: IdentityRules) -> RuleViolation | None:
    if not is_tenant(record["tenant_id"]):
        return RuleViolation("tenant_id", "must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore")
    if record["mode"] not in ERASURE_MODES:
        return RuleViolation("mode", f"must be one of {', '.join(ERASURE_MODES)}")
    if record["kind"] not in ERASURE_KINDS:
        return RuleViolation("kind", f"must be one of {', '.join(ERASURE_KINDS)}")
    for field in ("request_id", "identifier"):
        if not 0 < len(record[field]) <= ID_CHARACTERS:
            return RuleViolation(field, f"must have 1 to {ID_CHARACTERS} characters")
    if record["kind"] == "email" and not is_sha256(record["identifier"]):
        return RuleViolation("identifier", "must be the SHA-256 of the address: 64 lower-case hexadecimal digits")
    return find_unstorable_text(record) or check_time("requested_at", record["requested_at"], now_micros)
