"""A stand-in for Reddit's Conversions API v3.

Contract: `POST /api/v3/pixels/{pixel}/conversion_events` as the documentation has it. One bad event refuses its whole
request; all are named by path, and an unknown property is one of the faults. A default user agent is throttled.
Received events are counted once per (pixel, type, name, conversion_id), Reddit's rule within two days; those beside a
test id are checked and counted as tests.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from attributary.local.fakes.faults import Fault

_PATH = re.compile(r"/api/v3/pixels/([a-z0-9_]{1,40})/conversion_events")
_DEFAULT_AGENTS = re.compile(r"(?i)(python|curl|go-http|java|okhttp|axios|node)|^attributary$|^$")
_MOST_EVENTS = 1_000
_DAY_MS = 86_400_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"\d{10,16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SOURCES = frozenset(("WEBSITE", "APP", "OTHER", "PHYSICAL_STORE"))
_TYPES = frozenset((
    "PAGE_VISIT", "VIEW_CONTENT", "SEARCH", "ADD_TO_CART", "ADD_TO_WISHLIST", "PURCHASE", "LEAD", "SIGN_UP", "CUSTOM",
))  # fmt: skip
_KNOWN = {
    "": frozenset(("event_at", "action_source", "type", "click_id", "event_source_url", "metadata", "user")),
    "type": frozenset(("tracking_type", "custom_event_name")),
    "metadata": frozenset(("conversion_id", "value", "currency", "item_count", "products")),
    "user": frozenset((
        "email", "phone_number", "external_id", "idfa", "aaid", "ip_address", "user_agent", "uuid",
        "screen_dimensions", "data_processing_options",
    )),
}  # fmt: skip
_PRODUCT = frozenset(("id", "name", "category", "item_price", "quantity"))


class RedditFake(StandIn):
    """Reddit's side.

    Args:
        tokens: conversion tokens that are good; empty: any.
        pixels: pixels that exist; empty: any.
    """

    own_kinds = frozenset(("no_scope", "broken_json"))

    def __init__(self, *, tokens: Sequence[str] = (), pixels: Sequence[str] = ()) -> None:
        super().__init__()
        self._tokens = frozenset(tokens)
        self._pixels = frozenset(pixels)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        if fault.kind == "no_scope":
            return _refused(403, "UNAUTHORIZED")
        if fault.kind == "broken_json":  # seen from v2: the event's fault under the status of a missing right
            return _refused(403, "JSON error: cannot unmarshal")
        if fault.kind == "http_429":  # Reddit sends no header that says how long
            return _refused(429, "Too Many Requests")
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address, agent or token."""
        place = _PATH.fullmatch(call.path)
        if place is None or call.method != "POST":
            return _refused(404, "Not Found")
        if _DEFAULT_AGENTS.search(call.headers.get("user-agent", "")):
            return _refused(429, "Too Many Requests")
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or (self._tokens and token not in self._tokens):
            return _refused(401, "Unauthorized")
        return _refused(403, "UNAUTHORIZED") if self._pixels and place[1] not in self._pixels else None

    def take(self, call: Call, fault: Fault | None) -> Reply:  # noqa: ARG002  # as all stand-ins
        """Take the events of a request, or none."""
        try:
            data = json.loads(call.body)["data"]
            events = data["events"]
        except (ValueError, KeyError, TypeError):
            return _refused(400, "Bad Request")
        if data.keys() - {"events", "test_id", "partner"} or not events or len(events) > _MOST_EVENTS:
            self.received.refuse(len(events))
            return _refused(400, "Bad Request")
        faults = [
            {"field": f"$.data.events[{n}].{place}", "message": "invalid"}
            for n, event in enumerate(events)
            for place in self._broken(event)
        ]
        if faults:
            self.received.refuse(len(events))
            bad = len({each["field"].partition("]")[0] for each in faults})
            return _refused(400, f"There were {bad} invalid conversion events. None were processed.", faults)
        pixel = call.path.split("/")[4]
        if data.get("test_id"):
            self.received.test(len(events))
        else:
            self.received.keep([((pixel, *_key(event)), event) for event in events])
        return json_reply(200, {"data": {"message": f"Successfully processed {len(events)} conversion events."}})

    def _broken(self, event: Any) -> Iterator[str]:
        if not isinstance(event, dict):
            yield "event"
            return
        for part, known in _KNOWN.items():
            given = event if part == "" else event.get(part, {})
            if not isinstance(given, dict) or (part and part in event and not given):
                yield part
                return
            yield from (f"{part}.{name}".lstrip(".") for name in given.keys() - known)
        when, now = event.get("event_at"), self.now * 1_000
        if not isinstance(when, int) or isinstance(when, bool) or not now - 7 * _DAY_MS <= when <= now + 600_000:
            yield "event_at"
        if event.get("action_source") not in _SOURCES:
            yield "action_source"
        yield from _broken_type(event.get("type", {}))
        yield from _broken_user(event.get("user", {}), is_offline=event.get("action_source") == "PHYSICAL_STORE")
        yield from _broken_metadata(event.get("metadata", {}))
        if event.get("metadata", {}).get("conversion_id") in self.poison:
            yield "metadata.conversion_id"


def _key(event: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = event["type"]
    return kind["tracking_type"], kind.get("custom_event_name"), event.get("metadata", {}).get("conversion_id")


def _broken_type(kind: Mapping[str, Any]) -> Iterator[str]:
    if kind.get("tracking_type") not in _TYPES:
        yield "type.tracking_type"
    name = kind.get("custom_event_name")
    if (name is not None) != (kind.get("tracking_type") == "CUSTOM") or len(str(name or "")) > 64:
        yield "type.custom_event_name"


def _broken_user(user: Mapping[str, Any], *, is_offline: bool) -> Iterator[str]:
    for name in ("email", "phone_number", "external_id", "idfa", "aaid"):
        if name in user and (not isinstance(user[name], str) or _DIGEST.fullmatch(user[name]) is None):
            yield f"user.{name}"
    if "uuid" in user and _UUID.fullmatch(str(user["uuid"])) is None:
        yield "user.UUID"
    if is_offline and user.keys() - {"email", "phone_number", "data_processing_options"}:
        yield "user"


def _broken_metadata(data: Mapping[str, Any]) -> Iterator[str]:
    for name in ("value", "item_count"):
        if name in data and (not isinstance(data[name], int | float) or isinstance(data[name], bool)):
            yield f"metadata.{name}"
    for number, product in enumerate(data.get("products", [])):
        if product.keys() - _PRODUCT or not isinstance(product.get("quantity", 1), int):
            yield f"metadata.products[{number}]"


def _refused(status: int, message: str, fields: Sequence[Mapping[str, str]] = ()) -> Reply:
    error: dict[str, Any] = {"code": status, "message": message}
    return json_reply(status, {"error": error | ({"fields": list(fields)} if fields else {})})
