"""What Microsoft's Campaign Management API answers: items that it names by position, and faults of the whole request.

Contract: `classify` and `read_goals` never raise, whatever the body. A 200 takes all items but those that its
PartialErrors name; of any other answer nothing is taken. Codes go before HTTP status. Messages and details quote the
item, so none is kept; of error codes only words are. Sources: Microsoft, BatchError, AdApiFaultDetail, ApiFaultDetail,
Operation Error Codes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.consumers.destinations.answers import THROTTLE_SECONDS, by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from attributary.consumers.destinations.destination import HttpResponse

_R = ResponseClass
_WORD = re.compile(r"[A-Za-z]{3,80}")
_PREFIX = "CampaignService"
_FAULTS = ("Errors", "OperationErrors", "BatchErrors")
_GOOD_FIELDS = frozenset(("PartialErrors", "TrackingId"))
_MAX_ERRORS = 10_000

_NO_RIGHT = "the user has no right to this account: look at BINGADS_CUSTOMER_ID and BINGADS_ACCOUNT_ID"
_OF_REQUEST: Mapping[int | str, tuple[ResponseClass, str]] = {
    0: (_R.RETRY, "temporary error"),
    105: (_R.ACCOUNT_STOPPED, "the developer token or the access token is not valid"),
    106: (_R.ACCOUNT_STOPPED, _NO_RIGHT),
    108: (_R.ACCOUNT_STOPPED, "Microsoft has locked the user: sign in and set a new password"),
    109: (_R.ACCOUNT_STOPPED, "Microsoft refuses the access token"),
    116: (_R.ACCOUNT_STOPPED, "a header is missing: BINGADS_DEVELOPER_TOKEN, BINGADS_CUSTOMER_ID, BINGADS_ACCOUNT_ID"),
    117: (_R.THROTTLED, "too many calls in a minute"),
    120: (_R.ACCOUNT_STOPPED, "Microsoft refuses the user: authorise again with the user's main login"),
    122: (_R.ACCOUNT_STOPPED, "Microsoft wants a work account: authorise again"),
    207: (_R.THROTTLED, "too many calls at once"),
}
"""Faults by their numeric code."""
_INTERNAL = "InternalError"
_TOO_NEW = "OfflineConversionGoalTooRecent"
_TOO_NEW_SECONDS = 2 * 3_600.0
_OF_GOAL: Mapping[str, str] = {
    "OfflineConversionNameInvalid": "the conversion goal does not exist: FORWARD_BINGADS_GOALS",
    _TOO_NEW: "the conversion goal is too new: it takes conversions after two hours",
}
"""What concerns the goal, so every event of it."""
_OF_ITEM: Mapping[str, str] = {
    "OfflineConversionNameNullOrEmpty": "the conversion goal is missing",
    "NotEligibleForEnhancedConversions": "the goal takes no e-mail addresses and phone numbers: turn enhanced "
    "conversions on",
    "ConversionEmailAddressIsNotHashed": "a hash is none",
    "ConversionPhoneNumberIsNotHashed": "a hash is none",
    "OfflineConversionMSClickIdNullOrEmpty": "the click id is missing",
    "OfflineConversionMSClickIdInvalid": "the click id is none",
    "OfflineConversionValueInvalid": "the value is refused",
    "OfflineConversionCurrencyCodeInvalid": "the currency is refused",
    "FutureConversionTimeCannotBeSet": "the time lies ahead",
    "OfflineConversionTimeOutOfWindow": "the conversion is too old",
    "ConversionTimeEarlierThanClickTime": "the conversion is older than its click",
    "ClickIdDateTimeOutsideGoalConversionWindow": "the click is older than the goal's conversion window",
    "OfflineConversionRestateRetractNotSupported": "the goal takes no corrections",
    "OfflineConversionAdjustmentTimeOutOfWindow": "the correction is too late",
}


class _Error(NamedTuple):
    """One error of an answer: its numeric code (-1: none), its word (empty: none), the position of its item."""

    number: int
    word: str
    place: int | None


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many items means."""
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict) or response.status == 0:
        return by_status(response, "Microsoft")
    faults = [error for name in _FAULTS for error in _errors(document.get(name), events)]
    if faults or response.status != 200:
        return _refusal(response, document, faults, events)
    partial = document.get("PartialErrors")
    if document.keys() - _GOOD_FIELDS or not (partial is None or isinstance(partial, list)):
        return by_status(response, "Microsoft")
    return _taken(response, document, list(_errors(partial, events)), events)


