"""The parts of a policy beside its windows: parameters of the rules, which models credit, and names of channels.

Invariant: a part that is not given changes nothing, and is not part of the policy's version. Channels are renamed
behind the models: every model sees a touchpoint's channel as it was published, which trained states know it by; only
the name under which its credit is reported changes. So credits by touchpoint never depend on a channel rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

TRAINED_MODELS: tuple[str, ...] = ("markov", "poisson")
"""Those that a policy can pin a version of."""
_RULES: Mapping[str, Mapping[str, str]] = {
    "position_based": {"first": "first_weight", "middle": "middle_weight", "last": "last_weight"},
    "time_decay": {"half_life_days": "half_life_seconds"},
}
_MAX_DAYS = 730
_SECONDS_PER_DAY = 86_400.0
_MOST_CHANNEL_RULES = 500
_CONDITIONS = ("platform", "channel", "campaign")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class PolicyError(ValueError):
    """A lookback policy that cannot be used; the text names the place and the rule."""


@dataclass(frozen=True, slots=True)
class ChannelRule:
    """Under which name a touchpoint's credit is reported; an empty condition fits everything.

    Attributes:
        platform: as published.
        channel: as published.
        campaign: a pattern with ``*`` and ``?``.
        name: the channel that is reported.
    """

    platform: str
    channel: str
    campaign: str
    name: str

    def fits(self, platform: str, channel: str, campaign: str) -> bool:
        """Tell whether the rule is about a touchpoint."""
        return (
            self.platform in {"", platform}
            and self.channel in {"", channel}
            and (not self.campaign or fnmatchcase(campaign, self.campaign))
        )


@dataclass(frozen=True, slots=True)
class PolicyParts:
    """The parts of a policy beside its windows.

    Attributes:
        rules: parameters by the field names of ``RuleSettings``; those that are missing have their default.
        models: which models credit; None: all that the tenant has.
        trained: versions of trained models that come into force with the policy; None: the model is switched off.
        channels: the first rule that fits decides.
    """

    rules: Mapping[str, float]
    models: tuple[str, ...] | None
    trained: Mapping[str, int | None]
    channels: tuple[ChannelRule, ...]

    @property
    def canonical(self) -> dict[str, Any]:
        """What the version is a hash of; empty for a policy of windows alone."""
        found: dict[str, Any] = {
            "rules": sorted(self.rules.items()),
            "models": None if self.models is None else sorted(self.models),
            "trained": sorted(self.trained.items()),
            "channels": [[rule.platform, rule.channel, rule.campaign, rule.name] for rule in self.channels],
        }
        return {name: part for name, part in found.items() if part or (name == "models" and part is not None)}


def parse_parts(document: Mapping[str, Any]) -> PolicyParts:
    """Read the parts of a policy document.

    Raises:
        PolicyError: a key is unknown, or a value is out of its bounds.
    """
    return PolicyParts(
        _rules(_mapping(document, "rules")), _models(document), _trained(_mapping(document, "trained")),
        _channels(document),
    )  # fmt: skip


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = document.get(key, {})
    if not isinstance(found, Mapping):
        raise PolicyError(f"policy: {key} must be a mapping")
    return found


def _rules(document: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for rule, parameters in document.items():
        if rule not in _RULES:
            raise PolicyError(f"policy: rules: {rule!r} has no parameters; {' and '.join(_RULES)} have")
        names = _RULES[rule]
        if not isinstance(parameters, Mapping) or set(parameters) != set(names):
            raise PolicyError(f"policy: rules.{rule}: needs {', '.join(names)}, and nothing else")
        for name, value in parameters.items():
            most = _MAX_DAYS if name == "half_life_days" else 1
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
                raise PolicyError(f"policy: rules.{rule}.{name} must be a number from 0 to {most}")
            found[names[name]] = value * _SECONDS_PER_DAY if name == "half_life_days" else float(value)
    if (
        "first_weight" in found
        and abs(found["first_weight"] + found["middle_weight"] + found["last_weight"] - 1) > 1e-9
    ):
        raise PolicyError("policy: rules.position_based: first, middle and last must sum to 1")
    if found.get("half_life_seconds", 1.0) < 1.0:
        raise PolicyError("policy: rules.time_decay.half_life_days must be a second or more")
    return found


def _models(document: Mapping[str, Any]) -> tuple[str, ...] | None:
    models = document.get("models")
    if models is None:
        return None
    if not isinstance(models, list) or not models or not all(isinstance(name, str) for name in models):
        raise PolicyError("policy: models must be a list of names of models")
    if len(set(models)) != len(models):
        raise PolicyError("policy: models: a model is named twice")
    return tuple(models)


def _trained(document: Mapping[str, Any]) -> dict[str, int | None]:
    found: dict[str, int | None] = {}
    for model, version in document.items():
        if version is False or version == "off":  # YAML 1.1 reads off as false
            found[str(model)] = None
        elif isinstance(version, int) and version is not True and version > 0:
            found[str(model)] = version
        else:
            raise PolicyError(f"policy: trained.{model} must be the number of a version, or off")
    return found


def _channels(document: Mapping[str, Any]) -> tuple[ChannelRule, ...]:
    rows = document.get("channels", [])
    if not isinstance(rows, list) or len(rows) > _MOST_CHANNEL_RULES:
        raise PolicyError(f"policy: channels must be a list of {_MOST_CHANNEL_RULES} entries at most")
    found = []
    for number, row in enumerate(rows, start=1):
        place = f"policy: channels[{number}]"
        if not isinstance(row, Mapping) or set(row) - {*_CONDITIONS, "as"} or "as" not in row or len(row) == 1:
            raise PolicyError(f"{place}: needs as, and one or more of {', '.join(_CONDITIONS)}")
        if not all(isinstance(row[key], str) and 0 < len(row[key]) <= 200 for key in row):  # of a campaign
            raise PolicyError(f"{place}: every value must be a text of 1 to 200 characters")
        if not _NAME.fullmatch(row["as"]):
            raise PolicyError(f"{place}: as must be a lower-case word of at most 64 letters, digits, _, - and dots")
        platform, channel, campaign = (str(row.get(key, "")) for key in _CONDITIONS)
        found.append(ChannelRule(platform, channel, campaign, row["as"]))
    return tuple(found)
