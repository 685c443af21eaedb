from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.runtime.topics_plan import Action, FoundTopic, Verb, WantedTopic, differs, plan, unequal

WANTED = WantedTopic("events", 12, {"cleanup.policy": "delete", "retention.ms": "1000"})
SAFE = {"unclean.leader.election.enable": "false", "max.message.bytes": "1048588"}
FOUND = FoundTopic(12, 3, {"cleanup.policy": "delete", "retention.ms": "1000", "min.insync.replicas": "2", **SAFE})


def only(found: FoundTopic, **options: int) -> list[Action]:
    return plan([WANTED], {"events": found}, replicas=3, **options)


def test_a_missing_topic_is_created_so_that_a_lost_broker_loses_nothing() -> None:
    (action,) = plan([WANTED], {}, replicas=3)
    assert (action.verb, action.partitions, action.replicas) == (Verb.CREATE, 12, 3)
    assert action.config == {"cleanup.policy": "delete", "retention.ms": "1000", "min.insync.replicas": "2", **SAFE}


def test_a_single_replica_must_not_wait_for_a_second() -> None:
    (action,) = plan([WANTED], {}, replicas=1)
    assert action.config["min.insync.replicas"] == "1"


def test_a_topic_as_wanted_is_ok() -> None:
    assert [action.verb for action in only(FOUND)] == [Verb.OK]
    assert not differs(only(FOUND))


def test_a_setting_that_differs_is_changed_alone() -> None:
    (action,) = only(dataclasses.replace(FOUND, config={**FOUND.config, "retention.ms": "5"}))
    assert action.verb is Verb.CHANGE_CONFIG
    assert action.config == {"retention.ms": "1000"}
    assert "retention.ms 5 -> 1000" in action.detail


def test_too_few_replicas_in_sync_are_a_difference_only_from_three_replicas_on() -> None:
    loose = {**FOUND.config, "min.insync.replicas": "1"}
    assert differs(only(dataclasses.replace(FOUND, config=loose)))
    assert not differs(only(dataclasses.replace(FOUND, config=loose, replicas=1)))


@pytest.mark.parametrize(("partitions", "verb"), [(4, Verb.ADD_PARTITIONS), (12, Verb.OK), (13, Verb.CANNOT)])
def test_partitions_go_up_on_request_and_never_down(partitions: int, verb: Verb) -> None:
    (action,) = only(dataclasses.replace(FOUND, partitions=partitions))
    assert action.verb is verb


def test_the_number_of_partitions_can_be_given() -> None:
    assert not differs(only(dataclasses.replace(FOUND, partitions=2), partitions=2))
    assert plan([WANTED], {}, replicas=1, partitions=2)[0].partitions == 2


def test_settings_and_partitions_are_two_actions() -> None:
    found = FoundTopic(4, 3, {"cleanup.policy": "compact"})
    assert [action.verb for action in only(found)] == [Verb.CHANGE_CONFIG, Verb.ADD_PARTITIONS]


def test_the_order_of_a_list_is_no_difference() -> None:
    wanted = WantedTopic("events", 1, {"cleanup.policy": "compact,delete"})
    found = FoundTopic(1, 1, {"cleanup.policy": "delete, compact", "min.insync.replicas": "1", **SAFE})
    assert not differs(plan([wanted], {"events": found}, replicas=1))


def test_other_topics_are_left_alone() -> None:
    assert len(plan([WANTED], {"events": FOUND, "foreign": FOUND}, replicas=3)) == 1


@settings(max_examples=100, deadline=None)
@given(
    partitions=st.integers(1, 20),
    replicas=st.integers(1, 5),
    config=st.dictionaries(
        st.sampled_from(["cleanup.policy", "retention.ms", "min.insync.replicas"]),
        st.sampled_from(["1", "2", "delete"]),
    ),
    exists=st.booleans(),
)
def test_a_plan_that_was_carried_out_leaves_nothing_to_do(
    *, partitions: int, replicas: int, config: dict[str, str], exists: bool
) -> None:
    cluster = {"events": FoundTopic(partitions, replicas, config)} if exists else {}
    for action in plan([WANTED], cluster, replicas=replicas):
        before = cluster.get("events", FoundTopic(action.partitions, action.replicas, {}))
        cluster["events"] = FoundTopic(
            max(before.partitions, action.partitions), before.replicas, {**before.config, **action.config}
        )
    left = {action.verb for action in plan([WANTED], cluster, replicas=replicas)}
    assert left <= {Verb.OK, Verb.CANNOT}
    assert (Verb.CANNOT in left) == (exists and partitions > WANTED.partitions)


@pytest.mark.parametrize(
    ("key", "value", "differs_"),
    [
        ("unclean.leader.election.enable", "true", True),
        ("max.message.bytes", "500000", True),
        ("max.message.bytes", "1048588", False),
        ("max.message.bytes", "5000000", False),
    ],
)
def test_a_topic_that_could_lose_or_refuse_records_is_changed(key: str, value: str, differs_: bool) -> None:
    assert differs(only(dataclasses.replace(FOUND, config={**FOUND.config, key: value}))) == differs_


@pytest.mark.parametrize(("replicas", "verbs"), [(1, 1), (2, 1), (3, 0)])
def test_production_names_topics_with_fewer_than_three_replicas(replicas: int, verbs: int) -> None:
    found = dataclasses.replace(FOUND, replicas=replicas)
    said = [action.verb for action in plan([WANTED], {"events": found}, replicas=3, replicas_min=3)]
    assert said.count(Verb.TOO_FEW_REPLICAS) == verbs
    assert Verb.TOO_FEW_REPLICAS not in {action.verb for action in only(found)}


def of_group(name: str, partitions: int = 12) -> WantedTopic:
    return WantedTopic(name, partitions, {}, ("stitcher", f"only-{name}"))


def found_with(**partitions: int) -> dict[str, FoundTopic]:
    return {name: FoundTopic(number, 1, {}) for name, number in partitions.items()}


def test_topics_of_a_group_need_equal_numbers_of_partitions() -> None:
    pair = [of_group("a"), of_group("b")]
    assert unequal(pair, {}, add_partitions=False) == []
    assert unequal(pair, found_with(a=4, b=4), add_partitions=False) == []  # a small cluster
    assert unequal(pair, found_with(a=4), add_partitions=True) == []
    (action,) = unequal(pair, found_with(a=4), add_partitions=False)  # b would be created with 12
    assert (action.verb, action.topic) == (Verb.UNEQUAL, "stitcher")
    assert action.detail.startswith(
        "reads a 4, b 12; make them equal: attributary topics apply --partitions-override 12 "
    )
    assert unequal(pair, found_with(a=4), partitions=4, add_partitions=False) == []


def test_a_topic_with_more_partitions_than_the_catalogue_shows_in_the_plan() -> None:
    actions = plan([of_group("a"), of_group("b")], found_with(a=24, b=12), replicas=1)
    assert [action.verb for action in actions][-1] is Verb.UNEQUAL
    assert "--partitions-override 24 --add-partitions" in actions[-1].detail
    assert differs(actions)


def test_the_catalogue_itself_has_equal_numbers_in_each_group() -> None:
    from attributary.schemas.topics import catalogue

    wanted = [WantedTopic(topic.name, topic.partitions, dict(topic.config), topic.groups) for topic in catalogue()]
    assert unequal(wanted, {}, add_partitions=False) == []
