"""An event name (rule, tag, action) that a destination does not take stops its type, loses nothing, starts again."""

from __future__ import annotations

import dataclasses
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import (
    DeliveryResponse,
    HttpResponse,
    PreparedEvent,
    ResponseClass,
)
from attributary.consumers.destinations.linkedin import responses as linkedin_responses
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.name_stops import NameStops
from attributary.consumers.destinations.outcomes import Run, without_stopped
from attributary.consumers.destinations.rate_limiter import RateLimiter
from attributary.consumers.destinations.sender import BatchSender, Shipment
from attributary.consumers.forwarder.redelivery import again
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    HeldEvents,
    Queue,
    StoppedName,
)
from attributary.local.fakes import BingAdsFake, Fault, GoogleFake, LinkedInFake, OAuthFake, XFake
from attributary.local.fakes.server import FakeServer
from tests.fixtures.pipeline import wait_until
from tests.forwarder.forwarder_factories import (
    ACCOUNTS,
    TOPIC,
    X_KEYS,
    MemoryReader,
    ScriptedTransport,
    SimulatedClock,
    account_at,
    conversion,
    destination_at,
    prepared,
    records,
)
from tests.forwarder.test_forwarder_ledger import NOW, new, postgres_ledger
from tests.forwarder.test_forwarder_more_faults import sent_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attributary.consumers.destinations.destination import HttpRequest
    from attributary.consumers.forwarder.stage import ForwarderStage
    from attributary.consumers.runtime.records import Outcome
    from attributary.consumers.store.deliveries.delivery import Ledger
    from tests.forwarder.conftest import MakeStage

PARTITIONS = [(TOPIC, 0)]
HOUR = 3_600
NAMES = {
    "linkedin": {"purchase": "104012", "lead": "104013"},
    "x": {"purchase": "o87ne", "lead": "o87nf"},
    "google": {"purchase": "7001", "lead": "7002"},
    "bingads": {"purchase": "Shop orders", "lead": "Leads"},
}
PER_TYPE = sorted(NAMES)
KNOWN = {"linkedin": "rules", "x": "tags", "google": "actions", "bingads": "goals"}
"""The attribute of each stand-in with the names that it takes."""


def fake_with(name: str, known: Sequence[str]) -> Any:
    made: dict[str, Any] = {
        "linkedin": lambda: LinkedInFake(rules=known),
        "x": lambda: XFake(keys=X_KEYS, tags=known),
        "google": lambda: GoogleFake(OAuthFake(), actions=known),
        "bingads": lambda: BingAdsFake(OAuthFake(), goals=known),
    }
    return made[name]()


class Line:
    """A stage on a stand-in that knows some names only, with Kafka as a dictionary, in simulated time."""

    def __init__(self, make_stage: MakeStage, clock: SimulatedClock, name: str, ledger: Ledger | None = None) -> None:
        self.name, self.clock, self.ledger = name, clock, ledger if ledger is not None else MemoryLedger()
        self.reader, self.position = MemoryReader(), 0
        self.purchase, self.lead = NAMES[name]["purchase"], NAMES[name]["lead"]
        self.fake = fake_with(name, [self.purchase])
        self.fake.time = lambda: clock.now_micros() / 1e6
        self.server = FakeServer(self.fake)
        self.url = self.server.__enter__().url
        self._make = make_stage
        self.start(NAMES[name])

    def start(self, names: dict[str, str]) -> None:
        """A new process, with these names in its settings."""
        made = ACCOUNTS[self.name]
        account = AccountCredentials(made.name, made.secret, made.options, names)
        self.stage: ForwarderStage = self._make(
            self.name, self.url, self.clock, ledger=self.ledger, reader=self.reader,
            route={"credentials": Credentials(self.name, account)},
        )  # fmt: skip
        self.stage.read_from({PARTITIONS[0]: self.position})

    def batch(self, kinds: Sequence[str]) -> Outcome:
        now = self.clock.micros
        events = [conversion(now, conversion_type=kind) for kind in kinds]
        held = self.reader.add(records(events, now_micros=now, first=self.position))
        self.position += len(held)
        return self.stage.handle(held)

    def live_on(self, seconds: float) -> None:
        """Let time pass and the stage catch up, in small steps."""
        for _ in range(int(seconds / 20)):
            self.clock.sleep(20.0)
            outcome = self.stage.catch_up(PARTITIONS, is_idle=True)
            if outcome.on_committed is not None:
                outcome.on_committed()

    def states(self) -> Counter[str]:
        return Counter({count.state.value: count.deliveries for count in self.ledger.counts()})

    def taken(self) -> Counter[str]:
        """Events that the stand-in has, by name; at Google the second part of the key."""
        return Counter(
            key[1] if self.name == "google" else key[0].rpartition(":")[2] for key in self.fake.received.by_key
        )


