"""A stand-in for GA4's Measurement Protocol.

Contract: `/mp/collect` answers 204 to everything, as GA4 does, and drops what breaks a rule into `dropped`, where tests
can see it; `/debug/mp/collect` answers 200 with validation messages and records nothing. A purchase counts once per
transaction id of its web stream, the empty one included; every other event counts as often as it comes. An event older
than 72 hours is stamped anew, silently.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.faults import FaultScript
from attributary.local.fakes.ga4_checks import messages_of
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = frozenset(("http_500", "http_503", "http_429", "slow", "reset_after", "reset_before"))
_STATUS = {"http_500": 500, "http_503": 503, "http_429": 429}
_HOURS_72 = 72 * 3_600_000_000
_KEPT = 20_000


class Ga4Fake:
    """Google's side.

    Args:
        secrets: API secrets that are good; empty: any. A bad one still gets 204, its events are dropped.
    """

    def __init__(self, *, secrets: Sequence[str] = ()) -> None:
        self.script = FaultScript()
        self.kinds = KINDS
        self.clock_offset = 0.0
        self.calls = 0
        self.debug_calls = 0
        self.counted = 0
        self.purchase_copies = 0
        self.restamped = 0
        self.largest_request = 0
        self.accepted: list[dict[str, Any]] = []
        self.dropped: list[dict[str, Any]] = []
        self.purchases: dict[tuple[str, str], int] = {}
        self._secrets = frozenset(secrets)
        self._lock = threading.Lock()

    def answer(self, call: Call) -> Reply:
        """Answer one request."""
        if call.path == "/debug/mp/collect":
            return self._debug(call)
        if call.path != "/mp/collect" or call.method != "POST":
            return Reply(404, b"<html>404</html>", {"content-type": "text/html"})
        fault = self.script.next()
        with self._lock:
            self.calls += 1
        if fault is not None and fault.kind in _STATUS:
            return Reply(_STATUS[fault.kind], b"", {"retry-after": "1"} if fault.kind == "http_429" else {})
        if fault is not None and fault.kind == "reset_before":
            return Reply(0, reset=True)
        self._receive(call)
        if fault is not None and fault.kind == "reset_after":
            return Reply(0, reset=True)
        return Reply(204, after_seconds=fault.seconds if fault is not None else 0.0)

    def _receive(self, call: Call) -> None:
        document = _document(call.body)
        stream = _stream(call)
        problems = messages_of(document, len(call.body), app="firebase_app_id" in call.query)
        secret = (call.query.get("api_secret") or [""])[0]
        now = int((time.time() + self.clock_offset) * 1e6)
        with self._lock:
            if problems or stream is None or (self._secrets and secret not in self._secrets):
                self.dropped.append({"document": document, "problems": problems, "stream": stream})
                return
            events = document["events"]
            self.largest_request = max(self.largest_request, len(events))
            for event in events:
                self._count(stream, event, document, now, web="measurement_id" in call.query)

    def _count(self, stream: str, event: dict[str, Any], document: dict[str, Any], now: int, *, web: bool) -> None:
        stamp = event.get("timestamp_micros", document.get("timestamp_micros", now))
        self.restamped += now - stamp > _HOURS_72
        if web and event["name"] == "purchase":
            key = (stream, str(event.get("params", {}).get("transaction_id")))
            self.purchases[key] = self.purchases.get(key, 0) + 1
            if self.purchases[key] > 1:
                self.purchase_copies += 1
                return
        self.counted += 1
        if len(self.accepted) < _KEPT:
            around = {key: value for key, value in document.items() if key != "events"}
            self.accepted.append({"stream": stream, "envelope": around, "event": event})

    def _debug(self, call: Call) -> Reply:
        with self._lock:
            self.debug_calls += 1
        problems = messages_of(_document(call.body), len(call.body), app="firebase_app_id" in call.query)
        return json_reply(200, {"validationMessages": problems})

    def events(self) -> dict[str, Any]:
        """Give what was received."""
        with self._lock:
            return {
                "calls": self.calls,
                "events": self.counted,
                "purchase_copies": self.purchase_copies,
                "restamped": self.restamped,
                "largest_request": self.largest_request,
                "accepted": self.accepted[:1_000],
                "dropped": self.dropped[:1_000],
            }

    def clear(self) -> None:
        """Forget what was received."""
        with self._lock:
            self.calls = self.debug_calls = self.counted = self.purchase_copies = self.restamped = 0
            self.largest_request = 0
            self.accepted.clear()
            self.dropped.clear()
            self.purchases.clear()


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _stream(call: Call) -> str | None:
    for name in ("measurement_id", "firebase_app_id"):
        if values := call.query.get(name):
            return values[0]
    return None
