"""The state that is kept up to date is, at every moment, what reading the store anew gives: bit by bit."""

from __future__ import annotations

import random
from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.sweep import close_journeys, finalise
from attributary.consumers.store.models.changed_people import next_tenant_with_changes
from attributary.consumers.store.models.incremental_state import state_lock
from attributary.consumers.store.repair.version_raise import refit
from attributary.consumers.training.incremental_state import (
    catch_up,
    current_statistics,
    fresh_snapshot,
    rebuild,
    snapshot,
    step,
    verify,
)
from attributary.consumers.training.read_journeys import (
    Window,
    WindowStatistics,
    read_daily_statistics,
    read_statistics,
)
from tests.factories.training_events import DAY, NOW, POLICY, Feed, link, order, touchpoint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import psycopg

    Event = tuple[str, Mapping[str, Any], int]

pytestmark = pytest.mark.postgres

INACTIVITY = POLICY.inactivity_micros
SHORT = LookbackPolicy.parse({"name": "short", "lateness_days": 2, "inactivity_days": 30, "windows": [{"days": 9}]})
TENANTS = ("acme", "bolt")
CHANNELS = ("search", "mail", "social", "direct", "display")


@contextmanager
def opened(dsn: str) -> Iterator[psycopg.Connection]:
    with connect(dsn, application_name="tests") as connection:
        yield connection


