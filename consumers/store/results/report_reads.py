"""Sums over the newest results that the catalogue of reports is computed from, one statement a question.

Invariants: of every conversion the version counts that was the newest at the moment of the report; by its time, type
and currency the conversion is in the report or not. Credit is summed and never spread again: what a filter leaves out
gets nothing and gives nothing. Sums of micros are exact. The tenant is the first predicate of every statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _report_statements as sql
from .credit_report import ModelUse

if TYPE_CHECKING:
    import psycopg

DIMENSIONS = ("channel", "platform", "campaign")
LONGEST_PATH = 8  # longer ones are told apart by their number of steps alone
_SETTINGS = ("SET LOCAL work_mem = '64MB'", "SET LOCAL jit = off")  # a report sorts more than a stage's transaction


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What a report is asked about. Times are microseconds UTC.

    Attributes:
        tenant_id: the tenant; nothing of another one is read.
        models: names of models; a report of one model takes the first.
        by: what names are: channel, platform or campaign.
        period_us: event time of the conversions, from (included) to (excluded).
        as_of_us: versions that were computed later are not looked at.
        since_us: what changed after this moment is a change.
        currency: ISO 4217; a report is about one.
        conversion_types: conversions of these only; empty: all.
        time_zone: IANA name of the zone in which days and months begin.
        limit: most names or paths; the rest is one row. 0: all.
    """

    tenant_id: str
    models: Sequence[str]
    by: str
    period_us: tuple[int, int]
    as_of_us: int
    since_us: int
    currency: str
    conversion_types: Sequence[str] = ()
    time_zone: str = "UTC"
    limit: int = 50

    def parameters(self) -> dict[str, object]:
        """Return the values of the statements."""
        return {
            "tenant": self.tenant_id, "models": list(self.models), "from_us": self.period_us[0],
            "to_us": self.period_us[1], "as_of_us": self.as_of_us, "since_us": self.since_us,
            "currency": self.currency, "types": list(self.conversion_types) or None, "zone": self.time_zone,
        }  # fmt: skip


class CurrencyTotal(NamedTuple):
    """Conversions in one currency: how many, their net value in micros, and how many cannot change any more."""

    currency: str
    conversions: int
    net_micros: int
    final: int


class Rest(NamedTuple):
    """What one model leaves without a touchpoint; credits are conversions, values micros.

    Attributes:
        model: the model.
        conversions: that it credits, wholly or not.
        fallbacks: that another rule credited in its place.
        untouched: conversions without a touchpoint in their lookback windows.
        untouched_micros: their net value.
        baseline: credit that the model keeps for what would have happened anyway.
        baseline_micros: its value.
        squares: sum of squares of the unattributed part of each conversion.
    """

    model: str
    conversions: int
    fallbacks: int
    untouched: float
    untouched_micros: int
    baseline: float
    baseline_micros: int
    squares: float


class Path(NamedTuple):
    """Conversions with one path: runs of one name are one step.

    Attributes:
        names: in the order of time; none: no touchpoint, or more than `LONGEST_PATH` steps.
        steps: how many.
        conversions: with it.
        micros: their net value.
    """

    names: tuple[str, ...]
    steps: int
    conversions: int
    micros: int


class Lengths(NamedTuple):
    """Conversions by touchpoints, with their net micros, and by steps."""

    touches: Sequence[tuple[int, int, int]]
    steps: Sequence[tuple[int, int]]


class Lags(NamedTuple):
    """Touched conversions by whole days since the first touch, with net micros, and since the last one."""

    first: Sequence[tuple[int, int, int]]
    last: Sequence[tuple[int, int]]


class Quality(NamedTuple):
    """Counts of what makes numbers less sure; of rows that are read one by one.

    Attributes:
        touches: touchpoints, of robots, without a campaign, of no known channel, a day late or more.
        conversions: all, with a newer version on its way, without a currency, a day late or more, below zero.
        conflicts: contents that were set aside.
        most: of each of the three no more were looked at; None: all.
    """

    touches: Sequence[int]
    conversions: Sequence[int]
    conflicts: int
    most: int | None

    @property
    def is_cut(self) -> bool:
        """There is more than was looked at, as far as one can tell."""
        return self.most is not None and self.most <= max(self.touches[0], self.conversions[0], self.conflicts)


def collapsed(steps: Iterable[str]) -> tuple[str, ...]:
    """Return a path with runs of one name as one step."""
    return tuple(name for name, _ in groupby(steps))


