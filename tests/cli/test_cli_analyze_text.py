"""The text table of an analysis: as wide as asked, whatever the names, and honest about what is missing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis.result import Analysis
from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.tables.paths import JourneyTable
from attributary.cli.analysis_table import shortened, table_text

COLUMNS: dict[str, list[Any]] = {
    "path": ["search > mail", "mail", "search", "social > search > mail", "social", ""],
    "total_conversions": [30, 20, 10, 15, 2, 4],
    "total_conversion_value": [300, 200, 100, 150, 20, 40],
    "total_null": [50, 90, 200, 60, 300, 7],
}
STRANGE = ["ディスプレイ広告キャンペーン・二〇二六年秋", "cafe\u0301", "a" * 200, "clear", "x"]


def blocks(text: str) -> list[list[str]]:
    """The blocks of channels by models, as lines."""
    parts = [part.splitlines() for part in text.split("\n\n")]
    return [lines for lines in parts if len(lines) > 1 and set(lines[1]) == {"-"}]


@pytest.mark.parametrize("width", [60, 80, 100, 120, 300])
@pytest.mark.parametrize("intervals", [False, True])
def test_no_line_is_wider_than_asked_and_every_model_is_shown_once(width: int, intervals: bool) -> None:
    columns: dict[str, list[Any]] = {"path": STRANGE, "total_conversions": [40] * 5, "total_null": [9] * 5}
    result = analyze(columns, intervals=intervals, draws=20)
    text = table_text(result, width)
    assert max(map(cell_len, text.splitlines())) <= width
    titles = [title for block in blocks(text) for title in block[0].split()]
    assert [title for title in titles if title not in {"channel", "support", "spread"}] == [
        report.model for report in result
    ]
    assert titles.count("support") == titles.count("spread") == 1
    assert all(len(block) >= 2 + len(STRANGE) for block in blocks(text))


def test_no_name_steers_the_terminal_not_even_a_rare_one_in_the_notes() -> None:
    names = [*STRANGE, "\x1b[2Jclear"]  # no table is read with such a name, but journeys may come from elsewhere
    ends = np.ones(len(names), dtype=np.int64)
    columns = JourneyTable(JourneyBatch.of_paths([[name] for name in names]), Outcomes(ends, 9 * ends, 0 * ends))
    assert not {letter for letter in table_text(analyze(columns), 100) if not letter.isprintable()} - {"\n", "\u0301"}


def test_columns_stand_below_each_other_for_wide_letters_too() -> None:
    columns: dict[str, list[Any]] = {"path": STRANGE, "total_conversions": [40] * 5, "total_null": [9] * 5}
    (block,) = blocks(table_text(analyze(columns, ["linear"]), 100))
    rows = block[2 : 2 + len(STRANGE)]
    assert {cell_len(line) for line in rows} == {cell_len(rows[0])}
    assert all(line.endswith("20.00 %") for line in rows)


def test_where_one_model_alone_is_too_wide_it_stands_alone() -> None:
    text = table_text(analyze(COLUMNS, ["last_non_direct", "markov_journeys"], intervals=True, draws=20), 10)
    assert [block[0].split()[1:] for block in blocks(text)] == [
        ["support"],
        ["last_non_direct"],
        ["markov_journeys", "spread"],
    ]


def test_python_prints_the_same_cells_and_notes_without_a_width() -> None:
    result = analyze(COLUMNS)
    wide = table_text(result, 1_000)
    assert [line for line in wide.splitlines() if set(line) != {"-"}] == str(result).splitlines()


def test_a_single_model_shows_conversions_and_value_down_to_the_data() -> None:
    text = table_text(analyze(COLUMNS, ["markov_shapley"], baseline=("mail",)), 100)
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["channel", "support", "conversions", "value", "markov_shapley"]
    assert lines[2][:5] == ["mail", "65", "0.0", "0.00", "0.00"]
    found = {line[0]: line for line in lines if line}
    assert found["(unattributed)"][1:] == ["4.0", "40.00"]
    assert found["all"][1:] == ["81.0", "810.00"]
    assert float(found["(baseline)"][1]) > 0
    assert "are given to nobody" in text


def test_a_single_model_without_values_says_so() -> None:
    columns = {name: column for name, column in COLUMNS.items() if name != "total_conversion_value"}
    text = table_text(analyze(columns, ["linear"]), 100)
    assert "n/a" in text
    assert "0.00\n" not in text


def test_equal_notes_are_one_note_with_the_models() -> None:
    columns: dict[str, list[Any]] = {"path": ["a > b", "b"], "total_conversions": [0, 0], "total_null": [5, 6]}
    text = table_text(analyze(columns), 100)
    assert text.count("unavailable: no conversions") == 1
    assert "all models: unavailable: no conversions" in text
    one, other = analyze(columns, ["first", "markov"])
    other = replace(other, diagnostics={**other.diagnostics, "status": "ok"})
    assert "\nfirst: unavailable" in table_text(Analysis((one, other)), 100)


def test_an_empty_table_says_that_there_are_no_rows() -> None:
    text = table_text(analyze({"path": [], "total_conversions": []}), 100)
    assert text.startswith("no rows\n")
    assert len(text.splitlines()) == 4
    touchless = table_text(analyze({"path": ["", ""], "total_conversions": [3, 1], "total_null": [0, 5]}), 100)
    assert touchless.startswith("no channels: no journey has a touch\nconversions 4, of these 4 unattributed")


def test_how_intervals_were_made_is_below_the_table_where_it_is_known() -> None:
    result = analyze(COLUMNS, ["linear", "markov"])
    assert "90 % intervals" not in table_text(result, 100)
    said = [
        replace(report, diagnostics={**report.diagnostics, "interval_method": method})
        for report, method in zip(result, ("closed form", "dirichlet"), strict=True)
    ]
    assert "90 % intervals: closed form (linear), dirichlet (markov)" in table_text(Analysis(tuple(said)), 100)


@given(st.text(max_size=40), st.integers(min_value=3, max_value=40))
def test_a_shortened_name_fits_and_keeps_both_ends(name: str, most: int) -> None:
    short = shortened(name, most)
    assert cell_len(short) <= most
    if cell_len(name) > most:
        assert short.count("…") >= 1


def test_names_that_differ_at_their_ends_still_differ() -> None:
    names = [f"google_cpc_brand_autumn_campaign_2026_{letter}" for letter in "ab"]
    assert [shortened(name, 20) for name in names] == ["google_cpc…gn_2026_a", "google_cpc…gn_2026_b"]
