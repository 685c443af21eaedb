"""What Meta's answers mean: by its own error code first, by the HTTP status only where there is none.

Contract: `classify` never raises, whatever the body. Sources: facts gathered from Meta's documentation of the
Marketing API and from other relays' experience (codes 17 and 190 arrive with HTTP 500, 21009 with 400); the Conversions
API itself publishes no table. Units of the usage headers: percent; minutes (business use case), seconds (ad account).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.destination import DeliveryResponse, HttpResponse, ResponseClass
from attributary.consumers.destinations.wire_format import MAX_WAIT_SECONDS, from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TRANSIENT = frozenset((1, 2, 341, 368, 5000, 21009))
THROTTLED = frozenset((4, 17, 32, 613, *range(80000, 80015)))
# 190 and 102: token; 3, 10, 200-299: permission; 2635, 12: the API version is gone.
STOPPED = frozenset((3, 10, 12, 102, 190, 2635, *range(200, 300)))
PIXEL_GONE = (100, 33)
# Meta answers a wrong signature with the code of a wrong event; only its text tells them apart.
_PROOF = "appsecret_proof"

KNOWN_SUBCODES = {
    2804001: "click id incorrectly formatted",
    2804003: "event too old",
    2804009: "purchase without value or currency",
}
_THROTTLE_SECONDS = 60.0  # when Meta gives no estimate
_SERVER_ERROR = 500
# Timeout, conflict, precondition, locked, too early: an unknown code beside them says nothing about the event.
_TEMPORARY = frozenset((408, 409, 412, 423, 425))
# Of these the status alone says enough.
_PLAIN = frozenset((401, 403, 404, 407, 408, 409, 412, 413, 423, 425, 429))


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    if response.status == 0:
        response_class = ResponseClass.AMBIGUOUS if response.perhaps_sent else ResponseClass.RETRY
        return DeliveryResponse(response_class, f"0/{response.fault}", f"no answer: {response.fault}")
    document = from_json(response.body) if response.is_complete else None
    usage, wait = read_usage(response.headers)
    wait = max(wait, retry_after_seconds(response.headers))
    if isinstance(document, dict):
        error = document.get("error")
        if isinstance(error, dict):
            return _error(response.status, error, wait, usage)
        received = document.get("events_received")
        if response.status == 200 and isinstance(received, int):
            trace = _text(document.get("fbtrace_id"))
            if received >= events:
                return DeliveryResponse(
                    ResponseClass.DELIVERED, "200", trace_id=trace, wait_seconds=wait, usage_percent=usage
                )
            return DeliveryResponse(
                ResponseClass.AMBIGUOUS, "200/partial", "fewer events received than sent", wait, trace, usage
            )
    if not response.is_complete and 400 <= response.status < 500 and response.status not in _PLAIN:
        return DeliveryResponse(
            ResponseClass.RETRY, f"{response.status}/cut", "the answer broke off", wait, None, usage
        )
    return _without_code(response.status, wait, usage)


def _error(status: int, error: Mapping[str, Any], wait: float, usage: float | None) -> DeliveryResponse:
    code, subcode = _integer(error.get("code")), _integer(error.get("error_subcode"))
    names = "/".join(str(part) for part in (status, code, subcode) if part is not None)
    trace = _text(error.get("fbtrace_id"))
    if code in THROTTLED or (code is None and status == 429):
        return DeliveryResponse(ResponseClass.THROTTLED, names, "rate limit", wait or _THROTTLE_SECONDS, trace, usage)
    is_unsigned = _PROOF in str(error.get("message"))
    if code in STOPPED or (code, subcode) == PIXEL_GONE or is_unsigned:
        reason = "the signature is wrong: look at META_APP_SECRET" if is_unsigned else _stopped_reason(code)
        return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, names, reason, 0.0, trace, usage)
    if code in TRANSIENT or error.get("is_transient") is True:
        return DeliveryResponse(ResponseClass.RETRY, names, "temporary error", wait, trace, usage)
    if code is None:
        return _without_code(status, wait, usage)
    if (status >= _SERVER_ERROR and code != 100) or status in _TEMPORARY:
        return DeliveryResponse(ResponseClass.RETRY, names, "server error", wait, trace, usage)
    return DeliveryResponse(
        ResponseClass.REJECTED, names, KNOWN_SUBCODES.get(subcode or 0, "refused by Meta"), 0.0, trace, usage
    )


def _stopped_reason(code: int | None) -> str:
    if code in {190, 102}:
        return "the access token is not valid"
    if code in {2635, 12}:
        return "the API version is gone: raise META_API_VERSION"
    return "the pixel is missing or the token has no permission for it"


def _without_code(status: int, wait: float, usage: float | None) -> DeliveryResponse:
    """Judge an answer that is no document of the Graph API: a proxy's page, an empty body."""
    if status == 429:
        return DeliveryResponse(ResponseClass.THROTTLED, "429", "rate limit", wait or _THROTTLE_SECONDS, None, usage)
    if status >= _SERVER_ERROR or status in _TEMPORARY:
        return DeliveryResponse(ResponseClass.RETRY, str(status), "server error", wait, None, usage)
    if 200 <= status < 300:
        return DeliveryResponse(
            ResponseClass.AMBIGUOUS, f"{status}/unreadable", "the answer cannot be read", wait, None, usage
        )
    if status in {401, 403, 404, 407} or 300 <= status < 400:
        return DeliveryResponse(
            ResponseClass.ACCOUNT_STOPPED, str(status), "the address or the credentials are wrong", 0.0, None, usage
        )
    return DeliveryResponse(ResponseClass.REJECTED, str(status), "refused by Meta", 0.0, None, usage)


def read_usage(headers: Mapping[str, str]) -> tuple[float | None, float]:
    """Give the highest usage in percent (None without headers) and the wait that Meta estimates, in seconds."""
    figures: list[float] = []
    wait = 0.0
    application = from_json(headers.get("x-app-usage", "").encode())
    if isinstance(application, dict):
        figures += _numbers(application, "call_count", "total_time", "total_cputime")
    account = from_json(headers.get("x-ad-account-usage", "").encode())
    if isinstance(account, dict):
        figures += _numbers(account, "acc_id_util_pct")
        if figures and max(figures) >= 100:
            wait = max([wait, *_numbers(account, "reset_time_duration")])
    for entry in _business_entries(from_json(headers.get("x-business-use-case-usage", "").encode())):
        figures += _numbers(entry, "call_count", "total_cputime", "total_time")
        wait = max([wait, *(60.0 * minutes for minutes in _numbers(entry, "estimated_time_to_regain_access"))])
    return (max(figures) if figures else None), min(wait, MAX_WAIT_SECONDS)


def _business_entries(document: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(document, dict):
        for entries in document.values():
            if isinstance(entries, list):
                yield from (entry for entry in entries if isinstance(entry, dict))


def _numbers(document: Mapping[str, Any], *names: str) -> list[float]:
    values = (document.get(name) for name in names)
    return [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    """Take an id of the answer, if it is short enough to be one."""
    return value if isinstance(value, str) and len(value) <= 100 else None
