"""A conversion as an event of GA4's Measurement Protocol, and what stands around it in a request.

Contract: `event_of` and `envelope_of` raise nothing. What GA4 would drop the event for, and the event can do without (a
bad name, a text too long, a session id that is none, one line too many), is fitted or left out with a remark, so that
no revenue is lost for a long coupon code. `rules` checks the rest afterwards. Invariant: the same conversion gives the
same bytes at every attempt. Source: Measurement Protocol reference.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.addresses import public_address
from attributary.consumers.destinations.ga4 import rules
from attributary.consumers.destinations.personal_data import clean_url, is_personal
from attributary.consumers.destinations.property_filter import META_PARTS
from attributary.consumers.destinations.wire_format import amount, number_of, quantity, typed
from attributary.producers.matching.text import clean, is_placeholder, sha256_hex
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

_PLACES = {"location.": "user_location", "device.": "device"}
"""A property `location.city` or `device.model` becomes a field of `user_location` or `device`."""

_CLIENT_COOKIE = re.compile(r"GA\d\.\d+\.(\d+\.\d+)")
_SESSION_COOKIE = re.compile(r"GS1\.\d+\.(\d{1,20})(?!\d)|GS2\.\d+\.s(\d{1,20})(?!\d)")
_SESSION = re.compile(r"[0-9]{1,20}")
_QUOTES = "\"'`"
_APP_INSTANCE = re.compile(r"[0-9A-Fa-f]{32}")
# Parameters that only this module sets: a free property of the name would change what the event means.
_OWN_PARAMS = frozenset(("items", "value", "currency", "session_id", "engagement_time_msec", "timestamp_micros"))
# Texts by Google's reference, whatever they look like.
_TEXT_PARAMS = frozenset((
    "transaction_id", "page_location", "page_referrer", "page_title", "coupon", "currency", "affiliation", "item_id",
    "item_name", "item_brand", "item_variant", "item_category", "item_category2", "item_category3", "item_category4",
    "item_category5", "item_list_id", "item_list_name", "location_id", "promotion_id", "promotion_name",
    "creative_name", "creative_slot", "search_term", "method", "content_id", "content_type", "group_id", "lead_source",
    "payment_type", "shipping_tier", "character", "level_name", "achievement_id", "virtual_currency_name",
))  # fmt: skip
_NOT_A_WORD = re.compile(r"[^a-z0-9_]+")


def event_name(conversion: Mapping[str, Any], names: Mapping[str, str] | None = None) -> str:
    """Return the event's name: refund for a correction, else the one of its type; "trial start" loses its space."""
    if conversion["kind"] in {"refund", "cancellation"}:
        return "refund"
    kind = conversion["conversion_type"]
    if names and kind in names:
        return names[kind]
    return EVENT_NAMES.get(kind) or _NOT_A_WORD.sub("_", kind)


def transaction_id(conversion: Mapping[str, Any]) -> str:
    """Give the id that ties a refund to its purchase: the order id, else the conversion's, else the event's."""
    found: str = conversion["order_id"] or conversion["conversion_id"] or conversion["event_id"]
    return found


def event_of(
    conversion: Mapping[str, Any], timestamp_micros: int, names: Mapping[str, str] | None = None, *, strip: bool = True
) -> tuple[dict[str, Any], list[str]]:
    """Give the event and remarks on what was fitted.

    Args:
        conversion: the event.
        timestamp_micros: when it happened, for GA4.
        names: event names by conversion type, before our own.
        strip: leave out personal data in URLs and free properties.
    """
    remarks: list[str] = []
    name = event_name(conversion, names)
    params: dict[str, Any] = {}
    if name in {"purchase", "refund"}:
        params["transaction_id"] = _transaction(transaction_id(conversion), remarks)
    # A cancellation takes all of a purchase back: a refund without value and items.
    if conversion["currency"] != "XXX" and conversion["kind"] != "cancellation":
        params["currency"] = conversion["currency"]
        params["value"] = amount(conversion["value_micros"])
    if given := conversion["ga_session_id"]:
        if session := session_id(given):
            params["session_id"] = session
        else:
            remarks.append("ga_session_id left out: not a session id")
    # Without engagement time GA4 leaves the event out of Realtime and of active users.
    params["engagement_time_msec"] = conversion["engagement_time_msec"] or 1
    _add_pages(params, conversion, remarks, strip=strip)
    if items := conversion["items"]:
        params["items"] = [_item(item, remarks, strip=strip) for item in items[: rules.ITEMS_PER_EVENT]]
        if len(items) > rules.ITEMS_PER_EVENT:
            remarks.append(f"items cut to {rules.ITEMS_PER_EVENT}")
    _add_properties(params, conversion["properties"], remarks, strip=strip)
    return {"name": name, "timestamp_micros": timestamp_micros, "params": params}, remarks


