"""LinkedIn's Conversions API as a destination.

Invariants: an event goes to the conversion rule that the tenant has named for its type, and to none otherwise; names
of people never go; what is known to make LinkedIn refuse a batch is found before it is sent. The token travels in a
header. Bounds: 5,000 events a request; 90 days of age. LinkedIn documents no removal of duplicates between two calls of
the API, so an event is never sent again after an answer that is not clear. There is no event for a refund.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attributary.consumers.destinations import request_budget
from attributary.consumers.destinations.ad_platform import (
    DAY,
    GOOGLE_FIELDS,
    META_PRIVACY_FIELDS,
    AdPlatform,
    event_time,
    json_list,
)
from attributary.consumers.destinations.destination import Api, HttpRequest, NotSent, PreparedEvent
from attributary.consumers.destinations.linkedin import responses
from attributary.consumers.destinations.match_keys import click_id, match_keys
from attributary.consumers.destinations.request_budget import MINUTE, RateBudget, RateLimit
from attributary.consumers.destinations.wire_format import decimal_text
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching.text import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Conversion,
        DeliveryResponse,
        HttpResponse,
        Moment,
    )
    from attributary.consumers.destinations.oauth2.grants import Grant

MILLISECOND = 1_000  # micros
_PATH = "/rest/conversionEvents"
_RULES_PATH = "/rest/conversions"
_MAX_EVENT_ID = 64  # characters; not confirmed
_VERSION_LIVES = dt.timedelta(days=365)  # at least, from the middle of its month
# Daily: 300,000 in the older documentation, 500,000 in that of 2026; counted from midnight UTC.
_LIMITS = (RateLimit(600, MINUTE), RateLimit(300_000, request_budget.DAY))


class LinkedInDestination(AdPlatform):
    """The rules of LinkedIn's Conversions API."""

    name = "linkedin"
    title = "LinkedIn"
    api_name = "Conversions API"
    api_version = "202608"
    base_url = "https://api.linkedin.com"
    token_url = "https://www.linkedin.com/oauth/v2/accessToken"  # noqa: S105  # an address
    max_events = 5_000
    max_body_bytes = 4_000_000  # none is documented; an event takes about 400
    max_age = 90 * DAY
    probe_note = "LinkedIn lists the account's conversion rules; their ids are not compared with FORWARD_LINKEDIN_RULES"
    unused_fields: tuple[str, ...] = (
        "items",
        "properties",
        "order_id",
        "event_source_url",
        "referrer",
        "client_ip_address",
        "client_user_agent",
        *GOOGLE_FIELDS,
        "anonymous_id",
        "opt_out",
        "data_processing_options",
        *META_PRIVACY_FIELDS,
    )

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        year, month = int(self._version[:4]), int(self._version[4:])
        return super().api._replace(ends_not_before=dt.date(year, month, 16) + _VERSION_LIVES)

    def grant(self, account: Account) -> Grant | None:
        """Return how to get an access token; None when the account's secret is one (they live up to a year)."""
        return self.refresh_token_grant(account)

    def budget(self, account: Account) -> RateBudget:
        """Return the budget of the application; LinkedIn says in no header how much of it is left."""
        client = account.options.get("client_id")
        title = f"the application {client}" if client else "the access token"
        return RateBudget(client or account.secret_fingerprint, title, _LIMITS)

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event for the conversion rule of its type."""
        rule = self.own_name(conversion, account)
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
            "conversionHappenedAt": event_time(conversion, moment) // MILLISECOND,
            "eventId": _fitted(conversion["event_id"], remarks),
            "user": {"userIds": ids},
        }
        if conversion["currency"] != "XXX":
            event["conversionValue"] = {
                "currencyCode": conversion["currency"],
                "amount": decimal_text(conversion["value_micros"]),
            }
        return self.prepared(conversion, event, rule, {each["idType"] for each in ids}, remarks)

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        body = json_list(b'{"elements":[', batch, b"]}")
        headers = {**self._headers(account), "x-restli-method": "BATCH_CREATE"}
        return HttpRequest(f"{self._base_url}{_PATH}", body, headers)

    def _headers(self, account: Account) -> dict[str, str]:
        return {
            "authorization": f"Bearer {account.secret}",
            "linkedin-version": self._version,
            "x-restli-protocol-version": "2.0.0",
        }

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:  # noqa: ARG002  # the protocol's
        """Give a request that only reads: the conversion rules of the ad account."""
        place = quote(f"urn:li:sponsoredAccount:{account.account_id}", safe="")
        url = f"{self._base_url}{_RULES_PATH}?q=account&account={place}"
        return HttpRequest(url, b"", self._headers(account), "GET")

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means: an account without a conversion rule takes nothing."""
        return responses.read_rules(response)

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _fitted(event_id: str, remarks: list[str]) -> str:
    """Return an event id that LinkedIn takes: a longer one as its hash, the same at every attempt."""
    if len(event_id) <= _MAX_EVENT_ID:
        return event_id
    remarks.append(f"event_id is longer than {_MAX_EVENT_ID} characters: its SHA-256 is sent")
    return sha256_hex(event_id)