def place_of(place: int, touches: int) -> str:
    """Return whether a touch is early, mid or late; a quarter is early, rounded half up, a quarter late, rounded up.

    Args:
        place: 1 for the first touch.
        touches: of the journey.
    """
    if place > touches - -(-touches // 4):
        return "late"
    return "early" if touches > 1 and place <= (touches + 2) // 4 else "mid"


class StoredResults:
    """Answers from the stored results of one request; a roll-up may answer the same questions in its place.

    Args:
        connection: in a snapshot.
        request: what is asked.
    """

    def __init__(self, connection: psycopg.Connection, request: ReportRequest) -> None:
        self._connection = connection
        self._values = request.parameters()
        name = sql.NAMES[request.by]
        self._parts = {
            "newest": sql.WHOLE,
            "name": name,
            "touches": sql.TOUCHES.format(name=name),
            "inside": sql.FILTER,
        }
        for setting in _SETTINGS:
            connection.execute(setting)

    def totals(self) -> list[CurrencyTotal]:
        """Return conversions and net value by currency, the most frequent first; of all currencies."""
        return [CurrencyTotal(*row) for row in self._rows(sql.TOTALS)]

    def known_models(self) -> list[str]:
        """Return the names of the models that credit the conversions."""
        return [name for (name,) in self._rows(sql.MODELS)]

    def credits(self) -> list[tuple[str, str, int, float, float, int]]:
        """Return model, name, conversions with it, credit, sum of squared credits, micros."""
        return self._rows(sql.CREDITS)

    def rests(self) -> list[Rest]:
        """Return what each model leaves without a touchpoint."""
        return [Rest(*row) for row in self._rows(sql.RESTS)]

    def uses(self) -> list[ModelUse]:
        """Return by which versions and fallback rules the models credited how many conversions."""
        return [ModelUse(*row) for row in self._rows(sql.USES)]

    def positions(self) -> list[tuple[str, str, float, int]]:
        """Return name, early or mid or late, credit, micros; of all requested models together."""
        return self._rows(sql.POSITIONS)

    def assists(self) -> list[tuple[str, int, int, int, int]]:
        """Return name, conversions with it, with it before the last touch, as the last touch, only before it."""
        return self._rows(sql.ASSISTS, newest=sql.PATHS_OF)

    def paths(self) -> list[Path]:
        """Return the paths."""
        found: dict[tuple[tuple[str, ...], int], list[int]] = {}
        for names, conversions, micros in self._paths():
            runs = collapsed(names)
            sums = found.setdefault((runs if len(runs) <= LONGEST_PATH else (), len(runs)), [0, 0])
            sums[0] += conversions
            sums[1] += micros
        return [Path(*key, *sums) for key, sums in found.items()]

    def lengths(self) -> Lengths:
        """Return how long the journeys are."""
        touches: dict[int, list[int]] = {}
        steps: dict[int, int] = {}
        for names, conversions, micros in self._paths():
            sums = touches.setdefault(len(names), [0, 0])
            sums[0] += conversions
            sums[1] += micros
            length = len(collapsed(names))
            steps[length] = steps.get(length, 0) + conversions
        return Lengths([(length, sums[0], sums[1]) for length, sums in touches.items()], list(steps.items()))

    def _paths(self) -> list[tuple[list[str], int, int]]:
        return self._rows(sql.PATHS, newest=sql.PATHS_OF)

    def lags(self) -> Lags:
        """Return the time from the first and the last touch to the conversion."""
        rows = self._rows(sql.LAGS)
        return Lags(
            [(days, conversions, micros) for is_first, days, conversions, micros in rows if is_first],
            [(days, conversions) for is_first, days, conversions, _ in rows if not is_first],
        )

    def days(self) -> list[tuple[Any, Any, float, int]]:
        """Return day of the conversion or else day of the touch, credit, micros; of touchpoints only."""
        return self._rows(sql.DAYS)

    def conversion_days(self) -> list[tuple[Any, int, int, int, int, float]]:
        """Return day, conversions, final ones, net micros, unattributed micros, unattributed credit."""
        return self._rows(sql.REST_DAYS)

    def cohorts(self) -> list[tuple[Any, str, int, int, int, int]]:
        """Return month and first channel of people's first conversions, months since, people, conversions, micros."""
        return self._rows(sql.COHORTS)

    def cash_delays(self) -> list[tuple[Any, int, float]]:
        """Return day of the conversion, days until it was first reported, conversions."""
        return self._rows(sql.CASH_DELAYS)

    def accrual_delays(self) -> list[tuple[Any, int, float]]:
        """Return day of the touch, days until its conversion was first reported, credit."""
        return self._rows(sql.ACCRUAL_DELAYS)

    def changes(self) -> list[tuple[str, str, int, float, int]]:
        """Return name, reason, versions, change of credit and of micros since the moment of the request."""
        return self._rows(sql.CHANGES)

    def removed(self) -> list[tuple[str, int, int]]:
        """Return (erased) and (retired): conversions and net micros that are no longer stored one by one."""
        return self._rows(sql.REMOVED)

    def quality(self, most: int | None = None) -> Quality:
        """Return what makes the numbers less sure.

        Args:
            most: touchpoints, conversions and contents to look at; None: all.
        """
        self._values["most"] = most
        conflicts = self._rows(sql.CONFLICTS)[0][0]
        return Quality(self._rows(sql.TOUCHPOINT_QUALITY)[0], self._rows(sql.CONVERSION_QUALITY)[0], conflicts, most)

    def _rows(self, statement: str, **parts: str) -> list[Any]:
        """Run a statement; its text comes from the constants above alone."""
        named = {**self._parts, **parts}
        for name in ("touches", "newest", "name", "inside"):
            statement = statement.replace(f"{{{name}}}", named[name])
        return self._connection.execute(statement.encode(), self._values).fetchall()
