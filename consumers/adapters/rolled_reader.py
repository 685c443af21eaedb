"""From the bytes of a batch of results to what the roll-up needs of them.

Invariant: what this reader returns for a result is ``cells_of`` of the row that codec and checks make of it; where it
returns None, they judge. A test compares both on mutated results.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from attributary.consumers.store.results.results import ResultRow
from attributary.consumers.store.rollup.cells import (
    NO_TOUCHPOINT,
    ModelCells,
    RolledResult,
    cells_of,
    cells_text,
    rounded,
)

from .result_columns import ReadResult, read_results


def read_rolled(values: Sequence[tuple[bytes, int]]) -> list[RolledResult | None]:
    """Return what the roll-up needs of each result; None: unusual, broken, or it breaks a promise.

    Args:
        values: of the records, written with the bundled schema, each with the place where its body begins.
    """
    columns = read_results(values)
    segment = np.repeat(np.arange(len(columns.sizes)), columns.sizes)
    rounded_parts, rounded_rests = rounded(columns.credits, segment, columns.sizes)
    parts, rests, micros = rounded_parts.tolist(), rounded_rests.tolist(), columns.micros.tolist()
    found: list[RolledResult | None] = []
    for result in columns.results:
        if result is None:
            found.append(None)
            continue
        count, entry = len(result.facts), result.entry
        models: list[ModelCells] = []
        for place, model in enumerate(result.models, result.segment):
            end = entry + count
            models.append((model.model, parts[entry:end], micros[entry:end], rests[place], model.unattributed_micros))
            entry = end
        found.append(_rolled(result, columns.times[result.time : result.time + count], models))
    return found


def _rolled(result: ReadResult, times: Sequence[int], models: Sequence[ModelCells]) -> RolledResult:
    touches, names, named = [], [], {}
    for place, (facts, at) in enumerate(zip(result.facts, times, strict=True)):
        if facts.campaign_id:
            names.append((facts.platform, facts.campaign_id, facts.campaign, at))
            named[str(place)] = facts.campaign
            touches.append((facts.channel, facts.platform, facts.campaign_id, "", at))
        else:
            touches.append((facts.channel, facts.platform, "", facts.campaign, at))
    uses = [(model.model_version, model.fallback or "") for model in result.models]
    cells = {"t": touches, "m": models, "n": named, "u": uses, "f": int(result.is_final)}
    first = touches[0][0] if touches else NO_TOUCHPOINT
    return RolledResult(
        result.tenant_id, result.conversion_id, result.version, result.version_reason, result.conversion_type,
        result.currency, result.converted_at, result.journey_key, result.net_value_micros, result.computed_at,
        cells_text(cells), names, first, cells,
    )  # fmt: skip


def rolled(row: ResultRow) -> RolledResult:
    """Return what the roll-up needs of a result that codec and checks have judged."""
    cells = cells_of(json.loads(row.touchpoints), json.loads(row.models), is_final=row.is_final)
    return RolledResult(
        row.tenant_id, row.conversion_id, row.version, row.version_reason, row.conversion_type, row.currency,
        row.converted_at, row.journey_key, row.net_value_micros, row.computed_at, *cells,
    )  # fmt: skip
