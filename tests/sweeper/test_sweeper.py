"""The sweeper: asks again for what is owed, waits out outages, and stops when Kafka refuses."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.auditor.stage import AuditorStage
from attributary.consumers.maintenance.verify import Findings, check_stored
from attributary.consumers.runtime.errors import Fatal, Retry
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.limits import Limits
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events import sweep as sweeping
from attributary.consumers.store.session import StoreSession
from attributary.consumers.sweeper import metrics
from attributary.consumers.sweeper.input_age import ATTRIBUTOR, AUDITOR, READERS, STITCHER
from attributary.consumers.sweeper.process import Sweeper, SweeperSettings
from attributary.schemas.topics import COMMANDS, TOUCHPOINTS
from tests.factories.samples import HOUR_US, START_US, codec, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class StubProducer:
    """Takes commands; `outcome` is what every delivery ends with, `stuck` how many stay in the queue."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.outcome: KafkaError | None = None
        self.stuck = 0
        self.purged = 0

    def produce(self, topic: str, value: bytes, key: bytes, on_delivery: Callable[..., None]) -> None:
        assert topic == "attribution.commands.v1"
        assert key
        self.sent.append(codec().decode("command", value))
        on_delivery(self.outcome, None)

    def poll(self, _timeout: float) -> None: ...

    def flush(self, _timeout: float) -> int:
        return self.stuck

    def purge(self, *, in_flight: bool) -> None:
        assert not in_flight
        self.purged += 1


class StubLog:
    """Tells when the oldest unread record of each group was appended, microseconds UTC, or that it is not known."""

    def __init__(self) -> None:
        self.unread: dict[str, int | None] = dict.fromkeys(READERS)
        self.known = True
        self.stored: dict[tuple[str, str, int], int] = {}

    def oldest(self, stored: dict[tuple[str, str, int], int]) -> dict[str, int | None]:
        self.stored = stored
        if not self.known:
            raise Retry("Kafka does not say what is unread (_TRANSPORT)")
        return self.unread

    def close(self) -> None: ...


@pytest.fixture
def log() -> StubLog:
    return StubLog()


@pytest.fixture
def producer() -> StubProducer:
    return StubProducer()


@pytest.fixture
def sweeper(database: str, producer: StubProducer, log: StubLog) -> Iterator[Sweeper]:
    session = StoreSession(database, "tests-sweeper")
    settings = SweeperSettings.model_validate({"SWEEP_INTERVAL_SECONDS": 0.01, "SWEEP_REPAIR_AFTER_SECONDS": 30})
    kafka: Any = (log, producer)
    yield Sweeper(settings, LookbackPolicy.parse(DEFAULT_POLICY), codec(), session, kafka)
    session.close()


def owe(database: str, *conversions: str, minutes: int = 5) -> None:
    """Conversions whose results were owed that long ago."""
    with InProcess(database) as stages:
        stages.stitch(*(sale(conversion_id) for conversion_id in conversions))
    age(database, minutes)


def age(database: str, minutes: int) -> None:
    with connect(database, application_name="tests") as connection:
        connection.execute(
            "UPDATE attribution_conversions SET versioned_at = versioned_at - make_interval(mins => %s)", (minutes,)
        )


def arrive_now(database: str) -> None:
    """Let everything have arrived just now, so that nothing becomes final."""
    with connect(database, application_name="tests") as connection:
        for table in ("conversions", "journeys"):
            column = "received_at_us" if table == "conversions" else "last_received_us"
            connection.execute(f"UPDATE attribution_{table} SET {column} = (extract(epoch FROM now()) * 1000000)::int8")


def test_what_is_overdue_is_asked_for_again_but_not_all_the_time(
    database: str, sweeper: Sweeper, producer: StubProducer
) -> None:
    owe(database, "c1", "c2")
    arrive_now(database)
    done = sweeper.sweep_once()
    assert {command["conversion_id"] for command in producer.sent} == {"c1", "c2"}
    assert {(command["version"], command["reason"], command["issued_by"]) for command in producer.sent} == {
        (1, "new", "sweeper")
    }
    assert (len(done.repaired), len(done.finalised), done.backlog.conversions) == (2, 0, 2)
    assert sweeper.sweep_once().repaired == []  # the attributor gets as long as the first time
    sweeper._repair_at = 0.0
    assert len(sweeper.sweep_once().repaired) == 2


