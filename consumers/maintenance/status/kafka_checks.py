"""What Kafka and the schema registry tell about an installation. Nothing is joined, committed or written.

Offsets are asked by consumers that never join a group: one answer of librdkafka's admin client that a lost connection
cuts off ends the process (its issue 4605).
"""

from __future__ import annotations

import base64
import json
import math
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from attributary.consumers.adapters.registry_settings import RegistrySettings
from attributary.consumers.runtime.consumer_groups import members
from attributary.consumers.runtime.errors import Fatal, Retry
from attributary.consumers.runtime.kafka_errors import check_reachable
from attributary.consumers.runtime.redrive import read_letters
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings, load
from attributary.consumers.runtime.topics_admin import TopicsAdmin
from attributary.consumers.runtime.topics_plan import PRODUCTION_REPLICAS, Verb, WantedTopic, plan
from attributary.consumers.sweeper.input_age import UnreadAgeReader
from attributary.schemas.registry import subject_of
from attributary.schemas.topics import catalogue, dead_letter_topics, short_name

from .report import Finding, Level, counted, duration
from .store_checks import Places

_SECONDS = 4.0
_TRIES, _REST_SECONDS = 4, 0.5
_DAY = 86_400.0
_SHOWN = 3
_LETTERS_READ = 2_000
_MUST_RUN = ("stitcher", "attributor", "auditor")
_OLD_SECONDS, _IDLE_SECONDS = 60.0, 300.0
_LITTLE_LEFT, _NEARLY_NONE_LEFT = 0.5, 0.1
Place = tuple[str, int]


def check_brokers(kafka: KafkaSettings) -> Sequence[Finding]:
    """Ask the brokers for a sign of life."""
    check_reachable(kafka, _SECONDS)
    found = AdminClient({**kafka.client_config(), "log_level": 0}).list_topics(timeout=_SECONDS)
    text = f"{counted(len(found.brokers), 'broker')} at {kafka.bootstrap_servers}"
    return [Finding("kafka", Level.GOOD, text, facts={"brokers": len(found.brokers)})]


def check_registry(settings: RegistrySettings) -> Sequence[Finding]:
    """Ask the registry which of the schemas it has."""
    if settings.url is None:
        return [Finding("registry", Level.GOOD, "not used: records carry their schema's fingerprint")]
    url = settings.url.partition(",")[0].rstrip("/")
    place = url.partition("://")[2]
    request = urllib.request.Request(f"{url}/subjects")  # noqa: S310  # the setting allows http and https only
    if settings.credentials is not None:
        secret = base64.b64encode(settings.credentials.get_secret_value().encode()).decode()
        request.add_header("Authorization", f"Basic {secret}")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
            subjects = set(json.load(answer))
    except urllib.error.HTTPError as error:
        cure = "set SCHEMA_REGISTRY_CREDENTIALS" if error.code in {401, 403} else "see the registry's log"
        with error:
            return [Finding("registry", Level.BAD, f"{place} answers {error.code}", "it refuses", cure)]
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        cure = "start it, or correct SCHEMA_REGISTRY_URL"
        return [Finding("registry", Level.BAD, f"{place} does not answer", type(reason).__name__, cure)]
    wanted = {subject_of(topic.record) for topic in catalogue() if topic.record}
    missing = sorted(wanted - subjects)
    facts = {"subjects": len(wanted), "missing": missing}
    text = f"{place} has {len(wanted) - len(missing)} of {len(wanted)} subjects"
    if missing:
        cure = "register them: docs/reference/schemas.md, or SCHEMA_REGISTRY_AUTO_REGISTER=true"
        return [Finding("registry", Level.WARNING, text, f"missing: {', '.join(missing[:_SHOWN])}", cure, facts)]
    return [Finding("registry", Level.GOOD, text, facts=facts)]


def check_topics(kafka: KafkaSettings) -> Sequence[Finding]:
    """Compare the topics and their settings with the catalogue."""
    wanted = [
        WantedTopic(topic.name, topic.partitions, dict(topic.config), topic.groups)
        for topic in (*catalogue(), *dead_letter_topics())
    ]
    cluster = TopicsAdmin(kafka).describe(topic.name for topic in wanted)
    is_production = load(ProcessSettings).environment == "production"
    actions = plan(
        wanted,
        cluster.topics,
        replicas=cluster.default_replicas,
        replicas_min=PRODUCTION_REPLICAS if is_production else 1,
    )
    missing = [action.topic for action in actions if action.verb is Verb.CREATE]
    changes = {Verb.CHANGE_CONFIG, Verb.TOO_FEW_REPLICAS}
    others = [f"{action.topic}: {action.detail}" for action in actions if action.verb in changes]
    fewer = [f"{action.topic}: {action.detail}" for action in actions if action.verb is Verb.ADD_PARTITIONS]
    split = [f"{action.topic} {action.detail}" for action in actions if action.verb is Verb.UNEQUAL]
    facts = {"topics": len(wanted), "missing": missing, "other_settings": others, "other_partitions": fewer}
    cure = "see: attributary topics plan; then: attributary topics apply"
    if missing:
        text = f"{len(missing)} of {len(wanted)} missing"
        return [Finding("topics", Level.BAD, text, ", ".join(missing[:_SHOWN]), cure, facts)]
    if split:
        text = "numbers of partitions differ within a group"
        return [Finding("topics", Level.BAD, text, split[0].partition(";")[0], "see: attributary topics plan", facts)]
    if others:
        text = f"{counted(len(others), 'topic')} of {len(wanted)} with other settings"
        return [Finding("topics", Level.WARNING, text, "; ".join(others[:_SHOWN]), cure, facts)]
    text = f"all {len(wanted)}, set as in the catalogue"
    if fewer:
        return [Finding("topics", Level.NOTE, f"{text}; some with fewer partitions", fewer[0], cure, facts)]
    return [Finding("topics", Level.GOOD, text, facts=facts)]


