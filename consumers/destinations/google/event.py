"""Events as the Data Manager API takes them: of a Google Ads conversion action, or of a Google Analytics stream.

Contract: pure; never raises on a conversion. Times are RFC 3339 in UTC, money a number in units, hashes hexadecimal
under Google's rules. What is left out gets a remark. Source: Data Manager API v1, Event; its own formatting rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.destinations.ad_platform import whole_number
from attributary.consumers.destinations.addresses import public_address
from attributary.consumers.destinations.ga4.event import client_id, event_of
from attributary.consumers.destinations.match_keys import click_id
from attributary.consumers.destinations.wire_format import amount, rfc3339
from attributary.producers.matching.user_data import google_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attributary.consumers.destinations.match_keys import MatchKeys

_SOURCES = {
    "website": "WEB",
    "app": "APP",
    "physical_store": "IN_STORE",
    "phone_call": "PHONE",
    "chat": "MESSAGE",
    "business_messaging": "MESSAGE",
}
_CLICK_IDS = ("gclid", "gbraid", "wbraid")
_CONSENT = {"adUserData": "ad_user_data", "adPersonalization": "ad_personalization"}
_MAX_IDENTIFIERS = 10
_MAX_ID = 512  # characters of a transaction id; not confirmed
_STRUCTURED = frozenset(("transaction_id", "value", "currency", "items"))
_ITEM_FIELDS = frozenset(("item_id", "quantity", "price"))


def consent(answers: Mapping[str, bool] | None) -> dict[str, str]:
    """Return Google's consent; a purpose that was never asked about is left open."""
    return {
        name: "CONSENT_GRANTED" if (answers or {})[purpose] else "CONSENT_DENIED"
        for name, purpose in _CONSENT.items()
        if purpose in (answers or {})
    }


def ad_identifiers(conversion: Mapping[str, Any], remarks: list[str]) -> dict[str, str]:
    """Return the click id: Google takes one of an event, the gclid first."""
    found = {name: text for name in _CLICK_IDS if (text := click_id(conversion, name))}
    first, *others = [*found] or [""]
    remarks += [f"{name} left out: Google takes one click id, and {first} goes first" for name in others]
    return dict(list(found.items())[:1])


def user_identifiers(conversion: Mapping[str, Any], keys: MatchKeys, remarks: list[str]) -> list[dict[str, Any]]:
    """Return up to ten identifiers: e-mail addresses, phone numbers, then a whole postal address."""
    hashes = keys.by_google_key
    found: list[dict[str, Any]] = [{"emailAddress": each} for each in hashes.get("sha256_email_address", ())]
    found += [{"phoneNumber": each} for each in hashes.get("sha256_phone_number", ())]
    if keys.emails and not hashes.get("sha256_email_address"):
        remarks.append("e-mail left out: only its hash under Meta's rules is on the topic")
    names = [hashes.get(key) for key in ("sha256_first_name", "sha256_last_name")]
    plain = google_address(conversion["user_data"]) if conversion["user_data"] else {}
    if names[0] and names[1] and plain.get("postal_code") and plain.get("country"):
        address = {"givenName": names[0][0], "familyName": names[1][0]}
        found.append({"address": address | {"regionCode": plain["country"], "postalCode": plain["postal_code"]}})
    elif any(names):
        remarks.append("names left out: Google wants them with postal code and country")
    if len(found) > _MAX_IDENTIFIERS:
        remarks.append(f"user identifiers cut to {_MAX_IDENTIFIERS}")
    return found[:_MAX_IDENTIFIERS]


def device(conversion: Mapping[str, Any], remarks: list[str]) -> dict[str, str]:
    """Return user agent and public IP address."""
    found: dict[str, str] = {}
    if agent := conversion["client_user_agent"]:
        found["userAgent"] = agent
    if given := conversion["client_ip_address"]:
        plain, remark = public_address(given)
        if plain:
            found["ipAddress"] = plain
        else:
            remarks.append(remark)
    return found


