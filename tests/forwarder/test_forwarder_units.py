"""The small parts: batching, waits, limiter, JSON, consent."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.destinations.destination import DeliveryResponse, PreparedEvent, RequestLimits, ResponseClass
from attributary.consumers.destinations.prepare import batches, check_consent
from attributary.consumers.destinations.rate_limiter import RateLimiter
from attributary.consumers.destinations.wire_format import amount, from_json, quantity, retry_after_seconds, to_json

prepared = st.builds(
    PreparedEvent,
    event_id=st.uuids().map(str),
    occurred_at=st.integers(0, 50),
    body=st.integers(1, 900).map(lambda size: b"x" * size),
    envelope=st.sampled_from([b'{"client_id":"1"}', b'{"client_id":"2"}', b'{"client_id":"333"}']),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(prepared, max_size=60), st.integers(1, 10), st.integers(1_000, 4_000))
def test_batches_hold_every_event_once_and_break_no_limit(events: list[PreparedEvent], most: int, room: int) -> None:
    found = list(batches(events, RequestLimits(most, room)))
    assert sorted(e.event_id for batch in found for e in batch) == sorted(e.event_id for e in events)
    for batch in found:
        assert 0 < len(batch) <= most
        assert len({event.envelope for event in batch}) == 1
        around = len(batch[0].envelope) + len(b',"events":[]')
        assert len(batch) == 1 or sum(len(event.body) + 1 for event in batch) + around <= room
        assert [event.occurred_at for event in batch] == sorted(event.occurred_at for event in batch)
    assert [batch[0].occurred_at for batch in found] == sorted(batch[0].occurred_at for batch in found)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("999999", 3_600.0),
        ("", 0.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("Tue, 24 Nov 2026 21:01:00 GMT", 60.0),
        ("Tue, 24 Nov 2026 20:00:00 GMT", 0.0),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    headers = {"retry-after": text, "date": "Tue, 24 Nov 2026 21:00:00 GMT"}
    assert retry_after_seconds(headers) == seconds
    assert retry_after_seconds({"retry-after": text}) == (seconds if text.isdigit() else 0.0)


def test_a_rate_limiter_holds_slows_and_forgets() -> None:
    limiter = RateLimiter()
    assert limiter.hold_at(0.0) is None
    limiter.observe(DeliveryResponse(ResponseClass.THROTTLED, "429", "rate limit", 30.0), 100.0)
    hold = limiter.hold_at(110.0)
    assert hold is not None
    assert (hold.reason, hold.seconds, hold.stopped) == ("rate limit", 20.0, False)
    assert limiter.hold_at(130.0) is None
    limiter.observe(DeliveryResponse(ResponseClass.DELIVERED, "200", usage_percent=85.0), 131.0)
    assert 0.5 < limiter.pause_seconds() < 1.5
    limiter.observe(DeliveryResponse(ResponseClass.DELIVERED, "200", usage_percent=96.0), 132.0)
    assert limiter.hold_at(133.0) is not None
    limiter.observe(DeliveryResponse(ResponseClass.DELIVERED, "200", usage_percent=10.0), 300.0)
    assert (limiter.hold_at(300.0), limiter.pause_seconds()) == (None, 0.0)


@pytest.mark.parametrize(
    ("answer", "held"),
    [
        (DeliveryResponse(ResponseClass.NAME_STOPPED, "400/new", "the goal is too new", 7_200.0), False),
        (DeliveryResponse(ResponseClass.DELIVERED, "200/new", "", 7_200.0, unknown_names={1: "too new"}), False),
        (DeliveryResponse(ResponseClass.DELIVERED, "200", "", 7_200.0), True),
    ],
)
def test_the_wait_of_a_refused_name_holds_no_other_type(answer: DeliveryResponse, held: bool) -> None:
    limiter = RateLimiter()
    limiter.observe(answer, 100.0)
    assert (limiter.hold_at(101.0) is not None) is held


def test_a_rate_limiter_backs_off_for_longer_each_time_until_something_is_delivered() -> None:
    limiter, failed = RateLimiter(), DeliveryResponse(ResponseClass.RETRY, "503", "server error")
    waits, now = [], 0.0
    for _ in range(6):
        limiter.back_off(failed, now, 5.0)
        hold = limiter.hold_at(now)
        assert hold is not None
        waits.append(hold.seconds)
        now += hold.seconds
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]
    limiter.observe(DeliveryResponse(ResponseClass.DELIVERED, "200"), now)
    limiter.back_off(failed, now, 5.0)
    hold = limiter.hold_at(now)
    assert hold is not None
    assert hold.seconds == 5.0


def test_a_stopped_account_is_tried_every_minute_and_lives_again() -> None:
    limiter = RateLimiter()
    limiter.observe(DeliveryResponse(ResponseClass.ACCOUNT_STOPPED, "400/190", "the access token is not valid"), 0.0)
    hold = limiter.hold_at(1.0)
    assert hold is not None
    assert hold.stopped
    assert limiter.hold_at(61.0) is None
    assert limiter.is_stopped
    limiter.observe(DeliveryResponse(ResponseClass.DELIVERED, "200"), 62.0)
    assert not limiter.is_stopped


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**15))
def test_money_is_printed_exactly(cents: int) -> None:
    printed = to_json(amount(cents * 10_000)).decode()
    whole, _, rest = printed.partition(".")
    assert "e" not in printed
    assert int(whole) * 100 + int((rest or "0").ljust(2, "0")) == cents


def test_json_survives_anything() -> None:
    assert json.loads(to_json({"a": "é\ud800"})) == {"a": "é?"}
    assert from_json(b"<html>") is None
    assert from_json(b"[" * 100_000) is None
    assert (quantity(2.0), quantity(0.5)) == (2, 0.5)


def test_consent_table() -> None:
    both = ("ad_storage", "ad_user_data")
    assert check_consent(dict.fromkeys(both, True), both) is None
    assert check_consent(None, ()) is None, "no purpose is asked for"
    assert check_consent(None, both, unknown="send") is None
    for consent in (None, {}, {"ad_storage": True}, {"ad_storage": True, "ad_user_data": False}):
        assert check_consent(consent, both) is not None
    assert check_consent({"ad_user_data": False}, both, unknown="send") is not None
