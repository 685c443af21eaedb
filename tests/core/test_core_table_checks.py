"""What looks like a slip in a table is a note (B22 of the field cases); users that name nobody are not joined (B6)."""

from __future__ import annotations

from typing import Any

import pytest

from attributary.attribution_core import analyze, read_events, read_paths
from attributary.attribution_core.tables.paths import JourneyTable, TableError


def paths(*texts: str, conversions: list[int] | None = None, nulls: list[int] | None = None) -> tuple[str, ...]:
    columns: dict[str, list[Any]] = {"path": list(texts), "total_conversions": conversions or [1] * len(texts)}
    if nulls is not None:
        columns["total_null"] = nulls
    return read_paths(columns).notes


def events(
    users: list[Any], channels: list[str], conversions: list[int], times: list[Any] | None = None
) -> JourneyTable:
    return read_events(
        {"user": users, "time": times or list(range(1_764_000_000, 1_764_000_000 + len(users))), "channel": channels}
        | {"conversion": conversions}
    )


@pytest.mark.parametrize(
    "path",
    [
        "search / mail", "search/mail/social", "search;mail", "search; mail", "search - mail", "search &gt; mail",
        "search, mail", "search | mail", "search -> mail", "search => mail", "search → mail", "search>>mail",
        "search » mail", "search :: mail", "search + mail", "search \u2013 mail", "search\\mail", "search ~ mail",
        '["search", "mail"]', "['search', 'mail']", "{search,mail}", '["search"]',
    ],
)  # fmt: skip
def test_b22_another_separator_is_a_note(path: str) -> None:
    (note,) = paths(path, "display")
    assert "counts as one channel" in note
    assert "' > '" in note


@pytest.mark.parametrize("path", ["google / organic", "(direct) / (none)", "bing / cpc", "x/referral", "paid_search"])
def test_b22_source_and_medium_are_one_channel(path: str) -> None:
    assert paths(path, "display") == ()
    assert paths(path, "google / organic", "newsletter / email") == ()


def test_b22_in_cut_paths_only_arrows_and_lists_are_suspicious() -> None:
    assert paths("a > b", "Facebook, Instagram", "a/b") == ()
    assert len(paths("a > b", "a &gt; b")) == 1
    assert len(paths("a > b", '["a", "b"]')) == 1


@pytest.mark.parametrize("token", ["(start)", "(null)", "(conversion)", "[start]", "{null}", "_start_", "^", "(exit)"])
def test_b22_tokens_in_marks_are_said(token: str) -> None:
    found = paths(f"{token} > a > b", "a > b")
    assert (len(found) == 1 and "counts as a channel" in found[0]) == (token != "^")


@pytest.mark.parametrize(
    ("path", "token"), [("start > a", "start"), ("a > conversion", "conversion"), ("a > exit", "exit")]
)
def test_b22_bare_tokens_are_said_where_they_only_open_or_close(path: str, token: str) -> None:
    (note,) = paths(path, "b > a")
    assert f"'{token}' counts as a channel" in note
    assert not paths("a > start > b", "b > a")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Mail", "mail"),
        ("PAID", "paid"),
        ("paid search", "paid_search"),
        ("E-Mail", "email"),
        ("Café", "cafe\u0301"[:3] + "\u00e9"),
    ],
)
def test_b22_channels_that_differ_in_case_or_marks_are_said(one: str, other: str) -> None:
    (note,) = paths(f"{one} > {other}")
    assert note.startswith("channels that differ only in case, blanks or hyphens stay apart: ")
    (note,) = events(["u1", "u1"], [one, other], [0, 1]).notes
    assert "differ only in case" in note


@pytest.mark.parametrize("name", ["null", "NaN", "None", "undefined", "n/a", "unknown"])
def test_b22_channels_that_look_like_missing_values_are_said(name: str) -> None:
    assert any("look like missing values" in note for note in paths(f"a > {name} > b"))


@pytest.mark.parametrize("name", ["Total", "total", "Grand Total", "SUM", "Gesamt", "Gesamtergebnis", "All"])
def test_b22_a_row_of_totals_is_said_by_its_name(name: str) -> None:
    (note,) = paths("a > b", "b", name, conversions=[3, 4, 7])
    assert note == f"row 3: '{name}' counts as a channel; a row of totals counts everything twice"