def ads_event(
    conversion: Mapping[str, Any], at: int, transaction_id: str, keys: MatchKeys, remarks: list[str]
) -> dict[str, Any]:
    """Return the event of a conversion action; without `adIdentifiers` and `userData` nobody can be recognised.

    Args:
        conversion: the event.
        at: when it happened; microseconds.
        transaction_id: by which Google knows a second copy and a correction.
        keys: hashes of the person.
        remarks: gets a remark for what is left out.
    """
    event: dict[str, Any] = {"transactionId": transaction_id, "eventTimestamp": rfc3339(at)}
    event["eventSource"] = _SOURCES.get(conversion["action_source"], "OTHER")
    if identifiers := user_identifiers(conversion, keys, remarks):
        event["userData"] = {"userIdentifiers": identifiers}
    event |= _without_empty({
        "adIdentifiers": ad_identifiers(conversion, remarks),
        "consent": consent(conversion["consent"]),
        "eventDeviceInfo": device(conversion, remarks),
    })  # fmt: skip
    if conversion["kind"] == "cancellation":
        event["conversionValue"] = 0
        event |= {} if conversion["currency"] == "XXX" else {"currency": conversion["currency"]}
        return event
    if conversion["currency"] != "XXX":
        event |= {"conversionValue": amount(conversion["value_micros"]), "currency": conversion["currency"]}
    if items := _items(conversion["items"], remarks):
        event["cartData"] = {"items": items}
    return event


def _items(lines: Sequence[Mapping[str, Any]] | None, remarks: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in lines or ():
        number = whole_number(line["quantity"])
        if number is None or not line["item_id"]:
            remarks.append("items left out: Google wants an id and a whole quantity of each")
            return []
        item: dict[str, Any] = {"merchantProductId": line["item_id"], "quantity": str(number)}
        if line["price_micros"] is not None:
            item["unitPrice"] = amount(line["price_micros"])
        found.append(item)
    return found


def analytics_event(
    conversion: Mapping[str, Any], at: int, names: Mapping[str, str], keys: MatchKeys, *, strip: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the event of an Analytics stream with its remarks: what the Measurement Protocol gets, in other fields.

    Args:
        conversion: the event.
        at: when it happened; microseconds.
        names: own event names by conversion type.
        keys: hashes of the person.
        strip: leave out personal data in URLs and free properties.
    """
    given, remarks = event_of(conversion, at, names, strip=strip)
    params: dict[str, Any] = given["params"]
    event: dict[str, Any] = {
        "eventName": given["name"],
        "eventTimestamp": rfc3339(at),
        "eventSource": _SOURCES.get(conversion["action_source"], "OTHER"),
        "clientId": client_id(conversion, remarks),
    }
    if params.get("transaction_id"):
        event["transactionId"] = params["transaction_id"]
    if "value" in params:
        event |= {"conversionValue": params["value"], "currency": params["currency"]}
    if items := params.get("items"):
        event["cartData"] = {"items": [_analytics_item(item) for item in items]}
    if identifiers := user_identifiers(conversion, keys, remarks):
        event["userData"] = {"userIdentifiers": identifiers}
    if (user := conversion["user_id"]) and "@" not in user:
        event["userId"] = user
    event |= _without_empty({
        "adIdentifiers": ad_identifiers(conversion, remarks),
        "consent": consent(conversion["consent"]),
        "eventDeviceInfo": device(conversion, remarks),
        "additionalEventParameters": _parameters(params.items(), _STRUCTURED),
    })  # fmt: skip
    if any(name.startswith("user.") for name in conversion["properties"]):
        remarks.append("user properties left out: they go by the destination ga4")
    return event, remarks


def _analytics_item(item: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"itemId": str(item["item_id"])} if item.get("item_id") else {}
    if (number := whole_number(item.get("quantity", 0))) is not None:
        found["quantity"] = str(number)
    if "price" in item:
        found["unitPrice"] = item["price"]
    more = _parameters(item.items(), _ITEM_FIELDS)
    return found | ({"additionalItemParameters": more} if more else {})


def _parameters(given: Iterable[tuple[str, Any]], structured: frozenset[str]) -> list[dict[str, str]]:
    """Return parameters without a field of their own; Google takes their values as texts."""
    return [{"parameterName": name, "value": str(value)} for name, value in sorted(given) if name not in structured]


def _without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def fitted(text: str) -> bool:
    """Return whether a text can be a transaction id."""
    return 0 < len(text) <= _MAX_ID
