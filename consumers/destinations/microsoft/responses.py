"""What Microsoft's answers mean: by HTTP status, and by the positions of the events that the details name.

Contract: `classify` never raises, whatever the body. A 200 takes all events but those that its details name; of a 400
nothing is taken. Details that are warnings refuse nothing. Microsoft's texts quote the event (`attemptedValue`), so
none is kept; of the names of fields only known ones are. Source: Microsoft, UET Conversions API (beta).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from attributary.consumers.destinations.destination import HttpResponse

_STOPPED = {401: "the access token is not valid", 403: "the token has no right to this UET tag"}
_FIELDS = frozenset((
    "eventtype", "eventid", "eventname", "eventtime", "eventsourceurl", "referrerurl", "adstorageconsent", "userdata",
    "customdata",
))  # fmt: skip


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    status = response.status
    if status in _STOPPED:
        return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, str(status), _STOPPED[status])
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict):
        return by_status(response, "Microsoft")
    named = dict(_refused(document.get("error"), events))
    refused, reason = tuple(sorted(named)), _reason(list(named.values()))
    if status == 200:
        return _taken(document, events, refused, reason, retry_after_seconds(response.headers))
    if status in {400, 422}:
        return DeliveryResponse(
            ResponseClass.REJECTED, str(status), reason or "refused by Microsoft", refused=refused if events > 1 else ()
        )
    return by_status(response, "Microsoft")


def _taken(
    document: Mapping[str, Any], events: int, refused: tuple[int, ...], reason: str, wait: float
) -> DeliveryResponse:
    """Judge a 200: what is not named must have been received."""
    received = document.get("eventsReceived")
    if not isinstance(received, int) or isinstance(received, bool):
        return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/unreadable", "the answer cannot be read", wait)
    if len(refused) == events:
        return DeliveryResponse(ResponseClass.REJECTED, "200/refused", reason, wait)
    if received < events - len(refused):
        return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/partial", "fewer events were received than sent", wait)
    return DeliveryResponse(ResponseClass.DELIVERED, "200", reason, wait, refused=refused)


def _refused(error: Any, events: int) -> Iterator[tuple[int, str]]:
    """Give position and field of each event that is refused."""
    details = error.get("details") if isinstance(error, dict) else None
    for each in details if isinstance(details, list) else ():
        if not isinstance(each, dict) or each.get("isWarning") is True:
            continue
        index, name = each.get("index"), each.get("propertyName")
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < events:
            yield index, name if isinstance(name, str) else ""


def _reason(names: Sequence[str]) -> str:
    if not names:
        return ""
    # userData.em, data[3].userData: the first word that we know.
    words = (word.strip("[]0123456789") for name in names for word in name[:100].replace("/", ".").split("."))
    known = next((word for word in words if word.lower() in _FIELDS), "")
    return f"refused by Microsoft: {known}" if known else "refused by Microsoft"
