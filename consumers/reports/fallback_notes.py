"""Why a model's fallback rule credited a conversion, in words, and what cures it."""

from __future__ import annotations

from attributary.attribution_core.models.model_set import UNTRAINED, UNUSABLE


def fallback_cause(model: str, version: str, rule: str) -> str:
    """Return the cause in a few words: ``by linear: markov is not trained``."""
    if version == UNTRAINED:
        return f"by {rule}: {model} is not trained"
    if version.endswith(UNUSABLE):
        return f"by {rule}: version {version.removesuffix(UNUSABLE)} of {model} cannot be used"
    return f"by {rule}: too little data on a channel of the journey"


def fallback_cure(model: str, version: str, tenant: str) -> str:
    """Return the next step."""
    if version == UNTRAINED:
        return (
            f"To change it: attributary models train --model {model} --tenant {tenant}, activate, refit "
            "(docs/how-to/train.md)."
        )
    if version.endswith(UNUSABLE):
        return f"To change it: attributary models rollback {model} --tenant {tenant}, or train and activate a new one."
    return f"To see which channels: attributary models show {model} --tenant {tenant}."
