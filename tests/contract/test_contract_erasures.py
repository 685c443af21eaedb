"""Erasures on Postgres and in memory remove the same rows, move the same money, and know the same people."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.erasure.execute import Executed, MoreToLockError, execute
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.decode import Decoder
from attributary.consumers.stitcher.erasures import BatchErasedError
from attributary.consumers.stitcher.stitch import stitch
from attributary.consumers.stitcher.transaction import LockSetGrewError
from attributary.consumers.store.erasure import ledger
from attributary.consumers.store.erasure.entries import from_multirange
from attributary.consumers.store.erasure.transaction import ErasureTransaction
from attributary.consumers.store.events.stitch import PostgresStitchStore
from attributary.consumers.store.session import StoreSession
from attributary.schemas.topics import ERASURE_REQUESTS, IDENTITIES
from tests.contract.test_contract_store import picture_of_memory, picture_of_postgres
from tests.expected_results import codec
from tests.model.events import BASE, DAY, encoded, policy, random_event, random_request
from tests.model.memory_store import MemoryStore
from tests.model.stages import HASHER

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.postgres


@pytest.fixture
def empty(session: StoreSession) -> StoreSession:
    with session.transaction() as connection:
        tables = connection.execute(
            "SELECT string_agg(relname, ', ') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = 'public' AND relkind = 'r' AND relname LIKE 'attribution%' "
            "AND relname NOT LIKE '%migration%' AND relname <> 'attribution_audit'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]}")
    return session


def run_stitch(store: Any, batch: list[Record]) -> Any:
    decoded = Decoder(codec()).decode(batch)
    more: dict[Any, Any] = {}
    while True:
        events = (decoded.touchpoints, decoded.conversion_events, decoded.links)
        try:
            with store.transaction(*events) as transaction:
                return stitch(transaction, decoded, policy(), more, hasher=HASHER)
        except LockSetGrewError as grew:
            more |= grew.keys
        except BatchErasedError as found:
            decoded = found.batch


def erase_in_postgres(session: StoreSession, before_us: int) -> Executed | None:
    more: set[Any] = set()
    while True:
        try:
            with session.transaction() as connection:
                request = ledger.claim_request(connection, before_us)
                if request is None:
                    return None
                return execute(ErasureTransaction(connection, 60.0), request, HASHER, policy().version, more)
        except MoreToLockError as grew:
            more |= set(grew.keys)


def erased_in_postgres(connection: psycopg.Connection) -> dict[str, Any]:
    def rows(question: str) -> list[Any]:
        return sorted(connection.execute(question).fetchall())

    return {
        "requests": rows(
            "SELECT tenant_id, request_id, kind, mode, COALESCE(identifier, ''), received_at_us, cutoff_us, state "
            "FROM attribution_erasure_requests"
        ),
        "ledger": [
            (*row[:3], tuple(row[3]), from_multirange(row[4]))
            for row in rows("SELECT tenant_id, kind, id_hash, cutoffs_us, suppressed::text FROM attribution_erasures")
        ],
        "amounts": rows(
            "SELECT tenant_id, event_hash, conversion_hash, kind, value_micros, currency "
            "FROM attribution_erased_amounts"
        ),
        "removed": rows(
            "SELECT tenant_id, currency, sum(net_micros)::int8 FROM attribution_removed_totals GROUP BY 1, 2"
        ),
        "dropped links": rows(
            "SELECT tenant_id, anonymous_id, user_id, linked_at_us, event_id, received_at_us "
            "FROM attribution_dropped_links"
        ),
        "tombstones": rows("SELECT tenant_id, conversion_id, version FROM attribution_tombstones"),
    }


def erased_in_memory(store: MemoryStore) -> dict[str, Any]:
    tables = store.tables
    return {
        "requests": sorted((*row[:7], state) for row, state in tables.requests.values()),
        "ledger": sorted((*each, entry.cutoffs, entry.suppressed) for each, (entry, _) in tables.erasures.items()),
        "amounts": sorted((*row[:4], row.value_micros, row.currency) for row in tables.amounts.values()),
        "removed": sorted((*key, micros) for key, micros in tables.removed.items()),
        "dropped links": sorted(map(tuple, tables.dropped_links.values())),
        "tombstones": sorted((*key, row.version) for key, row in tables.tombstones.items()),
    }


@pytest.mark.parametrize("seed", range(30))
def test_erasures_remove_and_note_alike(empty: StoreSession, seed: int) -> None:
    chance = random.Random(seed)
    clock = BASE // 1_000 + chance.randrange(12) * DAY // 1_000
    memory = MemoryStore()
    stores = (PostgresStitchStore(empty), memory)
    for number in range(24):
        clock += chance.random() < 0.7  # also several records of one millisecond
        topic, fields = random_event(chance, number, erasing=("t1", "t2"))
        if number % 8 == 7:
            topic, fields = ERASURE_REQUESTS, random_request(chance, number)
        batch = [Record(topic, 0, number, b"k", encoded(topic, fields), clock)]
        answers = [run_stitch(store, batch) for store in stores]
        assert answers[0].counts == answers[1].counts
        assert sorted(answers[0].versions) == sorted(answers[1].versions)
        while chance.random() < 0.7:
            there = erase_in_postgres(empty, clock * 1_000)
            here = memory.erase_next(HASHER, policy().version, clock * 1_000)
            assert (there is None) == (here is None)
            if there is None or here is None:
                break
            assert sorted(there.raised) == sorted(here.raised)
            assert sorted(there.tombstones) == sorted(here.tombstones)
        with empty.transaction() as connection:
            postgres = picture_of_postgres(connection) | erased_in_postgres(connection)
        for table, rows in (picture_of_memory(memory) | erased_in_memory(memory)).items():
            assert rows == postgres[table], table


@pytest.mark.parametrize("first", ["suppress", "unsuppress"])
@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_requests_of_one_millisecond_are_carried_out_in_the_order_of_the_log(
    empty: StoreSession, first: str, names: tuple[str, str]
) -> None:
    second = "unsuppress" if first == "suppress" else "suppress"
    memory = MemoryStore()
    batch = [
        Record(ERASURE_REQUESTS, 0, 7 + number, b"k", encoded(ERASURE_REQUESTS, {
            "tenant_id": "t1", "request_id": name, "kind": "user", "identifier": "ann", "mode": mode,
            "requested_at": BASE,
        }), BASE // 1_000)
        for number, (name, mode) in enumerate(zip(names, (first, second), strict=True))
    ]  # fmt: skip
    for record in reversed(batch):  # as two partitions may be read
        for store in (PostgresStitchStore(empty), memory):
            run_stitch(store, [record])
    before_us = BASE + 1_000_000
    while erase_in_postgres(empty, before_us) is not None:
        memory.erase_next(HASHER, policy().version, before_us)
    with empty.transaction() as connection:
        ledger_rows = erased_in_postgres(connection)["ledger"]
    assert ledger_rows == erased_in_memory(memory)["ledger"]
    assert [bool(row[4]) for row in ledger_rows] == [second == "suppress"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("device_first", [True, False])
def test_a_device_suppressed_in_the_millisecond_of_its_user_s_erasure_goes_with_the_user(
    empty: StoreSession, names: tuple[str, str], *, device_first: bool
) -> None:
    asked = [("anonymous", "phone", "suppress"), ("user", "ann", "delete")]
    clock = BASE // 1_000
    store = PostgresStitchStore(empty)
    for number, (name, (kind, identifier, mode)) in enumerate(
        zip(names, asked if device_first else reversed(asked), strict=True)
    ):
        fields: dict[str, Any] = {
            "tenant_id": "t1",
            "request_id": name,
            "kind": kind,
            "identifier": identifier,
            "mode": mode,
        }
        fields["requested_at"] = BASE
        run_stitch(store, [Record(ERASURE_REQUESTS, 0, number, b"k", encoded(ERASURE_REQUESTS, fields), clock)])
    while erase_in_postgres(empty, BASE + 1_000_000) is not None:
        pass
    link = {"tenant_id": "t1", "event_id": "l1", "anonymous_id": "phone", "user_id": "ann", "linked_at": BASE - 5}
    topic = IDENTITIES
    run_stitch(store, [Record(topic, 0, 0, b"k", encoded(topic, link), clock + 60_000)])
    while erase_in_postgres(empty, BASE + 100_000_000) is not None:
        pass
    with empty.transaction() as connection:
        rows = {row[1]: row for row in erased_in_postgres(connection)["ledger"]}
    assert {kind: row[3] for kind, row in rows.items()} == {"anonymous": (BASE,), "user": (BASE,)}
