"""Microsoft Advertising's offline conversions (Campaign Management API v13, REST) as a destination.

Invariants: a conversion goes to the offline goal that the tenant has named for its type, and to none otherwise; the
goal stands in the envelope, so a wrong one costs its own requests and stops its own type. Microsoft counts the first
of several conversions with one click id, goal and time, so an event with a click id may be sent again after a lost
answer; of one that only hashes recognise nothing of the kind is documented, so it is not. Bounds: 1,000 items a
request; 90 days.

Corrections: a restatement and a cancellation adjust the conversion that they correct. An offline conversion is known by
its click id (or hashes), goal and time, so the correction must say that time; one of a UET goal by its transaction id.
Times go as whole seconds, for a correction says them so. Sources: Microsoft, OfflineConversion,
OfflineConversionAdjustment and OnlineConversionAdjustment, Campaign Management API v13.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ad_platform import (
    AGE_MARGIN,
    DAY,
    GOOGLE_FIELDS,
    META_PRIVACY_FIELDS,
    SECOND,
    AdPlatform,
    event_time,
    json_list,
)
from attributary.consumers.destinations.bingads import responses
from attributary.consumers.destinations.destination import HttpRequest, NotSent, PreparedEvent
from attributary.consumers.destinations.match_keys import click_id, match_keys
from attributary.consumers.destinations.wire_format import amount, from_json, rfc3339, to_json
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
    from attributary.consumers.destinations.oauth2.grants import Grant

UET_GOAL = "uet:"
"""How the name of a goal begins whose conversions go by UET: only their corrections go here."""
SCOPE = "https://ads.microsoft.com/msads.manage offline_access"
_CONVERSIONS, _ADJUSTMENTS, _ONLINE_ADJUSTMENTS = (
    "OfflineConversions",
    "OfflineConversionAdjustments",
    "OnlineConversionAdjustments",
)
_GOALS_PATH = "ConversionGoals/QueryByIds"
_GOALS = {"ConversionGoalIds": None, "ConversionGoalTypes": "OfflineConversion"}
_ORIGINAL_TIME = "original_event.event_time"  # Unix seconds; the property that Meta's original_event_data has
_MAX_SECONDS_DIGITS = 11
_RESTATE, _RETRACT = "Restate", "Retract"
_KINDS = {"restatement": _RESTATE, "cancellation": _RETRACT}


class BingAdsDestination(AdPlatform):
    """The rules of Microsoft's offline conversions."""

    name = "bingads"
    title = "Microsoft"
    api_name = "Campaign Management API"
    api_version = "v13"
    base_url = "https://campaign.api.bingads.microsoft.com"
    token_url = "https://login.microsoftonline.com/common/oauth2/v2.0/token"  # noqa: S105  # an address
    max_age = 90 * DAY
    duplicates_removed_for = 90 * DAY
    needed_properties: tuple[str, ...] = (_ORIGINAL_TIME,)
    unused_fields: tuple[str, ...] = (
        "items",
        "event_source_url",
        "referrer",
        "client_ip_address",
        "client_user_agent",
        *GOOGLE_FIELDS,
        "anonymous_id",
        "user_id",
        "opt_out",
        "data_processing_options",
        *META_PRIVACY_FIELDS,
    )
    probe_note = "Microsoft lists the account's offline goals; their names are not compared with FORWARD_BINGADS_GOALS"

    def grant(self, account: Account) -> Grant | None:
        """Return how to get an access token: with the refresh token of a user; Microsoft replaces it at each use."""
        return self.refresh_token_grant(account, SCOPE)

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse kinds without a counterpart, and events past their age."""
        kind = conversion["kind"]
        if kind == "refund":
            reason = "Microsoft takes a new total, which a refund does not say: publish a restatement or a cancellation"
            return NotSent(DeliveryState.SKIPPED, reason, "kind")
        if kind != "conversion" and kind not in _KINDS:
            return NotSent(DeliveryState.SKIPPED, f"Microsoft has no event for a {kind}", "kind")
        return self._too_old(conversion["occurred_at"], moment, "occurred_at")

    def _too_old(self, at: int, moment: Moment, field: str) -> NotSent | None:
        if moment.now - at > self.max_age - AGE_MARGIN:
            return NotSent(DeliveryState.EXPIRED, f"older than {self.max_age // DAY} days", field)
        return None

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the conversion of the goal of its type, or the adjustment of one."""
        goal = self.own_name(conversion, account)
        if not goal:
            reason = "no conversion goal is set for this conversion type: FORWARD_BINGADS_GOALS"
            return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
        is_correction = conversion["kind"] != "conversion"
        if goal.startswith(UET_GOAL):
            if not is_correction:
                reason = "its conversions go by the destination microsoft; only corrections go here"
                return NotSent(DeliveryState.SKIPPED, reason, "conversion_type")
            return self._online_adjustment(conversion, goal, moment)
        remarks: list[str] = []
        person = self._person(conversion, remarks)
        if not person:
            reason = "too few match keys: Microsoft needs msclkid, an e-mail address or a phone number"
            return NotSent(DeliveryState.SKIPPED, reason, "user_data")
        if is_correction:
            return self._adjustment(conversion, goal, person, moment, remarks)
        event = {"ConversionName": goal, "ConversionTime": _seconds(event_time(conversion, moment)), **person}
        if conversion["currency"] != "XXX":
            event |= {
                "ConversionValue": amount(conversion["value_micros"]),
                "ConversionCurrencyCode": conversion["currency"],
            }
        return self._prepared(conversion, goal, _CONVERSIONS, event, person, remarks)

    def _person(self, conversion: Conversion, remarks: list[str]) -> dict[str, Any]:
        """Return what recognises a person: the click, and two hashes under Microsoft's rules."""
        keys = match_keys(conversion, self._options.default_region, remarks)
        found = {
            "MicrosoftClickId": click_id(conversion, "msclkid"),
            "HashedEmailAddress": next(iter(keys.bare_emails), None),
            "HashedPhoneNumber": next(iter(keys.phones), None),
        }
        return {name: value for name, value in found.items() if value}

    def _adjustment(
        self, conversion: Conversion, goal: str, person: Mapping[str, Any], moment: Moment, remarks: list[str]
    ) -> PreparedEvent | NotSent:
        """Build the adjustment of an offline conversion."""
        text = conversion["properties"].get(_ORIGINAL_TIME, "")
        if not (text.isascii() and text.isdigit() and len(text) <= _MAX_SECONDS_DIGITS):
            reason = f"Microsoft wants the time of what is corrected: give the property {_ORIGINAL_TIME}, in seconds"
            return NotSent(DeliveryState.SKIPPED, reason, "properties")
        original = int(text) * SECOND
        if original > moment.now:
            return NotSent(DeliveryState.SKIPPED, "the time of what is corrected lies ahead", "properties")
        if expired := self._too_old(original, moment, "properties"):
            return expired
        # Microsoft takes no adjustment from before its conversion.
        event = {
            "ConversionName": goal,
            "ConversionTime": _seconds(original),
            **person,
            **_correction(conversion, max(original, event_time(conversion, moment))),
        }
        return self._prepared(conversion, goal, _ADJUSTMENTS, event, person, remarks)

    def _online_adjustment(self, conversion: Conversion, goal: str, moment: Moment) -> PreparedEvent | NotSent:
        """Build the adjustment of a conversion that UET has: it is known by its transaction id."""
        if not (order_id := conversion["order_id"]):
            reason = "Microsoft knows a conversion of UET by its transaction id: give the correction its order_id"
            return NotSent(DeliveryState.SKIPPED, reason, "order_id")
        event = {
            "ConversionName": goal.removeprefix(UET_GOAL),
            "TransactionId": order_id,
            **_correction(conversion, event_time(conversion, moment)),
        }
        return self._prepared(conversion, goal, _ONLINE_ADJUSTMENTS, event, ("TransactionId",), [])

    def _prepared(
        self,
        conversion: Conversion,
        goal: str,
        operation: str,
        event: Mapping[str, Any],
        match_keys: Mapping[str, Any] | Sequence[str],
        remarks: list[str],
    ) -> PreparedEvent:
        self.free_properties(conversion, remarks)
        envelope = to_json({"operation": operation, "goal": goal})
        made = self.prepared(conversion, event, goal, match_keys, remarks, envelope=envelope)
        corrected = conversion["conversion_id"] or conversion["event_id"]
        return replace(
            made,
            # An adjustment sets a total, or takes the conversion away: twice is the same as once.
            resend_safe=operation != _CONVERSIONS or "MicrosoftClickId" in event,
            order_key=f"{goal}\0{corrected}",
            is_correction=operation != _CONVERSIONS,
        )

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request; the body is what `forward --dry-run` prints."""
        operation: str = from_json(batch[0].envelope)["operation"]
        return self._called(account, f"{operation}/Apply", json_list(f'{{"{operation}":['.encode(), batch, b"]}"))

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:  # noqa: ARG002  # the protocol's
        """Give a request that only reads: the account's offline goals."""
        return self._called(account, _GOALS_PATH, to_json(_GOALS))

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means: an account without an offline goal takes nothing."""
        return responses.read_goals(response)

    def _called(self, account: Account, path: str, body: bytes) -> HttpRequest:
        headers = {
            "authorization": f"Bearer {account.secret}",
            "developertoken": account.options.get("developer_token", ""),
            "customerid": account.options.get("customer_id", ""),
            "customeraccountid": account.account_id,
        }
        return HttpRequest(f"{self._base_url}/CampaignManagement/{self._version}/{path}", body, headers)

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer means."""
        return responses.classify(response, events)


def _correction(conversion: Conversion, at: int) -> dict[str, Any]:
    """Return the parts of an adjustment that say what changes; at: microseconds."""
    kind = _KINDS[conversion["kind"]]
    found: dict[str, Any] = {"AdjustmentType": kind, "AdjustmentTime": _seconds(at)}
    if kind == _RESTATE:
        found["AdjustmentValue"] = amount(conversion["value_micros"])
        if conversion["currency"] != "XXX":
            found["AdjustmentCurrencyCode"] = conversion["currency"]
    return found


def _seconds(micros: int) -> str:
    """Return a time in UTC without fractions of a second."""
    return rfc3339(micros - micros % SECOND)
