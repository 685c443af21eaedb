"""A stand-in for Microsoft Advertising's UET Conversions API.

Contract: `POST /v1/{tag}/events` as the documentation has it. Without `continueOnValidationError` in the request one
bad event refuses all; with it the others are taken. Details name the events by position and quote what is wrong. Copies
of two calls are counted, for their removal is not documented. An event with ad storage denied is received and not
attributed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.local.fakes.faults import Fault

_PATH = re.compile(r"/v1/(\d{1,20})/events")
_MOST_EVENTS = 1_000
_DAY = 86_400
_DIGEST = re.compile(r"[0-9a-f]{64}")
_USER = frozenset((
    "em", "ph", "anonymousId", "externalId", "clientIpAddress", "clientUserAgent", "msclkid", "idfa", "gaid",
))  # fmt: skip


class MicrosoftFake(StandIn):
    """Microsoft's side.

    Args:
        tokens: tokens that are good; empty: any.
        tags: UET tags that exist; empty: any.
    """

    own_kinds = frozenset(("unauthorized", "warning"))

    def __init__(self, *, tokens: Sequence[str] = (), tags: Sequence[str] = ()) -> None:
        super().__init__()
        self._tokens = frozenset(tokens)
        self._tags = frozenset(tags)
        self.unattributed = 0

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        if fault.kind == "unauthorized":
            return _refused(401, "Unauthorized")
        if fault.kind == "http_429":  # no header that says how long is documented
            return _refused(429, "TooManyRequests")
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address or token."""
        place = _PATH.fullmatch(call.path)
        if place is None or call.method != "POST":
            return _refused(404, "NotFound")
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or (self._tokens and token not in self._tokens):
            return _refused(401, "Unauthorized")
        return _refused(403, "Forbidden") if self._tags and place[1] not in self._tags else None

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Take the good events of a request, or none."""
        try:
            document = json.loads(call.body)
            events = document["data"]
        except (ValueError, KeyError, TypeError):
            return _refused(400, "BadRequest")
        if not isinstance(events, list) or not 0 < len(events) <= _MOST_EVENTS:
            return _refused(400, "BadRequest")
        details = [
            {"index": n, "propertyName": wrong[0], "attemptedValue": wrong[1], "errorMessage": "invalid"}
            for n, event in enumerate(events)
            if (wrong := self._broken(event))
        ]
        bad = {each["index"] for each in details}
        self.received.refuse(len(bad))
        goes_on = document.get("continueOnValidationError") is True
        if details and (not goes_on or len(bad) == len(events)):
            self.received.refuse(len(events) - len(bad))
            return _refused(400, "ValidationError", details)
        good = [event for n, event in enumerate(events) if n not in bad]
        self.unattributed += sum(event.get("adStorageConsent", "G") != "G" for event in good)
        self.received.keep([((event.get("eventName", "pageLoad"), event["eventId"]), event) for event in good])
        if fault is not None and fault.kind == "warning":
            details += [{"index": 0, "propertyName": "pageTitle", "errorMessage": "too long", "isWarning": True}]
        found: dict[str, Any] = {"eventsReceived": len(good)}
        return json_reply(200, found | ({"error": _error("ValidationError", details)} if details else {}))

    def _broken(self, event: Any) -> tuple[str, Any] | None:
        """Return field and value of what is wrong with an event."""
        if not isinstance(event, dict) or event.get("eventType") not in {"pageLoad", "custom"}:
            return "eventType", None
        when = event.get("eventTime")
        if not isinstance(when, int) or isinstance(when, bool) or not -600 <= self.now - when <= 7 * _DAY:
            return "eventTime", when
        if event["eventType"] == "pageLoad" and not event.get("eventSourceUrl"):
            return "eventSourceUrl", None
        if not isinstance(event.get("eventId"), str) or event["eventId"] in self.poison:
            return "eventId", event.get("eventId")
        if event.get("adStorageConsent", "G") not in {"G", "D"}:
            return "adStorageConsent", event["adStorageConsent"]
        return _broken_user(event.get("userData")) or _broken_data(event.get("customData", {}))


def _broken_user(user: Any) -> tuple[str, Any] | None:
    if not isinstance(user, dict) or not user:
        return "userData", user
    if unknown := user.keys() - _USER:
        return f"userData.{min(unknown)}", None
    for name in ("em", "ph"):
        if name in user and (not isinstance(user[name], str) or _DIGEST.fullmatch(user[name]) is None):
            return f"userData.{name}", user[name]
    return None


def _broken_data(data: Mapping[str, Any]) -> tuple[str, Any] | None:
    value = data.get("value", 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or ("value" in data and "currency" not in data):
        return "customData.value", value
    for item in data.get("items", []):
        if not isinstance(item.get("id"), str) or not isinstance(item.get("quantity", 1), int):
            return "customData.items", item
    return None


def _error(code: str, details: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    return {"code": code, "message": code} | ({"details": list(details)} if details else {})


def _refused(status: int, code: str, details: Sequence[Mapping[str, Any]] = ()) -> Reply:
    return json_reply(status, {"error": _error(code, details)})
