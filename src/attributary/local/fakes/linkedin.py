"""A stand-in for LinkedIn's Conversions API.

Contract: `POST /rest/conversionEvents` with a batch, and `GET /rest/conversions` for the rules of an ad account, as the
documentation has them. One bad event refuses its whole
request; the message names all of them by position. Versions older than a year are answered with 426. LinkedIn's removal
of duplicates between two calls is not documented: copies are counted.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.local.fakes.faults import Fault

_PATH = "/rest/conversionEvents"
_RULES_PATH = "/rest/conversions"
_ACCOUNT = re.compile(r"urn:li:sponsoredAccount:\d{1,20}")
_MOST_EVENTS = 5_000
_URN = re.compile(r"urn:lla:llaPartnerConversion:\d{1,20}")
_AMOUNT = re.compile(r"\d+(\.\d+)?")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DAY_MS = 86_400_000
_TYPES = frozenset(("SHA256_EMAIL", "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "ACXIOM_ID", "ORACLE_MOAT_ID"))


class LinkedInFake(StandIn):
    """LinkedIn's side.

    Args:
        tokens: access tokens that are good; empty: any.
        rules: ids of conversion rules that exist; empty: any.
    """

    own_kinds = frozenset(("revoked", "permission", "some_fail"))

    def __init__(self, *, tokens: Sequence[str] = (), rules: Sequence[str] = ()) -> None:
        super().__init__()
        self._tokens = frozenset(tokens)
        self.rules = frozenset(rules)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        if fault.kind == "revoked":
            return json_reply(401, {"serviceErrorCode": 65601, "code": "REVOKED_ACCESS_TOKEN", "status": 401})
        if fault.kind == "permission":
            return json_reply(403, {"serviceErrorCode": 100, "code": "ACCESS_DENIED", "status": 403})
        if fault.kind == "http_429":  # LinkedIn sends no header that says how long
            return json_reply(429, {"code": "TOO_MANY_REQUESTS", "status": 429})
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address, token or version."""
        if (call.method, call.path) not in {("POST", _PATH), ("GET", _RULES_PATH)}:
            return json_reply(404, {"status": 404, "code": "RESOURCE_NOT_FOUND"})
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            return json_reply(401, {"serviceErrorCode": 65604, "code": "EMPTY_ACCESS_TOKEN", "status": 401})
        if self._tokens and token not in self._tokens:
            return json_reply(401, {"serviceErrorCode": 65600, "code": "INVALID_ACCESS_TOKEN", "status": 401})
        if not self._is_live(call.headers.get("linkedin-version", "")):
            return json_reply(426, {"code": "NONEXISTENT_VERSION", "status": 426})
        return None

    def _is_live(self, version: str) -> bool:
        if not re.fullmatch(r"20\d\d(0[1-9]|1[0-2])", version):
            return False
        today = dt.datetime.fromtimestamp(self.now, dt.UTC)
        age = (today.year - int(version[:4])) * 12 + today.month - int(version[4:])
        return 0 <= age <= 12

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Take the events of a request, or none; or list the rules of an account."""
        if call.path == _RULES_PATH:
            return self._listed(call)
        try:
            document = json.loads(call.body)
        except ValueError:
            return _refused(400, "invalid JSON")
        events = document.get("elements") if isinstance(document, dict) else None
        is_batch = call.headers.get("x-restli-method") == "BATCH_CREATE"
        if not isinstance(events, list) or not is_batch or call.headers.get("x-restli-protocol-version") != "2.0.0":
            return _refused(400, "/elements: unrecognized field found but not allowed")
        if not events or len(events) > _MOST_EVENTS:
            self.received.refuse(len(events))
            return _refused(400, "too many or no elements")
        lines = [f"Index: {n}, ERROR :: {rule}" for n, event in enumerate(events) if (rule := self._broken(event))]
        if lines:
            self.received.refuse(len(events))
            return _refused(422, "\n".join(lines))
        failing = {0} if fault is not None and fault.kind == "some_fail" else set()
        taken = [event for number, event in enumerate(events) if number not in failing]
        self.received.keep([((event["conversion"], event.get("eventId")), event) for event in taken])
        return json_reply(200, {"elements": [{"status": 400 if n in failing else 201} for n in range(len(events))]})

    def _listed(self, call: Call) -> Reply:
        places = call.query.get("account", [])
        if call.query.get("q") != ["account"] or len(places) != 1 or _ACCOUNT.fullmatch(places[0]) is None:
            return _refused(400, "account: Invalid Urn")
        self.received.test(1)
        rules = [
            {"id": int(rule), "conversionMethod": "CONVERSIONS_API", "enabled": True} for rule in self.rules or ("1",)
        ]
        return json_reply(200, {"elements": rules, "paging": {"start": 0, "count": len(rules)}})

    def _broken(self, event: Any) -> str | None:
        if not isinstance(event, dict):
            return "/ :: not an object"
        urn = event.get("conversion")
        if not isinstance(urn, str) or _URN.fullmatch(urn) is None:
            return "/conversion :: Invalid Urn format"
        if self.rules and urn.rpartition(":")[2] not in self.rules:
            return "/conversion :: method should be CONVERSIONS_API"
        when = event.get("conversionHappenedAt")
        now = self.now * 1_000
        if not isinstance(when, int) or isinstance(when, bool) or not now - 90 * _DAY_MS <= when <= now + 60_000:
            return "/conversionHappenedAt :: INVALID_CONVERSION_TIME"
        if event.get("eventId") in self.poison:
            return "/user :: refused"
        return _broken_user(event.get("user")) or _broken_value(event.get("conversionValue"))


def _broken_user(user: Any) -> str | None:
    ids = user.get("userIds") if isinstance(user, dict) else None
    if not isinstance(ids, list) or not ids:
        return "/user/userIds :: field is required but not found"
    for each in ids:
        if not isinstance(each, dict) or each.get("idType") not in _TYPES or not isinstance(each.get("idValue"), str):
            return "/user/userIds/idType :: not an enum symbol"
        if each["idType"] == "SHA256_EMAIL" and _DIGEST.fullmatch(each["idValue"]) is None:
            return "/user/userIds/idValue :: not a SHA-256"
    return None


def _broken_value(value: Any) -> str | None:
    if value is None:
        return None
    amount, currency = (value.get(name) if isinstance(value, dict) else None for name in ("amount", "currencyCode"))
    if not isinstance(amount, str) or _AMOUNT.fullmatch(amount) is None or not isinstance(currency, str):
        return "/conversionValue/amount :: cannot be coerced to a decimal"
    return None


def _refused(status: int, message: str) -> Reply:
    return json_reply(status, {"status": status, "code": "INVALID", "message": message})
