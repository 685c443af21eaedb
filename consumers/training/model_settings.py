"""The settings of a model as people give them: which there are, of what kind, within which bounds.

Invariant: what passes here builds, alone or with what a training adds to it; who asks, on a command line or in a job,
is told before anything is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.markov_credit import MarkovSettings
from attributary.attribution_core.models.model_set import SETTINGS, TRAINED_MODELS
from attributary.attribution_core.models.poisson_credit import PoissonSettings

_OF_THE_TRAINING = frozenset({"journeys_per_count"})  # follows from what was read, and the attributor relies on it
NOT_FOR_POISSON = "whose rates are of the whole window and of no value"
LEAST_HALF_LIFE_DAYS = 1  # weights go by whole days: with less only the newest day would count
MOST_HALF_LIFE_DAYS = 36_500


def check_model_name(model: str) -> None:
    """Check that a model is one that is trained.

    Raises:
        ValueError: it is not.
    """
    if model not in TRAINED_MODELS:
        raise ValueError(f"{model} is not a trained model; there are {', '.join(TRAINED_MODELS)}")


def check_settings(model: str, settings: Mapping[str, Any]) -> MarkovSettings | PoissonSettings:
    """Return the settings of a trained model.

    Raises:
        ValueError: one is unknown, set by the training itself, of another kind or out of its bounds; the text names it.
    """
    kind = SETTINGS[model]
    known = [each.name for each in fields(kind) if each.name not in _OF_THE_TRAINING]
    for name in sorted(settings):
        if name in _OF_THE_TRAINING:
            raise ValueError(f"{name}: is set by the training itself")
        if name not in known:
            raise ValueError(f"{name}: unknown setting; {model} has {', '.join(known)}")
    return kind(**settings)


def half_life_micros(days: float) -> int:
    """Return a half-life in microseconds.

    Args:
        days: it, days.

    Raises:
        ValueError: it is out of its bounds, or no number.
    """
    if not LEAST_HALF_LIFE_DAYS <= days <= MOST_HALF_LIFE_DAYS:
        raise ValueError(f"must be from {LEAST_HALF_LIFE_DAYS} to {MOST_HALF_LIFE_DAYS:,} days")
    return round(days * MICROS_PER_DAY)


def read_json(text: str) -> Any:
    """Read JSON, without the numbers that it does not have: NaN and Infinity.

    Raises:
        ValueError: it is none.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
