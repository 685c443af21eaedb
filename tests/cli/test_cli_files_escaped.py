"""Nothing of a file reaches a terminal unescaped, whatever its header and cells hold (B30)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from attributary.cli.main import app

NOON = "2024-06-01T12:00:00Z"
# Escape codes, bells, bidirectional marks, line separators, half-width fillers, and harmless letters.
_DIRT = st.text(
    st.one_of(
        st.sampled_from("\x1b\x07\x08\x9b\x7f\u202e\u2028\u2066\u200b\ufeff\r\n\t"),
        st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Ll", "Nd"]),
    ),
    max_size=12,
).map(lambda text: text.replace("\0", ""))
_CODES = st.sampled_from(["\x1b]0;owned\x07", "\x1b[2J", "\x9b31m", "a\rb", "\u202eabc"])
_NAMES = st.one_of(_DIRT, _CODES).filter(lambda text: bool(text.strip()))


def table(header: list[str], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return text.getvalue().encode("utf-8", "surrogatepass")


def is_clean(result: Result) -> bool:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return all(letter.isprintable() or letter == "\n" for letter in result.output)


@given(header=st.lists(_NAMES, max_size=3), cells=st.lists(st.one_of(_DIRT, _CODES), min_size=4, max_size=4))
@settings(max_examples=15, deadline=None)
def test_produce(tmp_path_factory: pytest.TempPathFactory, header: list[str], cells: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "dirt.csv"
    columns = ["user_id", "occurred_at", "value", "currency", *header]
    path.write_bytes(table(columns, [[*cells, *["x"] * len(header)], ["u1", NOON, "5", "EUR", *["y"] * len(header)]]))
    arguments = ["produce", str(path), "--kind", "conversion", "--tenant", "acme", "--dry-run",
                 "--constant", "conversion_type=purchase"]  # fmt: skip
    assert is_clean(CliRunner().invoke(app, arguments))
    assert is_clean(CliRunner().invoke(app, [*arguments, "--group-by", columns[-1], "--where", f"{columns[-1]}!=z"]))


@given(header=st.lists(_NAMES, max_size=2), channel=st.one_of(_DIRT, _CODES), count=st.one_of(_DIRT, st.just("5")))
@settings(max_examples=12, deadline=None)
def test_analyze(tmp_path_factory: pytest.TempPathFactory, header: list[str], channel: str, count: str) -> None:
    path = tmp_path_factory.getbasetemp() / "dirt-paths.csv"
    columns = ["path", "total_conversions", *header]
    path.write_bytes(table(columns, [[channel, count, *["x"] * len(header)], ["a > b", "7", *["y"] * len(header)]]))
    arguments = ["analyze", str(path), "--model", "linear"]
    assert is_clean(CliRunner().invoke(app, arguments))
    assert is_clean(CliRunner().invoke(app, [*arguments, "--map", f"total_null={columns[-1]}"]))


@given(channel=st.one_of(_DIRT, _CODES), name=_NAMES)
@settings(max_examples=10, deadline=None)
def test_forward_dry_run_says_what_is_wrong_without_the_cell(
    tmp_path_factory: pytest.TempPathFactory, channel: str, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "dirt-orders.csv"
    path.write_bytes(table(["event_id", "user_id", "occurred_at", name], [["e1", "u1", channel, "x"]]))
    arguments = ["forward", "--dry-run", "ga4", "--input", str(path), "--constant", "conversion_type=lead"]
    assert is_clean(CliRunner().invoke(app, arguments))


def test_an_event_id_of_a_file_is_escaped_too(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(table(["event_id", "user_id", "occurred_at"], [["\x1b[2Je1", "u1", NOON]]))
    result = CliRunner().invoke(
        app, ["forward", "--dry-run", "ga4", "--input", str(path), "--constant", "conversion_type=lead"]
    )
    assert is_clean(result)
    assert "e1" in result.output
