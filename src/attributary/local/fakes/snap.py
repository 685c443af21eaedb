"""A stand-in for Snap's Conversions API v3.

Contract: `POST /v3/{pixel or app id}/events?access_token=...` as the documentation has it; `/events/validate` checks
and takes nothing. One bad event refuses its whole request, with the position of the first. Received events are counted
once per (asset, event_id), Snap's rule within 48 hours.
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

_PATH = re.compile(r"/v3/([A-Za-z0-9-]{1,40})/events(/validate)?")
_MOST_EVENTS = 2_000
_DAY = 86_400
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DEVICE = re.compile(r"[0-9a-f-]{1,36}")
_SOURCES = frozenset(("web", "app", "offline"))
_NAMES = frozenset((
    "PURCHASE", "ADD_CART", "PAGE_VIEW", "VIEW_CONTENT", "SIGN_UP", "SEARCH", "START_CHECKOUT", "ADD_BILLING",
    "ADD_TO_WISHLIST", "SUBSCRIBE", "START_TRIAL", "LOGIN", "RESERVE",
)) | {f"CUSTOM_EVENT_{number}" for number in range(1, 6)}  # fmt: skip
_HASHED = ("em", "ph", "fn", "ln", "ct", "st", "zp", "country", "external_id")


class SnapFake(StandIn):
    """Snap's side.

    Args:
        tokens: access tokens that are good; empty: any.
        assets: pixels and apps that exist; empty: any.
    """

    own_kinds = frozenset(("unauthorized", "invalid_200"))

    def __init__(self, *, tokens: Sequence[str] = (), assets: Sequence[str] = ()) -> None:
        super().__init__()
        self._tokens = frozenset(tokens)
        self._assets = frozenset(assets)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        if fault.kind == "unauthorized":
            return _refused(401, "unauthorized")
        if fault.kind == "http_429":  # Snap sends no header that says how long
            return _refused(429, "rate limit")
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address or token."""
        place = _PATH.fullmatch(call.path)
        if place is None or call.method != "POST":
            return _refused(404, "not found")
        token = next(iter(call.query.get("access_token", ())), "")
        if not token or (self._tokens and token not in self._tokens):
            return _refused(401, "unauthorized")
        return _refused(403, "forbidden") if self._assets and place[1] not in self._assets else None

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Take the events of a request, or none."""
        try:
            events = json.loads(call.body)["data"]
        except (ValueError, KeyError, TypeError):
            return _refused(400, "invalid JSON")
        if not isinstance(events, list) or not 0 < len(events) <= _MOST_EVENTS:
            return _refused(400, "data must have 1 to 2000 elements")
        for number, event in enumerate(events):
            if rule := self._broken(event):
                self.received.refuse(len(events))
                is_odd = fault is not None and fault.kind == "invalid_200"
                return _refused(200 if is_odd else 400, rule, number)
        asset = call.path.split("/")[2]
        if call.path.endswith("/validate"):
            self.received.test(len(events))
            logs = [{"event": event, "status": "VALID", "errors": [], "warnings": []} for event in events]
            return json_reply(200, {"status": "VALID", "event_logs": logs, "test_event": True})
        self.received.keep([((asset, event.get("event_id")), event) for event in events])
        return json_reply(200, {"status": "VALID"})

    def _broken(self, event: Any) -> str | None:
        if not isinstance(event, dict) or event.get("event_name") not in _NAMES:
            return "event_name"
        when = event.get("event_time")
        if not isinstance(when, int) or isinstance(when, bool) or not -600 <= self.now - when <= 37 * _DAY:
            return "event_time"
        if event.get("action_source") not in _SOURCES:
            return "action_source"
        if event.get("event_id") in self.poison:
            return "refused"
        return _broken_user(event.get("user_data")) or _broken_data(event)


def _broken_user(user: Any) -> str | None:
    if not isinstance(user, dict):
        return "user_data"
    if not (user.keys() & {"em", "ph", "madid"} or {"client_ip_address", "client_user_agent"} <= user.keys()):
        return "user_data: too few"
    for name in _HASHED:
        given = user.get(name, [])
        for each in given if isinstance(given, list) else [given]:
            if not isinstance(each, str) or _DIGEST.fullmatch(each) is None:
                return f"user_data.{name}"
    return None if _DEVICE.fullmatch(str(user.get("madid", "0"))) else "user_data.madid"


def _broken_data(event: Mapping[str, Any]) -> str | None:
    data = event.get("custom_data", {})
    value = data.get("value")
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool)):
        return "custom_data.value"
    if event["event_name"] == "PURCHASE" and (value is None or not isinstance(data.get("currency"), str)):
        return "custom_data.value"
    return None


def _refused(status: int, reason: str, event: int | None = None) -> Reply:
    errors = {"codes": [f"E{status}"], "error_msgs": [reason]}
    return json_reply(status, {"status": "INVALID", "reason": reason, "event": event, "errors": errors})
