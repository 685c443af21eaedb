"""The topics: their names, their keys, and the catalogue in ``topics.yaml``.

Invariant: the names below and the catalogue are the same set (a test compares them), and all begin with the
installation's prefix. Keys give locality only, nothing is right or wrong because of the partition in which a record
lies.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from .installation import OURS, read_prefix

PREFIX = read_prefix()
"""Of this installation; empty where it has Kafka for itself."""

TOUCHPOINTS = f"{PREFIX}{OURS}touchpoints.v1"
CONVERSIONS = f"{PREFIX}{OURS}conversions.v1"
IDENTITIES = f"{PREFIX}{OURS}identities.v1"
SPEND = f"{PREFIX}{OURS}spend.v1"
ERASURE_REQUESTS = f"{PREFIX}{OURS}erasure-requests.v1"
ERASURES = f"{PREFIX}{OURS}erasures.v1"
COMMANDS = f"{PREFIX}{OURS}commands.v1"
RESULTS = f"{PREFIX}{OURS}results.v1"
JOBS = f"{PREFIX}{OURS}jobs.v1"
JOB_STATUS = f"{PREFIX}{OURS}job-status.v1"

# Header of results: when their version was raised, microseconds of Postgres's clock, as decimal digits.
VERSION_RAISED_AT = "attribution-raised-at"

RESULT_READERS = f"{PREFIX}subscriber."
"""How the consumer groups of services that read results begin, unless the access rules say otherwise."""

_EPOCH = date(1970, 1, 1).toordinal()

CATALOGUE_FILE = Path(__file__).with_name("topics.yaml")


@dataclass(frozen=True)
class Topic:
    """One topic of the catalogue.

    Attributes:
        name: the topic.
        record: the record in it, by the short name of its schema; None for dead letters, which keep foreign bytes.
        partitions: how many; also the most processes of one stage that share it.
        key: what the key is, for people.
        doc: what is in it.
        groups: the consumer groups that read it; each has a dead-letter topic for it.
        writers: the processes that write to it; ``publisher`` stands for services and the collector.
        config: the topic's settings in Kafka's words.
    """

    name: str
    record: str | None
    partitions: int
    key: str
    doc: str
    groups: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    config: Mapping[str, str] = field(default_factory=dict)


def group_name(process: str) -> str:
    """Return the consumer group of a process of ours, for example of ``stitcher`` or ``forwarder.meta``."""
    return f"{PREFIX}{OURS}{process}"


def short_name(name: str) -> str:
    """Return the name of a topic or group without the beginning that all of this installation share."""
    return name.removeprefix(f"{PREFIX}{OURS}")


def dead_letter_topic(topic: str, group: str) -> str:
    """Return where a group puts the records of a topic that it can never process."""
    return f"{topic}.{group}.dlq"


@functools.cache
def catalogue() -> tuple[Topic, ...]:
    """Return the topics of ``topics.yaml``, in its order, without dead letters."""
    document = yaml.safe_load(CATALOGUE_FILE.read_text("utf-8"))
    return tuple(
        Topic(
            name=f"{PREFIX}{name}",
            record=entry["record"],
            partitions=entry["partitions"],
            key=entry["key"],
            doc=entry["doc"],
            groups=tuple(f"{PREFIX}{group}" for group in entry["groups"]),
            writers=tuple(entry.get("writers", ())),
            config=_texts(entry["config"]),
        )
        for name, entry in document["topics"].items()
    )


@functools.cache
def dead_letter_topics() -> tuple[Topic, ...]:
    """Return the dead-letter topics of all groups."""
    common = yaml.safe_load(CATALOGUE_FILE.read_text("utf-8"))["dead_letters"]
    return tuple(
        Topic(
            name=dead_letter_topic(topic.name, group),
            record=None,
            partitions=common["partitions"],
            key="the original key",
            doc=f"Records of {topic.name} that {group} can never process, with their original bytes.",
            config=_texts(common["config"]),
        )
        for topic in catalogue()
        for group in topic.groups
    )


@functools.cache
def topic_of(record: str) -> str:
    """Return the topic that carries a record, by the short name of its schema.

    Raises:
        KeyError: when no topic does.
    """
    return {topic.record: topic.name for topic in catalogue()}[record]


def partition_key(tenant_id: str, anonymous_id: str | None, user_id: str | None) -> bytes:
    """Return the key of a touchpoint, conversion or identity link: the device first, so that its events stay together.

    Raises:
        ValueError: when both ids are missing.
    """
    person = anonymous_id or user_id
    if not person:
        raise ValueError("user_id, anonymous_id: at least one must be set")
    return f"{tenant_id}|{person}".encode()


def spend_key(tenant_id: str, platform: str, account: str, day: int) -> bytes:
    """Return the key of a record of spend: reports of one account's day stay in one partition, in their order.

    Args:
        tenant_id: the owner.
        platform: of the account.
        account: the ad account.
        day: days since 1970-01-01.
    """
    return f"{tenant_id}|{platform}|{account}|{date.fromordinal(_EPOCH + day)}".encode()


def conversion_key(tenant_id: str, conversion_id: str) -> bytes:
    """Return the key of a command or a result."""
    return f"{tenant_id}|{conversion_id}".encode()


def job_key(tenant_id: str, job_id: str) -> bytes:
    """Return the key of a job or its status."""
    return f"{tenant_id}|{job_id}".encode()


def erasure_request_key(tenant_id: str, request_id: str) -> bytes:
    """Return the key of a request to erase a person."""
    return f"{tenant_id}|{request_id}".encode()


def erasure_key(tenant_id: str, kind: str, id_hash: str) -> bytes:
    """Return the key of a row of the ledger of erasures."""
    return f"{tenant_id}|{kind}|{id_hash}".encode()


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as Kafka's admin API reports them: all texts."""
    return {key: str(value) for key, value in config.items()}
