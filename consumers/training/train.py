"""Training: from the finished journeys in the store to a new version of a model, with its metadata.

Invariant: a version is a function of the stored events, the plan and the code. The model is built
from it once, as the attributor will build it, before anything is kept.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from attributary import __version__
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.markov_credit import MarkovSettings
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.models.poisson_credit import PoissonSettings
from attributary.attribution_core.statistics.forgetting import UNIT, ForgettingState
from attributary.attribution_core.statistics.likelihood import FitError
from attributary.consumers.store.models.model_states import NewState

from .channel_report import OK, channel_report
from .contributions import weighted_by_age
from .incremental_state import current_statistics, snapshot
from .model_settings import NOT_FOR_POISSON, check_model_name, check_settings, half_life_micros
from .rates import fit_rates
from .read_exposures import read_exposures
from .read_journeys import Progress, Window, WindowStatistics, no_progress, read_daily_statistics, read_statistics

_COMMIT = re.compile(r"[0-9a-f]{40}")
_COMMIT_DIGITS = 12  # that a version shows


class TrainingError(ValueError):
    """A training that cannot be done; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        model: one of the trained models.
        window: the journeys to train on.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        currency: of the values; None: the most common one.
        settings: the model's parameters, by the names of its settings class.
        half_life_micros: age at which a journey weighs half, counted from the day of the newest one, microseconds;
            None: all weigh the same.
    """

    model: str
    window: Window
    inactivity_micros: int
    currency: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    half_life_micros: int | None = None

    @property
    def is_standing(self) -> bool:
        """Whether the plan is about the journeys of the incremental state."""
        return self.model != "poisson" and self.window == Window(self.window.tenant_id)


def check_model(model: str, settings: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Build the model once from its JSON, as the attributor will.

    Raises:
        TrainingError: the model cannot be built.
    """
    try:
        stored = json.loads(json.dumps([document, settings], allow_nan=False))
        model_set([model], {model: TrainedState("0", *stored)})
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(f"{model}: {error}") from error


def check_usable(state: NewState) -> None:
    """Check the status of a version before it is activated at once.

    Raises:
        TrainingError: its status is not `OK`.
    """
    status = state.metadata["diagnostics"]["status"]
    if status != OK:
        raise TrainingError(
            f"{state.model} was trained, not activated and not kept, because its status is: {status}. To keep it for a "
            "look, train without activation; to activate it all the same: --force, in a job force=true"
        )


def _check_plan(plan: TrainingPlan) -> MarkovSettings | PoissonSettings:
    """Check the plan before anything is read. Return the settings of the model."""
    try:
        check_model_name(plan.model)
    except ValueError as error:
        raise TrainingError(str(error)) from None
    if plan.model == "poisson" and (plan.half_life_micros is not None or plan.currency is not None):
        raise TrainingError(f"half-life, currency: are not for poisson, {NOT_FOR_POISSON}")
    try:
        if plan.half_life_micros is not None:
            half_life_micros(plan.half_life_micros / MICROS_PER_DAY)
    except ValueError as error:
        raise TrainingError(f"half-life: {error}") from None
    try:
        return check_settings(plan.model, plan.settings)
    except ValueError as error:
        raise TrainingError(f"{plan.model}: {error}") from error


def incremental_statistics(
    connection: psycopg.Connection, plan: TrainingPlan, progress: Progress = no_progress
) -> WindowStatistics | None:
    """Return the statistics for a training from the incremental state; None: the store must be read.

    Args:
        connection: not in a transaction; writes, because the state is brought up to date first.
        plan: what to train.
        progress: called with changes done and changes in all; may raise to stop.
    """
    if not plan.is_standing:
        return None
    tenant_id = plan.window.tenant_id
    return current_statistics(connection, tenant_id, plan.inactivity_micros, currency=plan.currency, progress=progress)


