"""One contract, two stores: Postgres and memory answer alike, so what the schedule model proves holds for Postgres."""

from __future__ import annotations

import random
from functools import reduce
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.decode import Decoder
from attributary.consumers.stitcher.limits import Limits
from attributary.consumers.stitcher.stitch import stitch
from attributary.consumers.stitcher.transaction import LockSetGrewError
from attributary.consumers.store.events import attribution_inputs as attribution_reads
from attributary.consumers.store.events import reopenings
from attributary.consumers.store.events import sweep as sweeping
from attributary.consumers.store.events.reopenings import PutOff
from attributary.consumers.store.events.staging import create_staging
from attributary.consumers.store.events.stitch import PostgresStitchStore, StitchTransaction
from attributary.consumers.store.results import results
from attributary.consumers.store.session import StoreSession
from tests.expected_results import codec
from tests.model.events import BASE, DAY, encoded, policy, random_event
from tests.model.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres

SEEDS = range(40)
GROUP = "attribution.stitcher"


@pytest.fixture(scope="module")
def session(module_database: str) -> Iterator[StoreSession]:
    def prepare(connection: psycopg.Connection) -> None:
        create_staging(connection)
        results.create_result_staging(connection)

    opened = StoreSession(module_database, "tests-contract", prepare)
    yield opened
    opened.close()


@pytest.fixture
def empty(session: StoreSession) -> StoreSession:
    with session.transaction() as connection:
        tables = connection.execute(
            "SELECT string_agg(relname, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = 'public' AND relkind = 'r' AND relname LIKE 'attribution%' "
            "AND relname NOT LIKE '%migration%' AND relname <> 'attribution_audit'"  # rows are only added
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]}")
    return session


def records(chance: random.Random, count: int, clock: int) -> list[Record]:
    made = []
    for number in range(count):
        topic, fields = random_event(chance, number)
        made.append(Record(topic, chance.randrange(2), number, b"k", encoded(topic, fields), clock + number))
    return made


def run_stitch(store: Any, batch: list[Record], limits: Limits) -> tuple[Any, Any]:
    decoded = Decoder(codec()).decode(batch)
    more: dict[Any, Any] = {}
    positions = {(record.topic, record.partition): record.offset + 1 for record in batch}
    while True:
        events = (decoded.touchpoints, decoded.conversion_events, decoded.links)
        try:
            with store.transaction(*events) as transaction:
                stitched = stitch(transaction, decoded, policy(), more, limits=limits)
                before = transaction.record_positions(GROUP, positions)
        except LockSetGrewError as grew:
            more |= grew.keys
        else:
            return stitched, dict(before)


def picture_of_postgres(connection: psycopg.Connection) -> dict[str, Any]:
    def rows(question: str) -> list[Any]:
        return sorted(connection.execute(question).fetchall())

    place = "source_topic, source_partition, source_offset"
    return {
        "touchpoints": rows(f"SELECT tenant_id, event_id, identity_key, {place} FROM attribution_touchpoints"),
        "events": rows(f"SELECT tenant_id, event_id, identity_key, {place} FROM attribution_conversion_events"),
        "links": rows(f"SELECT tenant_id, event_id, anonymous_id, {place} FROM attribution_identity_links"),
        "identities": rows(
            "SELECT tenant_id, anonymous_id, user_id, linked_at_us, link_event_id FROM attribution_identities"
        ),
        "people": rows("SELECT tenant_id, journey_key FROM attribution_journeys"),
        "conversions": rows(
            "SELECT tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, "
            "received_at_us, gross_value_micros, net_value_micros, currency, version, version_reason, "
            "previous_net_micros, policy_version, is_final, owner_topic, owner_partition, owner_offset, "
            "observed_version FROM attribution_conversions"
        ),
        "positions": rows("SELECT consumer_group, topic, partition, next_offset FROM attribution_positions"),
        "results": rows("SELECT tenant_id, conversion_id, version, content_hash FROM attribution_results"),
        "put off": rows(
            "SELECT tenant_id, journey_key, first_us, until_us, received_from_us, published_us, touchpoints, changes, "
            "reason FROM attribution_reopenings WHERE after_id IS NULL"
        ),
        "conflicts": [
            tuple(map(str, row))
            for row in rows(
                "SELECT tenant_id, record_name, event_id, content_hash, conversion_id, value_micros, currency, "
                f"received_at_us, {place} FROM attribution_event_conflicts"
            )
        ],
    }


def picture_of_memory(store: MemoryStore) -> dict[str, Any]:
    tables = store.tables
    return {
        "touchpoints": sorted((*row[:3], *row[-3:]) for row in tables.touchpoints.values()),
        "events": sorted((*row[:2], row.identity_key, *row[-3:]) for row in tables.conversion_events.values()),
        "links": sorted((*row[:3], *row[-3:]) for row in tables.links.values()),
        "identities": sorted((*key, *owner) for key, owner in tables.identities.items()),
        "people": sorted(tables.journeys),
        "conversions": sorted(
            (
                *row.state[:-1], row.version, row.reason, row.previous_net, row.policy_version, row.is_final,
                *row.owner, row.observed,
            )
            for row in tables.conversions.values()
        ),
        "positions": sorted((*key, offset) for key, offset in tables.positions.items()),
        "results": sorted((*key, content) for key, content in tables.results.items()),
        "put off": sorted(
            (*person, *(one := reduce(PutOff.with_another, row.noted))[2:7], one.changes, one.reason)
            for person, row in tables.reopenings.items()
            if row.after is None
        ),
        "conflicts": sorted(tuple(map(str, row)) for row in tables.conflicts.values()),
    }  # fmt: skip


