"""No account holds up another (S7), no event another (S8), and wrong settings cost no event (F5)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import HttpRequest, HttpResponse
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.meta import responses
from attributary.consumers.destinations.sender import REFUSES_EVERYTHING
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryState
from tests.forwarder.forwarder_factories import (
    TOPIC,
    MemoryReader,
    ScriptedTransport,
    SimulatedClock,
    conversion,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attributary.consumers.runtime.records import DeadLetter
    from tests.forwarder.conftest import MakeStage

FAST = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002)
TWO = {"acme": [AccountCredentials("1", "a", {})], "globex": [AccountCredentials("2", "b", {})]}
PARTITIONS = [(TOPIC, 0)]


def taken(request: HttpRequest) -> HttpResponse:
    events = json.loads(request.body)["data"]
    return HttpResponse(200, json.dumps({"events_received": len(events), "fbtrace_id": "T"}).encode())


def rejected(code: int = 100, subcode: int = 2804019) -> HttpResponse:
    return HttpResponse(400, json.dumps({"error": {"code": code, "error_subcode": subcode}}).encode())


def ids(request: HttpRequest) -> list[str]:
    return [event["event_id"] for event in json.loads(request.body)["data"]]


class Line:
    """What the loop and Kafka do around a stage: records come, batches are committed, the stage catches up."""

    def __init__(
        self,
        make_stage: MakeStage,
        clock: SimulatedClock,
        answer: Callable[[HttpRequest], HttpResponse],
        tenants: dict[str, list[AccountCredentials]] | None,
    ) -> None:
        self.clock, self.ledger, self.reader = clock, MemoryLedger(), MemoryReader()
        self.delivered: list[str] = []
        self.letters: list[DeadLetter] = []
        self.position = 0
        self._answer = answer
        self.transport = ScriptedTransport(self._send)
        self._make, self._tenants = make_stage, tenants
        self.start()

    def _send(self, request: HttpRequest) -> HttpResponse:
        answer = self._answer(request)
        if answer.status == 200:
            self.delivered += ids(request)
        return answer

    def start(self) -> None:
        """A new process: it knows what the ledger and Kafka know."""
        route = {} if self._tenants is None else {"credentials": Credentials("meta", None, self._tenants)}
        self.stage = self._make(
            "meta", "http://x", self.clock, ledger=self.ledger, transport=self.transport, options=FAST, route=route,
            reader=self.reader,
        )  # fmt: skip
        self.stage.read_from({PARTITIONS[0]: self.position})

    def batch(self, events: Sequence[dict[str, Any]]) -> None:
        held = self.reader.add(records(events, now_micros=self.clock.micros, first=self.position))
        self.letters += self.stage.handle(held).dead_letters
        self.position += len(held)

    def catch_up(self) -> None:
        outcome = self.stage.catch_up(PARTITIONS, is_idle=True)
        self.letters += outcome.dead_letters
        if outcome.on_committed is not None:
            outcome.on_committed()

    def states(self) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        for key, row in self.ledger.rows.items():
            place = (key.tenant_id, row.state.value)
            found[place] = found.get(place, 0) + 1
        return found


def of(tenant: str, number: int, clock: SimulatedClock, **changes: Any) -> list[dict[str, Any]]:
    return [conversion(clock.micros, tenant_id=tenant, **changes) for _ in range(number)]


def slow(clock: SimulatedClock, answer: HttpResponse) -> HttpResponse:
    clock.sleep(9.0)
    return answer


TROUBLES: dict[str, Callable[[SimulatedClock], HttpResponse]] = {
    "429 for an hour": lambda _: HttpResponse(429, headers={"retry-after": "3600"}),
    "rate limit by code": lambda _: HttpResponse(500, b'{"error":{"code":17}}'),
    "dead token": lambda _: HttpResponse(400, b'{"error":{"code":190}}'),
    "wrong app secret": lambda _: HttpResponse(
        400, b'{"error":{"code":100,"message":"Invalid appsecret_proof provided in the API argument"}}'
    ),
    "no permission": lambda _: HttpResponse(403, b'{"error":{"code":200}}'),
    "broken server": lambda _: HttpResponse(503),
    "no connection": lambda _: HttpResponse(0, fault="ConnectError"),
    "no answer": lambda _: HttpResponse(0, fault="ReadTimeout", perhaps_sent=True),
    "refuses everything": lambda _: rejected(),
    "slow refusal": lambda clock: slow(clock, HttpResponse(503)),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_s7_an_account_in_trouble_holds_up_no_other(trouble: str, clock: SimulatedClock, make_stage: MakeStage) -> None:
    ends = clock.monotonic() + 3_600
    asked: list[str] = []

    def answer(request: HttpRequest) -> HttpResponse:
        account = request.url.split("/")[-2]
        asked.append(account)
        return TROUBLES[trouble](clock) if account == "1" and clock.monotonic() < ends else taken(request)

    line = Line(make_stage, clock, answer, TWO)
    mine = [of("acme", 20, clock), of("acme", 20, clock)]
    line.batch([*mine[0], *of("globex", 20, clock)])
    assert line.states() == {("acme", "pending"): 20, ("globex", "sent"): 20}
    assert "1" in asked, "the fault fired"
    assert all(row.reason for row in line.ledger.rows.values() if row.state is DeliveryState.PENDING), "explained"
    line.batch([*mine[1], *of("globex", 20, clock)])
    assert line.states() == {("acme", "pending"): 40, ("globex", "sent"): 40}
    while clock.monotonic() < ends:
        line.catch_up()
        clock.sleep(30.0)
        line.batch(of("globex", 1, clock))
    assert line.states()["acme", "pending"] == 40
    assert asked.count("1") < 3_600 / 5 * 8, "it is asked now and then, not all the time"
    clock.sleep(120.0)
    for _ in range(3):
        line.catch_up()
    assert line.states()["acme", "sent"] == 40
    assert sorted(line.delivered) == sorted(set(line.delivered)), "exactly once"
    order = [event for event in line.delivered if event in {e["event_id"] for e in mine[0] + mine[1]}]
    assert order == [e["event_id"] for e in mine[0] + mine[1]] or trouble == "refuses everything"
    assert line.letters == []
    asked.clear()
    line.batch(of("acme", 5, clock))
    assert asked == ["1"], "nothing is left: new events go at once"


def test_s7_a_new_process_takes_over_what_was_left_behind(clock: SimulatedClock, make_stage: MakeStage) -> None:
    is_limited = True

    def answer(request: HttpRequest) -> HttpResponse:
        if "/1/" in request.url and is_limited:
            return HttpResponse(429, headers={"retry-after": "3600"})
        return taken(request)

    line = Line(make_stage, clock, answer, TWO)
    first = of("acme", 3, clock)
    line.batch(first)
    line.start()
    later = of("acme", 3, clock, occurred_at=clock.micros)
    line.batch([*later, *of("globex", 1, clock)])
    assert line.states() == {("acme", "pending"): 6, ("globex", "sent"): 1}, "the new ones wait behind the old ones"
    is_limited = False
    line.start()
    line.catch_up()
    assert line.delivered[-6:] == [event["event_id"] for event in first + later]
    line.start()
    line.catch_up()
    assert line.states() == {("acme", "sent"): 6, ("globex", "sent"): 1}
    assert len(line.delivered) == 7


def test_s7_a_batch_that_was_not_committed_comes_by_kafka_and_not_twice(
    clock: SimulatedClock, make_stage: MakeStage
) -> None:
    line = Line(make_stage, clock, taken, TWO)
    events = of("acme", 5, clock)
    held = line.reader.add(records(events, now_micros=clock.micros))
    line.ledger.claim([])
    line.stage.handle(held)
    line.start()  # from 0 again: the process ended before the commit
    line.catch_up()
    line.batch(events)
    assert sorted(line.delivered) == sorted(event["event_id"] for event in events)


def test_s7_a_portion_is_bounded_however_many_are_pending(clock: SimulatedClock, make_stage: MakeStage) -> None:
    is_limited = True

    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(429, headers={"retry-after": "60"}) if is_limited else taken(request)

    line = Line(make_stage, clock, answer, TWO)
    template = records(of("acme", 1, clock), now_micros=clock.micros)[0]
    for start in range(0, 6_000, 1_000):
        line.batch([event | {"event_id": f"e{start + n}"} for n in range(1_000) for event in of("acme", 1, clock)])
    assert template.value
    assert line.reader.asked == 0, "while an account is on hold nothing is read for it"
    is_limited = False
    clock.sleep(61)
    line.reader.asked = 0
    line.catch_up()
    assert 0 < line.reader.asked <= 6_100
    for _ in range(5):
        line.catch_up()
    assert line.states() == {("acme", "sent"): 6_000}
    assert len(line.delivered) == 6_000


def test_s7_what_kafka_holds_no_more_is_told_and_holds_up_nothing(clock: SimulatedClock, make_stage: MakeStage) -> None:
    is_limited = True

    def answer(request: HttpRequest) -> HttpResponse:
        return HttpResponse(429) if is_limited else taken(request)

    line = Line(make_stage, clock, answer, TWO)
    events = of("acme", 4, clock)
    line.batch(events)
    del line.reader.held[next(iter(line.reader.held))]
    is_limited = False
    clock.sleep(3_601)
    line.catch_up()
    assert line.states() == {("acme", "sent"): 3, ("acme", "expired"): 1}
    row = line.ledger.rows[DeliveryKey("acme", "meta", events[0]["event_id"])]
    assert row.reason == "Kafka does not hold the event any more"


def test_s7_another_record_at_the_place_is_never_sent(clock: SimulatedClock, make_stage: MakeStage) -> None:
    is_limited = True
    line = Line(make_stage, clock, lambda request: HttpResponse(429) if is_limited else taken(request), TWO)
    line.batch(of("acme", 2, clock))
    line.reader.add(records(of("acme", 1, clock), now_micros=clock.micros))  # the topic was made anew
    is_limited = False
    clock.sleep(61)
    line.catch_up()
    assert line.states() == {("acme", "sent"): 1, ("acme", "expired"): 1}
    assert len(line.delivered) == 1


def test_s7_with_one_account_the_partition_waits(clock: SimulatedClock, make_stage: MakeStage) -> None:
    line = Line(make_stage, clock, lambda _: HttpResponse(429, headers={"retry-after": "3600"}), None)
    with pytest.raises(Retry, match="rate limit") as caught:
        line.batch(of("acme", 3, clock))
    assert caught.value.after_seconds == pytest.approx(3_600, abs=1)


def bad_first(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 225, clock), set(range(25))


def bad_around(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 100, clock), {*range(45), *range(55, 100)}


def alternating(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 200, clock), set(range(0, 200, 2))


def one_tenant(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 60, clock) + of("globex", 60, clock), set(range(60))


def one_type(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 60, clock) + of("acme", 60, clock, conversion_type="lead"), set(range(60))


def newest_bad(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 60, clock), set(range(20, 60))


def one_of_many(clock: SimulatedClock) -> tuple[list[dict[str, Any]], set[int]]:
    return of("acme", 1_000, clock), {777}


@pytest.mark.parametrize("tenants", [None, {"*": [AccountCredentials("1", "a", {})]}], ids=["one account", "file"])
@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (bad_first, 70), (bad_around, 400), (alternating, 420), (one_tenant, 140), (one_type, 140), (newest_bad, 110),
        (one_of_many, 22),
    ],
)  # fmt: skip
def test_s8_good_events_go_and_bad_ones_are_dead_letters(
    kind: Any, calls: int, tenants: Any, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    events, wrong = kind(clock)
    for number, event in enumerate(events):
        event["occurred_at"] += number * 1_000  # the first are the oldest
    bad = {events[number]["event_id"] for number in wrong}
    line = Line(make_stage, clock, lambda request: rejected() if bad & set(ids(request)) else taken(request), tenants)
    line.batch(events)
    for _ in range(10):  # a sample may miss the few good ones; the next looks at more
        clock.sleep(61)
        line.catch_up()
    assert {letter.record.offset for letter in line.letters} == wrong
    assert {letter.reason for letter in line.letters} == {"refused by Meta"}
    assert len(line.letters) == len(wrong), "each once"
    assert set(line.delivered) == {event["event_id"] for event in events} - bad
    assert len(line.transport.requests) <= calls
    assert {row.state.value for row in line.ledger.rows.values()} == {"sent", "rejected"}


@pytest.mark.parametrize("tenants", [None, {"*": [AccountCredentials("1", "a", {})]}], ids=["one account", "file"])
def test_s8_a_batch_of_bad_events_does_not_hide_the_good_ones_behind_it(
    tenants: Any, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    bad: set[str] = set()
    line = Line(make_stage, clock, lambda request: rejected() if bad & set(ids(request)) else taken(request), tenants)
    wrong = of("acme", 500, clock)
    bad.update(event["event_id"] for event in wrong)
    line.batch(wrong)
    assert line.states() == {("acme", "pending"): 500}, "nothing is dead-lettered yet: the settings may be wrong"
    assert len(line.transport.requests) < 40
    line.batch(of("globex", 3, clock))
    assert line.states()["globex", "sent"] == 3, "another tenant's go at once"
    clock.sleep(1)
    line.batch(of("acme", 3, clock))
    for _ in range(3):
        clock.sleep(61)
        line.catch_up()
        line.batch(of("globex", 1, clock))
    assert line.states()["acme", "sent"] == 3
    assert line.states()["acme", "rejected"] == len(line.letters) == 500


def test_s8_when_everything_is_refused_the_account_stops_and_nothing_is_dead_lettered(
    clock: SimulatedClock, make_stage: MakeStage
) -> None:
    is_wrong = True
    line = Line(make_stage, clock, lambda request: rejected() if is_wrong else taken(request), None)
    line.batch(of("acme", 100, clock))
    asked = len(line.transport.requests)
    assert asked < 30
    assert metrics.forward_channels_stopped.labels("meta")._value.get() == 1
    assert metrics.forward_left_behind_tenants.labels("meta")._value.get() == 1
    line.catch_up()
    assert len(line.transport.requests) == asked, "a stopped account is not asked again at once"
    for _ in range(60):
        clock.sleep(61)
        line.catch_up()
    assert len(line.transport.requests) - asked <= 60 * 70
    assert line.states() == {("acme", "pending"): 100}
    assert all((row.reason or "").startswith(REFUSES_EVERYTHING) for row in line.ledger.rows.values())
    is_wrong = False
    clock.sleep(61)
    line.catch_up()
    assert line.states() == {("acme", "sent"): 100}
    assert line.letters == []
    assert metrics.forward_channels_stopped.labels("meta")._value.get() == 0


@pytest.mark.parametrize("tenants", [None, TWO], ids=["one account", "file"])
def test_f5_wrong_settings_of_a_small_shop_cost_no_event(
    tenants: Any, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    is_wrong = True
    line = Line(make_stage, clock, lambda request: rejected(100, 34) if is_wrong else taken(request), tenants)
    for _ in range(20):
        line.batch(of("acme", 1, clock))
        line.catch_up()
        clock.sleep(30)
    assert line.states() == {("acme", "pending"): 20}
    assert line.letters == []
    is_wrong = False
    clock.sleep(61)
    line.catch_up()
    assert line.states() == {("acme", "sent"): 20}


def test_f5_one_bad_event_of_a_proven_account_is_a_dead_letter_at_once(
    clock: SimulatedClock, make_stage: MakeStage
) -> None:
    bad = conversion(clock.micros)
    line = Line(
        make_stage, clock, lambda request: rejected() if bad["event_id"] in ids(request) else taken(request), TWO
    )
    line.batch(of("acme", 1, clock))
    clock.sleep(3_600)
    line.batch([bad])
    assert [letter.reason for letter in line.letters] == ["refused by Meta"]


def test_f5_the_first_event_after_a_start_waits_for_a_delivery(clock: SimulatedClock, make_stage: MakeStage) -> None:
    bad = conversion(clock.micros)
    line = Line(
        make_stage, clock, lambda request: rejected() if bad["event_id"] in ids(request) else taken(request), TWO
    )
    line.batch([bad])
    assert line.letters == []
    clock.sleep(6)
    line.batch(of("acme", 1, clock))
    line.catch_up()
    assert [letter.record.offset for letter in line.letters] == [0]
    assert line.states() == {("acme", "sent"): 1, ("acme", "rejected"): 1}


def test_f5_meta_says_a_wrong_signature_in_its_text_only() -> None:
    body = b'{"error":{"message":"Invalid appsecret_proof provided in the API argument","code":100}}'
    found = responses.classify(HttpResponse(400, body), 1)
    assert (found.response_class.value, found.reason) == (
        "channel_dead",
        "the signature is wrong: look at META_APP_SECRET",
    )


def test_a_dead_letter_of_what_was_left_behind_is_not_lost_to_a_kill(
    clock: SimulatedClock, make_stage: MakeStage
) -> None:
    bad = conversion(clock.micros)
    is_limited = True

    def answer(request: HttpRequest) -> HttpResponse:
        if is_limited:
            return HttpResponse(429)
        return rejected() if bad["event_id"] in ids(request) else taken(request)

    line = Line(make_stage, clock, answer, TWO)
    line.batch([bad, *of("acme", 3, clock)])
    is_limited = False
    clock.sleep(61)
    lost = line.stage.catch_up(PARTITIONS, is_idle=True)
    assert [letter.record.offset for letter in lost.dead_letters] == [0]
    line.start()  # the process ended before the transaction with the dead letter was committed
    line.catch_up()
    if line.states().get(("acme", "rejected"), 0) == 0:  # no delivery since the start: it waits for one
        clock.sleep(6)
        line.batch(of("acme", 1, clock))
        line.catch_up()
    assert [letter.record.offset for letter in line.letters] == [0]
    assert line.states()["acme", "rejected"] == 1
