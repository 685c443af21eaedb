"""`forward retry`: what it cannot send it leaves as it was, and what it finds rejected it dead-letters (F6)."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.destination import HttpRequest, HttpResponse
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.forwarder.redelivery import again
from attributary.consumers.forwarder.tasks import as_before
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.delivery import Delivery, DeliveryKey, DeliveryOutcome, DeliveryState
from tests.forwarder.forwarder_factories import (
    MemoryReader,
    ScriptedTransport,
    SimulatedClock,
    conversion,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attributary.consumers.runtime.records import Outbound
    from tests.forwarder.conftest import MakeStage

FAST = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002, attempts=2)
LOST = HttpResponse(0, fault="ReadTimeout", perhaps_sent=True)
AWAY = HttpResponse(0, fault="ConnectError")


class Shop:
    """A forwarder that has handled some events, and a person who retries them."""

    def __init__(self, name: str, make_stage: MakeStage, clock: SimulatedClock, answer: HttpResponse) -> None:
        self.name, self.clock, self._make = name, clock, make_stage
        self.ledger, self.reader = MemoryLedger(), MemoryReader()
        self.answer: Callable[[HttpRequest], HttpResponse] = lambda _: answer
        self.requests: list[HttpRequest] = []
        self.letters: list[Outbound] = []

    def stage(self) -> Any:
        transport = ScriptedTransport(self.answer)
        self.requests = transport.requests
        return self._make(
            self.name, "http://x", self.clock, ledger=self.ledger, transport=transport, options=FAST, reader=self.reader
        )

    def forward(self, events: Sequence[dict[str, Any]]) -> None:
        try:
            self.stage().handle(self.reader.add(records(events, now_micros=self.clock.micros)))
        except Retry:
            self.clock.sleep(120)

    def rows(self) -> list[Delivery]:
        return list(self.ledger.rows.values())

    def retry(self, publish: Callable[[Sequence[Outbound]], None] | None = None) -> None:
        again(self.rows(), self.stage(), self.reader, publish or self.letters.extend)


def taken(request: HttpRequest) -> HttpResponse:
    if "data" not in (document := json.loads(request.body)):
        return HttpResponse(204)
    return HttpResponse(200, json.dumps({"events_received": len(document["data"])}).encode())


@pytest.mark.parametrize(
    "fault", [AWAY, HttpResponse(503), HttpResponse(429), HttpResponse(403)], ids=["away", "503", "429", "403"]
)
def test_f6_an_uncertain_event_stays_uncertain_while_the_destination_takes_nothing(
    fault: HttpResponse, make_stage: MakeStage, clock: SimulatedClock
) -> None:
    shop = Shop("ga4", make_stage, clock, LOST)
    shop.forward([conversion(clock.micros, conversion_type="lead")])
    (before,) = shop.rows()
    assert before.state is DeliveryState.UNCERTAIN
    shop.answer = lambda _: fault
    with pytest.raises(Retry):
        shop.retry()
    (after,) = shop.rows()
    assert (after.state, after.reason, after.first_sent_at) == (before.state, before.reason, before.first_sent_at)
    assert shop.requests, "it was tried"
    shop.answer = taken
    shop.retry()
    assert [row.state for row in shop.rows()] == [DeliveryState.SENT]


def test_f6_a_pending_event_keeps_its_doubt(make_stage: MakeStage, clock: SimulatedClock) -> None:
    shop = Shop("meta", make_stage, clock, LOST)
    shop.forward([conversion(clock.micros)])
    (before,) = shop.rows()
    assert (before.state, before.in_flight) == (DeliveryState.PENDING, True)
    shop.answer = lambda _: AWAY
    with pytest.raises(Retry, match="ConnectError"):
        shop.retry()
    (after,) = shop.rows()
    assert (after.state, after.in_flight, after.first_sent_at) == (DeliveryState.PENDING, True, before.first_sent_at)
    clock.sleep(49 * 3_600)
    shop.answer = taken
    shop.retry()
    assert [row.state for row in shop.rows()] == [DeliveryState.EXPIRED], "Meta would not see that it comes twice"


def test_f6_a_pending_event_that_was_perhaps_counted_is_not_sent_again_unasked(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    shop = Shop("ga4", make_stage, clock, AWAY)
    shop.forward([conversion(clock.micros, conversion_type="lead")])
    (row,) = shop.rows()
    shop.ledger.begin([row.key], now_micros=clock.micros)  # the process ended with the event in flight
    shop.answer = taken
    shop.retry()
    assert shop.requests == []
    assert [row.state for row in shop.rows()] == [DeliveryState.UNCERTAIN]
    shop.retry()
    assert [row.state for row in shop.rows()] == [DeliveryState.SENT], "now a person asked for it"


def rejects(bad: str) -> Callable[[HttpRequest], HttpResponse]:
    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(400, b'{"error":{"code":100}}') if bad in request.body.decode() else taken(request)

    return answer


def test_what_a_retry_finds_rejected_becomes_a_dead_letter_once(make_stage: MakeStage, clock: SimulatedClock) -> None:
    shop = Shop("meta", make_stage, clock, AWAY)
    events = [conversion(clock.micros) for _ in range(5)]
    shop.forward(events)
    shop.answer = rejects(events[2]["event_id"])
    shop.retry()
    (letter,) = shop.letters
    headers = dict(letter.headers)
    assert letter.topic.endswith(".attribution.forwarder.meta.dlq")
    assert (headers["__connect.errors.offset"], headers["__connect.errors.stage"]) == (b"2", b"send")
    assert sorted(row.state.value for row in shop.rows()) == ["rejected", "sent", "sent", "sent", "sent"]
    with pytest.raises(Retry, match="refuses everything"):
        shop.retry()  # the one that is left, alone
    assert len(shop.letters) == 1, "its dead letter is there already"
    assert sorted(row.state.value for row in shop.rows()).count("rejected") == 1
    shop.answer = taken
    shop.retry()
    assert {row.state for row in shop.rows()} == {DeliveryState.SENT}


def test_a_retry_settles_a_rejection_after_its_dead_letter(make_stage: MakeStage, clock: SimulatedClock) -> None:
    shop = Shop("meta", make_stage, clock, AWAY)
    events = [conversion(clock.micros) for _ in range(2)]
    shop.forward(events)
    shop.answer = rejects(events[0]["event_id"])

    def refuse(_letters: Sequence[Outbound]) -> None:
        raise Retry("Kafka does not take the dead letters: no answer")

    with pytest.raises(Retry, match="dead letters"):
        shop.retry(refuse)
    assert sorted(row.state.value for row in shop.rows()) == ["pending", "sent"]


def test_a_retry_of_a_rejected_event_that_still_breaks_a_rule_changes_nothing_else(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    shop = Shop("meta", make_stage, clock, AWAY)
    shop.forward([conversion(clock.micros, currency="XXX", value_micros=0, items=[])])
    (before,) = shop.rows()
    assert before.state is DeliveryState.REJECTED
    shop.answer = taken
    shop.retry()
    assert shop.rows() == [before]
    assert shop.letters == []
    assert shop.requests == []


@pytest.mark.parametrize(
    ("state", "kept"), [(DeliveryState.HELD, True), (DeliveryState.PENDING, True), (DeliveryState.REJECTED, False)]
)
def test_a_lost_answer_of_a_retry_leaves_its_doubt_where_the_event_goes_again(state: DeliveryState, kept: bool) -> None:
    row: Any = SimpleNamespace(state=state, reason="no such goal", in_flight=False, event_name="Leads")
    lost = DeliveryOutcome(DeliveryKey("acme", "bingads", "e"), DeliveryState.PENDING, "no answer", in_flight=True)
    assert as_before(lost, row).in_flight is kept
