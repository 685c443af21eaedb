"""Cells of a file become values of the schema's types.

Invariant: nothing is guessed and nothing is rounded. A cell that cannot be read exactly raises ``ValueError`` whose
text is the rule, without the cell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from attributary.producers.importer.plan import TIME_UNITS, ImportPlan
from attributary.producers.times import to_micros

Reader = Callable[[Any], Any]

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})
_LONGEST_NUMBER = 19  # digits before the point, as many as a long has


def is_missing(cell: Any) -> bool:
    """Tell whether a cell says nothing: null, or empty text."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def text(cell: Any) -> str:
    """Return a cell as text; numbers, truth values and UUIDs as JSON writes them."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, int | float | Decimal | UUID):
        return str(cell)
    raise ValueError("must be a text")


def boolean(cell: Any) -> bool:
    """Return a truth value."""
    if isinstance(cell, bool):
        return cell
    word = text(cell).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("must be true or false (yes/no, 1/0)")


def integer(cell: Any) -> int:
    """Return a whole number."""
    number = decimal(cell)
    if number.adjusted() > _LONGEST_NUMBER or number != number.to_integral_value():
        raise ValueError("must be a whole number")
    return int(number)


def floating(cell: Any) -> float:
    """Return a number with a fraction, as near as a double comes."""
    return float(decimal(cell))


def decimal(cell: Any) -> Decimal:
    """Return a number exactly as it is written; a double as the shortest text that means it."""
    if isinstance(cell, bool):
        raise ValueError("must be a number")  # noqa: TRY004 - one class for all faults of cells
    try:
        number = Decimal(str(cell) if isinstance(cell, float) else text(cell).strip())
    except InvalidOperation:
        raise ValueError("must be a number") from None
    if not number.is_finite():
        raise ValueError("must be a finite number")
    return number


def decimal_with_comma(cell: Any) -> Decimal:
    """Return a number that is written with a decimal comma: 19,99."""
    if isinstance(cell, str):
        if "." in cell:
            raise ValueError("must be a number with a decimal comma and no points")
        return decimal(cell.replace(",", "."))
    return decimal(cell)


def mapping(cell: Any) -> Mapping[str, Any]:
    """Return a mapping, from a mapping or a JSON object."""
    found = parsed(cell)
    if not isinstance(found, Mapping):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - one class for all faults of cells
    return found


def sequence(cell: Any) -> list[Any]:
    """Return a list, from a list or a JSON array."""
    found = parsed(cell)
    if not isinstance(found, list):
        raise ValueError("must be a JSON array")  # noqa: TRY004 - one class for all faults of cells
    return found


def parsed(cell: Any) -> Any:
    """Return what a text of JSON means; other cells as they are."""
    if not isinstance(cell, str):
        return cell
    try:
        return json.loads(cell, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON") from None


def instant_reader(plan: ImportPlan) -> Reader:
    """Return the reader of times: microseconds UTC, exactly."""
    unit = TIME_UNITS.get(plan.time_format)
    pattern = None if unit or plan.time_format == "iso" else plan.time_format

    def read(cell: Any) -> int:
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - the zone is added below
        if isinstance(cell, datetime):
            return _located(cell, plan)
        if unit is not None:
            number = decimal(cell)
            if number.adjusted() > _LONGEST_NUMBER:
                raise ValueError("must be a time between the years 1 and 9999")
            return int(number * unit // 1)
        if isinstance(cell, int) and not isinstance(cell, bool):
            return cell  # a number in JSON or Avro is what the schema says: microseconds
        written = text(cell).strip()
        try:
            moment = datetime.strptime(written, pattern) if pattern else datetime.fromisoformat(written)  # noqa: DTZ007
        except ValueError:
            wanted = f"the format {pattern}" if pattern else "ISO 8601, or name another format (--time-format)"
            raise ValueError(f"must be a time in {wanted}") from None
        return _located(moment, plan)

    return read


def _located(moment: datetime, plan: ImportPlan) -> int:
    if moment.utcoffset() is None:
        if plan.timezone is None:
            raise ValueError("has no time zone: name the one it is written in (--timezone)")
        moment = moment.replace(tzinfo=plan.timezone)
    return to_micros(moment)
