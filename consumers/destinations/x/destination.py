"""X's Conversion API as a destination.

Invariants: an event goes to the event tag that the tenant has named for its type, and to none otherwise; what is known
to make X refuse a whole batch is found before it is sent. Every attempt is signed anew (OAuth 1.0a), or carries the
token of the Events Manager; no secret stands in a URL or a body. Bounds: 500 events a request; 90 days of age;
duplicates of (event_id, conversion_id) are removed within 48 hours. X has no event for a refund.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attributary.consumers.destinations.destination import (
    Api,
    HttpRequest,
    NotSent,
    PreparedEvent,
    RequestLimits,
    joined_remarks,
)
from attributary.consumers.destinations.match_keys import address, click_id, match_keys
from attributary.consumers.destinations.personal_data import clean_url
from attributary.consumers.destinations.wire_format import amount, to_json
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

DAY = 86_400_000_000  # micros
MAX_AGE = 90 * DAY  # not documented: the longest attribution window
AGE_MARGIN = 300_000_000  # micros; an event this close to its limit may cross it on the way
DUPLICATES_REMOVED_FOR = 48 * 3_600_000_000  # micros

DEFAULT_BASE_URL = "https://ads-api.x.com"
API_VERSION = "12"
_MAX_ITEMS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class XOptions:
    """How to speak to X.

    Attributes:
        base_url: scheme and host.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        event_ids: ids of single event tags by conversion type; an account's own go first.
        strip_personal_data: leave out personal data in URLs.
    """

    base_url: str = DEFAULT_BASE_URL
    default_region: str | None = None
    event_ids: Mapping[str, str] = field(default_factory=dict)
    strip_personal_data: bool = True


class XDestination:
    """The rules of X's Conversion API.

    Args:
        options: how to speak to X.
        consent_purposes: what a person must have agreed to.
        events_per_request: 500 at most.
    """

    name = "x"
    needed_properties: tuple[str, ...] = ("search_string", "description")
    unused_fields: tuple[str, ...] = (
        "order_id",
        "referrer",
        "ga_client_id",
        "ga_app_instance_id",
        "ga_session_id",
        "engagement_time_msec",
        "anonymous_id",
        "user_id",
        "opt_out",
        "data_processing_options",
        "data_processing_country",
        "data_processing_state",
    )

    def __init__(
        self,
        options: XOptions | None = None,
        *,
        consent_purposes: tuple[str, ...] = ("ad_storage", "ad_user_data"),
        events_per_request: int = 500,
    ) -> None:
        self._options = options or XOptions()
        self.consent_purposes = consent_purposes
        # X documents no limit on bytes.
        self.limits = RequestLimits(min(events_per_request, 500), 1_000_000)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        return Api("Conversion API", API_VERSION, None, f"{MAX_AGE // DAY} days")

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse corrections, which X has no event for, and events past their age."""
        if conversion["kind"] != "conversion":
            return NotSent(DeliveryState.SKIPPED, f"X has no event for a {conversion['kind']}", "kind")
        if moment.now - conversion["occurred_at"] > MAX_AGE - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {MAX_AGE // DAY} days", "occurred_at")
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event for the tag of its type."""
        kind: str = conversion["conversion_type"]
        tag = account.event_names.get(kind) or self._options.event_ids.get(kind)
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
            # An event cannot have happened after Kafka stored it: the same at every attempt.
            "conversion_time": _iso(min(conversion["occurred_at"], moment.received_at)),
            "event_id": tag,
            "identifiers": identifiers,
            "conversion_id": conversion["event_id"],
        }
        self._add_optional(event, conversion, remarks)
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            to_json(event),
            match_keys=tuple(sorted({name for each in identifiers for name in each})),
            remark=joined_remarks(remarks),
            name=tag,
        )

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
        if url := conversion["event_source_url"]:
            event["event_source_url"], is_changed = (
                clean_url(url) if self._options.strip_personal_data else (url, False)
            )
            if is_changed:
                remarks.append("event_source_url: personal data left out")
        for name in sorted(conversion["properties"]):
            if name in self.needed_properties and conversion["properties"][name]:
                event[name] = conversion["properties"][name]
            elif not name.startswith("user."):
                remarks.append("property left out: X has no field for it")

    def redelivery_ends(self, first_sent_at: int) -> int | None:
        """X removes a second copy within 48 hours of the first."""
        return first_sent_at + DUPLICATES_REMOVED_FOR

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request, not signed yet; the body is what `forward --dry-run` prints."""
        pixel = quote(account.account_id, safe="")
        url = f"{self._options.base_url}/{API_VERSION}/measurement/conversions/{pixel}"
        return HttpRequest(url, b'{"conversions":[' + b",".join(event.body for event in batch) + b"]}")

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

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:  # noqa: ARG002  # the protocol's
        """X has no endpoint that checks an event without taking it."""
        return None

    def findings(self, response: HttpResponse) -> list[str]:  # noqa: ARG002  # the protocol's
        """There are no probes."""
        return []


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
