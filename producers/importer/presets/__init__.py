"""Mappings of exports that many people have, one YAML file each; it cites its sources and their date.

Contract: a preset is a mapping file with candidates: columns of several versions of one export. ``fitted`` keeps those
that a file has; other columns are not read, whatever their name. A file that lacks what the export always has is
refused by name. What the caller says goes before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from attributary.producers.importer.conditions import parse_condition
from attributary.producers.importer.plan import PlanError, listed

NAMES = ("shopify", "woocommerce", "magento", "ga4", "google-ads", "meta-ads")

_CHOSEN = ("group_by", "refunded", "refunded_at")  # the first candidate that the file has
_CONDITIONS = ("where", "refunded_when")
_TOGETHER = ("items_total", "event_id_of")  # all columns, or none


@cache
def _document(name: str) -> Mapping[str, Any]:
    text = (files(__package__) / f"{name}.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


def preset(name: str, kind: str | None) -> dict[str, Any]:
    """Return the mapping of a preset for a kind of record, with all its candidates.

    Args:
        name: one of ``NAMES``.
        kind: what a row is; the preset's own when not given.

    Raises:
        PlanError: there is no such preset, or it does not read that kind.
    """
    if name not in NAMES:
        raise PlanError(f"preset {name}: there is none; there are {', '.join(NAMES)}")
    document = _document(name)
    kinds = document["kinds"]
    chosen = kind or next(iter(kinds))
    if chosen not in kinds:
        raise PlanError(f"preset {name}: reads {', '.join(kinds)}, not {chosen}")
    shared = {part: document[part] for part in ("delimiter", "encoding") if part in document}
    return {**shared, "preset": name, "kind": chosen, "only_mapped": True, **kinds[chosen]}


def fitted(document: Mapping[str, Any], columns: Sequence[str] | None) -> dict[str, Any]:
    """Return what of a preset a file has.

    Args:
        document: from ``preset``.
        columns: the columns of the file; None where each row names its own (JSON lines).

    Raises:
        PlanError: the file is no such export.
    """
    found = {part: value for part, value in document.items() if part != "requires"}
    if columns is None:
        for part in _CHOSEN:
            if isinstance(found.get(part), list):
                found[part] = found[part][0]
        return found
    for candidates in document.get("requires", ()):
        if not _kept(candidates, columns):
            wanted = " or ".join(candidates)
            raise PlanError(f"preset {document['preset']}: the file has no column {wanted}; it has {listed(columns)}")
    kept = {field: _kept(names, columns) for field, names in document.get("map", {}).items()}
    found["map"] = {field: names for field, names in kept.items() if names}
    for part in _CHOSEN:
        found[part] = next(iter(_kept(document.get(part, ()), columns)), None)
    for part in _CONDITIONS:
        found[part] = [text for text in document.get(part, ()) if _has(parse_condition(text).column, columns)]
    for part in _TOGETHER:
        names = document.get(part, [])
        found[part] = names if all(_has(name, columns) for name in names) else []
    found["item_lists"] = _patterns(document.get("item_lists", ()), columns)
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of which one part goes before the other.

    Conditions on a column that ``above`` names replace those of ``below``; the others stay.
    """
    found = {**below, **{part: value for part, value in above.items() if value not in (None, {}, [], ())}}
    for part in ("map", "constant"):
        found[part] = {**below.get(part, {}), **above.get(part, {})}
    named = {parse_condition(text).column for text in _listed(above.get("where"))}
    kept = [text for text in _listed(below.get("where")) if parse_condition(text).column not in named]
    found["where"] = [*kept, *_listed(above.get("where"))]
    return found


def _listed(given: Any) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


def _kept(names: Any, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in _listed(names) if _has(name, columns))


def _patterns(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [name for name in names if _has(name, columns) or any(fnmatchcase(each, name) for each in columns)]


def _has(name: str, columns: Sequence[str]) -> bool:
    """Tell whether a file has a column; of a path into a record the first name counts."""
    return name in columns or ("." in name and name.partition(".")[0] in columns)