@pytest.fixture(params=PER_TYPE)
def line(request: pytest.FixtureRequest, make_stage: MakeStage, clock: SimulatedClock) -> Iterator[Line]:
    made = Line(make_stage, clock, request.param)
    yield made
    made.server.__exit__(None, None, None)


def stopped_metric(name: str) -> float:
    gauge: Any = metrics.forward_names_stopped.labels(name)
    return float(gauge._value.get())


def test_a_name_that_is_not_taken_holds_its_type_and_no_other(line: Line) -> None:
    outcome = line.batch(["purchase", "lead"] * 50)
    assert not outcome.dead_letters
    assert line.states() == {"sent": 50, "held": 50}
    assert line.taken() == {line.purchase: 50}
    (stop,) = line.ledger.stopped_names(line.name)
    assert (stop.tenant_id, stop.destination, stop.event_name) == ("acme", line.name, line.lead)
    assert stop.reason
    assert line.lead not in stop.reason
    # The next batch costs the stopped type no request at all.
    calls = line.fake.received.calls
    line.batch(["lead"] * 20)
    assert line.fake.received.calls == calls
    line.batch(["purchase"] * 20)
    assert line.states() == {"sent": 70, "held": 70}
    line.live_on(60)
    assert stopped_metric(line.name) == 1


def test_what_is_held_goes_after_a_person_says_that_the_name_is_good(line: Line) -> None:
    line.batch(["lead"] * 30)
    setattr(line.fake, KNOWN[line.name], frozenset((line.purchase, line.lead)))
    line.live_on(120)  # nothing tries by itself so soon
    assert line.states() == {"held": 30}
    line.ledger.resume_names(line.ledger.stopped_names(line.name))
    line.live_on(120)
    assert line.states() == {"sent": 30}
    assert line.taken() == {line.lead: 30}
    assert stopped_metric(line.name) == 0


def test_a_corrected_setting_sends_what_was_held_under_the_new_name(line: Line) -> None:
    line.batch(["lead"] * 30 + ["purchase"] * 5)
    line.start({"purchase": line.purchase, "lead": line.purchase})
    line.live_on(120)
    assert line.states() == {"sent": 35}
    assert line.taken() == {line.purchase: 35}
    assert not line.ledger.stopped_names(line.name)


def test_a_type_that_the_settings_name_no_more_is_skipped(line: Line) -> None:
    line.batch(["lead"] * 3)
    line.start({"purchase": line.purchase})
    line.live_on(120)
    assert line.states() == {"skipped": 3}


def test_one_event_an_hour_tries_a_stopped_name_and_finds_it_good(line: Line) -> None:
    line.batch(["lead"] * 40)
    calls = line.fake.received.calls
    line.live_on(1.1 * HOUR)
    assert line.fake.received.calls == calls + 1  # one request with one event
    assert line.states() == {"held": 40}
    (stop,) = line.ledger.stopped_names(line.name)
    assert stop.refusals >= 2
    setattr(line.fake, KNOWN[line.name], frozenset())
    line.live_on(1.2 * HOUR)
    assert line.states() == {"sent": 40}
    assert line.taken() == {line.lead: 40}
    assert not line.ledger.stopped_names(line.name)


