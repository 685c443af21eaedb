"""A stand-in for Meta's Conversions API.

Contract: `POST /{version}/{pixel}/events` as the documentation and the official SDK have it: JSON objects, JSON texts
in an array, or one JSON text; token in the query, the form, the body or a Bearer header. One bad event rejects its
whole request, as at Meta. Received events are counted once per (pixel, event_name, event_id), Meta's rule within 48
hours; further copies are `duplicates`. Where Meta's behaviour is not confirmed, the constant says so.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from attributary.local.fakes.faults import Fault, FaultScript
from attributary.local.fakes.meta_checks import Broken, broken_event
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = frozenset((
    "transient", "not_ready", "app_limit", "user_limit", "account_limit", "http_429", "html_502", "http_500",
    "reset_after", "reset_before", "slow", "partial", "token", "pixel", "permission", "refuse", "deprecated",
))  # fmt: skip

_PATH = re.compile(r"/(v\d{1,3}\.\d)/(\d+)/events")
_MOST_EVENTS = 1_000
_KEPT_BODIES = 20_000  # whole events kept for the admin surface; ids are kept of all


class MetaFake:
    """Meta's side.

    Args:
        tokens: access tokens that are good; empty: any.
        app_secret: when set, requests must be signed with it.
        pixels: pixels that exist; empty: any.
        usage_step: percent of the rate limit that a call uses up; 0 sends no usage headers.
    """

    def __init__(
        self,
        *,
        tokens: Sequence[str] = (),
        app_secret: str | None = None,
        pixels: Sequence[str] = (),
        usage_step: float = 0.0,
    ) -> None:
        self.script = FaultScript()
        self.kinds = KINDS
        self.clock_offset = 0.0
        self.usage = 0.0
        self.calls = 0
        self.largest_request = 0
        self.duplicates = 0
        self.received: dict[tuple[str, str, str], int] = {}
        self.bodies: list[dict[str, Any]] = []
        self.test_events = 0
        self.poison: set[str] = set()  # event ids that are refused for a reason that only Meta knows
        self._tokens = frozenset(tokens)
        self._pixels = frozenset(pixels)
        self._app_secret = app_secret
        self._usage_step = usage_step
        self._lock = threading.Lock()

    def answer(self, call: Call) -> Reply:
        """Answer one request."""
        fault = self.script.next()
        with self._lock:
            self.calls += 1
            self.usage = min(100.0, self.usage + self._usage_step)
        match = _PATH.fullmatch(call.path)
        if match is None or call.method != "POST":
            return self._error(404, 2500, "Unknown path components", kind="OAuthException")
        if fault is not None and fault.kind not in {"reset_after", "slow", "partial"}:
            return self._fail(fault)
        if self._usage_step and self.usage >= 100:
            return self._error(400, 4, "Application request limit reached", transient=True)
        fields = _fields(call)
        if refusal := self._refuse_caller(call, fields, match[2]):
            return refusal
        return self._receive(fields, match[2], fault)

    def _receive(self, fields: dict[str, Any], pixel: str, fault: Fault | None) -> Reply:
        events = _events(fields.get("data"))
        if events is None:
            return self._error(400, 100, "Param data must be an array")
        if not events or len(events) > _MOST_EVENTS:
            return self._error(400, 100, "Too many or no events in the request")
        now = time.time() + self.clock_offset
        for index, event in enumerate(events):
            broken = broken_event(event, now)
            if broken is None and event.get("event_id") in self.poison:
                broken = Broken("Invalid parameter", 2804019)
            if broken is not None:
                return self._error(400, 100, broken.message, subcode=broken.subcode, blame=[["data", str(index)]])
        taken = events[: len(events) // 2] if fault is not None and fault.kind == "partial" else events
        self._keep(pixel, taken, test="test_event_code" in fields)
        if fault is not None and fault.kind == "reset_after":
            return Reply(0, reset=True)
        slow = fault.seconds if fault is not None and fault.kind == "slow" else 0.0
        document = {"events_received": len(taken), "messages": [], "fbtrace_id": _trace()}
        reply = json_reply(200, document, self._usage_headers())
        return Reply(reply.status, reply.body, reply.headers, after_seconds=slow)

    def _keep(self, pixel: str, events: list[dict[str, Any]], *, test: bool) -> None:
        with self._lock:
            self.largest_request = max(self.largest_request, len(events))
            self.test_events += len(events) if test else 0
            for event in events:
                key = (pixel, str(event["event_name"]), str(event.get("event_id") or secrets.token_hex(8)))
                copies = self.received.get(key, 0)
                self.received[key] = copies + 1
                self.duplicates += copies > 0
                if len(self.bodies) < _KEPT_BODIES:
                    self.bodies.append(event)

    def _refuse_caller(self, call: Call, fields: dict[str, Any], pixel: str) -> Reply | None:
        token = fields.get("access_token") or _first(call.query, "access_token")
        authorization = call.headers.get("authorization", "")
        if not token and authorization[:7].lower() == "bearer ":
            token = authorization[7:]
        if not token:
            return self._error(400, 2500, "An active access token must be used", kind="OAuthException")
        if self._tokens and token not in self._tokens:
            return self._error(400, 190, "Invalid OAuth access token", kind="OAuthException")
        proof = fields.get("appsecret_proof") or _first(call.query, "appsecret_proof")
        if self._app_secret is not None:
            good = hmac.new(self._app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()
            if not hmac.compare_digest(good, str(proof or "")):
                return self._error(400, 100, "Invalid appsecret_proof provided", kind="GraphMethodException")
        if self._pixels and pixel not in self._pixels:
            return self._error(400, 100, "Unsupported post request", subcode=33, kind="GraphMethodException")
        return None

    def _fail(self, fault: Fault) -> Reply:
        """Give the fault's own answer; nothing was processed."""
        match fault.kind:
            case "reset_before":
                return Reply(0, reset=True)
            case "html_502":
                return Reply(502, b"<html><body>Bad Gateway</body></html>", {"content-type": "text/html"})
            case "http_500":
                return Reply(500, b"", {"content-type": "text/plain"})
            case "http_429":
                return Reply(429, b"", {"retry-after": str(int(fault.seconds))})
            case "account_limit":
                minutes = max(1, round(fault.seconds / 60))
                entry = {"type": "ads_management", "call_count": 100, "total_cputime": 20, "total_time": 20}
                entry |= {"estimated_time_to_regain_access": minutes}
                header = {"x-business-use-case-usage": json.dumps({"1": [entry]})}
                return self._error(400, 80004, "There have been too many calls to this ad-account", headers=header)
        status, code, subcode, transient = _ERRORS[fault.kind]
        return self._error(status, code, fault.kind, subcode=subcode, transient=transient)

    def _error(
        self,
        status: int,
        code: int,
        message: str,
        *,
        subcode: int | None = None,
        kind: str = "FacebookApiException",
        transient: bool = False,
        blame: list[list[str]] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        error: dict[str, Any] = {"message": message, "type": kind, "code": code, "fbtrace_id": _trace()}
        if subcode is not None:
            error["error_subcode"] = subcode
        if transient:
            error["is_transient"] = True
        if blame:
            error["error_data"] = {"blame_field_specs": blame}
        return json_reply(status, {"error": error}, self._usage_headers() | (headers or {}))

    def _usage_headers(self) -> dict[str, str]:
        if not self._usage_step:
            return {}
        percent = int(self.usage)
        return {"x-app-usage": json.dumps({"call_count": percent, "total_time": percent // 2, "total_cputime": 0})}

    def events(self) -> dict[str, Any]:
        """Give what was received."""
        with self._lock:
            return {
                "calls": self.calls,
                "events": len(self.received),
                "duplicates": self.duplicates,
                "test_events": self.test_events,
                "largest_request": self.largest_request,
                "received": self.bodies[:1_000],
            }

    def clear(self) -> None:
        """Forget what was received."""
        with self._lock:
            self.calls = self.duplicates = self.test_events = self.largest_request = 0
            self.usage = 0.0
            self.received.clear()
            self.bodies.clear()


# HTTP status, code, subcode, is_transient. 17 with 500 and 21009 with 400 were seen in the wild.
_ERRORS: dict[str, tuple[int, int, int | None, bool]] = {
    "transient": (500, 2, None, True),
    "not_ready": (400, 21009, None, False),
    "app_limit": (400, 4, None, True),
    "user_limit": (500, 17, 2446079, False),
    "token": (500, 190, 463, False),
    "pixel": (400, 100, 33, False),
    "permission": (403, 200, None, False),
    "refuse": (400, 100, 2804019, False),
    "deprecated": (400, 2635, None, False),
}


def _fields(call: Call) -> dict[str, Any]:
    """Read the body: a JSON object, or a form."""
    if "json" in call.headers.get("content-type", ""):
        try:
            document = json.loads(call.body)
        except ValueError:
            return {}
        return document if isinstance(document, dict) else {}
    form = parse_qs(call.body.decode("utf-8", "replace"), keep_blank_values=True)
    return {name: values[0] for name, values in form.items()}


def _events(data: Any) -> list[dict[str, Any]] | None:
    """Read events: objects, JSON texts of objects, or one JSON text of either."""
    try:
        if isinstance(data, str):
            data = json.loads(data)
        if not isinstance(data, list):
            return None
        events = [json.loads(entry) if isinstance(entry, str) else entry for entry in data]
    except ValueError:
        return None
    return events if all(isinstance(event, dict) for event in events) else None


def _first(query: Any, name: str) -> str | None:
    values = query.get(name)
    return values[0] if values else None


def _trace() -> str:
    return "A" + secrets.token_urlsafe(16)
