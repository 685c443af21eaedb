"""A stand-in for X's Conversion API.

Contract: `POST /12/measurement/conversions/{pixel}` as the documentation has it. It computes the OAuth 1.0a signature
by itself, refuses a number that was used before and a clock that is five minutes off, or takes the token of the Events
Manager. One bad event refuses its whole request; all faults are listed, without positions. Received events are counted
once per (event_id, conversion_id), X's rule within 48 hours.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
from datetime import datetime
from email.utils import formatdate
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.local.fakes.faults import Fault

_PATH = re.compile(r"/12/measurement/conversions/([a-z0-9]{1,20})")
_MOST_EVENTS = 500
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_TAG = re.compile(r"[A-Za-z0-9]{1,20}|tw-[A-Za-z0-9]{1,20}-[A-Za-z0-9]{1,20}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SKEW_SECONDS = 300
_ENOUGH = frozenset(("twclid", "hashed_email", "hashed_phone_number"))


class XFake(StandIn):
    """X's side.

    Args:
        keys: consumer key, consumer secret, token, token secret that are good; empty: only pixel tokens are.
        pixel_tokens: tokens of the Events Manager that are good.
        tags: event tags that exist; empty: any.
    """

    own_kinds = frozenset(("locked", "over_capacity", "limit", "unauthorized"))

    def __init__(self, *, keys: Sequence[str] = (), pixel_tokens: Sequence[str] = (), tags: Sequence[str] = ()) -> None:
        super().__init__()
        self._keys = tuple(keys)
        self._pixel_tokens = frozenset(pixel_tokens)
        self.tags = frozenset(tags)
        self._nonces: set[str] = set()

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        match fault.kind:
            case "locked":
                return _refused(423, "LOCK_ACQUISITION_TIMEOUT", "try again")
            case "over_capacity":
                return _refused(503, "OVER_CAPACITY", "try again")
            case "unauthorized":
                return _refused(401, "UNAUTHORIZED_ACCESS", "This request is not properly authenticated")
            case "limit":
                reset = str(int(self.now + fault.seconds))
                date = {
                    "date": formatdate(self.now, usegmt=True),
                    "x-rate-limit-reset": reset,
                    "x-rate-limit-remaining": "0",
                }
                return _refused(429, "TOO_MANY_REQUESTS", "rate limit", date)
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address or signature."""
        if _PATH.fullmatch(call.path) is None or call.method != "POST":
            return _refused(404, "ROUTE_NOT_FOUND", "no such route")
        if call.headers.get("x-pixel-token") in self._pixel_tokens:
            return None
        if not self._keys or not self._is_signed(call):
            return _refused(401, "UNAUTHORIZED_ACCESS", "This request is not properly authenticated")
        return None

    def _is_signed(self, call: Call) -> bool:
        header = call.headers.get("authorization", "")
        given = {n: unquote(v) for n, v in re.findall(r'(oauth_\w+)="([^"]*)"', header.removeprefix("OAuth "))}
        told = given.pop("oauth_signature", "")
        when = given.get("oauth_timestamp", "")
        nonce = given.get("oauth_nonce", "")
        is_late = not when.isdigit() or abs(int(when) - self.now) > _SKEW_SECONDS
        if is_late or not nonce or nonce in self._nonces or given.get("oauth_signature_method") != "HMAC-SHA1":
            return False
        self._nonces.add(nonce)
        key, secret, token, token_secret = self._keys
        if (given.get("oauth_consumer_key"), given.get("oauth_token")) != (key, token):
            return False
        url = f"http://{call.headers.get('host', '')}{call.path}"
        good = base64.b64encode(_hmac(url, given, secret, token_secret)).decode()
        return hmac.compare_digest(good, told)

    def take(self, call: Call, fault: Fault | None) -> Reply:  # noqa: ARG002  # as all stand-ins
        """Take the events of a request, or none."""
        try:
            document = json.loads(call.body)
        except ValueError:
            return _refused(400, "INVALID_PARAMETER", "invalid JSON")
        events = document.get("conversions") if isinstance(document, dict) else None
        if not isinstance(events, list) or not events or len(events) > _MOST_EVENTS:
            return _refused(400, "INVALID_PARAMETER", "conversions: count must be between 1 and 500")
        faults = [broken for event in events if (broken := self._broken(event))]
        if faults:
            self.received.refuse(len(events))
            return json_reply(400, {"errors": [{"code": code, "message": text} for code, text in faults]})
        self.received.keep([((event["event_id"], event.get("conversion_id")), event) for event in events])
        data = {"conversions_processed": len(events), "debug_id": secrets.token_hex(8)}
        return json_reply(200, {"request": {}, "data": data})

    def _broken(self, event: Any) -> tuple[str, str] | None:
        if not isinstance(event, dict):
            return "INVALID_PARAMETER", "not an object"
        when = event.get("conversion_time")
        if not isinstance(when, str) or _TIME.fullmatch(when) is None:
            return "INVALID_PARAMETER", f"Expected yyyy-MM-ddTHH:mm:ss.SSSZ, got {when!r} for conversion_time"
        if not -90 * 86_400 <= datetime.fromisoformat(when).timestamp() - self.now <= _SKEW_SECONDS:
            return "INVALID_PARAMETER", "conversion_time is out of range"
        tag = event.get("event_id")
        if not isinstance(tag, str) or _TAG.fullmatch(tag) is None or (self.tags and tag not in self.tags):
            return "INVALID_PARAMETER", f"Event ID was not found: {tag!r}"
        if event.get("conversion_id") in self.poison:
            return "INVALID_PARAMETER", "refused"
        return _broken_identifiers(event.get("identifiers")) or _broken_value(event)


def _broken_identifiers(identifiers: Any) -> tuple[str, str] | None:
    if not isinstance(identifiers, list) or not identifiers:
        return "MISSING_PARAMETER", "identifiers"
    names = {name for each in identifiers if isinstance(each, dict) for name in each}
    if not names & _ENOUGH:
        return "MISSING_PARAMETER", "identifiers: one of twclid, hashed_email, hashed_phone_number is needed"
    for each in identifiers:
        for name in ("hashed_email", "hashed_phone_number"):
            if name in each and _DIGEST.fullmatch(str(each[name])) is None:
                return "INVALID_PARAMETER", f"{each[name]} is not a SHA-256"
    return None


def _broken_value(event: Mapping[str, Any]) -> tuple[str, str] | None:
    if "value" in event and (not isinstance(event["value"], int | float) or isinstance(event["value"], bool)):
        return "INVALID_PARAMETER", "value must be a number"
    if "number_items" in event and (not isinstance(event["number_items"], int) or event["number_items"] <= 0):
        return "INVALID_PARAMETER", "number_items must be above 0"
    return None


def _hmac(url: str, given: Mapping[str, str], secret: str, token_secret: str) -> bytes:
    """Return the signature, computed without the code of the destination."""
    pairs = sorted((quote(name, safe="~"), quote(value, safe="~")) for name, value in given.items())
    base = "&".join(f"{name}={value}" for name, value in pairs)
    text = f"POST&{quote(url, safe='~')}&{quote(base, safe='~')}"
    key = f"{quote(secret, safe='~')}&{quote(token_secret, safe='~')}"
    return hmac.new(key.encode(), text.encode(), hashlib.sha1).digest()


def _refused(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return json_reply(status, {"errors": [{"code": code, "message": message}]}, headers)
