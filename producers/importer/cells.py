"""Cells of a file become values of the schema's types.

Invariant: nothing is guessed and nothing is rounded. A cell that cannot be read exactly raises ``ValueError``; its
text is the rule, without the cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attributary.attribution_core.domain.amounts import plain_decimal
from attributary.producers.times import to_micros

if TYPE_CHECKING:
    from attributary.producers.importer.plan import ImportPlan

TIME_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
Reader = Callable[[Any], Any]

_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})
_EXACT_DOUBLES = 2**53
_NAMED_UTC = re.compile(r"\s*\b(UTC|GMT|Z)\s*$", re.IGNORECASE)
_IANA = re.compile(
    r"\s+((?:Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Europe|Indian|Pacific|Etc)/[\w+/-]+)$"
)
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}
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


def text_of_any(cell: Any) -> str:
    """Return a cell as text as `text` does; a list or an object as its JSON, which destinations get as a text."""
    if isinstance(cell, list | Mapping):
        return json.dumps(cell, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=text)
    return text(cell)


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
    """Return the reader of times: microseconds UTC, exactly. Of several formats the first that fits counts."""
    formats = (plan.time_format,) if isinstance(plan.time_format, str) else plan.time_format
    unit = TIME_UNITS.get(formats[0])
    patterns = [None if each == "iso" else each for each in formats]

    def read(cell: Any) -> int:
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - the zone is added below
        if isinstance(cell, datetime):
            return _located(cell, plan)
        if unit is not None:
            return _since_1970(cell, formats[0], unit)
        if isinstance(cell, int) and not isinstance(cell, bool):
            return cell  # a number in JSON or Avro is what the schema says: microseconds
        return _located(_moment(text(cell).strip(), patterns), plan)

    return read


def _since_1970(cell: Any, name: str, unit: int) -> int:
    try:
        number = decimal(cell)
    except ValueError:
        raise ValueError(f"must be a number of {_UNIT_NAMES[name]} since 1970 (--time-format {name})") from None
    if number.adjusted() > _LONGEST_NUMBER:
        raise ValueError("must be a time between the years 1 and 9999")
    return int(number * unit // 1)


def _moment(written: str, patterns: Sequence[str | None]) -> datetime:
    """Read a time by the first pattern that fits; None is ISO 8601.

    The zone names UTC and GMT count, and names of the IANA database behind a time (``Europe/Berlin``); others, such as
    CET and PST, mean several zones and are refused.
    """
    for pattern in patterns:
        try:
            return _of_pattern(written, pattern)
        except _NotOfPatternError:
            continue
    wanted = " or ".join(
        f"the format {each}" if each else "ISO 8601, such as 2026-11-28T10:01:00+01:00" for each in patterns
    )
    raise ValueError(f"must be a time in {wanted}; --time-format names another")


class _NotOfPatternError(Exception):
    pass


def _of_pattern(written: str, pattern: str | None) -> datetime:
    named = _NAMED_UTC.search(written)
    region = None if named or pattern is not None else _IANA.search(written)
    try:
        if pattern is None:
            bare = written[: region.start()] if region else _NAMED_UTC.sub("", written) if named else written
            moment = datetime.fromisoformat(bare)
        else:
            moment = datetime.strptime(written, pattern)  # noqa: DTZ007
    except ValueError:
        raise _NotOfPatternError from None
    if region is not None:
        return _in_zone(moment, region[1])
    if named and (pattern is None or "%Z" in pattern):
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if pattern is not None and "%Z" in pattern:
        raise ValueError("names a zone other than UTC and GMT: write the offset (%z)")
    return moment


def _in_zone(moment: datetime, name: str) -> datetime:
    """Place a time in a zone that its text names."""
    try:
        zone = ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("names a time zone that the IANA database does not have") from None
    if moment.tzinfo is not None:
        raise ValueError("has an offset and the name of a zone: one of them is enough")
    return _placed(moment, zone)


def _placed(moment: datetime, zone: ZoneInfo) -> datetime:
    placed = moment.replace(tzinfo=zone)
    if placed.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != moment:
        raise ValueError(f"is a time that {zone} never had: clocks were set forward over it")
    return placed


def _located(moment: datetime, plan: ImportPlan) -> int:
    if moment.utcoffset() is None:
        if plan.timezone is None:
            raise ValueError("has no time zone: name the one it is written in (--timezone)")
        moment = _placed(moment, plan.timezone)
    return to_micros(moment)