def _taken(response: HttpResponse, document: Mapping[str, Any], errors: list[_Error], events: int) -> DeliveryResponse:
    """Judge a 200: what is not named was taken."""
    wait, trace = retry_after_seconds(response.headers), _trace(response, document)
    if not errors:
        return DeliveryResponse(_R.DELIVERED, "200", trace_id=trace)
    named = {error.place: error for error in errors if error.place is not None}
    if events == 1:
        named = {0: errors[0]}  # there is no other that it could mean
    first = next(iter(named.values()), errors[0])
    code = f"200/{first.word}" if first.word else "200/refused"
    if later := [error for error in errors if error.number == 0 or error.word == _INTERNAL]:
        # Beside others that were taken no answer says "these later": the copies are removed by the platform.
        kind = _R.RETRY if len(named) == events and len(later) == len(errors) else _R.AMBIGUOUS
        return DeliveryResponse(kind, f"200/{_INTERNAL}", "temporary error", wait, trace)
    if events > 1 and len(named) < len({error.place for error in errors}):
        return DeliveryResponse(_R.AMBIGUOUS, "200/partial", "an error names no event", wait, trace)
    stops = {place: _OF_GOAL[error.word] for place, error in named.items() if error.word in _OF_GOAL}
    wait = max(wait, _TOO_NEW_SECONDS) if any(error.word == _TOO_NEW for error in named.values()) else wait
    if len(stops) == events:  # all of a request have one goal
        return DeliveryResponse(_R.NAME_STOPPED, code, stops[0], wait, trace)
    refused = tuple(sorted(named.keys() - stops.keys()))
    if len(named) == events:
        # Nothing was taken. Those with a goal that stops come again alone.
        return DeliveryResponse(_R.REJECTED, code, _reason(errors), wait, trace, refused=refused if events > 1 else ())
    return DeliveryResponse(_R.DELIVERED, code, _reason(errors), wait, trace, refused=refused, unknown_names=stops)


def _refusal(
    response: HttpResponse, document: Mapping[str, Any], errors: list[_Error], events: int
) -> DeliveryResponse:
    """Judge an answer that takes nothing."""
    trace = _trace(response, document)
    for error in errors:
        if found := _OF_REQUEST.get(error.number):
            kind, reason = found
            wait = retry_after_seconds(response.headers) or (THROTTLE_SECONDS if kind is _R.THROTTLED else 0.0)
            return DeliveryResponse(kind, f"{response.status}/{error.number}", reason, wait, trace)
        if reason := _OF_GOAL.get(error.word, ""):
            wait = _TOO_NEW_SECONDS if error.word == _TOO_NEW else 0.0
            return DeliveryResponse(_R.NAME_STOPPED, f"{response.status}/{error.word}", reason, wait, trace)
    named = tuple(sorted({error.place for error in errors if error.place is not None}))
    by_http = by_status(response, "Microsoft")
    if response.status != 200 and by_http.response_class is not _R.REJECTED:
        return DeliveryResponse(by_http.response_class, by_http.code, by_http.reason, by_http.wait_seconds, trace)
    word = next((error.word for error in errors if error.word), "")
    code = f"{response.status}/{word}" if word else str(response.status)
    return DeliveryResponse(_R.REJECTED, code, _reason(errors), 0.0, trace, refused=named if events > 1 else ())


def read_goals(response: HttpResponse) -> DeliveryResponse:
    """Say what the list of an account's offline goals means; rejected: there is none."""
    document: Any = from_json(response.body) if response.is_complete else None
    goals = document.get("ConversionGoals") if isinstance(document, dict) else None
    if response.status != 200 or not isinstance(goals, list):
        return classify(response, 1)
    if not any(isinstance(goal, dict) for goal in goals):
        return DeliveryResponse(_R.REJECTED, "200", "the account has no goal for offline conversions")
    return DeliveryResponse(_R.DELIVERED, "200")


def _errors(given: Any, events: int) -> Iterator[_Error]:
    for each in given[:_MAX_ERRORS] if isinstance(given, list) else ():
        if not isinstance(each, dict):
            continue
        number, word, index = each.get("Code"), each.get("ErrorCode"), each.get("Index")
        is_placed = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < events
        yield _Error(
            number if isinstance(number, int) and not isinstance(number, bool) else -1,
            word.removeprefix(_PREFIX) if isinstance(word, str) and _WORD.fullmatch(word) else "",
            index if is_placed else None,
        )


def _reason(errors: Iterable[_Error]) -> str:
    known = (_OF_ITEM[error.word] for error in errors if error.word in _OF_ITEM)
    return next(known, "refused by Microsoft")


def _trace(response: HttpResponse, document: Mapping[str, Any]) -> str | None:
    text = document.get("TrackingId") or response.headers.get("trackingid")
    is_good = isinstance(text, str) and 0 < len(text) <= 200 and text.isascii() and text.isprintable()
    return text if is_good else None
