"""Who may do what in Kafka: the rights of every stage, publisher and subscriber, derived from the catalogue of topics.

Invariant: a principal has the rights of its row and no other; the integration test on a broker that denies by default
takes each away and sees its process stop. WRITE and READ bring DESCRIBE with them, in Kafka's own rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from attributary.schemas import installation
from attributary.schemas.topics import (
    COMMANDS,
    CONVERSIONS,
    ERASURE_REQUESTS,
    IDENTITIES,
    PREFIX,
    RESULT_READERS,
    RESULTS,
    TOUCHPOINTS,
    Topic,
    dead_letter_topic,
    group_name,
    short_name,
)

Kind = Literal["topic", "group", "transactional_id"]
Operation = Literal["READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"]

OURS = f"{PREFIX}{installation.OURS}"
"""How the topics of this installation and the groups of its stages begin."""

# With the prefix: a process of one installation has no right on another one's topics.
_DEFAULT_PRINCIPAL = f"User:{PREFIX}attributary-{{name}}"
# What the sweeper looks at to learn how far each stage has read; it joins no group.
_WATCHED_TOPICS = (TOUCHPOINTS, CONVERSIONS, IDENTITIES, ERASURE_REQUESTS, COMMANDS, RESULTS)


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One allowed operation.

    Attributes:
        principal: as the brokers call the process, ``User:...``.
        kind: what the operation is on.
        name: of the topic or group, or its beginning.
        operation: in Kafka's words.
        is_prefix: all names that begin so.
        is_needed: the process stops without it; else it only shows less (metrics of retention).
    """

    principal: str
    kind: Kind
    name: str
    operation: Operation
    is_prefix: bool = False
    is_needed: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Principals:
    """The principals of an installation.

    Attributes:
        named: principal by process: stitcher, forwarder-meta, ...; those left out have their default.
        publishers: services that publish events, the collector among them.
        subscribers: services that read results, each with how the names of its consumer groups begin.
    """

    named: Mapping[str, str] = field(default_factory=dict)
    publishers: Sequence[str] = (_DEFAULT_PRINCIPAL.format(name="publisher"),)
    subscribers: Mapping[str, str] = field(
        default_factory=lambda: {_DEFAULT_PRINCIPAL.format(name="subscriber"): RESULT_READERS}
    )

    def of(self, name: str) -> str:
        """Return the principal of a process."""
        return self.named.get(name) or _DEFAULT_PRINCIPAL.format(name=name)

    @classmethod
    def parse(cls, document: Any, known: Iterable[str]) -> Principals:
        """Read principals from a document.

        Args:
            document: a mapping with principals by process, ``publishers`` (a list) and ``subscribers`` (principal to
                the beginning of its groups).
            known: names of processes.

        Raises:
            ValueError: names the field and the rule.
        """
        if not isinstance(document, dict):
            raise ValueError("must hold a mapping")  # noqa: TRY004  # one kind of error for a bad file
        default = cls()
        publishers = document.get("publishers", list(default.publishers))
        subscribers = document.get("subscribers", dict(default.subscribers))
        named = {name: value for name, value in document.items() if name not in {"publishers", "subscribers"}}
        if unknown := sorted(map(str, named.keys() - set(known))):
            raise ValueError(f"{unknown[0]}: no process has this name; there are {', '.join(sorted(known))}")
        if not isinstance(publishers, list):
            raise ValueError("publishers: must be a list of principals")  # noqa: TRY004
        if not isinstance(subscribers, dict) or not all(
            each and isinstance(each, str) for each in subscribers.values()
        ):
            raise ValueError("subscribers: must map each principal to the beginning of its consumer groups")
        places = [*named.items(), *(("publishers", each) for each in publishers)]
        places += [("subscribers", each) for each in subscribers]
        for place, principal in places:
            if not isinstance(principal, str) or not principal.startswith("User:") or principal == "User:*":
                raise ValueError(f"{place}: a principal must be User:NAME, as the brokers call it, and not User:*")
        return cls(named, tuple(publishers), subscribers)


def process_of(group: str) -> str:
    """Return the process of a consumer group: ``attribution.forwarder.meta`` is read by ``forwarder-meta``."""
    return short_name(group).replace(".", "-")


def processes(topics: Iterable[Topic]) -> list[str]:
    """Return the names of the processes that have rights of their own."""
    names = {process_of(group) for topic in topics for group in topic.groups}
    names |= {writer for topic in topics for writer in topic.writers if writer != "publisher"}
    return sorted(names)


def rights(topics: Sequence[Topic], dead_letters: Sequence[Topic], principals: Principals) -> list[Right]:
    """Return every right that an installation needs, sorted, each once.

    Args:
        topics: the catalogue.
        dead_letters: the dead-letter topics of its groups.
        principals: who is who.
    """
    found = set(_of_readers(topics, {topic.name for topic in dead_letters}, principals))
    for topic in topics:
        for writer in topic.writers:
            writers = principals.publishers if writer == "publisher" else (principals.of(writer),)
            found |= {Right(each, "topic", topic.name, "WRITE") for each in writers}
    found |= set(_of_sweeper(principals.of("sweeper"), {topic.name for topic in topics}))
    for principal, groups in principals.subscribers.items():
        found.add(Right(principal, "topic", RESULTS, "READ"))
        found.add(Right(principal, "group", groups, "READ", is_prefix=True))
    return sorted(found)


def _of_readers(topics: Sequence[Topic], dead_letters: set[str], principals: Principals) -> Iterator[Right]:
    for topic in topics:
        for group in topic.groups:
            principal = principals.of(process_of(group))
            yield Right(principal, "topic", topic.name, "READ")
            yield Right(principal, "topic", topic.name, "DESCRIBE_CONFIGS", is_needed=False)
            yield Right(principal, "group", group, "READ")
            yield Right(principal, "transactional_id", f"{group}-", "WRITE", is_prefix=True)
            letters = dead_letter_topic(topic.name, group)
            if letters in dead_letters:
                yield Right(principal, "topic", letters, "WRITE")
                yield Right(principal, "topic", letters, "DESCRIBE_CONFIGS", is_needed=False)


def _of_sweeper(principal: str, topics: set[str]) -> Iterator[Right]:
    for topic in _WATCHED_TOPICS:
        if topic in topics:
            yield Right(principal, "topic", topic, "READ")
    for stage in ("stitcher", "attributor", "auditor"):
        yield Right(principal, "group", group_name(stage), "DESCRIBE")
