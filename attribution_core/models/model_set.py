"""The models that credit touches, under one protocol, and the set of them that a tenant uses.

Invariant: for every model, credits are not negative and sum, with its baseline if it has one, to 1 over each journey
with touches; the same batch and the same trained states give the same bytes. A model that was estimated says where it
had too little data: those journeys are credited by its declared fallback rule and flagged. Rules are conventions: their
confidence is None, not 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from attributary.attribution_core.domain.journeys import Flags, Floats, JourneyBatch
from attributary.attribution_core.domain.lookback import LookbackPolicy, PolicyError
from attributary.attribution_core.domain.policy_parts import TRAINED_MODELS
from attributary.attribution_core.models.markov_credit import MarkovModel, MarkovSettings
from attributary.attribution_core.models.poisson_credit import PoissonModel, PoissonSettings, Rates, RatesError
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.statistics.sets import set_shares
from attributary.attribution_core.statistics.state import JourneyState, StateError

RULE_MODELS: tuple[str, ...] = tuple(RULES)
MODELS: tuple[str, ...] = (*RULE_MODELS, "markov", "shapley")
"""Those that credit every tenant's conversions."""
OPTIONAL_MODELS: tuple[str, ...] = ("poisson",)
"""Those that credit where a version is in force, and are not there at all where none is."""
SETTINGS: Mapping[str, type[MarkovSettings | PoissonSettings]] = {"markov": MarkovSettings, "poisson": PoissonSettings}
"""The parameters of each trained model."""
UNTRAINED = "untrained"
UNUSABLE = "-unusable"
"""Ends the version of a model in results where the stored state could not be built."""
_JOURNEYS = 1_024  # credited at a time


class ModelError(ValueError):
    """A model that does not exist or a state that is not its own."""


class Model(Protocol):
    """One way to credit the touches of a journey."""

    @property
    def name(self) -> str:
        """What the model is called in results."""

    @property
    def version(self) -> str:
        """Names the rule's parameters or the trained state; pinned in each result."""

    @property
    def fallback_rule(self) -> str | None:
        """The rule that credits the journeys that `fallback` flags; None for a model that never falls back."""

    def credits(self, batch: JourneyBatch) -> Floats:
        """Return the credit of each touch, float64[m]."""

    def confidence(self, batch: JourneyBatch) -> Floats | None:
        """Return 1 - expected total variation of each journey's credits, float64[n]; NaN where it fell back.

        It is the precision of the estimate, not the probability that the model is right. None: a rule.
        """

    def fallback(self, batch: JourneyBatch) -> Flags | None:
        """Tell which journeys had too little data, bool[n]; None for a model that never falls back."""


@dataclass(frozen=True, slots=True)
class RuleModel:
    """A rule as a model."""

    name: str
    settings: RuleSettings

    @property
    def version(self) -> str:
        """The rule's own version and its parameters, if it has any."""
        settings = self.settings
        if self.name == "position_based":
            return f"1:{settings.first_weight:g}/{settings.middle_weight:g}/{settings.last_weight:g}"
        if self.name == "last_non_direct":
            return "2"  # 1 knew no spelling of direct but "direct"
        if self.name == "time_decay":
            return f"1:{settings.half_life_seconds:g}s"
        return "1"

    @property
    def fallback_rule(self) -> None:
        """A rule never falls back."""

    def credits(self, batch: JourneyBatch) -> Floats:
        """Return the credit of each touch, float64[m]."""
        return RULES[self.name](batch, self.settings)

    def confidence(self, batch: JourneyBatch) -> None:
        """Return None: a rule is not an estimate."""

    def fallback(self, batch: JourneyBatch) -> None:
        """Return None: a rule never falls back."""


@dataclass(frozen=True, slots=True)
class ShapleyModel:
    """Simplified Shapley value of each journey: equal shares for its distinct channels, whatever the order.

    It needs no training and is exact, but it sees converted journeys only: channels that often appear without a
    conversion lose nothing by it.
    """

    name: str = "shapley"
    version: str = "simplified-1"

    @property
    def fallback_rule(self) -> None:
        """It needs no data."""

    def credits(self, batch: JourneyBatch) -> Floats:
        """Return the credit of each touch, float64[m]."""
        return set_shares(batch)

    def confidence(self, batch: JourneyBatch) -> None:
        """Return None: nothing is estimated for a single journey."""

    def fallback(self, batch: JourneyBatch) -> None:
        """Return None: it needs no data."""


