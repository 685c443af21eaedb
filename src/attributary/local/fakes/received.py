"""What a stand-in has received: events by the key by which the platform removes duplicates, and its answers on order.

Contract: thread-safe. `StandIn` is what the stand-ins of platforms that answer in JSON share: faults, counting and the
admin surface. Each platform checks callers and events.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.faults import Fault, FaultScript
from attributary.local.fakes.server import Reply

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from attributary.local.fakes.server import Call

COMMON_KINDS = frozenset(("html_502", "http_500", "http_429", "reset_before", "reset_after", "slow", "cut"))
_KEPT_BODIES = 20_000  # whole events kept for the admin surface; keys are kept of all


class Received:
    """Events of one stand-in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0
        self.refused = 0
        self.duplicates = 0
        self.tests = 0
        self.largest_request = 0
        self.by_key: dict[Hashable, int] = {}
        self.bodies: list[dict[str, Any]] = []

    def call(self) -> None:
        """Count a request."""
        with self._lock:
            self.calls += 1

    def refuse(self, events: int) -> None:
        """Count events of a request that is refused."""
        with self._lock:
            self.refused += events

    def test(self, events: int) -> None:
        """Count events that were checked or shown as a test, and not taken."""
        with self._lock:
            self.tests += events

    def keep(self, events: Sequence[tuple[Hashable, dict[str, Any]]]) -> None:
        """Take events, each with the key by which the platform removes duplicates."""
        with self._lock:
            self.largest_request = max(self.largest_request, len(events))
            for key, body in events:
                copies = self.by_key.get(key, 0)
                self.by_key[key] = copies + 1
                self.duplicates += copies > 0
                if len(self.bodies) < _KEPT_BODIES:
                    self.bodies.append(body)

    def summary(self) -> dict[str, Any]:
        """Give what was received, for the admin surface."""
        with self._lock:
            return {
                "calls": self.calls,
                "events": len(self.by_key),
                "refused": self.refused,
                "duplicates": self.duplicates,
                "test_events": self.tests,
                "largest_request": self.largest_request,
                "received": self.bodies[:1_000],
            }

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self.calls = self.refused = self.duplicates = self.tests = self.largest_request = 0
            self.by_key.clear()
            self.bodies.clear()


class StandIn(ABC):
    """A platform's side that answers in JSON."""

    own_kinds: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.script = FaultScript()
        self.kinds = COMMON_KINDS | self.own_kinds
        self.clock_offset = 0.0
        self.time = time.time
        self.received = Received()
        self.poison: set[str] = set()  # event ids that are refused for a reason that only the platform knows

    @property
    def now(self) -> float:
        """Seconds since 1970 by the stand-in's own clock."""
        return self.time() + self.clock_offset

    def answer(self, call: Call) -> Reply:
        """Answer one request."""
        self.received.call()
        fault = self.script.next()
        if fault is not None and (reply := self.fail(fault)):
            return reply
        if refusal := self.check_call(call):
            return refusal
        reply = self.take(call, fault)
        match fault.kind if fault else "":
            case "reset_after":
                return Reply(0, reset=True)
            case "slow":
                return Reply(reply.status, reply.body, reply.headers, after_seconds=fault.seconds if fault else 0.0)
            case "cut":
                return Reply(reply.status, reply.body[: len(reply.body) // 2], reply.headers)
        return reply

    def fail(self, fault: Fault) -> Reply | None:
        """Give the answer of a fault before which nothing was taken; None for the other faults."""
        match fault.kind:
            case "reset_before":
                return Reply(0, reset=True)
            case "html_502":
                return Reply(502, b"<html><body>Bad Gateway</body></html>", {"content-type": "text/html"})
            case "http_500":
                return Reply(500, b"", {"content-type": "text/plain"})
            case "http_429":
                return Reply(429, b"", {"retry-after": str(int(fault.seconds))})
        return None

    @abstractmethod
    def check_call(self, call: Call) -> Reply | None:
        """Refuse a caller or an address; None when both are good."""

    @abstractmethod
    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Check and keep the events of a request."""

    def events(self) -> dict[str, Any]:
        """Give what was received."""
        return self.received.summary()

    def clear(self) -> None:
        """Forget what was received."""
        self.received.clear()
