"""A cell of a table that somebody else made: one rule for when nothing is in it."""

from math import isnan
from typing import Any


def is_missing(cell: Any) -> bool:
    """Tell whether a cell is empty: None, or the NaN that frames put in its place."""
    return cell is None or (isinstance(cell, float) and isnan(cell))