@dataclass(frozen=True, slots=True)
class UntrainedModel:
    """Stands for a model without a usable state: every journey is credited by the fallback rule.

    Its version says why: `UNTRAINED`, nothing is in force; or a version with `UNUSABLE` behind it.
    """

    name: str
    version: str = UNTRAINED
    fallback_rule: str = "linear"

    def credits(self, batch: JourneyBatch) -> Floats:
        """Return the fallback rule's credit of each touch, float64[m]."""
        return RULES[self.fallback_rule](batch, RuleSettings())

    def confidence(self, batch: JourneyBatch) -> Floats:
        """Return NaN for every journey, float64[n]: there is no estimate."""
        return np.full(len(batch), np.nan)

    def fallback(self, batch: JourneyBatch) -> Flags:
        """Tell which journeys have touches, bool[n]: all of them fall back."""
        return batch.lengths > 0


@dataclass(frozen=True, eq=False)
class Attribution:
    """What one model says about a batch; see `Model` for the meaning of the arrays.

    Attributes:
        credits: float64[m].
        confidence: float64[n], or None.
        fallback: bool[n], or None.
        baseline: float64[n], the part that no touch gets; None for a model without a baseline.
    """

    credits: Floats
    confidence: Floats | None
    fallback: Flags | None
    baseline: Floats | None = None


@dataclass(frozen=True, slots=True)
class TrainedState:
    """A version of a trained model, as it is stored.

    Attributes:
        version: the name of the version.
        document: `JourneyState.to_document` of the training data; of poisson `Rates.to_document`.
        settings: parameters, by the field names of `MarkovSettings` or `PoissonSettings`; empty for the defaults.
    """

    version: str
    document: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BrokenVersion:
    """A stored version from which no model can be built, and why."""

    model: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelSet:
    """The models of a tenant, in a fixed order."""

    models: tuple[Model, ...]

    @property
    def version(self) -> str:
        """A digest of all names and versions: what a result pins."""
        text = "\n".join(f"{model.name}={model.version}" for model in self.models)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def attribute(self, batch: JourneyBatch) -> dict[str, Attribution]:
        """Return what every model says about the batch, by model name."""
        # Some journeys at a time, so that all draws of their credits stay in the cache; they do not see each other.
        parts = [batch.slice(low, low + _JOURNEYS) for low in range(0, max(len(batch), 1), _JOURNEYS)]
        return {model.name: _joined([_attribution(model, part) for part in parts]) for model in self.models}


def _attribution(model: Model, batch: JourneyBatch) -> Attribution:
    return Attribution(
        model.credits(batch),
        model.confidence(batch),
        model.fallback(batch),
        model.baseline(batch) if isinstance(model, PoissonModel) else None,
    )


def _joined(parts: list[Attribution]) -> Attribution:
    """Put what was said of successive journeys behind each other; what is None is None for all of them."""
    if len(parts) == 1:
        return parts[0]
    credits_, confidence, fallback, baseline = (
        [getattr(part, name) for part in parts] for name in ("credits", "confidence", "fallback", "baseline")
    )
    return Attribution(
        np.concatenate(credits_),
        None if confidence[0] is None else np.concatenate(confidence),
        None if fallback[0] is None else np.concatenate(fallback),
        None if baseline[0] is None else np.concatenate(baseline),
    )


def model_set(
    names: Iterable[str] | None = None,
    states: Mapping[str, TrainedState] | None = None,
    settings: RuleSettings | None = None,
) -> ModelSet:
    """Build the models of a tenant.

    Args:
        names: models wanted; by default `MODELS`, and those of `OPTIONAL_MODELS` that have a state.
        states: active trained state of each model that has one; a trained model without is credited by its fallback.
        settings: parameters of the rules.

    Raises:
        ModelError: for a name that no model has, or that stands twice.
        StateError: for a state document that cannot be read.
        ValueError: for a setting out of its bounds.
    """
    known = states or {}
    return _assembled(_default_names(known) if names is None else names, settings, lambda name: _trained(name, known))


