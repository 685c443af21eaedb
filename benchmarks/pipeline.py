"""The pipeline's own processes, watched from outside: by their metrics and by what stands in Postgres.

A run begins when the stitcher has read its first record and ends, for the stitcher, when Postgres holds the last
position, and for the whole, when every conversion's newest version has been seen in the results topic by the auditor.
"""

from __future__ import annotations

import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from confluent_kafka.admin import AdminClient
from prometheus_client.parser import text_string_to_metric_families

from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.process import ManagedProcess, spawn
from attributary.local.stages import command_line
from attributary.schemas.topics import group_name
from benchmarks.cpu import CpuMeter, Reading, others, spent
from benchmarks.environment_setup import BenchServers, child_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from attributary.producers.simulator import ConversionTruth, Truth

STAGES = ("stitcher", "attributor", "auditor")
_GROUP = group_name("stitcher")
_START_SECONDS = 60.0
_RUN_SECONDS = 600.0
_LOOK_SECONDS = 0.2  # each look is work for the server that is measured
_GRACE_SECONDS = 20.0

_POSITIONS = "SELECT coalesce(sum(next_offset), 0) FROM attribution_positions WHERE consumer_group = %s"
# Whether any, not how many: counting would be work for the server that is measured.
_UNOBSERVED = (
    "SELECT count(*) FROM (SELECT FROM attribution_conversions WHERE observed_version < version LIMIT 1) AS any_one"
)
_WRITTEN = """
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
       (SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class
        WHERE relkind = 'r' AND relname LIKE 'attribution%' AND relpersistence = 'p')
"""
_NEWEST = """
SELECT c.tenant_id, c.conversion_id, c.journey_key, c.net_value_micros, c.currency, r.touchpoint_count,
    (SELECT bool_and((model ->> 'unattributed_micros')::bigint + coalesce((
        SELECT sum(micros::bigint) FROM jsonb_array_elements_text(model -> 'micros') micros
    ), 0) = c.net_value_micros) FROM jsonb_array_elements(r.models) model)
FROM attribution_conversions c
LEFT JOIN attribution_results r USING (tenant_id, conversion_id, version)
"""


Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class PipelineError(RuntimeError):
    """The pipeline did not do its work; the text says what was seen."""


@dataclass(frozen=True)
class Run:
    """Seconds from the first record read; CPU seconds by process until the end, and of the rest of the machine.

    ``wal_bytes`` and ``stored_bytes`` are what Postgres wrote to its log, and what tables and indexes grew by.
    """

    stitched_seconds: float
    observed_seconds: float
    wal_bytes: int = 0
    stored_bytes: int = 0
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)
    other_cpu_seconds: float = 0.0


