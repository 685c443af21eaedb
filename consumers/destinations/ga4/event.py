"""A conversion as an event of GA4's Measurement Protocol, and what stands around it in a request.

Contract: `event_of` and `envelope_of` raise nothing; what GA4 would drop because of a free property (a bad name, a
text too long, one parameter too many) is fitted and remarked on, so that no revenue is lost for a long coupon code.
Everything else is prepared by `ga4_rules` afterwards. Invariant: the same conversion gives the same bytes at every
attempt. Source: Measurement Protocol reference.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ga4 import rules
from attributary.consumers.destinations.meta.event import ip_address
from attributary.consumers.destinations.wire_format import amount, quantity
from attributary.producers.matching.text import sha256_hex
from attributary.producers.matching.user_data import google_address

if TYPE_CHECKING:
    from collections.abc import Mapping

EVENT_NAMES = {
    "purchase": "purchase",
    "lead": "generate_lead",
    "signup": "sign_up",
    "initiate_checkout": "begin_checkout",
    "view_content": "view_item",
    "contact": "contact",
}
"""GA4's recommended events by our conversion type, where the names differ; any other type is the event's name."""

USER_PROPERTY_PREFIX = "user."
"""A property `user.plan` becomes the user property `plan`."""

_CLIENT_COOKIE = re.compile(r"GA\d\.\d+\.(\d+\.\d+)")
_SESSION_COOKIE = re.compile(r"GS1\.\d+\.(\d+)|GS2\.\d+\.s(\d+)")
_NOT_A_WORD = re.compile(r"[^a-z0-9_]+")


def event_name(conversion: Mapping[str, Any]) -> str:
    """Give the event's name: refund for a correction, else the type; a type such as "trial start" loses its space."""
    if conversion["kind"] in {"refund", "cancellation"}:
        return "refund"
    kind = conversion["conversion_type"]
    return EVENT_NAMES.get(kind) or _NOT_A_WORD.sub("_", kind)


def transaction_id(conversion: Mapping[str, Any]) -> str:
    """Give the id that ties a refund to its purchase: the order id, else the conversion's, else the event's."""
    found: str = conversion["order_id"] or conversion["conversion_id"] or conversion["event_id"]
    return found


def event_of(conversion: Mapping[str, Any], timestamp_micros: int) -> tuple[dict[str, Any], list[str]]:
    """Give the event and remarks on what was fitted.

    Args:
        conversion: the event.
        timestamp_micros: when it happened, for GA4.
    """
    remarks: list[str] = []
    name = event_name(conversion)
    params: dict[str, Any] = {}
    if name in {"purchase", "refund"}:
        params["transaction_id"] = transaction_id(conversion)
    # A cancellation takes all of a purchase back: a refund without value and items.
    if conversion["currency"] != "XXX" and conversion["kind"] != "cancellation":
        params["currency"] = conversion["currency"]
        params["value"] = amount(conversion["value_micros"])
    if session := session_id(conversion["ga_session_id"]):
        params["session_id"] = session
    # Without engagement time GA4 leaves the event out of Realtime and of active users.
    params["engagement_time_msec"] = conversion["engagement_time_msec"] or 1
    for param, field in (("page_location", "event_source_url"), ("page_referrer", "referrer")):
        if text := conversion[field]:
            params[param] = _fitted(param, text, remarks)
    if conversion["items"]:
        params["items"] = [_item(item, remarks) for item in conversion["items"]]
    _add_properties(params, conversion["properties"], remarks)
    return {"name": name, "timestamp_micros": timestamp_micros, "params": params}, remarks


def _add_properties(params: dict[str, Any], properties: Mapping[str, str], remarks: list[str]) -> None:
    for name in sorted(properties):
        if name in params or name.startswith(USER_PROPERTY_PREFIX):
            continue
        if not rules.is_name(name) or rules.is_reserved(name, rules.RESERVED_PARAMS):
            remarks.append("property left out: its name")
        elif len(params) >= rules.PARAMS_PER_EVENT:
            remarks.append("property left out: too many")
        else:
            params[name] = _fitted(name, properties[name], remarks)


def _fitted(name: str, text: str, remarks: list[str]) -> str:
    limit = rules.value_limit(name)
    if len(text) <= limit:
        return text
    remarks.append(f"{rules.shown(name)} cut to {limit} characters")
    return text[:limit]


