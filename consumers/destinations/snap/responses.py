"""What Snap's answers mean: by HTTP status and the status in the body, which is VALID or INVALID.

Contract: `classify` never raises, whatever the body. A batch is taken or refused as a whole; a refusal may hold the
position of one event, which is a hint and no proof. Snap's texts are never kept: they may quote the event. Source:
Snap's schema of answers; that `event` is a position is not confirmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attributary.consumers.destinations.destination import HttpResponse

_VALID = "VALID"
_INVALID = "INVALID"
_MAX_CODES = 3


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    document: Any = from_json(response.body) if response.is_complete else None
    state = document.get("status") if isinstance(document, dict) else None
    if response.status == 200 and state == _VALID:
        return DeliveryResponse(ResponseClass.DELIVERED, "200", "", retry_after_seconds(response.headers))
    if response.status in {200, 400} and state == _INVALID:
        codes = "/".join([str(response.status), *_codes(document)])
        return DeliveryResponse(
            ResponseClass.REJECTED, codes, "refused by Snap", suspects=_position(document.get("event"), events)
        )
    return by_status(response, "Snap")


def _codes(document: Mapping[str, Any]) -> list[str]:
    """Return Snap's codes, those that are words."""
    errors = document.get("errors")
    codes = errors.get("codes") if isinstance(errors, dict) else None
    found = [str(code) for code in codes if isinstance(code, str | int)] if isinstance(codes, list) else []
    return [code for code in found if len(code) <= 40 and code.isascii() and code.replace("_", "").isalnum()][
        :_MAX_CODES
    ]


def _position(event: Any, events: int) -> tuple[int, ...]:
    return (event,) if isinstance(event, int) and not isinstance(event, bool) and 0 <= event < events else ()
