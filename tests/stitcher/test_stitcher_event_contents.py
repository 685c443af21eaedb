"""One event id, several contents: the first in the log is the event, the others are set aside and seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.maintenance.replay import Replay, read_decoders
from attributary.consumers.stitcher import metrics
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.event_reports import event_conflicts
from attributary.consumers.store.events.explain import explain
from attributary.consumers.store.events.staging import create_staging
from tests.factories.samples import START_US, codec, link, records, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from attributary.consumers.runtime.records import Record
    from tests.factories.samples import SampleEvent

pytestmark = pytest.mark.postgres
POLICY = LookbackPolicy.parse(DEFAULT_POLICY)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests", autocommit=True) as opened:
        yield opened


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as opened:
        yield opened


def in_log(*events: SampleEvent, partitions: int = 2) -> list[Record]:
    """The events as records of a log, one second apart, spread over partitions: their order is that of the log."""
    return [
        replace(record, partition=number % partitions, timestamp_ms=START_US // 1_000 + 1_000 * number)
        for number, record in enumerate(records(events))
    ]


CONTENTS: dict[str, list[Any]] = {
    "touchpoint": [touch("e", channel="email"), touch("e", channel="display"), touch("e", 1, who="u:joe")],
    "conversion": [sale("e", value=20_000_000), sale("e", value=99_000_000), sale("e", 1, who="u:joe")],
    "identity_link": [link("e", "d1", "ann"), link("e", "d1", "bob"), link("e", "d2", "ann", 1)],
}
TABLES = {
    "touchpoint": "attribution_touchpoints",
    "conversion": "attribution_conversion_events",
    "identity_link": "attribution_identity_links",
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_b1_the_first_in_the_log_wins_in_every_order(
    kind: str, stages: InProcess, connection: psycopg.Connection
) -> None:
    found = set()
    orders = list(permutations(range(3)))
    for number, order in enumerate(orders):
        events = [replace(event, tenant_id=f"tenant{number}") for event in CONTENTS[kind]]
        log = [replace(record, offset=10 * number + record.offset) for record in in_log(*events)]
        if number % 2:
            for place in order:
                stages.read([log[place]])
        else:
            stages.read([log[place] for place in order])
        stages.read([log[place] for place in order])  # once more: a replay changes nothing
        row = connection.execute(
            f"SELECT source_partition, source_offset - %s FROM {TABLES[kind]} WHERE tenant_id = %s",
            (10 * number, f"tenant{number}"),
        ).fetchall()
        aside = [(c.set_aside, c.stored) for c in event_conflicts(connection, f"tenant{number}", 9)]
        shown = [tuple(int(text.rpartition("@")[2]) % 10 for text in pair) for pair in aside]
        found.add((tuple(row), tuple(sorted(shown))))
    assert found == {(((0, 0),), ((1, 0), (2, 0)))}


def test_b1_the_same_content_again_is_no_conflict(stages: InProcess, connection: psycopg.Connection) -> None:
    event = sale("e", value=20_000_000)
    stages.read(in_log(event, event))
    (again,) = in_log(event, partitions=1)
    stages.read([again])
    assert event_conflicts(connection, "acme", 9) == []


def test_b1_a_content_that_is_the_first_after_all_is_no_conflict(
    stages: InProcess, connection: psycopg.Connection
) -> None:
    first, other, same = in_log(sale("e", value=1_000_000), sale("e", value=2_000_000), sale("e", value=1_000_000))
    for record in (other, same, first):
        stages.read([record])
    (conflict,) = event_conflicts(connection, "acme", 9)
    assert (conflict.value_micros, conflict.stored_value_micros) == (2_000_000, 1_000_000)


def test_b1_a_shop_export_with_two_rows_an_order_keeps_its_revenue(
    stages: InProcess, connection: psycopg.Connection
) -> None:
    """The second row of each order says nothing of the total, as in Shopify's export."""
    before = {outcome: counted(outcome) for outcome in ("new", "conflict_kept", "conflict_replaced")}
    noted = metrics.event_conflicts.labels("conversion")._value.get()
    rows = []
    for number in range(20):
        rows += [sale(f"#S{number}", value=54_500_000), sale(f"#S{number}", value=0)]
    log = in_log(*rows, partitions=1)
    stages.read(log)
    net = connection.execute("SELECT sum(net_value_micros)::int8 FROM attribution_conversions").fetchone()
    assert net == (1_090_000_000,)
    assert {outcome: counted(outcome) - value for outcome, value in before.items()} == {
        "new": 20, "conflict_kept": 20, "conflict_replaced": 0
    }  # fmt: skip
    stages.read(log)
    assert metrics.event_conflicts.labels("conversion")._value.get() - noted == 20  # a replay finds nothing new
    found = explain(connection, "acme", "#S3")
    assert found is not None
    assert [(c.value_micros, c.set_aside.rpartition("@")[2]) for c in found.conflicts] == [(0, "7")]


