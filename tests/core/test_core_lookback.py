"""Lookback policies: resolution, bounds, versions, and errors that name the place."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, MICROS_PER_DAY, LookbackPolicy, PolicyError

PARTS = ("channel", "conversion_type", "interaction")
values = {"channel": ["Email", "Social"], "conversion_type": ["lead", "purchase"], "interaction": ["click", "view"]}


def policy(*windows: dict[str, Any], **more: Any) -> LookbackPolicy:
    return LookbackPolicy.parse({"lateness_days": 2, "inactivity_days": 30, "windows": [*windows], **more})


rows = st.fixed_dictionaries({}, optional={part: st.sampled_from([*values[part], "*"]) for part in PARTS}).map(
    lambda row: tuple(row.get(part, "*") for part in PARTS)
)
documents = st.dictionaries(rows, st.integers(0, 90), max_size=8).map(lambda found: {("*", "*", "*"): 30, **found})


def as_policy(windows: dict[tuple[str, ...], int]) -> LookbackPolicy:
    return policy(*({**dict(zip(PARTS, key, strict=True)), "days": days} for key, days in windows.items()))


@given(documents, st.tuples(*(st.sampled_from([*values[part], "other"]) for part in PARTS)))
@settings(max_examples=100)
def test_the_entry_with_the_most_named_parts_wins(windows: dict[tuple[str, ...], int], asked: tuple[str, ...]) -> None:
    fitting = [key for key in windows if all(part in ("*", a) for part, a in zip(key, asked, strict=True))]
    # Most named parts; of equally many, channel before conversion type before interaction.
    best = max(fitting, key=lambda key: (sum(part != "*" for part in key), [part != "*" for part in key]))
    found = as_policy(windows)
    for _ in range(2):  # the second answer is a remembered one
        assert found.window_micros(*asked) == windows[best] * MICROS_PER_DAY
    assert found.longest_window_micros == max(windows.values()) * MICROS_PER_DAY


@given(documents, st.randoms(use_true_random=False))
@settings(max_examples=50)
def test_the_version_is_a_function_of_the_rules(windows: dict[tuple[str, ...], int], random: Any) -> None:
    shuffled = list(windows.items())
    random.shuffle(shuffled)
    first, second = as_policy(windows), as_policy(dict(shuffled))
    assert first.version == second.version
    stored = json.loads(json.dumps(dict(first.document)))
    assert LookbackPolicy.parse(stored).version == first.version
    longer = as_policy({**windows, ("*", "*", "*"): windows["*", "*", "*"] + 1})
    assert longer.version != first.version


def test_every_rule_changes_the_version_and_the_name_is_shown() -> None:
    versions = {
        policy({"days": 30}).version,
        policy({"days": 30}, lateness_days=3).version,
        policy({"days": 30}, inactivity_days=31).version,
        policy({"days": 30}, {"channel": "Email", "days": 30}).version,
        policy({"days": 30}, name="other").version,
    }
    assert len(versions) == 5
    assert policy({"days": 30}, name="summer").version.startswith("summer-")
    assert policy({"days": 30}).version == policy({"days": 30.0}).version
    assert LookbackPolicy.parse(DEFAULT_POLICY).version.startswith("default-")


@pytest.mark.parametrize(
    ("age", "delay", "is_bot", "counted"),
    [
        (0, 0, False, True),  # at the moment of the conversion
        (-1, 0, False, False),  # after it
        (100, 0, False, True),  # at the window's end
        (101, 0, False, False),
        (50, 2 * MICROS_PER_DAY, False, True),  # at the end of lateness
        (50, 2 * MICROS_PER_DAY + 1, False, False),
        (50, -(10**15), False, True),
        (50, 0, True, False),
    ],
)
def test_both_ends_count(*, age: int, delay: int, is_bot: bool, counted: bool) -> None:
    assert policy({"days": 30}).counts(age=age, window=100, delay=delay, is_bot=is_bot) is counted


def test_any_number_of_names_costs_bounded_memory() -> None:
    found = policy({"days": 30}, {"channel": "email", "days": 7})
    for number in range(10_500):
        assert found.window_micros(f"channel-{number}", "purchase", "click") == 30 * MICROS_PER_DAY
    assert found.window_micros("email", "purchase", "click") == 7 * MICROS_PER_DAY
    assert len(found._resolved) <= 10_000


near = st.sampled_from([-1, 0, 1, 99, 100, 101]) | st.integers(-(2**62), 2**62)
late = st.sampled_from([2 * MICROS_PER_DAY + step for step in (-1, 0, 1)]) | st.integers(-(2**62), 2**62)


@given(st.lists(st.tuples(near, st.integers(0, 200), late, st.booleans()), max_size=30))
@settings(max_examples=60)
def test_many_at_once_are_judged_as_one_by_one(touches: list[tuple[int, int, int, bool]]) -> None:
    found = policy({"days": 30})
    alone = [found.counts(age=a, window=w, delay=d, is_bot=b) for a, w, d, b in touches]
    columns = list(zip(*touches, strict=True)) or [(), (), (), ()]
    ages, windows, delays = (np.array(column, np.int64) for column in columns[:3])
    assert found.counts_many(ages, windows, delays, np.array(columns[3], np.bool_)).tolist() == alone


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"windows": [{"days": 1}], "lateness_days": 1}, "policy: inactivity_days"),
        ({"windows": [{"days": 1}], "inactivity_days": 1}, "policy: lateness_days"),
        ({"lateness_days": 1, "inactivity_days": 1}, "windows must be a list"),
        ({"lateness_days": 1, "inactivity_days": 1, "windows": []}, "for everything else"),
        ({"lateness_days": 1, "inactivity_days": 1, "windows": [{"channel": "Email", "days": 1}]}, "everything else"),
        ({"lateness_days": -1, "inactivity_days": 1, "windows": [{"days": 1}]}, "from 0 to 730"),
        ({"lateness_days": True, "inactivity_days": 1, "windows": [{"days": 1}]}, "lateness_days"),
        ({"lateness_days": float("nan"), "inactivity_days": 1, "windows": [{"days": 1}]}, "lateness_days"),
        ({"lateness_days": 1, "inactivity_days": 1, "windows": [{"days": 1}, {"days": 2}]}, r"windows\[2\].*twice"),
        ({"lateness_days": 1, "inactivity_days": 1, "windows": [{"days": 731}]}, r"windows\[1\]: days"),
        ({"lateness_days": 1, "inactivity_days": 1, "windows": [{"days": 1}, "x"]}, r"windows\[2\]: keys are"),
        ({"lateness_days": 1, "inactivity_days": 1, "windows": [{"days": 1, "channels": "x"}]}, r"windows\[1\]: keys"),
        ({"latenes_days": 1, "windows": [{"days": 1}]}, "unknown key 'latenes_days'"),
    ],
)
def test_an_error_names_the_place(document: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        LookbackPolicy.parse(document)


def test_parts_change_the_version_and_a_policy_without_them_keeps_its_own() -> None:
    plain = policy({"days": 30})
    assert plain.version == policy({"days": 30}, rules={}, channels=[], trained={}).version
    several = [
        policy({"days": 30}, **part)
        for part in (
            {"rules": {"time_decay": {"half_life_days": 3}}}, {"models": ["last"]}, {"trained": {"markov": 1}},
            {"trained": {"markov": False}}, {"channels": [{"channel": "a", "as": "b"}]},
        )
    ]  # fmt: skip
    assert len({plain.version, *(each.version for each in several)}) == 6
    assert [plain.differing_parts(each) for each in several] == [
        ("rules",), ("models",), ("trained",), ("trained",), ("channels",),
    ]  # fmt: skip
    assert LookbackPolicy.parse(json.loads(json.dumps(several[0].document))) == several[0]


def test_the_first_channel_rule_that_fits_names_the_channel() -> None:
    found = policy({"days": 30}, channels=[
        {"platform": "google", "campaign": "brand*", "as": "brand"}, {"channel": "paid_search", "as": "search"},
    ])  # fmt: skip
    assert [
        found.reported_channel(*touch)
        for touch in (
            ("google", "paid_search", "brand_de"), ("google", "paid_search", "Brand"), ("bing", "paid_search", "brand"),
            ("bing", "email", "brand"),
        )
    ] == ["brand", "search", "search", ""]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"rules": {"last": {}}}, "'last' has no parameters"),
        ({"rules": {"position_based": {"first": 1}}}, "needs first, middle, last"),
        ({"rules": {"position_based": {"first": 1, "middle": 1, "last": 0}}}, "must sum to 1"),
        ({"rules": {"time_decay": {"half_life_days": 0}}}, "a second or more"),
        ({"rules": {"time_decay": {"half_life_days": float("nan")}}}, "a number from 0 to 730"),
        ({"rules": [1]}, "rules must be a mapping"),
        ({"models": []}, "a list of names"),
        ({"models": ["last", "last"]}, "named twice"),
        ({"trained": {"markov": 0}}, "the number of a version, or off"),
        ({"trained": {"markov": True}}, "the number of a version, or off"),
        ({"channels": [{"as": "a"}]}, "needs as, and one or more"),
        ({"channels": [{"channel": "a", "as": "b", "day": "c"}]}, "needs as, and one or more"),
        ({"channels": [{"channel": 1, "as": "b"}]}, "a text of 1 to 200"),
        ({"channels": [{"channel": "a", "as": "\x1b[0m"}]}, "a lower-case word"),
        ({"channels": {}}, "a list of 500 entries"),
    ],
)
def test_a_part_out_of_bounds_names_its_place(part: dict[str, Any], why: str) -> None:
    with pytest.raises(PolicyError, match=f"policy: .*{re.escape(why)}"):
        policy({"days": 30}, **part)
