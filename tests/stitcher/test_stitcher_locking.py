"""A batch that concerns people whom it does not name locks them all at once: it must not try for ever."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.stitcher.decode import Decoder
from attributary.consumers.store.connection import connect
from tests.factories.samples import DAY_US, HOUR_US, START_US, codec, records, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from attributary.consumers.store.events.rows import ConversionEventRow, TouchpointRow
    from attributary.producers.records import Conversion, Touchpoint

pytestmark = pytest.mark.postgres


def hashed(event: Conversion | Touchpoint) -> int:
    batch = Decoder(codec()).decode(records([event]))
    rows: list[ConversionEventRow | TouchpointRow] = [*batch.conversion_events, *batch.touchpoints]
    return rows[0].content_hash


def test_many_conversions_that_go_to_people_whom_the_batch_does_not_name(database: str) -> None:
    # Each purchase is reported twice, by the browser and, later, by the server, which knows the customer.
    browser = [sale(f"b{n}", 1, who=f"a:d{n}", conversion_id=f"c{n}") for n in range(30)]
    server = [sale(f"s{n}", 2, who=f"u:user{n}", conversion_id=f"c{n}") for n in range(30)]
    with InProcess(database) as stages:
        stages.publish(*browser, *server)
        # The browser's are sent again with another time, and with contents that win: the server's were first then.
        again = []
        for n, event in enumerate(browser):
            later = (sale(f"b{n}", 3, who=f"a:d{n}", conversion_id=f"c{n}", order_id=str(try_)) for try_ in count())
            again.append(next(each for each in later if hashed(each) < hashed(event)))
        results = stages.publish(*again)
    assert {result["conversion_id"]: result["journey_key"] for result in results} == {
        f"c{n}": f"u:user{n}" for n in range(30)
    }


def test_a_content_that_gives_way_to_another_persons_widens_no_journey_by_its_arrival(database: str) -> None:
    """The person is locked, and nothing was seen of it: neither its bounds nor its silence change."""
    first = touch("t1", 1, who="u:jane")
    later = (touch("t1", 2, who="u:joe", campaign_name=str(try_)) for try_ in count())
    second = next(each for each in later if hashed(each) < hashed(first))
    question = (
        "SELECT journey_key, first_event_us, last_event_us, last_received_us, closed_at IS NULL FROM "
        "attribution_journeys ORDER BY 1"
    )
    with InProcess(database) as stages, connect(database, application_name="tests", autocommit=True) as connection:
        stages.publish(first)
        connection.execute("UPDATE attribution_journeys SET closed_at = now()")
        (late,) = records([second], first=1)
        late.timestamp_ms += 40 * 86_400_000
        stages.stitcher.handle([late])
        jane, joe = connection.execute(question).fetchall()
        events = connection.execute("SELECT identity_key FROM attribution_touchpoints").fetchall()
    at = [START_US + hours * HOUR_US for hours in (1, 2)]
    assert events == [("u:joe",)]
    assert joe == ("u:joe", at[1], at[1], at[1] + 40 * DAY_US, True)
    assert jane == ("u:jane", at[0], at[0], at[0], False)
