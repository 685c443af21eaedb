"""Slips that tables have: refused with row, column and rule, or said beside the numbers; never a new channel."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core import analyze, read_paths
from attributary.attribution_core.domain.journeys import JourneyBatch
from attributary.attribution_core.tables.cells import broken_rule, is_missing
from attributary.attribution_core.tables.paths import TableError, encode_paths


class Missing:
    """What pandas puts into an empty cell of a nullable column: comparing it tells nothing, and asking that fails."""

    def __eq__(self, other: object) -> Missing:  # type: ignore[override]
        return self

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __str__(self) -> str:
        return "<NA>"


NA = Missing()


def paths(**columns: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {"path": ["a > b", "b"], "total_conversions": [1, 2], **columns}
    return found


def notes(data: Any) -> list[str]:
    found: list[str] = analyze(data, ["last"])["last"].diagnostics["notes"]
    return found


@pytest.mark.parametrize(
    ("texts", "rule"),
    [
        (["a >", "> b", "c", "d"], "row 1: path: channel 'a >' begins or ends with '>'"),
        (["c", "a >", "b"], "row 2: path: channel"),
        (["b", "> a"], "row 2: path: channel '> a' begins or ends with '>'"),
        (["a > b", "a > > b"], "row 2: path: channel '> b'"),
        (["a", "a > "], "row 2: path: empty channel"),
        (["a", " > a"], "row 2: path: empty channel"),
        (["a >  > b"], "row 1: path: empty channel"),
        (["  "], "row 1: path: empty channel"),
        (["a", "b > "], "row 2: path: empty channel"),
        ([">"], "row 1: path: channel '>'"),
        (["x", "a\x00b"], r"row 2: path: channel 'a\\x00b' holds a control character"),
        (["x > \x1b[31mred"], r"row 1: path: channel '\\x1b\[31mred' holds"),
    ],
)
def test_a_malformed_path_is_refused_and_moves_no_other(texts: list[str], rule: str) -> None:
    with pytest.raises(TableError, match=rule):
        encode_paths(texts)
    with pytest.raises(TableError, match=rule):
        read_paths({"path": texts, "total_conversions": [1] * len(texts)})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("a >", max_size=7), max_size=6), st.sampled_from([" > ", ">", "a>a"]))
def test_many_paths_are_cut_as_each_would_be(texts: list[str], separator: str) -> None:
    cut = [[name.strip() for name in text.split(separator)] if text else [] for text in texts]
    wrong = [row for row, names in enumerate(cut, start=1) if any(broken_rule(name) for name in names)]
    if wrong:
        with pytest.raises(TableError) as caught:
            encode_paths(texts, separator)
        assert caught.value.row == wrong[0]
        return
    batch = encode_paths(texts, separator)
    assert batch.channels.tolist() == JourneyBatch.of_paths(cut).channels.tolist()
    assert batch.lengths.tolist() == [len(names) for names in cut]


@pytest.mark.parametrize("separator", [">>", " > ", "->-", ","])
def test_any_separator_cuts_each_path_by_itself(separator: str) -> None:
    plain = [["a", "b"], ["c"], [], ["b", "b", "c"]]
    batch = encode_paths([separator.join(path) for path in plain], separator)
    assert batch.channels.tolist() == JourneyBatch.of_paths(plain).channels.tolist()
    ragged = ["a>", "b", "a->", "c"]  # ends as some of the separators begin
    if separator in {">>", "->-"}:
        with pytest.raises(TableError, match="row 1: path: channel 'a>' begins or ends"):
            encode_paths(ragged, separator)


def test_blanks_around_a_channel_are_no_part_of_it() -> None:
    batch = encode_paths(["  a >  b ", "a > b", "b\t"])
    assert batch.index.names == ("a", "b")
    assert batch.channels.tolist() == [0, 1, 0, 1, 1]


def test_another_separator_is_said() -> None:
    for name in ("a>b", "a | b", "a->b", "a → b"):
        assert f"{name!r} counts as one channel" in notes(paths(path=[name, "b"]))[0]
    assert notes(paths()) == []
    assert notes(paths(path=["a > b", "c | d"])) == []  # a bar may well be part of a name
    assert "'c>d' counts as one channel" in notes(paths(path=["a > b", "c>d"]))[0]


def test_unknown_columns_are_said_and_near_names_offered() -> None:
    found = notes(paths(total_nul=[5, 6], colour=["red", "blue"]))
    assert found == ["columns that are not used: total_nul (did you mean total_null?), colour"]
    assert notes(paths(total_null=[5, 6])) == []
    many = notes(paths(**{f"x{number:02}": [0, 0] for number in range(40)}))
    assert many[0].endswith("x08, x09 and 30 more")


def test_missing_columns_are_named_beside_those_that_are_there() -> None:
    with pytest.raises(TableError, match=r"total_conversions is missing; there are path, Total_Conversions; .*small"):
        read_paths({"path": ["a"], "Total_Conversions": [1]})
    with pytest.raises(TableError, match=r"\(if total_conversion is meant, rename it to total_conversions\)"):
        read_paths({"path": ["a"], "total_conversion": [1]})
    with pytest.raises(TableError, match=r"must be path and total_conversions, or user, time and channel; there are a"):
        analyze({"a": [1]})
    with pytest.raises(TableError, match="there are none"):
        analyze([])


def test_a_column_that_stands_twice_is_refused() -> None:
    class Doubled(dict[str, list[Any]]):
        columns = ("path", "total_conversions", "path")

        def __iter__(self) -> Any:
            return iter(self.columns)

        keys = __iter__

    with pytest.raises(TableError, match="the column path stands twice"):
        read_paths(Doubled(path=["a"], total_conversions=[1]))


def test_a_wrong_key_in_one_row_is_refused() -> None:
    rows = [{"path": "a", "total_conversions": 1}, {"pth": "b", "total_conversions": 1}]
    with pytest.raises(TableError, match="row 2: path: the key is missing; the row has pth, total_conversions"):
        analyze(rows)
    rows[1] = {"path": "b", "total_conversions": 1, "total_nul": 4}
    assert notes(rows) == ["columns that are not used: total_nul (did you mean total_null?)"]
    with pytest.raises(TypeError, match=r"data: row 2 must be a mapping.*tuple"):
        analyze([*rows[:1], ("b", 2)])  # type: ignore[list-item]


@pytest.mark.parametrize("data", ["paths.csv", b"x", 5, None, np.zeros((2, 2)), iter(())])
def test_data_of_another_kind_are_refused_with_what_would_do(data: Any) -> None:
    with pytest.raises(TypeError, match=r"data: must be columns .*, not "):
        analyze(data)


@pytest.mark.parametrize(
    "cell", [None, math.nan, np.float64("nan"), Decimal("nan"), Decimal("sNaN"), np.datetime64("NaT"), NA]
)
def test_a_cell_that_does_not_equal_itself_is_missing(cell: Any) -> None:
    assert is_missing(cell)
    table = read_paths(paths(path=["a", cell], total_null=[cell, 3], total_conversion_value=[cell, 4]))
    assert table.batch.lengths.tolist() == [1, 0]
    assert table.outcomes.nulls.tolist() == [0, 3]
    assert table.outcomes.value_micros.tolist() == [0, 4_000_000]


@pytest.mark.parametrize(
    "cell", [0, "", "x", 1.5, np.int64(3), np.float64(2), Decimal(1), np.array([1, 2]), [math.nan]]
)
def test_every_other_cell_is_there(cell: Any) -> None:
    assert not is_missing(cell)


@pytest.mark.parametrize(
    ("cell", "rule"),
    [
        ("1_000", "row 2: total_null: '1_000' must be a whole number"),
        ("١٢", "row 2: total_null: '١٢' must be a whole number"),
        ("1.5", "row 2: total_null: '1.5' must be a whole number"),
        (1.5, "row 2: total_null: '1.5' must be a whole number"),
        (
            "99999999999999999999",
            "row 2: total_null: '99999999999999999999' must be .* from 0 to 9,007,199,254,740,992",
        ),
        ("1e999999999", "row 2: total_null: '1e999999999' must be"),
        (10**20, "row 2: total_null: '100000000000000000000' must be"),
        (-1, "row 2: total_null: '-1' must be"),
        ("x" * 500, r"row 2: total_null: 'x{37}\.\.\.' must be"),
        (["x"], "row 2: total_null: "),
    ],
)
def test_what_is_no_count_is_quoted_with_its_limit(cell: Any, rule: str) -> None:
    with pytest.raises(TableError, match=rule):
        read_paths(paths(total_null=["1", cell]))


@pytest.mark.parametrize("cell", ["1_000", "١٢", "1,000", "19.99 EUR", "nan", "inf", "1e999999999", ["x"]])
def test_what_is_no_amount_is_quoted(cell: Any) -> None:
    with pytest.raises(TableError, match=r"row 2: total_conversion_value: .* must be a number") as caught:
        read_paths(paths(total_conversion_value=["1", cell]))
    assert repr(str(cell)) in str(caught.value)
    assert caught.value.row == 2


def test_blanks_around_numbers_do_not_matter() -> None:
    table = read_paths(paths(total_conversions=[" 3", "4 "], total_null=[" ", ""], total_conversion_value=[" ", "2 "]))
    assert table.outcomes.conversions.tolist() == [3, 4]
    assert table.outcomes.nulls.tolist() == [0, 0]
    assert table.outcomes.value_micros.tolist() == [0, 2_000_000]


def test_frames_of_arrow_are_read_as_their_columns() -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra parquet")
    assert notes(arrow.table(paths(total_nul=[1, 2]))) == [
        "columns that are not used: total_nul (did you mean total_null?)"
    ]


@pytest.mark.parametrize("module", ["pandas", "polars"])
def test_frames_are_read_as_their_columns(module: str) -> None:
    frames = pytest.importorskip(module, reason=f"{module} is not needed").DataFrame
    columns = paths(total_null=[None, 4], total_nul=[1, 2])
    assert analyze(frames(columns), ["markov"]).to_json() == analyze(columns, ["markov"]).to_json()


def test_columns_of_numpy_are_read() -> None:
    columns = {
        "path": np.array(["a > b", "b"]),
        "total_conversions": np.array([1, 2]),
        "total_null": np.array([1.0, 2.0]),
    }
    wanted = analyze(paths(total_null=[1, 2]), "markov").to_json()
    assert analyze(columns, "markov").to_json() == wanted
    assert analyze({**columns, "path": list(columns["path"])}, "markov").to_json() == wanted


@pytest.mark.parametrize("row", [{"path": "a > b", "total_conversions": 1}, {"user": "u", "time": 5, "channel": "a"}])
def test_a_single_row_is_no_table(row: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"(path|user): must be a column, as a list is, not str; .*\[row\]"):
        analyze(row)
