"""LinkedIn's Conversions API as a destination.

Invariants: an event goes to the conversion rule that the tenant has named for its type, and to none otherwise; names
of people never go; what is known to make LinkedIn refuse a batch is found before it is sent. The token travels in a
header. Bounds: 5,000 events a request; 90 days of age. LinkedIn documents no removal of duplicates between two calls of
the API, so an event is never sent again after an answer that is not clear. There is no event for a refund.
"""

from __future__ import annotations

import datetime as dt
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
from attributary.consumers.destinations.linkedin import responses
from attributary.consumers.destinations.match_keys import click_id, match_keys
from attributary.consumers.destinations.wire_format import decimal_text, to_json
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
DAY = 86_400_000_000  # micros
MAX_AGE = 90 * DAY
AGE_MARGIN = 300_000_000  # micros; an event this close to its limit may cross it on the way

DEFAULT_BASE_URL = "https://api.linkedin.com"
DEFAULT_API_VERSION = "202608"
_PATH = "/rest/conversionEvents"
_MAX_EVENT_ID = 64  # characters; not confirmed
_VERSION_LIVES = dt.timedelta(days=365)  # at least, from the middle of its month


@dataclass(frozen=True, slots=True)
class LinkedInOptions:
    """How to speak to LinkedIn.

    Attributes:
        base_url: scheme and host.
        api_version: YYYYMM.
        rules: ids of conversion rules by conversion type; an account's own go first.
    """

    base_url: str = DEFAULT_BASE_URL
    api_version: str = DEFAULT_API_VERSION
    rules: Mapping[str, str] = field(default_factory=dict)


class LinkedInDestination:
    """The rules of LinkedIn's Conversions API.

    Args:
        options: how to speak to LinkedIn.
        consent_purposes: what a person must have agreed to.
        events_per_request: 5,000 at most.
    """

    name = "linkedin"
    needed_properties: tuple[str, ...] = ()
    unused_fields: tuple[str, ...] = (
        "items",
        "properties",
        "order_id",
        "event_source_url",
        "referrer",
        "client_ip_address",
        "client_user_agent",
        "ga_client_id",
        "ga_app_instance_id",
        "ga_session_id",
        "engagement_time_msec",
        "anonymous_id",
        "opt_out",
        "data_processing_options",
        "data_processing_country",
        "data_processing_state",
    )

    def __init__(
        self,
        options: LinkedInOptions | None = None,
        *,
        consent_purposes: tuple[str, ...] = ("ad_storage", "ad_user_data"),
        events_per_request: int = 1_000,
    ) -> None:
        self._options = options or LinkedInOptions()
        self.consent_purposes = consent_purposes
        # LinkedIn documents no limit on bytes; an event takes about 400.
        self.limits = RequestLimits(min(events_per_request, 5_000), 4_000_000)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        version = self._options.api_version
        ends = dt.date(int(version[:4]), int(version[4:]), 16) + _VERSION_LIVES
        return Api("Conversions API", version, ends, f"{MAX_AGE // DAY} days")

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse corrections, which LinkedIn has no event for, and events past their age."""
        if conversion["kind"] != "conversion":
            return NotSent(DeliveryState.SKIPPED, f"LinkedIn has no event for a {conversion['kind']}", "kind")
        if moment.now - conversion["occurred_at"] > MAX_AGE - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {MAX_AGE // DAY} days", "occurred_at")
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event for the conversion rule of its type."""
        kind: str = conversion["conversion_type"]
        rule = account.event_names.get(kind) or self._options.rules.get(kind)
        if not rule:
            reason = "no conversion rule is set for this conversion type: FORWARD_LINKEDIN_RULES"
            return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
        remarks: list[str] = []
        keys = match_keys(conversion, None, remarks)
        ids = [{"idType": "SHA256_EMAIL", "idValue": digest} for digest in keys.emails]
        if tracking := click_id(conversion, "li_fat_id"):
            ids.append({"idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "idValue": tracking})
        if not ids:
            reason = "too few match keys: LinkedIn needs an e-mail address or li_fat_id"
            return NotSent(DeliveryState.SKIPPED, reason, "user_data")
        event: dict[str, Any] = {
            "conversion": f"urn:lla:llaPartnerConversion:{rule}",
            # An event cannot have happened after Kafka stored it: the same at every attempt.
            "conversionHappenedAt": min(conversion["occurred_at"], moment.received_at) // MILLISECOND,
            "eventId": _fitted(conversion["event_id"], remarks),
            "user": {"userIds": ids},
        }
        if conversion["currency"] != "XXX":
            event["conversionValue"] = {
                "currencyCode": conversion["currency"],
                "amount": decimal_text(conversion["value_micros"]),
            }
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            to_json(event),
            resend_safe=False,
            match_keys=tuple(sorted({each["idType"] for each in ids})),
            remark=joined_remarks(remarks),
            name=rule,
        )

    def redelivery_ends(self, first_sent_at: int) -> int | None:  # noqa: ARG002  # the protocol's
        """LinkedIn names no time within which it removes a second copy; the age limit stands."""
        return None

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        body = b'{"elements":[' + b",".join(event.body for event in batch) + b"]}"
        headers = {
            "authorization": f"Bearer {account.secret}",
            "linkedin-version": self._options.api_version,
            "x-restli-protocol-version": "2.0.0",
            "x-restli-method": "BATCH_CREATE",
        }
        return HttpRequest(f"{self._options.base_url}{_PATH}", body, headers)

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:  # noqa: ARG002  # the protocol's
        """LinkedIn has no endpoint that checks an event without taking it."""
        return None

    def findings(self, response: HttpResponse) -> list[str]:  # noqa: ARG002  # the protocol's
        """There are no probes."""
        return []


def _fitted(event_id: str, remarks: list[str]) -> str:
    """Return an event id that LinkedIn takes: a longer one as its hash, the same at every attempt."""
    if len(event_id) <= _MAX_EVENT_ID:
        return event_id
    remarks.append(f"event_id is longer than {_MAX_EVENT_ID} characters: its SHA-256 is sent")
    return sha256_hex(event_id)
