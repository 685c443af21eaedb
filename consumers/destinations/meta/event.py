"""A conversion as a server event of Meta's Conversions API.

Contract: `user_data` and `custom_data` take a conversion with hashed user data; they raise nothing and log nothing.
Invariants: event_id and event_time are those of the event at every attempt; a click id is passed on byte for byte or
left out, never rewritten. Source: Meta, Conversions API parameters; SDK `serverside/event.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.addresses import public_address
from attributary.consumers.destinations.personal_data import is_personal
from attributary.consumers.destinations.property_filter import GA4_PARTS, META_PARTS
from attributary.consumers.destinations.wire_format import amount, number_of, quantity, typed
from attributary.producers.matching import build_fbc, is_fbc, is_fbp
from attributary.producers.matching.fbc import parse
from attributary.producers.matching.text import is_placeholder

if TYPE_CHECKING:
    from collections.abc import Sequence

EVENT_NAMES = {
    "purchase": "Purchase",
    "lead": "Lead",
    "signup": "CompleteRegistration",
    "add_to_cart": "AddToCart",
    "page_view": "PageView",
    "begin_checkout": "InitiateCheckout",
    "initiate_checkout": "InitiateCheckout",
    "add_payment_info": "AddPaymentInfo",
    "add_to_wishlist": "AddToWishlist",
    "view_content": "ViewContent",
    "view_item": "ViewContent",
    "search": "Search",
    "subscribe": "Subscribe",
    "start_trial": "StartTrial",
    "contact": "Contact",
    "customize_product": "CustomizeProduct",
    "donate": "Donate",
    "find_location": "FindLocation",
    "schedule": "Schedule",
    "submit_application": "SubmitApplication",
}
"""Meta's standard events by our conversion type; any other type goes as a custom event under its own name."""

HASHED_KEYS = frozenset(
    ("em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id", "f5first", "f5last", "fi")
) | {"dobd", "dobm", "doby"}
PLAIN_KEYS = (
    "subscription_id", "anon_id", "madid", "page_id", "page_scoped_user_id", "ctwa_clid", "ig_account_id", "ig_sid",
)  # fmt: skip
"""Ids that are never hashed; a tenant gives them in click_ids."""
INTEGER_KEYS = ("fb_login_id", "lead_id")

# user_data that is a subset of one of these cannot match anybody, and Meta rejects the whole batch for it.
TOO_WEAK = (
    frozenset(("ct", "country", "st", "zp", "ge", "client_user_agent")),
    frozenset(("db", "client_user_agent")),
    frozenset(("fn", "ge")),
    frozenset(("ln", "ge")),
)

_TEXT_FIELDS = (
    "content_name", "content_category", "content_type", "status", "search_string", "item_number", "delivery_category",
)  # fmt: skip
_NUMBER_FIELDS = ("predicted_ltv", "net_revenue")
_OWN_FIELDS = frozenset(("value", "currency", "contents", "order_id"))
_LINE_FIELDS = frozenset(("content_ids", "num_items"))  # of the lines, where the event has any
_DELIVERY_CATEGORIES = frozenset(("in_store", "curbside", "home_delivery"))
_EXTINFO_FIELDS = 16
_MAX_QUANTITY = 1e15
_DIGITS = re.compile(r"[0-9]{1,20}")
_DAY_MS = 86_400_000
_PRODUCT = "product"
_ELSEWHERE = ("user.", *GA4_PARTS, *META_PARTS)
_APP_FLAGS = ("advertiser_tracking_enabled", "application_tracking_enabled")
APP_FIELDS = (*_APP_FLAGS, "extinfo")
_MORE_APP_FLAGS = ("consider_views", "include_dwell_data", "include_video_data")
_APP_TEXTS = (
    "app_user_id", "campaign_ids", "install_referrer", "installer_package", "receipt_data", "url_schemes",
    "windows_attribution_id",
)  # fmt: skip
_INTEGER, _NUMBER, _TEXT = "a whole number", "a number", "a text"
PARTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "original_event.": (
        "original_event_data",
        {"event_name": _TEXT, "event_time": _INTEGER, "order_id": _TEXT, "event_id": _TEXT},
    ),
    "attribution.": (
        "attribution_data",
        dict.fromkeys(("visit_time", "attr_window", "touchpoint_ts"), _INTEGER)
        | dict.fromkeys(("attribution_share", "attribution_value"), _NUMBER)
        | dict.fromkeys(
            (
                "scope", "ad_id", "adset_id", "campaign_id", "attribution_model", "attribution_source",
                "touchpoint_type", "attribution_method", "decline_reason", "auditing_token", "linkage_key",
                "touchpoint_id", "attribution_setting",
            ),
            _TEXT,
        ),
    ),
}  # fmt: skip
"""By how a property begins: the part of the server event that it belongs to, and the part's fields by kind."""