def lenient_model_set(
    states: Mapping[str, TrainedState], policy: LookbackPolicy | None = None
) -> tuple[ModelSet, tuple[BrokenVersion, ...]]:
    """Build the default models of a tenant; a version that cannot be built is replaced by its declared fallback.

    One bad version must not stop a tenant, or its neighbours. States are immutable, so the same ones are replaced in
    every replay; the results say so by the version (`UNUSABLE`) and the fallback.

    Args:
        states: active trained state of each model that has one.
        policy: says which of them credit, and with which parameters; None: all, with their defaults.

    Returns:
        The models, and what was replaced.
    """
    chosen = None if policy is None else policy.parts.models
    settings = None if policy is None else RuleSettings(**policy.parts.rules)
    names = [name for name in _default_names(states) if chosen is None or name in chosen]
    broken: list[BrokenVersion] = []

    def build(name: str) -> Model:
        try:
            return _trained(name, states)
        # What data can do: numbers that do not fit, other types, missing parts. Want of memory is no fault of theirs.
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            state = states[name]
            broken.append(BrokenVersion(name, state.version, f"{type(error).__name__}: {error}"))
            return UntrainedModel(name, f"{state.version}{UNUSABLE}", _declared_fallback(name, state.settings))

    models = _assembled(names, settings, build)
    return models, tuple(broken)


def check_models(policy: LookbackPolicy) -> None:
    """Check that there are the models that a policy names, and that one of them credits in any case.

    Raises:
        PolicyError: there are not.
    """
    for name in policy.parts.trained:
        if name not in TRAINED_MODELS:
            raise PolicyError(f"policy: trained: {name!r} is no trained model; there are {', '.join(TRAINED_MODELS)}")
    chosen = policy.parts.models
    for name in chosen or ():
        if name not in {*MODELS, *OPTIONAL_MODELS}:
            raise PolicyError(f"policy: models: no model {name!r}; there are {', '.join((*MODELS, *OPTIONAL_MODELS))}")
    if chosen is not None and not set(chosen) & set(MODELS):
        raise PolicyError(f"policy: models: name one beside {', '.join(chosen)}, which credits only if trained")


def _default_names(states: Mapping[str, TrainedState]) -> tuple[str, ...]:
    return (*MODELS, *(name for name in OPTIONAL_MODELS if name in states))


def _assembled(names: Iterable[str], settings: RuleSettings | None, trained: Callable[[str], Model]) -> ModelSet:
    chosen = settings or RuleSettings()
    models: list[Model] = []
    for name in names:
        if any(model.name == name for model in models):
            raise ModelError(f"model {name!r} is named twice")
        if name in RULES:
            models.append(RuleModel(name, chosen))
        elif name == "shapley":
            models.append(ShapleyModel())
        elif name in TRAINED_MODELS:
            models.append(trained(name))
        else:
            raise ModelError(f"no model {name!r}; there are {', '.join((*MODELS, *OPTIONAL_MODELS))}")
    return ModelSet(tuple(models))


def _trained(name: str, states: Mapping[str, TrainedState]) -> Model:
    state = states.get(name)
    if state is None:
        return UntrainedModel(name, fallback_rule=SETTINGS[name]().fallback_rule)
    try:
        settings = SETTINGS[name](**state.settings)
    except TypeError as error:
        raise ModelError(f"{name} {state.version}: unknown setting ({error})") from error
    if isinstance(settings, MarkovSettings):
        return _markov(state, settings)
    try:
        return PoissonModel(state.version, Rates.from_document(state.document), settings)
    except RatesError as error:
        raise StateError(f"{name} {state.version}: {error}") from error


def _markov(state: TrainedState, settings: MarkovSettings) -> Model:
    channels = state.document.get("channels")
    if isinstance(channels, list):
        settings.check_size(len(channels))  # before the state lays out the square of them
    return MarkovModel.train(state.version, JourneyState.from_document(state.document), settings)


def _declared_fallback(name: str, settings: Any) -> str:
    rule = settings.get("fallback_rule") if isinstance(settings, Mapping) else None
    return rule if isinstance(rule, str) and rule in RULES else SETTINGS[name]().fallback_rule