def test_versions_that_were_put_off_are_raised_and_told(
    database: str, sweeper: Sweeper, producer: StubProducer
) -> None:
    """As the loop does it: a page a turn, and the gauges say who waits."""
    with InProcess(database) as stages:
        stages.stitcher._limits = Limits(reopened=1)
        stages.publish(sale("c1", 5), sale("c2", 6))
        assert stages.publish(touch("t1", 1)) == []
        sweeper.run_idle_tasks()
        assert (producer.sent, metrics.people_put_off._value.get()) == ([], 1)  # not yet: more may come
        with connect(database, application_name="tests") as connection:
            found = Findings(10)
            check_stored(connection, found)
            assert (found.total, found.waiting) == (0, 2)  # verify knows that they wait
            connection.execute("UPDATE attribution_reopenings SET marked_at = marked_at - interval '61 s'")
        before = metrics.conversions_reopened._value.get()
        sweeper.run_idle_tasks()
        assert {(each["conversion_id"], each["version"], each["reason"]) for each in producer.sent} == {
            ("c1", 2, "late_touchpoint"), ("c2", 2, "late_touchpoint"),
        }  # fmt: skip
        assert metrics.conversions_reopened._value.get() == before + 2
        assert metrics.people_put_off._value.get() == 0
        values = [codec().encode("command", each) for each in producer.sent]
        stages.commands = [Record(COMMANDS, 0, number, None, value, 0) for number, value in enumerate(values)]
        assert [result["touchpoint_count"] for result in stages.answer()] == [1, 1]


def test_what_was_answered_is_not_asked_for(database: str, sweeper: Sweeper, producer: StubProducer) -> None:
    with InProcess(database) as stages:
        stages.publish(touch("t1"), sale("c1", 1))
    age(database, 5)
    arrive_now(database)
    assert sweeper.sweep_once().repaired == []
    assert producer.sent == []


