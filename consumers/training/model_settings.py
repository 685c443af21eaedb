"""The settings of a trained model: names, kinds and bounds.

Invariant: a model can be built from settings that pass here, alone or with those that a training adds. A command and a
job are checked before anything is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.domain.policy_parts import TRAINED_MODELS
from attributary.attribution_core.models.markov_credit import MarkovSettings
from attributary.attribution_core.models.model_set import SETTINGS
from attributary.attribution_core.models.poisson_credit import PoissonSettings

_SET_BY_TRAINING = frozenset({"journeys_per_count"})  # follows from the data, and the attributor relies on it
NOT_FOR_POISSON = "because its rates describe the whole window and use no values"
MIN_HALF_LIFE_DAYS = 1  # weights go by whole days: with a shorter one only the newest day would count
MAX_HALF_LIFE_DAYS = 36_500


def check_model_name(model: str) -> None:
    """Check that a model is a trained one.

    Raises:
        ValueError: it is not; the text lists those that are.
    """
    if model not in TRAINED_MODELS:
        raise ValueError(f"{model} is not a trained model; there are {', '.join(TRAINED_MODELS)}")


def check_settings(model: str, settings: Mapping[str, Any]) -> MarkovSettings | PoissonSettings:
    """Return the settings of a trained model.

    Raises:
        ValueError: a setting is unknown, set by the training, of another kind or out of bounds; the text names it.
    """
    kind = SETTINGS[model]
    known = [each.name for each in fields(kind) if each.name not in _SET_BY_TRAINING]
    for name in sorted(settings):
        if name in _SET_BY_TRAINING:
            raise ValueError(f"{name}: is set by the training itself")
        if name not in known:
            raise ValueError(f"{name}: unknown setting; {model} has {', '.join(known)}")
    return kind(**settings)


def half_life_micros(days: float) -> int:
    """Return a half-life in microseconds.

    Args:
        days: the half-life, days.

    Raises:
        ValueError: it is out of bounds, or no number.
    """
    if not MIN_HALF_LIFE_DAYS <= days <= MAX_HALF_LIFE_DAYS:
        raise ValueError(f"must be from {MIN_HALF_LIFE_DAYS} to {MAX_HALF_LIFE_DAYS:,} days")
    return round(days * MICROS_PER_DAY)


def read_json(text: str) -> Any:
    """Parse JSON, strictly: NaN and Infinity are no numbers.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
