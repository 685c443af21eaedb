"""Reddit's Conversions API v3 as a destination.

Invariants: what is known to make Reddit refuse a whole batch is found before it is sent: age, a malformed uuid, an
event by which nobody can be recognised. No property goes that Reddit does not name: it refuses a batch for one. The
token travels in a header, beside a user agent of our own, for Reddit throttles default ones. Bounds: 1,000 events a
request; 7 days of age; copies are removed by conversion id and type within two days. Reddit has no event for a refund.
Source: Reddit, Conversions API v3. Unconfirmed: the spelling PHYSICAL_STORE.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ad_platform import (
    DUPLICATES_48_HOURS,
    GOOGLE_FIELDS,
    AdPlatform,
    event_time,
    json_list,
    whole_number,
)
from attributary.consumers.destinations.destination import HttpRequest, NotSent, PreparedEvent
from attributary.consumers.destinations.match_keys import address, click_id, match_keys
from attributary.consumers.destinations.reddit import responses
from attributary.consumers.destinations.request_budget import RateBudget, RateLimit
from attributary.consumers.destinations.wire_format import amount, to_json
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

MILLISECOND = 1_000  # micros
USER_AGENT = "attributary-forwarder/1 (conversions API client)"
EVENT_TYPES = {
    "purchase": "PURCHASE",
    "lead": "LEAD",
    "signup": "SIGN_UP",
    "add_to_cart": "ADD_TO_CART",
    "add_to_wishlist": "ADD_TO_WISHLIST",
    "view_content": "VIEW_CONTENT",
    "view_item": "VIEW_CONTENT",
    "page_view": "PAGE_VISIT",
    "search": "SEARCH",
}
"""Reddit's tracking types by our conversion type; any other type goes as CUSTOM under its own name."""