class Pipeline:
    """Running stages; made by `run_pipeline`."""

    def __init__(
        self, dsn: str, children: dict[str, ManagedProcess], ports: dict[str, int], servers: Mapping[str, int]
    ) -> None:
        self.dsn = dsn
        self.meter = CpuMeter({**{name: child.pid for name, child in children.items()}, **servers})
        self._children = children
        self._ports = ports

    def samples(self, stage: str) -> Samples:
        """What a stage counts: value by (name, sorted labels); empty while it does not answer yet."""
        self._children[stage].fail_if_ended()
        return scrape(self._ports[stage])

    def stage_seconds(self) -> dict[str, dict[str, float]]:
        """Seconds that each stage spent in each step since its start."""
        steps: dict[str, dict[str, float]] = {}
        for stage in STAGES:
            for (name, labels), value in self.samples(stage).items():
                if name == "attribution_stage_seconds_sum":
                    steps.setdefault(stage, {})[dict(labels)["step"]] = value
        return steps

    def total(self, stage: str, name: str) -> float:
        """Sum of a counter over its labels and over the processes of a stage."""
        mine = (child for child in self._children if child == stage or child.startswith(f"{stage}-"))
        return sum(self.own_total(child, name) for child in mine)

    def own_total(self, process: str, name: str) -> float:
        """Sum of a counter over its labels, of one process."""
        return value_of(self.samples(process), name)

    def work_through(self, records: int, load: Callable[[], object] | None = None) -> Run:
        """Wait until so many input records are stitched and every owed result is observed.

        Args:
            records: of all input topics together.
            load: publishes them while the stages run and wait; None: they lie in the topics already.

        Raises:
            PipelineError: when that takes too long.
        """
        if load is None:
            self._wait_for_first_record()
        started, before = time.monotonic(), self.read_cpu()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            wal, stored = _written(connection)
            if load is not None:
                load()
            stitched = self._wait(connection, _POSITIONS, records, "input records stitched") - started
            observed = self._wait(connection, _UNOBSERVED, 0, "results not observed") - started
            after = self.read_cpu()
            wal, stored = (end - begin for begin, end in zip((wal, stored), _written(connection), strict=True))
        if before is None or after is None:
            return Run(stitched, observed, wal, stored)
        return Run(stitched, observed, wal, stored, spent(before, after), others(before, after))

    def _wait_for_first_record(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.total("stitcher", "attribution_records_consumed_total"):
            if time.monotonic() > deadline:
                raise PipelineError("the stitcher read nothing")
            time.sleep(_LOOK_SECONDS)

    def wait_for_partitions(self, bootstrap: str, processes: int) -> None:
        """Wait until each process of each stage has partitions, so that what is published then is shared.

        Raises:
            PipelineError: one gets none.
        """
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        groups = [group_name(stage) for stage in STAGES]
        deadline = time.monotonic() + _START_SECONDS
        while True:
            described = admin.describe_consumer_groups(groups, request_timeout=20)
            members = [member for answer in described.values() for member in answer.result(30).members]
            dealt = [member for member in members if member.assignment and member.assignment.topic_partitions]
            if len(dealt) == processes * len(STAGES):
                return
            if time.monotonic() > deadline:
                raise PipelineError(f"{len(dealt)} of {processes * len(STAGES)} processes were dealt partitions")
            for child in self._children.values():
                child.fail_if_ended()
            time.sleep(_LOOK_SECONDS)

    def read_cpu(self) -> Reading | None:
        """CPU times of the stages and servers until now; None where the system does not tell them."""
        return self.meter.read() if self.meter.is_there() else None

    def idle_cores(self, seconds: float) -> dict[str, float] | None:
        """Cores that each process uses without traffic, over so many seconds; None where nobody tells."""
        before = self.read_cpu()
        time.sleep(seconds)
        after = self.read_cpu()
        if before is None or after is None:
            return None
        return {name: used / seconds for name, used in spent(before, after).items()}

    def busy_cores(self, seconds: float) -> float:
        """Cores that other processes use, over so many seconds; 0 where nobody tells."""
        before = self.read_cpu()
        time.sleep(seconds)
        after = self.read_cpu()
        return 0.0 if before is None or after is None else others(before, after) / seconds

    def _wait(self, connection: psycopg.Connection, question: str, wanted: int, what: str) -> float:
        deadline = time.monotonic() + _RUN_SECONDS
        parameters = (_GROUP,) if "%s" in question else ()
        while True:
            row = connection.execute(question, parameters).fetchone()
            if row is not None and int(row[0]) == wanted:
                return time.monotonic()
            for child in self._children.values():
                child.fail_if_ended()
            if time.monotonic() > deadline:
                raise PipelineError(f"{what}: {row and row[0]} instead of {wanted}")
            time.sleep(_LOOK_SECONDS)

    def broken_promises(self, truth: Truth) -> list[str]:
        """What in the store differs from the truth; empty when every promise holds."""
        broken = []
        with psycopg.connect(self.dsn) as connection:
            for table, count in (
                ("attribution_touchpoints", truth.touchpoints),
                ("attribution_conversion_events", truth.conversions + truth.corrections),
                ("attribution_identity_links", truth.links),
            ):
                row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                if row is None or row[0] != count:
                    broken.append(f"{table}: {row and row[0]} rows instead of {count}")
            stored = {(row[0], row[1]): row[2:] for row in connection.execute(_NEWEST)}
        wrong = [key for key in truth.by_conversion.keys() | stored.keys() if not _agrees(truth, key, stored.get(key))]
        if wrong:
            key = min(wrong)
            wanted = truth.by_conversion.get(key)
            expected = _facts(wanted) if wanted else None
            broken.append(
                f"{len(wrong)} conversions differ, for example {key}: {stored.get(key)} instead of {expected}"
            )
        return broken


def scrape(port: int) -> Samples:
    """Value by (name, sorted labels) of what a process counts; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value_of(samples: Samples, name: str) -> float:
    """Sum of a counter over its labels."""
    return sum(value for (sample, _), value in samples.items() if sample == name)


def _written(connection: psycopg.Connection) -> tuple[int, int]:
    """Bytes of the write-ahead log so far, and of our tables with their indexes."""
    row = connection.execute(_WRITTEN).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)


def _facts(wanted: ConversionTruth) -> tuple[str, int, str, int]:
    """Person, value, currency and number of touches."""
    return wanted.journey_key, wanted.net_value_micros, wanted.currency, len(wanted.touchpoints)


def _agrees(truth: Truth, key: tuple[str, str], stored: tuple[object, ...] | None) -> bool:
    """The facts are the truth's, and the credits of every model sum to the value."""
    wanted = truth.by_conversion.get(key)
    return wanted is not None and stored is not None and stored[:4] == _facts(wanted) and stored[4] is True


@contextmanager
def run_pipeline(
    servers: BenchServers,
    dsn: str,
    environment: dict[str, str] | None = None,
    command: list[str] | None = None,
    processes: int = 1,
) -> Iterator[Pipeline]:
    """Run stitcher, attributor and auditor for the length of a `with` block; their logs are in the bench's folder.

    Args:
        servers: broker and folder.
        dsn: a migrated database.
        environment: more variables for the stages.
        command: what runs `attributary`; None: as it is installed.
        processes: of each stage; those after the first are named `stitcher-1` and so on.
    """
    children: dict[str, ManagedProcess] = {}
    names = {f"{stage}-{n}" if n else stage: (stage, n) for n in range(processes) for stage in STAGES}
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    logs = servers.folder / "log"
    logs.mkdir(exist_ok=True)
    try:
        for name, (stage, number) in names.items():
            log = logs / f"{name}.log"
            log.unlink(missing_ok=True)
            variables = {
                "KAFKA_BOOTSTRAP_SERVERS": servers.broker.bootstrap,
                "DATABASE_URL": dsn,
                "ATTRIBUTION_FIRST_START": "earliest",
                "ATTRIBUTION_INSTANCE": str(number),
                "METRICS_HOST": LOOPBACK,
                "METRICS_PORT": str(ports[name]),
                **(environment or {}),
            }
            line = [*command, stage] if command else command_line(stage)
            children[name] = spawn(line, name=name, log=log, env=child_environment(variables))
        yield Pipeline(dsn, children, ports, servers.server_processes())
    finally:
        for child in children.values():
            child.terminate()
        for child in children.values():
            child.stop(_GRACE_SECONDS)
