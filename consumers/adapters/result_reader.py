"""From the bytes of a batch of results to their rows, checked on the way.

Invariant: the reader returns the row that ``result_row`` makes of the same record, and only of a result that
``disagreement``, ``imbalance`` and ``no_share`` find nothing wrong with; or None, and codec and checks judge. A test
compares both on mutated results.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from json.encoder import encode_basestring

from attributary.consumers.store.results.results import ResultRow

from .result_checks import ID_FACTS, compact_json
from .result_columns import Facts, ReadModel, ReadResult, read_results

Place = tuple[int, int, int | None]  # partition, offset, and when the version was raised


def read_rows(values: Sequence[tuple[bytes, int]], places: Sequence[Place]) -> list[ResultRow | None]:
    """Return the rows of a batch of results.

    Args:
        values: of the records, written with the bundled schema, each with the place where its body begins.
        places: what the rows say of the records beside their values.
    """
    columns = read_results(values)
    times, credits_, micros = columns.times, columns.credits.tolist(), columns.micros.tolist()
    rows: list[ResultRow | None] = []
    for result, place in zip(columns.results, places, strict=True):
        if result is None:
            rows.append(None)
            continue
        count, entry = len(result.facts), result.entry
        models = []
        for model in result.models:
            end = entry + count
            models.append(_model(model, credits_[entry:end], micros[entry:end]))
            entry = end
        touchpoints = map(_touchpoint, result.event_ids, result.facts, times[result.time : result.time + count])
        rows.append(_row(result, f"[{','.join(touchpoints)}]", f"[{','.join(models)}]", place))
    return rows


def _row(result: ReadResult, touchpoints: str, models: str, place: Place) -> ResultRow:
    return ResultRow(
        result.tenant_id, result.conversion_id, result.version, result.version_reason, result.is_final,
        result.conversion_type, result.converted_at, result.journey_key, result.net_value_micros,
        result.gross_value_micros, result.delta_micros, result.currency, result.policy_version,
        result.touchpoint_count, touchpoints, models, compact_json(result.insights), result.computed_at,
        result.content_hash, *place,
    )  # fmt: skip


def _touchpoint(event_id: str, facts: Facts, occurred_at: int) -> str:
    return f'{{"event_id":{encode_basestring(event_id)},{_facts_json(facts)},"occurred_at":{occurred_at}}}'


def _model(model: ReadModel, credits_: list[float], micros: list[int]) -> str:
    # A list of numbers is written as JSON writes it, but for the blanks.
    numbers = f'"credits":{credits_},"micros":{micros}'.replace(" ", "")
    return f"{{{_name_json(model.model, model.model_version)},{numbers},{_rest_json(*model[2:])}}}"


@lru_cache(maxsize=20_000)
def _facts_json(facts: Facts) -> str:
    said = {name: value for name, value in facts._asdict().items() if value is not None or name not in ID_FACTS}
    return compact_json(said)[1:-1]


@lru_cache(maxsize=1024)
def _name_json(model: str, model_version: str) -> str:
    return compact_json({"model": model, "model_version": model_version})[1:-1]


@lru_cache(maxsize=4096)
def _rest_json(unattributed_micros: int, confidence: float | None, fallback: str | None) -> str:
    rest = {"unattributed_micros": unattributed_micros, "confidence": confidence, "fallback": fallback}
    return compact_json(rest)[1:-1]