def check_dead_letters(kafka: KafkaSettings) -> Sequence[Finding]:
    """Count the open letters; of very many, the offsets that they take."""
    names = [topic.name for topic in dead_letter_topics()]
    with _consumer(kafka, "attributary.reader") as consumer:
        bounds = _bounds(consumer, _places(consumer, names))
    full: dict[str, int] = {}
    for (topic, _), (low, high) in bounds.items():
        if high > low:
            full[topic] = full.get(topic, 0) + high - low
    if not full:
        return [Finding("dead letters", Level.GOOD, "none", facts={"topics": {}})]
    if sum(full.values()) <= _LETTERS_READ:
        # Some were closed or sent again, and offsets are marks of transactions as well.
        letters = read_letters(kafka, full)
        full = dict(Counter(each.place.rpartition("[")[0] for each in letters))
        if not full:
            return [Finding("dead letters", Level.GOOD, "none is open", facts={"topics": {}})]
    text = f"in {counted(len(full), 'topic')}: " + ", ".join(short_name(name) for name in sorted(full))
    cure = "attributary dlq list; repair the cause; attributary dlq redrive, or dlq close"
    return [Finding("dead letters", Level.WARNING, text, "records that broke a rule", cure, {"topics": full})]


@dataclass(frozen=True, slots=True)
class _Reading:
    """How far one group has read: records (and marks) behind, and what of the log it could lose."""

    behind: int
    has_begun: bool
    lost: int


def check_stages(kafka: KafkaSettings, stored: Places | None) -> Sequence[Finding]:
    """Tell by stage its processes, its lag, its last progress, and how long its unread records are kept."""
    topics = {name: [topic.name for topic in catalogue() if name in topic.groups] for name in _groups()}
    running = _members(kafka, list(topics))
    with _consumer(kafka, "attributary.reader") as consumer:
        places = {name: _places(consumer, names) for name, names in topics.items()}
        bounds = _bounds(consumer, {place for each in places.values() for place in each})
    offsets = stored.offsets if stored else {}
    readings = {}
    for name in topics:
        with _consumer(kafka, name) as consumer:
            readings[name] = _reading(name, _committed(consumer, places[name]), offsets, bounds, places[name])
    ages = _ages(kafka, offsets)
    kept = _retention()
    findings = []
    for name, names in topics.items():
        left = min(kept.get(topic, math.inf) for topic in names) - ages[name] if name in ages else None
        findings.append(_stage(name, running.get(name, 0), readings[name], stored, ages.get(name), left))
    findings.append(_sweeper(stored))
    return findings


def _members(kafka: KafkaSettings, groups: Sequence[str]) -> Mapping[str, int]:
    """Return the members of each group; a broker that has just started does not know its coordinators at once."""
    for _ in range(_TRIES - 1):
        with suppress(Fatal):
            return members(kafka, groups)
        time.sleep(_REST_SECONDS)
    return members(kafka, groups)


