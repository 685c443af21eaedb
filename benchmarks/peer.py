"""Sets the stream peer up: its environment, its topic, its schemas; see `peer_job`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.schemas.codec import SINGLE_OBJECT
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from benchmarks.environment import PeerUnavailableError, install
from benchmarks.environment_setup import BenchServers, JobError, run_job
from benchmarks.workload import NAMES, Message, produce
from tests.fixtures.topics import PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence


PACKAGES = ("quixstreams>=3,<4", "fastavro")
PEER_TOPIC = "bench.peer"


def run_peer(servers: BenchServers, messages: Sequence[Message]) -> dict[str, Any]:
    """Let the peer work through the touchpoints and conversions; returns its records and seconds.

    Raises:
        PeerUnavailableError: when it cannot be installed, or fails.
    """
    python = install(servers.folder / "venv", PACKAGES, "quixstreams, fastavro")
    mixed = [Message(PEER_TOPIC, each.key, each.value) for each in messages if each.topic in (TOUCHPOINTS, CONVERSIONS)]
    create_topics(servers.broker.bootstrap)
    produce(servers.broker.bootstrap, mixed)
    schemas = {}
    for topic in (TOUCHPOINTS, CONVERSIONS):
        schema = current_schemas()[NAMES[topic]]
        schemas[(SINGLE_OBJECT + schema.crc64).hex()] = (NAMES[topic], _plain(schema.source))
    state = tempfile.mkdtemp(prefix="state-", dir=servers.folder)
    try:
        arguments = {
            "bootstrap": servers.broker.bootstrap,
            "topic": PEER_TOPIC,
            "records": len(mixed),
            "schemas": schemas,
            "state": state,
        }
        job = str(Path(__file__).with_name("peer_job.py"))
        return servers.measured(lambda: run_job(job, arguments, python=str(python)))
    except JobError as error:
        raise PeerUnavailableError(str(error)) from None
    finally:
        shutil.rmtree(state, ignore_errors=True)


def _plain(schema: Any) -> Any:
    """The schema without logical types: times stay integers, which suits the peer's state."""
    if isinstance(schema, dict):
        return {name: _plain(part) for name, part in schema.items() if name not in {"logicalType", "doc"}}
    return [_plain(part) for part in schema] if isinstance(schema, list) else schema


def create_topics(bootstrap: str) -> None:
    """Create the peers' topic and that of their results anew, without what a peer made for itself before."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    there = admin.list_topics(timeout=20).topics
    old = [name for name in there if PEER_TOPIC in name or name.startswith("bench-streams-")]
    if old:
        for deletion in admin.delete_topics(old, operation_timeout=20).values():
            deletion.result(timeout=30)
    new = [NewTopic(name, PARTITIONS, 1) for name in (PEER_TOPIC, f"{PEER_TOPIC}.results")]
    for creation in admin.create_topics(new, operation_timeout=20).values():
        creation.result(timeout=30)
