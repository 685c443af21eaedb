"""TikTok's Events API 2.0 as a destination.

Invariants: what is known to make TikTok refuse a whole batch is found before it is sent: age, a purchase without value,
a source without an id of its own, an event by which nobody can be recognised. The token travels in a header. One
request holds events of one source. Bounds: 1,000 events a request; 7 days of age on the web and in apps, 28 offline;
duplicates of (event, event_id) are removed within 48 hours. TikTok has no event for a refund.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.destination import (
    Api,
    HttpRequest,
    NotSent,
    PreparedEvent,
    RequestLimits,
    joined_remarks,
)
from attributary.consumers.destinations.match_keys import match_keys
from attributary.consumers.destinations.tiktok import responses
from attributary.consumers.destinations.tiktok.event import (
    EVENT_NAMES,
    NEED_VALUE,
    can_match,
    limits_data_use,
    page,
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

SECOND = 1_000_000  # micros
DAY = 86_400 * SECOND
# TikTok documents neither age; two other relays agree on these.
MAX_AGE = 7 * DAY
MAX_AGE_OFFLINE = 28 * DAY
AGE_MARGIN = 300 * SECOND  # an event this close to its limit may cross it on the way
DUPLICATES_REMOVED_FOR = 48 * 3_600 * SECOND

DEFAULT_BASE_URL = "https://business-api.tiktok.com"
API_VERSION = "v1.3"  # Events API 2.0 lives under this path
_PATH = f"/open_api/{API_VERSION}/event/track/"
_OFFLINE = frozenset(("physical_store", "phone_call"))
SOURCE_IDS = {"web": "pixel_code", "app": "app_id", "offline": "offline_event_set_id"}
"""Sources of events, and the option of an account that holds the id of each."""


@dataclass(frozen=True, slots=True)
class TikTokOptions:
    """How to speak to TikTok.

    Attributes:
        base_url: scheme and host.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        event_names: event names by conversion type, before TikTok's standard ones; an account's own go first.
        strip_personal_data: leave out personal data in URLs and free properties.
    """

    base_url: str = DEFAULT_BASE_URL
    default_region: str | None = None
    event_names: Mapping[str, str] = field(default_factory=dict)
    strip_personal_data: bool = True


class TikTokDestination:
    """The rules of TikTok's Events API.

    Args:
        options: how to speak to TikTok.
        consent_purposes: what a person must have agreed to.
        events_per_request: 1,000 at most.
    """

    name = "tiktok"
    needed_properties: tuple[str, ...] = ("att_status",)
    unused_fields: tuple[str, ...] = (
        "ga_client_id",
        "ga_app_instance_id",
        "ga_session_id",
        "engagement_time_msec",
        "anonymous_id",
        "opt_out",
        "data_processing_country",
        "data_processing_state",
    )

    def __init__(
        self,
        options: TikTokOptions | None = None,
        *,
        consent_purposes: tuple[str, ...] = ("ad_storage", "ad_user_data"),
        events_per_request: int = 1_000,
    ) -> None:
        self._options = options or TikTokOptions()
        self.consent_purposes = consent_purposes
        # TikTok documents no limit on bytes.
        self.limits = RequestLimits(min(events_per_request, 1_000), 1_000_000)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        return Api("Events API 2.0", API_VERSION, None, f"{MAX_AGE // DAY} days, {MAX_AGE_OFFLINE // DAY} offline")

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse corrections, which TikTok has no event for, and events past their age."""
        if conversion["kind"] != "conversion":
            return NotSent(DeliveryState.SKIPPED, f"TikTok has no event for a {conversion['kind']}", "kind")
        limit = MAX_AGE_OFFLINE if source_of(conversion) == "offline" else MAX_AGE
        if moment.now - conversion["occurred_at"] > limit - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {limit // DAY} days", "occurred_at")
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event, and the envelope of its source."""
        kind: str = conversion["conversion_type"]
        name = account.event_names.get(kind) or self._options.event_names.get(kind) or EVENT_NAMES.get(kind) or kind
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
            # An event cannot have happened after Kafka stored it: the same at every attempt.
            "event_time": min(conversion["occurred_at"], moment.received_at) // SECOND,
            "event_id": conversion["event_id"],
            "user": person,
        }
        if source == "app":
            event["app"] = {"app_id": source_id}
        if address := page(conversion, remarks, strip=strip):
            event["page"] = address
        elif source == "web":
            remarks.append("event_source_url is missing: TikTok asks for it on web events")
        if data := properties(conversion, remarks, strip=strip):
            event["properties"] = data
        if limits_data_use(conversion):
            event["limited_data_use"] = True
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            to_json(event),
            to_json({"event_source": source, "event_source_id": source_id}),
            match_keys=tuple(sorted(person)),
            remark=joined_remarks(remarks),
            name=name,
        )

    def redelivery_ends(self, first_sent_at: int) -> int | None:
        """TikTok removes a second copy within 48 hours of the first."""
        return first_sent_at + DUPLICATES_REMOVED_FOR

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        body = batch[0].envelope[:-1]
        if code := account.options.get("test_event_code"):
            body += b',"test_event_code":' + to_json(code)
        body += b',"data":[' + b",".join(event.body for event in batch) + b"]}"
        return HttpRequest(f"{self._options.base_url}{_PATH}", body, {"access-token": account.secret})

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:  # noqa: ARG002  # the protocol's
        """TikTok answers every request; there is nothing to probe."""
        return None

    def findings(self, response: HttpResponse) -> list[str]:  # noqa: ARG002  # the protocol's
        """There are no probes."""
        return []


def source_of(conversion: Mapping[str, Any]) -> str:
    """Return TikTok's source of an event: web, app or offline."""
    where = conversion["action_source"]
    if where == "app":
        return "app"
    return "offline" if where in _OFFLINE else "web"