def test_a_name_that_is_resumed_too_early_is_stopped_again_with_one_request(line: Line) -> None:
    line.batch(["lead"] * 40)
    calls = line.fake.received.calls
    line.ledger.resume_names(line.ledger.stopped_names(line.name))
    line.live_on(120)
    assert line.states() == {"held": 40}
    assert line.fake.received.calls == calls + 1
    line.batch(["purchase"] * 5)
    assert line.states() == {"held": 40, "sent": 5}


def test_an_original_tries_a_stopped_name_and_never_a_correction() -> None:
    """Alone, a correction would go before the event that it corrects."""
    event = prepared("bingads")
    assert isinstance(event, PreparedEvent)
    limiter = RateLimiter()
    limiter.name_stops.replace({event.name: "no such goal"})
    assert limiter.name_stops.begin_trial(event.name, 0.0)
    run = Run(account_at("bingads"), limiter, deadline=60.0)
    correction = dataclasses.replace(event, is_correction=True)
    held, others = without_stopped(run, [correction, event, event])
    assert (len(held), list(others)) == (2, [event])


def test_a_correction_waits_until_what_is_held_for_its_name_is_let_go() -> None:
    """The name goes again with the delivery of a trial; what is held is let go half a minute later."""
    event = prepared("bingads")
    assert isinstance(event, PreparedEvent)
    correction = dataclasses.replace(event, is_correction=True)
    limiter = RateLimiter()
    run = Run(account_at("bingads"), limiter, deadline=60.0)
    limiter.name_stops.replace({event.name: "no such goal"})
    limiter.name_stops.delivered([event.name])
    before = limiter.name_stops.may_hold
    held, others = without_stopped(run, [event, correction])
    assert ([outcome.state for outcome in held], list(others)) == ([DeliveryState.HELD], [event])
    limiter.name_stops.replace({})  # the ledger was looked at
    assert (before, limiter.name_stops.may_hold) == (True, False)
    assert without_stopped(run, [correction]) == ([], [correction])


def test_an_event_name_of_analytics_is_named_though_no_setting_has_it() -> None:
    """Else its stop would end at each look, and everything held for it would be refused anew."""
    google, account = destination_at("google", "https://api.example"), account_at("google", measurement_id="G-1")
    assert google.types_named("purchase", account)
    assert not google.types_named("999999", account)


def test_a_restart_keeps_the_stop_and_asks_nothing(line: Line) -> None:
    line.batch(["lead"] * 10)
    line.start(NAMES[line.name])
    line.stage.catch_up(PARTITIONS, is_idle=True)
    calls = line.fake.received.calls
    line.batch(["lead"] * 10)
    assert line.states() == {"held": 20}
    assert line.fake.received.calls == calls


def test_what_kafka_holds_no_more_ends_as_expired(line: Line) -> None:
    line.batch(["lead"] * 4)
    line.reader.held.clear()
    line.ledger.resume_names(line.ledger.stopped_names(line.name))
    line.live_on(120)
    assert line.states() == {"expired": 4}


def test_a_copy_of_a_held_event_changes_nothing(line: Line) -> None:
    now = line.clock.micros
    event = conversion(now, conversion_type="lead")
    line.stage.handle(line.reader.add(records([event], now_micros=now)))
    line.stage.handle(line.reader.add(records([event, event], now_micros=now, first=1)))
    assert line.states() == {"held": 1}


def test_a_retry_by_hand_sends_what_is_held_and_keeps_what_is_not_taken(line: Line) -> None:
    line.batch(["lead"] * 3)
    rows = line.ledger.open_deliveries(line.name, DeliveryState.HELD, limit=10)
    assert [row.event_name for row in rows] == [line.lead] * 3
    again(rows, line.stage, line.reader, lambda _letters: None)
    assert line.states() == {"held": 3}
    line.start({"purchase": line.purchase, "lead": line.purchase})
    again(rows, line.stage, line.reader, lambda _letters: None)
    assert line.states() == {"sent": 3}


