"""A batch that concerns people whom it does not name locks them all at once: it must not try for ever."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from tests.factories.samples import DAY_US, HOUR_US, START_US, link, records, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from tests.factories.samples import SampleEvent

pytestmark = pytest.mark.postgres

_BOUNDS = "SELECT journey_key, first_event_us, last_event_us, last_received_us FROM attribution_journeys ORDER BY 1"
_EMPTY = """TRUNCATE attribution_touchpoints, attribution_conversion_events, attribution_identity_links,
attribution_identities, attribution_conversions, attribution_journeys, attribution_positions"""


def test_many_conversions_that_go_to_people_whom_the_batch_does_not_name(database: str) -> None:
    # Each purchase is reported twice, by the browser and, later, by the server, which knows the customer.
    browser = [sale(f"b{n}", 1, who=f"a:d{n}", conversion_id=f"c{n}") for n in range(30)]
    server = [sale(f"s{n}", 2, who=f"u:user{n}", conversion_id=f"c{n}") for n in range(30)]
    with InProcess(database) as stages:
        stages.publish(*browser, *server)
        # The browser's have other contents at the log's beginning, which is read last: the server's are first then.
        again = records([sale(f"b{n}", 3, who=f"a:d{n}", conversion_id=f"c{n}") for n in range(30)], first=1_000)
        stages.read([replace(record, timestamp_ms=START_US // 1000) for record in again])
        results = stages.answer()
    assert {result["conversion_id"]: result["journey_key"] for result in results} == {
        f"c{n}": f"u:user{n}" for n in range(30)
    }


def test_a_content_that_gives_way_to_another_persons_widens_no_journey_by_its_arrival(database: str) -> None:
    """The person is locked, and nothing was seen of it: neither its bounds nor its silence change."""
    first, second = touch("t1", 1, who="u:jane"), touch("t1", 2, who="u:joe")
    question = (
        "SELECT journey_key, first_event_us, last_event_us, last_received_us, closed_at IS NULL FROM "
        "attribution_journeys ORDER BY 1"
    )
    with InProcess(database) as stages, connect(database, application_name="tests", autocommit=True) as connection:
        (late,) = records([first], first=1)
        late.timestamp_ms += 40 * 86_400_000
        stages.read([late])
        connection.execute("UPDATE attribution_journeys SET closed_at = now()")
        stages.read(records([second]))  # the first in the log, read last
        jane, joe = connection.execute(question).fetchall()
        events = connection.execute("SELECT identity_key FROM attribution_touchpoints").fetchall()
    at = [START_US + hours * HOUR_US for hours in (1, 2)]
    assert events == [("u:joe",)]
    assert joe == ("u:joe", at[1], at[1], at[1], True)
    assert jane == ("u:jane", at[0], at[0], at[0] + 40 * DAY_US, False)


def test_an_owner_is_locked_and_not_widened_by_events_of_an_anonymous_id(database: str) -> None:
    """The bounds of both are read where the person's are asked for; how much of them depends on who was read first."""
    with InProcess(database) as stages, connect(database, application_name="tests", autocommit=True) as connection:
        stages.read(records([link("l1", "d1", "jane", 5)], first=1))
        stages.read(records([touch("t1", 1), touch("t2", 9)], first=2))
        found = connection.execute(_BOUNDS).fetchall()
    at = [START_US + hours * HOUR_US for hours in (1, 5, 9)]
    assert found == [("a:d1", at[0], at[2], at[2]), ("u:jane", at[1], at[1], 0)]


@pytest.mark.parametrize("seed", range(4))
def test_journeys_are_the_same_in_any_order_and_in_any_batches(database: str, seed: int) -> None:
    """Also where records come twice, with other arrivals, and where two contents have one event id."""
    chance = random.Random(seed)
    events: list[SampleEvent] = []
    for number in range(60):
        who, hours = chance.choice(("a:d1", "a:d2", "a:d3", "u:jane", "u:joe")), chance.randrange(400)
        name = f"e{chance.randrange(40)}"  # some twice, with other contents
        events.append(
            chance.choice(
                (
                    touch(name, hours, who=who),
                    touch(name, hours, who="u:joe", anonymous_id="d2"),
                    sale(name, hours, who=who, conversion_id=f"c{number % 7}"),
                    link(name, chance.choice(("d1", "d2", "d3")), chance.choice(("jane", "joe")), hours),
                )
            )
        )
    log = records(events)
    for record in chance.sample(log, 15):
        repeat = replace(record, offset=len(log), timestamp_ms=record.timestamp_ms + chance.randrange(10**6))
        log.append(repeat)
    found = []
    for size in (len(log), 7, 1):
        with connect(database, application_name="tests", autocommit=True) as connection:
            connection.execute(_EMPTY)
        chance.shuffle(log)
        with InProcess(database) as stages, connect(database, application_name="tests", autocommit=True) as connection:
            for start in range(0, len(log), size):
                stages.read(log[start : start + size])
            found.append(connection.execute(_BOUNDS).fetchall())
    assert found[0] == found[1] == found[2]
