"""The reference data set as events: its counts and its value, exactly."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from attributary.producers.pathdata import (
    PATH_VARIABLE,
    PathDataError,
    PathDataMissingError,
    PathRow,
    Replay,
    ReplayConfig,
    choose_paths,
    find_pathdata,
    read_paths,
)
from attributary.producers.simulator import Disorder
from attributary.schemas.rules import CHECKS
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS, topic_of

NOW = 1_790_000_000_000_000
NAMES = {topic_of(name): name for name in ("touchpoint", "conversion")}
ROWS = [
    PathRow(("eta", "iota", "eta"), 3, Decimal("1.0049"), 2),
    PathRow(("beta",), 0, Decimal(0), 4),
    PathRow(("mi", "eta"), 2, Decimal("0.5151"), 0),
]


def test_journeys_counts_and_value_are_those_of_the_paths() -> None:
    replay = Replay(ROWS, ReplayConfig(NOW, seed=1))
    assert (replay.journeys, replay.touchpoints, replay.conversions) == (11, 23, 5)
    assert replay.value_micros == 1_520_000
    paths: dict[str, list[tuple[int, str]]] = {}
    values: dict[str, int] = {}
    last = 0
    for topic, key, record in replay:
        assert CHECKS[NAMES[topic]](record, now_micros=NOW) is None
        assert key == f"pathdata|{record['anonymous_id']}".encode()
        assert record["occurred_at"] >= last
        last = record["occurred_at"]
        person = record["anonymous_id"]
        if topic == TOUCHPOINTS:
            paths.setdefault(person, []).append((record["occurred_at"], record["channel"]))
        else:
            assert max(paths[person])[0] < record["occurred_at"]
            assert min(paths[person])[0] > record["occurred_at"] - 30 * 86_400_000_000
            values[person] = record["value_micros"]
    assert sum(values.values()) == 1_520_000
    walked = sorted((tuple(c for _, c in path), person in values) for person, path in paths.items())
    expected = sorted(
        (row.channels, converts) for row in ROWS for converts in [True] * row.conversions + [False] * row.nulls
    )
    assert walked == expected


def test_disorder_and_seeds() -> None:
    config = ReplayConfig(NOW, seed=5, disorder=Disorder(duplicates=0.5, late=0.2, shuffle_seconds=60))
    replay = Replay(ROWS, config)
    assert list(replay) == list(Replay(ROWS, config))
    assert replay.duplicates == 12 + 2
    assert len(list(replay)) == len(replay) == 23 + 5 + 14
    assert list(Replay(ROWS, ReplayConfig(NOW, seed=6))) != list(Replay(ROWS, ReplayConfig(NOW, seed=5)))


def test_choosing_keeps_whole_paths_in_order_and_the_limit() -> None:
    assert choose_paths(ROWS) == ROWS
    for seed in range(5):
        chosen = choose_paths(ROWS, limit=8, seed=seed)
        assert sum(len(row.channels) * row.journeys for row in chosen) <= 8
        assert all(row in ROWS for row in chosen)
    assert len(choose_paths(ROWS, sample=0.34)) == 1
    assert choose_paths(ROWS, sample=0.0) == []
    with pytest.raises(ValueError, match="sample"):
        choose_paths(ROWS, sample=2.0)


def test_no_paths_no_events() -> None:
    assert list(Replay([], ReplayConfig(NOW))) == []


def test_the_real_file_has_its_known_totals() -> None:
    try:
        rows = read_paths(find_pathdata())
    except PathDataMissingError as error:
        pytest.skip(str(error))
    replay = Replay(rows, ReplayConfig(NOW))
    assert (len(rows), replay.journeys, replay.touchpoints, replay.conversions) == (10_000, 88_387, 378_209, 19_785)
    assert replay.value_micros == 74_802_970_000
    limited = Replay(choose_paths(rows, limit=5_000), ReplayConfig(NOW))
    assert 4_900 <= limited.touchpoints <= 5_000
    assert {topic for topic, _, _ in limited} == {TOUCHPOINTS, CONVERSIONS}


def test_places_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    monkeypatch.setattr("attributary.producers.pathdata.find_spec", lambda _: None)
    root = tmp_path / "project"
    root.mkdir()
    with pytest.raises(PathDataMissingError, match=PATH_VARIABLE):
        find_pathdata(root)
    beside = tmp_path / "shared" / "data" / "pathdata.csv"
    beside.parent.mkdir(parents=True)
    beside.write_text("path,total_conversions,total_conversion_value,total_null\neta > mi,1,0.5,2\n")
    assert read_paths(find_pathdata(root)) == [PathRow(("eta", "mi"), 1, Decimal("0.5"), 2)]
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "nowhere.csv"))
    with pytest.raises(PathDataMissingError, match="no such file"):
        find_pathdata(root)


@pytest.mark.parametrize(
    "text",
    [
        "path,total_conversions,total_null\neta,1,2\n",
        "path,total_conversions,total_conversion_value,total_null\neta,one,1,2\n",
        "path,total_conversions,total_conversion_value,total_null\neta,1,x,2\n",
        "path,total_conversions,total_conversion_value,total_null\neta > ,1,1,2\n",
        "path,total_conversions,total_conversion_value,total_null\neta,-1,1,2\n",
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.csv"
    file.write_text(text)
    with pytest.raises(PathDataError, match=r"other\.csv"):
        read_paths(file)