def _add_pages(params: dict[str, Any], conversion: Mapping[str, Any], remarks: list[str], *, strip: bool) -> None:
    for param, field in (("page_location", "event_source_url"), ("page_referrer", "referrer")):
        if text := conversion[field]:
            cleaned, is_changed = clean_url(text) if strip else (text, False)
            if is_changed:
                remarks.append(f"{field}: personal data left out")
            params[param] = _fitted(param, cleaned, remarks)


def _transaction(given: str, remarks: list[str]) -> str:
    """Return a transaction id within GA4's limit: a longer one as its hash, the same for the refund."""
    if len(given) <= rules.VALUE_LENGTH:
        return given
    remarks.append(f"transaction_id is longer than {rules.VALUE_LENGTH} characters: its SHA-256 is sent")
    return sha256_hex(given)


def _add_properties(params: dict[str, Any], properties: Mapping[str, str], remarks: list[str], *, strip: bool) -> None:
    for name in sorted(properties):
        if name.startswith((USER_PROPERTY_PREFIX, *_PLACES, *META_PARTS)):
            continue
        text = properties[name]
        if name in params or name in _OWN_PARAMS:
            remarks.append(f"property {rules.shown(name)} left out: the event has its own")
        elif not rules.is_name(name) or rules.is_reserved(name, rules.RESERVED_PARAMS):
            remarks.append("property left out: its name")
        elif strip and is_personal(name, text):
            remarks.append(f"property {rules.shown(name)} left out: personal data")
        elif len(params) >= rules.PARAMS_PER_EVENT:
            remarks.append("property left out: too many")
        elif name in rules.NUMBER_PARAMS:
            _add_number(params, name, text, remarks)
        else:
            params[name] = _fitted(name, text, remarks)


def _fitted(name: str, text: str, remarks: list[str]) -> Any:
    limit = rules.value_limit(name)
    if len(text) <= limit:
        return text if name in _TEXT_PARAMS else typed(text)
    remarks.append(f"{rules.shown(name)} cut to {limit} characters")
    return text[:limit]


def _item(item: Mapping[str, Any], remarks: list[str], *, strip: bool) -> dict[str, Any]:
    line: dict[str, Any] = {}
    if text := item["item_id"]:
        line["item_id"] = _fitted("item_id", text, remarks)
    elif not item["item_name"]:
        line["item_id"] = "(not set)"
        remarks.append("an item has neither item_id nor item_name")
    for name in ("item_name", "item_category", "item_brand", "item_variant"):
        if text := item[name]:
            line[name] = _fitted(name, text, remarks)
    line["quantity"] = quantity(item["quantity"])
    if item["price_micros"] is not None:
        line["price"] = amount(item["price_micros"])
    _add_item_properties(line, item["properties"], remarks, strip=strip)
    return line


def _add_item_properties(
    line: dict[str, Any], properties: Mapping[str, str], remarks: list[str], *, strip: bool
) -> None:
    custom = 0
    for name in sorted(properties):
        text = properties[name]
        is_own = name in line or name in {"price", "quantity", "items"}
        is_known = name in rules.ITEM_PARAMS
        if is_own or not rules.is_name(name) or rules.is_reserved(name, rules.RESERVED_PARAMS):
            remarks.append("item property left out: its name")
        elif strip and is_personal(name, text):
            remarks.append(f"item property {rules.shown(name)} left out: personal data")
        elif not is_known and custom >= rules.CUSTOM_PARAMS_PER_ITEM:
            remarks.append("item property left out: too many")
        elif name in {"discount", "index"}:
            _add_number(line, name, text, remarks, "item property")
        else:
            custom += not is_known
            line[name] = _fitted(name, text, remarks)


def _add_number(params: dict[str, Any], name: str, text: str, remarks: list[str], kind: str = "property") -> None:
    number = number_of(text)
    if number is None:
        remarks.append(f"{kind} {name} left out: not a number")
    else:
        params[name] = number


