"""All models against the simulator's true contributions: the table of docs/models.md, computed again."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.bench.models_truth import scoreboard

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.fixture(scope="module")
def scores() -> Mapping[str, tuple[float, ...]]:
    return scoreboard()


def test_the_scoreboard_of_the_page_is_what_comes_out(scores: Mapping[str, tuple[float, ...]]) -> None:
    shown = {
        name: tuple(map(float, cells))
        for name, *cells in re.findall(
            r"^\| `?([a-z_, ]+?)`? \| (\d\.\d\d) \| (\d\.\d\d) \| (\d\.\d\d) \|$", PAGE.read_text(), re.MULTILINE
        )
    }
    table = "\n".join(f"| {name} | " + " | ".join(f"{v:.2f}" for v in row) + " |" for name, row in scores.items())
    assert set(shown) == set(scores), f"\n{table}"
    for name, row in scores.items():
        assert shown[name] == pytest.approx(row, abs=0.03), f"\n{table}"


def test_only_models_with_a_baseline_can_tell_that_nothing_was_caused(scores: Mapping[str, tuple[float, ...]]) -> None:
    with_baseline = {"poisson", "markov_shapley, baseline named"}
    for name, row in scores.items():
        assert (row[2] < 0.9) == (name in with_baseline), name