def test_an_outage_during_a_retry_leaves_a_held_event_held(line: Line) -> None:
    line.batch(["lead"] * 2)
    rows = line.ledger.open_deliveries(line.name, DeliveryState.HELD, limit=10)
    line.start(NAMES[line.name])
    line.fake.script.replace([Fault("http_500")])
    with pytest.raises(Retry, match=line.name):
        again(rows, line.stage, line.reader, lambda _letters: None)
    assert [row.event_name for row in line.ledger.open_deliveries(line.name, DeliveryState.HELD, limit=9)] == [
        line.lead
    ] * 2


def test_bad_events_beside_a_dead_name_are_still_found(line: Line) -> None:
    now = line.clock.micros
    events = [conversion(now, conversion_type=kind) for kind in ("purchase", "lead") * 20]
    bad = events[4]
    line.fake.poison.add(sent_id(line.name, bad))
    outcome = line.stage.handle(line.reader.add(records(events, now_micros=now)))
    assert line.states() == {"sent": 19, "held": 20, "rejected": 1}
    assert len(outcome.dead_letters) == 1


def test_corrections_wait_with_what_they_correct(make_stage: MakeStage, clock: SimulatedClock) -> None:
    line = Line(make_stage, clock, "google")
    now = clock.micros
    first = conversion(now, conversion_type="lead", order_id="o1", conversion_id="c1")
    total = conversion(
        now, conversion_type="lead", order_id="o1", conversion_id="c1", kind="restatement", value_micros=1_000_000
    )
    line.stage.handle(line.reader.add(records([first, total], now_micros=now)))
    line.position = 2
    assert line.states() == {"held": 2}
    line.fake.actions = frozenset()
    line.ledger.resume_names(line.ledger.stopped_names("google"))
    line.live_on(120)
    line.server.__exit__(None, None, None)
    assert line.states() == {"sent": 2}
    assert [value for value, _ in line.fake.values.values()] == [1]


def test_answers_beside_which_others_were_taken_hold_only_the_named(clock: SimulatedClock) -> None:
    """As Microsoft answers: some are taken, some are refused by themselves, some by their goal."""
    events = [prepared("linkedin", conversion_type=kind) for kind in ("purchase", "lead", "purchase", "purchase")]
    ready = [event for event in events if not hasattr(event, "state")]
    destination = destination_at("linkedin", "https://api.example")
    answer = DeliveryResponse(
        ResponseClass.DELIVERED, "200", "refused", refused=(1, 3), unknown_names={1: "the goal does not exist"}
    )
    destination.classify = lambda _response, _events: answer
    ledger = MemoryLedger()
    transport = ScriptedTransport(lambda _request: HttpResponse(200))
    sender = BatchSender(destination, transport, ledger, SenderOptions(concurrency=1), clock)
    ledger.claim([dataclasses.replace(new(e.event_id), key=DeliveryKey("acme", "linkedin", e.event_id)) for e in ready])
    found = sender.deliver([Shipment(account_at("linkedin"), ready)])
    sender.close()
    states = Counter((each.state.value, each.reason) for each in found)
    assert states == {("sent", None): 2, ("held", "the goal does not exist"): 1, ("rejected", "refused"): 1}
    assert len(transport.requests) == 1
    assert [each.event_name for each in ledger.stopped_names("linkedin")] == ["104013"]


def test_linkedin_names_rules_and_events_in_one_answer() -> None:
    text = (
        "Index: 0, ERROR :: /conversion :: method should be CONVERSIONS_API\n"
        "Index: 1, ERROR :: /user :: x\nIndex: 2, ERROR :: /conversion :: Invalid Urn format jane@example.com"
    )
    body = b'{"message": %s}' % repr(text).replace("'", '"').encode()
    found = linkedin_responses.classify(HttpResponse(422, body), 3)
    assert found.response_class is ResponseClass.NAME_STOPPED
    assert list(found.unknown_names) == [0, 2]
    assert "jane" not in repr(found)


