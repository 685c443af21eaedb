"""The truth: what it claims follows from the events and from the counterfactuals."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.attribution_core.domain.identity import Link, identity_key, journey_key, owner
from attributary.producers.simulator import Identities, SimulatorConfig, Traffic, Volume, simulate
from attributary.producers.simulator.outcomes import find_causes
from attributary.producers.simulator.population import draw_population
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

NOW = 1_790_000_000_000_000
IDENTITIES_MIX = Identities(anonymous=0.3, borrowed_device=0.2)
CONFIG = SimulatorConfig(NOW, seed=3, volume=Volume(20_000, 1_000, 2), identities=IDENTITIES_MIX)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return simulate(CONFIG)


def test_causes_and_baseline_sum_to_the_conversions(traffic: Traffic) -> None:
    truth = traffic.truth
    assert truth.caused_by_nothing + sum(c.caused for c in truth.channels.values()) == pytest.approx(truth.conversions)
    for channel in truth.channels.values():
        assert 0 <= channel.incremental <= truth.conversions - truth.baseline


def test_incremental_is_what_an_independent_run_without_the_effect_loses() -> None:
    population = draw_population(CONFIG)
    causes = find_causes(CONFIG, population)
    name = "paid_search"
    index = [c.name for c in CONFIG.channels].index(name)
    channels = tuple(replace(c, effect=0.0) if c.name == name else c for c in CONFIG.channels)
    switched_off = replace(CONFIG, channels=channels)
    # Fewer and fewer conversions are asked for, until the hurdle is the one of the run with the effect.
    lost = int(causes.incremental[index])
    fewer = replace(switched_off, volume=replace(CONFIG.volume, conversions=CONFIG.volume.conversions - lost))
    without = find_causes(fewer, population)
    assert set(without.converted.tolist()) <= set(causes.converted.tolist())
    one_more = replace(switched_off, volume=replace(CONFIG.volume, conversions=CONFIG.volume.conversions - lost + 1))
    assert not set(find_causes(one_more, population).converted.tolist()) <= set(causes.converted.tolist()) or lost == 0


def test_a_channel_without_effect_causes_nothing_however_often_it_is_met(traffic: Traffic) -> None:
    organic = traffic.truth.channels["organic_search"]
    assert organic.touchpoints == max(c.touchpoints for c in traffic.truth.channels.values())
    assert (organic.incremental, organic.caused) == (0, 0.0)


def test_touchpoints_by_channel_are_those_of_the_events(traffic: Traffic) -> None:
    counted: dict[str, int] = {}
    for event in traffic:
        if event.topic == TOUCHPOINTS:
            counted[event.record["channel"]] = counted.get(event.record["channel"], 0) + 1
    assert counted == {name: c.touchpoints for name, c in traffic.truth.channels.items() if c.touchpoints}


def test_owners_are_those_of_the_smallest_link(traffic: Traffic) -> None:
    links: dict[tuple[str, str], list[Link]] = {}
    seen = set()
    for event in traffic:
        record = event.record
        if record["anonymous_id"] is None:
            continue
        device = (record["tenant_id"], record["anonymous_id"])
        seen.add(device)
        if record["user_id"] is not None:
            links.setdefault(device, []).append(Link(event.occurred_at, record["event_id"], record["user_id"]))
    assert any(len({link.user_id for link in several}) > 1 for several in links.values()), "a borrowed device"
    assert seen <= set(traffic.truth.owners)
    for device in seen:
        winner = owner(links.get(device, []))
        assert traffic.truth.owners[device] == (winner.user_id if winner else None)


def test_values_and_journeys_of_conversions_are_those_of_the_core(traffic: Traffic) -> None:
    events: dict[tuple[str, str], list[ConversionEvent]] = {}
    keys = {}
    for event in traffic:
        if event.topic != CONVERSIONS:
            continue
        record = event.record
        conversion = (record["tenant_id"], record["conversion_id"] or record["event_id"])
        events.setdefault(conversion, []).append(
            ConversionEvent(
                record["occurred_at"], record["event_id"], record["kind"], record["value_micros"], record["currency"]
            )
        )
        keys[conversion] = (record["user_id"], record["anonymous_id"])
    assert events.keys() == traffic.truth.by_conversion.keys()
    corrected = 0
    for conversion, truth in traffic.truth.by_conversion.items():
        state = fold(events[conversion])
        assert (state.gross_value_micros, state.net_value_micros, state.currency) in (
            (truth.gross_value_micros, truth.net_value_micros, truth.currency),
            (truth.net_value_micros, truth.net_value_micros, truth.currency),  # a restatement replaces the gross value
        )
        corrected += truth.gross_value_micros != truth.net_value_micros
        user_id, anonymous_id = keys[conversion]
        device_owner = traffic.truth.owners.get((conversion[0], anonymous_id or ""))
        assert truth.journey_key == journey_key(identity_key(user_id, anonymous_id), device_owner)
    assert corrected


def test_touches_of_a_conversion_are_all_of_its_person_in_reach(traffic: Traffic) -> None:
    """Everybody has one journey, so the journey of the truth is what stitching by the star of links finds."""
    by_person: dict[tuple[str, str], set[str]] = {}
    for event in traffic:
        record = event.record
        if event.topic == TOUCHPOINTS and not record["is_bot"]:
            tenant = record["tenant_id"]
            device_owner = traffic.truth.owners[tenant, record["anonymous_id"]]
            person = journey_key(identity_key(record["user_id"], record["anonymous_id"]), device_owner)
            by_person.setdefault((tenant, person), set()).add(record["event_id"])
    for (tenant, _), truth in traffic.truth.by_conversion.items():
        assert set(truth.touchpoints) == by_person.get((tenant, truth.journey_key), set())


def test_the_document_is_json_and_holds_the_counts(traffic: Traffic) -> None:
    document = json.loads(json.dumps(traffic.truth.document()))
    assert document["counts"]["touchpoints"] == 20_000
    assert document["counts"]["events"][IDENTITIES] == traffic.truth.links
    assert sum(len(conversions) for conversions in document["conversions"].values()) == 1_000
