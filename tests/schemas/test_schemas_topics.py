from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import attributary
from attributary.schemas import topics
from attributary.schemas.installation import MAX_PREFIX, PREFIX_RULE, PrefixError, read_prefix
from attributary.schemas.schema_catalog import NAMES


def test_the_names_and_the_catalogue_are_the_same_set() -> None:
    constants = {
        topics.TOUCHPOINTS, topics.CONVERSIONS, topics.IDENTITIES, topics.COMMANDS, topics.RESULTS, topics.JOBS,
        topics.JOB_STATUS, topics.ERASURE_REQUESTS, topics.ERASURES, topics.SPEND,
    }  # fmt: skip
    assert {topic.name for topic in topics.catalogue()} == constants
    assert {topic.record for topic in topics.catalogue()} == set(NAMES) - {"dead_letter"}


def test_input_topics_carry_the_broker_s_time() -> None:
    for topic in topics.catalogue():
        if topic.record in {"touchpoint", "conversion", "identity_link", "erasure_request", "spend"}:
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


@pytest.mark.parametrize("prefix", ["", "eu.", "eu-1.", "a.b.", "0."])
def test_a_good_prefix_is_taken_from_the_variable_or_a_file(prefix: str, tmp_path: Path) -> None:
    file = tmp_path / "prefix"
    file.write_text(f"{prefix}\n")
    assert read_prefix({"ATTRIBUTION_PREFIX": prefix}) == prefix
    assert read_prefix({"ATTRIBUTION_PREFIX_FILE": str(file)}) == prefix


@pytest.mark.parametrize(
    "prefix",
    ["eu", "EU.", "e u.", ".", "a..", "-a.", "a-.", "a_b.", "ä.", "attribution.", "x.attribution.", f"{'a' * 32}."],
)
def test_a_bad_prefix_is_refused_without_its_value(prefix: str) -> None:
    with pytest.raises(PrefixError, match="must be lower-case") as refused:
        read_prefix({"ATTRIBUTION_PREFIX": prefix})
    assert str(refused.value) == f"ATTRIBUTION_PREFIX: {PREFIX_RULE}"


def test_a_file_of_the_prefix_that_is_not_there_is_named() -> None:
    with pytest.raises(PrefixError, match="ATTRIBUTION_PREFIX_FILE: the file cannot be read"):
        read_prefix({"ATTRIBUTION_PREFIX_FILE": "/nowhere/at/all"})


_NAMES_WITH_PREFIX = """
import json
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.auditor.stage import AuditorStage
from attributary.consumers.reporter.stage import GROUP as REPORTER
from attributary.consumers.spender.stage import SpenderStage
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.sweeper.input_age import READERS
from attributary.consumers.trainer.stage import GROUP as TRAINER
from attributary.producers import MemoryTransport
from attributary.schemas.access import Principals, processes, rights
from attributary.schemas.registry import subject_of
from attributary.schemas.topics import catalogue, dead_letter_topics, topic_of
stages = (StitcherStage, AttributorStage, AuditorStage, SpenderStage)
found = rights(catalogue(), dead_letter_topics(), Principals())
print(json.dumps({
    "topics": [each.name for each in (*catalogue(), *dead_letter_topics())] + [topic_of("result")],
    "groups": [TRAINER, REPORTER, *READERS, *(each.group for each in stages),
               *(group for each in catalogue() for group in each.groups)],
    "read": [*StitcherStage.topics, *AttributorStage.topics, *AuditorStage.topics],
    "written": [name for each in stages for name in each.output_topics],
    "rights": [each.name for each in found],
    "principals": [each.principal.removeprefix("User:") for each in found],
    "subjects": [subject_of("touchpoint")],
    "processes": processes(catalogue()),
}))
"""


def test_all_names_of_an_installation_begin_with_its_prefix() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NAMES_WITH_PREFIX],
        env={**os.environ, "ATTRIBUTION_PREFIX": "eu."}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = json.loads(done.stdout)
    processes = names.pop("processes")
    assert "forwarder-meta" in processes
    for kind, found in names.items():
        assert found
        assert {name for name in found if not name.startswith("eu.")} == set(), kind
    assert max(map(len, names["topics"])) + 2 * (MAX_PREFIX - len("eu.")) <= 249


_SPELT = re.compile(r"""["']attribution\.([a-z][\w.-]*["']|\{)""")


def test_no_module_spells_the_name_of_a_topic_or_group() -> None:
    """Such a name has no prefix: its process would share a topic or a group with other installations."""
    package = Path(attributary.__file__).parent
    modules = [path for folder in sorted(package.iterdir()) for path in folder.rglob("*.py")]
    assert len(modules) > 300
    spelt = [
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in modules
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _SPELT.search(line)
    ]
    assert not spelt, "\n".join(spelt)
