"""What LinkedIn's answers mean: the status of each event in a batch, or the positions that a refusal names.

Contract: `classify` never raises, whatever the body. LinkedIn's texts are read for positions and known words and never
kept: they may quote the event. Source: LinkedIn, Conversions API; codes as other relays have recorded them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.answers import by_status
from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.wire_format import from_json, retry_after_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attributary.consumers.destinations.destination import HttpResponse

_CREATED = range(200, 300)
_STOPPED = {
    401: "the access token is not valid, revoked or expired",
    403: "the token has no permission for this ad account",
    426: "the API version is gone: raise LINKEDIN_API_VERSION",
}
_LINE = re.compile(r"\bIndex: (\d{1,5})\b")
_LIST = re.compile(r"\bindices \[([0-9, ]{1,2000})\]")
_NAME_RULES = (  # words that concern a conversion rule, so every event of its type
    ("method should be CONVERSIONS_API", "the conversion rule does not take events of the API"),
    ("Invalid Urn", "the conversion rule does not exist: FORWARD_LINKEDIN_RULES"),
)
_RULES = (  # words of LinkedIn's text, and what they mean for people
    ("INVALID_CONVERSION_TIME", "the time of the event is refused: older than 90 days, or ahead"),
    ("/conversionValue", "the value is refused"),
    ("/user", "the user data is refused"),
)


def classify(response: HttpResponse, events: int) -> DeliveryResponse:
    """Say what the answer to a request of so many events means."""
    document: Any = from_json(response.body) if response.is_complete else None
    if not isinstance(document, dict):
        document = {}
    status, wait = response.status, retry_after_seconds(response.headers)
    trace = response.headers.get("x-li-uuid")
    trace = trace if trace and len(trace) <= 100 else None
    if reason := _STOPPED.get(status):
        code = document.get("serviceErrorCode")
        names = f"{status}/{code}" if isinstance(code, int) and not isinstance(code, bool) else str(status)
        return DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, names, reason, 0.0, trace)
    if status == 201 and events == 1:
        return DeliveryResponse(ResponseClass.DELIVERED, "201", "", wait, trace)
    elements = document.get("elements")
    if status == 200 and isinstance(elements, list):
        return _each(elements, events, wait, trace)
    if status in {400, 422} and isinstance(document.get("message"), str):
        return _refused(str(status), document["message"][:65_536], events, wait, trace)
    return by_status(response, "LinkedIn")


def read_rules(response: HttpResponse) -> DeliveryResponse:
    """Say what the list of an account's conversion rules means; rejected: there is none."""
    document: Any = from_json(response.body) if response.is_complete else None
    rules = document.get("elements") if isinstance(document, dict) else None
    if response.status != 200 or not isinstance(rules, list):
        return by_status(response, "LinkedIn") if response.status == 200 else classify(response, 1)
    if not any(isinstance(rule, dict) for rule in rules):
        return DeliveryResponse(ResponseClass.REJECTED, "200", "the ad account has no conversion rule")
    return DeliveryResponse(ResponseClass.DELIVERED, "200")


def _each(elements: list[Any], events: int, wait: float, trace: str | None) -> DeliveryResponse:
    """Judge a batch by the status of each of its events."""
    found = [element.get("status") if isinstance(element, dict) else None for element in elements]
    statuses = [status for status in found if isinstance(status, int)]
    if len(found) != events or len(statuses) != events:
        return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/partial", "not every event has a status", wait, trace)
    if any(status == 429 or status >= 500 for status in statuses):
        # Some were taken and some were not: the whole batch is asked about again.
        return DeliveryResponse(ResponseClass.AMBIGUOUS, "200/partial", "some events met a server error", wait, trace)
    refused = tuple(number for number, status in enumerate(statuses) if status not in _CREATED)
    if len(refused) == events:
        return DeliveryResponse(ResponseClass.REJECTED, "200/refused", "refused by LinkedIn", wait, trace)
    reason = "refused by LinkedIn" if refused else ""
    return DeliveryResponse(ResponseClass.DELIVERED, "200", reason, wait, trace, refused=refused)


def _refused(code: str, message: str, events: int, wait: float, trace: str | None) -> DeliveryResponse:
    """Read a refusal, a line for each fault: conversion rules that stop their type, or events that are wrong."""
    refused: dict[int, None] = {}
    unknown: dict[int, str] = {}
    stops = ""
    for line in message.splitlines():
        found = [*_LINE.findall(line), *(each for listed in _LIST.findall(line) for each in listed.split(","))]
        positions = _within(found, events)
        if reason := next((reason for words, reason in _NAME_RULES if words in line), ""):
            stops = reason
            unknown |= dict.fromkeys(positions, reason)
        else:
            refused |= dict.fromkeys(positions)
    if stops:
        # What else is wrong is said again when the others are sent without these.
        return DeliveryResponse(ResponseClass.NAME_STOPPED, code, stops, wait, trace, unknown_names=unknown)
    named = tuple(refused) if events > 1 else ()
    return DeliveryResponse(ResponseClass.REJECTED, code, _reason(message), wait, trace, refused=named)


def _within(positions: Iterable[str], events: int) -> tuple[int, ...]:
    found = dict.fromkeys(int(each) for each in positions if each.strip().isdigit())
    return tuple(position for position in found if position < events)


def _reason(message: str) -> str:
    return next((reason for words, reason in _RULES if words in message), "refused by LinkedIn")
