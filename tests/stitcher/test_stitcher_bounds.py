"""One person with many conversions and late touchpoints: what is read grows with their sum, and batches are cut."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher import metrics
from attributary.consumers.stitcher import stage as stitching
from attributary.consumers.stitcher.limits import Limits
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.reopenings import hot_people, reopen_page, waiting_people
from attributary.consumers.store.events.stitch import StitchTransaction
from attributary.schemas.topics import COMMANDS
from tests.factories.samples import codec, link, records, sale, touch
from tests.pipeline_harness import InProcess, handle_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from attributary.consumers.runtime.records import Outcome
    from attributary.consumers.store.events.rows import RaisedVersion

pytestmark = pytest.mark.postgres

RULES = LookbackPolicy.parse(DEFAULT_POLICY)


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as found:
        yield found


def commands_of(outcome: Outcome) -> set[str]:
    return {(message.key or b"").decode() for message in outcome.messages}


def test_what_is_read_grows_with_conversions_plus_touchpoints_and_not_with_their_product(
    stages: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million pairs once were a million rows of a statement, 712 MB."""
    rows: list[int] = []
    for name in ("people_touched", "conversions_touched"):
        original = getattr(StitchTransaction, name)

        def counted(self: Any, *args: Any, original: Any = original) -> Any:
            found = original(self, *args)
            rows.append(len(found))
            return found

        monkeypatch.setattr(StitchTransaction, name, counted)
    monkeypatch.setattr(stages.stitcher, "_limits", Limits(reopened=1_000))
    stages.stitch(*(sale(f"c{n}", 5 + n / 1_000) for n in range(1_000)))
    stages.stitch(sale("q", 5, who="a:q", tenant_id="quiet"))
    late = [touch(f"t{n}", 1 + n / 1_000) for n in range(1_000)]
    rows.clear()
    outcome = stages.stitcher.handle(records([*late, touch("t", 1, who="a:q", tenant_id="quiet")], first=5_000))
    assert rows == [2, 1_001]
    assert commands_of(outcome) == {"quiet|q", *(f"acme|c{n}" for n in range(1_000))}


