"""A conversion as a server event of Meta's Conversions API.

Contract: `user_data` and `custom_data` take a conversion with hashed user data; they raise nothing and log nothing.
Invariants: event_id and event_time are those of the event at every attempt; a click id is passed on byte for byte or
left out, never rewritten. Source: Meta, Conversions API parameters; SDK `serverside/event.py`.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.wire_format import amount, quantity
from attributary.producers.matching import build_fbc, is_fbc, is_fbp
from attributary.producers.matching.text import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Mapping

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
_OWN_FIELDS = frozenset(("value", "currency", "content_ids", "contents", "order_id", "num_items"))
_APP_FLAGS = ("advertiser_tracking_enabled", "application_tracking_enabled")
_APP_FIELDS = (*_APP_FLAGS, "extinfo")


def user_data(conversion: Mapping[str, Any], hashes: Mapping[str, list[str]]) -> tuple[dict[str, Any], str | None]:
    """Give user_data and a remark on what was left out.

    Args:
        conversion: the event.
        hashes: its `meta_hashes`.
    """
    keys: dict[str, Any] = {key: values for key, values in hashes.items() if key in HASHED_KEYS and values}
    remarks = []
    if "external_id" not in keys and conversion["user_id"]:
        keys["external_id"] = [sha256_hex(conversion["user_id"])]
    if address := conversion["client_ip_address"]:
        if plain := ip_address(address):
            keys["client_ip_address"] = plain
        else:
            remarks.append("client_ip_address left out: not an address")
    if agent := conversion["client_user_agent"]:
        keys["client_user_agent"] = agent
    click_ids = conversion["click_ids"]
    if click_ids:
        remarks += _click_ids(keys, click_ids, conversion["occurred_at"])
    return keys, "; ".join(remarks) or None


def _click_ids(keys: dict[str, Any], click_ids: Mapping[str, str], occurred_at: int) -> list[str]:
    """Add fbc, fbp and the plain ids; give the remarks."""
    found = {"fbc": _fbc(click_ids, occurred_at), "fbp": click_ids.get("fbp") or None}
    if found["fbp"] and not is_fbp(found["fbp"]):
        found["fbp"] = ""
    keys |= {key: value for key, value in found.items() if value}
    keys |= {key: click_ids[key] for key in PLAIN_KEYS if click_ids.get(key)}
    numbers = {key: click_ids.get(key, "") for key in INTEGER_KEYS}
    keys |= {key: int(text) for key, text in numbers.items() if text.isascii() and text.isdigit()}
    return [f"{key} left out: malformed" for key, value in found.items() if value == ""]


def _fbc(click_ids: Mapping[str, str], occurred_at: int) -> str | None:
    """Give the click id, "" for a malformed one, None without one."""
    if fbc := click_ids.get("fbc"):
        return fbc if is_fbc(fbc) else ""
    if fbclid := click_ids.get("fbclid"):
        # Nobody built the fbc at click time. The event's own time is the first that we know of this fbclid, and it is
        # the same at every attempt.
        return build_fbc(fbclid, occurred_at // 1_000) or ""
    return None


@lru_cache(maxsize=4_096)
def ip_address(text: str) -> str:
    """Give an IP address without port or brackets, "" for what is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def custom_data(conversion: Mapping[str, Any]) -> dict[str, Any]:
    """Give custom_data: value, currency, contents, order id, and the properties as free keys."""
    data: dict[str, Any] = {}
    if conversion["currency"] != "XXX":
        data["value"] = amount(conversion["value_micros"])
        data["currency"] = conversion["currency"]
    if order_id := conversion["order_id"]:
        data["order_id"] = order_id
    if items := conversion["items"]:
        contents = [_content(item) for item in items]
        data["contents"] = contents
        data["content_ids"] = [content["id"] for content in contents]
        data["content_type"] = "product"
        data["num_items"] = quantity(float(sum(item["quantity"] for item in items)))
    for name, text in conversion["properties"].items():
        if name in _OWN_FIELDS or name in _APP_FIELDS or name == "messaging_channel" or name.startswith("user."):
            continue
        data[name] = _number(text) if name in _NUMBER_FIELDS else text
    return data


def _content(item: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"id": item["item_id"], "quantity": quantity(item["quantity"])}
    if item["price_micros"] is not None:
        content["item_price"] = amount(item["price_micros"])
    for ours, theirs in (("item_name", "title"), ("item_brand", "brand"), ("item_category", "category")):
        if item[ours]:
            content[theirs] = item[ours]
    for name in ("description", "delivery_category"):
        if text := item["properties"].get(name):
            content[name] = text
    return content


def _number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if number == number and abs(number) != float("inf") else text  # noqa: PLR0124  # NaN is no JSON


def app_data(properties: Mapping[str, str]) -> dict[str, Any] | None:
    """Give app_data of an app event from the properties of the same names (extinfo: fields joined by "|")."""
    data: dict[str, Any] = {
        name: properties[name] in {"1", "true"} for name in _APP_FLAGS if properties.get(name) is not None
    }
    if extinfo := properties.get("extinfo"):
        data["extinfo"] = extinfo.split("|")
    return data or None
