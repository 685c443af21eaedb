"""Cells of a file become values of the schema's types.

Invariant: nothing is guessed and nothing is rounded. A cell that cannot be read exactly raises ``ValueError`` whose
text is the rule, without the cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from attributary.attribution_core.domain.amounts import plain_decimal
from attributary.producers.importer.plan import TIME_UNITS, ImportPlan
from attributary.producers.times import to_micros

Reader = Callable[[Any], Any]

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})
_EXACT_DOUBLES = 2**53
_NAMED_UTC = re.compile(r"\s*\b(UTC|GMT|Z)\s*$", re.IGNORECASE)
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
    if isinstance(cell, float | Decimal):
        return _written_out(Decimal(repr(cell)) if isinstance(cell, float) else cell)
    if isinstance(cell, int | UUID):
        return str(cell)
    raise ValueError("must be a text")


def _written_out(number: Decimal) -> str:
    """Return a number of JSON or Avro as a text: 12345.0 is 12345; one that lost digits to a double is refused."""
    if not number.is_finite():
        raise ValueError("must be a text, not a number that is not finite")
    if number != number.to_integral_value():
        return str(number)
    if abs(number) >= _EXACT_DOUBLES:
        raise ValueError("must be a text: a number of this size loses digits in JSON, put it into quotation marks")
    return str(int(number))


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
    if isinstance(cell, str):
        if cell.strip().lower().lstrip("+-") in {"nan", "inf", "infinity"}:
            raise ValueError("must be a finite number")
        return plain_decimal(cell)
    number = Decimal(str(cell) if isinstance(cell, float) else text(cell))
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


def amount_reader(plan: ImportPlan) -> Callable[[Any], Decimal]:
    """Return the reader of amounts of money."""
    return decimal_with_comma if plan.decimal_comma else decimal


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
        return _located(_moment(text(cell).strip(), pattern), plan)

    return read


def _moment(written: str, pattern: str | None) -> datetime:
    """Read a time; the zone names UTC and GMT count, others mean several zones and are refused."""
    named = _NAMED_UTC.search(written)
    try:
        if pattern is None:
            moment = datetime.fromisoformat(_NAMED_UTC.sub("", written) if named else written)
        else:
            moment = datetime.strptime(written, pattern)  # noqa: DTZ007
    except ValueError:
        wanted = f"the format {pattern}" if pattern else "ISO 8601, or name another format (--time-format)"
        raise ValueError(f"must be a time in {wanted}") from None
    if named and (pattern is None or "%Z" in pattern):
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if pattern is not None and "%Z" in pattern:
        raise ValueError("names a zone other than UTC and GMT: write the offset (%z)")
    return moment


def _located(moment: datetime, plan: ImportPlan) -> int:
    if moment.utcoffset() is None:
        if plan.timezone is None:
            raise ValueError("has no time zone: name the one it is written in (--timezone)")
        placed = moment.replace(tzinfo=plan.timezone)
        if placed.astimezone(UTC).astimezone(plan.timezone).replace(tzinfo=None) != moment:
            raise ValueError(f"is a time that {plan.timezone} never had: clocks were set forward over it")
        moment = placed
    return to_micros(moment)