def envelope_of(
    conversion: Mapping[str, Any], remarks: list[str], *, app: bool, ad_user_data: bool, strip: bool = True
) -> dict[str, Any]:
    """Return what stands around the events of this person.

    Args:
        conversion: the event, with hashed user data.
        remarks: gets a remark for what is left out.
        app: True for an app stream.
        ad_user_data: True when user data may go.
        strip: leave out personal data in user properties.
    """
    envelope: dict[str, Any] = {}
    if app:
        envelope["app_instance_id"] = conversion["ga_app_instance_id"]
    else:
        envelope["client_id"] = client_id(conversion, remarks)
    user_id = conversion["user_id"]
    if user_id:
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
    # Google recommends a user id beside user data; older copies of its page demanded one. Guests have none.
    if ad_user_data and (data := _user_data(conversion["user_data"])):
        envelope["user_data"] = data
    if properties := _user_properties(conversion["properties"], remarks, strip=strip):
        envelope["user_properties"] = properties
    envelope |= _places(conversion["properties"], remarks, strip=strip)
    if agent := conversion["client_user_agent"]:
        envelope["user_agent"] = agent
    if address := conversion["client_ip_address"]:
        plain, remark = public_address(address)
        if plain:
            envelope["ip_override"] = plain
        else:
            remarks.append(remark)
    return envelope


def _user_properties(properties: Mapping[str, str], remarks: list[str], *, strip: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in sorted(properties):
        short, text = name.removeprefix(USER_PROPERTY_PREFIX), properties[name]
        if short == name:
            continue
        good = rules.is_name(short, rules.USER_PROPERTY_NAME_LENGTH)
        if not good or rules.is_reserved(short, rules.RESERVED_USER_PROPERTIES):
            remarks.append("user property left out: its name")
        elif strip and is_personal(short, text):
            remarks.append(f"user property {short} left out: personal data")
        elif len(found) >= rules.USER_PROPERTIES:
            remarks.append("user property left out: too many")
        else:
            if len(text) > rules.USER_PROPERTY_VALUE_LENGTH:
                remarks.append(f"user property {short} cut to {rules.USER_PROPERTY_VALUE_LENGTH} characters")
            found[short] = {"value": typed(text[: rules.USER_PROPERTY_VALUE_LENGTH])}
    return found


def _places(properties: Mapping[str, str], remarks: list[str], *, strip: bool) -> dict[str, dict[str, str]]:
    """Return `user_location` and `device`; a field that GA4 does not know or would refuse is left out."""
    found: dict[str, dict[str, str]] = {}
    for name in sorted(properties):
        prefix, dot, key = name.partition(".")
        if (place := _PLACES.get(prefix + dot)) is None:
            continue
        text, shown = properties[name].strip(), f"{prefix}.{rules.shown(key)}"
        if strip and is_personal(key, text):
            remarks.append(f"property {shown} left out: personal data")
        elif not text or list(rules.place_problems({place: {key: text}})):
            remarks.append(f"property {shown} left out: not what GA4 takes as {place}")
        else:
            found.setdefault(place, {})[key] = text
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


def client_id(conversion: Mapping[str, Any], remarks: list[str] | None = None) -> str:
    """Return the GA4 client id: the one given (a whole _ga cookie is understood), else one derived from the device.

    A derived id is the same for the same device and looks like Google's own, two numbers with a dot. GA4 cannot join
    it with the browser's session, but counts the conversion.
    """
    if given := clean(conversion["ga_client_id"] or "").strip(_QUOTES):
        cookie = _CLIENT_COOKIE.fullmatch(given)
        if cookie or not is_placeholder(given):
            return cookie[1] if cookie else given
        if remarks is not None:
            remarks.append("ga_client_id left out: a placeholder")
    device = conversion["anonymous_id"] or conversion["user_id"] or conversion["event_id"]
    digest = hashlib.sha256(f"{conversion['tenant_id']}|{device}".encode("utf-8", "replace")).digest()
    first, second = int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")
    return f"{first % 2**31}.{second % 2**31}"


def session_id(given: str | None) -> str | None:
    """Return the session id: digits as they are, or taken from a GS1 or GS2 cookie; None for anything else."""
    given = (given or "").strip().strip(_QUOTES)
    cookie = _SESSION_COOKIE.match(given)
    found = (cookie[1] or cookie[2]) if cookie else given
    return found if _SESSION.fullmatch(found) and not is_placeholder(found) else None


def app_instance_id(conversion: Mapping[str, Any]) -> str | None:
    """Return the app instance id, None without one or when it is none: 32 hexadecimal digits, not a placeholder."""
    given: str | None = conversion["ga_app_instance_id"]
    good = given and _APP_INSTANCE.fullmatch(given) and not is_placeholder(given)
    return given if good else None
