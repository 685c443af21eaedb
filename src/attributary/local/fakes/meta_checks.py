"""What makes Meta reject an event, and with it the whole request.

Sources: Meta's documentation of server event, customer information and custom data parameters, best practices (weak
user data); subcodes as other relays have recorded them. The subcode for plain user data is not confirmed: none is sent.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

_ACTION_SOURCES = frozenset((
    "email", "website", "app", "phone_call", "chat", "physical_store", "system_generated", "business_messaging",
    "other",
))  # fmt: skip
_MUST_BE_HASHED = ("em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country")
_WEAK = (
    {"ct", "country", "st", "zp", "ge", "client_user_agent"},
    {"db", "client_user_agent"},
    {"fn", "ge"},
    {"ln", "ge"},
)
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}")
_CLICK_ID = re.compile(r"fb\.\d\.\d{10,13}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]{2}|\.[A-Za-z0-9_-]{8})?")
_DAY = 86_400
_FUTURE_SECONDS = 600  # not documented: a guess, so that a broken clock shows


class Broken(NamedTuple):
    """Why an event is rejected."""

    message: str
    subcode: int | None = None


def broken_event(event: dict[str, Any], now: float) -> Broken | None:
    """Give why Meta would reject an event at this time (seconds), None when it would not."""
    when = event.get("event_time")
    user_data = event.get("user_data")
    if not isinstance(event.get("event_name"), str) or not event["event_name"]:
        return Broken("The parameter event_name is required")
    if not isinstance(when, int) or isinstance(when, bool):
        return Broken("The parameter event_time must be Unix seconds")
    if not isinstance(user_data, dict):
        return Broken("The parameter user_data is required")
    source = event.get("action_source")
    if source is not None and source not in _ACTION_SOURCES:
        return Broken("Invalid action_source")
    if now - when > _DAY * (62 if source == "physical_store" else 7) or when - now > _FUTURE_SECONDS:
        return Broken("Event timestamp is too old or in the future", 2804003)
    return _user_data(user_data) or _custom_data(event) or _limited_data_use(event)


def _user_data(user_data: dict[str, Any]) -> Broken | None:
    for key in _MUST_BE_HASHED:
        values = user_data.get(key)
        if values is None:
            continue
        for value in values if isinstance(values, list) else (values,):
            if not isinstance(value, str) or _DIGEST.fullmatch(value) is None:
                return Broken(f"{key} must be hashed")
    fbc = user_data.get("fbc")
    if fbc is not None and (not isinstance(fbc, str) or _CLICK_ID.fullmatch(fbc) is None):
        return Broken("Click ID incorrectly formatted", 2804001)
    given = {key for key, value in user_data.items() if value not in (None, "", [])}
    if any(given <= weak for weak in _WEAK):
        return Broken("Not enough customer information parameters")
    return None


def _custom_data(event: dict[str, Any]) -> Broken | None:
    custom = event.get("custom_data") or {}
    if event["event_name"] != "Purchase":
        return None
    value, currency = custom.get("value"), custom.get("currency")
    if not isinstance(value, int | float) or not isinstance(currency, str) or len(currency) != 3:
        return Broken("Purchase events need value and currency", 2804009)
    return None


def _limited_data_use(event: dict[str, Any]) -> Broken | None:
    options = event.get("data_processing_options") or []
    if options not in ([], ["LDU"]):
        return Broken("Invalid data_processing_options")
    if options and event.get("data_processing_options_country") not in (None, 0, 1):
        return Broken("Invalid data_processing_options_country")
    country, state = event.get("data_processing_options_country"), event.get("data_processing_options_state")
    if options and country is not None and state is None:
        return Broken("data_processing_options_state is required")
    return None