def _stage(
    group: str, processes: int, reading: _Reading, stored: Places | None, age: float | None, left: float | None
) -> Finding:
    name = short_name(group)
    idle = stored.idle_seconds.get(group) if stored else None
    # Offsets behind are records or marks of transactions; where the age is known, so is whether a record is among them.
    behind = 0 if age == 0 else reading.behind
    facts = {
        "processes": processes, "behind": behind, "oldest_unread_seconds": age, "seconds_since_progress": idle,
        "retention_left_seconds": None if left == math.inf else left, "lost": reading.lost,
    }  # fmt: skip
    text = f"{counted(processes, 'process')}, {_behind(behind, age)}"
    text += "" if idle is None else f", stored {duration(idle)} ago"
    if processes == 0 and name not in _MUST_RUN and not reading.has_begun:
        return Finding(name, Level.GOOD, "not in use", facts=facts)
    if processes == 0:
        text = f"no process; {_behind(behind, age)}"
    share = None if left is None or not age else left / (age + left)
    is_old, is_idle = (age or 0.0) > _OLD_SECONDS, (idle or 0.0) > _IDLE_SECONDS
    soon = f"unread records are removed in {duration(max(left or 0.0, 0.0))}"
    start = f"start it: attributary {name.replace('forwarder.', 'forwarder ')}"
    raise_it = "add processes, or raise the topics' retention"
    # The first that is so counts: is it so, level, cause, cure.
    faults: Sequence[tuple[bool, Level, str, str]] = (
        (reading.lost > 0, Level.BAD, f"{reading.lost:,} records were removed before it read them", raise_it),
        (processes == 0 and name in _MUST_RUN, Level.BAD, "its group has no member", start),
        (processes == 0, Level.WARNING, "its group has no member", start),
        (share is not None and share < _NEARLY_NONE_LEFT, Level.BAD, soon, raise_it),
        (share is not None and share < _LITTLE_LEFT, Level.WARNING, soon, raise_it),
        (is_old and is_idle, Level.BAD, f"no progress for {duration(idle or 0.0)}", "see its log and /readyz"),
        (is_old, Level.WARNING, "it does not keep up, or has just started", "wait, or add processes"),
    )
    for is_so, level, cause, cure in faults:
        if is_so:
            return Finding(name, level, text, cause, cure, facts)
    return Finding(name, Level.GOOD, text, facts=facts)


def _sweeper(stored: Places | None) -> Finding:
    if stored is None:
        return Finding("sweeper", Level.UNKNOWN, "not looked at: Postgres does not tell its processes")
    processes = stored.processes.get("sweeper", 0)
    facts = {"processes": processes}
    if processes:
        return Finding("sweeper", Level.GOOD, counted(processes, "process"), facts=facts)
    cure = "start it: attributary sweeper"
    return Finding("sweeper", Level.BAD, "no process", "no connection of it is open in Postgres", cure, facts)


def _behind(behind: int, age: float | None) -> str:
    if behind == 0:
        return "nothing unread"
    return f"{behind:,} unread" + (f", the oldest for {duration(age)}" if age else "")


def _groups() -> list[str]:
    return list(dict.fromkeys(group for topic in catalogue() for group in topic.groups))


def _retention() -> Mapping[str, float]:
    """Return by topic how long the catalogue keeps a record, seconds; without those that are compacted."""
    return {
        topic.name: int(topic.config["retention.ms"]) / 1_000
        for topic in catalogue()
        if int(topic.config.get("retention.ms", "-1")) >= 0 and "compact" not in topic.config.get("cleanup.policy", "")
    }


def _ages(kafka: KafkaSettings, offsets: Mapping[tuple[str, str, int], int]) -> Mapping[str, float]:
    """Return by group how long its oldest unread record has waited, seconds; 0: there is none."""
    reader = UnreadAgeReader(kafka)
    try:
        found = reader.oldest(offsets)
    except Retry:
        return {}  # not known: the number of offsets behind is
    finally:
        reader.close()
    now = time.time()
    return {group: 0.0 if oldest is None else max(0.0, now - oldest / 1e6) for group, oldest in found.items()}


@contextmanager
def _consumer(kafka: KafkaSettings, group: str) -> Iterator[Consumer]:
    config: dict[str, Any] = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer(kafka.client_config() | {"log_level": 0} | config)
    try:
        yield consumer
    except KafkaException as error:
        raise Retry(f"Kafka does not tell ({error.args[0].name()})") from None
    finally:
        consumer.close()


def _places(consumer: Consumer, topics: Iterable[str]) -> list[Place]:
    there = consumer.list_topics(timeout=_SECONDS).topics
    return [(topic, part) for topic in topics if topic in there for part in there[topic].partitions]


def _bounds(consumer: Consumer, places: Iterable[Place]) -> dict[Place, tuple[int, int]]:
    found = {}
    for place in places:
        ends = consumer.get_watermark_offsets(TopicPartition(*place), timeout=_SECONDS)
        if ends is None:
            raise Retry("Kafka does not tell where the topics end")
        found[place] = ends
    return found


def _committed(consumer: Consumer, places: Sequence[Place]) -> dict[Place, int]:
    found = consumer.committed([TopicPartition(*place) for place in places], timeout=_SECONDS) if places else []
    return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}


def _reading(
    group: str,
    committed: Mapping[Place, int],
    stored: Mapping[tuple[str, str, int], int],
    bounds: Mapping[Place, tuple[int, int]],
    places: Iterable[Place],
) -> _Reading:
    behind = lost = 0
    has_begun = False
    for place in places:
        low, high = bounds[place]
        known = [offset for offset in (committed.get(place), stored.get((group, *place))) if offset is not None]
        has_begun = has_begun or bool(known)
        position = min(known, default=low)
        lost += max(0, low - position)
        behind += max(0, high - max(position, low))
    return _Reading(behind, has_begun, lost)
