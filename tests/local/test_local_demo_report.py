"""What the demo shows: whole names at every width, the truth beside the models, a latency that says what it is."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from attributary.local.demo import report, traffic
from attributary.local.demo.subscriber import Seen
from attributary.producers.pathdata import PathDataMissingError
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS

CREDIT = {
    report.TRUTH: {"organic_search": 10.0, "a_channel_with_a_long_name": 60.0, report.NOBODY: 30.0},
    "linear": {"organic_search": 70.0, "a_channel_with_a_long_name": 30.0},
    "poisson": {"organic_search": 20.0, "a_channel_with_a_long_name": 50.0, report.NOBODY: 30.0},
    "last_non_direct": {"organic_search": 100.0},
    "position_based": {"organic_search": 100.0},
    "markov": {"organic_search": 60.0, "a_channel_with_a_long_name": 40.0},
    "a_new_model_with_a_name": {"organic_search": 100.0},
}


def shown(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    for table in report.credit_tables(CREDIT, "title", width):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_names_of_channels_and_models_are_never_cut(width: int) -> None:
    text = shown(width)
    words = text.split()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for model in CREDIT:
        assert words.count(model) == 1
    assert "a_channel_with_a_long_name" in words


def test_a_wide_terminal_has_one_table() -> None:
    assert shown(160).split().count("channel") == 1
    assert shown(60).split().count("channel") > 1


def test_a_model_is_wrong_by_what_it_credits_beyond_the_cause() -> None:
    wrong = report.misplaced(CREDIT)
    assert wrong["linear"] == pytest.approx(0.6)
    assert wrong["poisson"] == pytest.approx(0.1)
    assert report.TRUTH not in wrong


def test_the_finding_names_channel_and_best_model() -> None:
    text = report.finding(CREDIT)
    assert text.startswith("Finding: a_channel_with_a_long_name caused 60 of 100 conversions")
    assert "Closest to the truth over all channels is poisson (10% credited wrong)" in text


def test_latency_counts_first_results_of_measured_conversions_only() -> None:
    seen = [
        Seen(0, 0, "t", "warm-up", 1, 100.0, balanced=True),
        Seen(0, 1, "t", "c", 1, 200.2, balanced=True),
        Seen(0, 2, "t", "c", 2, 300.0, balanced=True),
    ]
    line, figures = report.latency_line(seen, {("t", "c"): 200.0}, 200.0)
    assert figures["p50"] == pytest.approx(200.0)
    assert "1 conversions at 200 events/s after a warm-up" in line
    assert report.latency_line(seen, {}, 200.0)[1] == {}


def test_without_pathdata_the_demo_replays_two_shops_with_known_causes(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise PathDataMissingError("not here")

    monkeypatch.setattr(traffic, "find_pathdata", missing)
    made = traffic.demo_traffic(1_800_000_000_000_000, 4_000)
    events = [*made.history, *made.live]
    assert made.tenants == traffic.SHOPS
    assert {record["tenant_id"] for _, record in events} == set(traffic.SHOPS)
    assert {record["currency"] for topic, record in events if topic == CONVERSIONS} >= {"EUR", "USD", "JPY"}
    assert len(made.truth.channels) == 10
    assert 0 < len(made.live) < len(made.history)
    times = [record["occurred_at"] for topic, record in events if topic == TOUCHPOINTS]
    assert max(times) - min(times) >= 29 * 86_400_000_000
