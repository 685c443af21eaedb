"""Tables of the command line at every width: nothing is cut, and no column is a letter wide."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributary.cli.tables import print_table

_TITLES = ("tenant", "model", "version", "trained at (UTC)", "conversions", "half-life", "confidence", "status", "code")
_ROW = ("acme", "markov", "12", "2026-11-30 10:42:38", "1,035", "none", "0.93", "conversions only: no journeys", "a1b2")
_NUMBERS = (2, 4, 6)


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 160])
def test_every_word_of_a_row_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(_TITLES, [_ROW, _ROW], _NUMBERS)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= columns
    words = shown.split()
    for cell in _ROW:
        for word in cell.split():
            assert words.count(word) >= 2, (word, shown)


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_an_id_is_in_one_piece(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    place = "conversions.v1.attribution.stitcher.dlq[2]@17"
    reason = "neither Avro single-object encoding (C3 01) nor Confluent wire format (00)"
    print_table(("place", "tenant", "stage", "tries", "reason"), [(place, "acme", "decode", "1", reason)] * 2, (3,))
    shown = capsys.readouterr().out
    assert shown.count(place) == 2, shown
    assert max(map(len, shown.splitlines())) <= columns


def test_a_pipe_gets_whole_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(_TITLES, [_ROW], _NUMBERS)
    assert len(capsys.readouterr().out.splitlines()) == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.text(max_size=30), st.text(max_size=200), st.text("0123456789,", max_size=12)), max_size=3
    ),
    columns=st.integers(20, 120),
)
def test_no_text_breaks_a_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: list[tuple[str, ...]], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(("one", "two words", "three"), rows, (2,))
    assert "\x1b" not in capsys.readouterr().out
