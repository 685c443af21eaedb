"""Options of an analysis: their rules, and which of them change nothing.

Invariant: settings that exist are valid, as far as that can be checked without data. An option that does nothing with
the models asked for is a note.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, get_args

from attributary.attribution_core.inference.interval import IntervalMethod, is_fast
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.tables.experiments import Experiment

# Options that only some models use.
_USED_BY = {
    "order": ("markov", "markov_journeys"),
    "baseline": ("markov_shapley",),
    "rules.half_life_seconds": ("time_decay",),
    "rules.*_weight": ("position_based",),
}
# Models with intervals of closed form on the fast path: their credits are fixed before any draw.
_CLOSED_FORM = frozenset({*RULES, "shapley"})
MOST_DAYS = 36_500
"""The longest lookback, days: a century."""
_LEAST = {"order": 1, "draws": 2, "seed": 0, "minimum_conversions": 0, "max_channels": 2}
_MOST = {"max_channels": 2_000}  # a matrix of all pairs of channels has 32 MB then


@dataclass(frozen=True)
class AnalysisSettings:
    """Options of an analysis.

    Attributes:
        order: of the Markov chain, from 1.
        intervals: whether to compute 90 % intervals and confidence.
        method: of the intervals: bootstrap (default up to 200,000 rows), or the fast path.
        draws: behind the intervals, at least 2.
        seed: of the draws, not negative.
        max_channels: rare channels beyond so many are pooled into "(other)", from 2 to 2,000; see `pool_rare`.
        minimum_conversions: a channel in fewer conversions has insufficient data.
        baseline: channels that are always there, for Markov-Shapley; a single name may stand for a collection of one.
        transforms: named steps before anything else, see `transforms`; a single name may stand for one step.
        rules: parameters of the rules.
        insights: whether to look for sentences that pass a test; they stand in the diagnostics.
        lookback_days: tables of events: a touch longer before its journey's end does not count; None: no limit.
        experiments: results of experiments, by which the totals are scaled; intervals are computed then, too.

    Raises:
        ValueError: an option breaks its rule; the text names both.
    """

    order: int = 1
    intervals: bool = False
    method: IntervalMethod = "auto"
    draws: int = 200
    seed: int = 0
    minimum_conversions: int = 30
    max_channels: int = 500
    baseline: tuple[str, ...] = ()
    transforms: tuple[str, ...] = ()
    rules: RuleSettings = field(default_factory=RuleSettings)
    insights: bool = False
    lookback_days: float | None = None
    experiments: tuple[Experiment, ...] = ()

    def __post_init__(self) -> None:
        given: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        _check_numbers(given)
        for name in ("intervals", "insights"):
            if not isinstance(given[name], bool):
                raise ValueError(f"{name}: must be True or False, not {given[name]!r}")  # noqa: TRY004  # one class for all rules
        days = given["lookback_days"]
        if days is not None and not (isinstance(days, Real) and 0 <= float(days) <= MOST_DAYS):
            raise ValueError(f"lookback_days: must be a number of days from 0 to {MOST_DAYS:,}, not {days!r}")
        if given["method"] not in get_args(IntervalMethod):
            raise ValueError(f"method: must be auto, bootstrap or fast, not {given['method']!r}")
        if not isinstance(given["rules"], RuleSettings):
            raise ValueError(f"rules: must be RuleSettings, not {given['rules']!r}")  # noqa: TRY004  # the same
        for name, of in (("baseline", "channels"), ("transforms", "transforms")):
            object.__setattr__(self, name, names_of(given[name], f"{name}: must be names of {of}"))
        experiments = _tuple_of(given["experiments"], Experiment)
        if experiments is None:
            raise ValueError("experiments: must be what read_experiments returns")
        object.__setattr__(self, "experiments", experiments)


def _check_numbers(given: Mapping[str, Any]) -> None:
    for name, least in _LEAST.items():
        number = given[name]
        most = _MOST.get(name)
        if isinstance(number, bool) or not isinstance(number, Integral) or int(number) < least:
            raise ValueError(f"{name}: must be a whole number, at least {least}, not {number!r}")
        if most is not None and int(number) > most:
            raise ValueError(f"{name}: must be at most {most:,}, not {number:,}")


def names_of(names: Any, rule: str) -> tuple[str, ...]:
    """Return names as a tuple; a single one stands for a collection of one.

    Raises:
        ValueError: they are no names; the text is the rule.
    """
    found = (names,) if isinstance(names, str) else _tuple_of(names, str)
    if found is None:
        raise ValueError(f"{rule}, not {names!r}")
    return found


def unused_options(
    settings: AnalysisSettings, models: Collection[str], beside: Collection[str] = (), rows: int = 0
) -> tuple[str, ...]:
    """Return a note on each option that was given and changes nothing.

    Args:
        settings: the options.
        models: those asked for.
        beside: further models that are computed for comparison, without intervals.
        rows: of the table.
    """
    given = _given(settings)
    at_work = {*models, *beside}
    notes = [
        f"{name} has no effect: only {', '.join(users)} use{'s' if len(users) == 1 else ''} it"
        for name, users in _USED_BY.items()
        if name in given and not at_work.intersection(users)
    ]
    if "method" in given and not settings.intervals:
        notes.append("method has no effect without intervals")
    draws = [name for name in ("draws", "seed") if name in given and not settings.insights]
    if not settings.intervals:
        notes += [f"{name} has no effect without intervals or insights" for name in draws]
    elif is_fast(settings.method, rows) and _CLOSED_FORM.issuperset(models):
        notes += [f"{name} has no effect: the intervals of these models have a closed form" for name in draws]
    return tuple(notes)


def _given(settings: AnalysisSettings) -> set[str]:
    """Return the names of the options that are not the usual ones, those of the rules one by one."""
    usual = AnalysisSettings()
    given = {each.name for each in fields(settings) if getattr(settings, each.name) != getattr(usual, each.name)}
    for each in fields(settings.rules):
        if getattr(settings.rules, each.name) != getattr(usual.rules, each.name):
            given.add("rules.*_weight" if each.name.endswith("_weight") else f"rules.{each.name}")
    return given


def _tuple_of(items: Any, kind: type) -> tuple[Any, ...] | None:
    """Return the items, or None when one is of another kind, or they are none."""
    if not isinstance(items, Iterable):
        return None
    found = tuple(items)
    return found if all(isinstance(item, kind) for item in found) else None
