"""GA4's Measurement Protocol as a destination: web and app streams.

Invariants: GA4 answers 204 to anything, so an event that breaks one of its rules is refused here, before it is sent,
with Google's own code for the fault. An event older than 72 hours is never sent: GA4 would stamp it anew. Only a
purchase on a web stream is removed when it comes twice (by transaction_id); anything else is sent once or is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from attributary.consumers.destinations.destination import (
    Api,
    DeliveryResponse,
    HttpRequest,
    HttpResponse,
    NotSent,
    PreparedEvent,
    RequestLimits,
    ResponseClass,
    joined_remarks,
)
from attributary.consumers.destinations.ga4 import rules
from attributary.consumers.destinations.ga4.event import app_instance_id, envelope_of, event_of
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds, to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching import hash_user_data_with_remarks, usable_hashes
from attributary.producers.matching.google import HASHED_KEYS
from attributary.producers.matching.user_data import PLAIN_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.destinations.destination import Account, Conversion, Moment

HOUR = 3_600_000_000  # micros
MAX_AGE = 72 * HOUR
AGE_MARGIN = HOUR // 12  # five minutes: the event must arrive in time, not only leave

DEFAULT_BASE_URL = "https://www.google-analytics.com"
EU_BASE_URL = "https://region1.google-analytics.com"
_THROTTLE_SECONDS = 60.0
_COLLECT = "/mp/collect"
_DEBUG = "/debug/mp/collect"
# Of a body: the rest is for names and brackets around the event.
_MAX_EVENT_BYTES = rules.BODY_BYTES - 512
_PROBE_ENDING = b',"validation_behavior":"ENFORCE_RECOMMENDATIONS"}'


@dataclass(frozen=True, slots=True)
class Ga4Options:
    """How to speak to GA4.

    Attributes:
        base_url: scheme and host; `EU_BASE_URL` keeps data in the EU.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        user_data_without_answer: send user data when ad_user_data was never asked about.
        event_names: event names by conversion type, before our own; an account's own go first.
        strip_personal_data: leave out personal data in URLs and free properties.
    """

    base_url: str = DEFAULT_BASE_URL
    default_region: str | None = None
    user_data_without_answer: bool = False
    event_names: Mapping[str, str] = field(default_factory=dict)
    strip_personal_data: bool = True


class Ga4Destination:
    """The rules of GA4's Measurement Protocol.

    Args:
        options: how to speak to GA4.
        consent_purposes: what a person must have agreed to.
        events_per_request: 25 at most.
    """

    name = "ga4"
    probe_needs = ""
    probe_note = "Google checks the event here, but neither the stream's id nor the API secret: look into DebugView"
    needed_properties: tuple[str, ...] = ()
    unused_fields: tuple[str, ...] = (
        "click_ids", "opt_out", "data_processing_options", "data_processing_country", "data_processing_state",
    )  # fmt: skip

    def __init__(
        self,
        options: Ga4Options | None = None,
        *,
        consent_purposes: tuple[str, ...] = ("analytics_storage",),
        events_per_request: int = rules.EVENTS_PER_REQUEST,
    ) -> None:
        self._options = options or Ga4Options()
        self.consent_purposes = consent_purposes
        self.limits = RequestLimits(min(events_per_request, rules.EVENTS_PER_REQUEST), rules.BODY_BYTES - 1)

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        return Api("Measurement Protocol", "", None, f"{MAX_AGE // HOUR} hours")

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse what GA4 has no event for, and what is too old."""
        kind = conversion["kind"]
        if kind == "restatement":
            return NotSent(DeliveryState.SKIPPED, "GA4 has no event for a restatement", "kind")
        if kind != "conversion" and conversion["conversion_type"] != "purchase":
            return NotSent(DeliveryState.SKIPPED, "GA4 refunds purchases only", "kind")
        if moment.now - conversion["occurred_at"] > MAX_AGE - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {MAX_AGE // HOUR} hours", "occurred_at")
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event and check it against every rule of GA4, before it is encoded."""
        remarks: list[str] = []
        app = self._is_app(conversion, account, remarks)
        if not app and "measurement_id" not in account.options:
            return NotSent(DeliveryState.SKIPPED, "the account has no web stream", "ga_app_instance_id")
        conversion = self._with_hashes(conversion, remarks)
        strip = self._options.strip_personal_data
        at = min(conversion["occurred_at"], moment.received_at)
        own = conversion["conversion_type"] in account.event_names
        names = account.event_names if own else self._options.event_names
        event, more = event_of(conversion, at, names, strip=strip)
        may_send = self._may_send_user_data(conversion)
        envelope = envelope_of(conversion, more, app=app, ad_user_data=may_send, strip=strip)
        if problems := rules.check_event(event) + rules.check_envelope(envelope, app=app):
            path, code, rule = problems[0]
            others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            return NotSent(DeliveryState.REJECTED, f"{code}: {rule}{others}", path)
        remarks += more
        body, around = self._encoded(event, envelope, remarks)
        if len(body) + len(around) >= _MAX_EVENT_BYTES:
            reason = "VALUE_OUT_OF_BOUNDS: one event alone is over the body limit"
            return NotSent(DeliveryState.REJECTED, reason, "events[0]")
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            body,
            around,
            resend_safe=event["name"] == "purchase" and not app,
            match_keys=tuple(sorted(envelope.keys() - {"consent", "user_properties"})),
            remark=joined_remarks(remarks),
            name=event["name"],
            order_key=event["params"].get("transaction_id", ""),
            is_correction=event["name"] == "refund",
        )

    def _encoded(self, event: dict[str, Any], envelope: dict[str, Any], remarks: list[str]) -> tuple[bytes, bytes]:
        """Encode; lines of an order that is too large for a request are cut until it fits."""
        around = to_json(envelope)
        params = event["params"]
        while len(body := to_json(event)) + len(around) >= _MAX_EVENT_BYTES and len(params.get("items", ())) > 1:
            params["items"] = params["items"][: len(params["items"]) // 2]
            remarks.append("items cut: the event is over the body limit")
        return body, around

    def _is_app(self, conversion: Conversion, account: Account, remarks: list[str]) -> bool:
        if not conversion["ga_app_instance_id"]:
            return False
        if app_instance_id(conversion) is None:
            remarks.append("ga_app_instance_id left out: not 32 hexadecimal digits, or a placeholder")
            return False
        return "firebase_app_id" in account.options

    def _with_hashes(self, conversion: Conversion, remarks: list[str]) -> Conversion:
        given = conversion["user_data"]
        if not given:
            return conversion
        region = self._options.default_region
        if any(given[field] for field in PLAIN_FIELDS):
            hashed, left_out = hash_user_data_with_remarks(given, default_region=region, keep_location=True)
            remarks += left_out["google"]
            given = hashed
        hashes, more = usable_hashes(given["google_hashes"], HASHED_KEYS)
        remarks += more
        return conversion | {"user_data": given | {"google_hashes": hashes}}

    def _may_send_user_data(self, conversion: Conversion) -> bool:
        answer = (conversion["consent"] or {}).get("ad_user_data")
        return self._options.user_data_without_answer if answer is None else answer

    def redelivery_ends(self, first_sent_at: int) -> int | None:  # noqa: ARG002  # the protocol's
        """GA4 names no time within which it removes a second purchase; the age limit stands."""
        return None

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; GA4 takes its secret in the URL only."""
        return HttpRequest(self._url(_COLLECT, account, batch[0]), _body(batch, b"}"))

    def _url(self, path: str, account: Account, event: PreparedEvent) -> str:
        app = event.envelope.startswith(b'{"app_instance_id"')
        stream = "firebase_app_id" if app else "measurement_id"
        query = {stream: account.options[stream], "api_secret": account.secret}
        return f"{self._options.base_url}{path}?{urlencode(query)}"

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:  # noqa: ARG002  # the protocol's
        """Say what the answer means: any 2xx is all that GA4 ever says of an event."""
        status = response.status
        if status == 0:
            response_class = ResponseClass.AMBIGUOUS if response.perhaps_sent else ResponseClass.RETRY
            return DeliveryResponse(response_class, f"0/{response.fault}", f"no answer: {response.fault}")
        wait = retry_after_seconds(response.headers)
        if 200 <= status < 300:
            return DeliveryResponse(ResponseClass.DELIVERED, str(status), wait_seconds=wait)
        if status == 429:
            return DeliveryResponse(ResponseClass.THROTTLED, "429", "rate limit", wait or _THROTTLE_SECONDS)
        if status >= 500 or status == 408:
            return DeliveryResponse(ResponseClass.RETRY, str(status), "server error", wait)
        if status in {401, 403, 404, 407} or 300 <= status < 400:
            return DeliveryResponse(
                ResponseClass.ACCOUNT_STOPPED, str(status), "the address or the credentials are wrong"
            )
        return DeliveryResponse(ResponseClass.REJECTED, str(status), "refused by GA4")

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request to Google's validation endpoint, which records nothing."""
        return HttpRequest(self._url(_DEBUG, account, event), _body([event], _PROBE_ENDING))

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means: a 200 holds what Google would drop the event for."""
        answer = self.classify(response, 1)
        if answer.response_class is not ResponseClass.DELIVERED:
            return answer
        document: Any = from_json(response.body) if response.is_complete else None
        if response.status != 200 or not isinstance(document, dict):
            reason = "the answer cannot be read"
            return DeliveryResponse(ResponseClass.AMBIGUOUS, f"{response.status}/unreadable", reason)
        if found := self.findings(response):
            codes = "/".join(code for code in found[:3] if code.isascii() and code.replace("_", "").isalnum())
            return DeliveryResponse(ResponseClass.REJECTED, f"200/{codes}", "GA4 would drop the event")
        return answer

    def findings(self, response: HttpResponse) -> list[str]:
        """Read Google's validation messages: codes and paths, not descriptions, which quote values."""
        document: Any = from_json(response.body) if response.status == 200 else None
        messages = document.get("validationMessages") if isinstance(document, dict) else None
        if not isinstance(messages, list):
            return []
        found = (message for message in messages if isinstance(message, dict))
        return [f"{message.get('validationCode')}" for message in found]


def _body(batch: Sequence[PreparedEvent], ending: bytes) -> bytes:
    events = b",".join(event.body for event in batch)
    return batch[0].envelope[:-1] + b',"events":[' + events + b"]" + ending
