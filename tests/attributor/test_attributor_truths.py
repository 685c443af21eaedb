"""Late, corrected and withdrawn truth: each raises the version with its reason and its delta, in topic and table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher import metrics
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.policies import store_policy
from attributary.consumers.store.events.sweep import finalise, overdue
from attributary.consumers.store.repair.version_raise import refit
from attributary.schemas.topics import COMMANDS
from tests.factories.samples import DAY_US, START_US, codec, link, records, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from tests.factories.samples import SampleEvent

pytestmark = pytest.mark.postgres

VALUE = 10_000_000
POLICY = LookbackPolicy.parse(DEFAULT_POLICY)
COLUMNS = ("version", "version_reason", "net_value_micros", "delta_micros", "is_final", "touchpoint_count")


class Story:
    """One conversion, told step by step; every step's result is looked at in the topic and in the table.

    Args:
        dsn: a migrated database.
    """

    def __init__(self, dsn: str) -> None:
        self.stages = InProcess(dsn)
        self.connection = connect(dsn, application_name="tests", autocommit=True)

    def tell(self, *events: SampleEvent, days_late: int = 0) -> list[Any]:
        """Let events arrive; returns what they lead to."""
        batch = [self.stages._record(record, "input") for record in records(events)]
        for record in batch:
            record.timestamp_ms += days_late * DAY_US // 1_000
        commands = self.stages.stitcher.handle(batch).messages
        self.stages.commands += [self.stages._read(message, "commands") for message in commands]
        return self._answered()

    def sweep(self, work: Callable[[psycopg.Connection], object]) -> list[Any]:
        """Let something without an event raise versions; the sweeper asks for them."""
        with self.connection.transaction():
            work(self.connection)
            pending = overdue(self.connection, -60.0, 10)
        for version in pending:
            fields = {"tenant_id": version.tenant_id, "conversion_id": version.conversion_id, "reason": version.reason,
                      "version": version.version, "issued_by": "sweeper", "event_published_at": 0}  # fmt: skip
            self.stages.commands.append(Record(COMMANDS, 0, 0, None, codec().encode("command", fields), 0))
        return self._answered()

    def _answered(self) -> list[Any]:
        results = [tuple(result[name] for name in COLUMNS) for result in self.stages.answer()]
        question = f"SELECT {', '.join(COLUMNS)} FROM attribution_results WHERE version = ANY (%s) ORDER BY version"
        rows = self.connection.execute(question, ([result[0] for result in results],)).fetchall()
        assert rows == sorted(results)
        return results


@pytest.fixture
def story(database: str) -> Iterator[Story]:
    found = Story(database)
    with found.stages, found.connection:
        yield found


def test_every_kind_of_later_truth_has_its_reason_and_its_delta(story: Story) -> None:
    correct = {"conversion_id": "c1"}
    assert story.tell(touch("t1"), sale("c1", 1)) == [(1, "new", VALUE, 0, False, 1)]
    assert story.tell(touch("t2"), days_late=5) == [(2, "late_touchpoint", VALUE, 0, False, 2)]
    refund = sale("r1", 2, value=4_000_000, kind="refund", **correct)
    assert story.tell(refund) == [(3, "refund", 6_000_000, -4_000_000, False, 2)]
    assert story.tell(refund) == []
    rest = sale("r2", 3, value=6_000_000, kind="refund", **correct)
    assert story.tell(rest) == [(4, "refund", 0, -6_000_000, False, 2)]
    restated = sale("s1", 4, value=15_000_000, kind="restatement", **correct)
    assert story.tell(restated) == [(5, "restated", 5_000_000, 5_000_000, False, 2)]
    cancelled = sale("x1", 5, value=0, kind="cancellation", **correct)
    assert story.tell(cancelled) == [(6, "refund", 0, -5_000_000, False, 2)]
    revived = sale("s2", 6, value=12_000_000, kind="restatement", **correct)
    assert story.tell(revived) == [(7, "restated", 2_000_000, 2_000_000, False, 2)]


def test_a_touch_beyond_the_lateness_is_kept_counted_and_changes_nothing(story: Story) -> None:
    story.tell(touch("t1"), sale("c1", 1))
    before = metrics.late_touchpoints._value.get()
    assert story.tell(touch("t2"), days_late=8) == []
    assert metrics.late_touchpoints._value.get() == before + 1
    assert story.connection.execute("SELECT count(*) FROM attribution_touchpoints").fetchone() == (2,)
    # Nor does it slip in later, when something else raises the version.
    refund = sale("r1", 2, value=1_000_000, kind="refund", conversion_id="c1")
    assert story.tell(refund, days_late=9) == [(2, "refund", 9_000_000, -1_000_000, False, 1)]


def test_a_refit_on_request_says_so_and_changes_no_value(story: Story) -> None:
    story.tell(touch("t1"), sale("c1", 1))
    shorter = LookbackPolicy.parse({**DEFAULT_POLICY, "name": "shorter", "windows": [{"days": 0.01}]})

    def by_the_new_policy(connection: psycopg.Connection) -> None:
        store_policy(connection, shorter)
        assert refit(connection, "acme", (0, 2**62), shorter.version, now_us=START_US, limit=10) == 1

    assert story.sweep(by_the_new_policy) == [(2, "model_refit", VALUE, 0, False, 0)]


def test_final_is_a_version_and_what_comes_after_it_says_that_it_changed_something_final(story: Story) -> None:
    story.tell(touch("t1"), sale("c1", 1))

    def lateness_is_over(connection: psycopg.Connection) -> None:
        finalise(
            connection,
            due_before_us=START_US + DAY_US,
            now_us=START_US + 8 * DAY_US,
            policy_version=POLICY.version,
            limit=10,
        )

    assert story.sweep(lateness_is_over) == [(2, "final", VALUE, 0, True, 1)]
    assert story.sweep(lateness_is_over) == []
    assert story.tell(touch("t2"), days_late=8) == []
    # Money that goes back after that is a fact all the same: its version is final, too.
    refund = sale("r1", 2, value=VALUE, kind="refund", conversion_id="c1")
    assert story.tell(refund, days_late=20) == [(3, "refund", 0, -VALUE, True, 1)]


def test_a_link_counts_across_partitions_and_in_its_tenant_alone(story: Story) -> None:
    story.tell(touch("t1"), touch("t1", tenant_id="else"))
    assert (
        story.tell(sale("c1", 1, who="u:jane"), sale("c1", 1, who="u:jane", tenant_id="else"))
        == [(1, "new", VALUE, 0, False, 0)] * 2
    )
    (record,) = records([link("l1", "d1", "jane", 9)])
    record.partition = 7
    outcome = story.stages.stitcher.handle([record])
    commands = [codec().decode("command", message.value) for message in outcome.messages]
    assert [(each["tenant_id"], each["version"], each["reason"]) for each in commands] == [("acme", 2, "identity")]
