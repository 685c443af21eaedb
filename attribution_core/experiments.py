"""Experiments as a table.

One row is one experiment: the channel, how much it added (conversions, value, or a share of all conversions), the
standard error of that number, and, where it did not cover the same time as the totals, from when to when it ran.
Invariant: a row that cannot be read is refused with its number and the rule.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Literal

from attributary.attribution_core.cells import is_missing

Measure = Literal["conversions", "value", "share"]
_MEASURES: tuple[Measure, ...] = ("conversions", "value", "share")


class ExperimentError(ValueError):
    """Experiments that cannot be read, or that do not fit the totals; the text names row and rule."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment.

    Attributes:
        channel: whose spend was switched off, or on.
        measure: what was measured; a share is of all conversions, those of people without a touch, too, for an
            experiment counts them all.
        amount: what the channel added.
        standard_error: of it.
        since: begin, microseconds UTC; None: that of the totals.
        until: end.
    """

    channel: str
    measure: Measure
    amount: float
    standard_error: float
    since: int | None = None
    until: int | None = None


def read_experiments(columns: Mapping[str, Iterable[Any]]) -> list[Experiment]:
    """Read experiments from columns: channel, standard_error, one of conversions, value and share; from and to.

    Args:
        columns: as a CSV file or a frame has them; times are ISO 8601 with an offset, dates (UTC), or microseconds UTC.

    Raises:
        ExperimentError: a column is missing, or a cell cannot be read.
    """
    cells = {name: list(columns[name]) for name in columns}
    for name in ("channel", "standard_error"):
        if name not in cells:
            raise ExperimentError(f"experiments: the column {name} is missing")
    if not any(measure in cells for measure in _MEASURES):
        raise ExperimentError(f"experiments: one of the columns {', '.join(_MEASURES)} must be there")
    found = []
    for number in range(len(cells["channel"])):
        row = {name: column[number] for name, column in cells.items()}
        given = [measure for measure in _MEASURES if not _is_empty(row.get(measure))]
        if len(given) != 1:
            raise ExperimentError(f"row {number + 1}: one of {', '.join(_MEASURES)} must be given")
        channel = str(row["channel"]).strip()
        if not channel:
            raise ExperimentError(f"row {number + 1}: channel: must not be empty")
        amount, error = (_number(row[name], f"row {number + 1}: {name}") for name in (given[0], "standard_error"))
        if error <= 0:
            raise ExperimentError(f"row {number + 1}: standard_error: must be positive")
        since, until = (_time(row.get(name), f"row {number + 1}: {name}") for name in ("from", "to"))
        if (since is None) != (until is None) or (since is not None and until is not None and since >= until):
            raise ExperimentError(f"row {number + 1}: from and to: both or none, and to later than from")
        found.append(Experiment(channel, given[0], amount, error, since, until))
    if not found:
        raise ExperimentError("experiments: there is no row")
    return found


def fitting(experiments: Sequence[Experiment], of: Literal["conversions", "value"]) -> list[Experiment]:
    """Return the experiments that measured conversions (a share is of these), or value."""
    return [each for each in experiments if (each.measure == "value") == (of == "value")]


def _is_empty(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def _number(cell: Any, place: str) -> float:
    try:
        found = float(cell)
    except (TypeError, ValueError):
        found = float("nan")
    if not isfinite(found):
        raise ExperimentError(f"{place}: must be a number")
    return found


def _time(cell: Any, place: str) -> int | None:
    if _is_empty(cell):
        return None
    text = str(cell).strip()
    if text.isascii() and text.isdigit() and len(text) > 8:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ExperimentError(f"{place}: must be an ISO 8601 time, a date, or microseconds UTC") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
