"""Of people who had no row nothing is asked; a full look-up would find the same."""

from __future__ import annotations

import random
from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.runtime.records import Record
from attributary.consumers.store.erasure import transaction as erasures
from attributary.consumers.store.events import stitch as stitches
from attributary.consumers.store.events import stitch_sql
from attributary.consumers.store.events.people import columns_of
from attributary.consumers.store.events.rows import LOCKS_ONLY
from attributary.consumers.store.events.stitch import PostgresStitchStore, StitchTransaction
from attributary.consumers.store.repair import compare
from attributary.consumers.store.repair.derived_rows import widen_journeys
from attributary.consumers.store.session import StoreSession
from attributary.schemas.topics import ERASURE_REQUESTS, TOUCHPOINTS
from tests.contract.test_contract_erasures import erase_in_postgres, run_stitch
from tests.model.events import BASE, DAY, encoded, random_event, random_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from attributary.consumers.store.events.rows import IdentityMove, Key

pytestmark = pytest.mark.postgres

_EMPTY = """TRUNCATE attribution_touchpoints, attribution_conversion_events, attribution_identity_links,
attribution_identities, attribution_conversions, attribution_journeys, attribution_reopenings, attribution_erasures,
attribution_erasure_requests, attribution_erased_amounts, attribution_dropped_links, attribution_tombstones"""


@pytest.fixture
def empty(session: StoreSession) -> StoreSession:
    with session.transaction() as connection:
        connection.execute(_EMPTY)
    return session


class Compared(StitchTransaction):
    """Asks everything a second time, of everybody."""

    spared = 0

    def lock_people(self, keys: Any) -> None:
        super().lock_people(keys)
        devices = [(tenant, key[2:]) for tenant, key in self._new if key < "a;"]
        if devices:
            assert self._connection.execute(stitch_sql.OWNERS_LOCKED, columns_of(devices)).fetchall() == []

    def _twice(self, ask: Callable[[], Any]) -> Any:
        found, new = ask(), self._new
        self._new = set()
        assert ask() == found
        Compared.spared += len(new)
        self._new = new
        return found

    def people_touched(self, *given: Any) -> Any:
        return self._twice(lambda: sorted(StitchTransaction.people_touched(self, *given)))

    def conversions_of_people(self, keys: Any) -> Any:
        return self._twice(lambda: sorted(StitchTransaction.conversions_of_people(self, keys)))

    def conversions_counted(self, *given: Any) -> Any:
        return self._twice(lambda: StitchTransaction.conversions_counted(self, *given))

    def move_conversions(self, moves: Sequence[IdentityMove]) -> None:
        super().move_conversions(moves)
        for move in moves:
            left = "SELECT FROM attribution_conversions WHERE tenant_id = %s AND journey_key = %s AND identity_key = %s"
            place = (move.tenant_id, move.old_key, "a:" + move.anonymous_id)
            assert self._connection.execute(left, place).fetchall() == []


@pytest.mark.parametrize("seed", range(40))
def test_a_full_look_up_finds_the_same(empty: StoreSession, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stitches, "StitchTransaction", Compared)
    monkeypatch.setattr(erasures, "StitchTransaction", Compared)
    Compared.spared = 0
    chance = random.Random(seed)
    clock = BASE // 1_000 + chance.randrange(12) * DAY // 1_000
    store = PostgresStitchStore(empty)
    for first in range(0, 30, 3):
        batch = []
        for number in range(first, first + 3):
            clock += 1
            topic, fields = random_event(chance, number, erasing=("t1", "t2"))
            if chance.random() < 0.1:
                topic, fields = ERASURE_REQUESTS, random_request(chance, number)
            batch.append(Record(topic, 0, number, b"k", encoded(topic, fields), clock))
        run_stitch(store, batch)
        while chance.random() < 0.5:
            erase_in_postgres(empty, clock * 1_000)
    assert Compared.spared > 0


def _old_and_new(connection: psycopg.Connection) -> None:
    transaction = StitchTransaction(connection, (), (), ())
    transaction.lock_people({("t1", "a:old"): (9, 9, 9), ("t1", "a:new"): (9, 9, 9), ("t1", "u:old"): LOCKS_ONLY,
                             ("t2", "u:old"): LOCKS_ONLY})  # fmt: skip
    assert transaction._new == {("t1", "a:new"), ("t2", "u:old")}
    transaction.lock_people({("t1", "a:old"): (1, 19, 19), ("t1", "a:new"): (1, 19, 19)})
    assert transaction._new == {("t1", "a:new"), ("t2", "u:old")}
    raise InterruptedError


def test_only_rows_that_the_transaction_made_are_new(empty: StoreSession) -> None:
    with empty.transaction() as connection:
        StitchTransaction(connection, (), (), ()).lock_people({("t1", "a:old"): (5, 5, 5), ("t1", "u:old"): (5, 5, 5)})
    with pytest.raises(InterruptedError), empty.transaction() as connection:
        _old_and_new(connection)
    with empty.transaction() as connection:  # what was rolled back was never there
        transaction = StitchTransaction(connection, (), (), ())
        transaction.lock_people({("t1", "a:old"): LOCKS_ONLY, ("t1", "a:new"): LOCKS_ONLY})
        assert transaction._new == {("t1", "a:new")}


