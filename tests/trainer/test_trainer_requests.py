"""Parameters of jobs: read exactly, or refused with their name."""

from __future__ import annotations

import pytest

from attributary.consumers.trainer.job_requests import PARAMETERS, JobParameterError, Parameters
from attributary.consumers.training.read_journeys import Closing, Window
from attributary.schemas.limits import JOB_KINDS

DAY = 86_400_000_000


def test_times_that_a_person_types_count_from_the_submission() -> None:
    submitted = 20_500 * DAY + 7 * 3_600_000_000
    found = Parameters("backtest", {"from": "30d", "split": "yesterday", "to": "now"}, submitted)
    found.check("acme")
    assert found.window("acme") == Window("acme", submitted - 30 * DAY, submitted)
    assert found.time("split") == 20_499 * DAY
    assert Parameters("train", {"from": "beginning", "to": "end"}).window("acme") == Window("acme")
    with pytest.raises(JobParameterError, match=r"^from: '30d' needs a present moment"):
        Parameters("train", {"from": "30d"}).check("acme")
    with pytest.raises(JobParameterError, match=r"^from: '5min' is no time; it must be a date"):
        Parameters("train", {"from": "5min"}, submitted).check("acme")


def test_a_window_of_all_parameters() -> None:
    found = Parameters(
        "train",
        {
            "from": "2026-01-01",
            "to": "2026-02-01T00:00:00Z",
            "conversion_type": "purchase, lead",
            "closing": "silent",
            "settings": '{"draws": 9}',
        },
    )
    january = 20_454 * DAY
    assert found.window("acme") == Window(
        "acme", january, january + 31 * DAY, frozenset({"purchase", "lead"}), None, Closing.SILENT
    )
    assert found.settings() == {"draws": 9}
    assert found.text("model") is None
    assert not found.flag("activate")
    assert Parameters("backtest", {}).window("acme") == Window("acme")
    assert Parameters("analyze_batch", {"user_id": "anna"}).window("acme").journey_key == "u:anna"
    assert Parameters("analyze_batch", {"anonymous_id": "x"}).window("acme").journey_key == "a:x"


@pytest.mark.parametrize(
    ("kind", "texts", "name"),
    [
        ("train", {"from": "2026-02-01", "to": "2026-02-01"}, "to"),
        ("train", {"from": "soon"}, "from"),
        ("train", {"from": ""}, "from"),  # a variable that was not set must not mean all
        ("analyze_batch", {"user_id": " "}, "user_id"),
        ("train", {"conversion_type": ","}, "conversion_type"),
        ("train", {"closing": "yes"}, "closing"),
        ("train", {"settings": "[1]"}, "settings"),
        ("train", {"settings": "{"}, "settings"),
        ("activate", {"model": "markov", "version": "0"}, "version"),
        ("rollback", {"model": "markov", "version": "1.5"}, "version"),
        ("activate", {"model": "markov", "version": "²"}, "version"),
        ("activate", {"model": "markov", "version": "9" * 26}, "version"),
        ("activate", {"model": "markov", "force": "yes"}, "force"),
        ("activate", {"model": "poem"}, "model"),
        ("activate", {}, "model"),
        ("train", {"activate": "yes"}, "activate"),
        ("train", {"model": "linear"}, "model"),
        ("train", {"from": "9" * 26}, "from"),
        ("train", {"currency": "ZZZ"}, "currency: ZZZ is no ISO 4217 code"),
        ("train", {"settings": '{"minimum_conversions": NaN}'}, "settings: must be a JSON object"),
        ("train", {"settings": '{"minimum_conversions": 1e400}'}, "settings: minimum_conversions: must be a whole"),
        ("train", {"settings": '{"minimum_conversions": "x"}'}, "settings: minimum_conversions: must be a whole"),
        ("train", {"settings": '{"draws": 100000000}'}, "settings: draws: must be a whole number from 1 to 1,000"),
        ("train", {"settings": '{"draws": true}'}, "settings: draws"),
        ("train", {"settings": '{"journeys_per_count": 0.5}'}, "settings: journeys_per_count: is set by the training"),
        ("train", {"model": "poisson", "settings": '{"colour": 1}'}, "settings: colour: unknown setting"),
        ("train", {"settings": "[" * 100_000}, "settings: must be a JSON object"),
        ("train", {"half_life_days": "1e-9"}, "half_life_days: must be from 1 to 36,500 days"),
        ("train", {"half_life_days": "nan"}, "half_life_days"),
        ("train", {"half_life_days": "long"}, "half_life_days"),
        ("train", {"model": "poisson", "half_life_days": "9"}, "half_life_days: is not for poisson"),
        ("backtest", {}, "split: must be given"),
        ("backtest", {"split": "2026-11-01", "model": "linear"}, "model"),
        ("analyze_journey", {}, "conversion_id: must be given"),
        ("cancel", {}, "target_job_id: must be given"),
        ("analyze_batch", {"user_id": "a", "anonymous_id": "b"}, "user_id"),
        ("analyze_journey", {"platform": "google"}, "platform"),
    ],
)
def test_what_cannot_be_read_is_named(kind: str, texts: dict[str, str], name: str) -> None:
    with pytest.raises(JobParameterError, match=f"^{name}"):
        Parameters(kind, texts).check("acme")


def test_what_makes_sense_passes() -> None:
    good: list[tuple[str, dict[str, str]]] = [
        ("train", {}),
        ("train", {"settings": '{"draws": 9}', "half_life_days": "30", "currency": "JPY", "activate": "true"}),
        ("activate", {"model": "poisson", "version": "12", "force": "true"}),
        ("backtest", {"split": "2026-11-01", "model": "poisson"}),
        ("analyze_journey", {"conversion_id": "c"}),
        ("analyze_batch", {}),
        ("rollback", {"model": "markov"}),
        ("cancel", {"target_job_id": "j"}),
    ]
    for kind, texts in good:
        Parameters(kind, texts).check("acme")
    assert {kind for kind, _ in good} == JOB_KINDS


def test_every_kind_has_its_parameters() -> None:
    assert set(PARAMETERS) == JOB_KINDS


def test_days_are_positive_and_may_be_parts() -> None:
    assert Parameters("train", {}).half_life() is None
    assert Parameters("train", {"half_life_days": "1.5"}).half_life() == 3 * DAY // 2


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x"])
def test_what_is_no_number_of_days_is_refused(text: str) -> None:
    with pytest.raises(JobParameterError, match="half_life_days"):
        Parameters("train", {"half_life_days": text}).half_life()