def user_data(
    conversion: Mapping[str, Any], hashes: Mapping[str, list[str]], remarks: list[str], *, user_id: Sequence[str]
) -> dict[str, Any]:
    """Return user_data.

    Args:
        conversion: the event.
        hashes: its `meta_hashes`, usable ones only.
        remarks: gets a remark for what is left out.
        user_id: the user id as an external id, for events without one; empty when it may not go.
    """
    keys: dict[str, Any] = {key: values for key, values in hashes.items() if values}
    if "external_id" not in keys and user_id:
        keys["external_id"] = list(user_id)
    if address := conversion["client_ip_address"]:
        plain, remark = public_address(address)
        if plain:
            keys["client_ip_address"] = plain
        else:
            remarks.append(remark)
    if agent := conversion["client_user_agent"]:
        keys["client_user_agent"] = agent
    elif conversion["action_source"] == "website":
        remarks.append("client_user_agent is missing: Meta asks for it on website events")
    if click_ids := conversion["click_ids"]:
        remarks += _click_ids(keys, click_ids, conversion["occurred_at"])
    return keys


def _click_ids(keys: dict[str, Any], click_ids: Mapping[str, str], occurred_at: int) -> list[str]:
    """Add fbc, fbp and the plain ids; return the remarks."""
    found = {"fbc": _fbc(click_ids, occurred_at), "fbp": click_ids.get("fbp") or None}
    if found["fbp"] and (not is_fbp(found["fbp"]) or _is_ahead(found["fbp"], occurred_at)):
        found["fbp"] = ""
    for key in PLAIN_KEYS:
        if text := click_ids.get(key):
            found[key] = "" if is_placeholder(text) else text
    keys |= {key: value for key, value in found.items() if value}
    for key in INTEGER_KEYS:
        if text := click_ids.get(key):
            if _DIGITS.fullmatch(text) and not is_placeholder(text):
                keys[key] = int(text)
            else:
                found[key] = ""
    return [f"{key} left out: malformed" for key, value in found.items() if value == ""]