def _touch(event_id: str, user: str | None, device: str | None, at: int) -> dict[str, Any]:
    return {
        "tenant_id": "t1", "event_id": event_id, "user_id": user, "anonymous_id": device, "occurred_at": at,
        "platform": "meta", "channel": "email", "interaction": "click",
    }  # fmt: skip


def test_an_erased_device_that_an_event_of_another_user_links_keeps_its_row(empty: StoreSession) -> None:
    """Its own events and links are gone, its owner is not."""
    store, clock = PostgresStitchStore(empty), BASE // 1_000
    events: list[tuple[str, dict[str, Any]]] = [
        (TOUCHPOINTS, _touch("own", None, "phone", BASE)),
        (ERASURE_REQUESTS, {"tenant_id": "t1", "request_id": "r", "kind": "anonymous", "identifier": "phone",
                            "mode": "delete", "requested_at": BASE}),
        (TOUCHPOINTS, _touch("linking", "ann", "phone", BASE + 60_000_000)),
    ]  # fmt: skip
    for number, (topic, fields) in enumerate(events):
        run_stitch(store, [Record(topic, 0, number, b"k", encoded(topic, fields), clock + 1_000 * number)])
    while erase_in_postgres(empty, BASE + 100_000_000) is not None:
        pass
    with empty.transaction() as connection:
        owners = connection.execute("SELECT anonymous_id, user_id FROM attribution_identities").fetchall()
        people = connection.execute("SELECT journey_key FROM attribution_journeys ORDER BY 1").fetchall()
    assert owners == [("phone", "ann")]
    assert people == [("a:phone",), ("u:ann",)]


def _people(connection: psycopg.Connection) -> list[Key]:
    return connection.execute("SELECT tenant_id, journey_key FROM attribution_journeys ORDER BY 1, 2").fetchall()


def test_rows_that_are_missing_are_made_by_the_migration_and_by_a_rebuild(empty: StoreSession) -> None:
    migration = resources.files("attributary.consumers.store.migrations") / "0114_people_have_rows.sql"
    chance = random.Random(3)
    store = PostgresStitchStore(empty)
    for number in range(60):
        topic, fields = random_event(chance, number)
        run_stitch(store, [Record(topic, 0, number, b"k", encoded(topic, fields), BASE // 1_000 + number)])
    with empty.transaction() as connection:
        people = _people(connection)
        owned = connection.execute(
            "SELECT tenant_id, 'a:' || anonymous_id FROM attribution_identities UNION "
            "SELECT tenant_id, 'u:' || user_id FROM attribution_identities UNION "
            "SELECT tenant_id, journey_key FROM attribution_conversions WHERE journey_key <> ''"
        ).fetchall()
        assert len(owned) > 5
        before = connection.execute("SELECT * FROM attribution_journeys ORDER BY 1, 2").fetchall()
        connection.execute(migration.read_text("utf-8").encode())
        assert connection.execute("SELECT * FROM attribution_journeys ORDER BY 1, 2").fetchall() == before
        for tenant, key in owned:
            connection.execute(
                "DELETE FROM attribution_journeys WHERE tenant_id = %s AND journey_key = %s", (tenant, key)
            )
        connection.execute(migration.read_text("utf-8").encode())
        assert _people(connection) == people
        # Rows that only an owner needs are missed by a verify, and made by a rebuild.
        connection.execute("DELETE FROM attribution_journeys")
    with empty.transaction() as connection:
        missing = {row[:2]: row[2:] for row, stored in compare.narrow_journeys(connection) if stored == "no row"}
    assert missing.keys() >= set(owned)
    with empty.plain() as connection:
        widen_journeys(connection, missing)
    with empty.transaction() as connection:
        assert _people(connection) == people
        assert list(compare.narrow_journeys(connection)) == []


def test_a_version_and_its_state_are_one_write(empty: StoreSession) -> None:
    updated = "SELECT pg_stat_get_xact_tuples_updated('attribution_conversions'::regclass)"
    seen: list[int] = []

    class Counting(StitchTransaction):
        """The counter goes on over transactions that the server has not yet added up: two looks at it."""

        def _look(self) -> None:
            row = self._connection.execute(updated).fetchone()
            seen.append(row[0] if row else -1)

        def lock_people(self, keys: Any) -> None:
            self._look()
            super().lock_people(keys)

        def versions_caused_by(self, places: Any) -> Any:
            self._look()
            return super().versions_caused_by(places)

    chance, batch = random.Random(1), []
    for number in range(60):
        topic, fields = random_event(chance, number)
        batch.append(Record(topic, 0, number, b"k", encoded(topic, fields), BASE // 1_000 + number))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stitches, "StitchTransaction", Counting)
        run_stitch(PostgresStitchStore(empty), batch)
    with empty.transaction() as connection:
        opened = connection.execute("SELECT count(*) FROM attribution_conversions WHERE version > 0").fetchone()
    assert opened is not None
    assert opened[0] > 1
    assert seen[-1] - seen[-2] == opened[0]