def test_too_new_an_action_of_google_is_tried_again_after_six_hours(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "CONVERSION_ACTION_TOO_RECENTLY_CREATED"}
    body = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [detail]}}
    calls = []

    def answer(request: HttpRequest) -> HttpResponse:
        if request.url.endswith("/token"):
            return HttpResponse(200, b'{"access_token": "t", "expires_in": 864000}')
        calls.append(request)
        if len(calls) == 1:
            return HttpResponse(400, str(body).replace("'", '"').encode())
        return HttpResponse(200, b'{"requestId": "r%d"}' % len(calls))

    reader, ledger, now = MemoryReader(), MemoryLedger(), clock.micros
    stage = make_stage("google", "http://x", clock, ledger=ledger, reader=reader, transport=ScriptedTransport(answer))
    stage.read_from({PARTITIONS[0]: 0})
    stage.handle(reader.add(records([conversion(now) for _ in range(5)], now_micros=now)))
    (stop,) = ledger.stopped_names("google")
    assert stop.retry_at - stop.stopped_at == 6 * HOUR * 1_000_000
    for _ in range(3):
        clock.sleep(HOUR)
        stage.catch_up(PARTITIONS, is_idle=True)
    assert len(calls) == 1
    clock.sleep(3.1 * HOUR)
    for _ in range(6):
        stage.catch_up(PARTITIONS, is_idle=True)
        clock.sleep(40.0)
    assert {row.state for row in ledger.rows.values()} == {DeliveryState.SENT}


# The ledger's part, in memory and on Postgres.


