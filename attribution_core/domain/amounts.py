"""Numbers and amounts as a table or a file writes them: read strictly, by one rule for imports and analyses.

Invariant: a text is a number in one way only: ASCII digits, at most one point, an optional sign and exponent. What
Python reads besides (``1_000``, digits of other scripts, ``nan``) and what people write besides (thousands separators,
a decimal comma, a currency, brackets for negative) is refused with the rule. Imports no numpy.
"""

from __future__ import annotations

import re
from decimal import Decimal

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_DIGITS = 50  # before the point: 1e999999999 as an integer is a gigabyte
_MARKS = ",'\u2019_"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"


def plain_decimal(text: str) -> Decimal:
    """Return the number that a text is; blanks around it do not count.

    Raises:
        ValueError: it is none; the text is the rule, without the cell.
    """
    bare = text.strip()
    if _NUMBER.fullmatch(bare) is None:
        raise ValueError(f"must be a number{_hint(bare)}")
    number = Decimal(bare)
    if not number:
        return Decimal(0)  # of whatever exponent
    if number.adjusted() > _MAX_DIGITS:
        raise ValueError(f"must be a number of at most {_MAX_DIGITS} digits")
    return number


def is_plain(text: str) -> bool:
    """Tell whether a text is free of what Python reads as part of a number and `plain_decimal` does not.

    Text may be many cells joined: a look at each would take longer than reading it.
    """
    return text.isascii() and "_" not in text


def _hint(text: str) -> str:
    """Return what to change, for the ways in which exports write numbers otherwise."""
    parts = text.split()
    has_digits = any(map(str.isdigit, text))
    hints = {
        "use the digits 0 to 9": any(letter.isdigit() and not letter.isascii() for letter in text),
        "use the hyphen as the minus sign": any(dash in text for dash in _DASHES),
        "use a point for decimals and no thousands separator": has_digits and any(mark in text for mark in _MARKS),
        "use no thousands separator": len(parts) > 1 and all(map(_NUMBER.fullmatch, parts)),
        "write a negative number with a minus sign": text[:1] == "(" and text[-1:] == ")",
        "leave the currency or unit out": _NUMBER.search(text) is not None and text[:2].lower() != "0x",
    }
    return next((f": {hint}" for hint, holds in hints.items() if holds), "")
