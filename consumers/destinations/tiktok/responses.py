"""What TikTok's answers mean: by the code in the body, since the HTTP status is 200 for almost everything.

Contract: `classify` never raises, whatever the body. A batch is taken or refused as a whole; the message of a refusal
may name a position, which is a hint and no proof. The message is never kept: it may quote the event. Source: the codes
of TikTok's own SDK.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import THROTTLE_SECONDS, by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attributary.consumers.destinations.destination import HttpResponse

_R = ResponseClass
_NO_SCOPE = "the token lacks a scope"
_NO_PERMISSION = "the token has no permission for this event source"
_NO_VERSION = "the API version is gone"
MEANINGS: Mapping[int, tuple[ResponseClass, str]] = {
    0: (_R.DELIVERED, ""),
    20001: (_R.AMBIGUOUS, "TikTok took a part of the events"),
    40001: (_R.ACCOUNT_STOPPED, _NO_PERMISSION),
    40002: (_R.REJECTED, "a parameter is wrong"),
    40003: (_R.ACCOUNT_STOPPED, _NO_PERMISSION),
    40006: (_R.ACCOUNT_STOPPED, _NO_VERSION),
    40050: (_R.DELIVERED, "taken before"),  # not confirmed: another copy of the request was taken
    40051: (_R.ACCOUNT_STOPPED, _NO_VERSION),
    40062: (_R.REJECTED, "personal data is not hashed"),
    40063: (_R.REJECTED, "the partner name is wrong"),
    40100: (_R.THROTTLED, "rate limit"),
    40101: (_R.ACCOUNT_STOPPED, "the access token is not valid"),
    40102: (_R.ACCOUNT_STOPPED, "the access token has expired"),
    40104: (_R.ACCOUNT_STOPPED, "the access token is empty"),
    40105: (_R.ACCOUNT_STOPPED, "the access token is not valid"),
    **dict.fromkeys(range(40_113, 40_119), (_R.ACCOUNT_STOPPED, "the app is not allowed")),
    40124: (_R.ACCOUNT_STOPPED, _NO_SCOPE),
    40125: (_R.ACCOUNT_STOPPED, _NO_SCOPE),
    40130: (_R.ACCOUNT_STOPPED, _NO_SCOPE),
    40132: (_R.THROTTLED, "rate limit"),
    40202: (_R.RETRY, "temporary error"),
    41000: (_R.ACCOUNT_STOPPED, "TikTok has blocked the account"),
    41001: (_R.ACCOUNT_STOPPED, "the interface is offline"),
    50000: (_R.RETRY, "temporary error"),
    50002: (_R.RETRY, "temporary error"),
    60001: (_R.RETRY, "TikTok is under maintenance"),
    61000: (_R.THROTTLED, "rate limit"),
}
_RETRY_FAMILIES = range(51_000, 54_000)
_POSITION = re.compile(r"(?:Batch|data)\.(\d{1,4})\.")
_MAX_HINTS = 5


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    document: Any = from_json(response.body) if response.is_complete else None
    code = document.get("code") if isinstance(document, dict) else None
    if not isinstance(code, int) or isinstance(code, bool) or response.status == 0:
        return by_status(response, "TikTok")
    trace = document.get("request_id")
    trace = trace if isinstance(trace, str) and len(trace) <= 100 else None
    response_class, reason = _meaning(code, response.status)
    wait = retry_after_seconds(response.headers)
    if response_class is ResponseClass.THROTTLED:
        wait = wait or THROTTLE_SECONDS
    names = "200/partial" if response_class is ResponseClass.AMBIGUOUS else f"{response.status}/{code}"
    is_refusal = response_class is ResponseClass.REJECTED
    hints = _positions(document.get("message"), events) if is_refusal else ()
    return DeliveryResponse(response_class, names, reason, wait, trace, suspects=hints)


def _meaning(code: int, status: int) -> tuple[ResponseClass, str]:
    """Return what a code means; a code that is not known is judged by the status beside it."""
    if code == 0 and status != 200:
        return ResponseClass.RETRY, "temporary error"
    if known := MEANINGS.get(code):
        return known
    if status == 429:
        return ResponseClass.THROTTLED, "rate limit"
    if code in _RETRY_FAMILIES or status >= 500:
        return ResponseClass.RETRY, "temporary error"
    return ResponseClass.REJECTED, "refused by TikTok"


def _positions(message: Any, events: int) -> tuple[int, ...]:
    if not isinstance(message, str):
        return ()
    found = dict.fromkeys(int(each) for each in _POSITION.findall(message[:4_096]))
    return tuple(position for position in found if position < events)[:_MAX_HINTS]
