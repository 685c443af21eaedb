"""A batch that concerns people whom it does not name locks them all at once: it must not try for ever."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attributary.consumers.store.connection import connect
from tests.factories.samples import DAY_US, HOUR_US, START_US, records, sale, touch
from tests.pipeline_harness import InProcess

pytestmark = pytest.mark.postgres


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
