"""Snap's Conversions API v3 as a destination.

Invariants: an event goes to the pixel or to the Snap app, whichever it comes from, and to none without one; what is
known to make Snap refuse a batch is found before it is sent. The token stands in the URL, as Snap wants it; a URL is
never logged. Bounds: 2,000 events a request; 37 days of age; copies are removed by event id within 48 hours. Snap has
no event for a refund and none for a lead. Source: Snap, Conversions API v3. Unconfirmed: seconds as the unit of time,
the spelling of the sources, the name of the device id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attributary.consumers.destinations.ad_platform import (
    DAY,
    DUPLICATES_48_HOURS,
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
from attributary.consumers.destinations.snap import responses
from attributary.consumers.destinations.wire_format import amount, from_json, to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState

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
    "purchase": "PURCHASE",
    "signup": "SIGN_UP",
    "add_to_cart": "ADD_CART",
    "page_view": "PAGE_VIEW",
    "view_content": "VIEW_CONTENT",
    "view_item": "VIEW_CONTENT",
    "search": "SEARCH",
    "begin_checkout": "START_CHECKOUT",
    "initiate_checkout": "START_CHECKOUT",
    "add_payment_info": "ADD_BILLING",
    "add_to_wishlist": "ADD_TO_WISHLIST",
    "subscribe": "SUBSCRIBE",
    "start_trial": "START_TRIAL",
    "login": "LOGIN",
    "reserve": "RESERVE",
}
"""Snap's event names by our conversion type; another type needs a name of its own, such as CUSTOM_EVENT_1."""

_OFFLINE = frozenset(("physical_store", "phone_call"))
_LISTS = ("em", "ph")
_TEXTS = ("fn", "ln", "ct", "st", "zp", "country", "external_id")
_PROPERTIES = ("search_string", "sign_up_method")


class SnapDestination(AdPlatform):
    """The rules of Snap's Conversions API."""

    name = "snap"
    title = "Snap"
    api_name = "Conversions API"
    api_version = "v3"
    base_url = "https://tr.snapchat.com"
    max_events = 2_000
    max_age = 37 * DAY
    duplicates_removed_for = DUPLICATES_48_HOURS
    unused_fields: tuple[str, ...] = ("referrer", *GOOGLE_FIELDS, "anonymous_id", *META_PRIVACY_FIELDS)

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event, for the pixel or the app."""
        name = self.own_name(conversion, account) or EVENT_NAMES.get(conversion["conversion_type"])
        if name is None:
            reason = "Snap has no event for this conversion type: give it one in FORWARD_SNAP_EVENT_NAMES"
            return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
        if name == "PURCHASE" and conversion["currency"] == "XXX":
            return NotSent(DeliveryState.REJECTED, "a purchase needs a value and a currency", "currency")
        source = source_of(conversion)
        asset = "app_id" if source == "app" else "pixel_id"
        if not (asset_id := account.options.get(asset)):
            return NotSent(DeliveryState.SKIPPED, f"no {asset} is set for events of source {source}", "action_source")
        remarks: list[str] = []
        person = self._user_data(conversion, remarks)
        if not (person.keys() & {"em", "ph", "madid"} or {"client_ip_address", "client_user_agent"} <= person.keys()):
            reason = (
                "too few match keys: Snap needs an e-mail address, a phone number, a device id, or address and browser"
            )
            return NotSent(DeliveryState.SKIPPED, reason, "user_data")
        event: dict[str, Any] = {
            "event_name": name,
            "event_time": event_time(conversion, moment) // SECOND,
            "action_source": source,
            "event_id": conversion["event_id"],
            "user_data": person,
        }
        if url := self.page_url(conversion, remarks):
            event["event_source_url"] = url
        if conversion["opt_out"]:
            event["opt_out"] = True
        if "LDU" in conversion["data_processing_options"]:
            event["data_processing_options"] = ["LDU"]
        if data := self._custom_data(conversion, remarks):
            event["custom_data"] = data
        # The asset stands in the URL: only events of one share a request.
        return self.prepared(conversion, event, name, person, remarks, envelope=to_json({"asset": asset_id}))

    def _user_data(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        hashes = match_keys(conversion, self._options.default_region, remarks, wants_plus=False).by_meta_key
        device = click_id(conversion, "madid", "gaid", "idfa")
        vendor = click_id(conversion, "idfv")
        found: dict[str, Any] = {key: list(hashes.get(key, ())) for key in _LISTS}
        found |= {key: next(iter(hashes.get(key, ())), None) for key in _TEXTS}
        found |= {
            "madid": device.lower() if device else None,
            "idfv": vendor.lower() if vendor else None,
            "sc_click_id": click_id(conversion, "ScCid", "sccid"),
            "sc_cookie1": click_id(conversion, "scid", "_scid"),
            "client_ip_address": address(conversion, remarks),
            "client_user_agent": conversion["client_user_agent"],
        }
        return {name: value for name, value in found.items() if value}

    def _custom_data(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        data: dict[str, Any] = dict(self.free_properties(conversion, remarks, _PROPERTIES))
        if conversion["currency"] != "XXX":
            data |= {"value": amount(conversion["value_micros"]), "currency": conversion["currency"]}
        if order_id := conversion["order_id"]:
            data["order_id"] = order_id
        if items := conversion["items"]:
            data["content_ids"] = [item["item_id"] for item in items]
            data["contents"] = [_content(item) for item in items]
            if (total := whole_number(sum(item["quantity"] for item in items))) is not None:
                data["num_items"] = total
            else:
                remarks.append("num_items left out: not a whole number")
        return data

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints. Its URL holds the token."""
        return self._request(account, batch, "events")

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request that Snap checks without taking the event."""
        return self._request(account, [event], "events/validate")

    def _request(self, account: Account, batch: Sequence[PreparedEvent], path: str) -> HttpRequest:
        asset = quote(from_json(batch[0].envelope)["asset"], safe="")
        url = f"{self._base_url}/{self._version}/{asset}/{path}?access_token={quote(account.secret, safe='')}"
        return HttpRequest(url, json_list(b'{"data":[', batch, b"]}"))

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def source_of(conversion: Mapping[str, Any]) -> str:
    """Return Snap's source of an event: web, app or offline."""
    where = conversion["action_source"]
    if where == "app":
        return "app"
    return "offline" if where in _OFFLINE else "web"


def _content(item: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"id": item["item_id"]}
    if (count := whole_number(item["quantity"])) is not None:
        content["quantity"] = count
    if item["price_micros"] is not None:
        content["item_price"] = amount(item["price_micros"])
    return content
