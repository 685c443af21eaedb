"""X's Conversion API as a destination.

Invariants: an event goes to the event tag that the tenant has named for its type, and to none otherwise; what is known
to make X refuse a whole batch is found before it is sent. Every attempt is signed anew (OAuth 1.0a), or carries the
token of the Events Manager; no secret stands in a URL or a body. Bounds: 500 events a request; 90 days of age;
duplicates of (event_id, conversion_id) are removed within 48 hours. X has no event for a refund.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attributary.consumers.destinations.ad_platform import (
    DAY,
    DUPLICATES_48_HOURS,
    GOOGLE_FIELDS,
    META_PRIVACY_FIELDS,
    AdPlatform,
    event_time,
    json_list,
)
from attributary.consumers.destinations.destination import HttpRequest, NotSent, PreparedEvent
from attributary.consumers.destinations.match_keys import address, click_id, match_keys
from attributary.consumers.destinations.wire_format import amount
from attributary.consumers.destinations.x import responses
from attributary.consumers.destinations.x.oauth import OAuthKeys, authorization
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

_MAX_ITEMS = 2**31 - 1


class XDestination(AdPlatform):
    """The rules of X's Conversion API."""

    name = "x"
    title = "X"
    api_name = "Conversion API"
    api_version = "12"
    base_url = "https://ads-api.x.com"
    warning_header = "x-api-warn"
    max_events = 500
    max_age = 90 * DAY  # not documented: the longest attribution window
    duplicates_removed_for = DUPLICATES_48_HOURS
    needed_properties: tuple[str, ...] = ("search_string", "description")
    unused_fields: tuple[str, ...] = (
        "order_id",
        "referrer",
        *GOOGLE_FIELDS,
        "anonymous_id",
        "user_id",
        "opt_out",
        "data_processing_options",
        *META_PRIVACY_FIELDS,
    )

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event for the tag of its type."""
        tag = self.own_name(conversion, account)
        if not tag:
            reason = "no event tag is set for this conversion type: FORWARD_X_EVENT_IDS"
            return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
        remarks: list[str] = []
        identifiers = self._identifiers(conversion, remarks)
        # The address and browser alone are not enough.
        if not any("ip_address" not in each for each in identifiers):
            reason = "too few match keys: X needs an e-mail address, a phone number or twclid"
            return NotSent(DeliveryState.SKIPPED, reason, "user_data")
        event: dict[str, Any] = {
            "conversion_time": _iso(event_time(conversion, moment)),
            "event_id": tag,
            "identifiers": identifiers,
            "conversion_id": conversion["event_id"],
        }
        self._add_optional(event, conversion, remarks)
        names = {name for each in identifiers for name in each}
        return self.prepared(conversion, event, tag, names, remarks)

    def _identifiers(self, conversion: Conversion, remarks: list[str]) -> list[dict[str, str]]:
        keys = match_keys(conversion, self._options.default_region, remarks)
        found = [{"twclid": given}] if (given := click_id(conversion, "twclid")) else []
        found += [{"hashed_email": digest} for digest in keys.emails]
        found += [{"hashed_phone_number": digest} for digest in keys.phones]
        plain, agent = address(conversion, remarks), conversion["client_user_agent"]
        if plain and agent:
            found.append({"ip_address": plain, "user_agent": agent})
        return found

    def _add_optional(self, event: dict[str, Any], conversion: Conversion, remarks: list[str]) -> None:
        if conversion["currency"] != "XXX":
            # Without its currency X takes a value for dollars.
            event |= {"value": amount(conversion["value_micros"]), "price_currency": conversion["currency"]}
        if items := conversion["items"]:
            event["contents"] = [_content(item) for item in items]
            total = sum(min(item["quantity"], 2.0 * _MAX_ITEMS) for item in items)
            if total.is_integer() and 0 < total <= _MAX_ITEMS:
                event["number_items"] = int(total)
            else:
                remarks.append("number_items left out: not a whole number")
        if url := self.page_url(conversion, remarks):
            event["event_source_url"] = url
        for name in sorted(conversion["properties"]):
            if name in self.needed_properties and conversion["properties"][name]:
                event[name] = conversion["properties"][name]
            elif not name.startswith("user."):
                remarks.append("property left out: X has no field for it")

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request, not signed yet; the body is what `forward --dry-run` prints."""
        pixel = quote(account.account_id, safe="")
        url = f"{self._base_url}/{self._version}/measurement/conversions/{pixel}"
        return HttpRequest(url, json_list(b'{"conversions":[', batch, b"]}"))

    def sign(self, request: HttpRequest, account: Account, now_seconds: int, nonce: str) -> HttpRequest:
        """Sign an attempt with the four keys of OAuth 1.0a, or add the token of the Events Manager."""
        if "consumer_key" not in account.options:
            return replace(request, headers={"x-pixel-token": account.secret})
        options = account.options
        keys = OAuthKeys(options["consumer_key"], options["consumer_secret"], options["access_token"], account.secret)
        return replace(request, headers={"authorization": authorization("POST", request.url, keys, now_seconds, nonce)})

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _iso(micros: int) -> str:
    """Return a time as X wants it: milliseconds, three digits, and Z."""
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1_000:03d}Z"


def _content(item: Mapping[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"content_id": item["item_id"]}
    if item["quantity"].is_integer() and 0 < item["quantity"] <= _MAX_ITEMS:
        content["num_items"] = int(item["quantity"])
    if item["price_micros"] is not None:
        content["content_price"] = amount(item["price_micros"])
    if item["item_name"]:
        content["content_name"] = item["item_name"]
    return content
