"""Devices that a suppressed person names go with a later erasure; nothing else of the dropped events is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.consumers.stitcher.stitch import stitch
from attributary.consumers.store.erasure.entries import Entry, Hasher, RequestRow
from attributary.consumers.store.erasure.removal import StatedLink, keep_links
from tests.factories.samples import HOUR_US, START_US, link, sale, touch
from tests.pipeline_harness import InProcess, carry_out

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres
HASHER = Hasher("a key of these tests")


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as stages:
        stages.stitcher._hasher = HASHER
        yield stages


def request(mode: str, hours: float, user: str = "ann") -> RequestRow:
    at = START_US + int(hours * HOUR_US)
    return RequestRow("acme", f"{mode}-{user}-{hours}", "user", mode, user, at, at, None)


def stored(dsn: str, what: str) -> list[Any]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(f"SELECT {what} ORDER BY 1".encode()).fetchall()


TOUCHES = "event_id FROM attribution_touchpoints"
DROPPED = "event_id, anonymous_id, user_id FROM attribution_dropped_links"


def test_a_device_named_while_its_user_was_suppressed_goes_with_the_user(stages: InProcess, database: str) -> None:
    stages.publish(touch("before", 1, who="a:phone"), touch("others", 1, who="a:tablet"))
    carry_out(database, [request("suppress", 2)], HASHER)
    stages.publish(
        link("l1", "phone", "ann", 3),
        touch("named", 3.5, user_id="ann", anonymous_id="laptop"),
        touch("later", 4, who="a:phone"),
        touch("laptop", 4, who="a:laptop"),
        link("l2", "tablet", "bob", 4),
        link("l3", "tablet", "ann", 5),
    )
    assert stored(database, TOUCHES) == [("before",), ("laptop",), ("later",), ("others",)]
    assert stored(database, DROPPED) == [
        ("l1", "phone", "ann"), ("l3", "tablet", "ann"), ("named", "laptop", "ann"),
    ]  # fmt: skip
    assert stored(database, "user_id FROM attribution_identities") == [("bob",)]
    stages.publish(link("l1", "phone", "ann", 3))  # once more: nothing new
    carry_out(database, [request("delete", 6)], HASHER)
    assert stored(database, TOUCHES) == [("others",)]  # bob's device stays with bob
    assert stored(database, DROPPED) == []
    assert stored(database, "event_id FROM attribution_identity_links") == [("l2",)]
    # Late ones of before the erasure take their device along, those of after it are dropped and leave nothing.
    stages.publish(touch("tv", 1, who="a:tv"), touch("car", 7, who="a:car"))
    batch = [link("l4", "tv", "ann", 5), link("l5", "car", "ann", 7)]
    stages.publish(*batch)
    carry_out(database, [], HASHER)
    assert stored(database, TOUCHES) == [("car",), ("others",)]
    assert stored(database, DROPPED) == []


def test_events_that_were_stored_before_the_suppression_was_carried_out_come_to_the_same(
    stages: InProcess, database: str
) -> None:
    stages.publish(
        touch("before", 1, who="a:phone"),
        link("l1", "phone", "ann", 3),
        sale("c1", 1.5, who="u:ann"),
        sale("r1", 4, user_id="ann", anonymous_id="watch", kind="refund", conversion_id="c1", value=1_000_000),
    )
    carry_out(database, [request("suppress", 2)], HASHER)
    assert stored(database, TOUCHES) == [("before",)]
    assert stored(database, DROPPED) == [("l1", "phone", "ann"), ("r1", "watch", "ann")]
    carry_out(database, [request("delete-and-suppress", 6)], HASHER)
    assert stored(database, TOUCHES) == []
    assert stored(database, DROPPED) == []
    stages.publish(link("l9", "phone", "ann", 8))  # of an erased person nothing is kept
    assert stored(database, DROPPED) == []


def test_an_erasure_between_the_drop_and_its_note_is_seen(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.publish(touch("before", 1, who="a:phone"))
    carry_out(database, [request("suppress", 2)], HASHER)
    calls: list[int] = []

    def stitch_later(*arguments: Any, **more: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 2:  # the batch was dropped under the ledger of before, and no lock is held
            carry_out(database, [request("delete", 6)], HASHER)
        return stitch(*arguments, **more)

    monkeypatch.setattr("attributary.consumers.stitcher.stage.stitch", stitch_later)
    record = link("l1", "phone", "ann", 3)
    stages.publish(record)
    assert len(calls) >= 3
    carry_out(database, [], HASHER)
    assert stored(database, DROPPED) == []
    assert stored(database, TOUCHES) == []


def test_of_copies_of_one_event_the_first_in_the_log_is_kept(database: str) -> None:
    rows = [StatedLink("acme", "phone", "ann", 1, "l1", at) for at in (5, 3, 9)]
    with psycopg.connect(database) as connection:
        keep_links(connection, rows[:1])
        keep_links(connection, rows)
        found = connection.execute("SELECT received_at_us FROM attribution_dropped_links").fetchall()
    assert found == [(3,)]


def test_what_is_kept_is_only_what_no_erasure_concerns() -> None:
    entry = Entry().after("suppress", 10)
    assert entry.keeps_link(5, 12)
    assert not Entry().after("delete-and-suppress", 10).keeps_link(11, 12)  # dropped for good
    assert not entry.after("delete", 20).keeps_link(15, 25)  # the device follows
    assert not entry.after("delete", 20).keeps_link(22, 25)
    again = entry.after("delete", 20).after("unsuppress", 30).after("suppress", 40)
    assert again.keeps_link(45, 45)  # a person who came back, and is suppressed anew
