"""A stand-in for Microsoft's Campaign Management API v13, as far as conversions go, with its token endpoint.

Contract: `/OfflineConversions/Apply`, `/OfflineConversionAdjustments/Apply`, `/OnlineConversionAdjustments/Apply` and
`/ConversionGoals/QueryByIds` under `/CampaignManagement/v13` as the documentation has them, `/token` as Microsoft's
OAuth. An item that is wrong is named in PartialErrors and the others are taken; the message quotes it. Of conversions
with one click id, goal and time the first counts and the others say nothing; without a click id each counts. An
adjustment of what is not known says nothing either, as Microsoft documents no error for it.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import TYPE_CHECKING, Any

from attributary.local.fakes.oauth import OAuthFake
from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, Reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from attributary.local.fakes.faults import Fault

_PATH = re.compile(r"/CampaignManagement/v13/([A-Za-z]+/[A-Za-z]+)")
_GOALS = "ConversionGoals/QueryByIds"
_ADJUSTMENT = frozenset(("AdjustmentCurrencyCode", "AdjustmentTime", "AdjustmentType", "AdjustmentValue"))
_PERSON = frozenset(("MicrosoftClickId", "HashedEmailAddress", "HashedPhoneNumber"))
FIELDS: Mapping[str, frozenset[str]] = {
    "OfflineConversions": _PERSON | {
        "ConversionCurrencyCode", "ConversionName", "ConversionTime", "ConversionValue", "ExternalAttributionCredit",
        "ExternalAttributionModel",
    },
    "OfflineConversionAdjustments": _PERSON | _ADJUSTMENT | {"ConversionName", "ConversionTime"},
    "OnlineConversionAdjustments": _ADJUSTMENT | {"ConversionName", "TransactionId"},
}  # fmt: skip
_MOST_ITEMS = 1_000
_MAX_AGE_SECONDS = 90 * 86_400
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z")
_CURRENCY = re.compile(r"[A-Z]{3}")
# HTTP status, code, word of the faults of a whole request.
_ANSWERS = {
    "internal": (500, 0, "InternalError"),
    "invalid_credentials": (401, 105, "InvalidCredentials"),
    "not_authorized": (403, 106, "UserIsNotAuthorized"),
    "call_rate": (429, 117, "CallRateExceeded"),
    "http_429": (429, 117, "CallRateExceeded"),  # Microsoft names no time
}


class BingAdsFake(StandIn):
    """Microsoft's side.

    Args:
        oauth: the token endpoint that gives good tokens; None: any token is.
        developer_token: the one that is good; empty: any.
        accounts: ids of ad accounts that exist; empty: any.
        goals: names of conversion goals that exist; empty: any.
    """

    own_kinds = frozenset((*_ANSWERS, "goal_too_recent", "item_internal"))

    def __init__(
        self,
        oauth: OAuthFake | None = None,
        *,
        developer_token: str = "",
        accounts: Sequence[str] = (),
        goals: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.oauth = oauth
        self.adjusted: dict[tuple[str, str, str], Mapping[str, Any]] = {}
        self._developer_token = developer_token
        self._accounts = frozenset(accounts)
        self.goals = frozenset(goals)

    def answer(self, call: Call) -> Reply:
        """Answer one request."""
        if call.path == "/token" and self.oauth is not None:
            return self.oauth.answer(call)
        return super().answer(call)

    def fail(self, fault: Fault) -> Reply | None:
        """Answer a fault before anything is taken."""
        if fault.kind in _ANSWERS:
            return _fault(*_ANSWERS[fault.kind])
        return super().fail(fault)

    def check_call(self, call: Call) -> Reply | None:
        """Refuse a wrong address, token, developer token or account."""
        place = _PATH.fullmatch(call.path)
        operation = place[1].removesuffix("/Apply") if place else ""
        if call.method != "POST" or operation not in {*FIELDS, _GOALS}:
            return Reply(404, b"<html>The resource cannot be found.</html>", {"content-type": "text/html"})
        given = {name: call.headers.get(name, "") for name in ("developertoken", "customerid", "customeraccountid")}
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if not token or not all(given.values()):
            return _fault(400, 116, "RequestMissingHeaders")
        if self.oauth is not None and not self.oauth.is_live(token):
            return _fault(401, 109, "AuthenticationTokenExpired")
        if self._developer_token and given["developertoken"] != self._developer_token:
            return _fault(*_ANSWERS["invalid_credentials"])
        if self._accounts and given["customeraccountid"] not in self._accounts:
            return _fault(*_ANSWERS["not_authorized"])
        return None

    def take(self, call: Call, fault: Fault | None) -> Reply:
        """Take the good items of a request, or list the goals."""
        operation = call.path.split("/")[-2]
        try:
            document = json.loads(call.body)
        except ValueError:
            return _fault(400, 100, "NullRequest")
        if operation == "ConversionGoals":
            self.received.test(1)
            goals = [{"Name": name, "Type": "OfflineConversion"} for name in sorted(self.goals)]
            return json_reply(200, {"ConversionGoals": goals, "PartialErrors": []})
        items = document.get(operation) if isinstance(document, dict) and len(document) == 1 else None
        if not isinstance(items, list) or not items:
            return _operation_error(400, f"{operation}NullOrEmpty")
        if len(items) > _MOST_ITEMS:
            self.received.refuse(len(items))
            return _operation_error(400, "OfflineConversionBatchSizeExceedsLimit")
        kind = fault.kind if fault is not None else ""
        errors = {n: word for n, item in enumerate(items) if (word := next(self._broken(operation, item), ""))}
        if kind == "goal_too_recent":
            errors = dict.fromkeys(range(len(items)), "OfflineConversionGoalTooRecent")
        elif kind == "item_internal":
            errors[0] = "InternalError"
        self.received.refuse(len(errors))
        self._keep(operation, [item for n, item in enumerate(items) if n not in errors])
        return json_reply(200, {"PartialErrors": [_item_error(n, word, items[n]) for n, word in errors.items()]})

    def _keep(self, operation: str, items: Sequence[dict[str, Any]]) -> None:
        if operation == "OnlineConversionAdjustments":
            self.adjusted |= {(each["ConversionName"], "", each["TransactionId"]): each for each in items}
        elif operation == "OfflineConversionAdjustments":
            self.adjusted |= {_key(each): each for each in items}
        else:
            self.received.keep([(_key(each), each) for each in items])

    def _broken(self, operation: str, item: Any) -> Iterator[str]:
        """Yield what is wrong with an item, in Microsoft's words."""
        if not isinstance(item, dict) or item.keys() - FIELDS[operation]:
            yield "OfflineConversionIsNull"
            return
        name = item.get("ConversionName")
        if not name:
            yield "OfflineConversionNameNullOrEmpty"
        elif self.goals and name not in self.goals:
            yield "OfflineConversionNameInvalid"
        if operation != "OnlineConversionAdjustments":
            yield from self._broken_conversion(item)
        if operation != "OfflineConversions":
            yield from self._broken_adjustment(item)

    def _broken_conversion(self, item: Mapping[str, Any]) -> Iterator[str]:
        if not _PERSON & item.keys():
            yield "OfflineConversionMSClickIdNullOrEmpty"
        if item.get("MicrosoftClickId") in self.poison:
            yield "OfflineConversionMSClickIdInvalid"
        for name in ("EmailAddress", "PhoneNumber"):
            digest = item.get(f"Hashed{name}")
            if digest is not None and (not isinstance(digest, str) or _DIGEST.fullmatch(digest) is None):
                yield f"Conversion{name}IsNotHashed"
        age = self._age(item.get("ConversionTime"))
        if age is None:
            yield "OfflineConversionTimeInvalid"
        elif age < -60:
            yield "FutureConversionTimeCannotBeSet"
        elif age > _MAX_AGE_SECONDS:
            yield "OfflineConversionTimeOutOfWindow"
        value, currency = item.get("ConversionValue", 0), item.get("ConversionCurrencyCode", "EUR")
        if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
            yield "OfflineConversionValueInvalid"
        if not isinstance(currency, str) or _CURRENCY.fullmatch(currency) is None:
            yield "OfflineConversionCurrencyCodeInvalid"

    def _broken_adjustment(self, item: Mapping[str, Any]) -> Iterator[str]:
        kind = item.get("AdjustmentType")
        age, original = self._age(item.get("AdjustmentTime")), self._age(item.get("ConversionTime"))
        if kind not in {"Restate", "Retract"}:
            yield "OfflineConversionInvalidAdjustmentType"
        if age is None:
            yield "OfflineConversionAdjustmentTimeInvalid"
        elif age < -60:
            yield "OfflineConversionFutureAdjustmentTimeCannotBeSet"
        elif original is not None and age > original:
            yield "OfflineConversionAdjustmentTimeEarlierThanConversionTime"
        if kind == "Restate" and "AdjustmentValue" not in item:
            yield "OfflineConversionAdjustmentValueRequired"
        if kind == "Retract" and "AdjustmentValue" in item:
            yield "OfflineConversionAdjustmentValueNotExpected"

    def _age(self, text: Any) -> float | None:
        """Return how long ago a time was, in seconds; None for no such text."""
        if not isinstance(text, str) or _TIME.fullmatch(text) is None:
            return None
        return self.now - dt.datetime.fromisoformat(text).timestamp()