def train(
    connection: psycopg.Connection,
    plan: TrainingPlan,
    progress: Progress = no_progress,
    statistics: WindowStatistics | None = None,
) -> NewState:
    """Train a model.

    Args:
        connection: in a snapshot (REPEATABLE READ).
        plan: what to train.
        progress: called with people read and people in all; may raise to stop.
        statistics: from `incremental_statistics`.

    Returns:
        The state with its metadata, not stored yet.

    Raises:
        TrainingError: the model or a setting does not exist, the window has no finished journey, or the currency has
            no conversion.
    """
    started = time.monotonic()
    chosen = _check_plan(plan)
    if isinstance(chosen, PoissonSettings):
        return _train_rates(connection, plan, chosen, progress, started)
    if statistics is None:
        read = read_statistics if plan.half_life_micros is None else read_daily_statistics
        statistics = read(connection, plan.window, plan.inactivity_micros, currency=plan.currency, progress=progress)
    if not statistics.state.conversions + statistics.state.nulls:
        raise TrainingError(f"tenant {plan.window.tenant_id} has no finished journey in the window")
    if plan.currency is not None and statistics.counts.foreign_currency == statistics.state.conversions > 0:
        raise TrainingError(f"currency: no conversion in the window is in {plan.currency}")
    state, settings, options = statistics.state, dict(plan.settings), dict[str, Any]()
    weighted = None if plan.half_life_micros is None else weighted_by_age(statistics.periods, plan.half_life_micros)
    if weighted is not None:
        state, settings["journeys_per_count"] = weighted.state, weighted.journeys_per_count
        options = {"journeys_per_count": weighted.journeys_per_count, "unit": UNIT}
    document = state.bounded().to_document()
    check_model(plan.model, settings, document)
    report = channel_report(state, minimum_conversions=chosen.minimum_conversions, **options) | {
        "kept_sets": len(document["sets"])
    }
    metadata = _metadata(plan, statistics, weighted) | {
        "training_seconds": round(time.monotonic() - started, 3),
        "diagnostics": report,
    }
    return NewState(plan.window.tenant_id, plan.model, document, settings, metadata)


def train_from_store(connection: psycopg.Connection, plan: TrainingPlan, progress: Progress = no_progress) -> NewState:
    """Train a model from the incremental state where that serves the plan, else from the store.

    Args:
        connection: not in a transaction.
        plan: what to train.
        progress: called with people or changes done, and in all; may raise to stop.

    Raises:
        TrainingError: as `train` does.
    """
    statistics = incremental_statistics(connection, plan, progress)
    with snapshot(connection, read_only=True):
        return train(connection, plan, progress, statistics)


def _train_rates(
    connection: psycopg.Connection, plan: TrainingPlan, settings: PoissonSettings, progress: Progress, started: float
) -> NewState:
    """Train the time-aware model: it needs no finished journeys and uses no values."""
    try:
        observed = read_exposures(connection, plan.window, progress)
        rates, report = fit_rates(observed, settings)
    except ValueError as error:
        raise TrainingError(f"poisson: {error}") from error
    except FitError as error:
        raise TrainingError(f"{error} in the window of tenant {plan.window.tenant_id}") from error
    metadata: dict[str, Any] = {
        "window": _window(plan),
        "watched_until": observed.until,
        "n": observed.people,
        "conversions": report["conversions"],
        "n_eff": float(observed.people),
        "currency": None,
        "policies": [],
        "code_version": code_version(),
        "training_seconds": round(time.monotonic() - started, 3),
        "diagnostics": report,
    }
    return NewState(plan.window.tenant_id, plan.model, rates.to_document(), dict(plan.settings), metadata)


def _window(plan: TrainingPlan) -> dict[str, Any]:
    window = plan.window
    return {
        "since": window.since,
        "until": window.until,
        "conversion_types": sorted(window.conversion_types),
        "closing": str(window.closing),
        "inactivity_micros": plan.inactivity_micros,
    }


def _metadata(plan: TrainingPlan, statistics: WindowStatistics, weighted: ForgettingState | None) -> dict[str, Any]:
    journeys = statistics.state.conversions + statistics.state.nulls
    found = {
        "window": _window(plan),
        "n": journeys,
        "conversions": statistics.state.conversions,
        "n_eff": float(journeys) if weighted is None else weighted.n_eff,  # without a half-life every journey weighs 1
        "currency": statistics.currency,
        "policies": list(statistics.policies),
        "read": asdict(statistics.counts),
        "source": "incremental" if statistics.is_incremental else "read",
        "code_version": code_version(),
    }
    if weighted is not None:
        found["forgetting"] = {
            "half_life_days": (plan.half_life_micros or 0) / MICROS_PER_DAY,
            "origin": weighted.origin_micros,
            "weight": weighted.weight,
            "journeys_per_count": weighted.journeys_per_count,
        }
    return found


@functools.cache
def code_version() -> str:
    """Return the project's version, and the commit behind a ``+g`` when it runs from a checkout of its repository."""
    commit = _commit(Path(__file__).resolve().parents[2] / ".git")
    return f"{__version__}+g{commit[:_COMMIT_DIGITS]}" if commit else __version__


def _commit(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text("ascii").strip()
        if head.startswith("ref: "):
            head = (git / head.removeprefix("ref: ")).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):  # no checkout, or its references are packed
        return None
    return head if _COMMIT.fullmatch(head) else None
