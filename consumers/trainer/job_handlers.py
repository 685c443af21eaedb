"""The handler of each kind of job: it reads one snapshot, computes, and returns what to write.

Invariant: a handler writes nothing but the incremental state, which belongs to no job. The returned `Decision` writes
the effects in the transaction that ends the job: the job is finished and its effects are there, or neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import psycopg

from attributary.attribution_core.domain.limits import LimitError
from attributary.attribution_core.models.model_set import ModelError
from attributary.attribution_core.statistics.state import StateError
from attributary.consumers.adapters.policy_settings import models_in_force
from attributary.consumers.store.jobs.jobs import ClaimedJob
from attributary.consumers.store.models.model_states import (
    Activation,
    ModelStateError,
    activate,
    list_states,
    roll_back,
    save_states,
)
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training.backtest import backtest
from attributary.consumers.training.backtest_rates import backtest_rates
from attributary.consumers.training.batch_analysis import JourneyFilter, analyze_batch
from attributary.consumers.training.drift import drift_from_active
from attributary.consumers.training.journey_analysis import UnknownConversionError, analyze_journey
from attributary.consumers.training.journeys import UnknownPolicyError
from attributary.consumers.training.read_journeys import Progress
from attributary.consumers.training.train import TrainingError, TrainingPlan, check_usable, train_from_store

from .job_requests import JobParameterError, Parameters

Decision = Callable[[psycopg.Connection], Mapping[str, Any]]
"""Writes the effects of a job and returns its result, ready for JSON."""

JOB_ERRORS = (
    JobParameterError,
    LimitError,
    ModelError,
    ModelStateError,
    StateError,
    TrainingError,
    UnknownConversionError,
    UnknownPolicyError,
)
"""Errors that fail the job alone; each text gives the reason in one sentence."""


class JobHandlers:
    """The handlers, by kind of job.

    Args:
        session: a connection for reading, for the handlers alone.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
    """

    def __init__(self, session: StoreSession, inactivity_micros: int) -> None:
        self._session = session
        self._inactivity = inactivity_micros
        self._handlers: dict[str, Callable[[str, Parameters, Progress], Decision]] = {
            "train": self._train,
            "activate": self._activate,
            "rollback": self._roll_back,
            "backtest": self._backtest,
            "analyze_journey": self._analyze_journey,
            "analyze_batch": self._analyze_batch,
        }

    def handle(self, job: ClaimedJob, progress: Progress) -> Decision:
        """Read and compute; the returned decision writes.

        Args:
            job: any kind but cancel, which takes effect when it is submitted.
            progress: called with steps done and steps in all; may raise to stop the job.

        Raises:
            StoreUnavailable: Postgres is away; the job can be repeated.
            One of JOB_ERRORS: the job fails.
        """
        handler = self._handlers.get(job.kind)
        if handler is None:
            raise JobParameterError(f"kind: the trainer has no handler for {job.kind}")
        parameters = Parameters(job.kind, job.parameters, job.submitted_at)
        parameters.check(job.tenant_id)
        return handler(job.tenant_id, parameters, progress)

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def _train(self, tenant_id: str, parameters: Parameters, progress: Progress) -> Decision:
        plan = TrainingPlan(
            parameters.model(),
            parameters.window(tenant_id),
            self._inactivity,
            parameters.currency(),
            parameters.settings(),
            parameters.half_life(),
        )
        wants_activation, force = parameters.flag("activate"), parameters.flag("force")
        with self._session.plain() as connection:
            state = train_from_store(connection, plan, progress)
        with self._session.snapshot() as connection:
            drift = drift_from_active(connection, state)
        if wants_activation and not force:
            check_usable(state)

        def write(connection: psycopg.Connection) -> Mapping[str, Any]:
            (version,) = save_states(connection, [state])
            result = {"model": plan.model, "version": version, "metadata": dict(state.metadata), "drift": drift}
            if wants_activation:
                result["activation"] = _activation(activate(connection, tenant_id, {plan.model: version}, force=force))
            return result

        return write

    def _activate(self, tenant_id: str, parameters: Parameters, progress: Progress) -> Decision:
        del progress
        model, version, force = parameters.model(), parameters.whole("version"), parameters.flag("force")

        def write(connection: psycopg.Connection) -> Mapping[str, Any]:
            newest = version or next((row.version for row in list_states(connection, tenant_id, model)), None)
            if newest is None:
                raise ModelStateError(f"{model} has no version for tenant {tenant_id}; train it first")
            return _activation(activate(connection, tenant_id, {model: newest}, force=force))

        return write

    def _roll_back(self, tenant_id: str, parameters: Parameters, progress: Progress) -> Decision:
        del progress
        model, version = parameters.model(), parameters.whole("version")
        return lambda connection: _activation(roll_back(connection, tenant_id, model, from_version=version))

    def _backtest(self, tenant_id: str, parameters: Parameters, progress: Progress) -> Decision:
        window, split = parameters.window(tenant_id), parameters.time("split")
        if split is None:
            raise JobParameterError("split: must be given")
        model = parameters.model()
        with self._session.snapshot() as connection:
            if model == "poisson":
                report = backtest_rates(connection, window, split, progress)
            else:
                report = backtest(connection, window, split, self._inactivity, progress)
        return lambda _connection: report

    def _analyze_journey(self, tenant_id: str, parameters: Parameters, progress: Progress) -> Decision:
        del progress
        conversion_id = parameters.required("conversion_id")
        with self._session.snapshot() as connection:
            models = models_in_force(connection, tenant_id)
            report = analyze_journey(connection, tenant_id, conversion_id, models, self._inactivity)
        return lambda _connection: report

    def _analyze_batch(self, tenant_id: str, parameters: Parameters, progress: Progress) -> Decision:
        window = parameters.window(tenant_id)
        chosen = JourneyFilter(parameters.text("platform"), parameters.text("campaign"))
        with self._session.snapshot() as connection:
            models = models_in_force(connection, tenant_id)
            report = analyze_batch(connection, window, chosen, models, self._inactivity, progress)
        return lambda _connection: report


def _activation(found: Activation) -> dict[str, Any]:
    return asdict(found)
