"""The rules of GA4's Measurement Protocol, checked here because GA4 never says no: it answers 204 and drops the event.

Contract: `check_event` and `check_envelope` give every broken rule, in Google's own words for the kind of fault
(validationCode of /debug/mp/collect) and with the path of the field; they raise nothing and quote no value. An event
without a problem here is one that GA4 takes. Sources: Measurement Protocol reference and limits; Firebase's list of
reserved names. Names in `Limit` are unconfirmed where they say so.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

EVENTS_PER_REQUEST = 25
PARAMS_PER_EVENT = 25
USER_PROPERTIES = 25
NAME_LENGTH = 40
USER_PROPERTY_NAME_LENGTH = 24
VALUE_LENGTH = 100
USER_PROPERTY_VALUE_LENGTH = 36
USER_ID_LENGTH = 256
ITEMS_PER_EVENT = 200  # unconfirmed: Google's own validator sets no maximum
CUSTOM_PARAMS_PER_ITEM = 10  # the Measurement Protocol's page; the page of gtag says 27
BODY_BYTES = 130_000
LONG_VALUES = {"page_title": 300, "page_referrer": 420, "page_location": 1_000}

RESERVED_EVENTS = frozenset((
    "ad_activeview", "ad_click", "ad_exposure", "ad_impression", "ad_query", "ad_reward", "adunit_exposure",
    "app_clear_data", "app_exception", "app_install", "app_remove", "app_store_refund", "app_store_subscription_cancel",
    "app_store_subscription_convert", "app_store_subscription_renew", "app_update", "app_upgrade",
    "dynamic_link_app_open", "dynamic_link_app_update", "dynamic_link_first_open", "error", "first_open", "first_visit",
    "in_app_purchase", "notification_dismiss", "notification_foreground", "notification_open", "notification_receive",
    "os_update",
    "screen_view", "session_start", "user_engagement",
))  # fmt: skip
RESERVED_PARAMS = frozenset(("firebase_conversion",))
RESERVED_USER_PROPERTIES = frozenset((
    "first_open_time", "first_visit_time", "first_open_after_install", "last_deep_link_referrer", "user_id",
))  # fmt: skip
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
NUMBER_PARAMS = frozenset(("tax", "shipping", "level", "score"))
"""Numbers by Google's reference; GA4 takes the event with a text in their place, and reports nothing of them."""
ITEM_PARAMS = frozenset((
    "item_id", "item_name", "affiliation", "coupon", "currency", "discount", "index", "item_brand", "item_category",
    "item_category2", "item_category3", "item_category4", "item_category5", "item_list_id", "item_list_name",
    "item_variant", "location_id", "price", "quantity", "creative_name", "creative_slot", "promotion_id",
    "promotion_name",
))  # fmt: skip
_ENVELOPE_KEYS = frozenset((
    "client_id", "app_instance_id", "user_id", "timestamp_micros", "user_properties", "consent", "user_data",
    "user_location", "ip_override", "device", "user_agent", "non_personalized_ads", "validation_behavior", "events",
))  # fmt: skip
_DEVICE_KEYS = frozenset((
    "category", "language", "screen_resolution", "operating_system", "operating_system_version", "model", "brand",
    "browser", "browser_version",
))  # fmt: skip
_LOCATION_KEYS = frozenset(("city", "region_id", "country_id", "subcontinent_id", "continent_id"))
_USER_DATA_HASHES = ("sha256_email_address", "sha256_phone_number")
_ADDRESS_HASHES = ("sha256_first_name", "sha256_last_name", "sha256_street")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_CURRENCY = re.compile(r"[A-Z]{3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SESSION = re.compile(r"\d{1,20}")
_REGION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_APP_INSTANCE = re.compile(r"[0-9A-Fa-f]{32}")
_NEEDS_TRANSACTION = frozenset(("purchase", "refund"))


class Problem(NamedTuple):
    """A broken rule: path of the field, Google's validation code, and the rule in words."""

    path: str
    code: str
    rule: str


def is_reserved(name: str, reserved: frozenset[str]) -> bool:
    """Say whether a name belongs to Google."""
    return name in reserved or name.startswith(RESERVED_PREFIXES)


def is_name(name: str, longest: int = NAME_LENGTH) -> bool:
    """Say whether a name is well formed: a letter, then letters, digits and underscores (ASCII)."""
    return 0 < len(name) <= longest and _NAME.fullmatch(name) is not None


def value_limit(name: str) -> int:
    """Give the most characters of a parameter's value."""
    return LONG_VALUES.get(name, VALUE_LENGTH)


def check_event(event: Mapping[str, Any], path: str = "events[0]") -> list[Problem]:
    """Give the problems of one event."""
    name = event.get("name")
    if not isinstance(name, str) or not name:
        return [Problem(f"{path}.name", "VALUE_REQUIRED", "an event needs a name")]
    problems = list(_name_problems(f"{path}.name", name, NAME_LENGTH, RESERVED_EVENTS))
    params = event.get("params", {})
    if not isinstance(params, dict):
        return [*problems, Problem(f"{path}.params", "VALUE_INVALID", "must be an object")]
    if len(params) > PARAMS_PER_EVENT:
        problems.append(Problem(f"{path}.params", "EXCEEDED_MAX_ENTITIES", f"{PARAMS_PER_EVENT} parameters at most"))
    for param, value in params.items():
        problems += _name_problems(f"{path}.params.{shown(param)}", param, NAME_LENGTH, RESERVED_PARAMS)
        problems += _value_problems(f"{path}.params.{shown(param)}", param, value)
    problems += _meaning_problems(f"{path}.params", name, params)
    if "timestamp_micros" in event and not _is_integer(event["timestamp_micros"]):
        problems.append(Problem(f"{path}.timestamp_micros", "VALUE_INVALID", "must be an integer of microseconds"))
    return problems


def check_envelope(envelope: Mapping[str, Any], *, app: bool = False) -> list[Problem]:
    """Give the problems of what stands around the events of a request."""
    problems = [Problem(shown(key), "NAME_INVALID", "no such field") for key in envelope if key not in _ENVELOPE_KEYS]
    problems += _identity_problems(envelope, app=app)
    problems += _user_property_problems(envelope.get("user_properties", {}))
    problems += _user_data_problems(envelope)
    for purpose, answer in envelope.get("consent", {}).items():
        if purpose not in {"ad_user_data", "ad_personalization"}:
            problems.append(Problem(f"consent.{shown(purpose)}", "NAME_INVALID", "no such purpose"))
        elif answer not in {"GRANTED", "DENIED"}:
            problems.append(Problem(f"consent.{purpose}", "VALUE_INVALID", "must be GRANTED or DENIED"))
    problems += place_problems(envelope)
    if envelope.get("validation_behavior", "RELAXED") not in {"RELAXED", "ENFORCE_RECOMMENDATIONS"}:
        problems.append(Problem("validation_behavior", "VALUE_INVALID", "must be RELAXED or ENFORCE_RECOMMENDATIONS"))
    return problems


def check_request(document: Mapping[str, Any], *, body_bytes: int, app: bool = False) -> list[Problem]:
    """Give the problems of a whole request."""
    events = document.get("events")
    if not isinstance(events, list) or not events:
        return [Problem("events", "VALUE_REQUIRED", "a request needs an event")]
    problems = check_envelope(document, app=app)
    if len(events) > EVENTS_PER_REQUEST:
        problems.append(Problem("events", "EXCEEDED_MAX_ENTITIES", f"{EVENTS_PER_REQUEST} events at most"))
    if body_bytes >= BODY_BYTES:
        problems.append(Problem("", "VALUE_OUT_OF_BOUNDS", f"the body must be below {BODY_BYTES} bytes"))
    for index, event in enumerate(events):
        problems += check_event(event if isinstance(event, dict) else {}, f"events[{index}]")
    return problems


def shown(name: Any) -> str:
    """Give a name for a message: as it is when well formed, else only that it is not (it may be anything)."""
    return name if isinstance(name, str) and is_name(name) else "(malformed name)"


def _name_problems(path: str, name: Any, longest: int, reserved: frozenset[str]) -> Iterator[Problem]:
    if not isinstance(name, str) or not is_name(name, longest):
        yield Problem(path, "NAME_INVALID", f"letters, digits, underscores, a letter first; {longest} at most")
    if isinstance(name, str) and is_reserved(name, reserved):
        yield Problem(path, "NAME_RESERVED", "the name is reserved")


def _value_problems(path: str, name: str, value: Any) -> Iterator[Problem]:
    if name == "items":
        yield from _item_problems(path, value)
    elif isinstance(value, str):
        if len(value) > value_limit(name):
            yield Problem(path, "VALUE_OUT_OF_BOUNDS", f"{value_limit(name)} characters at most")
    elif not _is_number(value) and not isinstance(value, bool):
        yield Problem(path, "VALUE_INVALID", "must be a text or a finite number")


def _item_problems(path: str, items: Any) -> Iterator[Problem]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        yield Problem(path, "VALUE_INVALID", "must be a list of objects")
        return
    if len(items) > ITEMS_PER_EVENT:
        yield Problem(path, "EXCEEDED_MAX_ENTITIES", f"{ITEMS_PER_EVENT} items at most")
    for index, item in enumerate(items):
        place = f"{path}[{index}]"
        if not item.get("item_id") and not item.get("item_name"):
            yield Problem(place, "VALUE_REQUIRED", "an item needs item_id or item_name")
        custom = [name for name in item if name not in ITEM_PARAMS]
        if len(custom) > CUSTOM_PARAMS_PER_ITEM:
            yield Problem(place, "EXCEEDED_MAX_ENTITIES", f"{CUSTOM_PARAMS_PER_ITEM} custom parameters at most")
        for name, value in item.items():
            yield from _name_problems(f"{place}.{shown(name)}", name, NAME_LENGTH, RESERVED_PARAMS)
            if name in {"price", "quantity", "discount", "index"}:
                if not _is_number(value):
                    yield Problem(f"{place}.{name}", "VALUE_INVALID", "must be a finite number")
            else:
                yield from _value_problems(f"{place}.{shown(name)}", name if name != "items" else "", value)


def _meaning_problems(path: str, name: str, params: Mapping[str, Any]) -> Iterator[Problem]:
    if name in _NEEDS_TRANSACTION and not params.get("transaction_id"):
        # An empty transaction_id makes GA4 take all purchases for one (support 12313109).
        yield Problem(f"{path}.transaction_id", "VALUE_REQUIRED", "a purchase or refund needs a transaction_id")
    if "value" in params:
        if not _is_number(params["value"]):
            yield Problem(f"{path}.value", "VALUE_INVALID", "must be a finite number")
        if "currency" not in params:
            yield Problem(f"{path}.currency", "VALUE_REQUIRED", "a value needs a currency")
    for param in sorted(NUMBER_PARAMS & params.keys()):
        if not _is_number(params[param]):
            yield Problem(f"{path}.{param}", "VALUE_INVALID", "must be a finite number")
    currency = params.get("currency")
    if currency is not None and not _matches(_CURRENCY, currency):
        yield Problem(f"{path}.currency", "VALUE_INVALID", "must be an upper-case ISO 4217 code")
    session = params.get("session_id")
    if session is not None and not _matches(_SESSION, str(session)):
        yield Problem(f"{path}.session_id", "VALUE_INVALID", "must be digits")
    engaged = params.get("engagement_time_msec")
    if engaged is not None and (not _is_number(engaged) or engaged <= 0):
        yield Problem(f"{path}.engagement_time_msec", "VALUE_INVALID", "must be above zero")


def _identity_problems(envelope: Mapping[str, Any], *, app: bool) -> Iterator[Problem]:
    if app:
        if not _matches(_APP_INSTANCE, envelope.get("app_instance_id")):
            yield Problem("app_instance_id", "VALUE_REQUIRED", "an app stream needs 32 hexadecimal digits")
    elif not isinstance(envelope.get("client_id"), str) or not envelope["client_id"]:
        yield Problem("client_id", "VALUE_REQUIRED", "a web stream needs a client id")
    user_id = envelope.get("user_id")
    if user_id is not None and (not isinstance(user_id, str) or not 0 < len(user_id) <= USER_ID_LENGTH):
        yield Problem("user_id", "VALUE_OUT_OF_BOUNDS", f"1 to {USER_ID_LENGTH} characters")
    if "timestamp_micros" in envelope and not _is_integer(envelope["timestamp_micros"]):
        yield Problem("timestamp_micros", "VALUE_INVALID", "must be an integer of microseconds")


def _user_property_problems(properties: Mapping[str, Any]) -> Iterator[Problem]:
    if len(properties) > USER_PROPERTIES:
        yield Problem("user_properties", "EXCEEDED_MAX_ENTITIES", f"{USER_PROPERTIES} user properties at most")
    for name, entry in properties.items():
        path = f"user_properties.{shown(name)}"
        yield from _name_problems(path, name, USER_PROPERTY_NAME_LENGTH, RESERVED_USER_PROPERTIES)
        value = entry.get("value") if isinstance(entry, dict) else None
        if isinstance(value, str):
            if len(value) > USER_PROPERTY_VALUE_LENGTH:
                yield Problem(path, "VALUE_OUT_OF_BOUNDS", f"{USER_PROPERTY_VALUE_LENGTH} characters at most")
        elif not _is_number(value):
            yield Problem(path, "VALUE_INVALID", "must be an object with a text or number as value")


def _user_data_problems(envelope: Mapping[str, Any]) -> Iterator[Problem]:
    data = envelope.get("user_data")
    if data is None:
        return
    for key in _USER_DATA_HASHES:
        if not all(_matches(_SHA256, digest) for digest in _listed(data.get(key))):
            yield Problem(f"user_data.{key}", "VALUE_INVALID", "must be lower-case hexadecimal SHA-256")
    for index, address in enumerate(_listed(data.get("address"))):
        for key in _ADDRESS_HASHES:
            if key in address and not _matches(_SHA256, address[key]):
                yield Problem(f"user_data.address[{index}].{key}", "VALUE_INVALID", "must be a hexadecimal SHA-256")


def place_problems(envelope: Mapping[str, Any]) -> Iterator[Problem]:
    """Give what is wrong with `user_location` and `device`."""
    location = envelope.get("user_location", {})
    for kind, known in (("user_location", _LOCATION_KEYS), ("device", _DEVICE_KEYS)):
        for key in envelope.get(kind, {}):
            if key not in known:
                yield Problem(f"{kind}.{shown(key)}", "NAME_INVALID", "no such field")
    if "region_id" in location and not _matches(_REGION, location["region_id"]):
        yield Problem("user_location.region_id", "VALUE_INVALID", "must be an ISO 3166-2 code")
    if "country_id" in location and not _matches(_COUNTRY, location["country_id"]):
        yield Problem("user_location.country_id", "VALUE_INVALID", "must be an ISO 3166-1 alpha-2 code")


def _matches(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _listed(value: Any) -> Sequence[Any] | Iterable[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _is_number(value: Any) -> bool:
    return _is_integer(value) or (isinstance(value, float) and math.isfinite(value))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
