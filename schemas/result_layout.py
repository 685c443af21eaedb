"""A result in the layouts that readers want: expanded, rolled up, and taken over from the versions before the third.

On the wire a result names its touchpoints once, and each model has one credit and one number of micros for each of
them. Versions 1 and 2 of the schema repeated the touchpoints with every model, and sums by name beside them.

Invariants: ``compact_result(expand_result(result)) == result``. What `expand_result` returns is what versions 1 and 2
said, field by field. Sums are exact: the micros of the roll-ups of a model and dimension are those of its touchpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

DIMENSIONS = ("platform", "channel", "campaign")
FIRST_COMPACT_VERSION = 3
"""Of ``result.avsc``: the first one with touchpoints of its own. Those before are read by `compact_result`."""

_OF_MODEL = ("model", "model_version")
_BEHIND = ("unattributed_micros", "confidence", "fallback")
_CREDIT = ("credit", "value_micros")

Result = Mapping[str, Any]

_FIELDS = {
    "": (
        "tenant_id", "conversion_id", "conversion_type", "converted_at", "journey_key", "version", "version_reason",
        "is_final", "net_value_micros", "gross_value_micros", "delta_micros", "currency", "policy_version",
        "touchpoint_count", "touchpoints", "models", "insights", "computed_at", "content_hash",
    ),
    "touchpoints": (
        "event_id", "channel", "platform", "campaign", "campaign_id", "ad_set_id", "ad_id", "occurred_at",
    ),
    "models": ("model", "model_version", "credits", "micros", "unattributed_micros", "confidence", "fallback"),
    "insights": ("rule_id", "text", "estimate", "low", "high", "n"),
}  # fmt: skip


def check_fields(schema: Any, user: str) -> None:
    """Check that a schema of results has the fields, in the order, that hand-written readers and writers know.

    Args:
        schema: the parsed JSON of the record.
        user: the module that relies on it.

    Raises:
        AssertionError: it has others.
    """
    parts = {"": schema} | {
        field["name"]: field["type"]["items"] for field in schema["fields"] if field["name"] in _FIELDS
    }
    if {name: tuple(field["name"] for field in part["fields"]) for name, part in parts.items()} != _FIELDS:
        raise AssertionError(f"result.avsc has other fields than {user} handles")


def is_compact(schema: Any) -> bool:
    """Tell whether a schema of results names the touchpoints once.

    Args:
        schema: the parsed JSON of the record.
    """
    return any(field["name"] == "touchpoints" for field in schema.get("fields", ()))


def expand_result(result: Result) -> dict[str, Any]:
    """Return a result in which each model has its ``touchpoints``, each with credit and micros, and its ``rollups``.

    For people and for JSON: it is about four times as long. The fields ``touchpoints`` of the result, and ``credits``
    and ``micros`` of its models, are not in it.

    Args:
        result: as the codec decodes it.

    Raises:
        ValueError: a model has not one credit and one number of micros for each touchpoint.
    """
    touchpoints, count = result["touchpoints"], len(result["touchpoints"])
    places = _places(touchpoints, DIMENSIONS)
    models = []
    for model in result["models"]:
        rollups = _sums(places, model, count)  # refuses what does not fit together
        touches = [
            {**touch, "credit": credit, "value_micros": micros}
            for touch, credit, micros in zip(touchpoints, model["credits"], model["micros"], strict=True)
        ]
        expanded = {name: model[name] for name in _OF_MODEL} | {"touchpoints": touches, "rollups": rollups}
        models.append(expanded | {name: model[name] for name in _BEHIND})
    return {name: models if name == "models" else value for name, value in result.items() if name != "touchpoints"}


def roll_up_result(result: Result, dimensions: Sequence[str] = DIMENSIONS) -> list[dict[str, Any]]:
    """Return the credit of each model by name: rows of model, dimension, name, credit and value_micros.

    What no touchpoint gets is the model's ``unattributed_micros`` and in no row. Rows are in the order of the models,
    the dimensions, the names.

    Args:
        result: as the codec decodes it.
        dimensions: fields of the touchpoints: platform, channel, campaign, campaign_id, ad_set_id, ad_id. A touchpoint
            without an id counts under the name None.

    Raises:
        ValueError: a model has not one credit and one number of micros for each touchpoint.
        KeyError: touchpoints have no such field.
    """
    count, places = len(result["touchpoints"]), _places(result["touchpoints"], dimensions)
    return [{"model": model["model"], **row} for model in result["models"] for row in _sums(places, model, count)]


def compact_result(result: Result) -> dict[str, Any]:
    """Return an expanded result, or one of version 1 or 2, as the bundled schema has it.

    Its roll-ups are not looked at: they repeat what the touchpoints say.

    Raises:
        ValueError: the models name different touchpoints.
    """
    models = result["models"]
    touchpoints = [_facts(touch) for touch in models[0]["touchpoints"]] if models else []
    compact = []
    for model in models:
        if [_facts(touch) for touch in model["touchpoints"]] != touchpoints:
            raise ValueError("models name different touchpoints")
        compact.append(
            {name: model[name] for name in _OF_MODEL}
            | {
                "credits": [touch["credit"] for touch in model["touchpoints"]],
                "micros": [touch["value_micros"] for touch in model["touchpoints"]],
            }
            | {name: model[name] for name in _BEHIND}
        )
    found: dict[str, Any] = {}
    for name, value in result.items():
        if name == "models":
            found["touchpoints"], found["models"] = touchpoints, compact
        else:
            found[name] = value
    return found


def _facts(touch: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in touch.items() if name not in _CREDIT}


Places = list[tuple[str, Any, list[int]]]  # dimension, name, places of its touchpoints


def _places(touchpoints: Sequence[Mapping[str, Any]], dimensions: Sequence[str]) -> Places:
    """Return which touchpoints stand under each name, in the order of the names; None comes first."""
    found: Places = []
    for dimension in dimensions:
        members: dict[str | None, list[int]] = {}
        for place, touch in enumerate(touchpoints):
            members.setdefault(touch[dimension], []).append(place)
        names = sorted(members, key=lambda name: (name is not None, name or ""))
        found += [(dimension, name, members[name]) for name in names]
    return found


def _sums(places: Places, model: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    credits_, micros = model["credits"], model["micros"]
    if not len(credits_) == len(micros) == count:
        raise ValueError("a model has not one credit and one number of micros for each touchpoint")
    return [
        {
            "dimension": dimension,
            "name": name,
            "credit": sum([credits_[place] for place in members]),
            "value_micros": sum([micros[place] for place in members]),
        }
        for dimension, name, members in places
    ]
