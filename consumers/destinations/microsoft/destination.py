"""Microsoft Advertising's UET Conversions API (v1) as a destination.

Invariants: every event says whether ad storage was granted, for Microsoft takes a missing answer as a yes; an event by
which nobody can be recognised is found before it is sent. Microsoft is asked to take the good events of a request
beside the bad ones, so one bad event costs no other. Bounds: 1,000 events a request; 7 days, which is not confirmed.
Microsoft documents that it removes copies between its tag and the API, not between two calls, so an event is never sent
again after an answer that is lost. UET has no event for a refund. Source: Microsoft, UET Conversions API (beta).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

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
from attributary.consumers.destinations.microsoft import responses
from attributary.consumers.destinations.wire_format import amount, number_of
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

_PAGE_VIEW = "page_view"
_PAGE_LOAD = "pageLoad"
_CUSTOM = "custom"
_GRANTED, _DENIED = "G", "D"
_PAGE_TYPES = frozenset(("cart", "category", "home", "other", "product", "purchase", "searchresults"))
_PROPERTIES = {
    "event_category": "eventCategory",
    "event_label": "eventLabel",
    "event_value": "eventValue",
    "search_string": "searchTerm",
    "search_term": "searchTerm",
    "page_type": "pageType",
}
"""Microsoft's fields by our free property."""


class MicrosoftDestination(AdPlatform):
    """The rules of the UET Conversions API."""

    name = "microsoft"
    title = "Microsoft"
    api_name = "UET Conversions API"
    api_version = "v1"
    base_url = "https://capi.uet.microsoft.com"
    max_age = 7 * DAY  # not confirmed
    needed_properties: tuple[str, ...] = ()
    unused_fields: tuple[str, ...] = (*GOOGLE_FIELDS, "data_processing_options", *META_PRIVACY_FIELDS, "opt_out")

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event: a page view as pageLoad, everything else as a custom event with the name of its goal."""
        kind: str = conversion["conversion_type"]
        if kind in self._options.sent_elsewhere:
            reason = "it goes to an offline goal by the destination bingads, and Microsoft would count both"
            return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
        own = self.own_name(conversion, account)
        is_page = kind == _PAGE_VIEW and own is None
        remarks: list[str] = []
        url = self.page_url(conversion, remarks)
        if is_page and url is None:
            return NotSent(DeliveryState.SKIPPED, "a page view needs its address", "event_source_url")
        person = self._user_data(conversion, remarks)
        if not (person.keys() - {"clientIpAddress", "clientUserAgent"} or len(person) == 2):
            return NotSent(DeliveryState.SKIPPED, "too few match keys: Microsoft could match nobody", "user_data")
        event: dict[str, Any] = {
            "eventType": _PAGE_LOAD if is_page else _CUSTOM,
            "eventId": conversion["event_id"],
            "eventTime": event_time(conversion, moment) // SECOND,
            "adStorageConsent": _GRANTED if (conversion["consent"] or {}).get("ad_storage") else _DENIED,
            "userData": person,
        }
        if not is_page:
            event["eventName"] = own or kind
        if url:
            event["eventSourceUrl"] = url
        if referrer := self.page_url(conversion, remarks, "referrer"):
            event["referrerUrl"] = referrer
        if data := self._custom_data(conversion, remarks, is_page=is_page):
            event["customData"] = data
        return self.prepared(conversion, event, own or kind, person, remarks)

    def _user_data(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        """Return userData: two hashes of the person, ids of device and click, address and browser as they are."""
        keys = match_keys(conversion, self._options.default_region, remarks)
        found = {
            "em": next(iter(keys.bare_emails), None),
            "ph": next(iter(keys.phones), None),
            # Microsoft wants no real user id here: the hash tells people apart and says nothing of them.
            "externalId": next(iter(keys.external_ids), None),
            "anonymousId": click_id(conversion, "uetvid", "_uetvid"),
            "msclkid": click_id(conversion, "msclkid"),
            "idfa": click_id(conversion, "idfa"),
            "gaid": click_id(conversion, "gaid", "aaid"),
            "clientIpAddress": address(conversion, remarks),
            "clientUserAgent": conversion["client_user_agent"],
        }
        return {name: value for name, value in found.items() if value}

    def _custom_data(self, conversion: Conversion, remarks: list[str], *, is_page: bool) -> dict[str, Any]:
        data = self._properties(conversion, remarks)
        if conversion["currency"] != "XXX":
            if is_page:
                remarks.append("value left out: Microsoft takes none of a page view")
            else:
                data |= {"value": amount(conversion["value_micros"]), "currency": conversion["currency"]}
        if order_id := conversion["order_id"]:
            data["transactionId"] = order_id
        if items := conversion["items"]:
            data["itemIds"] = [item["item_id"] for item in items]
            data["items"] = [_line(item) for item in items]
        return data

    def _properties(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for name, text in self.free_properties(conversion, remarks, _PROPERTIES).items():
            value: Any = text
            if name == "event_value" and (value := number_of(text)) is None:
                remarks.append("property event_value left out: not a number")
            elif name == "page_type" and text not in _PAGE_TYPES:
                remarks.append("property page_type left out: not one of Microsoft's")
            else:
                data.setdefault(_PROPERTIES[name], value)
        return data

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        url = f"{self._base_url}/{self._version}/{quote(account.account_id, safe='')}/events"
        # The flag belongs to the request; without it one bad event refuses all.
        body = json_list(b'{"data":[', batch, b'],"continueOnValidationError":true}')
        return HttpRequest(url, body, {"authorization": f"Bearer {account.secret}"})

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _line(item: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"id": item["item_id"]}
    if (count := whole_number(item["quantity"])) is not None:
        line["quantity"] = count
    if item["price_micros"] is not None:
        line["price"] = amount(item["price_micros"])
    if item["item_name"]:
        line["name"] = item["item_name"]
    return line
