"""A stand-in for TikTok's Events API 2.0.

Contract: `POST /open_api/v1.3/event/track/` as the documentation has it. The HTTP status is 200; the verdict is a code
in the body. One bad event refuses its whole request with its position in the message. Received events are counted once
per (source id, event, event_id), TikTok's rule within 48 hours. Events beside a test code are checked and counted as
tests only; whether TikTok counts them as well is not documented.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.local.fakes.faults import Fault

_PATH = "/open_api/v1.3/event/track/"
_MOST_EVENTS = 1_000
_SOURCES = frozenset(("web", "app", "offline", "crm"))
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY = 86_400
_CODES = {
    "partial": 20001, "permission": 40001, "throttled": 40100, "token_expired": 40102, "conflict": 40202,
    "maintenance": 60001, "server_busy": 51010,
}  # fmt: skip


class TikTokFake(StandIn):
    """TikTok's side.

    Args:
        tokens: access tokens that are good; empty: any.
    """

    own_kinds = frozenset(_CODES)

    def __init__(self, *, tokens: Sequence[str] = ()) -> None:
        super().__init__()
        self._tokens = frozenset(tokens)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer with the code of a fault, before anything is taken; a partial one takes half."""
        if fault.kind in _CODES and fault.kind != "partial":
            return _answer(_CODES[fault.kind], fault.kind)
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address or token."""
        if call.path != _PATH or call.method != "POST":
            return json_reply(404, {"message": "not found"})
        token = call.headers.get("access-token")
        if not token:
            return _answer(40104, "Access token is empty")
        if self._tokens and token not in self._tokens:
            return _answer(40105, "Access token is incorrect")
        return None

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Take the events of a request, or none."""
        try:
            document = json.loads(call.body)
        except ValueError:
            return _answer(40002, "invalid JSON")
        events = document.get("data") if isinstance(document, dict) else None
        if not isinstance(events, list) or not events:
            return _answer(40002, "data: Missing data for required field.")
        if document.get("event_source") not in _SOURCES or not isinstance(document.get("event_source_id"), str):
            return _answer(40002, "event_source: Not a valid choice.")
        if len(events) > _MOST_EVENTS:
            self.received.refuse(len(events))
            return _answer(40061, "Too many events")
        for number, event in enumerate(events):
            if broken := self._broken(event, document["event_source"]):
                self.received.refuse(len(events))
                return _answer(broken[0], f"Batch.{number}.{broken[1]}")
        is_partial = fault is not None and fault.kind == "partial"
        taken = events[: len(events) // 2] if is_partial else events
        source = document["event_source_id"]
        if document.get("test_event_code"):
            self.received.test(len(taken))
        else:
            self.received.keep([((source, event["event"], event.get("event_id")), event) for event in taken])
        return _answer(20001, "PARTIAL_OK") if is_partial else _answer(0, "OK")

    def _broken(self, event: Any, source: str) -> tuple[int, str] | None:
        """Return the code and the text of what is wrong with an event."""
        if not isinstance(event, dict) or not isinstance(event.get("event"), str) or not event["event"]:
            return 40002, "event: Missing data for required field."
        when = event.get("event_time")
        if not isinstance(when, int) or isinstance(when, bool):
            return 40002, "event_time: Not a valid integer."
        age = self.now - when
        if age > (28 if source == "offline" else 7) * _DAY or age < -600:
            return 40002, "event_time: Out of range."
        if "event_id" in event and not isinstance(event["event_id"], str):
            return 40002, "event_id: Not a valid string."
        if event.get("event_id") in self.poison:
            return 40002, "properties.contents.0.content_id: Not a valid string."
        return _broken_user(event.get("user")) or _broken_properties(event)


def _broken_user(user: Any) -> tuple[int, str] | None:
    if not isinstance(user, dict) or not user:
        return 40002, "user: Missing data for required field."
    for name, value in user.items():
        if value in ("", []):
            return 40002, f"user.{name}: Shorter than minimum length 1."
    for name in ("email", "phone", "external_id"):
        values = user.get(name, [])
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
                return 40062, f"user.{name}: must be hashed"
    if "phone_number" in user:
        return 40002, "user.phone_number: Unknown field."
    return None


def _broken_properties(event: dict[str, Any]) -> tuple[int, str] | None:
    data = event.get("properties") or {}
    if event["event"] in {"Purchase", "CompletePayment", "PlaceAnOrder"}:
        value, currency = data.get("value"), data.get("currency")
        if not isinstance(value, int | float) or isinstance(value, bool) or not isinstance(currency, str):
            return 40002, "properties.value: Missing data for required field."
    for number, content in enumerate(data.get("contents") or []):
        if not isinstance(content.get("content_id"), str):
            return 40002, f"properties.contents.{number}.content_id: Not a valid string."
    return None


def _answer(code: int, message: str) -> Reply:
    return json_reply(200, {"code": code, "message": message, "request_id": secrets.token_hex(16), "data": {}})
