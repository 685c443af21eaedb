"""Training: from the finished journeys in the store to a state that can be kept, and what to know about it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.markov_credit import MarkovSettings
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.models.poisson_credit import PoissonSettings
from attributary.attribution_core.statistics.forgetting import UNIT, ForgettingState
from attributary.attribution_core.statistics.likelihood import FitError
from attributary.consumers.store.models.model_states import NewState

from .channel_report import OK, population
from .code_version import code_version
from .contributions import forgotten
from .incremental_state import upkept
from .model_settings import NOT_FOR_POISSON, check_model_name, check_settings, half_life_micros
from .rates import fit_rates
from .read_exposures import watch
from .read_journeys import Learned, Progress, Window, learn, learn_by_day, no_progress


class TrainingError(ValueError):
    """A training that cannot be done as asked; the text says why."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What to train.

    Attributes:
        model: one of the trained models.
        window: the journeys to learn from.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        currency: of the values; None: the commonest.
        settings: the model's parameters, by the names of its settings class.
        half_life_micros: a journey that ended so long before the newest one's day weighs half, microseconds; None: all
            weigh the same.
    """

    model: str
    window: Window
    inactivity_micros: int
    currency: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    half_life_micros: int | None = None

    @property
    def is_standing(self) -> bool:
        """Whether it is about the journeys that the state which is kept up to date counts."""
        return self.model != "poisson" and self.window == Window(self.window.tenant_id)


def check_model(model: str, settings: Mapping[str, Any], document: Mapping[str, Any]) -> None:
    """Build the model once, from what comes back from JSON, as the attributor will.

    Raises:
        TrainingError: it cannot be built.
    """
    try:
        stored = json.loads(json.dumps([document, settings], allow_nan=False))
        model_set([model], {model: TrainedState("0", *stored)})
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(f"{model}: {error}") from error


def check_usable(state: NewState) -> None:
    """Check that a version that is to be brought into force at once is good for crediting.

    Raises:
        TrainingError: it says of itself that it is not.
    """
    status = state.metadata["diagnostics"]["status"]
    if status != OK:
        raise TrainingError(
            f"{state.model} was trained and not kept, because it was to be activated and its status is: {status}; to "
            "look at it train it without activating it; to have it in force all the same: --force, in a job force=true"
        )


def _check_plan(plan: TrainingPlan) -> MarkovSettings | PoissonSettings:
    """Check what can be checked before anything is read; returns the model's settings."""
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


def upkept_for(connection: psycopg.Connection, plan: TrainingPlan, progress: Progress = no_progress) -> Learned | None:
    """Return the statistics for a training from the state that is kept up to date; None: the store must be read.

    Args:
        connection: not in a transaction; may write, for the state is brought up to date first.
        plan: what to train.
        progress: told of how many changes of how many; may raise to stop.
    """
    if not plan.is_standing:
        return None
    tenant_id = plan.window.tenant_id
    return upkept(connection, tenant_id, plan.inactivity_micros, currency=plan.currency, progress=progress)


def train(
    connection: psycopg.Connection,
    plan: TrainingPlan,
    progress: Progress = no_progress,
    learned: Learned | None = None,
) -> NewState:
    """Train a model.

    Args:
        connection: in a snapshot (REPEATABLE READ).
        plan: what to train.
        progress: told of how many people of how many; may raise to stop.
        learned: what `upkept_for` found.

    Returns:
        The state with its metadata, not stored yet.

    Raises:
        TrainingError: the model or a setting does not exist, there is no finished journey in the window, or no
            conversion in the currency.
    """
    started = time.monotonic()
    chosen = _check_plan(plan)
    if isinstance(chosen, PoissonSettings):
        return _train_rates(connection, plan, chosen, progress, started)
    if learned is None:
        read = learn if plan.half_life_micros is None else learn_by_day
        learned = read(connection, plan.window, plan.inactivity_micros, currency=plan.currency, progress=progress)
    if not learned.state.conversions + learned.state.nulls:
        raise TrainingError(f"tenant {plan.window.tenant_id} has no finished journey in the window")
    if plan.currency is not None and learned.counts.foreign_currency == learned.state.conversions > 0:
        raise TrainingError(f"currency: no conversion in the window is in {plan.currency}")
    state, settings, options = learned.state, dict(plan.settings), dict[str, Any]()
    faded = None if plan.half_life_micros is None else forgotten(learned.periods, plan.half_life_micros)
    if faded is not None:
        state, settings["journeys_per_count"] = faded.state, faded.journeys_per_count
        options = {"journeys_per_count": faded.journeys_per_count, "unit": UNIT}
    document = state.bounded().to_document()
    check_model(plan.model, settings, document)
    report = population(state, minimum_conversions=chosen.minimum_conversions, **options) | {
        "kept_sets": len(document["sets"])
    }
    metadata = _metadata(plan, learned, faded) | {
        "training_seconds": round(time.monotonic() - started, 3),
        "diagnostics": report,
    }
    return NewState(plan.window.tenant_id, plan.model, document, settings, metadata)


def _train_rates(
    connection: psycopg.Connection, plan: TrainingPlan, settings: PoissonSettings, progress: Progress, started: float
) -> NewState:
    """Train the time-aware model: it needs no finished journeys, and has no use for values."""
    try:
        watched = watch(connection, plan.window, progress)
        rates, report = fit_rates(watched, settings)
    except ValueError as error:
        raise TrainingError(f"poisson: {error}") from error
    except FitError as error:
        raise TrainingError(f"{error} in the window of tenant {plan.window.tenant_id}") from error
    metadata: dict[str, Any] = {
        "window": _window(plan),
        "watched_until": watched.until,
        "n": watched.people,
        "n_eff": float(watched.people),
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


def _metadata(plan: TrainingPlan, learned: Learned, faded: ForgettingState | None) -> dict[str, Any]:
    journeys = learned.state.conversions + learned.state.nulls
    found = {
        "window": _window(plan),
        "n": journeys,
        "n_eff": float(journeys) if faded is None else faded.n_eff,  # without forgetting every journey weighs 1
        "currency": learned.currency,
        "policies": list(learned.policies),
        "read": asdict(learned.counts),
        "source": "upkept" if learned.is_upkept else "read",
        "code_version": code_version(),
    }
    if faded is not None:
        found["forgetting"] = {
            "half_life_days": (plan.half_life_micros or 0) / MICROS_PER_DAY,
            "origin": faded.origin_micros,
            "weight": faded.weight,
            "journeys_per_count": faded.journeys_per_count,
        }
    return found
