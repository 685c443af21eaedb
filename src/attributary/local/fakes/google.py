"""A stand-in for Google's Data Manager API v1, with its token endpoint.

Contract: `POST /v1/events:ingest` and `GET /v1/requestStatus:retrieve` as the documentation has them, `POST /token` as
Google's OAuth. A structural fault anywhere refuses the whole request and names its fields by position; what it takes is
"received", and its status stays PROCESSING until half an hour has gone by the stand-in's clock. Then only counts tell
what was refused. With `validateOnly` errors alone are returned, and nothing is taken. Events are counted by (account,
conversion action, transaction id); the same id again replaces value and currency.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.local.fakes.oauth import OAuthFake
from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.local.fakes.faults import Fault

_INGEST = "/v1/events:ingest"
_STATUS = "/v1/requestStatus:retrieve"
_MOST_EVENTS = 2_000
_MOST_IDENTIFIERS = 10
_STATUS_SECONDS = 1_800
_MAX_AGE_SECONDS = 90 * 86_400
_ENCODINGS = ("HEX", "BASE64", 1, 2)  # Google's own client sends enumerations as numbers
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
_REQUEST = frozenset(("destinations", "events", "consent", "encoding", "validateOnly", "encryptionInfo"))
_EVENT = frozenset((
    "destinationReferences", "transactionId", "eventTimestamp", "lastUpdatedTimestamp", "userData", "consent",
    "adIdentifiers", "currency", "conversionValue", "eventSource", "eventDeviceInfo", "cartData", "customVariables",
    "experimentalFields", "userProperties", "conversionCount", "eventName", "clientId", "userId", "appInstanceId",
    "additionalEventParameters", "eventLocation",
))  # fmt: skip
_ANSWERS = {
    "quota": (429, "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
    "internal": (500, "INTERNAL", "INTERNAL_ERROR"),
    "no_right": (403, "PERMISSION_DENIED", "PERMISSION_DENIED"),
    "unavailable": (503, "UNAVAILABLE", ""),
}


class _Taken(NamedTuple):
    at: float
    events: int
    refused: Mapping[str, int]


class GoogleFake(StandIn):
    """Google's side.

    Args:
        oauth: the token endpoint that gives good tokens; None: any token is.
        accounts: customer ids and property ids that exist; empty: any.
        actions: conversion actions and streams that exist; empty: any.
    """

    own_kinds = frozenset(_ANSWERS)

    def __init__(
        self, oauth: OAuthFake | None = None, *, accounts: Sequence[str] = (), actions: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.oauth = oauth
        self.refused_later: dict[str, str] = {}  # transaction ids that are refused after the request was received
        self.taken: dict[str, _Taken] = {}
        self.values: dict[tuple[str, str, str], tuple[Any, Any]] = {}
        self._accounts = frozenset(accounts)
        self.actions = frozenset(actions)
        self._numbers = itertools.count(1)

    def answer(self, call: Call) -> Reply:
        """Answer one request."""
        if call.path == "/token" and self.oauth is not None:
            return self.oauth.answer(call)
        return super().answer(call)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        if fault.kind in _ANSWERS:
            return _error(*_ANSWERS[fault.kind])
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address or token."""
        if (call.method, call.path) not in {("POST", _INGEST), ("GET", _STATUS)}:
            return Reply(404, b"<html>Not Found</html>", {"content-type": "text/html"})
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or (self.oauth is not None and not self.oauth.is_live(token)):
            return _error(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED")
        return None

    def take(self, call: Call, fault: Fault | None) -> Reply:  # noqa: ARG002  # the base class's
        """Take the events of a request, or none; or tell the status of one."""
        if call.path == _STATUS:
            return self._status(next(iter(call.query.get("requestId", ())), ""))
        return self._ingested(call)

    def _ingested(self, call: Call) -> Reply:
        try:
            document = json.loads(call.body)
        except ValueError:
            return _error(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")
        if not isinstance(document, dict) or document.keys() - _REQUEST:
            return _violations([("", "INVALID_ARGUMENT")])
        events = document.get("events")
        if not isinstance(events, list) or not 0 < len(events) <= _MOST_EVENTS:
            return _violations([("events", "TOO_MANY_EVENTS")])
        broken = self._broken_place(document.get("destinations")) or [
            (f"events[{n}].{field}", reason)
            for n, event in enumerate(events)
            for field, reason in self._broken(event, document)
        ]
        if broken:
            self.received.refuse(len(events))
            return _violations(broken)
        if document.get("validateOnly"):
            self.received.test(len(events))
            return json_reply(200, {})
        request_id = f"request-{next(self._numbers)}"
        self._keep(document["destinations"][0], events, request_id)
        return json_reply(200, {"requestId": request_id})

    def _keep(self, place: Mapping[str, Any], events: Sequence[Mapping[str, Any]], request_id: str) -> None:
        account, action = place["operatingAccount"]["accountId"], place["productDestinationId"]
        kept, refused = [], dict[str, int]()
        for event in events:
            transaction = str(event.get("transactionId", ""))
            if reason := self.refused_later.get(transaction):
                refused[reason] = refused.get(reason, 0) + 1
                continue
            key = (account, action, transaction or event["eventTimestamp"])
            self.values[key] = (event.get("conversionValue"), event.get("currency"))
            kept.append((key, dict(event)))
        self.received.keep(kept)
        self.taken[request_id] = _Taken(self.now, len(events), refused)

    def _status(self, request_id: str) -> Reply:
        taken = self.taken.get(request_id)
        if taken is None:
            return _error(400, "INVALID_ARGUMENT", "INVALID_REQUEST_ID")
        entry: dict[str, Any] = {"eventsIngestionStatus": {"recordCount": str(taken.events)}}
        if self.now - taken.at < _STATUS_SECONDS:
            entry["requestStatus"] = "PROCESSING"
        elif not taken.refused:
            entry["requestStatus"] = "SUCCESS"
        else:
            is_all = sum(taken.refused.values()) == taken.events
            entry["requestStatus"] = "FAILED" if is_all else "PARTIAL_SUCCESS"
            counts = [{"recordCount": str(n), "reason": reason} for reason, n in taken.refused.items()]
            entry["errorInfo"] = {"errorCounts": counts}
        return json_reply(200, {"requestStatusPerDestination": [entry]})

    def _broken_place(self, places: Any) -> list[tuple[str, str]]:
        place = places[0] if isinstance(places, list) and len(places) == 1 and isinstance(places[0], dict) else {}
        account = place.get("operatingAccount")
        if not isinstance(account, dict) or not str(account.get("accountId", "-")).isdigit():
            return [("destinations[0].operating_account", "INVALID_DESTINATION")]
        if self._accounts and account["accountId"] not in self._accounts:
            return [("destinations[0].operating_account", "PERMISSION_DENIED")]
        entity = place.get("productDestinationId")
        if not isinstance(entity, str) or (self.actions and entity not in self.actions):
            return [("destinations[0].product_destination_id", "INVALID_CONVERSION_ACTION_ID")]
        return []

    def _broken(self, event: Any, document: Mapping[str, Any]) -> list[tuple[str, str]]:
        if not isinstance(event, dict) or event.keys() - _EVENT:
            return [("", "INVALID_ARGUMENT")]
        found = []
        when = event.get("eventTimestamp")
        if not isinstance(when, str) or _TIME.fullmatch(when) is None:
            found.append(("event_timestamp", "REQUIRED_FIELD_MISSING"))
        elif not -60 <= self.now - dt.datetime.fromisoformat(when).timestamp() <= _MAX_AGE_SECONDS:
            found.append(("event_timestamp", "EVENT_TIME_INVALID"))
        if event.get("transactionId") in self.poison:
            found.append(("ad_identifiers", "INVALID_EVENT"))
        value = event.get("conversionValue")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            found.append(("conversion_value", "INVALID_NUMBER_FORMAT"))
        currency = event.get("currency")
        if currency is not None and re.fullmatch(r"[A-Z]{3}", str(currency)) is None:
            found.append(("currency", "INVALID_CURRENCY_CODE"))
        return found + _broken_user(event, document)


def _broken_user(event: Mapping[str, Any], document: Mapping[str, Any]) -> list[tuple[str, str]]:
    identifiers = event.get("userData", {}).get("userIdentifiers", [])
    if not identifiers and not event.get("adIdentifiers") and not event.get("clientId"):
        return [("", "NO_IDENTIFIERS_PROVIDED")]
    if identifiers and document.get("encoding") not in _ENCODINGS:
        return [("user_data", "REQUIRED_FIELD_MISSING")]
    if len(identifiers) > _MOST_IDENTIFIERS:
        return [("user_data.user_identifiers", "TOO_MANY_USER_IDENTIFIERS")]
    found = []
    for number, each in enumerate(identifiers):
        hashes = [each[name] for name in ("emailAddress", "phoneNumber") if name in each]
        if address := each.get("address"):
            if {"givenName", "familyName", "regionCode", "postalCode"} - address.keys():
                found.append((f"user_data.user_identifiers[{number}].address", "REQUIRED_FIELD_MISSING"))
            hashes += [address.get(name, "") for name in ("givenName", "familyName")]
        if len(each) != 1 or not all(isinstance(h, str) and _DIGEST.fullmatch(h) for h in hashes):
            found.append((f"user_data.user_identifiers[{number}]", "INVALID_SHA256_FORMAT"))
    return found


def _error(code: int, status: str, reason: str) -> Reply:
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "datamanager.googleapis.com",
    }
    details = [info] if reason else []
    return json_reply(code, {"error": {"code": code, "message": status, "status": status, "details": details}})


def _violations(broken: Sequence[tuple[str, str]]) -> Reply:
    fields = [{"field": field, "description": "The value is bad", "reason": reason} for field, reason in broken]
    details = [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "INVALID_ARGUMENT"},
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": fields},
    ]
    error = {"code": 400, "message": "There was a problem with the request.", "status": "INVALID_ARGUMENT"}
    return json_reply(400, {"error": error | {"details": details}})