_TYPES = frozenset(EVENT_TYPES.values())
_MAX_CUSTOM_NAME = 64
_SOURCES = {"website": "WEBSITE", "app": "APP", "physical_store": "PHYSICAL_STORE"}
_UUID = re.compile(r"[0-9]{10,16}\.[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNITED_STATES = 1  # Meta's number of the country; its states follow from 1000
_STATES = ("CA", "CO", "CT", "FL", "OR", "TX", "MT", "DE", "NE", "NH", "NJ", "MN", "MD", "RI")
_LIMITS = (RateLimit(1_000, 1),)


class RedditDestination(AdPlatform):
    """The rules of Reddit's Conversions API."""

    name = "reddit"
    title = "Reddit"
    api_name = "Conversions API"
    api_version = "v3"
    base_url = "https://ads-api.reddit.com"
    duplicates_removed_for = DUPLICATES_48_HOURS
    probe_needs = "REDDIT_TEST_ID (test_event_code in FORWARD_CREDENTIALS_FILE)"
    probe_note = "the event shows in the Events Manager as a test"
    unused_fields: tuple[str, ...] = ("order_id", "referrer", *GOOGLE_FIELDS, "anonymous_id", "opt_out")

    def budget(self, account: Account) -> RateBudget:
        """Return the budget of the token; Reddit does not say how much of it is left."""
        return RateBudget(account.secret_fingerprint, "the access token", _LIMITS)

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event."""
        kind: str = conversion["conversion_type"]
        name = self.own_name(conversion, account) or EVENT_TYPES.get(kind) or kind
        remarks: list[str] = []
        source = _SOURCES.get(conversion["action_source"], "OTHER")
        person = self._user(conversion, remarks, is_offline=source == "PHYSICAL_STORE")
        event: dict[str, Any] = {
            "event_at": event_time(conversion, moment) // MILLISECOND,
            "action_source": source,
            "type": _event_type(name, remarks),
        }
        click = None if source == "PHYSICAL_STORE" else click_id(conversion, "rdt_cid")
        if click:
            event["click_id"] = click
        if not (person.keys() - {"ip_address", "user_agent"} or click or len(person) == 2):
            return NotSent(DeliveryState.SKIPPED, "too few match keys: Reddit could match nobody", "user_data")
        if url := self.page_url(conversion, remarks):
            event["event_source_url"] = url
        event["metadata"] = self._metadata(conversion, remarks)
        keys = [*person, *(["click_id"] if click else ())]
        if options := _limited_use(conversion):
            person["data_processing_options"] = options
        event["user"] = person
        self.free_properties(conversion, remarks)
        return self.prepared(conversion, event, name, keys, remarks)

    def _user(self, conversion: Conversion, remarks: list[str], *, is_offline: bool) -> dict[str, Any]:
        keys = match_keys(conversion, self._options.default_region, remarks)
        found: dict[str, Any] = {
            "email": next(iter(keys.bare_emails), None),
            "phone_number": next(iter(keys.phones), None),
        }
        if not is_offline:  # a visit to a store has no device
            found |= {
                "external_id": next(iter(keys.external_ids), None),
                "ip_address": address(conversion, remarks),
                "user_agent": conversion["client_user_agent"],
            }
            for theirs, ours, is_upper in (("idfa", ("idfa",), True), ("aaid", ("aaid", "gaid"), False)):
                if device := click_id(conversion, *ours):
                    found[theirs] = sha256_hex(device.upper() if is_upper else device.lower())
            if uuid := click_id(conversion, "rdt_uuid", "_rdt_uuid"):
                if _UUID.fullmatch(uuid):
                    found["uuid"] = uuid
                else:
                    remarks.append("rdt_uuid left out: malformed")
        return {name: value for name, value in found.items() if value}

    def _metadata(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        data: dict[str, Any] = {"conversion_id": conversion["event_id"]}
        if conversion["currency"] != "XXX":
            data |= {"value": amount(conversion["value_micros"]), "currency": conversion["currency"]}
        if items := conversion["items"]:
            data["products"] = [_product(item) for item in items]
            if (total := whole_number(sum(item["quantity"] for item in items))) is not None:
                data["item_count"] = total
            else:
                remarks.append("item_count left out: not a whole number")
        return data

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        test = account.options.get("test_event_code")
        closing = b"]" + (b',"test_id":' + to_json(test) if test else b"") + b"}}"
        url = f"{self._base_url}/api/{self._version}/pixels/{account.account_id}/conversion_events"
        headers = {"authorization": f"Bearer {account.secret}", "user-agent": USER_AGENT}
        return HttpRequest(url, json_list(b'{"data":{"events":[', batch, closing), headers)

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request with a test event; None for an account without a test id."""
        return self.request(account, [event]) if account.options.get("test_event_code") else None

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _event_type(name: str, remarks: list[str]) -> dict[str, str]:
    if name in _TYPES:
        return {"tracking_type": name}
    if len(name) > _MAX_CUSTOM_NAME:
        remarks.append(f"the name is longer than {_MAX_CUSTOM_NAME} characters: cut")
    return {"tracking_type": "CUSTOM", "custom_event_name": name[:_MAX_CUSTOM_NAME]}


def _product(item: Mapping[str, Any]) -> dict[str, Any]:
    product: dict[str, Any] = {"id": item["item_id"]}
    for ours, theirs in (("item_name", "name"), ("item_category", "category")):
        if item[ours]:
            product[theirs] = item[ours]
    if item["price_micros"] is not None:
        product["item_price"] = amount(item["price_micros"])
    if (count := whole_number(item["quantity"])) is not None:
        product["quantity"] = count
    return product


def _limited_use(conversion: Conversion) -> dict[str, Any] | None:
    """Return the options of limited data use; country and state are given in Meta's numbers."""
    if "LDU" not in conversion["data_processing_options"]:
        return None
    found: dict[str, Any] = {"modes": ["LDU"]}
    if conversion["data_processing_country"] == _UNITED_STATES:
        found["country"] = "US"
        state = (conversion["data_processing_state"] or 0) - 1_000
        if 0 <= state < len(_STATES):
            found["region"] = f"US-{_STATES[state]}"
    return found