def test_old_conversions_become_final_and_silent_journeys_closed(
    database: str, sweeper: Sweeper, producer: StubProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with InProcess(database) as stages:
        stages.publish(touch("t1"), sale("c1", 1))
        monkeypatch.setattr("time.time_ns", lambda: 1_893_456_000 * 10**9)  # 2030
        done = sweeper.sweep_once()
        assert (len(done.finalised), done.closed) == (1, 1)
        assert [(command["version"], command["reason"]) for command in producer.sent] == [(2, "final")]
        assert not done.is_full
        assert sweeper.sweep_once().finalised == []
        sent: Any = producer.sent[0]
        assert sent["event_published_at"] == 1_893_456_000 * 10**6


def test_nothing_becomes_final_while_older_input_waits_in_the_log(
    database: str, sweeper: Sweeper, producer: StubProducer, log: StubLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    with InProcess(database) as stages:
        stages.publish(touch("t1"), sale("c1", 1))
    monkeypatch.setattr("time.time_ns", lambda: 1_893_456_000 * 10**9)  # 2030
    may_be_final = (
        START_US + HOUR_US + (7 * 24 + 1) * HOUR_US
    )  # appended in the hour, a week of lateness, an hour's grace
    log.unread[STITCHER] = may_be_final
    held = sweeper.sweep_once()
    assert (held.finalised, held.closed) == ([], 0)
    assert ("attribution.stitcher", TOUCHPOINTS, 0) in log.stored
    assert metrics.finalising_held._value.get() == 1
    assert metrics.oldest_unread_input_seconds._value.get() == 1_893_456_000 - may_be_final / 1e6
    log.unread[STITCHER] = may_be_final + 1
    assert len(sweeper.sweep_once().finalised) == 1
    log.unread[STITCHER] = None
    sweeper._close_at = 0.0
    assert sweeper.sweep_once().closed == 1
    assert metrics.finalising_held._value.get() == 0
    assert len(producer.sent) == 1


def test_nothing_is_decided_while_the_brokers_do_not_say_what_is_unread(
    database: str, sweeper: Sweeper, producer: StubProducer, log: StubLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    owe(database, "c1")
    monkeypatch.setattr("time.time_ns", lambda: 1_893_456_000 * 10**9)  # 2030
    log.known = False
    done = sweeper.sweep_once()
    assert (done.repaired, done.finalised, done.closed, done.backlog.conversions) == ([], [], 0, 1)
    assert metrics.finalising_held._value.get() == 1
    assert producer.sent == []


@pytest.mark.parametrize("group", READERS)
def test_what_may_wait_in_a_topic_is_not_taken_for_lost(
    database: str, sweeper: Sweeper, log: StubLog, group: str
) -> None:
    owe(database, "c1", minutes=5)
    arrive_now(database)
    now_us = time.time_ns() // 1_000
    log.unread[group] = now_us - 300 * 10**6 + 20 * 10**6  # 20 seconds after the version was raised, and it may take 30
    assert sweeper.sweep_once().repaired == []
    log.unread[group] = now_us - 300 * 10**6 + 40 * 10**6  # what was raised then has been through
    assert len(sweeper.sweep_once().repaired) == 1


def test_the_groups_are_those_of_the_stages() -> None:
    stages = (StitcherStage, AttributorStage, AuditorStage)
    assert {stage.group: stage.topics for stage in stages} == READERS
    assert list(READERS) == [STITCHER, ATTRIBUTOR, AUDITOR]


def test_looking_for_silent_journeys_takes_a_fiftieth_of_the_time(
    database: str, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    with InProcess(database) as stages:
        stages.publish(touch("t1"))
    monkeypatch.setattr("time.time_ns", lambda: 1_893_456_000 * 10**9)  # 2030
    sweeper._close_at = float("inf")
    assert sweeper.sweep_once().closed == 0
    sweeper._close_at = 0.0
    begun = time.monotonic()
    done = sweeper.sweep_once()
    assert done.closed == 1
    assert sweeper._close_at >= begun + 51 * done.closing_seconds


def test_conversions_to_make_final_are_found_without_reading_all(database: str) -> None:
    with connect(database, application_name="tests") as connection:
        connection.execute(
            "INSERT INTO attribution_conversions (tenant_id, conversion_id, conversion_type, identity_key, journey_key,"
            " converted_at_us, received_at_us, gross_value_micros, net_value_micros, previous_net_micros, currency, "
            "version, version_reason, policy_version, owner_topic, owner_partition, owner_offset, event_published_us, "
            "is_final) SELECT 'acme', md5(n::text), 'purchase', 'u:1', 'u:1', n, n, 1, 1, 0, 'EUR', 1, 'new', 'p', "
            "'t', 0, n, n, n <= 20000 FROM generate_series(1, 25000) AS n"
        )
        connection.execute("ANALYZE attribution_conversions")
        numbers = {"due_before_us": 20_001, "now_us": 0, "limit": 5_000, "policy_version": "p"}
        rows = connection.execute(f"EXPLAIN {sweeping._FINALISE}", numbers).fetchall()
        assert "attribution_conversions_open" in str(rows)


def test_an_outage_of_kafka_loses_nothing_and_fills_no_queue(
    database: str, sweeper: Sweeper, producer: StubProducer
) -> None:
    owe(database, "c1")
    arrive_now(database)
    producer.stuck = 1
    for _ in range(2):
        with pytest.raises(Retry, match="Kafka does not take the commands"):
            sweeper.sweep_once()
    assert producer.purged == 2
    producer.outcome = KafkaError(KafkaError._MSG_TIMED_OUT)
    with pytest.raises(Retry):
        sweeper.sweep_once()
    producer.stuck, producer.outcome = 0, None
    assert len(sweeper.sweep_once().repaired) == 1


def test_a_topic_that_refuses_commands_stops_the_process(
    database: str, sweeper: Sweeper, producer: StubProducer
) -> None:
    owe(database, "c1")
    arrive_now(database)
    producer.outcome = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    with pytest.raises(Fatal, match="Kafka refuses commands: UNKNOWN_TOPIC_OR_PART; run `attributary topics apply`"):
        sweeper.sweep_once()


def test_it_waits_out_an_outage_and_stops_when_asked(sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps: list[int] = []
    real = sweeper.sweep_once

    def sweep_once() -> Any:
        sweeps.append(len(sweeps))
        if len(sweeps) == 1:
            raise Retry("Postgres does not answer")
        if len(sweeps) == 3:
            sweeper.stop()
        return real()

    monkeypatch.setattr(sweeper, "sweep_once", sweep_once)
    heartbeat = Heartbeat(lambda: True)
    sweeper.run(heartbeat)
    assert len(sweeps) == 3
    assert heartbeat.ready()


def test_postgres_that_is_away_is_an_outage(free_port: int, producer: StubProducer, log: StubLog) -> None:
    session = StoreSession(f"postgresql://u@127.0.0.1:{free_port}/x", "tests")
    kafka: Any = (log, producer)
    sweeper = Sweeper(SweeperSettings(), LookbackPolicy.parse(DEFAULT_POLICY), codec(), session, kafka)
    with pytest.raises(Retry, match="nothing listens there"):
        sweeper.sweep_once()
