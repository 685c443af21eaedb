"""Attributor and auditor on a real Postgres: which commands are answered, and what is made of results."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.adapters import store_stage
from attributary.consumers.attributor import metrics
from attributary.consumers.attributor import stage as attributor_stage
from attributary.consumers.auditor import metrics as auditor_metrics
from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.connection import connect
from attributary.schemas.codec import RegistryUnavailableError
from attributary.schemas.topics import COMMANDS, RESULTS
from tests.factories.samples import codec, link, sale, touch
from tests.pipeline_harness import InProcess, handle_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.factories.samples import SampleEvent


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as found:
        yield found


def command(
    conversion_id: str,
    version: int,
    offset: int = 0,
    tenant_id: str = "acme",
    issued_by: str = "tests",
    event_published_at: int = 1_700_000_000_000_000,
) -> Record:
    fields = {
        "tenant_id": tenant_id, "conversion_id": conversion_id, "version": version, "reason": "new",
        "issued_by": issued_by, "event_published_at": event_published_at,
    }  # fmt: skip
    return Record(COMMANDS, 0, offset, None, codec().encode("command", fields), 0)


def skipped(why: str) -> float:
    return float(metrics.commands_skipped.labels(why)._value.get())


def answers(stages: InProcess, *commands: Record) -> list[tuple[str, int]]:
    decoded = [codec().decode("result", message.value) for message in stages.attributor.handle(commands).messages]
    return [(result["conversion_id"], result["version"]) for result in decoded]


def test_only_the_version_that_the_conversion_has_is_answered(stages: InProcess) -> None:
    stages.stitch(touch("t1"), sale("c1", 1))
    stages.stitch(touch("t0"))
    counts = {why: skipped(why) for why in ("stale", "unknown", "observed", "published", "repeated")}
    assert answers(stages, command("c1", 1)) == []  # stale
    assert answers(stages, command("c1", 3)) == []  # Postgres lost it
    assert answers(stages, command("never", 1)) == []
    assert answers(stages, command("c1", 2, tenant_id="else")) == []
    assert answers(stages, command("c1", 1), command("c1", 2), command("c1", 1)) == [("c1", 2)]
    assert answers(stages, command("c1", 2)) == []  # published a moment ago
    stages.attributor.stored_positions([])  # the loop rewinds: perhaps it was not committed
    stages.answer()  # the auditor has seen version 2
    assert answers(stages, command("c1", 2)) == []
    found = {why: skipped(why) - before for why, before in counts.items()}
    assert found == {"stale": 1, "unknown": 3, "observed": 1, "published": 1, "repeated": 3}


def test_in_a_backlog_a_batch_waits_for_more_commands(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest event behind the stitcher's last commands decides: one of a moment ago waits for its result."""
    clock = SimpleNamespace(time=lambda: 1_700_000_011.0, monotonic=lambda: 50.0, time_ns=time.time_ns)
    monkeypatch.setattr(attributor_stage, "time", clock)
    assert stages.attributor.linger_seconds() == 0.0
    assert answers(stages, command("c1", 1, issued_by="stitcher")) == []
    assert stages.attributor.linger_seconds() == 2.0
    clock.time = lambda: 1_700_000_009.0
    assert answers(stages, command("c1", 1, issued_by="stitcher")) == []
    assert stages.attributor.linger_seconds() == 0.0


def test_what_comes_after_a_backlog_does_not_wait(stages: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: 1_700_000_011.0, monotonic=lambda: 50.0, time_ns=time.time_ns)
    monkeypatch.setattr(attributor_stage, "time", clock)
    assert answers(stages, command("c1", 1, issued_by="stitcher")) == []
    stages.attributor.handle([])  # nothing new is known
    assert stages.attributor.linger_seconds() == 2.0
    clock.monotonic = lambda: 51.5
    assert stages.attributor.linger_seconds() == 0.0