def same(session: StoreSession, memory: MemoryStore) -> None:
    with session.transaction() as connection:
        postgres = picture_of_postgres(connection)
    for table, rows in picture_of_memory(memory).items():
        assert rows == postgres[table], table


@pytest.mark.parametrize("seed", SEEDS)
def test_stitching_answers_and_writes_alike(empty: StoreSession, seed: int) -> None:
    chance = random.Random(seed)
    log = records(chance, 24, BASE // 1_000 + chance.randrange(12) * DAY // 1_000)
    stores = (PostgresStitchStore(empty), MemoryStore())
    done = 0
    limits = Limits(reopened=chance.choice((1, 100)))
    while done < len(log):
        size = chance.randrange(1, 7)
        start = max(0, done - chance.choice((0, 0, 0, 2)))  # sometimes a part is replayed
        batch = log[start : done + size]
        chance.shuffle(batch)
        answers = [run_stitch(store, batch, limits) for store in stores]
        assert sorted(answers[0][0].versions) == sorted(answers[1][0].versions)
        assert answers[0][0].counts == answers[1][0].counts
        assert answers[0][0].moves == answers[1][0].moves
        assert answers[0][0].put_off == answers[1][0].put_off
        assert answers[0][0].changes_put_off == answers[1][0].changes_put_off
        assert answers[0][1] == answers[1][1]
        done += size
        same(empty, stores[1])
    _reads_alike(empty, stores[1])
    _results_alike(chance, empty, stores[1])


def _reads_alike(session: StoreSession, memory: MemoryStore) -> None:
    keys = sorted(memory.tables.conversions)
    with session.snapshot() as connection:
        attribution_reads.prepare_reading(connection)
        there = sorted(attribution_reads.conversions_by_id(connection, [*keys, ("t1", "no such conversion")]))
        here = sorted(memory.conversions_by_id([*keys, ("t1", "no such conversion")]))
        assert [row._replace(raised_at=0) for row in there] == [row._replace(raised_at=0) for row in here]
        policies = {conversion.policy_version: policy() for conversion in here}
        for limits in ((2_000, attribution_reads.MAX_READ), (1, 9), (2, 3)):
            assert attribution_reads.touchpoints_in_reach(
                connection, here, policies, *limits
            ) == memory.touchpoints_in_reach(here, policies, *limits)
        for most in (1, 2):
            devices = {row[:2]: row.devices for row in attribution_reads.conversions_by_id(connection, keys, most)}
            assert devices == {row[:2]: row.devices for row in memory.conversions_by_id(keys, most)}


def _results_alike(chance: random.Random, session: StoreSession, memory: MemoryStore) -> None:
    for _ in range(4):
        rows = [_result(chance, memory, number) for number in range(chance.randrange(1, 6))]
        with session.transaction() as connection:
            stored = results.store_results(connection, rows)
        tables = memory.tables.copy()
        assert stored == memory.store_results(tables, rows)
        memory.commit(tables)
        same(session, memory)
    people = [
        PutOff(*person, BASE, BASE + 6 * DAY, BASE + 8 * DAY, BASE + number, 2, 3)
        for number, person in enumerate(
            sorted({(row.state.tenant_id, row.state.journey_key) for row in memory.tables.conversions.values()})
        )
    ]
    with session.transaction() as connection, memory.transaction() as noted:
        StitchTransaction(connection, (), (), ()).put_off(people)
        noted.put_off(people)
    for _ in range(50):
        given = {"policy_version": "later", "after_seconds": 0.0, "patience_seconds": -1.0, "limit": 2}
        with session.transaction() as connection:
            there = reopenings.reopen_page(connection, **given)  # type: ignore[arg-type]
        if (there, memory.reopen_page(**given)) == (None, None):  # type: ignore[arg-type]
            break
    same(session, memory)
    for limit in (1, 100):
        final = {"due_before_us": BASE + 9 * DAY, "now_us": BASE, "policy_version": "later", "limit": limit}
        with session.transaction() as connection:
            assert sorted(sweeping.finalise(connection, **final)) == sorted(memory.finalise(**final))  # type: ignore[arg-type]
        same(session, memory)
    memory.now = 100
    with session.transaction() as connection:
        assert sorted(sweeping.overdue(connection, -60.0, 100)) == sorted(memory.overdue(60.0, 100))
        assert sweeping.backlog(connection).conversions == memory.backlog().conversions


def _result(chance: random.Random, memory: MemoryStore, number: int) -> results.ResultRow:
    key = chance.choice([*sorted(memory.tables.conversions), ("t9", "unknown")])
    version = max(1, (memory.tables.conversions[key].version if key[0] != "t9" else 1) + chance.choice((-1, 0, 0, 1)))
    content = chance.choice(("same", "same", "other"))
    given: dict[str, Any] = dict.fromkeys(results.ResultRow._fields, "x") | {
        name: 1 for name, kind in results.ResultRow.__annotations__.items() if "int" in str(kind)
    }
    given |= {"tenant_id": key[0], "conversion_id": key[1], "version": version, "content_hash": content}
    given |= {
        "is_final": False,
        "models": "[]",
        "touchpoints": "[]",
        "insights": "[]",
        "partition": 0,
        "offset": number,
    }
    given["raised_at"] = chance.choice((None, -1))  # -1: of a version of that number that was lost
    return results.ResultRow(**given)