def _key(item: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the key of a conversion: goal, time, and what recognises its person."""
    person = item.get("MicrosoftClickId") or item.get("HashedEmailAddress") or item.get("HashedPhoneNumber")
    return item["ConversionName"], item["ConversionTime"], str(person)


def _item_error(index: int, word: str, item: Any) -> dict[str, Any]:
    # The numbers of these words are not known here; Microsoft's clients go by the word.
    code = 0 if word == "InternalError" else 5_000
    return {
        "Code": code, "Details": None, "ErrorCode": word, "FieldPath": None, "ForwardCompatibilityMap": [],
        "Index": index, "Message": f"The item is wrong: {json.dumps(item)}", "Type": "BatchError",
    }  # fmt: skip


def _fault(status: int, code: int, word: str) -> Reply:
    error = {"Code": code, "Detail": None, "ErrorCode": word, "Message": word}
    return json_reply(status, {"Type": "AdApiFaultDetail", "TrackingId": "track-1", "Errors": [error]})


def _operation_error(status: int, word: str) -> Reply:
    error = {"Code": 5_000, "Details": None, "ErrorCode": word, "Message": word}
    faults = {"BatchErrors": [], "OperationErrors": [error]}
    return json_reply(status, {"Type": "ApiFaultDetail", "TrackingId": "track-1", **faults})