def test_a_batch_that_costs_too_much_is_stitched_in_parts_with_the_same_end(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.stitch(*(sale(f"c{n}", 5) for n in range(4)), sale("q", 5, who="a:q", tenant_id="quiet"))
    batch = records(
        [*(touch(f"t{n}", 1 + n) for n in range(8)), touch("t", 1, who="a:q", tenant_id="quiet")], first=100
    )
    for limits in (Limits(pairs=12), Limits(conversions=3)):
        monkeypatch.setattr(stages.stitcher, "_limits", limits)
        taken = stages.stitcher.handle(batch[:8]).taken
        assert taken is not None
        assert 1 <= taken <= 2
        batch = [*batch[taken:8], *batch[8:]] if limits.pairs == 12 else batch
    read(stages, batch)
    counts = {result["conversion_id"]: result["touchpoint_count"] for result in stages.answer()}
    assert counts == {"c0": 5, "c1": 5, "c2": 5, "c3": 5, "q": 1}
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_touchpoints").fetchone() == (9,)


def read(stages: InProcess, batch: list[Record]) -> None:
    messages = handle_all(stages.stitcher, batch)
    newest = {message.key: message for message in messages}
    stages.commands = [stages._read(message, "commands") for message in newest.values()]


def test_a_batch_of_very_many_bytes_is_cut(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = records([touch(f"t{n}", n) for n in range(5)])
    monkeypatch.setattr(stitching, "_MAX_BYTES", 2 * len(batch[0].value or b"") + 1)
    assert stages.stitcher.handle(batch).taken == 2
    monkeypatch.setattr(stitching, "_MAX_BYTES", 1)
    assert stages.stitcher.handle(batch[2:]).taken == 1


def test_late_touchpoints_of_a_hot_person_are_put_off_and_all_come_right(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five touchpoints in three batches raise one version of each conversion, in pages, and none is left out."""
    monkeypatch.setattr(stages.stitcher, "_limits", Limits(reopened=3))
    put_off = metrics.touchpoints_put_off._value.get()
    stages.publish(*(sale(f"c{n}", 5 + n) for n in range(7)), sale("q", 5, who="a:q", tenant_id="quiet"))
    assert stages.publish(touch("t0", 1), touch("t1", 2)) == []
    (quiet,) = stages.publish(touch("t2", 3), touch("t", 1, who="a:q", tenant_id="quiet"))
    assert (quiet["tenant_id"], quiet["touchpoint_count"]) == ("quiet", 1)
    (few,) = stages.publish(touch("t3", 10.5))  # one conversion in its reach: as ever
    assert (few["conversion_id"], few["touchpoint_count"]) == ("c6", 4)
    assert metrics.touchpoints_put_off._value.get() == put_off + 3
    with connect(database, application_name="tests", autocommit=True) as connection:
        (hot,) = hot_people(connection, None, 10)
        assert (hot.tenant_id, hot.journey_key, hot.touchpoints, hot.conversions) == ("acme", "a:d1", 3, 4)
        assert waiting_people(connection).people == 1
        assert page(connection, after_seconds=60.0) is None  # not yet
        first = page(connection)
        assert first is not None
        assert [version.conversion_id for version in first] == ["c0", "c1", "c2"]
        assert page(connection, patience_seconds=60.0) is None  # their results are not stored yet
        stages.publish(touch("t4", 1.5))  # while the pass is under way: for the next one
        versions = [*first, *(version for found in iter(lambda: page(connection), None) for version in found)]
        assert hot_people(connection, None, 10) == []
        stored = connection.execute("SELECT conversion_id, version FROM attribution_conversions").fetchall()
    assert Counter(version.conversion_id for version in versions) == dict.fromkeys([f"c{n}" for n in range(7)], 2)
    assert dict(stored) == {**{f"c{n}": 3 for n in range(6)}, "c6": 4, "q": 2}
    newest = {version.conversion_id: version for version in versions}
    stages.commands = [command(version) for version in newest.values()]
    assert {result["conversion_id"]: result["touchpoint_count"] for result in stages.answer()} == {
        **{f"c{n}": 4 for n in range(6)}, "c6": 5,
    }  # fmt: skip


def test_links_that_move_a_hot_person_are_put_off_and_all_come_right(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kiosk is linked to one user, then by an earlier link to another: its conversions move at once, in Postgres."""
    monkeypatch.setattr(stages.stitcher, "_limits", Limits(reopened=3))
    seen: list[int] = []
    original = StitchTransaction.conversions_of_people

    def counted(self: StitchTransaction, keys: Any) -> Any:
        seen.append(len(found := original(self, keys)))
        return found

    monkeypatch.setattr(StitchTransaction, "conversions_of_people", counted)
    put_off = metrics.changes_put_off._value.get()
    stages.publish(*(sale(f"c{n}", 5) for n in range(7)), touch("t", 1), sale("u", 5, who="u:late"))
    stages.publish(touch("t-late", 2, who="u:late"), touch("t-early", 3, who="u:early"))
    assert stages.publish(link("l1", "d1", "late", 4), sale("q", 5, who="a:q", tenant_id="quiet"))[0]["version"] == 1
    assert stages.publish(link("l0", "d1", "early", 3)) == []
    assert max(seen) <= 3
    assert metrics.changes_put_off._value.get() == put_off + 2
    with connect(database, application_name="tests", autocommit=True) as connection:
        people = hot_people(connection, None, 10)
        assert {(person.journey_key, person.changes) for person in people} == {
            ("a:d1", 1), ("u:late", 2), ("u:early", 1),
        }  # fmt: skip
        versions = [version for found in iter(lambda: page(connection), None) for version in found]
        assert hot_people(connection, None, 10) == []
        owners = connection.execute(
            "SELECT journey_key, count(*) FROM attribution_conversions WHERE tenant_id = 'acme' GROUP BY 1"
        ).fetchall()
    assert dict(owners) == {"u:early": 7, "u:late": 1}
    assert {version.reason for version in versions} == {"identity"}
    stages.commands = [command(version) for version in {v.conversion_id: v for v in versions}.values()]
    results = {result["conversion_id"]: result["touchpoint_count"] for result in stages.answer()}
    assert results == {**{f"c{n}": 2 for n in range(7)}, "u": 1}


def test_contents_that_give_way_at_a_hot_person_are_put_off(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages.stitcher, "_limits", Limits(reopened=2))
    stages.publish(*(sale(f"c{n}", 5) for n in range(4)))
    first, second = records([touch("t", 1), touch("t", 1, who="a:other")], first=50)
    read(stages, [second, *records([sale("o", 5, who="a:other")], first=60)])
    assert stages.answer()[0]["touchpoint_count"] == 1
    read(stages, [first])  # the first in the log wins, though it is read last
    assert [result["conversion_id"] for result in stages.answer()] == ["o"]
    with connect(database, application_name="tests", autocommit=True) as connection:
        versions = [version for found in iter(lambda: page(connection), None) for version in found]
    stages.commands = [command(version) for version in versions]
    assert {r["conversion_id"]: r["touchpoint_count"] for r in stages.answer()} == {f"c{n}": 1 for n in range(4)}


def test_links_of_many_people_are_stitched_in_parts(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    stages.stitch(*(sale(f"c{n}", 5, who=f"a:d{n}") for n in range(8)))
    monkeypatch.setattr(stages.stitcher, "_limits", Limits(conversions=3))
    batch = records([link(f"l{n}", f"d{n}", f"u{n}", 6) for n in range(8)], first=100)
    assert stages.stitcher.handle(batch).taken == 2
    assert len(handle_all(stages.stitcher, batch[2:])) == 6


def page(connection: psycopg.Connection, **given: float) -> list[RaisedVersion] | None:
    limits = {"after_seconds": 0.0, "patience_seconds": -1.0, **given}
    with connection.transaction():
        found = reopen_page(connection, policy_version=RULES.version, limit=3, **limits)
    return None if found is None else found.versions


def command(version: RaisedVersion) -> Record:
    fields = {
        "tenant_id": version.tenant_id, "conversion_id": version.conversion_id, "version": version.version,
        "reason": version.reason, "issued_by": "sweeper", "event_published_at": version.published_at,
    }  # fmt: skip
    return Record(COMMANDS, 0, 0, None, codec().encode("command", fields), 0)


def test_what_came_too_late_for_a_conversion_reopens_none(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages.stitcher, "_limits", Limits(reopened=1))
    stages.publish(*(sale(f"c{n}", 5 + n) for n in range(3)))
    late = records([touch("t0", 1)], first=50)
    late[0].timestamp_ms += 8 * 86_400_000
    read(stages, late)
    with stages.stitcher._session.transaction() as connection:
        assert page(connection) == []
        assert hot_people(connection, None, 10) == []
