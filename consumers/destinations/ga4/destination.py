"""GA4's Measurement Protocol as a destination: web and app streams.

Invariants: GA4 answers 204 to anything, so an event that breaks one of its rules is refused here, before it is sent,
with Google's own code for the fault. An event older than 72 hours is never sent: GA4 would stamp it anew. Only a
purchase on a web stream is removed when it comes twice (by transaction_id); anything else is sent once or is uncertain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from attributary.consumers.destinations.destination import (
    DeliveryResponse,
    HttpRequest,
    HttpResponse,
    NotSent,
    PreparedEvent,
    RequestLimits,
    ResponseClass,
)
from attributary.consumers.destinations.ga4 import rules
from attributary.consumers.destinations.ga4.event import envelope_of, event_of
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds, to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching import hash_user_data
from attributary.producers.matching.user_data import PLAIN_FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.destinations.destination import Account, Conversion, Moment

HOUR = 3_600_000_000  # micros
MAX_AGE = 72 * HOUR
AGE_MARGIN = HOUR // 12  # five minutes: the event must arrive in time, not only leave

DEFAULT_BASE_URL = "https://www.google-analytics.com"
EU_BASE_URL = "https://region1.google-analytics.com"
_THROTTLE_SECONDS = 60.0
_COLLECT = "/mp/collect"
_DEBUG = "/debug/mp/collect"
_PROBE_ENDING = b',"validation_behavior":"ENFORCE_RECOMMENDATIONS"}'


@dataclass(frozen=True, slots=True)
class Ga4Options:
    """How to speak to GA4.

    Attributes:
        base_url: scheme and host; `EU_BASE_URL` keeps data in the EU.
        default_region: ISO 3166-1 alpha-2 code for phone numbers without country code.
        user_data_without_answer: send user data when ad_user_data was never asked about.
    """

    base_url: str = DEFAULT_BASE_URL
    default_region: str | None = None
    user_data_without_answer: bool = False


class Ga4Destination:
    """The rules of GA4's Measurement Protocol.

    Args:
        options: how to speak to GA4.
        consent_purposes: what a person must have agreed to.
        events_per_request: 25 at most.
    """

    name = "ga4"

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
        """Build the event and check it against every rule of GA4."""
        app = self._is_app(conversion, account)
        if not app and "measurement_id" not in account.options:
            return NotSent(DeliveryState.SKIPPED, "the account has no web stream", "ga_app_instance_id")
        conversion = self._with_hashes(conversion)
        event, remarks = event_of(conversion, min(conversion["occurred_at"], moment.received_at))
        envelope = envelope_of(conversion, app=app, ad_user_data=self._may_send_user_data(conversion))
        problems = rules.check_event(event) + rules.check_envelope(envelope, app=app)
        body, around = to_json(event), to_json(envelope)
        if len(body) + len(around) >= rules.BODY_BYTES - 512:
            problems.append(rules.Problem("events[0]", "VALUE_OUT_OF_BOUNDS", "one event alone is over the body limit"))
        if problems:
            path, code, rule = problems[0]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            return NotSent(DeliveryState.REJECTED, f"{code}: {rule}{more}", path)
        return PreparedEvent(
            conversion["event_id"],
            conversion["occurred_at"],
            body,
            around,
            resend_safe=event["name"] == "purchase" and not app,
            match_keys=tuple(sorted(envelope.keys() - {"consent", "user_properties"})),
            remark="; ".join(dict.fromkeys(remarks)) or None,
        )

    def _is_app(self, conversion: Conversion, account: Account) -> bool:
        return bool(conversion["ga_app_instance_id"]) and "firebase_app_id" in account.options

    def _with_hashes(self, conversion: Conversion) -> Conversion:
        given = conversion["user_data"]
        if not given or not any(given[field] for field in PLAIN_FIELDS):
            return conversion
        hashed = hash_user_data(given, default_region=self._options.default_region, keep_location=True)
        return conversion | {"user_data": hashed}

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
