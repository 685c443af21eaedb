"""The events: deterministic, exact in number, valid, disordered as asked."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.producers.simulator import (
    Corrections,
    Disorder,
    Identities,
    SimulatorConfig,
    SimulatorConfigError,
    Traffic,
    Volume,
    simulate,
)
from attributary.producers.simulator.config import MICROS, MICROS_PER_DAY
from attributary.schemas.codec import Codec
from attributary.schemas.rules import CHECKS, find_unstorable_text
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS, partition_key

NOW = 1_790_000_000 * MICROS
NAMES = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link"}
DISORDER = Disorder(duplicates=0.05, late=0.05, shuffle_seconds=3_600.0)


def config(seed: int = 7, touchpoints: int = 4_000, conversions: int = 200, **others: object) -> SimulatorConfig:
    volume = Volume(touchpoints, conversions, tenants=2)
    return SimulatorConfig(NOW, seed=seed, volume=volume, disorder=DISORDER, **others)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return simulate(config())


def as_bytes(traffic: Traffic) -> bytes:
    return b"\n".join(json.dumps([e.topic, e.key.decode(), e.record, e.occurred_at]).encode() for e in traffic)


def test_same_seed_gives_the_same_bytes_and_another_seed_others(traffic: Traffic) -> None:
    first = as_bytes(traffic)
    assert as_bytes(simulate(config())) == first
    assert as_bytes(traffic) == first, "iterating twice"
    assert as_bytes(simulate(config(seed=8))) != first


def test_disorder_changes_the_order_and_nothing_in_the_events(traffic: Traffic) -> None:
    calm = simulate(SimulatorConfig(NOW, seed=7, volume=Volume(4_000, 200, 2)))
    assert sorted(calm, key=repr) == sorted({repr(e): e for e in traffic}.values(), key=repr)
    times = [event.occurred_at for event in calm]
    assert times == sorted(times)


def test_totals_are_exact(traffic: Traffic) -> None:
    truth = traffic.truth
    distinct = {
        topic: {(e.record["tenant_id"], e.record["event_id"]) for e in traffic if e.topic == topic} for topic in NAMES
    }
    assert distinct == truth.events
    assert len(distinct[TOUCHPOINTS]) == truth.touchpoints == 4_000
    openings = {e.record["event_id"] for e in traffic if e.topic == CONVERSIONS and e.record["kind"] == "conversion"}
    assert len(openings) == truth.conversions == 200
    assert len(distinct[CONVERSIONS]) == 200 + truth.corrections
    assert len(distinct[IDENTITIES]) == truth.links
    events = sum(map(len, distinct.values()))
    assert truth.duplicates == truth.late == sum(round(0.05 * len(ids)) for ids in distinct.values())
    assert len(traffic) == sum(1 for _ in traffic) == events + truth.duplicates


def test_every_duplicate_equals_its_original_and_comes_after_it(traffic: Traffic) -> None:
    first: dict[tuple[str, str], tuple[object, int]] = {}
    arrivals = traffic.arrivals
    doubles = 0
    for event, at, double in zip(traffic, arrivals.arrived_at.tolist(), arrivals.duplicate.tolist(), strict=True):
        key = (event.record["tenant_id"], event.record["event_id"])
        assert double == (key in first)
        if double:
            doubles += 1
            original, earlier = first[key]
            assert event == original
            assert 0 <= at - earlier <= DISORDER.duplicate_delay_seconds * MICROS
        else:
            first[key] = (copy.deepcopy(event), at)
    assert doubles == traffic.truth.duplicates


def test_lateness_and_shuffling_are_bounded(traffic: Traffic) -> None:
    arrivals = traffic.arrivals
    occurred = np.array([event.occurred_at for event in traffic])
    delay = arrivals.arrived_at - occurred
    once = ~arrivals.duplicate
    assert (np.diff(arrivals.arrived_at) >= 0).all()
    assert delay.min() >= 0
    assert delay[once & ~arrivals.late].max() <= DISORDER.shuffle_seconds * MICROS
    assert delay[once & arrivals.late].max() <= (DISORDER.shuffle_seconds + DISORDER.late_seconds) * MICROS
    assert delay[once & arrivals.late].min() >= DISORDER.late_seconds / 2 * MICROS
    assert (np.diff(occurred) < 0).mean() > 0.2, "neighbours are reordered"


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"identities": Identities(anonymous=0.0, signed_in=1.0)},
        {"identities": Identities(anonymous=1.0)},
        {"corrections": Corrections(0.25, 0.25, 0.25, 0.25)},
    ],
)
def test_every_event_obeys_the_rules_and_survives_the_codec(others: dict[str, Any]) -> None:
    codec = Codec()
    for event in simulate(config(touchpoints=1_500, conversions=150, **others)):
        name = NAMES[event.topic]
        assert CHECKS[name](event.record, now_micros=NOW) is None
        assert find_unstorable_text(event.record) is None
        decoded = codec.decode(name, codec.encode(name, event.record))
        nested = {"items", "user_data"}  # they come back with the defaults of their own fields
        assert {f: decoded[f] for f in event.record if f not in nested} == {
            f: value for f, value in event.record.items() if f not in nested
        }
        ids = (event.record["tenant_id"], event.record["anonymous_id"], event.record["user_id"])
        assert event.key == partition_key(*ids)
        time = event.record["linked_at"] if event.topic == IDENTITIES else event.record["occurred_at"]
        assert time == event.occurred_at <= NOW


def test_touches_of_a_conversion_lie_inside_the_windows(traffic: Traffic) -> None:
    touches = {(e.record["tenant_id"], e.record["event_id"]): e.record for e in traffic if e.topic == TOUCHPOINTS}
    clicks = passive = 0
    for (tenant, _), conversion in traffic.truth.by_conversion.items():
        ages = []
        for event_id in conversion.touchpoints:
            touch = touches[tenant, event_id]
            age = conversion.converted_at - touch["occurred_at"]
            ages.append(age)
            is_click = touch["interaction"] == "click"
            clicks, passive = clicks + is_click, passive + (not is_click)
            # Opened mails have the clicks' window; that they are young as well does no harm.
            assert 0 < age < (30 if is_click else 1) * MICROS_PER_DAY
        assert ages == sorted(ages, reverse=True)
    assert clicks
    assert passive


def test_corrections_come_after_what_they_correct(traffic: Traffic) -> None:
    conversions = {e.record["event_id"]: e.record for e in traffic if e.topic == CONVERSIONS}
    kinds = set()
    for record in conversions.values():
        if record["kind"] == "conversion":
            continue
        kinds.add(record["kind"])
        corrected = conversions[record["conversion_id"]]
        assert record["occurred_at"] > corrected["occurred_at"]
        for field in ("tenant_id", "user_id", "anonymous_id", "currency", "conversion_type"):
            assert record[field] == corrected[field]
    assert kinds >= {"refund", "cancellation"}


def test_tenants_share_ids_but_no_events(traffic: Traffic) -> None:
    people: dict[str, set[str]] = {}
    for event in traffic:
        people.setdefault(event.record["tenant_id"], set()).add(event.record["anonymous_id"] or event.record["user_id"])
    assert set(people) == {"tenant-1", "tenant-2"}
    assert people["tenant-1"] & people["tenant-2"], "the same device id in two tenants is two people"


@settings(max_examples=25, deadline=None)
@given(
    touchpoints=st.integers(1, 300),
    share=st.floats(0, 1),
    tenants=st.integers(1, 4),
    people=st.none() | st.integers(4, 50),
    seed=st.integers(0, 2**32),
)
def test_any_wish_that_is_accepted_is_fulfilled(
    touchpoints: int, share: float, tenants: int, people: int | None, seed: int
) -> None:
    conversions = round(share * touchpoints)
    volume = Volume(touchpoints, conversions, tenants, people)
    traffic = simulate(SimulatorConfig(NOW, seed=seed, volume=volume, disorder=DISORDER))
    assert (traffic.truth.touchpoints, traffic.truth.conversions) == (touchpoints, conversions)
    assert len(list(traffic)) == len(traffic)
    assert max((event.occurred_at for event in traffic), default=0) <= NOW


@pytest.mark.parametrize(
    ("field", "wish"),
    [
        ("conversions", lambda: Volume(10, 11)),
        ("volume", lambda: Volume(0, 0)),
        ("people", lambda: Volume(tenants=3, people=2)),
        ("span_days", lambda: Volume(span_days=0)),
    ],
)
def test_impossible_volumes_are_refused_by_name(field: str, wish: object) -> None:
    with pytest.raises(SimulatorConfigError, match=f"^{field}"):
        SimulatorConfig(NOW, volume=wish())  # type: ignore[operator]


@pytest.mark.parametrize(
    ("field", "others"),
    [
        ("duplicates", {"disorder": Disorder(duplicates=1.5)}),
        ("late_seconds", {"disorder": Disorder(late_seconds=-1)}),
        ("half_life_days, baseline", {"baseline": 0.0}),
        ("corrections", {"corrections": Corrections(0.5, 0.5, 0.5, 0)}),
        ("channels", {"channels": ()}),
    ],
)
def test_impossible_wishes_are_refused_by_name(field: str, others: dict[str, object]) -> None:
    with pytest.raises(SimulatorConfigError, match=f"^{field}"):
        SimulatorConfig(NOW, **others)  # type: ignore[arg-type]
