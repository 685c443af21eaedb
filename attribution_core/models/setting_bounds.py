"""What a setting of a trained model may be: a stored version must be able to credit for as long as it is kept.

Invariant: settings that pass these rules when trained pass them when read again. JSON in Postgres does not keep the
kind of a number (1e300 comes back as a whole number of 301 digits). So kinds and bounds are checked on every value;
nothing is rounded or cut to fit.
"""

from __future__ import annotations

import math
from typing import Any

from attributary.attribution_core.models.rules import RULES

MOST_DRAWS = 1_000  # the error of what rests on draws falls with their root: past it, other errors are larger
MOST_CONVERSIONS = 1_000_000  # asked of a channel
_MOST_SEED = (1 << 63) - 1


def check_common(minimum_conversions: Any, fallback_rule: Any, draws: Any, seed: Any) -> None:
    """Check the settings that every trained model has.

    Raises:
        ValueError: one is of another kind or out of its bounds; the text begins with its name.
    """
    _whole("minimum_conversions", minimum_conversions, 0, MOST_CONVERSIONS)
    if not isinstance(fallback_rule, str) or fallback_rule not in RULES:
        raise ValueError(f"fallback_rule: must be one of {', '.join(RULES)}")
    _whole("draws", draws, 1, MOST_DRAWS)
    _whole("seed", seed, 0, _MOST_SEED)


def check_share(name: str, value: Any) -> None:
    """Check a number above 0 and at most 1.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and 0 < value <= 1):
        raise ValueError(f"{name}: must be positive and at most 1")


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name}: must be a whole number from {least} to {most:,}")