def _item(item: Mapping[str, Any], remarks: list[str]) -> dict[str, Any]:
    line: dict[str, Any] = {"item_id": _fitted("item_id", item["item_id"], remarks)}
    for name in ("item_name", "item_category", "item_brand", "item_variant"):
        if text := item[name]:
            line[name] = _fitted(name, text, remarks)
    line["quantity"] = quantity(item["quantity"])
    if item["price_micros"] is not None:
        line["price"] = amount(item["price_micros"])
    custom = 0
    for name in sorted(item["properties"]):
        known = name in rules.ITEM_PARAMS
        if name in line or not rules.is_name(name) or rules.is_reserved(name, rules.RESERVED_PARAMS):
            remarks.append("item property left out: its name")
        elif not known and custom >= rules.CUSTOM_PARAMS_PER_ITEM:
            remarks.append("item property left out: too many")
        else:
            custom += not known
            text = item["properties"][name]
            line[name] = _numeric(text) if name in {"discount", "index"} else _fitted(name, text, remarks)
    return line


def _numeric(text: str) -> float | str:
    """Read a number; a text that is none is left to the rules, which refuse it."""
    try:
        return quantity(float(text))
    except (ValueError, OverflowError):
        return text


def envelope_of(conversion: Mapping[str, Any], *, app: bool, ad_user_data: bool) -> dict[str, Any]:
    """Give what stands around the events of this person.

    Args:
        conversion: the event, with hashed user data.
        app: True for an app stream.
        ad_user_data: True when user data may go.
    """
    envelope: dict[str, Any] = {}
    if app:
        envelope["app_instance_id"] = conversion["ga_app_instance_id"]
    else:
        envelope["client_id"] = client_id(conversion)
    if user_id := conversion["user_id"]:
        # Google forbids personal data here, and an e-mail address is the commonest user id there is.
        envelope["user_id"] = sha256_hex(user_id) if "@" in user_id else user_id
    consent = conversion["consent"] or {}
    answers = {
        purpose: "GRANTED" if consent[purpose] else "DENIED"
        for purpose in ("ad_user_data", "ad_personalization")
        if purpose in consent
    }
    if answers:
        envelope["consent"] = answers
    if user_id and ad_user_data and (data := _user_data(conversion["user_data"])):
        envelope["user_data"] = data
    if properties := _user_properties(conversion["properties"]):
        envelope["user_properties"] = properties
    if agent := conversion["client_user_agent"]:
        envelope["user_agent"] = agent
    if (address := conversion["client_ip_address"]) and (plain := ip_address(address)):
        envelope["ip_override"] = plain
    return envelope


def _user_properties(properties: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(properties):
        short = name.removeprefix(USER_PROPERTY_PREFIX)
        good = rules.is_name(short, rules.USER_PROPERTY_NAME_LENGTH)
        if short == name or not good or rules.is_reserved(short, rules.RESERVED_USER_PROPERTIES):
            continue
        if len(found) < rules.USER_PROPERTIES:
            found[short] = {"value": properties[name][: rules.USER_PROPERTY_VALUE_LENGTH]}
    return found


def _user_data(user_data: Mapping[str, Any] | None) -> dict[str, Any]:
    if not user_data:
        return {}
    hashes: Mapping[str, list[str]] = user_data["google_hashes"]
    data: dict[str, Any] = {
        key: hashes[key] for key in ("sha256_email_address", "sha256_phone_number") if hashes.get(key)
    }
    names = ("sha256_first_name", "sha256_last_name", "sha256_street")
    address = {key: hashes[key][0] for key in names if hashes.get(key)}
    if address:
        data["address"] = [address | google_address(user_data)]
    return data


def client_id(conversion: Mapping[str, Any]) -> str:
    """Give the GA4 client id: the one given (a whole _ga cookie is understood), else one derived from the device.

    A derived id is the same for the same device and looks like Google's own, two numbers with a dot. GA4 cannot join
    it with the browser's session, but counts the conversion.
    """
    given: str | None = conversion["ga_client_id"]
    if given:
        cookie = _CLIENT_COOKIE.fullmatch(given)
        return cookie[1] if cookie else given
    device = conversion["anonymous_id"] or conversion["user_id"] or conversion["event_id"]
    digest = hashlib.sha256(f"{conversion['tenant_id']}|{device}".encode("utf-8", "replace")).digest()
    first, second = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
    return f"{first % 2**31}.{second % 2**31}"


def session_id(given: str | None) -> str | None:
    """Give the session id: digits as they are, or taken from a GS1 or GS2 cookie."""
    if not given:
        return None
    cookie = _SESSION_COOKIE.match(given)
    return (cookie[1] or cookie[2]) if cookie else given
