"""Experiments as a table.

One row is one experiment: the channel, how much it added (conversions, value, or a share of all conversions), the
standard error of that number, and, where it did not cover the same time as the totals, from when to when it ran.
Invariant: a row that cannot be read is refused with its number and the rule, and so is a column that is not known: a
misspelt `from` would change the result. In a table of so few columns each is meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attributary.attribution_core.domain.amounts import plain_decimal
from attributary.attribution_core.tables.cells import (
    TableError,
    cells_of,
    check_columns,
    is_missing,
    names_in,
    quoted,
)
from attributary.attribution_core.tables.times import time_micros

Measure = Literal["conversions", "value", "share"]
_MEASURES: tuple[Measure, ...] = ("conversions", "value", "share")
_NEEDED = ("channel", "standard_error")
_OPTIONAL = (*_MEASURES, "from", "to")


class ExperimentError(ValueError):
    """Experiments that cannot be read, or that do not fit the totals; the text names row and rule.

    Attributes:
        rule: column and rule, without the row.
        row: from 1, without the names of the columns; None where no single row is wrong.
    """

    def __init__(self, rule: str, *, row: int | None = None) -> None:
        super().__init__(rule if row is None else f"row {row}: {rule}")
        self.rule, self.row = rule, row


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment.

    Attributes:
        channel: the one with its spend switched off, or on.
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
        columns: as a CSV file or a frame has them; a share is a fraction of 1, not a percentage. Times are those of a
            table of events, see `times`: a number is seconds since 1970-01-01 UTC.

    Raises:
        ExperimentError: a column is missing, not known or longer than another, or a cell cannot be read.
        TypeError: something else than a column stands in the place of one.
    """
    try:
        cells = _checked(columns)
        return [
            _experiment(dict(zip(cells, row, strict=True)), number)
            for number, row in enumerate(zip(*cells.values(), strict=True), start=1)
        ]
    except TableError as error:
        raise ExperimentError(error.rule, row=error.row) from error


def fitting(experiments: Sequence[Experiment], of: Literal["conversions", "value"]) -> list[Experiment]:
    """Return the experiments that measured conversions (a share is of these), or value."""
    return [each for each in experiments if (each.measure == "value") == (of == "value")]


def _is_empty(cell: Any) -> bool:
    return is_missing(cell) or (isinstance(cell, str) and not cell.strip())


def _checked(columns: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
    """Return the columns, as many cells in each."""
    for unused in check_columns(columns, "experiments", _NEEDED, _OPTIONAL):
        raise TableError(f"experiments: {unused}")
    if not any(name in columns for name in _MEASURES):
        raise TableError(f"experiments: one of the columns {', '.join(_MEASURES)} must be there")
    cells = {name: cells_of(columns, name) for name in (*_NEEDED, *_OPTIONAL) if name in columns}
    rows = len(cells["channel"])
    if any(len(column) != rows for column in cells.values()):
        raise TableError("experiments: all columns must have the same length")
    if not rows:
        raise TableError("experiments: there is no row")
    return cells


def _experiment(cells: Mapping[str, Any], row: int) -> Experiment:
    given = [measure for measure in _MEASURES if not _is_empty(cells.get(measure))]
    if len(given) != 1:
        which = ", ".join(given) or "none"
        raise TableError(f"exactly one of {', '.join(_MEASURES)} must be given, not {which}", row=row)
    (channel,) = names_in([cells["channel"]])
    if not channel:
        raise TableError("channel: must not be empty", row=row)
    amount, error = (_number(cells[name], name, row) for name in (given[0], "standard_error"))
    if given[0] == "share" and abs(amount) > 1:
        raise TableError(f"share: {quoted(cells['share'])} is more than all: a fraction of 1, 0.2 is 20 %", row=row)
    if error <= 0:
        raise TableError("standard_error: must be positive", row=row)
    since, until = (
        None if _is_empty(cells.get(name)) else time_micros(cells[name], row, name) for name in ("from", "to")
    )
    if (since is None) != (until is None) or (since is not None and until is not None and since >= until):
        raise TableError("from and to: both or none, and to later than from", row=row)
    return Experiment(channel, given[0], amount, error, since, until)


def _number(cell: Any, name: str, row: int) -> float:
    try:
        return float(plain_decimal(str(cell)))
    except ValueError as error:
        raise TableError(f"{name}: {quoted(cell)} {error}", row=row) from error