def counted(outcome: str) -> float:
    return float(metrics.events.labels("conversion", outcome)._value.get())


def test_b1_touches_and_links_of_a_conversion_show_their_conflicts(
    stages: InProcess, connection: psycopg.Connection
) -> None:
    stages.read(in_log(touch("t", channel="email"), touch("t", channel="display"), link("l", "d1", "ann"),
                       link("l", "d1", "bob"), sale("c", 1, who="u:ann")))  # fmt: skip
    found = explain(connection, "acme", "c")
    assert found is not None
    assert sorted((c.record, c.event_id) for c in found.conflicts) == [("identity_link", "l"), ("touchpoint", "t")]


def test_b1_a_conflict_is_logged_by_its_place_and_without_personal_data(stages: InProcess) -> None:
    secret = "jane@example.com"
    with structlog.testing.capture_logs() as logged:
        stages.read(in_log(sale(secret, who=f"u:{secret}"), sale(secret, 1, who=f"u:{secret}")))
    (line,) = [each for each in logged if "several contents" in each["event"]]
    assert line["set_aside"] == ["attribution.conversions.v1[1]@1"]
    assert secret not in str(logged)


def test_b1_a_replay_of_the_log_puts_what_an_older_release_stored_right(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    """The migration path: an older release kept the smaller hash, here the second record of each id."""
    log = in_log(sale("a", value=20_000_000), sale("a", value=99_000_000), touch("t"), touch("t", channel="direct"),
                 partitions=1)  # fmt: skip
    stages.read([log[1], log[3]])
    with connect(database, application_name="tests") as writer:
        create_staging(writer)
        writer.commit()
        Replay(writer, read_decoders(writer, codec()), POLICY).records(log)
    worth = connection.execute("SELECT net_value_micros, version FROM attribution_conversions").fetchall()
    assert worth == [(20_000_000, 2)]
    assert connection.execute("SELECT channel FROM attribution_touchpoints").fetchall() == [("email",)]
    assert len(event_conflicts(connection, "acme", 9)) == 2


@pytest.mark.parametrize("link_first", [True, False])
def test_d2_a_tie_of_links_is_decided_by_the_user_id(
    link_first: bool, stages: InProcess, connection: psycopg.Connection
) -> None:
    """Event ids are unique per kind only: a link and a touch may share id and time."""
    both = in_log(link("e", "x", "alice"), touch("e", who="u:bob", anonymous_id="x"))
    for record in both if link_first else reversed(both):
        stages.read([record])
    assert connection.execute("SELECT user_id FROM attribution_identities").fetchall() == [("alice",)]


@pytest.mark.parametrize("link_first", [True, False])
def test_d2_a_tie_is_decided_alike_when_a_link_is_withdrawn(
    link_first: bool, stages: InProcess, connection: psycopg.Connection
) -> None:
    first, withdrawn = in_log(link("gone", "y", "carl"), link("gone", "x", "aaron", -1), partitions=1)
    stages.read([withdrawn])
    both = in_log(touch("pad"), touch("pad2"), link("e", "x", "alice"), touch("e", who="u:bob", anonymous_id="x"))[2:]
    for record in both if link_first else reversed(both):
        stages.read([record])
    stages.read([first])
    owners = "SELECT user_id FROM attribution_identities WHERE anonymous_id = 'x'"
    assert connection.execute(owners).fetchall() == [("alice",)]


def test_d4_a_second_record_with_a_known_id_changes_nothing(stages: InProcess, connection: psycopg.Connection) -> None:
    results = stages.publish(touch("t"), sale("c", 1))
    connection.execute("UPDATE attribution_conversions SET is_final = true")
    again = in_log(touch("t", channel="direct"), sale("c", 1, value=1_000_000), link("l", "zz", "zz"), partitions=1)
    later = [
        replace(record, offset=90 + record.offset, timestamp_ms=record.timestamp_ms + 40 * 86_400_000)
        for record in again
    ]
    stages.read(later)
    assert stages.commands == []
    assert connection.execute("SELECT version FROM attribution_conversions").fetchall() == [(results[0]["version"],)]
    assert len(event_conflicts(connection, "acme", 9)) == 2


@pytest.mark.parametrize("refund_first", [True, False])
def test_d5_a_conversion_that_lost_its_event_is_worth_nothing(
    refund_first: bool, stages: InProcess, connection: psycopg.Connection
) -> None:
    """A refund with the purchase's event id stands first in the log: no conversion event is left."""
    refund, purchase = in_log(sale("e", kind="refund", conversion_id="e", value=1_000_000), sale("e"))
    for record in (refund, purchase) if refund_first else (purchase, refund):
        stages.read([record])
    stages.answer()
    worth = [(r["net_value_micros"], r["version"]) for r in stages.results[-1:]]
    assert worth == ([] if refund_first else [(0, 2)])
    found = explain(connection, "acme", "e")
    assert found is not None
    assert [event.verdict for event in found.events] == ["waits: no conversion event has arrived"]


NUL_FIELDS: Sequence[dict[str, Any]] = (
    {"client_user_agent": "a\0b"},
    {"client_ip_address": "a\0b"},
    {"user_data": {"email": "a\0b"}},
    {"user_data": {"meta_hashes": {"em": ["a\0b"]}}},
)


@pytest.mark.parametrize(
    "fields", NUL_FIELDS, ids=[str(sorted(fields)) + str(n) for n, fields in enumerate(NUL_FIELDS)]
)
def test_d1_a_nul_in_a_field_that_is_not_stored_is_judged_alike_beside_others(
    fields: dict[str, Any], stages: InProcess, connection: psycopg.Connection
) -> None:
    (record,) = records([sale("o0")])
    event = codec().decode("conversion", record.value)
    user_data = dict.fromkeys(event["user_data"] or {}) | fields.pop("user_data", {})
    if user_data:
        from attributary.schemas.schema_catalog import current_schemas

        schema = next(f for f in current_schemas()["conversion"].source["fields"] if f["name"] == "user_data")
        named = {field["name"]: field.get("default") for field in schema["type"][1]["fields"]}
        event["user_data"] = named | user_data
    poisoned = replace(record, value=codec().encode("conversion", event | fields))
    alone = stages.stitcher.handle([poisoned])
    beside = stages.stitcher.handle([poisoned, *records([touch("t", utm_source="a\0b"), touch("good")], first=5)])
    assert [letter.record.offset for letter in alone.dead_letters] == [0]
    assert sorted(letter.record.offset for letter in beside.dead_letters) == [0, 5]
    assert alone.dead_letters[0].reason == next(
        letter.reason for letter in beside.dead_letters if letter.record.offset == 0
    )
    assert connection.execute("SELECT count(*) FROM attribution_conversion_events").fetchone() == (0,)
