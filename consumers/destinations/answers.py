"""What an answer means by its HTTP status alone: no answer, a proxy's page, an empty body.

Contract: pure, never raises. Destinations with codes of their own read those first and come here for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import retry_after_seconds

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import HttpResponse

THROTTLE_SECONDS = 60.0  # when the destination names no time
# Timeout, conflict, precondition, locked, too early: they say nothing about the event.
_TEMPORARY = frozenset((408, 409, 412, 423, 425))
_WRONG_PLACE = frozenset((401, 403, 404, 407))


def by_status(response: HttpResponse, title: str) -> DeliveryResponse:
    """Judge an answer that has no code of the destination's own.

    Args:
        response: what came back.
        title: of the destination, for people.
    """
    status = response.status
    if status == 0:
        response_class = ResponseClass.AMBIGUOUS if response.perhaps_sent else ResponseClass.RETRY
        return DeliveryResponse(response_class, f"0/{response.fault}", f"no answer: {response.fault}")
    wait = retry_after_seconds(response.headers)
    if status == 429:
        return DeliveryResponse(ResponseClass.THROTTLED, "429", "rate limit", wait or THROTTLE_SECONDS)
    if 200 <= status < 300:
        return DeliveryResponse(ResponseClass.AMBIGUOUS, f"{status}/unreadable", "the answer cannot be read", wait)
    if status in _WRONG_PLACE or 300 <= status < 400:
        return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, str(status), "the address or the credentials are wrong")
    if status >= 500 or status in _TEMPORARY or not response.is_complete:
        reason = "the answer broke off" if status < 500 and not response.is_complete else "server error"
        return DeliveryResponse(ResponseClass.RETRY, str(status), reason, wait)
    return DeliveryResponse(ResponseClass.REJECTED, str(status), f"refused by {title}")
