"""JSON as it goes to destinations: compact UTF-8, money as exact decimals."""

from __future__ import annotations

import json
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False, allow_nan=False).encode

MICROS = 1_000_000


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


def quantity(number: float) -> int | float:
    """Give a quantity, whole numbers without a point."""
    return int(number) if number.is_integer() else number
