"""What Pinterest's answers mean: the status of each event, beside which the others were taken.

Contract: `classify` never raises, whatever the body. 200 and 422 both may have taken some events: a 200 lists them in
the order of the request; the details of a 422 are not described, and where they hold no such list, every event is tried
alone with its id, never as if nothing had been taken. Pinterest's texts are never kept: they may quote the event.
Source: Pinterest's OpenAPI description, 5.23.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attributary.consumers.destinations.destination import HttpResponse

_REFUSED = "refused by Pinterest"
_STOPPED = {401: "the access token is not valid", 403: "the token has no right to this ad account"}


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict):
        return by_status(response, "Pinterest")
    status = response.status
    trace = response.headers.get("x-request-id") or response.headers.get("x-pinterest-rid")
    trace = trace if trace and len(trace) <= 100 else None
    if reason := _STOPPED.get(status):
        return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, str(status), reason, 0.0, trace)
    if status == 200:
        return _each(document, events, status, trace) or _counted(
            document, events, retry_after_seconds(response.headers)
        )
    if status == 422:
        details = document.get("details")
        found = _each(details if isinstance(details, dict) else document, events, status, trace)
        alone = tuple(range(events - 1))  # the last one stays, alone as well
        return found or DeliveryResponse(ResponseClass.REJECTED, "422", _REFUSED, 0.0, trace, suspects=alone)
    return by_status(response, "Pinterest")


def _each(document: Mapping[str, Any], events: int, status: int, trace: str | None) -> DeliveryResponse | None:
    """Judge a batch by the status of each of its events; None without a list of them all."""
    listed = document.get("events")
    if not isinstance(listed, list) or len(listed) != events:
        return None
    statuses = [each.get("status") if isinstance(each, dict) else None for each in listed]
    if any(each not in {"processed", "failed"} for each in statuses):
        return None
    refused = tuple(number for number, each in enumerate(statuses) if each == "failed")
    if len(refused) == events:
        return DeliveryResponse(ResponseClass.REJECTED, f"{status}/failed", _REFUSED, 0.0, trace)
    reason = _REFUSED if refused else ""
    return DeliveryResponse(ResponseClass.DELIVERED, str(status), reason, 0.0, trace, refused=refused)


def _counted(document: Mapping[str, Any], events: int, wait: float) -> DeliveryResponse:
    """Judge a batch by the number of events that were processed."""
    processed = document.get("num_events_processed")
    if isinstance(processed, int) and not isinstance(processed, bool) and processed >= events:
        return DeliveryResponse(ResponseClass.DELIVERED, "200", "", wait)
    return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/partial", "not every event has a status", wait)
