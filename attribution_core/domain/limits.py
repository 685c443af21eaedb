"""How large whole numbers may get: 64 bits with a sign hold them, and numpy says nothing when a sum wraps.

Invariant: what may be summed up as int64 was measured here before, so a sum is exact or refused, never wrapped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 2**63 - 1
"""In micros: 9.2e12 units of currency."""
VALUE_LIMIT = "more than 2^63 - 1 micros, 9.2e12 units of currency; give values in thousands"
COUNT_LIMIT = "more than 2^63 - 1"


class LimitError(ValueError):
    """Numbers are larger than 64 bits can hold, or their sums may be; nothing else is wrong with them."""


def magnitude(*parts: NDArray[np.int64]) -> int:
    """Return a bound of the sum of the magnitudes, and so of the sum of any of the numbers.

    It costs two passes over the numbers, and is above `LARGEST` only where the exact sum is.
    """
    bound = sum(max(int(part.max(initial=0)), -int(part.min(initial=0))) * part.size for part in parts)
    if bound <= LARGEST:
        return bound
    nearly = sum(float(np.abs(part.astype(np.float64)).sum()) for part in parts)
    if nearly < LARGEST // 2:  # rounding is far below the factor of two that is left
        return LARGEST
    return sum(sum(map(abs, part.ravel().tolist())) for part in parts)


def whole_number(value: Any, place: str, least: int = -LARGEST) -> int:
    """Return a number of a document as it stands.

    Args:
        value: as it was read.
        place: where it stands, for the error.
        least: what it must not be below.

    Raises:
        ValueError: when it is no whole number (1.0 is none), below `least` or beyond 64 bits; the text begins with the
            place.
    """
    if type(value) is not int or not -LARGEST <= value <= LARGEST:
        raise ValueError(f"{place}: {value!r} is no whole number of 64 bits")
    if value < least:
        raise ValueError(f"{place}: {value} is below {least}")
    return value


def whole_numbers(values: Any, place: str, least: int = -LARGEST) -> NDArray[np.int64]:
    """Return a list of a document as an array int64[n].

    Raises:
        ValueError: when it is no list, or an entry is refused by `whole_number`.
    """
    if not isinstance(values, list):
        raise ValueError(f"{place}: must be a list")  # noqa: TRY004  # readers of a document catch one class
    if not set(map(type, values)) <= {int} or min(values, default=0) < least or max(values, default=0) > LARGEST:
        for number, value in enumerate(values):
            whole_number(value, f"{place}[{number}]", least)
    return np.array(values, dtype=np.int64)
