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
from tests.factories.samples import codec, records, sale, touch
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
