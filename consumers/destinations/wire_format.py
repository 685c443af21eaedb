"""JSON and headers as they travel: compact UTF-8, money as exact decimals, the waits that a destination asks for."""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False).encode

MICROS = 1_000_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MAX_WHOLE = 2**53
_PRINTED_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,6})?")


def to_json(value: Any) -> bytes:
    """Encode; half a surrogate pair, which UTF-8 cannot hold, becomes a question mark."""
    return _encode(value).encode("utf-8", "replace")


def from_json(body: bytes) -> Any:
    """Decode, None for what is no JSON (an HTML page of a proxy, an empty body)."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def amount(micros: int) -> int | float:
    """Give micros in units: the nearest float prints as the exact decimal (19.99), whole amounts without a point."""
    whole, rest = divmod(micros, MICROS)
    return whole if rest == 0 else micros / MICROS


def rfc3339(micros: int) -> str:
    """Give a time as RFC 3339 in UTC, with microseconds where it has any."""
    time = _EPOCH + dt.timedelta(microseconds=micros)
    return time.isoformat().removesuffix("+00:00") + "Z"


def decimal_text(micros: int) -> str:
    """Give micros in units as an exact decimal text with at least two digits behind the point: "19.99", "0.005"."""
    whole, rest = divmod(abs(micros), MICROS)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micros < 0 else ''}{whole}.{digits}"


def quantity(number: float) -> int | float:
    """Return a finite quantity; whole numbers up to 2^53 without a point, as every JSON reader has them."""
    return int(number) if number.is_integer() and abs(number) <= _MAX_WHOLE else number


def number_of(text: str) -> int | float | None:
    """Return the finite number that a text spells, None for any other text ("NaN", "1e400", "2%", "first")."""
    try:
        number = float(text)
    except (ValueError, OverflowError):
        return None
    return quantity(number) if math.isfinite(number) and "_" not in text and text.isascii() else None


def typed(text: str) -> int | float | str:
    """Return a free property as a number where its text is exactly how a number prints ("45", "3.3"), else the text.

    Properties travel as texts on the topic; metrics at the destinations need numbers. "007", "1.10", "1e3" and numbers
    of more than 15 digits stay texts: they are codes, versions and ids, and a number drops their zeros or digits.
    """
    if _PRINTED_NUMBER.fullmatch(text) is None:
        return text
    number = quantity(float(text))
    return number if str(number) == text else text


MAX_WAIT_SECONDS = 3_600.0  # a larger wish is a broken header; after an hour it may say so again


def retry_after_seconds(headers: Mapping[str, str]) -> float:
    """Read Retry-After (RFC 9110, 10.2.3): seconds, or a date, which is measured from the answer's own Date.

    Args:
        headers: of the answer, names in lower case.

    Returns:
        0 when nothing is asked, or it cannot be read.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_WAIT_SECONDS)
    until, now = timestamp(text), timestamp(headers.get("date", ""))
    if until is None or now is None:
        return 0.0
    return min(max(0.0, until - now), MAX_WAIT_SECONDS)


def timestamp(text: str) -> float | None:
    """Return the seconds since 1970-01-01 UTC of an HTTP date; None for any other text."""
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
