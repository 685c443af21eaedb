"""Events that change nothing are said: by verdict in `explain`, in metrics, and in the reports of the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import structlog
from typer.testing import CliRunner

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.cli.main import app
from attributary.consumers.stitcher import metrics
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.event_reports import ignored_events, shared_orders
from attributary.consumers.store.events.explain import explain
from tests.factories.samples import codec, records, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.factories.samples import SampleEvent

pytestmark = pytest.mark.postgres


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests", autocommit=True) as opened:
        yield opened


def command(database: str, *arguments: str) -> str:
    found = CliRunner().invoke(app, list(arguments), env={"DATABASE_URL": database})
    assert found.exit_code == 0, found.output
    return found.output


CASES: dict[str, tuple[list[SampleEvent], str, str | None]] = {
    "other currency": (
        [sale("c"), sale("r", 1, conversion_id="c", kind="refund", currency="USD", value=5_000_000)],
        "other_currency", "in another currency",
    ),
    "restated in another currency": (
        [sale("c"), sale("r", 1, conversion_id="c", kind="restatement", currency="JPY", value=5_000_000)],
        "other_currency", "in another currency",
    ),
    "two people": ([sale("c"), sale("d", 1, conversion_id="c", who="u:joe")], "other_person", "of another person"),
    "the same person again": ([sale("c"), sale("d", 1, conversion_id="c", value=30_000_000)], "repeat", "a repeat"),
    "not opened": ([sale("r", kind="refund", conversion_id="c", value=5_000_000)], "not_opened", None),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("at_once", [True, False])
def test_b20_an_event_without_effect_is_said(
    case: str, at_once: bool, database: str, connection: psycopg.Connection
) -> None:
    events, verdict, sentence = CASES[case]
    before = {name: metrics.ignored_events.labels(name)._value.get() for name in (verdict,)}
    with InProcess(database) as stages, structlog.testing.capture_logs() as logged:
        for batch in [events] if at_once else [[event] for event in events]:
            stages.publish(*batch)
    found = explain(connection, "acme", "c")
    assert found is not None
    (told,) = [event for event in found.events if event.event_id == events[-1].event_id]
    assert sentence is None or f"changes nothing: {sentence}" in told.verdict
    with connection.transaction():
        (ignored,) = ignored_events(connection, "acme")
    assert (ignored.event_id, ignored.verdict) == (events[-1].event_id, verdict)
    document = json.loads(command(database, "conversions", "ignored", "--tenant", "acme", "--json"))
    assert [row["verdict"] for row in document["ignored"]] == [verdict]
    if sentence is not None:  # a correction that waits is not without effect yet
        assert metrics.ignored_events.labels(verdict)._value.get() == before[verdict] + 1
    assert any("of another person" in line["event"] for line in logged) == (verdict == "other_person")


def test_b20_a_conversion_that_waits_is_shown_as_such(database: str) -> None:
    with InProcess(database) as stages:
        stages.publish(sale("r", kind="refund", conversion_id="c", value=5_000_000))
    shown = command(database, "explain", "c", "--tenant", "acme")
    assert "only corrections of it have arrived" in shown
    assert "1970" not in shown
    assert "XXX" not in shown


def test_b20_reports_say_when_there_is_nothing_and_when_there_is_more(database: str) -> None:
    with InProcess(database) as stages:
        stages.publish(sale("fine"), touch("t"))
    assert command(database, "events", "conflicts").strip() == "no event id came with several contents"
    assert command(database, "conversions", "ignored").strip() == "every event about a conversion counts"
    assert command(database, "conversions", "orders").strip() == "no order came under several conversions"
    with InProcess(database) as stages:
        stages.publish(*(sale(f"r{n}", 1, conversion_id="fine") for n in range(3)), touch("t", channel="sms"))
    assert "2 shown, and there are more: raise --limit" in command(database, "conversions", "ignored", "--limit", "2")
    assert "touchpoint" in command(database, "events", "conflicts")


def test_ids_of_events_reach_the_terminal_escaped(database: str) -> None:
    bad = "\x1b]0;owned\x07\x9b31m"
    with InProcess(database) as stages:
        stages.publish(sale(bad), sale(bad, 1, value=30_000_000), sale("d", 1, conversion_id=bad), touch(bad))
    for arguments in (("explain", bad, "--tenant", "acme"), ("events", "conflicts"), ("conversions", "ignored")):
        assert not set(command(database, *arguments)) & set("\x1b\x07\x9b")


def test_b29_an_order_under_two_event_ids_is_found(database: str, connection: psycopg.Connection) -> None:
    before = metrics.shared_orders._value.get()
    with InProcess(database) as stages:
        stages.publish(sale("e1", order_id="o1"), sale("e9", order_id="o9"))
        stages.publish(sale("e2", 1, order_id="o1", value=20_000_000), sale("e3", 2, order_id="o3"))
    (found,) = shared_orders(connection, None, 9)
    assert (found.order_id, list(found.conversions), found.net_value_micros) == ("o1", ["e1", "e2"], 30_000_000)
    assert metrics.shared_orders._value.get() == before + 1
    document = json.loads(command(database, "conversions", "orders", "--json"))
    assert [row["order_id"] for row in document["orders"]] == ["o1"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_b29_with_first_an_order_is_one_conversion(
    order: tuple[int, ...], database: str, connection: psycopg.Connection
) -> None:
    events = records(
        [
            sale("e1", order_id="o1", value=10_000_000), sale("e2", 1, order_id="o1", value=20_000_000),
            sale("r1", 2, order_id="o1", conversion_id="e2", kind="refund", value=3_000_000),
        ]
    )  # fmt: skip
    stage = StitcherStage(database, codec(), LookbackPolicy.parse(DEFAULT_POLICY), 1.0, by_order=True)
    for place in order:
        stage.handle([events[place]])
    stage.close()
    worth = connection.execute(
        "SELECT conversion_id, gross_value_micros, net_value_micros FROM attribution_conversions"
    ).fetchall()
    assert worth == [("o1", 10_000_000, 7_000_000)]
    with connection.transaction():
        assert [(e.event_id, e.verdict) for e in ignored_events(connection, "acme")] == [("e2", "repeat")]
    assert shared_orders(connection, None, 9) == []
