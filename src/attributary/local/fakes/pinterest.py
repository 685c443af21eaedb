"""A stand-in for Pinterest's API for Conversions (v5).

Contract: `POST /v5/ad_accounts/{id}/events` as the OpenAPI description has it. A bad event does not spoil its request:
the others are taken. The answer is a 200 that lists every event, or, on order, a 422 with or without such a list. With
`?test=true` the answer is the same, and nothing is taken. What Pinterest does with copies of two calls is not
documented: they are counted.
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

_PATH = re.compile(r"/v5/ad_accounts/(\d{1,20})/events")
_MOST_EVENTS = 1_000
_DAY = 86_400
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DECIMAL = re.compile(r"-?\d+(\.\d+)?")
_SOURCES = frozenset(("app_android", "app_ios", "web", "offline"))
_NAMES = frozenset((
    "checkout", "add_to_cart", "page_visit", "lead", "signup", "search", "view_category", "view_content",
    "initiate_checkout", "add_payment_info", "add_to_wishlist", "subscribe", "start_trial", "contact", "schedule",
    "submit_application", "custom",
))  # fmt: skip
_HASHED = frozenset(("em", "ph", "ge", "db", "fn", "ln", "ct", "st", "zp", "country", "external_id", "hashed_maids"))
_PLAIN = frozenset(("client_ip_address", "client_user_agent", "click_id", "partner_id"))


class PinterestFake(StandIn):
    """Pinterest's side.

    Args:
        tokens: conversion tokens that are good; empty: any.
        accounts: ad accounts that exist; empty: any.
    """

    own_kinds = frozenset(("no_right", "ramped_down", "listed_422", "bare_422"))

    def __init__(self, *, tokens: Sequence[str] = (), accounts: Sequence[str] = ()) -> None:
        super().__init__()
        self._tokens = frozenset(tokens)
        self._accounts = frozenset(accounts)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken; both kinds of 422 take the good events."""
        if fault.kind == "no_right":
            return _refused(403, "You are not permitted to access that resource.")
        if fault.kind == "ramped_down":
            return _refused(503, "The service is ramped down")
        if fault.kind == "http_429":  # Pinterest sends no header that says how long
            return _refused(429, "You have exceeded your rate limit.")
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address or token."""
        place = _PATH.fullmatch(call.path)
        if place is None or call.method != "POST":
            return _refused(404, "Not found")
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or (self._tokens and token not in self._tokens):
            return _refused(401, "Authentication failed.")
        return _refused(403, "Not authorized") if self._accounts and place[1] not in self._accounts else None

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Take the good events of a request."""
        try:
            events = json.loads(call.body)["data"]
        except (ValueError, KeyError, TypeError):
            return _refused(400, "Invalid request body")
        if not isinstance(events, list) or not 0 < len(events) <= _MOST_EVENTS:
            return _refused(400, "data must have 1 to 1000 elements")
        wrong = [self._broken(event) for event in events]
        good = [event for event, rule in zip(events, wrong, strict=True) if rule is None]
        self.received.refuse(len(events) - len(good))
        if call.query.get("test") == ["true"]:
            self.received.test(len(good))
        else:
            self.received.keep([((event["event_name"], event["event_id"]), event) for event in good])
        listed = {
            "num_events_received": len(events),
            "num_events_processed": len(good),
            "events": [
                {"status": "failed" if rule else "processed", "error_message": rule or "", "warning_message": ""}
                for rule in wrong
            ],
        }
        kind = fault.kind if fault else ""
        if kind in {"listed_422", "bare_422"} and len(good) < len(events):
            details = listed if kind == "listed_422" else {}
            return json_reply(422, {"code": 3, "message": "Not all events were processed", "details": details})
        return json_reply(200, listed)

    def _broken(self, event: Any) -> str | None:
        if not isinstance(event, dict) or event.get("event_name") not in _NAMES:
            return "event_name is not one of the known"
        when = event.get("event_time")
        if not isinstance(when, int) or isinstance(when, bool) or not -600 <= self.now - when <= 7 * _DAY:
            return "event_time is out of range"
        if event.get("action_source") not in _SOURCES or not isinstance(event.get("event_id"), str):
            return "action_source or event_id is wrong"
        if event["event_id"] in self.poison:
            return "refused"
        return _broken_user(event.get("user_data")) or _broken_data(event.get("custom_data", {}))


def _broken_user(user: Any) -> str | None:
    if not isinstance(user, dict):
        return "user_data is missing"
    if not (user.get("em") or user.get("hashed_maids") or {"client_ip_address", "client_user_agent"} <= user.keys()):
        return "user_data: em, hashed_maids, or both client_ip_address and client_user_agent"
    for name, values in user.items():
        if name in _PLAIN:
            continue
        if name not in _HASHED or not isinstance(values, list):
            return f"user_data.{name} is wrong"
        if any(not isinstance(each, str) or _DIGEST.fullmatch(each) is None for each in values):
            return f"user_data.{name} is not hashed"
    return None


def _broken_data(data: Mapping[str, Any]) -> str | None:
    prices = [content.get("item_price") for content in data.get("contents", [])]
    for text in [data.get("value"), *prices]:
        if text is not None and (not isinstance(text, str) or _DECIMAL.fullmatch(text) is None):
            return "a value is not a decimal text"
    counts = [data.get("num_items", 1), *(content.get("quantity", 1) for content in data.get("contents", []))]
    return None if all(isinstance(each, int) for each in counts) else "a count is not an integer"


def _refused(status: int, message: str) -> Reply:
    return json_reply(status, {"code": status, "message": message})
