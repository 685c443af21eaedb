"""Money on its way in: exact decimals become whole micros, nothing is rounded.

Invariant: ``to_micros(value, currency) / 1_000_000`` is exactly ``value``, and it is a whole number of the currency's
minor units (ISO 4217: cents for EUR, yen for JPY, fils for KWD). What cannot be kept exactly is refused.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact
from functools import cache

from attributary.schemas.limits import MINOR_UNIT_MICROS

_MICRO_DIGITS = 6
_LARGEST_POWER = 11  # 10^12 units and more are refused before they are multiplied out; 1e999999 is a valid Decimal
_EXACTLY = Context(prec=200, traps=[Inexact])


@cache
def minor_digits(currency: str) -> int:
    """Return how many decimals an amount in this currency has: 2 for EUR, 0 for JPY, 3 for KWD.

    Raises:
        ValueError: when the code is not in ISO 4217, not upper case, or prices nothing (XXX, XAU).
    """
    unit = MINOR_UNIT_MICROS.get(currency)
    if unit is None:
        raise ValueError("must be an upper-case ISO 4217 code with a minor unit, for example EUR")
    return _MICRO_DIGITS + 1 - len(str(unit))


def to_micros(value: Decimal | int, currency: str) -> int:
    """Return an amount in millionths of the currency's unit.

    Args:
        value: the amount in units, for example ``Decimal("19.99")`` euros.
        currency: ISO 4217 code, upper case.

    Raises:
        TypeError: for a float, which cannot hold 19.99 exactly, and for anything else that is not Decimal or int.
        ValueError: for an unknown currency, a value that is not finite or has more decimals than the currency.
    """
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise TypeError('must be Decimal or int: a float cannot hold money exactly, write Decimal("19.99")')
    digits = minor_digits(currency)
    try:
        return _scaled(Decimal(value), digits) * int(10 ** (_MICRO_DIGITS - digits))
    except Inexact:
        raise ValueError(f"must be a whole number of minor units: {currency} has {digits} decimals") from None


def exact_micros(value: Decimal) -> int:
    """Return an amount in micros that need not be a whole number of minor units, such as the price of one piece.

    Raises:
        ValueError: when it has more than six decimals, or is not finite.
    """
    try:
        return _scaled(value, _MICRO_DIGITS)
    except Inexact:
        raise ValueError(f"must have {_MICRO_DIGITS} decimals at most") from None


def _scaled(amount: Decimal, digits: int) -> int:
    """Return the amount times a power of ten, which must be whole; raises ``Inexact`` otherwise."""
    if not amount.is_finite():
        raise ValueError("must be a finite amount")
    if amount.adjusted() > _LARGEST_POWER:
        raise ValueError("must be below 10^12 units")
    return int(_EXACTLY.to_integral_exact(_EXACTLY.scaleb(amount, digits)))
