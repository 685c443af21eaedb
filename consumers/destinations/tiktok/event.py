"""A conversion as an event of TikTok's Events API 2.0.

Contract: `user` and `properties` take a conversion; they raise nothing and log nothing. Empty texts and lists
are left out: TikTok refuses a batch for them. Source: TikTok, Events API 2.0, supported events and parameters; the
names of hashed first name, last name and postal code are those of two other relays that agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.match_keys import address, click_id
from attributary.consumers.destinations.personal_data import is_personal
from attributary.consumers.destinations.wire_format import amount, number_of, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.destinations.match_keys import MatchKeys

EVENT_NAMES = {
    "purchase": "Purchase",
    "lead": "Lead",
    "signup": "CompleteRegistration",
    "begin_checkout": "InitiateCheckout",
    "initiate_checkout": "InitiateCheckout",
    "add_payment_info": "AddPaymentInfo",
    "add_to_cart": "AddToCart",
    "add_to_wishlist": "AddToWishlist",
    "view_content": "ViewContent",
    "view_item": "ViewContent",
    "page_view": "Pageview",
    "search": "Search",
    "contact": "Contact",
    "subscribe": "Subscribe",
    "start_trial": "StartTrial",
    "submit_application": "SubmitApplication",
    "schedule": "Schedule",
    "download": "Download",
    "customize_product": "CustomizeProduct",
    "find_location": "FindLocation",
}
"""TikTok's standard events by our conversion type; any other type goes as a custom event under its own name."""

NEED_VALUE = frozenset(("Purchase", "CompletePayment", "PlaceAnOrder"))
TEXT_PROPERTIES = ("description", "query", "search_string", "shop_id", "content_type")
NUMBER_PROPERTIES = ("predicted_ltv",)
APP_FIELDS = ("idfa", "idfv", "gaid")
_ATT_STATUS = frozenset(("AUTHORIZED", "DENIED", "NOT_DETERMINED", "RESTRICTED", "NOT_APPLICABLE"))
_CONTENT_TYPES = frozenset(("product", "product_group"))
_LDU = "LDU"


def user(conversion: Mapping[str, Any], keys: MatchKeys, remarks: list[str], *, is_app: bool) -> dict[str, Any]:
    """Return user: hashes, click ids byte for byte, address and browser.

    Args:
        conversion: the event.
        keys: the hashes of its person.
        remarks: gets a remark for what is left out.
        is_app: whether the event happened in an app, where device ids count.
    """
    found: dict[str, Any] = {
        "email": list(keys.emails),
        "phone": list(keys.phones),
        "external_id": list(keys.external_ids),
        "first_name": _first(keys.first_names),
        "last_name": _first(keys.last_names),
        "zip_code": _first(keys.postal_codes),
        "ttclid": click_id(conversion, "ttclid"),
        "ttp": click_id(conversion, "ttp", "_ttp"),
        "ip": address(conversion, remarks),
        "user_agent": conversion["client_user_agent"],
    }
    if is_app:
        found |= {name: click_id(conversion, name) for name in APP_FIELDS}
        status = conversion["properties"].get("att_status")
        if status in _ATT_STATUS:
            found["att_status"] = status
        elif status:
            remarks.append("property att_status left out: not one of TikTok's five")
    return {name: value for name, value in found.items() if value}


def _first(values: Sequence[str]) -> str | None:
    return values[0] if values else None


def can_match(found: Mapping[str, Any]) -> bool:
    """Return whether TikTok could recognise anybody by this user."""
    alone = ("email", "phone", "external_id", "ttclid", "ttp", *APP_FIELDS)
    return any(name in found for name in alone) or ("ip" in found and "user_agent" in found)


def properties(conversion: Mapping[str, Any], remarks: list[str], *, strip: bool) -> dict[str, Any]:
    """Return properties: value, currency, contents, order id, and the few free properties that TikTok knows."""
    data: dict[str, Any] = {}
    if conversion["currency"] != "XXX":
        data |= {"value": amount(conversion["value_micros"]), "currency": conversion["currency"]}
    if order_id := conversion["order_id"]:
        data["order_id"] = order_id
    if items := conversion["items"]:
        data["contents"] = [_content(item) for item in items]
        data["content_type"] = "product"
    for name, text in conversion["properties"].items():
        value: Any = number_of(text) if name in NUMBER_PROPERTIES else text
        if rule := _rule(name, text, value, strip=strip):
            remarks.append(rule)
        elif name in TEXT_PROPERTIES or name in NUMBER_PROPERTIES:
            data[name] = value
    return {name: value for name, value in data.items() if value not in ("", [])}


def _rule(name: str, text: str, value: Any, *, strip: bool) -> str | None:
    """Return why a free property is left out, None when it goes or has another place."""
    if name == "att_status" or name.startswith("user."):
        return None
    if strip and is_personal(name, text):
        return "property left out: personal data"
    if name not in TEXT_PROPERTIES and name not in NUMBER_PROPERTIES:
        return "property left out: TikTok has no field for it"
    if value is None:
        return f"property {name} left out: not a number"
    if name == "content_type" and text not in _CONTENT_TYPES:
        return "property content_type left out: neither product nor product_group"
    return None


def _content(item: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"content_id": item["item_id"], "quantity": quantity(item["quantity"])}
    if item["price_micros"] is not None:
        content["price"] = amount(item["price_micros"])
    for ours, theirs in (("item_name", "content_name"), ("item_category", "content_category"), ("item_brand", "brand")):
        if item[ours]:
            content[theirs] = item[ours]
    return content


def limits_data_use(conversion: Mapping[str, Any]) -> bool:
    """Return whether the person's data may be used in a limited way only."""
    return _LDU in conversion["data_processing_options"]
