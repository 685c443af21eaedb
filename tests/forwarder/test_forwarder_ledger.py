"""The ledger contract, the same tests in memory and on a real Postgres."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.store.connection import StoreUnavailable, connect
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    NewDelivery,
    Queue,
    Source,
)
from attributary.consumers.store.deliveries.ledger import PostgresLedger
from attributary.consumers.store.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.store.deliveries.delivery import Ledger

NOW = 1_795_500_000_000_000
SOURCE = Source("attribution.conversions.v1", 3, 42)


def new(event: str, *, destination: str = "meta", state: DeliveryState = DeliveryState.PENDING) -> NewDelivery:
    reason = None if state is DeliveryState.PENDING else "no consent for ad_storage"
    return NewDelivery(
        DeliveryKey("acme", destination, event), state, reason, NOW - len(event), SOURCE, ("em", "client_ip_address")
    )


@contextmanager
def postgres_ledger(dsn: str) -> Iterator[PostgresLedger]:
    with closing(PostgresLedger(StoreSession(dsn, "tests"))) as ledger:
        yield ledger


@pytest.fixture
def memory() -> MemoryLedger:
    return MemoryLedger()


@pytest.fixture
def stored(database: str) -> Iterator[Ledger]:
    with postgres_ledger(database) as ledger:
        yield ledger


@pytest.fixture(params=["memory", pytest.param("stored", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    found: Ledger = request.getfixturevalue(request.param)
    return found


def test_a_claim_writes_once_and_shows_what_was_there(ledger: Ledger) -> None:
    first = [new("a"), new("b", state=DeliveryState.SKIPPED)]
    assert ledger.claim(first) == {}
    again = ledger.claim([new("b"), new("c"), new("a", state=DeliveryState.EXPIRED)])
    assert {key.event_id: row.state for key, row in again.items()} == {
        "a": DeliveryState.PENDING,
        "b": DeliveryState.SKIPPED,
    }
    row = again[DeliveryKey("acme", "meta", "b")]
    assert (row.reason, row.source, row.match_keys) == (
        "no consent for ad_storage",
        SOURCE,
        ("em", "client_ip_address"),
    )
    assert (row.attempts, row.in_flight, row.first_sent_at) == (0, False, None)
    assert row.occurred_at == NOW - 1
    assert ledger.claim([]) == {}


def test_an_attempt_is_in_flight_until_it_is_settled(ledger: Ledger) -> None:
    key = DeliveryKey("acme", "meta", "a")
    ledger.claim([new("a"), new("other")])
    ledger.begin([key], now_micros=NOW)
    (row,) = ledger.find("a")
    assert (row.state, row.in_flight, row.attempts, row.first_sent_at) == (DeliveryState.PENDING, True, 1, NOW)
    ledger.settle([DeliveryOutcome(key, DeliveryState.PENDING, "5xx", request_hash="h1", response_code="503")])
    ledger.begin([key], now_micros=NOW + 1)
    ledger.settle(
        [DeliveryOutcome(key, DeliveryState.SENT, None, request_hash="h2", response_code="200", trace_id="T")]
    )
    (row,) = ledger.find("a", tenant_id="acme")
    assert (row.state, row.in_flight, row.attempts) == (DeliveryState.SENT, False, 2)
    assert row.first_sent_at == NOW + 1, "the first attempt was surely not taken"
    assert (row.request_hash, row.response_code, row.trace_id, row.reason) == ("h2", "200", "T", None)
    assert ledger.find("a", tenant_id="other") == []
    assert ledger.find("unknown") == []


def test_open_deliveries_come_oldest_first(ledger: Ledger) -> None:
    ledger.claim([new("a"), new("bb"), new("ccc"), new("x", destination="ga4"), new("y", destination="meta:2")])
    open_rows = ledger.open_deliveries("meta", DeliveryState.PENDING, limit=3)
    assert [row.key.event_id for row in open_rows] == ["ccc", "bb", "a"]
    everywhere = ledger.open_deliveries("meta", DeliveryState.PENDING, limit=9)
    assert {row.key.destination for row in everywhere} == {"meta", "meta:2"}


def test_a_queue_is_what_kafka_will_not_bring_again(ledger: Ledger) -> None:
    def at(event: str, offset: int, *, tenant: str = "acme", destination: str = "meta", partition: int = 0) -> None:
        source = Source("t", partition, offset)
        key = DeliveryKey(tenant, destination, event)
        ledger.claim([NewDelivery(key, DeliveryState.PENDING, None, NOW + offset, source)])

    for offset in range(5):
        at(f"e{offset}", offset)
    at("other-account", 1, destination="meta:2")
    at("other-tenant", 2, tenant="globex")
    at("other-partition", 3, partition=9, tenant="initech")
    at("other-destination", 0, destination="ga4", tenant="hooli")
    at("to-come", 7, tenant="umbrella")
    ledger.settle([DeliveryOutcome(DeliveryKey("acme", "meta", "e1"), DeliveryState.SENT)])
    assert ledger.left_behind("meta", {}) == []
    positions = {("t", 0): 4, ("t", 1): 9}
    queues = [Queue("acme", "meta"), Queue("acme", "meta:2"), Queue("globex", "meta")]
    assert ledger.left_behind("meta", positions) == queues
    assert [row.key.event_id for row in ledger.queued(queues[0], positions, limit=9)] == ["e0", "e2", "e3"]
    assert [row.key.event_id for row in ledger.queued(queues[0], positions, limit=2)] == ["e0", "e2"]
    assert [row.key.event_id for row in ledger.queued(queues[0], positions, limit=2, newest=True)] == ["e2", "e3"]
    assert ledger.queued(Queue("acme", "ga4"), positions, limit=9) == []


def test_what_is_sent_stays_sent(ledger: Ledger) -> None:
    key = DeliveryKey("acme", "meta", "a")
    ledger.claim([new("a")])
    ledger.settle([DeliveryOutcome(key, DeliveryState.UNCERTAIN, "perhaps")])
    ledger.settle([DeliveryOutcome(key, DeliveryState.SENT, None, response_code="200")])
    ledger.settle([DeliveryOutcome(key, DeliveryState.UNCERTAIN, "a process that lost its partition")])
    (row,) = ledger.find("a")
    assert (row.state, row.reason) == (DeliveryState.SENT, None)


def test_counts(ledger: Ledger) -> None:
    ledger.claim([new("a"), new("bb"), new("s", state=DeliveryState.SKIPPED), new("g", destination="ga4")])
    counts = {(c.destination, c.state, c.reason): (c.deliveries, c.oldest_at) for c in ledger.counts()}
    assert counts[("meta", DeliveryState.PENDING, None)] == (2, NOW - 2)
    assert counts[("meta", DeliveryState.SKIPPED, "no consent for ad_storage")] == (1, NOW - 1)
    assert counts[("ga4", DeliveryState.PENDING, None)] == (1, NOW - 1)


def test_empty_calls_do_nothing(ledger: Ledger) -> None:
    ledger.begin([], now_micros=NOW)
    ledger.settle([])
    assert ledger.counts() == []


@pytest.mark.postgres
def test_old_settled_deliveries_are_pruned_and_pending_ones_stay(database: str) -> None:
    with postgres_ledger(database) as ledger:
        ledger.claim([new("a"), new("bb"), new("s", state=DeliveryState.SKIPPED)])
        ledger.settle([DeliveryOutcome(DeliveryKey("acme", "meta", "bb"), DeliveryState.SENT)])
        assert ledger.prune(NOW - 10) == 0
        assert ledger.prune(NOW, limit=1) == 1
        assert ledger.prune(NOW) == 1
        assert [count.state for count in ledger.counts()] == [DeliveryState.PENDING]


@pytest.mark.postgres
def test_two_processes_that_claim_the_same_events_get_each_new_one_once(database: str) -> None:
    with postgres_ledger(database) as one, postgres_ledger(database) as two:
        entries = [new(f"e{n}") for n in range(500)]
        assert one.claim(entries[:300]) == {}
        assert len(two.claim(list(reversed(entries)))) == 300
        assert len(one.claim(entries)) == 500


@pytest.mark.postgres
def test_an_outage_is_store_unavailable_and_the_next_call_connects_again(database: str) -> None:
    with postgres_ledger(database) as ledger, connect(database, application_name="killer", autocommit=True) as other:
        ledger.claim([new("a")])
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tests'")
        with pytest.raises(StoreUnavailable):
            ledger.find("a")
        assert len(ledger.find("a")) == 1


@pytest.mark.postgres
def test_an_unknown_state_is_refused_by_the_database(database: str) -> None:
    with connect(database, application_name="tests") as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO attribution_deliveries (tenant_id, destination, event_id, state, occurred_at, source_topic,"
            " source_partition, source_offset) VALUES ('t', 'meta', 'e', 'lost', now(), 't', 0, 0)"
        )