def _fbc(click_ids: Mapping[str, str], occurred_at: int) -> str | None:
    """Return the click id, "" for a malformed one, None without one."""
    if fbc := click_ids.get("fbc"):
        return fbc if is_fbc(fbc) and not _is_ahead(fbc, occurred_at) else ""
    if fbclid := click_ids.get("fbclid"):
        # Nobody built the fbc at click time. The event's own time is the first that we know of this fbclid, and it is
        # the same at every attempt.
        built = build_fbc(fbclid, occurred_at // 1_000) or ""
        return "" if built and _is_ahead(built, occurred_at) else built
    return None


def _is_ahead(value: str, occurred_at: int) -> bool:
    """Return whether an fbc or fbp was made more than a day after the event: a broken clock, or an invented value."""
    parts = parse(value)
    return parts is None or parts.created_ms > occurred_at // 1_000 + _DAY_MS


def custom_data(
    conversion: Mapping[str, Any], remarks: list[str], *, strip: bool, content_types: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return custom_data: value, currency, contents, order id, and the properties as free keys.

    Args:
        conversion: the event.
        remarks: gets a remark for what is left out.
        strip: leave out properties that hold personal data.
        content_types: content types by category of the lines, lower case; `product` for all others.
    """
    data: dict[str, Any] = {}
    if conversion["currency"] != "XXX":
        data["value"] = amount(conversion["value_micros"])
        data["currency"] = conversion["currency"]
    if order_id := conversion["order_id"]:
        data["order_id"] = order_id
    if items := conversion["items"]:
        _add_items(data, items, remarks, content_types or {})
    is_app = conversion["action_source"] == "app"
    for name, text in conversion["properties"].items():
        if name in APP_FIELDS or name == "messaging_channel" or name.startswith(_ELSEWHERE):
            continue
        if is_app and (name in _APP_TEXTS or name in _MORE_APP_FLAGS):
            continue
        value: Any = text if name in _TEXT_FIELDS else _typed(text)
        if name in _NUMBER_FIELDS:
            value = number_of(text)
        elif name in _LINE_FIELDS:
            value = _line_field(name, text)
        if rule := _property_rule(name, text, value, strip=strip, has_lines=bool(items)):
            remarks.append(rule)
        else:
            data[name] = value
    return data


def _line_field(name: str, text: str) -> list[str] | int | None:
    """Return what an event without lines says of its contents: ids with commas between them, or their number."""
    if name == "content_ids":
        return [part.strip() for part in text.split(",") if part.strip()] or None
    return int(text) if _DIGITS.fullmatch(text) and int(text) <= _MAX_QUANTITY else None


def _property_rule(name: str, text: str, value: Any, *, strip: bool, has_lines: bool) -> str | None:
    """Return why a property is left out, None when it goes."""
    if name in _OWN_FIELDS or (has_lines and name in _LINE_FIELDS):
        return f"property {name} left out: the event has its own"
    if strip and is_personal(name, text):
        return "property left out: personal data"
    if value is None:
        return f"property {name} left out: not {'a list of ids' if name == 'content_ids' else 'a number'}"
    if name == "delivery_category" and text not in _DELIVERY_CATEGORIES:
        return "property delivery_category left out: not one of Meta's three"
    return None


def _add_items(
    data: dict[str, Any], items: Sequence[Mapping[str, Any]], remarks: list[str], content_types: Mapping[str, str]
) -> None:
    contents = [_content(item, remarks) for item in items]
    data["contents"] = contents
    data["content_ids"] = [content["id"] for content in contents]
    found = {content_types.get((item["item_category"] or "").strip().lower(), _PRODUCT) for item in items}
    data["content_type"] = found.pop() if len(found) == 1 else _PRODUCT
    total = math.fsum(min(item["quantity"], 2 * _MAX_QUANTITY) for item in items)
    if total <= _MAX_QUANTITY:
        data["num_items"] = quantity(total)
    else:
        remarks.append("num_items left out: too large")


def _typed(text: str) -> Any:
    return {"true": True, "false": False}.get(text, typed(text))


def _content(item: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    content: dict[str, Any] = {"id": item["item_id"], "quantity": quantity(item["quantity"])}
    if item["price_micros"] is not None:
        content["item_price"] = amount(item["price_micros"])
    for ours, theirs in (("item_name", "title"), ("item_brand", "brand"), ("item_category", "category")):
        if item[ours]:
            content[theirs] = item[ours]
    if text := item["properties"].get("description"):
        content["description"] = text
    if text := item["properties"].get("delivery_category"):
        if text in _DELIVERY_CATEGORIES:
            content["delivery_category"] = text
        else:
            remarks.append("delivery_category of an item left out: not one of Meta's three")
    return content


def parts(properties: Mapping[str, str], remarks: list[str], *, strip: bool) -> dict[str, dict[str, Any]]:
    """Return `original_event_data` and `attribution_data` from the properties that begin so.

    A field that Meta does not know, or a text where it wants a number, is left out with a remark.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(properties):
        prefix, dot, key = name.partition(".")
        if (known := PARTS.get(prefix + dot)) is None:
            continue
        part, kinds = known
        text = properties[name].strip()
        kind = kinds.get(key)
        value: Any = text or None
        if kind in {_INTEGER, _NUMBER}:
            value = number_of(text)
            value = None if kind == _INTEGER and not isinstance(value, int) else value
        if kind is None:
            remarks.append(f"property left out: {part} has no such field")
        elif strip and is_personal(key, text):
            remarks.append(f"property {name} left out: personal data")
        elif value is None:
            remarks.append(f"property {name} left out: not {kind}")
        else:
            found.setdefault(part, {})[key] = value
    return found


def app_data(properties: Mapping[str, str], remarks: list[str], *, strip: bool) -> dict[str, Any] | None:
    """Return app_data of an app event from the properties of the same names, None when it is not complete.

    Meta wants all three of app_data on every app event: the two permissions, and `extinfo` of 16 fields (here joined by
    "|"). It rejects the whole batch for an event that lacks them.
    """
    extinfo = (properties.get("extinfo") or "").split("|")
    if len(extinfo) != _EXTINFO_FIELDS or any(properties.get(name) is None for name in _APP_FLAGS):
        return None
    flags = (*_APP_FLAGS, *(name for name in _MORE_APP_FLAGS if properties.get(name)))
    found: dict[str, Any] = {name: properties[name].strip().lower() in {"1", "true"} for name in flags}
    for name in _APP_TEXTS:
        if text := properties.get(name):
            if strip and is_personal(name, text):
                remarks.append(f"property {name} left out: personal data")
            else:
                found[name] = text
    return found | {"extinfo": extinfo}
