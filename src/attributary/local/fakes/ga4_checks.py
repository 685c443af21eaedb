"""What GA4 drops in silence, as its validation endpoint would say it.

Written from the Measurement Protocol's documentation and apart from the forwarder's own rules, so that the one can show
what the other missed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_WORD = re.compile(r"^[A-Za-z]\w*$", re.ASCII)
_RESERVED = re.compile(
    r"^(ad_(activeview|click|exposure|impression|query|reward)|adunit_exposure|app_(clear_data|exception|install|remove"
    r"|update|upgrade|store_refund|store_subscription_(cancel|convert|renew))|dynamic_link_\w+|error|first_(open|visit)"
    r"|in_app_purchase|notification_(dismiss|foreground|open|receive)|os_update|screen_view|session_start"
    r"|user_engagement)$"
)
_GOOGLES = ("_", "firebase_", "ga_", "google_", "gtag.")
_LENGTHS = {"page_title": 300, "page_referrer": 420, "page_location": 1_000}
_NUMBERS = {"value", "tax", "shipping", "level", "score", "engagement_time_msec"}
_HEX = re.compile(r"^[0-9a-f]{64}$")


def messages_of(document: dict[str, Any], size: int, *, app: bool) -> list[dict[str, str]]:
    """Give Google's validation messages for a request of so many bytes."""
    found = list(_request(document, size, app=app))
    return [{"fieldPath": path, "description": text, "validationCode": code} for path, code, text in found]


def _request(document: dict[str, Any], size: int, *, app: bool) -> Iterator[tuple[str, str, str]]:
    events = document.get("events")
    who = "app_instance_id" if app else "client_id"
    if not document.get(who):
        yield who, "VALUE_REQUIRED", f"{who} is required"
    if size >= 130_000:
        yield "", "VALUE_OUT_OF_BOUNDS", "the body is too large"
    if not isinstance(events, list) or not events:
        yield "events", "VALUE_REQUIRED", "events is required"
        return
    if len(events) > 25:
        yield "events", "EXCEEDED_MAX_ENTITIES", "at most 25 events"
    yield from _person(document)
    for index, event in enumerate(events):
        yield from _event(f"events[{index}]", event)


def _person(document: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if "user_data" in document:
        yield from _hashes(document["user_data"])
    properties = document.get("user_properties", {})
    if len(properties) > 25:
        yield "user_properties", "EXCEEDED_MAX_ENTITIES", "at most 25 user properties"
    for name, entry in properties.items():
        if len(name) > 24 or not _WORD.match(name) or name.startswith(_GOOGLES):
            yield f"user_properties.{name}", "NAME_INVALID", "bad name"
        if len(str(entry.get("value", ""))) > 36:
            yield f"user_properties.{name}", "VALUE_OUT_OF_BOUNDS", "at most 36 characters"
    for purpose, value in document.get("consent", {}).items():
        if purpose not in {"ad_user_data", "ad_personalization"} or value not in {"GRANTED", "DENIED"}:
            yield f"consent.{purpose}", "VALUE_INVALID", "bad consent"


def _hashes(user_data: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key in ("sha256_email_address", "sha256_phone_number"):
        values = user_data.get(key, [])
        for value in values if isinstance(values, list) else [values]:
            if not _HEX.match(str(value)):
                yield f"user_data.{key}", "VALUE_INVALID", "must be hashed"


def _event(path: str, event: Any) -> Iterator[tuple[str, str, str]]:
    name = event.get("name") if isinstance(event, dict) else None
    if not isinstance(name, str) or not name:
        yield f"{path}.name", "VALUE_REQUIRED", "name is required"
        return
    if len(name) > 40 or not _WORD.match(name):
        yield f"{path}.name", "NAME_INVALID", "bad name"
    if _RESERVED.match(name) or name.startswith(_GOOGLES):
        yield f"{path}.name", "NAME_RESERVED", "reserved name"
    yield from _params(path, name, event.get("params", {}))


def _params(path: str, name: str, params: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    if len(params) > 25:
        yield f"{path}.params", "EXCEEDED_MAX_ENTITIES", "at most 25 parameters"
    for key, value in params.items():
        if len(key) > 40 or not _WORD.match(key) or key.startswith(_GOOGLES) or key == "firebase_conversion":
            yield f"{path}.params.{key}", "NAME_INVALID", "bad or reserved name"
        if isinstance(value, str) and len(value) > _LENGTHS.get(key, 100):
            yield f"{path}.params.{key}", "VALUE_OUT_OF_BOUNDS", "too long"
        elif key == "items":
            yield from _items(f"{path}.params.items", value)
        elif key in _NUMBERS and not _is_number(value):
            yield f"{path}.params.{key}", "VALUE_INVALID", "of type string or other, expected number"
        elif not isinstance(value, str | int | float):
            yield f"{path}.params.{key}", "VALUE_INVALID", "must be a text or number"
    if "value" in params and not re.fullmatch("[A-Z]{3}", str(params.get("currency"))):
        yield f"{path}.params.currency", "VALUE_REQUIRED", "value needs a currency"
    if name in {"purchase", "refund"} and "transaction_id" not in params:
        yield f"{path}.params.transaction_id", "VALUE_REQUIRED", "transaction_id is required"


def _items(path: str, items: Any) -> Iterator[tuple[str, str, str]]:
    if not isinstance(items, list):
        yield path, "VALUE_INVALID", "must be a list"
        return
    for index, item in enumerate(items):
        if not item.get("item_id") and not item.get("item_name"):
            yield f"{path}[{index}]", "VALUE_REQUIRED", "item_id or item_name"
        for key, value in item.items():
            if key in {"price", "quantity", "discount", "index"} and not _is_number(value):
                yield f"{path}[{index}].{key}", "VALUE_INVALID", "of type string or other, expected number"
            if isinstance(value, str) and len(value) > 100:
                yield f"{path}[{index}].{key}", "VALUE_OUT_OF_BOUNDS", "too long"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
