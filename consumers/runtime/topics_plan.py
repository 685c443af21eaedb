"""What it takes to make a cluster's topics those of a catalogue: a pure comparison.

Invariant: the plan of a cluster on which its own actions were carried out has nothing to do. Nothing is ever deleted,
and partitions are never taken away; adding some moves keys to other partitions, so that is an action of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

_MIN_IN_SYNC = "min.insync.replicas"
_UNCLEAN = "unclean.leader.election.enable"
_MAX_BYTES = "max.message.bytes"
_KAFKAS_MAX_BYTES = "1048588"  # Kafka's own default: a cluster with a smaller one refuses records that we may write
_AT_LEAST = frozenset({_MAX_BYTES})  # settings of which a larger value is fine

PRODUCTION_REPLICAS = 3
"""Below that an acknowledged record can stand on one disk only."""

_LIST_SETTINGS = frozenset({"cleanup.policy"})


class Verb(StrEnum):
    """What is to be done with a topic."""

    OK = "ok"
    CREATE = "create"
    CHANGE_CONFIG = "change config"
    ADD_PARTITIONS = "add partitions"
    CANNOT = "cannot change"
    TOO_FEW_REPLICAS = "too few replicas"
    UNEQUAL = "unequal partitions"


@dataclass(frozen=True)
class WantedTopic:
    """A topic as the catalogue says."""

    name: str
    partitions: int
    config: Mapping[str, str]
    groups: Sequence[str] = ()  # that read it: topics of one group need equal numbers of partitions


@dataclass(frozen=True)
class FoundTopic:
    """A topic as the cluster has it; ``config`` holds the values in force, defaults included."""

    partitions: int
    replicas: int
    config: Mapping[str, str]


@dataclass(frozen=True)
class Action:
    """One line of a plan.

    Attributes:
        verb: what is to be done.
        topic: with which topic.
        detail: for people.
        partitions: how many the topic has afterwards.
        replicas: replication factor of a topic to create.
        config: the settings to give it.
    """

    verb: Verb
    topic: str
    detail: str = ""
    partitions: int = 0
    replicas: int = 0
    config: Mapping[str, str] = field(default_factory=dict)


def plan(
    wanted: Iterable[WantedTopic],
    found: Mapping[str, FoundTopic],
    *,
    replicas: int,
    partitions: int | None = None,
    replicas_min: int = 1,
) -> list[Action]:
    """Compare a catalogue with a cluster.

    Args:
        wanted: the catalogue.
        found: the cluster's topics by name; others than those wanted are left alone.
        replicas: replication factor of topics to create.
        partitions: in place of the catalogue's numbers, for small clusters.
        replicas_min: a found topic with fewer is named; adding some is for kafka-reassign-partitions.

    Returns:
        At least one action a wanted topic, in the catalogue's order, then one a group that `unequal` names.
    """
    actions: list[Action] = []
    wanted = list(wanted)
    for topic in wanted:
        number = topic.partitions if partitions is None else partitions
        if topic.name not in found:
            actions.append(_creation(topic, number, replicas))
        else:
            actions += _changes(topic, number, found[topic.name])
            actions += _missing_replicas(topic.name, found[topic.name], replicas_min)
    return actions + unequal(wanted, found, partitions=partitions, add_partitions=True)


def unequal(
    wanted: Iterable[WantedTopic],
    found: Mapping[str, FoundTopic],
    *,
    partitions: int | None = None,
    add_partitions: bool,
) -> list[Action]:
    """Return the groups that would read topics with different numbers of partitions, as actions that nobody can do.

    A person's events have one partition number in all topics of a group; the stage refuses to start otherwise.

    Args:
        wanted: the catalogue.
        found: the cluster's topics by name.
        partitions: in place of the catalogue's numbers.
        add_partitions: whether found topics get the partitions that they lack.
    """
    read: dict[str, dict[str, int]] = {}
    for topic in wanted:
        number = topic.partitions if partitions is None else partitions
        there = found.get(topic.name)
        after = number if there is None else max(there.partitions, number if add_partitions else 0)
        for group in topic.groups:
            read.setdefault(group, {})[topic.name] = after
    actions = []
    for group, numbers in read.items():
        if len(set(numbers.values())) > 1:
            largest = max(numbers.values())
            said = ", ".join(f"{name} {number}" for name, number in numbers.items())
            cure = f"make them equal: attributary topics apply --partitions-override {largest} --add-partitions"
            actions.append(Action(Verb.UNEQUAL, group, f"reads {said}; {cure}", largest))
    return actions


def differs(actions: Iterable[Action]) -> bool:
    """Tell whether a plan has anything but topics that are as wanted."""
    return any(action.verb is not Verb.OK for action in actions)


def _missing_replicas(name: str, found: FoundTopic, replicas_min: int) -> Iterator[Action]:
    if found.replicas < replicas_min:
        detail = f"{found.replicas} replicas, production needs {replicas_min}: add them with kafka-reassign-partitions"
        yield Action(Verb.TOO_FEW_REPLICAS, name, detail)


def _creation(topic: WantedTopic, partitions: int, replicas: int) -> Action:
    config = _with_safety(topic.config, replicas)
    settings = ", ".join(f"{key}={value}" for key, value in sorted(config.items()))
    detail = f"{partitions} partitions, {replicas} replicas, {settings}"
    return Action(Verb.CREATE, topic.name, detail, partitions, replicas, config)


def _changes(topic: WantedTopic, partitions: int, found: FoundTopic) -> Iterator[Action]:
    changed = {
        key: value
        for key, value in _with_safety(topic.config, found.replicas).items()
        if _differs(key, found.config.get(key), value)
    }
    if changed:
        detail = ", ".join(f"{key} {found.config.get(key)} -> {value}" for key, value in sorted(changed.items()))
        yield Action(Verb.CHANGE_CONFIG, topic.name, detail, config=changed)
    if found.partitions < partitions:
        detail = f"partitions {found.partitions} -> {partitions}; keys move to other partitions"
        yield Action(Verb.ADD_PARTITIONS, topic.name, detail, partitions)
    elif found.partitions > partitions:
        detail = f"partitions {found.partitions} -> {partitions}: Kafka cannot take partitions away"
        yield Action(Verb.CANNOT, topic.name, detail, found.partitions)
    if not changed and found.partitions == partitions:
        yield Action(Verb.OK, topic.name, f"{found.partitions} partitions, {found.replicas} replicas", found.partitions)


def _with_safety(config: Mapping[str, str], replicas: int) -> dict[str, str]:
    """Add what keeps an acknowledged record: 2 of three replicas have it, and no replica without it becomes leader."""
    in_sync = "2" if replicas >= PRODUCTION_REPLICAS else "1"
    return {_MIN_IN_SYNC: in_sync, _UNCLEAN: "false", _MAX_BYTES: _KAFKAS_MAX_BYTES, **config}


def _differs(key: str, found: str | None, wanted: str) -> bool:
    if key in _AT_LEAST and found is not None and found.isdigit():
        return int(found) < int(wanted)
    return _normal(key, found) != _normal(key, wanted)


def _normal(key: str, value: str | None) -> str | None:
    """Spell lists in one order: Kafka keeps the one that it was given."""
    if value is not None and key in _LIST_SETTINGS:
        return ",".join(sorted(part.strip() for part in value.split(",")))
    return value
