"""The sweeper as a process: a look at the log, then a sweep, every few seconds; its commands follow the transaction.

Invariant: a crash between the two loses commands, not decisions; the next sweep finds the versions overdue.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, Producer
from pydantic import Field

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.policy_settings import PolicySettings
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.erasure.settings import ErasureSettings
from attributary.consumers.runtime.access_errors import Access
from attributary.consumers.runtime.certificates import watch_kafka_certificates
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.error_codes import ACCESS_REFUSED, TOPIC_REFUSED
from attributary.consumers.runtime.errors import AccessRefused, Fatal, Retry
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.run import run_process, serve_health, warn_of_exposure
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings, load
from attributary.consumers.runtime.signals import stop_on_signals
from attributary.consumers.store.erasure.ledger import LedgerRow
from attributary.consumers.store.events.policies import store_policy
from attributary.consumers.store.events.reopenings import reopen_page, waiting_people
from attributary.consumers.store.events.rows import RaisedVersion
from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.offsets import all_positions
from attributary.consumers.store.session import StoreSession
from attributary.schemas.codec import Codec
from attributary.schemas.topics import COMMANDS, ERASURES, conversion_key, erasure_key

from . import metrics
from .erasure_queue import ErasureQueue, ledger_record
from .identity_monitor import IdentityLimits, IdentityMonitor
from .input_age import STITCHER, UnreadAgeReader
from .job_backlog import JobBacklog
from .retention import JobRetention, RetentionSettings, VersionRetention
from .spend_age import SpendAgeSettings, SpendMonitor
from .sweep import Sweep, UnreadAges, sweep
from .tenant_retention import TenantRetention

register_points("sweeper_before_pg_commit", "sweeper_after_pg_commit", "sweeper_after_send")

_log = structlog.get_logger()

_FLUSH_SECONDS = 30.0
# Looking for journeys to close reads all of them: it may take a fiftieth of the time, however many there are.
_CLOSING_REST = 50


class SweeperSettings(RetentionSettings):
    """How often and how patiently the sweeper looks."""

    interval_seconds: float = Field(
        default=5.0, gt=0, alias="SWEEP_INTERVAL_SECONDS", description="Time between two sweeps; seconds."
    )
    repair_after_seconds: float = Field(
        default=30.0,
        gt=0,
        alias="SWEEP_REPAIR_AFTER_SECONDS",
        description="A version without a result is asked for again after so long; seconds.",
    )
    grace_seconds: float = Field(
        default=3_600.0,
        ge=0,
        alias="SWEEP_GRACE_SECONDS",
        description="How much longer than the policy says to wait before a conversion is final or a journey closed: "
        "for clocks that differ, and producers' open transactions. What waits unread in the log holds both anyway.",
    )

    reopen_after_seconds: float = Field(
        default=60.0,
        ge=0,
        alias="SWEEP_REOPEN_AFTER_SECONDS",
        description="Late touchpoints and links that wait because of ATTRIBUTION_MAX_REOPENED raise versions so long "
        "after the first of them; all that arrive until then lead to one version; seconds.",
    )


class Sweeper:
    """Sweeps until it is asked to stop.

    Args:
        settings: how often.
        policy: the lookback policy in force.
        codec: writes commands.
        session: Postgres.
        kafka: tells what is unread, and an idempotent producer.
    """

    def __init__(
        self,
        settings: SweeperSettings,
        policy: LookbackPolicy,
        codec: Codec,
        session: StoreSession,
        kafka: tuple[UnreadAgeReader, Producer],
    ) -> None:
        self._settings = settings
        self._versions = VersionRetention(settings, session)
        self._jobs = JobRetention(settings, session)
        self._tenants = TenantRetention(policy, session)
        self._trainers = JobBacklog(session)
        self._identities = IdentityMonitor(load(IdentityLimits), session)
        self._spend = SpendMonitor(load(SpendAgeSettings), session)
        self._policy = policy
        self._codec = codec
        self._session = session
        self._log, self._producer = kafka
        self._stop = threading.Event()
        self._refused: str | None = None
        self._denied: AccessRefused | None = None
        self._repair_at = 0.0  # monotonic seconds
        self._erasures: ErasureQueue | None = None
        self._stored_until_us: int | None = None
        self._close_at = 0.0  # the same

    def carry_out_erasures(self, settings: ErasureSettings, session: StoreSession) -> None:
        """Carry out erasures from now on.

        Args:
            settings: of erasures.
            session: with staging tables.
        """
        self._erasures = ErasureQueue(settings, session, self._policy.version, self._send, self._publish_ledger)

    def stop(self) -> None:
        """Ask to stop after the sweep in hand."""
        self._stop.set()

    def run(self, heartbeat: Heartbeat) -> None:
        """Sweep until asked to stop; an outage is waited out.

        Raises:
            Fatal: Kafka refuses the commands.
        """
        heartbeat.started = True
        while not self._stop.is_set():
            heartbeat.beat()
            wait = self._settings.interval_seconds
            try:
                done = self.sweep_once()
                wait = 0.0 if done.is_full else wait
            except Retry as error:
                _log.warning("sweep put off", why=str(error))
            try:  # Kafka may be what the sweep waits for: this does not need it
                self.run_idle_tasks()
            except Retry as error:
                _log.warning("no look at what waits", why=str(error))
            self._stop.wait(wait)
        self._session.close()
        self._log.close()

    def run_idle_tasks(self) -> None:
        """Raise what was put off, delete what is kept no longer, and tell of waiting jobs and of suspicious ids.

        Raises:
            Retry: Postgres is away.
        """
        self._reopen()
        if self._erasures is not None:
            self._erasures.turn(self._stored_until_us, self._settings.repair_after_seconds)
        metrics.versions_expired.inc(self._versions.turn())
        metrics.jobs_expired.inc(self._jobs.turn())
        self._tenants.turn()
        self._trainers.turn()
        self._identities.turn()
        self._spend.turn()

    def _reopen(self) -> None:
        """Raise one page of the versions that were put off, in a transaction of its own: see the order of locks."""
        with map_errors(), self._session.transaction() as connection:
            page = reopen_page(
                connection,
                policy_version=self._policy.version,
                after_seconds=self._settings.reopen_after_seconds,
            )
            waiting = waiting_people(connection)
            crash_at("sweeper_before_pg_commit")
        crash_at("sweeper_after_pg_commit")
        metrics.people_put_off.set(waiting.people)
        metrics.oldest_put_off_seconds.set(waiting.oldest_seconds)
        if page is not None:
            self._send(page.versions)
            metrics.conversions_reopened.inc(len(page.versions))
            _log.info("put into results what had been put off", tenant=page.tenant_id, conversions=len(page.versions))

    def sweep_once(self) -> Sweep:
        """Run one sweep and send its commands.

        Raises:
            Retry: Postgres or Kafka is away.
            Fatal: Kafka refuses the commands.
        """
        # What was asked for again gets as long to be answered as the first time: an attributor that is behind, or
        # down for an hour, must not find the same command a thousand times.
        may_repair = time.monotonic() >= self._repair_at
        now_us = time.time_ns() // 1_000  # before the brokers are asked: what they append later is younger
        unread = self._unread(now_us)
        with map_errors(), self._session.transaction() as connection:
            store_policy(connection, self._policy)
            done = sweep(
                connection,
                self._policy,
                unread,
                now_us=now_us,
                repair_after_seconds=self._settings.repair_after_seconds if may_repair else None,
                grace_us=int(self._settings.grace_seconds * 1e6),
                closes=time.monotonic() >= self._close_at,
            )
            crash_at("sweeper_before_pg_commit")
        crash_at("sweeper_after_pg_commit")
        if not done.is_full:
            self._close_at = max(self._close_at, time.monotonic() + _CLOSING_REST * done.closing_seconds)
        metrics.unobserved_conversions.set(done.backlog.conversions)
        metrics.oldest_unobserved_seconds.set(done.backlog.oldest_seconds)
        self._send([*done.repaired, *done.finalised])
        crash_at("sweeper_after_send")
        if done.repaired:
            self._repair_at = time.monotonic() + self._settings.repair_after_seconds
        metrics.commands_repaired.inc(len(done.repaired))
        metrics.conversions_finalised.inc(len(done.finalised))
        metrics.journeys_closed.inc(done.closed)
        if done.repaired or done.finalised or done.closed:
            _log.info("swept", repaired=len(done.repaired), finalised=len(done.finalised), closed=done.closed)
        return done

    def _unread(self, now_us: int) -> UnreadAges:
        """Learn what waits in the log, before the sweep reads what is stored."""
        with map_errors(), self._session.transaction() as connection:
            stored = {(group, topic, number): at for group, topic, number, at in all_positions(connection)}
        try:
            oldest = self._log.oldest(stored)
        except Retry as error:
            _log.warning("nothing becomes final and nothing is asked for again", why=str(error))
            metrics.finalising_held.set(1)
            self._stored_until_us = None
            return UnreadAges(None, None)
        ages = {group: 0 if at is None else max(0, now_us - at) for group, at in oldest.items()}
        unread = UnreadAges(ages[STITCHER], max(ages.values()))
        self._stored_until_us = now_us if oldest[STITCHER] is None else oldest[STITCHER]
        metrics.oldest_unread_input_seconds.set(ages[STITCHER] / 1e6)
        metrics.finalising_held.set(ages[STITCHER] > self._settings.grace_seconds * 1e6)
        return unread

    def _send(self, versions: Sequence[RaisedVersion]) -> None:
        for version in versions:
            value = self._codec.encode(
                "command",
                {
                    "tenant_id": version.tenant_id,
                    "conversion_id": version.conversion_id,
                    "version": version.version,
                    "reason": version.reason,
                    "issued_by": "sweeper",
                    "event_published_at": version.published_at,
                },
            )
            key = conversion_key(version.tenant_id, version.conversion_id)
            self._producer.produce(COMMANDS, value, key, on_delivery=self._delivered)
            self._producer.poll(0)
        if versions:
            self._flush("commands")

    def _flush(self, what: str) -> None:
        left = self._producer.flush(_FLUSH_SECONDS)
        if self._denied is not None:
            raise self._denied
        if self._refused is not None:
            raise Fatal(f"Kafka refuses {what}: {self._refused}; run `attributary topics apply`")
        if left:
            # What waits is found overdue again: an outage must not fill the queue with the same commands.
            self._producer.purge(in_flight=False)
            raise Retry(f"Kafka does not take the {what}")

    def _publish_ledger(self, rows: Sequence[LedgerRow]) -> None:
        """Write rows of the ledger of erasures to their topic.

        Raises:
            Retry: the brokers did not take them.
            Fatal: they refuse them.
        """
        for row in rows:
            record = ledger_record(row)
            key = erasure_key(row.hashed.tenant_id, row.hashed.kind, row.hashed.id_hash.hex())
            self._producer.produce(ERASURES, self._codec.encode("erasure", record), key, on_delivery=self._delivered)
            self._producer.poll(0)
        self._flush("rows of the ledger of erasures")

    def _delivered(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() in ACCESS_REFUSED:
            self._denied = self._log.access.refused(error, "WRITE", message.topic())
        if error is not None and error.code() in TOPIC_REFUSED:
            self._refused = error.name()


def main(version: str) -> int:
    """Run the sweeper until it is asked to stop; returns the exit code."""

    def body(process: ProcessSettings) -> None:
        kafka = KafkaSettings.load()
        warn_of_exposure(process, kafka)
        watch_kafka_certificates(kafka)
        session = StoreSession(stage_dsn(has_long_statements=True), "attributary-sweeper")
        with map_errors():
            session.connection()
        producer = Producer(
            kafka.client_config()
            | Access(kafka, "sweeper").config()
            | {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5}
        )
        codec = make_codec(load(RegistrySettings))
        brokers = (UnreadAgeReader(kafka), producer)
        sweeper = Sweeper(load(SweeperSettings), load(PolicySettings).policy(), codec, session, brokers)
        erasing = StoreSession(stage_dsn(has_long_statements=True), "attributary-sweeper-erasures", create_staging)
        sweeper.carry_out_erasures(load(ErasureSettings), erasing)
        heartbeat = Heartbeat(session.is_reachable)
        serve_health("sweeper", process, heartbeat)
        stop_on_signals(sweeper.stop, process.grace_seconds)
        sweeper.run(heartbeat)

    return run_process("sweeper", version, body)
