"""Google's Data Manager API as a destination.

Invariants: a conversion goes to the action that the tenant has named for its type, and to none otherwise; a second copy
with the same transaction id changes nothing at Google Ads, so it may be sent again after a lost answer. What is known
to make Google refuse a request is found before it is sent. Bounds: 2,000 events a request, all of one conversion
action; 90 days of age (not confirmed), for Analytics 72 hours. "Received" is not "accepted"; `status_request` asks.

Corrections at Google Ads are the same transaction id with a new total; only a restatement and a cancellation say one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from attributary.consumers.destinations import request_budget
from attributary.consumers.destinations.ad_platform import (
    AGE_MARGIN,
    DAY,
    META_PRIVACY_FIELDS,
    SECOND,
    AdPlatform,
    event_time,
    json_list,
)
from attributary.consumers.destinations.destination import (
    DeliveryResponse,
    HttpRequest,
    NotSent,
    PreparedEvent,
    ResponseClass,
)
from attributary.consumers.destinations.ga4 import rules
from attributary.consumers.destinations.ga4.event import app_instance_id, transaction_id
from attributary.consumers.destinations.google import responses
from attributary.consumers.destinations.google.event import ads_event, analytics_event, fitted
from attributary.consumers.destinations.match_keys import match_keys
from attributary.consumers.destinations.oauth2.service_account import ServiceAccountGrant
from attributary.consumers.destinations.request_budget import MINUTE, RateBudget, RateLimit
from attributary.consumers.destinations.wire_format import from_json, to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching.text import sha256_hex

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.destinations.destination import (
        Account,
        Conversion,
        HttpResponse,
        Moment,
        RequestStatus,
    )
    from attributary.consumers.destinations.oauth2.grants import Grant

SCOPE = "https://www.googleapis.com/auth/datamanager"
_PATH = "/events:ingest"
_ANALYTICS_AGE = 72 * 3_600 * SECOND  # as with the Measurement Protocol
_LIMITS = (RateLimit(300, MINUTE), RateLimit(100_000, request_budget.DAY))


class GoogleDestination(AdPlatform):
    """The rules of the Data Manager API."""

    name = "google"
    title = "Google"
    api_name = "Data Manager API"
    api_version = "v1"
    base_url = "https://datamanager.googleapis.com"
    token_url = "https://oauth2.googleapis.com/token"  # noqa: S105  # an address
    max_events = 2_000
    max_body_bytes = 4_000_000  # none is documented; an event takes about 700
    max_age = 90 * DAY
    duplicates_removed_for = 90 * DAY
    verdict_after_seconds = 1_800
    unused_fields: tuple[str, ...] = (
        "opt_out",
        "data_processing_options",
        *META_PRIVACY_FIELDS,
        "ga_app_instance_id",
    )

    def grant(self, account: Account) -> Grant:
        """Return how to get an access token: with the key of a service account, or a user's refresh token."""
        if by_user := self.refresh_token_grant(account):
            return by_user
        key = from_json(account.secret.encode())
        fields: Mapping[str, Any] = key if isinstance(key, dict) else {}
        url = self._options.token_url or fields.get("token_uri") or self.token_url
        return ServiceAccountGrant(
            url,
            str(fields.get("client_email", "")),
            str(fields.get("private_key", "")),
            str(fields.get("private_key_id", "")),
            SCOPE,
            fields.get("token_uri") or self.token_url,
        )

    def budget(self, account: Account) -> RateBudget:
        """Return the budget of the Cloud project that is charged, whatever accounts use it."""
        project = account.options.get("project_id")
        if not project:
            key = from_json(account.secret.encode())
            given = key.get("project_id") if isinstance(key, dict) else None
            project = given if isinstance(given, str) and given else account.secret_fingerprint
        return RateBudget(project, f"the Cloud project {project}", _LIMITS)

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse events past their age; kinds are the account's affair."""
        if moment.now - conversion["occurred_at"] > self.max_age - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {self.max_age // DAY} days", "occurred_at")
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event: of the conversion action of its type, or of the Analytics stream."""
        if "customer_id" in account.options:
            return self._ads(conversion, account, moment)
        return self._analytics(conversion, account, moment)

    def types_named(self, name: str, account: Account) -> tuple[str, ...]:
        """As of every ad platform; an event name of Analytics stands in no setting, and is never named no more."""
        return super().types_named(name, account) or (() if name.isdigit() else (name,))

    def _ads(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        kind = conversion["kind"]
        if kind == "refund":
            reason = "Google takes a new total, which a refund does not say: publish a restatement or a cancellation"
            return NotSent(DeliveryState.SKIPPED, reason, "kind")
        if kind not in {"conversion", "cancellation", "restatement"}:
            return NotSent(DeliveryState.SKIPPED, f"Google has no event for a {kind}", "kind")
        action = self.own_name(conversion, account)
        if not action or not action.isdigit():
            reason = "no conversion action is set for this conversion type: FORWARD_GOOGLE_ACTIONS"
            return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
        remarks: list[str] = []
        keys = match_keys(conversion, self._options.default_region, remarks)
        order = transaction_id(conversion)
        if not fitted(order):
            order = sha256_hex(order)
            remarks.append("the transaction id is too long: its SHA-256 is sent")
        event = ads_event(conversion, event_time(conversion, moment), order, keys, remarks)
        found = _identifiers(event)
        if not found:
            reason = "too few match keys: Google needs an e-mail address, a phone number or a click id"
            return NotSent(DeliveryState.SKIPPED, reason, "user_data")
        self.free_properties(conversion, remarks)
        prepared = self.prepared(
            conversion, event, action, found, remarks, envelope=to_json(self._place(account, action))
        )
        return self._tied(prepared, f"{action}\0{order}", is_correction=kind != "conversion")

    def _analytics(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        kind = conversion["kind"]
        if kind == "restatement":
            return NotSent(DeliveryState.SKIPPED, "Google Analytics has no event for a restatement", "kind")
        if kind != "conversion" and conversion["conversion_type"] != "purchase":
            return NotSent(DeliveryState.SKIPPED, "Google Analytics refunds purchases only", "kind")
        if moment.now - conversion["occurred_at"] > _ANALYTICS_AGE - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, "older than 72 hours", "occurred_at")
        if app_instance_id(conversion):
            reason = "an app event, and the account is a web stream: the destination ga4 takes it"
            return NotSent(DeliveryState.SKIPPED, reason, "ga_app_instance_id")
        found: list[str] = []
        keys = match_keys(conversion, self._options.default_region, found)
        names = dict(self._options.event_names) | dict(account.event_names)
        names = {each: name for each, name in names.items() if not name.isdigit()}
        strip = self._options.strip_personal_data
        event, remarks = analytics_event(conversion, event_time(conversion, moment), names, keys, strip=strip)
        name = event["eventName"]
        if not rules.is_name(name) or rules.is_reserved(name, rules.RESERVED_EVENTS):
            reason = "the event name is not one that Google Analytics takes"
            return NotSent(DeliveryState.REJECTED, reason, "conversion_type")
        envelope = to_json(self._place(account, account.options.get("measurement_id", "")))
        known = {"clientId", *_identifiers(event)}
        prepared = self.prepared(conversion, event, name, known, [*found, *remarks], envelope=envelope)
        tied = self._tied(prepared, event.get("transactionId", ""), is_correction=name == "refund")
        # Analytics removes a second copy of a purchase only.
        return tied if name == "purchase" else replace(tied, resend_safe=False)

    @staticmethod
    def _tied(prepared: PreparedEvent, order_key: str, *, is_correction: bool) -> PreparedEvent:
        """Return an event that is sent after the one that it corrects."""
        return replace(prepared, order_key=order_key, is_correction=is_correction)

    def _place(self, account: Account, entity: str) -> dict[str, Any]:
        """Return the destination of a request, in Google's sense."""
        if "customer_id" in account.options:
            kind, number = "GOOGLE_ADS", account.options["customer_id"].replace("-", "")
        else:
            kind, number = "GOOGLE_ANALYTICS_PROPERTY", account.options["analytics_property_id"]
        place: dict[str, Any] = {"operatingAccount": {"accountType": kind, "accountId": number}}
        if manager := account.options.get("login_customer_id"):
            place["loginAccount"] = {"accountType": "GOOGLE_ADS", "accountId": manager.replace("-", "")}
        return place | {"productDestinationId": entity}

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        opening = b'{"destinations":[' + batch[0].envelope + b'],"encoding":"HEX","events":['
        return self._called(account, f"{self._base_url}/{self._version}{_PATH}", json_list(opening, batch, b"]}"))

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request that Google checks without taking the event."""
        opening = b'{"validateOnly":true,"destinations":[' + event.envelope + b'],"encoding":"HEX","events":['
        return self._called(account, f"{self._base_url}/{self._version}{_PATH}", json_list(opening, [event], b"]}"))

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means: Google returns errors only, so a good answer may have no request id."""
        if response.status == 200 and response.is_complete and isinstance(from_json(response.body), dict):
            return DeliveryResponse(ResponseClass.DELIVERED, "200")
        return self.classify(response, 1)

    def status_request(self, account: Account, request_id: str) -> HttpRequest:
        """Build the question what became of a request."""
        url = f"{self._base_url}/{self._version}/requestStatus:retrieve?requestId={quote(request_id, safe='')}"
        return replace(self._called(account, url, b""), method="GET")

    def read_status(self, response: HttpResponse) -> RequestStatus | None:
        """Say what became of a request; None when the answer does not tell."""
        return responses.read_status(response)

    def _called(self, account: Account, url: str, body: bytes) -> HttpRequest:
        headers = {"authorization": f"Bearer {account.secret}"}
        if project := account.options.get("project_id"):
            headers["x-goog-user-project"] = project
        return HttpRequest(url, body, headers)

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _identifiers(event: Mapping[str, Any]) -> set[str]:
    """Return what could recognise a person: names of fields."""
    given: Sequence[Mapping[str, Any]] = event.get("userData", {}).get("userIdentifiers", ())
    return {name for each in given for name in each} | set(event.get("adIdentifiers", ()))
