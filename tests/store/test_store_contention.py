"""Stitchers, auditor, sweeper and refit on the same few people at once: nothing is lost and nobody waits in a circle.

Every writer locks in one order (decision 16), so the count of deadlocks is 0. What Postgres gives up all the same is
tried again, as the loop does.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.auditor.stage import AuditorStage
from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import Record
from attributary.consumers.stitcher.limits import Limits
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.events.policies import store_policy
from attributary.consumers.store.events.reopenings import reopen_page
from attributary.consumers.store.repair.version_raise import refit
from attributary.consumers.store.session import StoreSession
from attributary.consumers.sweeper.sweep import UnreadAges, sweep
from tests.factories.samples import START_US, codec, link, records, sale, touch
from tests.pipeline_harness import handle_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.factories.samples import SampleEvent

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]

SECONDS = 6.0
WRITERS = {"stitched", "audited", "swept", "refitted", "reopened"}
STITCHERS = 3
PEOPLE = 5
CONVERSIONS = 12
POLICY = LookbackPolicy.parse(DEFAULT_POLICY)
OLD_POLICY = LookbackPolicy.parse({**DEFAULT_POLICY, "name": "old"})


@dataclass
class Contention:
    """The writers of one test and what came of them."""

    dsn: str
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)
    commands: queue.SimpleQueue[bytes] = field(default_factory=queue.SimpleQueue)
    stitched: set[str] = field(default_factory=set)
    done: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str) -> None:
        with self.lock:
            self.done[what] = self.done.get(what, 0) + 1

    def over(self) -> bool:
        """Tell whether the time is up and every writer had its turn: a busy machine draws that out."""
        now = time.monotonic()
        with self.lock:
            had_turns = self.done.keys() >= WRITERS and self.done["stitched"] > 20
        return now > self.until and (had_turns or now > self.until + 300)

    def stitch(self, number: int) -> None:
        chance = random.Random(number)
        stage = StitcherStage(self.dsn, codec(), POLICY, 1.0, limits=Limits(reopened=1))
        made = 0
        while not self.over():
            events = [_event(chance, f"s{number}-{made + each}") for each in range(chance.randrange(5, 40))]
            batch = records(events, first=made)
            for record in batch:
                record.partition = number
            made += len(batch)
            outcome = self.insist("stitched", lambda batch=batch: stage.handle(batch))  # type: ignore[misc]
            assert outcome.dead_letters == []
            for message in outcome.messages:
                self.commands.put(message.value)
            self.stitched |= {event.event_id for event in events}
        stage.close()

    def answer(self) -> None:
        attributor, auditor = AttributorStage(self.dsn, codec(), 1.0), AuditorStage(self.dsn, codec(), 1.0)
        read = 0
        while not self.over():
            found = [self.commands.get() for _ in range(min(60, self.commands.qsize()))]
            commands = [Record("commands", 0, 0, None, value, 0) for value in found]
            if not commands:
                time.sleep(0.005)
                continue
            answers = handle_all(attributor, commands)
            results = [Record(each.topic, 0, read + n, each.key, each.value, 0) for n, each in enumerate(answers)]
            read += len(results)
            if results:
                self.insist("audited", lambda results=results: auditor.handle(results))  # type: ignore[misc]
        attributor.close()
        auditor.close()

    def write(self, what: str, work: Callable[[psycopg.Connection], object]) -> None:
        session = StoreSession(self.dsn, f"tests-{what}")

        def once() -> None:
            with map_errors(), session.transaction() as connection:
                work(connection)

        while not self.over():
            self.insist(what, once)
            time.sleep(0.002)
        session.close()

    def reopen(self, connection: psycopg.Connection) -> None:
        page = reopen_page(connection, policy_version=POLICY.version, after_seconds=0.0, patience_seconds=-1.0, limit=3)
        if page is not None and page.versions:
            self.count("reopened")

    def insist(self, what: str, work: Callable[[], Any]) -> Any:
        """Try again what Postgres gave up, as the loop does."""
        while True:
            try:
                outcome = work()
            except Retry:
                self.count("tried again")
            else:
                self.count(what)
                return outcome


def _event(chance: random.Random, event_id: str) -> SampleEvent:
    """Any event of few people about few conversions; a conversion is reported under another person's name at times."""
    who = chance.choice([f"u:p{chance.randrange(PEOPLE)}", f"a:d{chance.randrange(PEOPLE)}"])
    hours = chance.randrange(200)
    kind = chance.random()
    if kind < 0.5:
        return touch(event_id, hours, who=who)
    if kind < 0.85:
        return sale(event_id, hours, who=who, conversion_id=f"c{chance.randrange(CONVERSIONS)}",
                    kind=chance.choice(["conversion", "refund", "restatement"]))  # fmt: skip
    return link(event_id, f"d{chance.randrange(PEOPLE)}", f"p{chance.randrange(PEOPLE)}", hours)


def _policies(connection: psycopg.Connection) -> None:
    """Pin another policy on every conversion, so that there is always something to refit and to make final."""
    store_policy(connection, OLD_POLICY)
    connection.execute(
        "UPDATE attribution_conversions c SET policy_version = %s, is_final = false FROM ("
        "SELECT tenant_id, conversion_id FROM attribution_conversions ORDER BY 1, 2 FOR UPDATE) AS l "
        "WHERE l.tenant_id = c.tenant_id AND l.conversion_id = c.conversion_id",
        (OLD_POLICY.version,),
    )


def test_writers_of_the_same_people_never_wait_in_a_circle(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET deadlock_timeout = '20ms'").format(name))
    before = metrics.deadlocks._value.get()
    both = Contention(database)
    far_us = START_US + 10**15
    jobs: Sequence[Callable[[], None]] = [
        *(lambda number=number: both.stitch(number) for number in range(STITCHERS)),
        both.answer,
        lambda: both.write("swept", lambda connection: sweep(
            connection, POLICY, UnreadAges(), now_us=far_us, repair_after_seconds=0.0, grace_us=0)),
        lambda: both.write("refitted", lambda connection: refit(
            connection, "acme", (0, far_us), POLICY.version, now_us=far_us, limit=50)),
        lambda: both.write("unpinned", _policies),
        lambda: both.write("looked for hot people", both.reopen),
    ]  # fmt: skip
    with ThreadPoolExecutor(len(jobs)) as threads:
        for running in [threads.submit(job) for job in jobs]:
            running.result()
    with psycopg.connect(database) as connection:
        found = connection.execute(
            "SELECT event_id FROM attribution_touchpoints UNION ALL SELECT event_id FROM attribution_conversion_events "
            "UNION ALL SELECT event_id FROM attribution_identity_links"
        ).fetchall()
    stored = [event_id for (event_id,) in found]
    assert set(stored) == both.stitched
    assert len(stored) == len(both.stitched)
    assert both.done.keys() >= WRITERS
    assert both.done["stitched"] > 20
    assert (metrics.deadlocks._value.get() - before, both.done.get("tried again", 0)) == (0, 0)
