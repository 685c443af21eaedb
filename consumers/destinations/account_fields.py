"""What an account of each destination consists of, in FORWARD_CREDENTIALS_FILE and in variables of the environment.

Contract: data and pure checks, no I/O. A rule names what is wrong, never a value.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from attributary.consumers.destinations.bingads.destination import UET_GOAL
from attributary.consumers.destinations.ga4 import rules
from attributary.consumers.destinations.pinterest.destination import EVENT_NAMES as PINTEREST_NAMES
from attributary.consumers.destinations.snap.destination import EVENT_NAMES as SNAP_NAMES

_EVENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ -]{0,49}")
_RULE_ID = re.compile(r"[0-9]{1,20}")
_MAX_GOAL = 100  # characters
_TAG = re.compile(r"[A-Za-z0-9]{1,20}|tw-[A-Za-z0-9]{1,20}-[A-Za-z0-9]{1,20}")

_KNOWN_NAMES: Mapping[str, frozenset[str]] = {
    "pinterest": frozenset((*PINTEREST_NAMES.values(), "custom")),
    "snap": frozenset(SNAP_NAMES.values()) | {f"CUSTOM_EVENT_{number}" for number in range(1, 6)},
}


def _is_goal(name: str) -> bool:
    """Return whether a text can name a conversion goal at Microsoft."""
    plain = name.removeprefix(UET_GOAL)
    return 0 < len(plain) <= _MAX_GOAL and plain.isprintable() and plain == plain.strip()


_NAME_RULE = "must be a name of up to 50 letters, digits, blanks, - and _ that begins with a letter"
_RULES: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "linkedin": (
        _RULE_ID.fullmatch,
        "must be the id of a conversion rule: digits, the end of urn:lla:llaPartnerConversion:...",
    ),
    "x": (_TAG.fullmatch, "must be the id of a single event tag, such as o87ne or tw-o8z6j-o87ne"),
    "bingads": (
        _is_goal,
        "must be the name of a conversion goal of up to 100 characters, or uet: and the name of a goal of UET",
    ),
    "google": (
        lambda name: _RULE_ID.fullmatch(name) or rules.is_name(name),
        "must be the id of a conversion action (digits), or an event name of Google Analytics",
    ),
}

TOKEN_EXPIRES = "token_expires"  # noqa: S105  # a field's name
"""Field of an account: the last day of its token, YYYY-MM-DD, UTC."""


CLIENT = ("client_id", "client_secret")
"""Fields of an account with a refresh token: the application that it was given to."""


class AccountFields(NamedTuple):
    """The fields of an account at one destination.

    Attributes:
        names: that name the account; one is needed, and the first that is given is its id.
        secrets: tokens and API secrets; one is needed, `secret_of` says which is used.
        more: further settings of the account.
        needed_with: fields that must stand beside a secret.
        names_are_options: whether the names are settings of the account as well, for requests.
        key_files: secrets that are the key of a service account: JSON, and no header holds them.
    """

    names: tuple[str, ...]
    secrets: tuple[str, ...]
    more: tuple[str, ...] = ()
    needed_with: Mapping[str, tuple[str, ...]] = {}
    names_are_options: bool = False
    key_files: tuple[str, ...] = ()

    def secret_of(self, given: Collection[str]) -> str | None:
        """Return the secret that is used of those that are given: first one that stands with other fields."""
        found = [name for name in self.secrets if name in given]
        return next((name for name in found if name in self.needed_with), found[0] if found else None)

    @property
    def all(self) -> tuple[str, ...]:
        """All fields."""
        return (*self.names, *self.secrets, *self.more)


ACCOUNT_FIELDS: Mapping[str, AccountFields] = {
    "meta": AccountFields(("pixel_id",), ("access_token",), ("app_secret", "test_event_code")),
    "ga4": AccountFields(("measurement_id", "firebase_app_id"), ("api_secret",), names_are_options=True),
    "tiktok": AccountFields(
        ("pixel_code", "app_id", "offline_event_set_id"),
        ("access_token",),
        ("test_event_code",),
        names_are_options=True,
    ),
    "linkedin": AccountFields(
        ("ad_account_id",),
        ("access_token", "refresh_token"),
        (TOKEN_EXPIRES, *CLIENT),
        needed_with={"refresh_token": CLIENT},
    ),
    "x": AccountFields(
        ("pixel_id",),
        ("access_token_secret", "pixel_token"),
        ("consumer_key", "consumer_secret", "access_token"),
        needed_with={"access_token_secret": ("consumer_key", "consumer_secret", "access_token")},
    ),
    "reddit": AccountFields(("pixel_id",), ("access_token",), ("test_event_code",)),
    "pinterest": AccountFields(("ad_account_id",), ("access_token",)),
    "snap": AccountFields(("pixel_id", "app_id"), ("access_token",), names_are_options=True),
    "google": AccountFields(
        ("customer_id", "analytics_property_id"),
        ("service_account_key", "refresh_token"),
        ("login_customer_id", "measurement_id", "project_id", *CLIENT),
        needed_with={"refresh_token": (*CLIENT, "project_id")},
        names_are_options=True,
        key_files=("service_account_key",),
    ),
    "microsoft": AccountFields(("tag_id",), ("access_token",)),
    "bingads": AccountFields(
        ("account_id",),
        ("refresh_token",),
        ("customer_id", "developer_token", *CLIENT),
        needed_with={"refresh_token": ("customer_id", "developer_token", "client_id")},  # a native client has no secret
    ),
}


def checked_day(text: str | None) -> str | None:
    """Return a day as it is; raise ValueError when it is none."""
    if text is not None:
        try:
            dt.date.fromisoformat(text)
        except ValueError:
            raise ValueError("must be a day, such as 2027-11-30") from None
    return text


def is_printable_ascii(text: str) -> bool:
    """Return whether a text can stand in a header: printable ASCII without spaces."""
    return text.isascii() and text.isprintable() and " " not in text


def broken_event_name(destination: str, names: Mapping[str, Any]) -> str | None:
    """Return the rule that an event name of an account breaks; None when the destination takes all.

    Args:
        destination: which.
        names: event names by conversion type; at LinkedIn ids of conversion rules, at X ids of event tags, at
            Google ids of conversion actions, at Bing Ads names of conversion goals.
    """
    for given in names.values():
        name = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        if rule := _broken_name(destination, name):
            return rule
    return None


def _broken_name(destination: str, name: Any) -> str | None:
    known = _KNOWN_NAMES.get(destination)
    if known is not None:
        return None if name in known else f"must be one of {', '.join(sorted(known))}"
    is_good, rule = _RULES.get(destination, (_EVENT_NAME.fullmatch, _NAME_RULE))
    if not isinstance(name, str) or not is_good(name):
        return rule
    if destination == "ga4" and (not rules.is_name(name) or rules.is_reserved(name, rules.RESERVED_EVENTS)):
        return "must be a name that GA4 takes: up to 40 letters, digits and _, not one of its reserved ones"
    return None
