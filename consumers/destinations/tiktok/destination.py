"""TikTok's Events API 2.0 as a destination.

Invariants: what is known to make TikTok refuse a whole batch is found before it is sent: age, a purchase without value,
a source without an id of its own, an event by which nobody can be recognised. The token travels in a header. One
request holds events of one source. Bounds: 1,000 events a request; 7 days of age on the web and in apps, 28 offline;
duplicates of (event, event_id) are removed within 48 hours. TikTok has no event for a refund.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ad_platform import (
    DAY,
    DUPLICATES_48_HOURS,
    GOOGLE_FIELDS,
    META_PRIVACY_FIELDS,
    SECOND,
    AdPlatform,
    event_time,
    json_list,
)
from attributary.consumers.destinations.destination import Api, HttpRequest, NotSent, PreparedEvent
from attributary.consumers.destinations.match_keys import match_keys
from attributary.consumers.destinations.request_budget import RateBudget, RateLimit
from attributary.consumers.destinations.tiktok import responses
from attributary.consumers.destinations.tiktok.event import (
    EVENT_NAMES,
    NEED_VALUE,
    can_match,
    limits_data_use,
    properties,
    user,
)
from attributary.consumers.destinations.wire_format import to_json
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

# TikTok documents neither age; two other relays agree on these.
MAX_AGE_OFFLINE = 28 * DAY

API_VERSION = "v1.3"  # Events API 2.0 lives under this path
_PATH = f"/open_api/{API_VERSION}/event/track/"
_OFFLINE = frozenset(("physical_store", "phone_call"))
SOURCE_IDS = {"web": "pixel_code", "app": "app_id", "offline": "offline_event_set_id"}
"""Sources of events, and the option of an account that holds the id of each."""
_LIMITS = (RateLimit(1_000, 1),)  # at the default level of an application


class TikTokDestination(AdPlatform):
    """The rules of TikTok's Events API."""

    name = "tiktok"
    title = "TikTok"
    api_name = "Events API 2.0"
    api_version = API_VERSION
    base_url = "https://business-api.tiktok.com"
    max_age = 7 * DAY
    duplicates_removed_for = DUPLICATES_48_HOURS
    needed_properties: tuple[str, ...] = ("att_status",)
    probe_needs = "TIKTOK_TEST_EVENT_CODE (test_event_code in FORWARD_CREDENTIALS_FILE)"
    probe_note = "the event shows under Test Events; TikTok does not say whether it counts as well"
    unused_fields: tuple[str, ...] = (*GOOGLE_FIELDS, "anonymous_id", "opt_out", *META_PRIVACY_FIELDS)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        return super().api._replace(max_age=f"{self.max_age // DAY} days, {MAX_AGE_OFFLINE // DAY} offline")

    def age_limit(self, conversion: Conversion) -> int:
        """Offline events may be older."""
        return MAX_AGE_OFFLINE if source_of(conversion) == "offline" else self.max_age

    def budget(self, account: Account) -> RateBudget:
        """Return the budget of the token; TikTok counts by application, and a token is of one."""
        return RateBudget(account.secret_fingerprint, "the access token", _LIMITS)

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event, and the envelope of its source."""
        kind: str = conversion["conversion_type"]
        name = self.own_name(conversion, account) or EVENT_NAMES.get(kind) or kind
        if name in NEED_VALUE and conversion["currency"] == "XXX":
            return NotSent(DeliveryState.REJECTED, "a purchase needs a value and a currency", "currency")
        source = source_of(conversion)
        source_id = account.options.get(SOURCE_IDS[source])
        if not source_id:
            reason = f"no {SOURCE_IDS[source]} is set for events of source {source}"
            return NotSent(DeliveryState.SKIPPED, reason, "action_source")
        remarks: list[str] = []
        strip = self._options.strip_personal_data
        keys = match_keys(conversion, self._options.default_region, remarks)
        person = user(conversion, keys, remarks, is_app=source == "app")
        if not can_match(person):
            return NotSent(DeliveryState.SKIPPED, "too few match keys: TikTok could match nobody", "user_data")
        event: dict[str, Any] = {
            "event": name,
            "event_time": event_time(conversion, moment) // SECOND,
            "event_id": conversion["event_id"],
            "user": person,
        }
        if source == "app":
            event["app"] = {"app_id": source_id}
        sources = (("url", "event_source_url"), ("referrer", "referrer"))
        if page := {key: url for key, source in sources if (url := self.page_url(conversion, remarks, source))}:
            event["page"] = page
        elif source == "web":
            remarks.append("event_source_url is missing: TikTok asks for it on web events")
        if data := properties(conversion, remarks, strip=strip):
            event["properties"] = data
        if limits_data_use(conversion):
            event["limited_data_use"] = True
        envelope = to_json({"event_source": source, "event_source_id": source_id})
        return self.prepared(conversion, event, name, person, remarks, envelope=envelope)

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        body = batch[0].envelope[:-1]
        if code := account.options.get("test_event_code"):
            body += b',"test_event_code":' + to_json(code)
        body = json_list(body + b',"data":[', batch, b"]}")
        return HttpRequest(f"{self._base_url}{_PATH}", body, {"access-token": account.secret})

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request with a test event; None for an account without a test code."""
        return self.request(account, [event]) if account.options.get("test_event_code") else None

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def source_of(conversion: Mapping[str, Any]) -> str:
    """Return TikTok's source of an event: web, app or offline."""
    where = conversion["action_source"]
    if where == "app":
        return "app"
    return "offline" if where in _OFFLINE else "web"
