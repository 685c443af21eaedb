from __future__ import annotations

import pytest

from attributary.schemas import topics
from attributary.schemas.schema_catalog import NAMES


def test_the_names_and_the_catalogue_are_the_same_set() -> None:
    constants = {
        topics.TOUCHPOINTS, topics.CONVERSIONS, topics.IDENTITIES, topics.COMMANDS, topics.RESULTS, topics.JOBS,
        topics.JOB_STATUS, topics.ERASURE_REQUESTS, topics.ERASURES,
    }  # fmt: skip
    assert {topic.name for topic in topics.catalogue()} == constants
    assert {topic.record for topic in topics.catalogue()} == set(NAMES) - {"dead_letter"}


def test_input_topics_carry_the_broker_s_time() -> None:
    for topic in topics.catalogue():
        if topic.record in {"touchpoint", "conversion", "identity_link", "erasure_request"}:
            assert topic.config["message.timestamp.type"] == "LogAppendTime"


def test_results_keep_the_newest_of_each_key() -> None:
    results = next(topic for topic in topics.catalogue() if topic.name == topics.RESULTS)
    assert results.config["cleanup.policy"] == "compact"


def test_every_group_has_a_dead_letter_topic() -> None:
    names = {topic.name for topic in topics.dead_letter_topics()}
    assert topics.dead_letter_topic(topics.TOUCHPOINTS, "attribution.stitcher") in names
    assert topics.dead_letter_topic(topics.CONVERSIONS, "attribution.forwarder.meta") in names
    assert len(names) == sum(len(topic.groups) for topic in topics.catalogue())
    # Kafka's limit of a topic's name.
    assert max(map(len, names)) <= 249


def test_events_of_a_device_stay_together_whoever_it_is() -> None:
    assert topics.partition_key("acme", "device-1", "customer-1") == b"acme|device-1"
    assert topics.partition_key("acme", "device-1", None) == b"acme|device-1"
    assert topics.partition_key("acme", None, "customer-1") == b"acme|customer-1"
    assert topics.partition_key("acme", "", "customer-1") == b"acme|customer-1"
    with pytest.raises(ValueError, match="at least one must be set"):
        topics.partition_key("acme", None, None)


def test_keys_of_conversions_and_jobs_begin_with_the_tenant() -> None:
    assert topics.conversion_key("acme", "o-1") == b"acme|o-1"
    assert topics.job_key("acme", "j-1") == b"acme|j-1"
    assert topics.topic_of("result") == topics.RESULTS
