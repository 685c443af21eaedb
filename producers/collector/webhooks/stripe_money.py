"""Stripe's minor units, which are not those of ISO 4217.

Source: Stripe, "Supported currencies", sections on zero-decimal and three-decimal currencies and on special cases;
support article "Deprecation of fractional ISK charges and refunds". Where the two differ:

- MGA is whole units at Stripe, two decimals in ISO 4217.
- ISK and UGX come with two decimals, which are 00; in ISO 4217 they have none.
- HUF and TWD have two decimals in charges and refunds; Stripe takes whole units for payouts only.

Invariant: an amount that is no whole number of the currency's ISO minor units is refused, never rounded.
"""

from __future__ import annotations

from decimal import Decimal

from attributary.producers.money import minor_digits

from .payload import Unmapped, currency_of, micros_of, whole_of

ZERO_DECIMALS = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
THREE_DECIMALS = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
TWO_DECIMALS_OF_NONE = frozenset({"ISK", "UGX"})


def stripe_decimals(currency: str) -> int:
    """Return the decimals of Stripe's amounts.

    Raises:
        Unmapped: Stripe's amounts in this currency are not known.
    """
    if currency in ZERO_DECIMALS:
        return 0
    if currency in THREE_DECIMALS:
        return 3
    try:
        iso = minor_digits(currency)
    except ValueError as error:
        raise Unmapped("currency", str(error)) from None
    if iso != 2 and currency not in TWO_DECIMALS_OF_NONE:
        raise Unmapped("currency", "is one for which Stripe's decimals are not known")
    return 2


def stripe_micros(amount: object, currency: object, field: str = "amount") -> tuple[int, str]:
    """Return an amount of Stripe in micros, and its currency in upper case.

    Raises:
        Unmapped: it is no amount, or no whole number of ISO minor units.
    """
    code = currency_of(currency)
    units = Decimal(whole_of(amount, field)).scaleb(-stripe_decimals(code))
    return micros_of(units, code, field), code