@pytest.fixture(params=["memory", pytest.param("stored", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
    else:
        with postgres_ledger(request.getfixturevalue("database")) as found:
            yield found


def stop_of(name: str, *, tenant: str = "acme", destination: str = "linkedin", at: int = NOW) -> StoppedName:
    return StoppedName(tenant, destination, name, "does not exist", "422", at, at + 1)


def held(event: str, name: str, destination: str = "linkedin") -> DeliveryOutcome:
    key = DeliveryKey("acme", destination, event)
    return DeliveryOutcome(key, DeliveryState.HELD, "does not exist", response_code="422", event_name=name)


def test_a_refused_name_stands_in_the_ledger_until_it_is_resumed(ledger: Ledger) -> None:
    ledger.claim([new("a", destination="linkedin"), new("b", destination="linkedin:2")])
    ledger.settle(
        [held("a", "7")], (), [stop_of("7"), stop_of("8", destination="linkedin:2"), stop_of("7", destination="x")]
    )
    ledger.settle([held("a", "7")], (), [stop_of("7", at=NOW + 9)])
    first, second = ledger.stopped_names("linkedin")
    assert (first.event_name, first.stopped_at, first.retry_at, first.refusals) == ("7", NOW, NOW + 10, 2)
    assert (second.destination, second.event_name, second.refusals) == ("linkedin:2", "8", 1)
    ledger.resume_names([first])
    ledger.resume_names([])
    assert [each.event_name for each in ledger.stopped_names("linkedin")] == ["8"]
    assert [each.destination for each in ledger.stopped_names("x")] == ["x"]


def test_held_deliveries_are_released_newest_first_and_only_those_behind(ledger: Ledger) -> None:
    events = ["a", "bb", "ccc"]  # the longer, the older
    ledger.claim([new(event, destination="linkedin") for event in events])
    ledger.settle([held(event, "7") for event in events], (), [stop_of("7")])
    place = (new("a").source.topic, new("a").source.partition)
    offset = new("a").source.offset
    queue = Queue("acme", "linkedin")
    assert not ledger.held("linkedin", {place: offset})
    assert not ledger.held("x", {place: offset + 1})
    assert ledger.held("linkedin", {place: offset + 1}) == [HeldEvents(queue, "7", 3, NOW - 3)]
    assert ledger.release(queue, "7", {place: offset}) == 0
    assert ledger.release(queue, "8", {place: offset + 1}) == 0
    assert ledger.release(queue, "7", {place: offset + 1}, limit=1) == 1
    (row,) = ledger.open_deliveries("linkedin", DeliveryState.PENDING, limit=9)
    assert (row.key.event_id, row.event_name, row.in_flight) == ("a", None, False)
    assert ledger.release(queue, "7", {place: offset + 1}) == 2
    assert len(ledger.queued(queue, {place: offset + 1}, limit=9)) == 3


def test_a_held_delivery_was_surely_not_sent_unless_it_is_in_doubt(ledger: Ledger) -> None:
    ledger.claim([new("a", destination="linkedin"), new("b", destination="linkedin")])
    keys = [DeliveryKey("acme", "linkedin", event) for event in ("a", "b")]
    ledger.begin(keys, now_micros=NOW)
    ledger.settle([held("a", "7"), dataclasses.replace(held("b", "7"), in_flight=True)])
    rows = {row.key.event_id: row for row in ledger.open_deliveries("linkedin", DeliveryState.HELD, limit=9)}
    assert (rows["a"].first_sent_at, rows["b"].first_sent_at) == (None, NOW)
    again_ = ledger.claim([new("a", destination="linkedin")])
    assert again_[keys[0]].state is DeliveryState.HELD


@pytest.mark.postgres
def test_a_release_locks_in_the_order_of_a_retry_by_hand(database: str) -> None:
    """The first by id is the older one: locking the newest first, release and retry would wait in a circle."""
    with postgres_ledger(database) as stored:
        older, newer = new("bbb", destination="linkedin"), new("c", destination="linkedin")
        stored.claim([older, newer])
        stored.settle([held("bbb", "7"), held("c", "7")], (), [stop_of("7")])
        positions = {(newer.source.topic, newer.source.partition): newer.source.offset + 1}
        lock = "SELECT FROM attribution_deliveries WHERE event_id = %s FOR UPDATE"
        waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        released: list[int] = []
        release = threading.Thread(
            target=lambda: released.append(stored.release(Queue("acme", "linkedin"), "7", positions))
        )
        with psycopg.connect(database) as retry, psycopg.connect(database, autocommit=True) as look:
            retry.execute(lock, ("bbb",))
            release.start()
            wait_until(lambda: look.execute(waits).fetchall() == [(1,)], "the release waits for the retry")
            retry.execute("SET LOCAL lock_timeout = '2s'")
            retry.execute(lock, ("c",))
        release.join(60)
        assert released == [2]


@pytest.mark.postgres
def test_held_deliveries_are_not_pruned(database: str) -> None:
    with postgres_ledger(database) as stored:
        stored.claim([new("a", destination="linkedin"), new("b", state=DeliveryState.SKIPPED)])
        stored.settle([held("a", "7")])
        assert stored.prune(NOW + 10) == 1
        assert stored.held("linkedin")[0].deliveries == 1


@given(
    st.lists(st.tuples(st.sampled_from(["stop", "deliver", "try", "replace", "replace_none"]), st.sampled_from("ab")))
)
def test_a_name_is_stopped_exactly_from_its_refusal_to_its_delivery(steps: list[tuple[str, str]]) -> None:
    stops, expected, resumed = NameStops(), set[str](), set[str]()
    for number, (step, name) in enumerate(steps):
        if step == "stop":
            assert stops.stop(name, "r", 0.0) is (name not in expected)
            expected.add(name)
            resumed.discard(name)
        elif step == "deliver":
            stops.delivered([name])
            if name in expected:
                resumed.add(name)
            expected.discard(name)
        elif step == "try":
            assert not stops.begin_trial(name, float(number)) or name in expected
        else:
            expected = {name} if step == "replace" else set()
            stops.replace(dict.fromkeys(expected, "r"))
            resumed = set()
        assert {each for each in "ab" if stops.get(each)} == expected
        assert {each for each in "ab" if stops.is_resumed(each)} == resumed
        assert bool(stops) is bool(expected)


def test_a_trial_lets_one_event_through_and_is_given_up_after_ten_minutes() -> None:
    stops = NameStops()
    assert not stops.begin_trial("a", 0.0)
    stops.stop("a", "r", 0.0)
    assert stops.begin_trial("a", 10.0)
    assert not stops.begin_trial("a", 20.0)
    assert stops.begin_trial("a", 611.0)
