"""What an analysis prints and writes."""

from __future__ import annotations

import json

from attributary.attribution_core import analyze
from tests.core.unequal import UNEQUAL, Columns


def test_the_table_has_a_column_a_model_and_how_far_they_are_apart() -> None:
    columns: Columns = {"path": ["a > b", "b"], "total_conversions": [60, 40], "total_null": [5, 9]}
    lines = str(analyze(columns, ["first", "last"])).splitlines()
    assert lines[0] == "channel  support    first      last   spread"
    assert lines[1] == "a             60  60.00 %    0.00 %  60.00 %"


def test_the_table_shows_intervals_and_the_part_of_the_baseline() -> None:
    result = analyze(UNEQUAL, ["linear"], intervals=True, draws=20)
    low, high = result["linear"].channels[0]["interval"]
    assert f"[{100 * low:.2f}, {100 * high:.2f}]" in str(result)
    result = analyze(UNEQUAL, ["markov_shapley"], baseline=("b",))
    kept = result["markov_shapley"].diagnostics["baseline_share"]
    assert f"{100 * kept:.2f} % stay with the baseline (b)" in str(result)


def test_one_model_is_an_object_and_several_are_a_list() -> None:
    assert isinstance(json.loads(analyze(UNEQUAL, ["linear"]).to_json()), dict)
    assert isinstance(json.loads(analyze(UNEQUAL, ["linear", "last"]).to_json()), list)


def test_csv_rows_hold_interval_ends_and_json_names_unescaped() -> None:
    columns = UNEQUAL | {"path": ["é > b", "b", "é", "c > é", "c"]}
    result = analyze(columns, ["linear"], intervals=True, draws=20)
    for row, channel in zip(result.rows()[:-1], result["linear"].channels, strict=True):
        assert [row["interval_low"], row["interval_high"]] == channel["interval"]
    assert "é" in result.to_json()