class Story:
    """Random events about a few people, sent again, corrected and overtaken, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.numbers = count()
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.orders: list[dict[str, Any]] = []

    def event(self) -> Event:
        drawn = self.random.random()
        if drawn < 0.12 and self.sent:
            links = [each for each in self.sent if "linked_at" in each[1]]
            topic, record = self.conflicting(*self.random.choice(links if drawn < 0.06 and links else self.sent))
        elif drawn < 0.55:
            topic, record = self.touch()
        elif drawn < 0.75:
            topic, record = self.conversion()
        elif drawn < 0.87 and self.orders:
            topic, record = self.correction()
        else:
            topic, record = link(self.device(), self.user(), self.day())
            record |= {"event_id": f"link-{next(self.numbers)}", "tenant_id": self.tenant()}
        self.sent.append((topic, record))
        at = record.get("occurred_at") or record["linked_at"]
        return topic, record, at + self.random.choice((0, 0, 0, 1, 8)) * DAY

    def touch(self) -> tuple[str, dict[str, Any]]:
        number = next(self.numbers)
        channel = self.random.choice(CHANNELS)
        topic, record = touchpoint("x", self.day(), channel, event_id=f"touch-{number}", **self.person())
        interaction = self.random.choice(("click", "click", "view"))
        return topic, record | {"interaction": interaction, "is_bot": self.random.random() < 0.05}

    def conversion(self) -> tuple[str, dict[str, Any]]:
        number = next(self.numbers)
        currency = self.random.choice(("EUR", "EUR", "USD"))
        ids = {"event_id": f"order-{number}", "conversion_id": f"c-{number}"}
        record = order("x", self.day(), self.random.randint(1, 90), currency=currency, **ids, **self.person())
        self.orders.append(record[1])
        return record

    def correction(self) -> tuple[str, dict[str, Any]]:
        about = self.random.choice(self.orders)
        kind = self.random.choice(("refund", "cancellation", "restatement", "conversion"))
        record = about | {"event_id": f"fix-{next(self.numbers)}", "kind": kind, "value_micros": 1_000_000}
        record["occurred_at"] = about["occurred_at"] + self.random.choice((-2, 1, 40)) * DAY
        if kind == "conversion" or self.random.random() < 0.3:
            record |= {name: value for name, value in self.person().items() if name != "tenant_id"}
        return order("x", 0, 1)[0], record

    def conflicting(self, topic: str, record: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """The same event id with another content: one of the two wins, whichever came first."""
        if "linked_at" in record:
            return topic, record | {"user_id": self.user(), "linked_at": record["linked_at"] + DAY}
        named = {name: value for name, value in self.person().items() if name != "tenant_id"}
        if "channel" in record:
            return topic, record | named | {"channel": self.random.choice(CHANNELS)}
        other = self.random.choice(self.orders)["conversion_id"] if self.orders else record["conversion_id"]
        return topic, record | named | {"conversion_id": other}

    def person(self) -> dict[str, Any]:
        how = self.random.random()
        device = self.device() if how < 0.8 else None
        user = self.user() if how > 0.6 else None
        return {"anonymous_id": device, "user_id": user, "tenant_id": self.tenant()}

    def device(self) -> str:
        return f"d{self.random.randint(0, 7)}"

    def user(self) -> str:
        return f"u{self.random.randint(0, 3)}"

    def tenant(self) -> str:
        return self.random.choice(TENANTS[:1] * 4 + TENANTS[1:])

    def day(self) -> float:
        return round(self.random.uniform(0, 120), 2)


def fresh(connection: psycopg.Connection, tenant: str) -> WindowStatistics:
    with snapshot(connection):
        return read_statistics(connection, Window(tenant), INACTIVITY)


def the_same(kept: WindowStatistics | None, read: WindowStatistics) -> bool:
    assert kept is not None
    assert kept.is_incremental
    assert (kept.currency, kept.policies, kept.counts) == (read.currency, read.policies, read.counts)
    return kept.state.to_document() == read.state.to_document()


def disturb(connection: psycopg.Connection, chance: random.Random) -> None:
    """What changes people without an event: sweeps and refits."""
    drawn = chance.random()
    with connection.transaction():
        if drawn < 0.4:
            close_journeys(connection, silent_since_us=NOW + chance.randint(0, 130) * DAY, limit=chance.randint(1, 9))
        elif drawn < 0.7:
            due = NOW + chance.randint(0, 130) * DAY
            policy = chance.choice((POLICY, SHORT)).version
            finalise(connection, due_before_us=due, now_us=NOW, policy_version=policy, limit=chance.randint(1, 9))
        else:
            period = (NOW, NOW + 130 * DAY)
            refit(connection, "acme", period, chance.choice((POLICY, SHORT)).version, now_us=NOW, limit=5)


@pytest.mark.parametrize("seed", range(12))
def test_the_state_equals_a_fresh_reading_in_any_chunks(database: str, seed: int) -> None:
    story, chance = Story(seed), random.Random(seed)
    with (
        closing(Feed(database, policy=POLICY)) as one,
        closing(Feed(database, policy=SHORT)) as other,
        opened(database) as connection,
    ):
        for _ in range(chance.randint(6, 14)):
            chance.choice((one, other)).send(story.event() for _ in range(chance.randint(1, 30)))
            if chance.random() < 0.5:
                disturb(connection, chance)
            if chance.random() < 0.6:  # a step now and then, of a few people
                with state_lock(connection, wait=False) as mine, fresh_snapshot(connection):
                    assert mine
                    tenant = next_tenant_with_changes(connection, chance.choice(("", "acme")))
                    if tenant is not None:
                        step(connection, tenant, INACTIVITY, limit=chance.randint(1, 12))
            if chance.random() < 0.3:
                kept = current_statistics(connection, "acme", INACTIVITY)
                assert kept is None or the_same(kept, fresh(connection, "acme"))
        for tenant in TENANTS:
            catch_up(connection, tenant, INACTIVITY)
            assert the_same(current_statistics(connection, tenant, INACTIVITY), fresh(connection, tenant))
            assert verify(connection, tenant, INACTIVITY).is_none
            before = dump(connection)
            rebuild(connection, tenant, INACTIVITY)
            assert dump(connection) == before
            with snapshot(connection):
                by_day = read_daily_statistics(connection, Window(tenant), INACTIVITY)
            kept = current_statistics(connection, tenant, INACTIVITY)
            assert kept is not None
            assert [(each.middle_micros, each.state.to_document()) for each in kept.periods] == [
                (each.middle_micros, each.state.to_document()) for each in by_day.periods
            ]


def dump(connection: psycopg.Connection) -> list[list[tuple[Any, ...]]]:
    """Everything that is kept, but for times and for how often something was replaced."""
    with connection.transaction():
        return [
            connection.execute(
                "SELECT tenant_id, journey_key, journeys, open_touches, passed_over FROM attribution_training_people "
                "ORDER BY 1, 2"
            ).fetchall(),
            connection.execute(
                "SELECT tenant_id, day, currency, state::text FROM attribution_training_periods ORDER BY 1, 2, 3"
            ).fetchall(),
            connection.execute(
                "SELECT tenant_id, inactivity_micros, people, open_touches, passed_over, policies "
                "FROM attribution_training_upkeep ORDER BY 1"
            ).fetchall(),
        ]
