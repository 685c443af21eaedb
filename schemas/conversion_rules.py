"""The rules of a conversion's own facts: kind, worth, order lines, data for the destinations.

Invariant: a value is a whole number of minor units of its currency, so that credits can be split to the minor unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import itemgetter
from typing import Any

from .limits import (
    ACTION_SOURCES,
    CONVERSION_KINDS,
    ID_CHARACTERS,
    ITEMS,
    MAP_ENTRIES,
    MINOR_UNIT_MICROS,
    MOST_VALUE_MICROS,
    NO_CURRENCY,
    TEXT_CHARACTERS,
    URL_CHARACTERS,
    RuleViolation,
    check_texts,
    is_sha256,
    is_word,
)

Record = Mapping[str, Any]

_LIMITS = {
    "conversion_id": ID_CHARACTERS,
    "order_id": ID_CHARACTERS,
    "ga_client_id": ID_CHARACTERS,
    "ga_app_instance_id": ID_CHARACTERS,
    "ga_session_id": ID_CHARACTERS,
    "client_ip_address": ID_CHARACTERS,
    "client_user_agent": URL_CHARACTERS,
    "event_source_url": URL_CHARACTERS,
    "referrer": URL_CHARACTERS,
}
_texts_of = itemgetter(*_LIMITS)
_ITEM_TEXTS = ("item_id", "item_name", "item_category", "item_brand", "item_variant")
_PLAIN_FIELDS = (
    "email", "phone", "first_name", "last_name", "date_of_birth", "gender", "street", "city", "region", "postal_code",
    "country", "external_id",
)  # fmt: skip
_HASH_FIELDS = ("meta_hashes", "google_hashes")
_LIMITED_DATA_USE = ["LDU"]
_LDU_STATES = range(1000, 1014)  # of the United States, as Meta numbers them


def check_conversion_facts(record: Record) -> RuleViolation | None:
    """Return the first rule that a complete conversion record breaks, tenant, person and time aside."""
    if not is_word(record["conversion_type"]):
        return RuleViolation("conversion_type", "must be a lower-case word of 1 to 100 characters")
    if record["action_source"] not in ACTION_SOURCES:
        return RuleViolation("action_source", f"must be one of {', '.join(sorted(ACTION_SOURCES))}")
    engaged = record["engagement_time_msec"]
    if engaged is not None and engaged < 0:
        return RuleViolation("engagement_time_msec", "must not be negative")
    return _kind(record) or _worth(record) or _sizes(record) or _limited_data_use(record) or _parts(record)


def _kind(record: Record) -> RuleViolation | None:
    kind, conversion_id = record["kind"], record["conversion_id"]
    if kind not in CONVERSION_KINDS:
        return RuleViolation("kind", f"must be one of {', '.join(sorted(CONVERSION_KINDS))}")
    if kind != "conversion" and not conversion_id:
        return RuleViolation("conversion_id", "a refund, cancellation or restatement must name its conversion")
    if conversion_id == "":
        return RuleViolation("conversion_id", "must be missing or not empty")
    return None


def _worth(record: Record) -> RuleViolation | None:
    value, currency = record["value_micros"], record["currency"]
    if value < 0:
        return RuleViolation("value_micros", "must not be negative")
    if value > MOST_VALUE_MICROS:
        return RuleViolation("value_micros", f"must be {MOST_VALUE_MICROS} at most")
    if currency == NO_CURRENCY:
        return RuleViolation("value_micros", "must be zero without a currency (XXX)") if value else None
    unit = MINOR_UNIT_MICROS.get(currency)
    if unit is None:
        return RuleViolation("currency", "must be an upper-case ISO 4217 code with a minor unit, or XXX")
    if value % unit:
        return RuleViolation("value_micros", "must be a whole number of the currency's minor units")
    return None


def _sizes(record: Record) -> RuleViolation | None:
    if max(map(len, filter(None, _texts_of(record))), default=0) > ID_CHARACTERS:
        for field, limit in _LIMITS.items():
            if len(record[field] or "") > limit:
                return RuleViolation(field, f"must have {limit} characters at most")
    consent = record["consent"]
    if consent is not None and len(consent) > MAP_ENTRIES:
        return RuleViolation("consent", f"must have {MAP_ENTRIES} entries at most")
    click_ids, properties = record["click_ids"], record["properties"]
    return (click_ids and check_texts("click_ids", click_ids)) or (
        properties and check_texts("properties", properties)
    ) or None  # fmt: skip


def _limited_data_use(record: Record) -> RuleViolation | None:
    options, country, state = (
        record["data_processing_options"],
        record["data_processing_country"],
        record["data_processing_state"],
    )
    if options and options != _LIMITED_DATA_USE:
        return RuleViolation("data_processing_options", "must be empty or LDU alone")
    if country is not None and country not in {0, 1}:
        return RuleViolation("data_processing_country", "must be 0 or 1")
    if state is not None and state != 0 and state not in _LDU_STATES:
        return RuleViolation("data_processing_state", "must be 0 or 1000 to 1013")
    if country is not None and state is None:
        return RuleViolation("data_processing_state", "must be set when data_processing_country is")
    return None


def _parts(record: Record) -> RuleViolation | None:
    items, user_data = record["items"], record["user_data"]
    if items:
        if len(items) > ITEMS:
            return RuleViolation("items", f"must be {ITEMS} lines at most")
        for item in items:
            broken = _item(item)
            if broken:
                return broken
    return None if user_data is None else _user_data(user_data)


def _item(item: Record) -> RuleViolation | None:
    if not 0 < item.get("quantity", 1.0) < math.inf:
        return RuleViolation("items.quantity", "must be a finite number above zero")
    price = item.get("price_micros")
    if price is not None and not 0 <= price <= MOST_VALUE_MICROS:
        return RuleViolation("items.price_micros", f"must be 0 to {MOST_VALUE_MICROS}")
    for field in _ITEM_TEXTS:
        if len(item.get(field) or "") > TEXT_CHARACTERS:
            return RuleViolation(f"items.{field}", f"must have {TEXT_CHARACTERS} characters at most")
    properties = item.get("properties")
    return check_texts("items.properties", properties) if properties else None


def _user_data(user_data: Record) -> RuleViolation | None:
    for field in _PLAIN_FIELDS:
        if len(user_data.get(field) or "") > TEXT_CHARACTERS:
            return RuleViolation(f"user_data.{field}", f"must have {TEXT_CHARACTERS} characters at most")
    for field in _HASH_FIELDS:
        hashes = user_data.get(field) or {}
        if len(hashes) > MAP_ENTRIES or sum(map(len, hashes.values())) > MAP_ENTRIES:
            return RuleViolation(f"user_data.{field}", f"must have {MAP_ENTRIES} entries at most")
        # A text that is no hash could be the plain address by mistake.
        if not all(is_sha256(text) for texts in hashes.values() for text in texts):
            return RuleViolation(f"user_data.{field}", "must hold lower-case hex SHA-256 hashes only")
    return None
