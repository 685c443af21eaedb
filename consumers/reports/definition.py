"""What a report is: a question, columns with their units, and a function that answers from sums.

Invariants: a report is about one currency, and names it; a number without support is None and never a guess; rows that
are not shown are one row, so that additive columns sum to the total whatever the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from attributary.consumers.store.results.credit_report import ModelUse
from attributary.consumers.store.results.report_reads import (
    CurrencyTotal,
    Lags,
    Lengths,
    Path,
    Quality,
    ReportRequest,
    Rest,
)

OTHER, UNATTRIBUTED = "(other)", "(unattributed)"

Unit = Literal["name", "date", "text", "count", "credit", "micros", "share", "days", "ratio", "months"]
Option = Literal["model", "models", "by", "since"]
UNITS = {
    "name": "text that comes from events",
    "date": "YYYY-MM-DD in the report's time zone",
    "text": "one of few words",
    "count": "a whole number",
    "credit": "conversions: a sum of credits",
    "micros": "millionths of the currency; tables and CSV have the currency's own unit",
    "share": "0 to 1; tables have percent",
    "days": "days of 24 hours, or of the calendar where the column says so",
    "ratio": "a number; null where it would divide by zero",
    "months": "calendar months",
}


class Source(Protocol):
    """Sums that reports are computed from; ``StoredResults`` says what each returns."""

    def credits(self) -> list[tuple[str, str, int, float, float, int]]: ...  # noqa: D102
    def rests(self) -> list[Rest]: ...  # noqa: D102
    def uses(self) -> list[ModelUse]: ...  # noqa: D102
    def positions(self) -> list[tuple[str, str, float, int]]: ...  # noqa: D102
    def assists(self) -> list[tuple[str, int, int, int, int]]: ...  # noqa: D102
    def paths(self) -> list[Path]: ...  # noqa: D102
    def lengths(self) -> Lengths: ...  # noqa: D102
    def lags(self) -> Lags: ...  # noqa: D102
    def days(self) -> list[tuple[Any, Any, float, int]]: ...  # noqa: D102
    def conversion_days(self) -> list[tuple[Any, int, int, int, int, float]]: ...  # noqa: D102
    def cohorts(self) -> list[tuple[Any, str, int, int, int, int]]: ...  # noqa: D102
    def cash_delays(self) -> list[tuple[Any, int, float]]: ...  # noqa: D102
    def accrual_delays(self) -> list[tuple[Any, int, float]]: ...  # noqa: D102
    def changes(self) -> list[tuple[str, str, int, float, int]]: ...  # noqa: D102
    def removed(self) -> list[tuple[str, int, int]]: ...  # noqa: D102
    def quality(self) -> Quality: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a report.

    Attributes:
        name: as CSV and JSON have it.
        unit: of its cells.
        text: what it is.
        is_additive: its cells may be added up, and sum to the total.
    """

    name: str
    unit: Unit
    text: str
    is_additive: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What a computation knows of the request, beside the sums.

    Attributes:
        request: the request.
        total: conversions and net value of its currency.
        now_us: the moment of the report, microseconds UTC.
    """

    request: ReportRequest
    total: CurrencyTotal
    now_us: int

    @property
    def model(self) -> str:
        """The model of a report of one model."""
        return self.request.models[0]


@dataclass(frozen=True, slots=True)
class ReportTable:
    """The answer of a report.

    Attributes:
        rows: one cell a column; None: there is no such number.
        finding: one sentence that the rows support.
        notes: sentences that a reader of the numbers needs.
    """

    rows: Sequence[Sequence[Any]]
    finding: str
    notes: Sequence[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Report:
    """A report of the catalogue.

    Attributes:
        name: in commands and addresses.
        title: on pages.
        question: what it answers, one sentence.
        text: definitions, for the docs.
        columns: of its rows.
        options: what it looks at beside tenant, period, currency, types, time zone and limit.
        compute: answers it.
    """

    name: str
    title: str
    question: str
    text: str
    columns: Sequence[Column]
    options: Sequence[Option]
    compute: Callable[[Source, Asked], ReportTable]


def percent(share: float) -> str:
    """Return a share in percent, for sentences."""
    return f"{100 * share:.1f} %"


def counted(number: float, noun: str) -> str:
    """Return a number with its noun, for sentences."""
    return f"{number:,.0f} {noun}{'' if number == 1 else 's'}"
