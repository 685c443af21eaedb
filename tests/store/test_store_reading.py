"""Reading back in bulk what the stages stored, and rebuilding journeys from the raw events."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.bulk_reads import (
    PersonAndTime,
    conversions_between,
    journeys_by_key,
    newest_results,
    results_of_versions,
    touchpoints_between,
    touchpoints_of_people,
)
from attributary.consumers.store.repair.journey_rebuild import rebuild_journeys
from tests.factories.samples import HOUR_US, START_US, link, sale, touch
from tests.pipeline_harness import InProcess, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.factories.samples import SampleEvent

END_US = START_US + 1_000 * HOUR_US


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        yield opened


def at(hours: int) -> int:
    return START_US + hours * HOUR_US


def test_touchpoints_by_person_and_time(database: str, connection: psycopg.Connection) -> None:
    run(
        database,
        [
            [touch("t2", 2, who="a:d1"), touch("t1", 1, who="a:d1"), touch("t3", 3, who="u:jane")],
            [link("l1", "d1", "jane", 4), touch("t9", 1, who="a:other"), touch("tb", 5, who="u:jane", is_bot=True)],
            [touch("t1", 1, who="u:jane", tenant_id="else", utm_source="news")],
        ],
    )
    asked = [
        PersonAndTime("acme", "u:jane"),
        PersonAndTime("acme", "u:jane", at(2), at(3)),
        PersonAndTime("acme", "a:d1"),  # it belongs to jane now
        PersonAndTime("acme", "a:other"),
        PersonAndTime("else", "u:jane"),
        PersonAndTime("acme", "u:nobody"),
    ]
    found = touchpoints_of_people(connection, asked)
    assert [[touchpoint.event_id for touchpoint in touchpoints] for touchpoints in found] == [
        ["t1", "t2", "t3", "tb"],
        ["t2"],
        [],
        ["t9"],
        ["t1"],
        [],
    ]
    assert found[0][0].identity_key == "a:d1"
    assert found[4][0].details["utm_source"] == "news"
    assert touchpoints_of_people(connection, []) == []


def test_an_anonymous_id_that_spells_a_user_is_another_person(database: str, connection: psycopg.Connection) -> None:
    run(database, [[touch("t1", 1, who="a:x"), link("l", "phone1", "x"), touch("t2", 2, who="a:phone1")]])
    people = [PersonAndTime("acme", "a:x"), PersonAndTime("acme", "u:x")]
    found = touchpoints_of_people(connection, people)
    assert [[touchpoint.event_id for touchpoint in one] for one in found] == [["t1"], ["t2"]]


def test_touchpoints_by_time(database: str, connection: psycopg.Connection) -> None:
    run(database, [[touch(f"t{hour:02d}", hour, who=f"a:d{hour % 3}") for hour in range(20)]])
    run(database, [[touch("x", 5, tenant_id="else")]])
    found = list(touchpoints_between(connection, "acme", at(5), at(8)))
    assert [touchpoint.event_id for touchpoint in found] == ["t05", "t06", "t07"]
    assert [touchpoint.event_id for touchpoint in touchpoints_between(connection, "else", at(0), END_US)] == ["x"]


def test_conversions_by_time_and_type(database: str, connection: psycopg.Connection) -> None:
    run(
        database,
        [
            [sale("c1", 1), sale("c2", 2, conversion_type="lead", value=0), sale("c3", 3)],
            [sale("r9", 4, kind="refund", conversion_id="never-seen", value=10_000)],  # waits for its conversion
            [sale("r1", 9, kind="refund", conversion_id="c1", value=4_000_000)],
        ],
    )
    everything = list(conversions_between(connection, "acme", at(0), END_US))
    assert [conversion.conversion_id for conversion in everything] == ["c1", "c2", "c3"]
    first = everything[0]
    assert (first.gross_value_micros, first.net_value_micros, first.currency) == (10_000_000, 6_000_000, "EUR")
    assert (first.version, first.version_reason, first.observed_version) == (2, "refund", 2)
    leads = conversions_between(connection, "acme", at(0), END_US, ["lead", "signup"])
    assert [conversion.conversion_id for conversion in leads] == ["c2"]
    assert [c.conversion_id for c in conversions_between(connection, "acme", at(2), at(3))] == ["c2"]
    assert list(conversions_between(connection, "acme", at(0), END_US, [])) == []


def test_journeys_by_key(database: str, connection: psycopg.Connection) -> None:
    run(database, [[touch("t1", 1), touch("t2", 7), sale("c1", 3)]])
    (journey,) = journeys_by_key(connection, [("acme", "a:d1"), ("acme", "a:nobody")])
    assert (journey.first_event_at, journey.last_event_at, journey.closed_at) == (at(1), at(7), None)
    assert journeys_by_key(connection, []) == []


def test_results_newest_by_version_and_as_reported(database: str, connection: psycopg.Connection) -> None:
    run(
        database,
        [
            [touch("t1", 1), sale("c1", 2), sale("c2", 2, who="a:d2")],
            [touch("t0", 0)],
            [sale("r1", 3, kind="refund", conversion_id="c1", value=2_500_000)],
        ],
    )
    connection.execute(
        "UPDATE attribution_results SET created_at = now() - interval '9 days' + version * '1 day'::interval"
    )
    keys = [("acme", "c2"), ("acme", "c1"), ("acme", "c1"), ("acme", "none")]
    newest = newest_results(connection, keys)
    assert [(result.conversion_id, result.version, result.net_value_micros) for result in newest] == [
        ("c1", 3, 7_500_000),
        ("c2", 1, 10_000_000),
    ]
    assert newest[0].delta_micros == -2_500_000
    assert [touchpoint["event_id"] for touchpoint in newest[0].touchpoints] == ["t0", "t1"]
    assert all(sum(model["micros"]) == 7_500_000 for model in newest[0].models)
    (second,) = results_of_versions(connection, [("acme", "c1", 2), ("acme", "c2", 2)])
    assert (second.version_reason, second.net_value_micros) == ("late_touchpoint", 10_000_000)
    report = newest_results(connection, [("acme", "c1")], as_reported_at=second.stored_at)
    assert report == [second]
    before = second.stored_at - timedelta(days=3)
    assert newest_results(connection, [("acme", "c1")], as_reported_at=before) == []
    assert newest_results(connection, []) == []
    assert results_of_versions(connection, []) == []


def disorder(seed: int) -> list[SampleEvent]:
    """Events of a few people whose devices, links and corrections collide, in random order."""
    chance = random.Random(seed)
    devices, users = [f"d{n}" for n in range(5)], [f"u{n}" for n in range(3)]
    events: list[SampleEvent] = []
    for number in range(60):
        both = {"anonymous_id": chance.choice(devices)} if chance.random() < 0.2 else {}
        who = f"u:{chance.choice(users)}" if both or chance.random() < 0.3 else f"a:{chance.choice(devices)}"
        hours = chance.randrange(200)
        if chance.random() < 0.7:
            events.append(touch(f"t{number}", hours, who=who, channel=chance.choice(["email", "direct"]), **both))
        else:
            kind = chance.choice(["conversion", "conversion", "refund", "restatement", "cancellation"])
            about = f"c{chance.randrange(12)}"
            value = chance.randrange(1, 9) * 1_000_000
            events.append(sale(f"e{number}", hours, who=who, kind=kind, conversion_id=about, value=value, **both))
    events += [link(f"l{n}", chance.choice(devices), chance.choice(users), chance.randrange(200)) for n in range(6)]
    chance.shuffle(events)
    return events


@pytest.mark.parametrize("seed", range(4))
def test_a_journey_rebuilt_from_raw_events_is_what_was_stitched(
    database: str, connection: psycopg.Connection, seed: int
) -> None:
    events = disorder(seed)
    with InProcess(database) as stages:
        for start in range(0, len(events), 7):
            stages.stitch(*events[start : start + 7])
    people = [("acme", f"a:d{n}") for n in range(5)] + [("acme", f"u:u{n}") for n in range(3)]
    rebuilt = rebuild_journeys(connection, people)
    stored = touchpoints_of_people(connection, [PersonAndTime(*person) for person in people])
    assert [list(journey.touchpoints) for journey in rebuilt] == stored
    assert sum(map(len, stored)) == sum(type(event).NAME == "touchpoint" for event in events)
    conversions = {
        (c.conversion_id, c.journey_key, c.converted_at, c.received_at, c.gross_value_micros, c.net_value_micros)
        for c in conversions_between(connection, "acme", at(0), END_US)
    }
    assert conversions
    assert conversions == {
        (c.conversion_id, j.journey_key, c.converted_at, c.received_at, c.gross_value_micros, c.net_value_micros)
        for j in rebuilt
        for c in j.conversions
    }


def test_nobody_asked_for_is_nobody_rebuilt(connection: psycopg.Connection) -> None:
    assert rebuild_journeys(connection, []) == []
    (nobody,) = rebuild_journeys(connection, [("acme", "u:nobody")])
    assert (nobody.touchpoints, nobody.conversions) == ((), ())


def test_the_page_on_reading_runs(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(database, [[touch("t1", 1), touch("t2", 2, channel="direct"), sale("c1", 3), sale("c2", 4, who="a:d2")]])
    monkeypatch.setenv("DATABASE_URL", database)
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "subscribe.md").read_text(encoding="utf-8")
    block = page.partition("## Python, from the store")[2].partition("```python\n")[2].partition("```")[0]
    exec(compile(block, "docs/how-to/subscribe.md", "exec"), {})  # noqa: S102  # our own page
    assert capsys.readouterr().out.splitlines() == ["c1 ['email', 'direct']", "c2 []", "20000000"]