def test_b22_a_row_of_totals_is_said_by_its_numbers() -> None:
    rollup = paths("a > b", "b", "a", "", conversions=[3, 4, 5, 12], nulls=[1, 2, 3, 6])
    assert rollup == ("row 4 equals the sum of all other rows; a row of totals counts everything twice",)
    assert paths("Everything", "b", "a", "a > b", conversions=[12, 3, 4, 5])[0].startswith("row 1 equals the sum")
    assert paths("a > b", "b", "a", "", conversions=[3, 4, 5, 12], nulls=[1, 2, 3, 7]) == ()
    assert paths("a > b", "b", "a", "", conversions=[3, 4, 5, 11]) == ()


@pytest.mark.parametrize("odd", [0, "1970-01-01", "2001-01-01T00:00:00Z", "2099-12-31", 1_000_000_000, "1999-12-31"])
def test_b22_a_time_far_from_the_others_is_said(odd: Any) -> None:
    times = ["2025-11-01", "2025-11-02", odd, "2025-11-04"]
    (note,) = events(["u1"] * 4, ["a"] * 4, [0, 0, 0, 1], times).notes
    assert note.startswith("times more than five years from most others (2025-11-0")
    assert "1, the first in row 3" in note
    assert not events(["u1"] * 2, ["a"] * 2, [0, 1], ["2022-01-01", "2025-11-02"]).notes


def test_b22_users_in_two_forms_are_one_and_said() -> None:
    for one, other in [
        ("1", "1.0"),
        ("u7", " u7 "),
        ("u7", "u7\u200b"),
        ("u7", "\u00a0u7"),
        ("42.00", "42"),
        ("é", "e\u0301"),
    ]:
        table = events([one, other], ["mail", ""], [0, 1])
        assert table.batch.lengths.tolist() == [1]
        if one.strip() != other.strip():
            assert table.notes == ("users written in more than one way count as one: 1, such as rows 1 and 2",)
    table = events(["Ann", "ann", "bob"], ["mail", "", "mail"], [0, 1, 0])
    assert table.notes == ("users that differ only in case stay apart: 1, such as rows 1 and 2",)
    assert table.outcomes.conversions.sum() == 1


UNNAMED = [
    "null", "undefined", "0", "\\N", "(null)", "#N/A", "--", "_", "?", "{{user_id}}", "${user.id}", "not_logged_in",
    "undefined-undefined", "none@none.com", "11111111-1111-1111-1111-111111111111", "__ID__", "%7Bid%7D", "nan",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "[object Object]", "\u200b",
]  # fmt: skip


@pytest.mark.parametrize("user", UNNAMED)
def test_b6_users_that_name_nobody_are_not_joined(user: str) -> None:
    table = events([user, user, user, "ann", "ann"], ["search", "mail", "", "mail", ""], [0, 0, 1, 0, 1])
    assert table.batch.lengths.tolist() == [0, 1]  # strangers have no journey together, and no value is lost
    assert table.outcomes.conversions.tolist() == [1, 1]
    (note,) = table.notes
    assert note.startswith("rows with a user that names nobody: 3, the first is row 1 (user: must ")


def test_b6_a_touch_in_the_row_of_a_conversion_stays_with_it() -> None:
    table = events(["null", "null"], ["search", "mail"], [1, 0])
    assert table.batch.lengths.tolist() == [1]
    assert table.outcomes.conversions.tolist() == [1]


def test_b6_a_refund_of_nobody_in_particular_is_taken_from_nobody() -> None:
    columns: dict[str, list[Any]] = {"user": ["null", "null"], "time": [1_764_000_000, 1_764_000_001]}
    columns |= {"channel": ["", ""], "conversion": [1, 1], "value": [50, -20]}
    table = read_events(columns)
    assert sorted(table.outcomes.value_micros.tolist()) == [-20_000_000, 50_000_000]


def test_b22_the_hint_names_what_to_rename_to_what() -> None:
    with pytest.raises(TableError, match=r"\(if conversions is meant, rename it to total_conversions\)"):
        read_paths({"path": ["a"], "conversions": [1]})
    with pytest.raises(TableError, match=r"\(if chanel is meant, rename it to channel\)"):
        analyze({"user": ["u1"], "time": [1], "chanel": ["a"]})


def test_b30_no_name_of_a_column_steers_the_terminal() -> None:
    (note,) = read_paths({"path": ["a"], "total_conversions": [1], "\x1b]0;owned\x07": [1]}).notes
    assert note == r"columns that are not used: \x1b]0;owned\x07"
    with pytest.raises(TableError) as error:
        read_paths({"path": ["a"], "\x1b[31m\u202etotal_conversions": [1]})
    assert str(error.value).isprintable()
