"""A batch that concerns people whom it does not name locks them all at once: it must not try for ever."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.stitcher.decoding import Decoder
from tests.inprocess import InProcess
from tests.samples import codec, records, sale

if TYPE_CHECKING:
    from attributary.producers.records import Conversion

pytestmark = pytest.mark.postgres


def hashed(event: Conversion) -> int:
    (row,) = Decoder(codec()).decode(records([event])).conversion_events
    return row.content_hash


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
