"""Refunds that a file states beside the order: they become a restatement of the order's value.

Contract: exports state what was refunded so far, and state more the next time. A refund event for each import would
take the first part off twice, so the event is a restatement to what is left. Its event id is ``ORDER-refunded-MICROS``
and its time that of the refund, or of the order where the file has none; so of several imports the one with the largest
sum counts, in whatever order they arrive.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from attributary.producers.money import to_micros
from attributary.schemas.limits import ID_CHARACTERS, NO_CURRENCY

_DIGITS = 18  # of the largest value in micros: ids of one order sort by the sum refunded


def restatement(conversion: dict[str, Any], refunded: Decimal | None, refunded_at: int | None) -> dict[str, Any] | None:
    """Return the event that states what is left of an order; None where nothing was refunded.

    Args:
        conversion: the record of the order.
        refunded: how much, in units of its currency; None: all of it.
        refunded_at: when, microseconds UTC; None: not known.

    Raises:
        ValueError: the amount is none, or more than the order was worth; the text is the rule.
    """
    value = conversion["value_micros"]
    micros = value if refunded is None else _micros(refunded, conversion["currency"])
    if not micros:
        return None
    if micros < 0:
        micros = -micros  # some exports write what was given back as a negative amount
    if micros > value:
        raise ValueError("must not be more than the value of the order")
    event_id = f"{conversion['event_id'][: ID_CHARACTERS - _DIGITS - 10]}-refunded-{micros:0{_DIGITS}d}"
    return conversion | {
        "kind": "restatement",
        "event_id": event_id,
        "conversion_id": conversion.get("conversion_id") or conversion["event_id"],
        "value_micros": value - micros,
        "occurred_at": max(conversion["occurred_at"], refunded_at or 0),
        "items": [],
    }


def _micros(amount: Decimal, currency: str) -> int:
    if currency == NO_CURRENCY:
        return int(amount)
    return to_micros(amount, currency)
