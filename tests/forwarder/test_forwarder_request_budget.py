"""Accounts that share the rate limit of an app, project or token never exceed it together, and hold nobody else."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import Account, HttpResponse
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.request_budget import DAY, MINUTE, RateBudget, RateLimit, RequestBudget
from attributary.consumers.store.deliveries.delivery import DeliveryState
from tests.forwarder.forwarder_factories import (
    OAUTH_CLIENT,
    TOPIC,
    MemoryReader,
    ScriptedTransport,
    SimulatedClock,
    account_at,
    conversion,
    destination_at,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from attributary.consumers.destinations.destination import HttpRequest
    from attributary.consumers.forwarder.stage import ForwarderStage
    from tests.forwarder.conftest import MakeStage

MIDNIGHT = 1_795_478_400  # 2026-11-24 00:00 UTC, seconds
PARTITIONS = [(TOPIC, 0)]


def budget(*limits: tuple[int, int], share: float = 1.0) -> RequestBudget:
    return RequestBudget(RateBudget("k", "the project", tuple(RateLimit(*each) for each in limits)), share)


@given(
    st.lists(st.floats(0.0, 40.0), max_size=120),
    st.integers(1, 6),
    st.integers(2, 30),
    st.floats(0.2, 1.0),
)
def test_no_stretch_of_a_window_has_more_requests_than_its_limit(
    gaps: list[float], most: int, of_day: int, share: float
) -> None:
    made = budget((most, MINUTE), (of_day, DAY), share=share)
    now, sent = float(MIDNIGHT + DAY - 600), list[float]()
    for gap in gaps:
        now += gap
        wait = made.take(now, int(now * 1e6))
        if wait:
            # The wait that is told is enough, and not a moment more than needed.
            assert made.take(now + wait - 1e-3, int((now + wait - 1e-3) * 1e6)) > 0
            now += wait + 1e-6
            assert made.take(now, int(now * 1e6)) == 0.0
        sent.append(now)
    allowed = max(1, int(most * share))
    assert all(sent[n + allowed] - sent[n] > MINUTE - 1e-3 for n in range(len(sent) - allowed))
    days = Counter(int(at // DAY) for at in sent)
    assert all(number <= max(1, int(of_day * share)) for number in days.values())
    assert made.used_percent(now) <= 100.0 + 1e-9


def test_a_refusal_holds_longer_each_time_until_a_delivery_and_once_for_all_threads() -> None:
    made = budget()
    assert made.take(0.0, 0) == 0.0  # no limit is known: only refusals count
    for _ in range(4):
        made.throttled(0.0, 60.0, "rate limit")
    assert made.hold_at(1.0) == ("rate limit (the project)", 59.0)
    made.throttled(61.0, 60.0, "rate limit")
    assert made.hold_at(61.0) == ("rate limit (the project)", 120.0)
    made.delivered()
    made.throttled(300.0, 60.0, "rate limit")
    assert made.hold_at(300.0) == ("rate limit (the project)", 60.0)
    for number in range(20):
        made.throttled(1e6 * (number + 2), 60.0, "rate limit")
    assert made.hold_at(1e6 * 21) == ("rate limit (the project)", 3_600.0)


def with_project(project: str, name: str) -> AccountCredentials:
    options = {"customer_id": name, "project_id": project} | OAUTH_CLIENT
    return AccountCredentials(name, "refresh-1", options, {"purchase": "7001"})


TENANTS = {
    "acme": [with_project("shop-1", "1")],
    "globex": [with_project("shop-1", "2")],
    "hooli": [with_project("shop-2", "3")],
}


class Line:
    """A stage with two tenants on one Cloud project and one on another; one event in each request."""

    def __init__(
        self, make_stage: MakeStage, clock: SimulatedClock, answer: Callable[[HttpRequest], HttpResponse | None]
    ) -> None:
        self.clock, self.ledger, self.reader, self.position = clock, MemoryLedger(), MemoryReader(), 0
        self.sent: list[tuple[float, str]] = []
        self._answer = answer
        transport = ScriptedTransport(self._send)
        self.stage: ForwarderStage = make_stage(
            "google", "http://x", clock, ledger=self.ledger, reader=self.reader, transport=transport,
            options=SenderOptions(concurrency=1), route={"credentials": Credentials("google", None, TENANTS)},
        )  # fmt: skip
        self.stage._route.destination.limits = self.stage._route.destination.limits._replace(events=1)
        self.stage.read_from({PARTITIONS[0]: 0})

    def _send(self, request: HttpRequest) -> HttpResponse:
        if request.url.endswith("/token"):
            return HttpResponse(200, b'{"access_token": "t", "expires_in": 864000}')
        self.clock.sleep(0.01)
        self.sent.append((self.clock.monotonic(), request.headers["x-goog-user-project"]))
        found = self._answer(request)
        return found or HttpResponse(200, json.dumps({"requestId": f"r{len(self.sent)}"}).encode())

    def batch(self, **numbers: int) -> None:
        now = self.clock.micros
        events = [conversion(now, tenant_id=tenant) for tenant, number in numbers.items() for _ in range(number)]
        held = self.reader.add(records(events, now_micros=now, first=self.position))
        self.position += len(held)
        self.stage.handle(held)

    def states(self) -> Counter[tuple[str, str]]:
        return Counter((row.key.tenant_id, row.state.value) for row in self.ledger.rows.values())

    def live_on(self, seconds: float) -> None:
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self.stage.catch_up(PARTITIONS, is_idle=True)
            self.clock.sleep(5.0)


def test_two_accounts_of_a_project_stay_below_its_limit_together(make_stage: MakeStage, clock: SimulatedClock) -> None:
    line = Line(make_stage, clock, lambda _: None)
    line.batch(acme=400, globex=400, hooli=50)
    # The third one has a project of its own: it is served at once.
    assert line.states()["hooli", "sent"] == 50
    waiting = [row for row in line.ledger.rows.values() if row.state is DeliveryState.PENDING]
    reasons = Counter(row.reason for row in waiting)
    said = "the rate limit of the Cloud project shop-1 is used up: 300 a minute and 100,000 a day"
    assert set(reasons) <= {said, "waits for older events of its account"}
    line.live_on(400)
    assert line.states() == {("acme", "sent"): 400, ("globex", "sent"): 400, ("hooli", "sent"): 50}
    times = [at for at, project in line.sent if project == "shop-1"]
    assert len(times) == 800
    assert max(sum(at <= other < at + MINUTE for other in times) for at in times) <= 270  # 90 % of 300


def test_a_429_of_one_account_holds_all_of_its_project_and_none_else(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    refusal = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": []}}
    left = [1]

    def answer(request: HttpRequest) -> HttpResponse | None:
        if request.headers["x-goog-user-project"] == "shop-1" and left[0]:
            left[0] -= 1
            return HttpResponse(429, json.dumps(refusal).encode())
        return None

    line = Line(make_stage, clock, answer)
    line.batch(acme=5, globex=5, hooli=5)
    assert line.states()["hooli", "sent"] == 5
    assert line.states()["acme", "pending"] + line.states()["globex", "pending"] == 10
    assert Counter(project for _, project in line.sent) == {"shop-1": 1, "shop-2": 5}
    line.batch(hooli=3)
    assert line.states()["hooli", "sent"] == 8
    line.live_on(120)
    assert line.states() == {("acme", "sent"): 5, ("globex", "sent"): 5, ("hooli", "sent"): 8}
    refused, again, *_ = (at for at, project in line.sent if project == "shop-1")  # hooli may be served before both
    assert again - refused >= 59


@pytest.mark.parametrize(
    ("name", "options", "title", "limits"),
    [
        ("linkedin", {}, "the access token", (RateLimit(600, 60), RateLimit(300_000, 86_400))),
        ("linkedin", OAUTH_CLIENT, "the application client-1", (RateLimit(600, 60), RateLimit(300_000, 86_400))),
        ("google", {}, "the Cloud project shop-1", (RateLimit(300, 60), RateLimit(100_000, 86_400))),
        ("tiktok", {}, "the access token", (RateLimit(1_000, 1),)),
        ("reddit", {}, "the access token", (RateLimit(1_000, 1),)),
    ],
)
def test_what_each_platform_counts_together(
    name: str, options: dict[str, str], title: str, limits: tuple[RateLimit, ...]
) -> None:
    found = destination_at(name, "https://a").budget(account_at(name, **options))
    assert (found.title, found.limits) == (title, limits)
    assert account_at(name).secret not in repr(found)


def test_a_service_accounts_project_is_that_of_its_key() -> None:
    key = json.dumps({"project_id": "shop-9", "private_key": "x"})
    account = Account("acme", "google", "1", key, {"customer_id": "1"})
    destination: Any = destination_at("google", "https://a")
    assert destination.budget(account).key == "shop-9"
    broken = Account("acme", "google", "1", "no json", {"customer_id": "1"})
    assert "no json" not in repr(destination.budget(broken))