def test_the_command_of_a_live_event_makes_a_batch_of_a_backlog_go(
    stages: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One stitcher has a partition that is far behind; the commands of another's events must not wait with its."""
    clock = SimpleNamespace(time=lambda: 1_700_000_011.0, monotonic=lambda: 50.0, time_ns=time.time_ns)
    monkeypatch.setattr(attributor_stage, "time", clock)
    old = command("c1", 1, issued_by="stitcher")
    live = command("c2", 1, issued_by="stitcher", event_published_at=1_700_000_010_000_000)
    asked_again = command("c3", 1, issued_by="sweeper", event_published_at=1_700_000_010_000_000)
    assert stages.attributor.is_awaited([old, live])
    assert not stages.attributor.is_awaited([old, asked_again, Record(COMMANDS, 0, 0, None, b"unreadable", 0)])


def test_a_registry_that_is_away_ends_the_wait_and_not_the_process(
    stages: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is handled, which pauses: an error while more commands are awaited would leave the loop."""

    def away(*_: object) -> object:
        raise RegistryUnavailableError("the schema registry does not answer")

    monkeypatch.setattr(attributor_stage, "decode_commands", away)
    assert stages.attributor.is_awaited([command("c1", 1, issued_by="stitcher")])


@pytest.mark.parametrize("issuer", ["sweeper", "trainer", "operator"])
def test_who_asks_again_for_old_conversions_makes_nobody_wait(stages: InProcess, issuer: str) -> None:
    """A conversion becomes final days after its event; live ones beside it are answered at once."""
    assert answers(stages, command("c1", 1, issued_by=issuer)) == []
    assert stages.attributor.linger_seconds() == 0.0


def test_a_command_that_cannot_be_read_is_a_dead_letter(stages: InProcess) -> None:
    bad = Record(COMMANDS, 0, 0, None, b"\xc3\x01 cut off", 0)
    outcome = stages.attributor.handle([bad])
    assert (outcome.messages, [letter.record for letter in outcome.dead_letters]) == ([], [bad])


def test_a_command_that_postgres_cannot_be_asked_for_is_a_dead_letter(stages: InProcess) -> None:
    stages.stitch(sale("c1"))
    outcome = stages.attributor.handle([command("c\0", 1), command("c1", 1, 1)])
    assert [(letter.record.offset, letter.field) for letter in outcome.dead_letters] == [(0, "conversion_id")]
    assert len(outcome.messages) == 1


def test_a_result_that_postgres_refuses_is_a_dead_letter_and_the_rest_is_stored(
    stages: InProcess, database: str
) -> None:
    """Somebody else wrote it to the topic: its reason holds a NUL character."""
    (result, other) = stages.publish(touch("t1"), sale("c1", 1), sale("c2", 2))
    bad = codec().encode("result", {**result, "version": 2, "version_reason": "a\0b"})
    good = codec().encode("result", {**other, "version": 2})
    batch = [Record(RESULTS, 0, 10 + n, None, value, 0) for n, value in enumerate((bad, good))]
    (letter,) = stages.auditor.handle(batch).dead_letters
    assert (letter.record.offset, letter.stage) == (10, "store")
    assert "a\0b" not in letter.reason
    with connect(database, application_name="tests") as connection:
        rows = connection.execute("SELECT conversion_id, version FROM attribution_results ORDER BY 1, 2").fetchall()
    assert rows == sorted([("c1", 1), ("c2", 1), (other["conversion_id"], 2)])
    assert stages.auditor.stored_positions([(RESULTS, 0)]) == {(RESULTS, 0): 12}


def test_a_policy_that_is_pinned_and_not_stored_stops_the_process(stages: InProcess, database: str) -> None:
    stages.stitch(sale("c1"))
    with connect(database, application_name="tests") as connection:
        connection.execute("DELETE FROM attribution_policies")
    with pytest.raises(Fatal, match="the lookback policy default-"):
        stages.answer()


def test_journeys_that_a_fallback_answered_are_counted(stages: InProcess) -> None:
    fallen = metrics.model_fallbacks.labels("markov", "linear")._value
    before = fallen.get()
    stages.publish(touch("t1"), sale("c1", 1), sale("c2", 2))
    assert fallen.get() - before == 2  # no model is trained yet


def test_a_result_names_itself(stages: InProcess) -> None:
    stages.stitch(sale("c1"))
    (message,) = stages.attributor.handle(stages.commands).messages
    headers = dict(message.headers)
    assert (message.topic, message.key) == (RESULTS, b"acme|c1")
    assert (headers["ce_id"], headers["ce_type"]) == (b"acme|c1|1", b"attributary.v1.Result")


def newest(results: list[dict[str, Any]], conversion_id: str) -> dict[str, Any]:
    return max((one for one in results if one["conversion_id"] == conversion_id), key=lambda one: one["version"])


def touched(result: dict[str, Any]) -> list[str]:
    return [touch["event_id"] for touch in result["touchpoints"]]


def test_late_links_and_refunds_lead_to_the_result_of_the_whole_truth(stages: InProcess) -> None:
    stages.publish(touch("phone", 1, who="a:phone"), sale("c1", 5, who="u:jane"))
    assert touched(newest(stages.results, "c1")) == []
    stages.publish(link("l", "phone", "jane", 9))
    assert touched(newest(stages.results, "c1")) == ["phone"]
    stages.publish(touch("laptop", 2, who="u:jane"))
    assert touched(newest(stages.results, "c1")) == ["phone", "laptop"]
    stages.publish(sale("r", 9, who="u:jane", kind="refund", conversion_id="c1", value=10_000_000))
    last = newest(stages.results, "c1")
    assert (last["version_reason"], last["net_value_micros"], last["delta_micros"]) == ("refund", 0, -10_000_000)
    assert [result["version"] for result in stages.results] == [1, 2, 3, 4]


def test_an_earlier_link_takes_the_device_to_another_person(stages: InProcess) -> None:
    stages.publish(touch("t", 1, who="a:d"), link("l2", "d", "jane", 9), sale("c1", 5, who="u:jane"))
    assert touched(newest(stages.results, "c1")) == ["t"]
    stages.publish(link("l1", "d", "joe", 8), sale("c2", 5, who="u:joe"))
    assert touched(newest(stages.results, "c1")) == []
    assert touched(newest(stages.results, "c2")) == ["t"]


def test_a_replay_changes_nothing(stages: InProcess, database: str) -> None:
    events: list[SampleEvent] = [touch("t", 1), sale("c1", 2), sale("c2", 3)]
    stages.publish(*events)
    before = len(stages.results)
    stages.stitch(*events)  # the same events at other offsets: duplicates
    assert stages.commands == []
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_touchpoints").fetchone() == (1,)
        assert connection.execute("SELECT max(version) FROM attribution_conversions").fetchone() == (1,)
    assert len(stages.results) == before


def test_the_auditor_counts_what_is_out_of_balance(stages: InProcess) -> None:
    stages.stitch(touch("t1"), sale("c1", 1))
    (message,) = stages.attributor.handle(stages.commands).messages
    result = codec().decode("result", message.value)
    result["models"][0]["micros"][0] += 1
    before = auditor_metrics.credit_imbalance._value.get()
    record = Record(RESULTS, 0, 0, None, codec().encode("result", result), 0)
    assert stages.auditor.handle([record]).messages == []
    assert auditor_metrics.credit_imbalance._value.get() == before + 1


def test_a_result_that_cannot_be_read_is_a_dead_letter_and_the_rest_is_stored(stages: InProcess, database: str) -> None:
    stages.stitch(sale("c1"))
    (message,) = stages.attributor.handle(stages.commands).messages
    good = Record(RESULTS, 0, 1, None, message.value, 0, lambda: message.headers)
    outcome = stages.auditor.handle([Record(RESULTS, 0, 0, None, b"\x00", 0), good])
    assert [letter.record.offset for letter in outcome.dead_letters] == [0]
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT observed_version FROM attribution_conversions").fetchone() == (1,)


def test_a_journey_that_fits_into_no_record_stops_nobody(stages: InProcess, database: str) -> None:
    cut = metrics.journeys_cut._value.get()
    stages.stitch(*(touch(f"{number:0200d}", 1 + number / 3_000) for number in range(3_000)), touch("x", 1, who="a:d2"))
    results = stages.publish(sale("c1", 5), sale("c2", 5, who="a:d2"))
    counts = {result["conversion_id"]: result["touchpoint_count"] for result in results}
    assert counts["c2"] == 1
    assert 2_000 < counts["c1"] < 3_000
    flags = {
        result["conversion_id"]: [(i["estimate"], i["n"]) for i in result["insights"] if i["rule_id"] == "journey.cut"]
        for result in results
    }
    assert flags == {"c1": [(counts["c1"], 3_000)], "c2": []}
    assert metrics.journeys_cut._value.get() == cut + 1
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_results").fetchone() == (2,)


def test_results_of_very_many_bytes_are_stored_in_parts(
    stages: InProcess, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 results of a hot person may have 780 MB; a quiet tenant's after them is stored all the same."""
    stages.stitch(touch("t1"), *(sale(f"c{n}", 1) for n in range(4)), sale("q", 1, who="a:q", tenant_id="quiet"))
    messages = stages.attributor.handle(stages.commands).messages
    read = [stages._read(message, "results") for message in messages]
    monkeypatch.setattr(store_stage, "_MAX_BYTES", 2 * max(len(message.value or b"") for message in messages))
    assert stages.auditor.handle(read).taken == 2
    assert stages.auditor.stored_positions([(RESULTS, 0)]) == {(RESULTS, 0): read[2].offset}
    handle_all(stages.auditor, read[2:])
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_results").fetchone() == (5,)
