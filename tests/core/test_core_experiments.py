"""A table of experiments: what is read, and what is refused with row, column and rule."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from attributary.attribution_core.tables.experiments import Experiment, ExperimentError, read_experiments

DAY = 86_400_000_000


class Frame:
    """What pandas' and polars' frames have in common: names of columns, and columns by name."""

    def __init__(self, cells: dict[str, list[Any]]) -> None:
        self.columns = list(cells)
        self._cells = cells

    def __contains__(self, name: str) -> bool:
        return name in self._cells

    def __getitem__(self, name: str) -> list[Any]:
        return self._cells[name]


def columns(**cells: Any) -> dict[str, list[Any]]:
    return {name: [cell] for name, cell in ({"channel": "mail", "standard_error": 5.0} | cells).items()}


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        ({}, "one of the columns conversions, value, share must be there"),
        ({"conversions": 1, "share": 0.2}, "row 1: exactly one of conversions, value, share must be given"),
        ({"conversions": "many"}, "row 1: conversions: 'many' must be a number"),
        ({"conversions": "1_0"}, "row 1: conversions: '1_0' must be a number"),
        ({"conversions": "1e999999999"}, "row 1: conversions: '1e999999999' must be a number"),
        ({"conversions": True}, "row 1: conversions: 'True' must be a number"),
        ({"conversions": math.inf}, "row 1: conversions: 'inf' must be a number"),
        ({"conversions": 1, "standard_error": None}, "row 1: standard_error: 'None' must be a number"),
        ({"conversions": 1, "standard_error": 0}, "row 1: standard_error: must be positive"),
        ({"share": 20}, r"row 1: share: '20' is more than all: a fraction of 1, 0.2 is 20 %"),
        ({"conversions": 1, "channel": " "}, "row 1: channel: must not be empty"),
        ({"conversions": 1, "channel": None}, "row 1: channel: must not be empty"),
        ({"conversions": 1, "channel": math.nan}, "row 1: channel: must not be empty"),
        ({"conversions": 1, "from": "2026-01-01"}, "row 1: from and to: both or none"),
        ({"conversions": 1, "from": "2026-01-02", "to": "2026-01-02"}, "row 1: from and to: both or none"),
        ({"conversions": 1, "from": "soon", "to": "later"}, "row 1: from: 'soon' must be ISO 8601 or seconds"),
        ({"conversions": 1, "from": 0, "to": "1969-12-31"}, "row 1: to: '1969-12-31' is outside of 1970 to 2099"),
        (
            {"conversions": 1, "from": "1767225600000000", "to": "2026-02-01"},
            r"row 1: from: .* is outside of 1970 to 2099; looks like microseconds: divide by 1,000,000",
        ),
    ],
)
def test_a_row_that_cannot_be_read_is_named(cells: dict[str, Any], rule: str) -> None:
    with pytest.raises(ExperimentError, match=rule) as caught:
        read_experiments(columns(**cells))
    assert caught.value.row == (1 if rule.startswith("row 1") else None)
    assert str(caught.value).endswith(caught.value.rule)


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        (
            {"channel": ["a"], "conversions": [1]},
            "standard_error is missing; there are channel, conversions",
        ),
        ({"Channel": ["a"], "standard_error": [1]}, "the column channel is missing; .*names of columns are written in"),
        (
            columns(conversions=1, From="2026-01-01", To="2026-02-01"),
            r"not used: From \(did you mean from\?\), To \(",
        ),
        (columns(conversion=1), r"not used: conversion \(did you mean conversions\?\)"),
        (columns(share=0.1, comment="first"), "experiments: columns that are not used: comment$"),
        (columns(share=0.1) | {"standard_error": [1, 2]}, "all columns must have the same length"),
        (columns(share=0.1) | {"share": [0.1, 0.2]}, "all columns must have the same length"),
        ({"channel": [], "standard_error": [], "share": []}, "there is no row"),
    ],
)
def test_columns_that_are_wrong_are_named(cells: dict[str, Any], rule: str) -> None:
    with pytest.raises(ExperimentError, match=rule):
        read_experiments(cells)
    with pytest.raises(ExperimentError, match=rule):
        read_experiments(Frame(cells))  # type: ignore[arg-type]


def test_what_is_no_column_is_named() -> None:
    given: Any = {"channel": "mail", "standard_error": [1], "share": [0.1]}
    with pytest.raises(TypeError, match=r"channel: must be a column, as a list is, not str"):
        read_experiments(given)


def test_empty_cells_and_numbers_of_every_kind_are_read() -> None:
    kinds: list[Any] = ["0.2", " 0.2 ", 0.2, Decimal("0.2"), np.float64(0.2)]
    for share in kinds:
        (found,) = read_experiments(columns(channel=" mail ", conversions="", value=math.nan, share=share))
        assert found == Experiment("mail", "share", 0.2, 5.0)
    (array,) = read_experiments({**columns(conversions=1), "standard_error": np.array([5])})
    assert array == Experiment("mail", "conversions", 1, 5)


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("1970-01-02", "1970-01-03"),
        ("1970-01-02T01:00:00+01:00", "19700103"),
        (date(1970, 1, 2), datetime(1970, 1, 3, tzinfo=UTC)),
        (86_400, "172800"),  # seconds, as in a table of events
        (np.datetime64("1970-01-02"), 172_800.0),
    ],
)
def test_times_are_those_of_a_table_of_events(since: Any, until: Any) -> None:
    (found,) = read_experiments(columns(value=3, **{"from": since, "to": until}))
    assert (found.since, found.until) == (DAY, 2 * DAY)
