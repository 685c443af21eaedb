"""Experiments as they are stored: what a test of spend changed, when, and what it measured.

Invariant: an experiment has spend that was varied by chance. Its amounts are sums over its days and its population, and
become amounts a day and for everybody only where curves are fitted, so that tests of other lengths and shares compare.
An effect may be negative and is kept. One that was not read out yet is planned or still runs, and makes no curve.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from .curves import DESIGNS, Curve, NoCurveError, SpendTest, fit_curve

COLUMNS = ("experiment", "channel", "design", "from", "to", "currency", "spend_from", "spend_to", "effect",
           "standard_error", "share", "source")  # fmt: skip
_OPTIONAL = frozenset({"effect", "standard_error", "share"})
NEEDED = tuple(name for name in COLUMNS if name not in _OPTIONAL)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_LONGEST = 200  # characters of a channel and a source
_MOST = Decimal(10**12)  # units of a currency
_MICROS = 1_000_000


class ExperimentError(ValueError):
    """A row that is no experiment; the text is column and rule."""


@dataclass(frozen=True, slots=True)
class SpendExperiment:
    """A test of spend.

    Attributes:
        experiment: its name, unique in the tenant.
        channel: of the spend.
        design: one of ``DESIGNS``.
        first_day: first day of the test.
        end_day: the day after its last one.
        currency: ISO 4217.
        spend_from_micros: cost of the compared arm, over all days and the population of the test.
        spend_to_micros: cost of the other arm.
        effect_micros: total sales of the other arm less those of the compared one; None: not read out yet.
        error_micros: standard error of the effect.
        population_share: share of all buyers that the amounts are of.
        source: who or what measured it.
        is_withdrawn: not used any more.
    """

    experiment: str
    channel: str
    design: str
    first_day: date
    end_day: date
    currency: str
    spend_from_micros: int
    spend_to_micros: int
    effect_micros: int | None = None
    error_micros: int | None = None
    population_share: float = 1.0
    source: str = ""
    is_withdrawn: bool = False

    @property
    def days(self) -> int:
        """How long it ran."""
        return (self.end_day - self.first_day).days

    def per_days(self, days: int) -> SpendTest:
        """Return what it measured, for everybody and a period of so many days, in units of the currency.

        Raises:
            NoCurveError: it has no effect yet.
        """
        if self.effect_micros is None or self.error_micros is None:
            raise NoCurveError(f"{self.channel}: experiment {self.experiment} has no effect yet")
        scale = days / self.days / self.population_share / _MICROS
        return SpendTest(
            self.channel, self.spend_from_micros * scale, self.spend_to_micros * scale, self.effect_micros * scale,
            self.error_micros * scale, self.design,
        )  # fmt: skip

    def state(self, today: date) -> str:
        """Return planned, running, ended (not read out), read or withdrawn."""
        if self.is_withdrawn:
            return "withdrawn"
        if self.effect_micros is not None:
            return "read"
        return "planned" if today < self.first_day else "running" if today < self.end_day else "ended"


def read_experiment(cells: Mapping[str, Any]) -> SpendExperiment:
    """Return the experiment of a row with the keys ``COLUMNS``.

    Raises:
        ExperimentError: a cell cannot be read or breaks a rule.
    """
    name, channel, source = (str(cells[key] or "").strip() for key in ("experiment", "channel", "source"))
    if not _NAME.fullmatch(name):
        raise ExperimentError("experiment: must be 1 to 64 letters, digits, dots, dashes and underscores")
    for column, text in (("channel", channel), ("source", source)):
        if not 0 < len(text) <= _LONGEST or not text.isprintable():
            raise ExperimentError(f"{column}: must be 1 to {_LONGEST} printable characters")
    design = str(cells["design"] or "").strip()
    if design not in DESIGNS:
        raise ExperimentError(
            f"design: must be one of {', '.join(DESIGNS)}: spend must have been varied by chance, for spend that "
            "follows demand shows several times the true return"
        )
    first, end = (_day(cells[key], key) for key in ("from", "to"))
    if first >= end:
        raise ExperimentError("to: must be a later day than from; it is the day after the last one")
    currency = str(cells["currency"] or "").strip()
    if not _CURRENCY.fullmatch(currency):
        raise ExperimentError("currency: must be an ISO 4217 code, such as EUR")
    spends = [_micros(cells[key], key) for key in ("spend_from", "spend_to")]
    if None in spends or min(map(int, filter(None, spends)), default=0) < 0 or spends[0] == spends[1]:
        raise ExperimentError("spend_from and spend_to: must be 0 or more, and differ")
    effect, error = (_micros(cells.get(key), key) for key in ("effect", "standard_error"))
    if (effect is None) != (error is None) or (error is not None and error <= 0):
        raise ExperimentError("effect and standard_error: both or none, and standard_error above 0")
    share = _share(cells.get("share"))
    return SpendExperiment(
        name, channel, design, first, end, currency, spends[0] or 0, spends[1] or 0, effect, error, share, source
    )


def _day(cell: Any, column: str) -> date:
    try:
        return cell if type(cell) is date else date.fromisoformat(str(cell).strip()[:10])
    except ValueError:
        raise ExperimentError(f"{column}: must be a day, such as 2026-11-02") from None


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or not str(cell).strip()


def _micros(cell: Any, column: str) -> int | None:
    if _is_empty(cell):
        return None
    try:
        amount = Decimal(str(cell).strip())
    except InvalidOperation:
        raise ExperimentError(f"{column}: must be a number, such as 1200.50") from None
    if not amount.is_finite() or abs(amount) > _MOST:
        raise ExperimentError(f"{column}: must be a number up to {_MOST:,}")
    return int((amount * _MICROS).to_integral_value())


def _share(cell: Any) -> float:
    if _is_empty(cell):
        return 1.0
    try:
        share = float(str(cell).strip())
    except ValueError:
        share = math.nan
    if not 0.0 < share <= 1.0:
        raise ExperimentError("share: must be above 0 and at most 1; 0.2 is 20 % of all buyers")
    return share


def stored_curves(
    experiments: Iterable[SpendExperiment], channels: Sequence[str], days: int, draws: int, seed: int
) -> tuple[list[Curve], list[str]]:
    """Return the curves of channels per period of `days`, and the sentences of those without one.

    Args:
        experiments: of a tenant, the newest revision of each.
        channels: that are asked for.
        days: of a period.
        draws: of the errors of a curve.
        seed: of the draws.
    """
    known = [each for each in experiments if not each.is_withdrawn]
    curves, refused = [], []
    for channel in channels:
        mine = [each for each in known if each.channel == channel]
        read = [each for each in mine if each.effect_micros is not None]
        currencies = sorted({each.currency for each in read})
        if not read:
            waiting = f"; {len(mine)} not read out yet" if mine else ""
            refused.append(f"{channel}: no experiment with an effect is stored{waiting}")
            continue
        if len(currencies) > 1:
            refused.append(f"{channel}: its experiments are in {' and '.join(currencies)}; one is needed")
            continue
        try:
            curves.append(fit_curve([each.per_days(days) for each in read], draws, seed))
        except NoCurveError as error:
            refused.append(str(error))
    return curves, refused
