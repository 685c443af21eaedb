"""B4 of the field cases: direct is recognised in the spellings of analytics tools, in tables and in the pipeline."""

from __future__ import annotations

from typing import Any

import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch, is_direct
from attributary.attribution_core.models.model_set import model_set

DIRECT = [
    "direct",
    "Direct",
    "DIRECT",
    "(direct)",
    "(none)",
    "(Direct) / (None)",
    "direct_traffic",
    "Direct Traffic",
    "direct-traffic",
    "direct / none",
    "(direct)/(none)",
    "$direct",
    "Typed/Bookmarked",
    "Typed / Bookmarked",
    "Direct Entry",
    "Direct Load",
    "\uff44\uff49\uff52\uff45\uff43\uff54",
    "direct visits",
]
OTHER = ["direct mail", "Direct Mail", "directory", "redirect", "none", "paid_search", "directv", "(not set)", "google"]


@pytest.mark.parametrize("name", DIRECT)
def test_b4_last_non_direct_skips_every_spelling_of_direct(name: str) -> None:
    assert is_direct(name)
    paths: dict[str, list[Any]] = {"path": [f"paid_search > {name}"], "total_conversions": [40], "total_null": [1]}
    report = analyze(paths, "last_non_direct")["last_non_direct"]
    credited = dict(zip(report.column("channel"), report.column("share"), strict=True))
    assert credited == {name: 0.0, "paid_search": 1.0}


@pytest.mark.parametrize("name", OTHER)
def test_b4_other_channels_are_not_direct(name: str) -> None:
    assert not is_direct(name)
    batch = JourneyBatch.of_paths([["mail", name]])
    assert model_set(["last_non_direct"]).attribute(batch)["last_non_direct"].credits.tolist() == [0.0, 1.0]


def test_b4_events_and_the_pipelines_batches_know_the_spellings() -> None:
    events: dict[str, list[Any]] = {
        "user": ["u1"] * 3,
        "time": [1, 2, 3],
        "channel": ["mail", "(direct)", ""],
        "conversion": [0, 0, 1],
    }
    assert analyze(events, "last_non_direct")["last_non_direct"].column("share") == [0.0, 1.0]
    index = ChannelIndex.of(["mail", "Direct", "(none)"])
    assert index.direct(index.encode(["mail", "Direct", "(none)", "mail"])).tolist() == [False, True, True, False]
    assert ChannelIndex.of(()).direct(ChannelIndex.of(()).encode([])).tolist() == []


def test_b4_the_version_of_the_model_says_that_its_rule_changed() -> None:
    assert model_set(["last_non_direct"]).models[0].version == "2"


def notes(models: str | None, *paths: str) -> list[str]:
    table: dict[str, list[Any]] = {
        "path": list(paths),
        "total_conversions": [40] * len(paths),
        "total_null": [1] * len(paths),
    }
    return [note for note in next(iter(analyze(table, models))).diagnostics["notes"] if "direct" in note]


def test_b4_another_spelling_that_counts_as_direct_is_said() -> None:
    assert notes(None, "a > Direct", "a > (none)") == ["channels that count as direct: (none), Direct"]
    assert notes(None, "a > direct") == []


def test_b4_a_name_that_is_near_to_direct_is_asked_about() -> None:
    for name in ("direct_web", "Direktzugriff", "directo", "dirct", "no referrer direct"):
        (note,) = notes("last_non_direct", f"a > {name}")
        assert note.startswith("last_non_direct equals last: no channel counts as direct")
        assert f"did you mean {name}? Rename it to direct" in note
    (note,) = notes("last_non_direct", "a > b")
    assert "did you mean" not in note
    assert notes("last", "a > b") == []
    (note,) = notes(None, "a > direct_web")
    assert "did you mean direct_web?" in note
    assert notes(None, "a > direct mail") == []
