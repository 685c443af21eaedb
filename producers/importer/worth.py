"""What a conversion of a file is worth, and whether its items say the same.

Invariant: nothing is guessed. An amount needs its currency; a purchase with a place for its value must state one, for
an empty cell is not "free"; the value is never computed from the items.
"""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any

from attributary.producers.money import to_micros
from attributary.schemas.limits import MINOR_UNIT_MICROS, NO_CURRENCY, RuleViolation

_PURCHASE = "purchase"


def check_stated(given: dict[str, Any], stated: Collection[str]) -> RuleViolation | None:
    """Refuse a purchase that leaves its value empty.

    Args:
        given: the fields of the conversion.
        stated: the fields that the file has a place for.
    """
    if given.get("conversion_type") != _PURCHASE or given.get("kind", "conversion") != "conversion":
        return None
    if "value" in given or "value_micros" in given or not {"value", "value_micros"} & set(stated):
        return None
    return RuleViolation("value", "is empty: a purchase states its value, 0 where it was free")


def value_micros(given: dict[str, Any]) -> RuleViolation | None:
    """Put the value in micros in the place of the value in units; return what is wrong with it."""
    if "value" not in given:
        return None
    value, currency = given.pop("value"), given.get("currency", NO_CURRENCY)
    if "value_micros" in given:
        return RuleViolation("value", "must not be given beside value_micros")
    if currency not in MINOR_UNIT_MICROS:
        unset = "must be set beside a value, by a column or for all rows (--constant currency=EUR)"
        wrong = "must be an upper-case ISO 4217 code with a minor unit, such as EUR"
        return RuleViolation("currency", unset if currency == NO_CURRENCY else wrong)
    try:
        given["value_micros"] = to_micros(value, currency)
    except ValueError as error:
        return RuleViolation("value", str(error))
    negative = "must not be negative; a refund has an event of its own (kind refund)"
    return RuleViolation("value", negative) if value < 0 else None


def items_differ(given: dict[str, Any], total: Decimal) -> bool:
    """Tell whether the items of an order cost something else than its columns say.

    A minor unit a line may be lost to the shop's own rounding. Without a price of every line nothing is compared.

    Args:
        given: the fields of the conversion.
        total: what they should cost, in units.
    """
    items = given.get("items", ())
    if not items or any("price_micros" not in item for item in items):
        return False
    cost: Decimal = sum((Decimal(str(item.get("quantity", 1))) * item["price_micros"] for item in items), Decimal(0))
    tolerance = len(items) * MINOR_UNIT_MICROS.get(str(given.get("currency", NO_CURRENCY)), 10_000)
    return bool(abs(cost - total * 1_000_000) > tolerance)
