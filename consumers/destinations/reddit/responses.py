"""What Reddit's answers mean: by HTTP status, and by the paths of the events that a refusal names.

Contract: `classify` never raises, whatever the body. Nothing of a refused batch is taken; all wrong events are named.
Reddit's texts are read for known words and never kept: they may quote the event. Source: Reddit, Conversions API v3.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attributary.consumers.destinations.destination import HttpResponse

_STOPPED = {401: "the access token is not valid", 403: "the token has no right to this pixel"}
_POSITION = re.compile(r"\$\.data\.events\[([0-9]{1,4})\](?:\.([A-Za-z_]{1,30}))?")
_FIELDS = frozenset(("event_at", "action_source", "type", "click_id", "event_source_url", "metadata", "user"))
# v2 answered a wrong type in the JSON with 403: that is the event's fault, not the token's.
_BROKEN_JSON = "JSON error"


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict):
        return by_status(response, "Reddit")
    status = response.status
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    text = error.get("message") or document.get("message")
    is_broken = status == 403 and isinstance(text, str) and _BROKEN_JSON in text
    if status in _STOPPED and not is_broken:
        return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, str(status), _STOPPED[status])
    if status == 200 and isinstance(document.get("data"), dict):
        return DeliveryResponse(ResponseClass.DELIVERED, "200", "", retry_after_seconds(response.headers))
    if status == 400 or is_broken:
        found = list(_fields(error.get("fields")))
        refused = tuple(dict.fromkeys(number for number, _ in found if number < events)) if events > 1 else ()
        reason = _reason([name for _, name in found])
        return DeliveryResponse(ResponseClass.REJECTED, str(status), reason, refused=refused)
    return by_status(response, "Reddit")


def _fields(fields: Any) -> Iterator[tuple[int, str]]:
    for each in fields if isinstance(fields, list) else ():
        place = each.get("field") if isinstance(each, dict) else None
        if isinstance(place, str) and (match := _POSITION.match(place)):
            yield int(match[1]), (match[2] or "").lower()


def _reason(names: Sequence[str]) -> str:
    known = next((name for name in names if name in _FIELDS), "")
    return f"refused by Reddit: {known}" if known else "refused by Reddit"
