"""From records to rows: each ends as a row, a repeat or a dead letter, and the same row wins in any order."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.identity_rules import LISTED, WORD, IdentityRules
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters.tenant_rules import TenantRules
from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.stitcher.decode import Decoder, content_hash, link_candidates, rank
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.connection import connect
from tests.factories.samples import START_US, codec, link, records, sale, touch

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from attributary.consumers.runtime.records import Record
    from tests.factories.samples import SampleEvent


def cut_off(record: Record) -> Record:
    return replace(record, value=(record.value or b"")[:14])


choices = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["email", "direct"]), st.booleans()), max_size=12)


@given(choices, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_each_record_ends_once_and_the_winner_does_not_depend_on_order(
    drawn: list[tuple[str, str, bool]], chance: random.Random
) -> None:
    batch = records([touch(event_id, channel=channel) for event_id, channel, _ in drawn])
    batch = [cut_off(record) if bad else record for record, (_, _, bad) in zip(batch, drawn, strict=True)]
    decoder = Decoder(codec())
    first = decoder.decode(batch)
    assert len(first.touchpoints) + len(first.repeats) + len(first.dead_letters) == len(batch)
    shuffled = list(batch)
    chance.shuffle(shuffled)
    second = decoder.decode(shuffled)
    assert set(first.touchpoints) == set(second.touchpoints)
    for row in first.touchpoints:
        rivals = [repeat for repeat in first.repeats if repeat.event_id == row.event_id]
        assert all(rank(row) < rank(rival) for rival in rivals)


def test_of_several_contents_the_first_in_the_log_is_the_event() -> None:
    batch = records([touch("t"), touch("t"), touch("t", channel="direct")])
    for order in permutations(batch):
        found = Decoder(codec()).decode(order)
        assert [row.offset for row in found.touchpoints] == [0]
        assert sorted(row.offset for row in found.repeats) == [1, 2]


def test_one_event_id_in_two_tenants_or_topics_is_two_events() -> None:
    batch = Decoder(codec()).decode(
        records([touch("e"), touch("e", tenant_id="else"), sale("e"), link("e", "d1", "jane")])
    )
    assert (len(batch.touchpoints), len(batch.conversion_events), len(batch.links)) == (2, 1, 1)
    assert batch.repeats == []


def test_the_content_hash_is_that_of_the_event_in_both_framings() -> None:
    value = codec().encode("touchpoint", touch("t").to_record())
    assert value[:2] == b"\xc3\x01"
    assert content_hash(value) == content_hash(b"\x00\x00\x00\x00\x07" + value[10:])
    assert content_hash(value) != content_hash(value + b"x")
    assert -(2**63) <= content_hash(value) < 2**63


def test_a_row_holds_what_was_sent_and_no_personal_data() -> None:
    event = sale("s", user_data=None, client_ip_address="203.0.113.9", client_user_agent="Firefox", order_id="o-1")
    (row,) = Decoder(codec()).decode(records([event])).conversion_events
    assert (row.conversion_id, row.identity_key, row.order_id) == ("s", "a:d1", "o-1")
    assert "203.0.113.9" not in row.details
    assert "Firefox" not in row.details
    (touched,) = Decoder(codec()).decode(records([touch("t", campaign_id="7", utm_source="news")])).touchpoints
    assert touched.campaign == "7"
    assert json.loads(touched.details) == {"campaign_id": "7", "utm_source": "news"}
    assert touched.received_at == START_US


def test_events_that_name_both_ids_are_links_too() -> None:
    batch = Decoder(codec()).decode(
        records([touch("t", 1, who="u:jane", anonymous_id="d1"), touch("x", 1, who="a:d2"), link("l", "d3", "joe", 2)])
    )
    found = link_candidates([*batch.touchpoints, *batch.links])
    assert [(one.anonymous_id, one.user_id, one.event_id) for one in found] == [("d1", "jane", "t"), ("d3", "joe", "l")]


@pytest.fixture
def stage(database: str) -> Iterator[StitcherStage]:
    found = StitcherStage(database, codec(), LookbackPolicy.parse(DEFAULT_POLICY), 0.5)
    yield found
    found.close()


def test_one_record_that_postgres_cannot_hold_does_not_hold_up_the_others(stage: StitcherStage, database: str) -> None:
    batch = records([touch("t1"), touch("nul", properties={"note": "a\x00b"}), sale("c1", 1)])
    outcome = stage.handle(batch)
    assert [(letter.record.offset, letter.stage) for letter in outcome.dead_letters] == [(1, "validate")]
    assert "a\x00b" not in outcome.dead_letters[0].reason
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT event_id FROM attribution_touchpoints").fetchall() == [("t1",)]
    assert len(outcome.messages) == 1


def test_a_batch_that_is_mostly_poison_stops_before_the_first_write(stage: StitcherStage, database: str) -> None:
    batch = records([touch(f"t{number}") for number in range(100)])
    batch = [cut_off(record) if record.offset % 4 else record for record in batch]
    with pytest.raises(Fatal, match="ATTRIBUTION_MAX_POISON_SHARE"):
        stage.handle(batch)
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_touchpoints").fetchone() == (0,)


def test_a_replay_of_the_record_that_raised_a_version_asks_again(stage: StitcherStage) -> None:
    batch = records([touch("t1"), sale("c1", 1)])
    first = stage.handle(batch).messages
    assert stage.handle(batch).messages == first  # the crash came between Postgres and Kafka
    assert stage.handle([batch[0]]).messages == []  # this one raised nothing
    assert stage.handle([batch[1]]).messages == first


def test_b6_ids_are_stored_in_normal_form_and_placeholders_become_dead_letters() -> None:
    events: list[SampleEvent] = [
        touch("t1", anonymous_id=" d1\u200b"),
        link("l1", "d1\xa0", "\ufeffjane"),
        sale("s1", anonymous_id=None, user_id="jane "),
        touch("t2", anonymous_id="\\N"),
        touch("t3", anonymous_id="kiosk"),
    ]
    batch = Decoder(codec(), tenants=TenantRules(IdentityRules({"acme": ["kiosk"]}))).decode(records(events))
    assert [row.identity_key for row in batch.touchpoints] == ["a:d1"]
    assert [row.identity_key for row in batch.conversion_events] == ["u:jane"]
    assert [(row.anonymous_id, row.user_id) for row in batch.links] == [("d1", "jane")]
    reasons = [letter.reason for letter in batch.dead_letters]
    assert reasons == [f"touchpoint: anonymous_id: names nobody: {rule}" for rule in (WORD, LISTED)]
