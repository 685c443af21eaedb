"""What the Data Manager API answers: what it received, which events a refusal names, what became of a request later.

Contract: `classify` and `read_status` never raise, whatever the body. Google's texts are never kept: they may quote the
event. A refusal names fields with the event's position; then nothing was taken. Source: Data Manager API v1,
events.ingest, requestStatus.retrieve and ErrorReason; google.rpc.BadRequest.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import THROTTLE_SECONDS, by_status
from attributary.consumers.destinations.destination import DeliveryResponse, RequestStatus, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from attributary.consumers.destinations.destination import HttpResponse

_R = ResponseClass
_EVENT = re.compile(r"\bevents\[(\d{1,5})\]")
_WORD = re.compile(r"[A-Z][A-Z0-9_]{2,90}")
_MAX_DETAILS = 50
_MAX_VIOLATIONS = 5_000
_PREFIXES = ("PROCESSING_ERROR_REASON_", "PROCESSING_WARNING_REASON_", "PROCESSING_ERROR_")

_NO_RIGHT = "the account or the conversion action cannot be reached with these credentials"
_TERMS = "the account has not agreed to Google's terms for this data"
REASONS: Mapping[str, tuple[ResponseClass, str]] = {
    "INTERNAL_ERROR": (_R.RETRY, "temporary error"),
    "DEADLINE_EXCEEDED": (_R.RETRY, "temporary error"),
    "UNAVAILABLE": (_R.RETRY, "temporary error"),
    "RESOURCE_EXHAUSTED": (_R.THROTTLED, "the quota of the Cloud project is used up"),
    "NOT_FOUND": (_R.ACCOUNT_STOPPED, _NO_RIGHT),
    "PERMISSION_DENIED": (_R.ACCOUNT_STOPPED, _NO_RIGHT),
    "NOT_ALLOWLISTED": (_R.ACCOUNT_STOPPED, "Google has not admitted this account to the API"),
    "TERMS_AND_CONDITIONS_NOT_SIGNED": (_R.ACCOUNT_STOPPED, _TERMS),
    "DESTINATION_ACCOUNT_ENHANCED_CONVERSIONS_TERMS_NOT_SIGNED": (_R.ACCOUNT_STOPPED, _TERMS),
    "DESTINATION_ACCOUNT_NOT_ENABLED_ENHANCED_CONVERSIONS_FOR_LEADS": (
        _R.ACCOUNT_STOPPED,
        "the account is not enabled for enhanced conversions for leads",
    ),
    "DESTINATION_ACCOUNT_DATA_POLICY_PROHIBITS_ENHANCED_CONVERSIONS": (
        _R.ACCOUNT_STOPPED,
        "Google's data policy keeps the account from enhanced conversions",
    ),
    "INVALID_CONVERSION_ACTION_ID": (_R.NAME_STOPPED, "the conversion action does not exist: FORWARD_GOOGLE_ACTIONS"),
    "INVALID_CONVERSION_ACTION_TYPE": (_R.NAME_STOPPED, "the conversion action does not take events of the API"),
    "INVALID_DESTINATION": (_R.NAME_STOPPED, "the account or the conversion action is wrong"),
    "CONVERSION_ACTION_TOO_RECENTLY_CREATED": (
        _R.NAME_STOPPED,
        "the conversion action is too new: it takes events after 6 h",
    ),
    "NO_IDENTIFIERS_PROVIDED": (_R.REJECTED, "the event identifies nobody"),
    "REQUIRED_FIELD_MISSING": (_R.REJECTED, "a field is missing"),
    "INVALID_SHA256_FORMAT": (_R.REJECTED, "a hash is none"),
    "INVALID_HEX_ENCODING": (_R.REJECTED, "a hash is none"),
    "INVALID_CURRENCY_CODE": (_R.REJECTED, "the currency is refused"),
    "EVENT_TIME_INVALID": (_R.REJECTED, "the time of the event is refused: too old, or ahead"),
    "TOO_MANY_USER_IDENTIFIERS": (_R.REJECTED, "too many user identifiers"),
    "INVALID_AD_IDENTIFIER_FOR_ACCOUNT": (_R.REJECTED, "the click id is not of this account's ads"),
    "FIELD_VALUE_TOO_LONG": (_R.REJECTED, "a field is too long"),
    "INVALID_EVENT": (_R.REJECTED, "the event is refused"),
}
_TOO_NEW = "CONVERSION_ACTION_TOO_RECENTLY_CREATED"
_TOO_NEW_SECONDS = 6 * 3_600.0
_BY_NAME = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503}


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means. Received is not accepted: that comes later."""
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict) or response.status == 0:
        return by_status(response, "Google")
    if response.status == 200:
        found = document.get("requestId")
        if isinstance(found, str) and 0 < len(found) <= 200 and found.isascii() and found.isprintable():
            warned = "Google warns of optional fields" if document.get("fieldWarnings") else ""
            return DeliveryResponse(_R.DELIVERED, "200", warned, trace_id=found)
        return by_status(response, "Google")
    error = document.get("error")
    if not isinstance(error, dict):
        return by_status(response, "Google")
    return _refusal(response, error, events)


