"""Reading a delivery's JSON strictly where money and ids depend on it, and leniently where nothing does.

Contract: a function that reads what a record cannot do without raises ``Unmapped`` with the field and the rule, never
the value. A function for what is nice to have returns None instead: an order must not be lost for a name that is too
long. No function raises anything else, for any JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from attributary.attribution_core.domain.amounts import plain_decimal
from attributary.attribution_core.domain.identity_rules import normalized_id, placeholder
from attributary.producers.landing import parse_landing
from attributary.producers.money import exact_micros
from attributary.producers.money import to_micros as money_to_micros
from attributary.producers.records import UserData
from attributary.producers.times import to_micros
from attributary.schemas.limits import ID_CHARACTERS, TEXT_CHARACTERS, URL_CHARACTERS

IpPolicy = Literal["full", "cut", "none"]

_OBJECT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_COOKIE = re.compile(r"1\.([A-Za-z0-9-]{8,64})")
_KEPT_BITS = {4: 24, 6: 48}


class Unmapped(Exception):
    """A signed delivery, or a part of it, cannot become a record; ``field`` and ``rule`` hold nothing of the body."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class Skipped(Exception):
    """A delivery, or a part of it, of which there is nothing to record; ``reason`` is a word for a metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is; numbers with a fraction stay exact.

    Raises:
        Unmapped: it is none.
    """
    try:
        document = json.loads(body.decode("utf-8"), parse_float=_exact, parse_constant=_refused)
    except RecursionError:
        raise Unmapped("(body)", "is nested too deeply") from None
    except (ValueError, ArithmeticError):
        raise Unmapped("(body)", "is not JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise Unmapped("(body)", "must be a JSON object")
    return document


def _exact(text: str) -> Decimal:
    return Decimal(text)


def _refused(name: str) -> Any:
    raise ValueError(name)


def object_in(value: object) -> Mapping[str, Any]:
    """Return a JSON object, empty when the value is none."""
    return value if isinstance(value, Mapping) else {}


def objects_in(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of an array; nothing when the value is none."""
    if isinstance(value, list):
        yield from (each for each in value if isinstance(each, Mapping))


def object_id(value: object, field: str) -> str:
    """Return an id of a provider's object, from which ids of ours are made.

    Raises:
        Unmapped: it is no id.
    """
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 64 else value
    if not isinstance(text, str) or _OBJECT_ID.fullmatch(text) is None:
        raise Unmapped(field, "must be an id of 1 to 100 letters, digits and _.:-")
    return text


def expandable_id(value: object, field: str) -> str | None:
    """Return the id of an object that is given by its id or as a whole; None when it is null."""
    if value is None:
        return None
    return object_id(object_in(value).get("id") if isinstance(value, Mapping) else value, field)


def text_of(value: object, most: int = TEXT_CHARACTERS) -> str | None:
    """Return a text that can be stored, cut to what the schema holds; None when there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 63 else None
    kept = value.replace("\0", "").encode("utf-8", "ignore").decode().strip()
    return kept[:most] or None


def word_of(value: object) -> str | None:
    """Return a text as it is, to compare it with known words; None for anything else."""
    return value if isinstance(value, str) else None


def url_of(value: object) -> str | None:
    """Return a URL or a path, cut to what the schema holds; None when there is none."""
    return text_of(value, URL_CHARACTERS)


def person_id(value: object) -> str | None:
    """Return an id that names somebody, in the form of the cookie or as it is; None when it names nobody."""
    text = text_of(value, ID_CHARACTERS + 1)
    if text is None or len(text) > ID_CHARACTERS:
        return None
    if cookie := _COOKIE.fullmatch(text):
        text = cookie[1]
    stored = normalized_id(text)
    return stored if stored and placeholder(stored) is None else None


def guest_id(email: object, key: str) -> str | None:
    """Return the user id of a guest: a keyed hash of the e-mail address; None without a key or an address."""
    text = text_of(email)
    if not key or text is None or "@" not in text:
        return None
    return "guest-" + hmac.new(key.encode(), text.lower().encode(), hashlib.sha256).hexdigest()[:32]


def decimal_of(value: object, field: str) -> Decimal:
    """Return an amount in units, exactly as it is written, as a text or as a number.

    Raises:
        Unmapped: it is no amount.
    """
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str):
        try:
            return plain_decimal(value)
        except ValueError:
            pass
    raise Unmapped(field, "must be an amount such as 19.99")


def whole_of(value: object, field: str) -> int:
    """Return a whole number that is not negative.

    Raises:
        Unmapped: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise Unmapped(field, "must be a whole number, not negative")
    return value


def micros_of(amount: Decimal, currency: str, field: str) -> int:
    """Return an amount in micros.

    Raises:
        Unmapped: it is negative, or no whole number of the currency's minor units.
    """
    try:
        micros = money_to_micros(amount, currency)
    except (TypeError, ValueError) as error:
        raise Unmapped(field, str(error)) from None
    if micros < 0:
        raise Unmapped(field, "must not be negative")
    return micros


def price_micros(value: object) -> int | None:
    """Return the price of one piece, which need not be a whole number of minor units; None when it is none."""
    try:
        micros = exact_micros(decimal_of(value, "price"))
    except (Unmapped, ValueError, ArithmeticError):
        return None
    return micros if micros >= 0 else None


def currency_of(value: object, field: str = "currency") -> str:
    """Return a currency code in upper case.

    Raises:
        Unmapped: it is no text of three letters.
    """
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha():
        return value.upper()
    raise Unmapped(field, "must be an ISO 4217 code")


def instant_of(value: object, field: str, *, utc: bool = False) -> int:
    """Return a time of ISO 8601 in microseconds UTC.

    Args:
        value: the text.
        field: its name, for the error.
        utc: a text without a zone is UTC.

    Raises:
        Unmapped: it is none, or names no zone.
    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is None and utc:
            moment = moment.replace(tzinfo=UTC)
        if moment is not None:
            return to_micros(moment)
    except (ValueError, OverflowError):
        pass
    raise Unmapped(field, "must be a time of ISO 8601 with its zone")


def seconds_of(value: object, field: str) -> int:
    """Return a time in seconds since 1970 as microseconds.

    Raises:
        Unmapped: it is none.
    """
    seconds = whole_of(value, field)
    if seconds >= 1 << 40:
        raise Unmapped(field, "must be a time in seconds since 1970")
    return seconds * 1_000_000


def click_ids_of(url: object, named: Mapping[str, str]) -> dict[str, str]:
    """Return the click ids of a landing's URL, byte for byte; those that were handed over by name win.

    Args:
        url: the URL, or its path and query.
        named: texts by name, for example a cart's attributes; only names of click ids count.
    """
    found = dict(parse_landing(text).click_ids) if (text := url_of(url)) else {}
    # A name and a text read as a query: the rules for what a click id is stand in one place.
    for name, text in named.items():
        if name.replace("_", "").isalnum() and "&" not in text and "#" not in text:
            found |= parse_landing(f"?{name}={text}").click_ids
    return found


def named_texts(entries: object, name: str, value: str) -> dict[str, str]:
    """Return an array of name and value pairs as a mapping; the first of a name counts."""
    found: dict[str, str] = {}
    for entry in objects_in(entries):
        key, text = text_of(entry.get(name)), url_of(entry.get(value))
        if key is not None and text is not None:
            found.setdefault(key, text)
    return found


def address_of(value: object, policy: IpPolicy) -> str | None:
    """Return an IP address under a policy: whole, its network (/24, /48), or none."""
    text = text_of(value, 64)
    if text is None or policy == "none":
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if policy == "full":
        return str(address)
    bits = _KEPT_BITS[address.version]
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False).network_address)


def user_data_of(texts: Mapping[str, object]) -> UserData | None:
    """Return the data that recognises a person; None when there is none. The producer hashes it."""
    found = UserData()
    for field, value in texts.items():
        setattr(found, field, text_of(value))
    return None if found == UserData() else found


def first_of(*values: Any) -> Any:
    """Return the first value that is neither null nor an empty text."""
    return next((value for value in values if value is not None and value != ""), None)
