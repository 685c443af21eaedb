"""What X's answers mean: by HTTP status and the codes of its errors.

Contract: `classify` never raises, whatever the body. A batch is taken or refused as a whole; X lists all faults and
names no position. Its messages quote hashes and tokens: they are read for known words and never kept. Units:
`x-rate-limit-reset` is seconds since 1970. Source: X, Conversion API and rate limits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import THROTTLE_SECONDS, by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import MAX_WAIT_SECONDS, from_json, retry_after_seconds, timestamp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.destinations.destination import HttpResponse

_RETRY = frozenset(("LOCK_ACQUISITION_TIMEOUT", "OVER_CAPACITY", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE"))
_STOPPED = {
    "UNAUTHORIZED_ACCESS": "the keys are wrong, or this machine's clock is",
    "UNAUTHORIZED_CLIENT_APPLICATION": "the application may not use the Ads API",
    "ROUTE_NOT_FOUND": "the API version is gone",
}
_PLACES = {
    401: "the keys have no right to this pixel",
    403: "the keys have no right to this pixel",
    404: "the pixel is not of this account",
}
_MAX_CODE = 60  # characters
_TAG = "the event tag is wrong: look at FORWARD_X_EVENT_IDS"
_TAG_WORDS = ("not a single event tag", "Event ID was not found")
_REASONS = {"INVALID_PARAMETER": "a parameter is wrong", "MISSING_PARAMETER": "a parameter is missing"}


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    document: Any = from_json(response.body) if response.is_complete else None
    if response.status == 0 or not isinstance(document, dict):
        found = by_status(response, "X")
        is_throttled = found.response_class is ResponseClass.THROTTLED
        return replace(found, wait_seconds=_wait(response.headers)) if is_throttled else found
    if response.status == 200:
        return _taken(document.get("data"), events)
    errors = document.get("errors")
    faults = [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    codes = [code for error in faults if isinstance(code := error.get("code"), str) and len(code) <= _MAX_CODE]
    if not codes and response.status < 500:
        return by_status(response, "X")
    response_class, reason = _meaning(response.status, codes, " ".join(str(each.get("message")) for each in faults))
    wait = 0.0
    if response_class is ResponseClass.THROTTLED:
        wait = _wait(response.headers)
    elif response_class is ResponseClass.RETRY:
        wait = retry_after_seconds(response.headers)
    names = "/".join([str(response.status), *dict.fromkeys(codes[:3])])
    return DeliveryResponse(response_class, names, reason, wait)


def _meaning(status: int, codes: Sequence[str], text: str) -> tuple[ResponseClass, str]:
    """Return what the codes of a refusal mean."""
    if status == 429 or "TOO_MANY_REQUESTS" in codes:
        return ResponseClass.THROTTLED, "rate limit"
    if any(code in _RETRY for code in codes) or status >= 500 or status in {408, 423}:
        return ResponseClass.RETRY, "server error"
    if any(words in text for words in _TAG_WORDS):
        return ResponseClass.NAME_STOPPED, _TAG
    stopped = next((code for code in codes if code in _STOPPED), None)
    if stopped or status in _PLACES:
        return ResponseClass.ACCOUNT_STOPPED, _STOPPED[stopped] if stopped else _PLACES[status]
    return ResponseClass.REJECTED, _REASONS.get(codes[0], "refused by X")


def _taken(data: Any, events: int) -> DeliveryResponse:
    processed = data.get("conversions_processed") if isinstance(data, dict) else None
    trace = data.get("debug_id") if isinstance(data, dict) else None
    trace = trace if isinstance(trace, str) and len(trace) <= 100 else None
    if not isinstance(processed, int) or isinstance(processed, bool):
        return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/unreadable", "the answer cannot be read", 0.0, trace)
    if processed < events:
        return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/partial", "fewer events processed than sent", 0.0, trace)
    return DeliveryResponse(ResponseClass.DELIVERED, "200", trace_id=trace)


def _wait(headers: Mapping[str, str]) -> float:
    """Return how long X asks to wait, in seconds: until the reset, measured from the answer's own Date."""
    if asked := retry_after_seconds(headers):
        return asked
    reset = headers.get("x-account-rate-limit-reset") or headers.get("x-rate-limit-reset") or ""
    now = timestamp(headers.get("date", ""))
    if not (reset.isascii() and reset.isdigit() and len(reset) <= 12) or now is None:
        return THROTTLE_SECONDS
    return min(max(1.0, int(reset) - now), MAX_WAIT_SECONDS)