def _refusal(response: HttpResponse, error: Mapping[str, Any], events: int) -> DeliveryResponse:
    details = [each for each in _list(error.get("details"))[:_MAX_DETAILS] if isinstance(each, dict)]
    violations = [each for detail in details for each in _list(detail.get("fieldViolations"))[:_MAX_VIOLATIONS]]
    words = [detail.get("reason") for detail in details] + [
        each.get("reason") for each in violations if isinstance(each, dict)
    ]
    known = [word for word in words if isinstance(word, str) and word in REASONS]
    trace = next((detail.get("requestId") for detail in details if detail.get("requestId")), None)
    trace = trace if isinstance(trace, str) and len(trace) <= 200 else None
    wait = retry_after_seconds(response.headers)
    # A reason that concerns all events goes before one that concerns some.
    known.sort(key=lambda word: REASONS[word][0] is _R.REJECTED)
    name = known[0] if known else next((w for w in words if isinstance(w, str) and _WORD.fullmatch(w)), "")
    code = f"{response.status}/{name}" if name else str(response.status)
    status = error.get("status")
    if not known or response.status >= 500 or response.status == 429:
        numbered = _BY_NAME.get(status, response.status) if isinstance(status, str) else response.status
        found = by_status(replace(response, status=numbered), "Google")
        if found.response_class is not _R.REJECTED:
            reason = found.reason
            if numbered == 401:
                reason = "Google refuses the access token: has the service account or the user access?"
            return DeliveryResponse(found.response_class, code, reason, found.wait_seconds, trace)
    response_class, reason = REASONS[known[0]] if known else (_R.REJECTED, "refused by Google")
    if response_class is _R.THROTTLED:
        wait = wait or THROTTLE_SECONDS
    named: tuple[int, ...] = ()
    if response_class is _R.REJECTED and events > 1:
        named = _positions(violations, events)
    if response_class is _R.NAME_STOPPED and _TOO_NEW in known:
        wait = wait or _TOO_NEW_SECONDS
    return DeliveryResponse(response_class, code, reason, wait, trace, refused=named)


def _positions(violations: Iterable[Any], events: int) -> tuple[int, ...]:
    fields = (each.get("field") for each in violations if isinstance(each, dict))
    found = (_EVENT.search(field[:500]) for field in fields if isinstance(field, str))
    return tuple(dict.fromkeys(int(each[1]) for each in found if each is not None and int(each[1]) < events))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def read_status(response: HttpResponse) -> RequestStatus | None:
    """Read the status of a request; None when the answer does not tell."""
    document: Any = from_json(response.body) if response.is_complete and response.status == 200 else None
    entries = _list(document.get("requestStatusPerDestination")) if isinstance(document, dict) else []
    entries = [each for each in entries if isinstance(each, dict)]
    statuses = {each.get("requestStatus") for each in entries}
    if not statuses or not statuses <= {"SUCCESS", "PARTIAL_SUCCESS", "FAILED", "PROCESSING"}:
        return None
    refused = _counts(entries, "errorInfo", "errorCounts")
    warned = _counts(entries, "warningInfo", "warningCounts")
    return RequestStatus("PROCESSING" not in statuses, statuses == {"SUCCESS"}, statuses == {"FAILED"}, refused, warned)


def _counts(entries: Iterable[Mapping[str, Any]], outer: str, inner: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in entries:
        info = entry.get(outer)
        for each in _list(info.get(inner) if isinstance(info, dict) else None)[:_MAX_DETAILS]:
            number, reason = (each.get(key) for key in ("recordCount", "reason")) if isinstance(each, dict) else (0, "")
            # 64-bit numbers travel as texts.
            if isinstance(number, str) and number.isascii() and number.isdigit():
                number = int(number[:15])
            if not isinstance(number, int) or isinstance(number, bool) or number <= 0:
                continue
            word = reason if isinstance(reason, str) and _WORD.fullmatch(reason) else "UNSPECIFIED"
            for prefix in _PREFIXES:
                word = word.removeprefix(prefix)
            found[word] = found.get(word, 0) + number
    return found
