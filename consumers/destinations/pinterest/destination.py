"""Pinterest's API for Conversions (v5) as a destination.

Invariants: an event by which nobody can be recognised is found before it is sent; the token travels in a header.
Bounds: 1,000 events a request; 7 days of age, which is not confirmed. Pinterest documents that it removes copies
between its tag and the API, not between two calls, so an event is never sent again after an answer that is lost. It has
no event for a refund. Source: Pinterest's OpenAPI description, 5.23.0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ad_platform import (
    DAY,
    GOOGLE_FIELDS,
    META_PRIVACY_FIELDS,
    SECOND,
    AdPlatform,
    event_time,
    json_list,
    whole_number,
)
from attributary.consumers.destinations.destination import HttpRequest, NotSent, PreparedEvent
from attributary.consumers.destinations.match_keys import address, click_id, match_keys
from attributary.consumers.destinations.pinterest import responses
from attributary.consumers.destinations.wire_format import decimal_text
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching.text import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Conversion,
        DeliveryResponse,
        HttpResponse,
        Moment,
    )

EVENT_NAMES = {
    "purchase": "checkout",
    "page_view": "page_visit",
    "view_item": "view_content",
    "begin_checkout": "initiate_checkout",
    **{
        name: name
        for name in (
            "add_to_cart", "lead", "signup", "search", "view_category", "view_content", "initiate_checkout",
            "add_payment_info", "add_to_wishlist", "subscribe", "start_trial", "contact", "schedule",
            "submit_application",
        )
    },
}  # fmt: skip
"""Pinterest's event names by our conversion type; any other type goes as `custom`."""

_CUSTOM = "custom"
_OFFLINE = frozenset(("physical_store", "phone_call"))
_APPS = {"android": "app_android", "ios": "app_ios"}
_PLATFORM = "operating_system"
_HASHED = ("em", "ph", "ge", "db", "fn", "ln", "ct", "st", "zp", "country", "external_id")


class PinterestDestination(AdPlatform):
    """The rules of Pinterest's API for Conversions."""

    name = "pinterest"
    title = "Pinterest"
    api_name = "API for Conversions"
    api_version = "v5"
    base_url = "https://api.pinterest.com"
    max_age = 7 * DAY  # not documented
    needed_properties: tuple[str, ...] = (_PLATFORM,)
    unused_fields: tuple[str, ...] = ("referrer", *GOOGLE_FIELDS, "anonymous_id", *META_PRIVACY_FIELDS)

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event."""
        kind: str = conversion["conversion_type"]
        remarks: list[str] = []
        name = self.own_name(conversion, account) or EVENT_NAMES.get(kind)
        if name is None:
            remarks.append("sent as custom: Pinterest has no event of this type")
        source = _source(conversion)
        if source is None:
            reason = f"an event of an app needs the property {_PLATFORM}: android or ios"
            return NotSent(DeliveryState.SKIPPED, reason, "action_source")
        person = self._user_data(conversion, remarks)
        if not (person.keys() & {"em", "hashed_maids"} or {"client_ip_address", "client_user_agent"} <= person.keys()):
            reason = "too few match keys: Pinterest needs an e-mail address, a device id, or address and browser"
            return NotSent(DeliveryState.SKIPPED, reason, "user_data")
        event: dict[str, Any] = {
            "event_name": name or _CUSTOM,
            "action_source": source,
            "event_time": event_time(conversion, moment) // SECOND,
            "event_id": conversion["event_id"],
            "user_data": person,
        }
        if url := self.page_url(conversion, remarks):
            event["event_source_url"] = url
        if conversion["opt_out"]:
            event["opt_out"] = True
        if data := self._custom_data(conversion, remarks):
            event["custom_data"] = data
        return self.prepared(conversion, event, name or _CUSTOM, person, remarks)

    def _user_data(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        """Return user_data: lists of hashes; click id, address and browser as they are."""
        hashes = match_keys(conversion, self._options.default_region, remarks, wants_plus=False).by_meta_key
        found: dict[str, Any] = {key: list(hashes.get(key, ())) for key in _HASHED}
        device = click_id(conversion, "madid", "gaid", "idfa")
        found |= {
            "hashed_maids": [sha256_hex(device)] if device else None,
            "click_id": click_id(conversion, "epik", "_epik"),
            "client_ip_address": address(conversion, remarks),
            "client_user_agent": conversion["client_user_agent"],
        }
        return {name: value for name, value in found.items() if value}

    def _custom_data(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        data: dict[str, Any] = dict(self.free_properties(conversion, remarks, ("search_string",)))
        if conversion["currency"] != "XXX":
            data |= {"value": decimal_text(conversion["value_micros"]), "currency": conversion["currency"]}
        if order_id := conversion["order_id"]:
            data["order_id"] = order_id
        if items := conversion["items"]:
            data["content_ids"] = [item["item_id"] for item in items]
            data["contents"] = [_content(item) for item in items]
            if (total := whole_number(sum(item["quantity"] for item in items))) is not None:
                data["num_items"] = total
            else:
                remarks.append("num_items left out: not a whole number")
        if "LDU" in conversion["data_processing_options"]:
            data["opt_out_type"] = "LDP"
        return data

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        url = f"{self._base_url}/{self._version}/ad_accounts/{account.account_id}/events"
        return HttpRequest(url, json_list(b'{"data":[', batch, b"]}"), {"authorization": f"Bearer {account.secret}"})

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request that Pinterest checks without taking the event."""
        request = self.request(account, [event])
        return replace(request, url=f"{request.url}?test=true")

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _source(conversion: Conversion) -> str | None:
    """Return Pinterest's source of an event; None for an app of which the system is not known."""
    if conversion["action_source"] == "app":
        return _APPS.get(str(conversion["properties"].get(_PLATFORM, "")).strip().lower())
    return "offline" if conversion["action_source"] in _OFFLINE else "web"


def _content(item: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"id": item["item_id"]}
    if item["price_micros"] is not None:
        content["item_price"] = decimal_text(item["price_micros"])
    if (count := whole_number(item["quantity"])) is not None:
        content["quantity"] = count
    return content
