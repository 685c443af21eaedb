"""Meta's Conversions API as a destination.

Invariants: what is known to make Meta reject a whole batch is found before it is sent: age, too weak user data, a
malformed click id, a purchase without a currency. The access token travels in a header, never in a URL or a body.
Bounds: 1,000 events a request; 7 days of age, 62 for physical stores; duplicates are removed by (event_id,
event_name) within 48 hours.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from attributary.consumers.destinations.destination import (
    Api,
    HttpRequest,
    NotSent,
    PreparedEvent,
    RequestLimits,
    joined_remarks,
)
from attributary.consumers.destinations.meta import responses
from attributary.consumers.destinations.meta.event import (
    APP_FIELDS,
    EVENT_NAMES,
    HASHED_KEYS,
    TOO_WEAK,
    app_data,
    custom_data,
    parts,
    user_data,
)
from attributary.consumers.destinations.personal_data import clean_url
from attributary.consumers.destinations.wire_format import to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching import hash_user_data_with_remarks, usable_hashes
from attributary.producers.matching.text import as_hash, clean, is_placeholder, sha256_hex
from attributary.producers.matching.user_data import PLAIN_FIELDS

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
MAX_AGE = 7 * DAY
MAX_AGE_IN_STORE = 62 * DAY
# An event this close to its limit may cross it between our check and Meta's, and would take its batch along.
AGE_MARGIN = 300 * SECOND
DUPLICATES_REMOVED_FOR = 48 * 3_600 * SECOND

DEFAULT_BASE_URL = "https://graph.facebook.com"
DEFAULT_API_VERSION = "v26.0"  # released 2026-07-29; a version lives two years at least
RELEASES = {"v26.0": dt.date(2026, 7, 29)}
OLDEST_SAFE_VERSION = 25  # older ones end, or may have ended, by 2028

ExternalId = Literal["hashed", "raw", "both"]


@dataclass(frozen=True, slots=True)
class MetaOptions:
    """How to speak to Meta.

    Attributes:
        base_url: scheme and host.
        api_version: for example v26.0.
        external_id: send the external id hashed, as it is, or both; "raw" and "both" need it plain on the topic.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        event_names: event names by conversion type, before Meta's standard ones; an account's own go first.
        strip_personal_data: leave out personal data in URLs and free properties.
        content_types: content types by category of the lines of an order, lower case.
        partner_agent: names who sends, in every request; empty: nobody.
        upload_tag: names the upload, in every request; empty: none.
    """

    base_url: str = DEFAULT_BASE_URL
    api_version: str = DEFAULT_API_VERSION
    external_id: ExternalId = "hashed"
    default_region: str | None = None
    event_names: Mapping[str, str] = field(default_factory=dict)
    strip_personal_data: bool = True
    content_types: Mapping[str, str] = field(default_factory=dict)
    partner_agent: str = ""
    upload_tag: str = ""


class MetaDestination:
    """The rules of Meta's Conversions API.

    Args:
        options: how to speak to Meta.
        consent_purposes: what a person must have agreed to.
        events_per_request: 1,000 at most.
    """

    name = "meta"
    probe_needs = "META_TEST_EVENT_CODE (test_event_code in FORWARD_CREDENTIALS_FILE)"
    probe_note = "the event shows under Test Events, and Meta counts it as a custom event without a value"
    needed_properties: tuple[str, ...] = (*APP_FIELDS, "messaging_channel")
    unused_fields: tuple[str, ...] = (
        "ga_client_id",
        "ga_app_instance_id",
        "ga_session_id",
        "engagement_time_msec",
        "anonymous_id",
    )

    def __init__(
        self,
        options: MetaOptions | None = None,
        *,
        consent_purposes: tuple[str, ...] = ("ad_storage", "ad_user_data"),
        events_per_request: int = 1_000,
    ) -> None:
        self._options = options or MetaOptions()
        self.consent_purposes = consent_purposes
        # Meta documents no limit on bytes; a thousand rich events take 1 to 2 MB.
        self.limits = RequestLimits(min(events_per_request, 1_000), 4_000_000)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        version = self._options.api_version
        ends = RELEASES[version].replace(year=RELEASES[version].year + 2) if version in RELEASES else None
        return Api("Conversions API", version, ends, f"{MAX_AGE // DAY} days, {MAX_AGE_IN_STORE // DAY} in stores")

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse corrections, which Meta has no event for, and events past their age."""
        if conversion["kind"] != "conversion":
            return NotSent(DeliveryState.SKIPPED, f"Meta has no event for a {conversion['kind']}", "kind")
        in_store = conversion["action_source"] == "physical_store"
        limit = MAX_AGE_IN_STORE if in_store else MAX_AGE
        if moment.now - conversion["occurred_at"] > limit - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {limit // DAY} days", "occurred_at")
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the server event."""
        kind: str = conversion["conversion_type"]
        name = account.event_names.get(kind) or self._options.event_names.get(kind) or EVENT_NAMES.get(kind) or kind
        if name == "Purchase" and conversion["currency"] == "XXX":
            return NotSent(DeliveryState.REJECTED, "a purchase needs a value and a currency", "currency")
        remarks: list[str] = []
        hashes = self._hashes(conversion, remarks)
        keys = user_data(conversion, hashes, remarks, user_id=self._user_id(conversion, remarks))
        if any(keys.keys() <= weak for weak in TOO_WEAK):
            return NotSent(DeliveryState.SKIPPED, "too few match keys: Meta could match nobody", "user_data")
        event: dict[str, Any] = {
            "event_name": name,
            # An event cannot have happened after Kafka stored it: a device's fast clock is set right, and the same at
            # every attempt.
            "event_time": min(conversion["occurred_at"], moment.received_at) // SECOND,
            "event_id": conversion["event_id"],
            "action_source": conversion["action_source"],
            "user_data": keys,
        }
        if conversion["action_source"] == "app":
            app = app_data(conversion["properties"], remarks, strip=self._options.strip_personal_data)
            if app is None:
                reason = "an app event needs advertiser_tracking_enabled, application_tracking_enabled and 16 extinfo"
                return NotSent(DeliveryState.REJECTED, reason, "properties.extinfo")
            event["app_data"] = app
        self._add_optional(event, conversion, remarks)
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            to_json(event),
            match_keys=tuple(sorted(keys)),
            remark=joined_remarks(remarks),
            name=name,
        )

    def _hashes(self, conversion: Conversion, remarks: list[str]) -> dict[str, list[str]]:
        given = conversion["user_data"]
        if not given:
            return {}
        plain = given["external_id"]
        if any(given[field] for field in PLAIN_FIELDS):
            given, left_out = hash_user_data_with_remarks(given, default_region=self._options.default_region)
            remarks += left_out["meta"]
        hashes, more = usable_hashes(given["meta_hashes"], HASHED_KEYS)
        remarks += more
        if plain and "external_id" in hashes:
            hashes["external_id"] = self._external_id(plain, hashes["external_id"])
        return hashes

    def _external_id(self, plain: str, hashed: list[str]) -> list[str]:
        """Return an external id as the operator wants it to travel: hashed, raw or both."""
        text = clean(plain)
        if self._options.external_id == "hashed" or as_hash(text) or "@" in text:
            return hashed  # an e-mail address never travels raw
        return [text, *hashed] if self._options.external_id == "both" else [text]

    def _user_id(self, conversion: Conversion, remarks: list[str]) -> list[str]:
        """Return the user id as an external id; a hash already is passed through."""
        text = clean(conversion["user_id"] or "")
        if not text:
            return []
        if is_placeholder(text):
            remarks.append("user_id left out: a placeholder")
            return []
        return self._external_id(text, [as_hash(text) or sha256_hex(text)])

    def _add_optional(self, event: dict[str, Any], conversion: Conversion, remarks: list[str]) -> None:
        strip = self._options.strip_personal_data
        for key, source in (("event_source_url", "event_source_url"), ("referrer_url", "referrer")):
            if url := conversion[source]:
                event[key], is_changed = clean_url(url) if strip else (url, False)
                if is_changed:
                    remarks.append(f"{source}: personal data left out")
                if not url.strip().lower().startswith(("http://", "https://")):
                    remarks.append(f"{source} is no web address: it has no http:// or https://")
        if conversion["opt_out"]:
            event["opt_out"] = True
        if data := custom_data(conversion, remarks, strip=strip, content_types=self._options.content_types):
            event["custom_data"] = data
        event |= parts(conversion["properties"], remarks, strip=strip)
        if options := conversion["data_processing_options"]:
            event["data_processing_options"] = options
            # 0 and 0 let Meta find the place itself, by the IP address.
            event["data_processing_options_country"] = conversion["data_processing_country"] or 0
            event["data_processing_options_state"] = conversion["data_processing_state"] or 0
        via = conversion["properties"].get("messaging_channel")
        if via and conversion["action_source"] == "business_messaging":
            event["messaging_channel"] = via

    def redelivery_ends(self, first_sent_at: int) -> int | None:
        """Meta removes a second copy within 48 hours of the first; the age limit stands beside it."""
        return first_sent_at + DUPLICATES_REMOVED_FOR

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        url = f"{self._options.base_url}/{self._options.api_version}/{quote(account.account_id, safe='')}/events"
        if app_secret := account.options.get("app_secret"):
            proof = hmac.new(app_secret.encode(), account.secret.encode(), hashlib.sha256).hexdigest()
            url += f"?appsecret_proof={proof}"
        body = b'{"data":[' + b",".join(event.body for event in batch) + b"]"
        if code := account.options.get("test_event_code"):
            body += b',"test_event_code":' + to_json(code)
        for name, text in (("partner_agent", self._options.partner_agent), ("upload_tag", self._options.upload_tag)):
            if text:
                body += b',"%s":' % name.encode() + to_json(text)
        return HttpRequest(url, body + b"}", {"authorization": f"Bearer {account.secret}"})

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request with a test event; None for an account without a test code."""
        return self.request(account, [event]) if account.options.get("test_event_code") else None

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means."""
        return self.classify(response, 1)

    def findings(self, response: HttpResponse) -> list[str]:  # noqa: ARG002  # the protocol's
        """Probes are read by `read_probe`."""
        return []


def is_old_version(api_version: str) -> bool:
    """Say whether a version of the Graph API is near its end or past it."""
    number = api_version.removeprefix("v").partition(".")[0]
    return not number.isdigit() or int(number) < OLDEST_SAFE_VERSION
