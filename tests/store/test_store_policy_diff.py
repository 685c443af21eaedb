"""`policy diff` predicts what activation publishes, to the micro; history, rollback and audit tell what was done."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.attribution_core.statistics.state import JourneyState
from attributary.cli.main import app
from attributary.consumers.maintenance.policy_diff import UNATTRIBUTED, PolicyDiff, policy_diff
from attributary.consumers.maintenance.recompute import wrong_results
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.attribution_inputs import MAX_DEVICES, conversions_by_id
from attributary.consumers.store.events.policy_activations import activate_policy, policy_history, policy_in_force
from attributary.consumers.store.events.sweep import overdue
from attributary.consumers.store.models.model_states import (
    OK,
    NewState,
    activate,
    in_force,
    model_set_history,
    save_states,
)
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from tests.factories.samples import codec, sale, touch
from tests.factories.traffic import traffic
from tests.factories.training_events import NAMES
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attributary.producers.simulator import Event

pytestmark = pytest.mark.postgres

ALWAYS = (0, 253_402_300_799_999_999)
FILE = LookbackPolicy.parse(DEFAULT_POLICY)
NARROW = LookbackPolicy.parse({"name": "narrow", "lateness_days": 7, "inactivity_days": 30, "windows": [{"days": 2}]})
YAML = "name: narrow\nlateness_days: 7\ninactivity_days: 30\nwindows: [{days: 2}]\n"
WIDE = LookbackPolicy.parse({"name": "wide", "lateness_days": 7, "inactivity_days": 30, "windows": [{"days": 400}]})

_NEWEST = """
SELECT r.net_value_micros, r.currency, r.touchpoints, r.models FROM attribution_conversions c
JOIN attribution_results r ON r.tenant_id = c.tenant_id AND r.conversion_id = c.conversion_id AND r.version = c.version
WHERE c.tenant_id = %s
"""


def stored_credits(database: str, tenant: str) -> Counter[tuple[str, str, str]]:
    """Micros by model, channel and currency of the newest results."""
    found: Counter[tuple[str, str, str]] = Counter()
    with connect(database, application_name="tests") as connection:
        for net, currency, touchpoints, models in connection.execute(_NEWEST, (tenant,)).fetchall():
            for model in models:
                for touch, micros in zip(touchpoints, model["micros"], strict=True):
                    found[model["model"], touch["channel"], currency] += micros
                found[model["model"], UNATTRIBUTED, currency] += net - sum(model["micros"])
    return found


def stitch(stages: InProcess, events: Sequence[Event]) -> None:
    """Let simulated events pass all stages."""
    now_ms = time.time_ns() // 1_000_000
    batch = [
        Record(event.topic, 0, number, None, codec().encode(NAMES[event.topic], event.record), now_ms)
        for number, event in enumerate(events)
    ]
    stages.read(batch)
    stages.answer()


def answer_owed(stages: InProcess, database: str) -> None:
    """Do as the sweeper does: ask for what has no result."""
    with connect(database, application_name="tests") as connection:
        owed = overdue(connection, 0.0, 100_000)
    stages.commands += [stages._read(stages.stitcher._command(version), "commands") for version in owed]
    stages.answer()


def diff_of(database: str, tenant: str, policy: LookbackPolicy, **options: Any) -> PolicyDiff:
    with connect(database, application_name="tests") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return policy_diff(connection, tenant, policy, ALWAYS, **options)


def run(database: str, *arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, arguments, env={"DATABASE_URL": database})
    return ran.exit_code, ran.output


def test_a_diff_equals_what_activation_with_a_refit_publishes(database: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(YAML)
    events = traffic(1_500, 200, tenants=1)
    tenant = events[0].record["tenant_id"]
    with InProcess(database) as stages:
        stitch(stages, events)
        before = stored_credits(database, tenant)
        found = diff_of(database, tenant, NARROW)
        assert {cell: old for cell, old, _, _ in found.rows()} == before
        assert found.changed > 20
        assert found.touchpoints_out > found.touchpoints_in == 0
        assert not found.is_sample
        code, output = run(database, "policy", "diff", str(file), "--tenant", tenant, "--since", "beginning")
        assert code == 1
        assert f"{NARROW.version}: {found.changed} of {found.conversions} conversions of {tenant} change" in output
        code, output = run(
            database, "policy", "activate", str(file), "--tenant", tenant, "--refit", "--note", "shorter"
        )
        assert (code, f"{NARROW.version} is in force for {tenant}." in output) == (0, True)
        answer_owed(stages, database)
    after = stored_credits(database, tenant)
    assert {cell: new for cell, _, new, _ in found.rows() if new} == {
        cell: value for cell, value in after.items() if value
    }
    assert sum(before.values()) == sum(after.values())
    assert diff_of(database, tenant, NARROW).changed == 0
    assert policy_line(database, file, tenant) == f"{NARROW.version} differs from {NARROW.version} in: nothing."
    assert [row[:2] for row in audit(database)] == [("policy.activated", NARROW.version)]
    code, output = run(database, "policy", "history", "--tenant", tenant)
    assert (code, "shorter" in output) == (0, True)
    code, output = run(database, "policy", "rollback", "--tenant", tenant)
    assert (code, output) == (0, f"the policy of ATTRIBUTION_POLICY_FILE is in force for {tenant} again.\n")
    assert "rollback of activation" in run(database, "audit", "list", "--tenant", tenant, "--action", "policy")[1]


def policy_line(database: str, file: Path, tenant: str) -> str:
    return run(database, "policy", "diff", str(file), "--tenant", tenant)[1].splitlines()[0]


PARTS: dict[str, dict[str, Any]] = {
    "lateness": {"lateness_days": 0.001},
    "rules": {"rules": {"position_based": {"first": 0.1, "middle": 0.2, "last": 0.7},
                        "time_decay": {"half_life_days": 0.5}}},
    "models": {"models": ["last", "linear", "markov"]},
    "trained": {"trained": {"markov": 2}},
    "channels": {"channels": [{"channel": "paid_social", "as": "social"}, {"campaign": "*", "as": "the_rest"}]},
}  # fmt: skip
PATHS = [["email"], ["paid_search", "email"], ["direct", "email"], ["organic_social"], ["paid_social"]] * 20


def train(database: str, tenant: str) -> None:
    """Store three versions of markov, of which the first is in force and the last may not be."""
    batch = JourneyBatch.of_paths(PATHS)
    with connect(database, application_name="tests") as connection:
        for number, status in ((1, OK), (2, OK), (3, "insufficient data")):
            converts = [True, number > 1, False, True, number < 2]
            outcomes = Outcomes.of(converts * 20, [5 * each for each in converts] * 20)
            document = JourneyState.fit(batch, outcomes).to_document()
            metadata = {"diagnostics": {"status": status}}
            save_states(connection, [NewState(tenant, "markov", document, {"minimum_conversions": 1}, metadata)])
        activate(connection, tenant, {"markov": 1})


@pytest.mark.parametrize("part", PARTS)
def test_a_diff_of_each_part_equals_what_activation_publishes(database: str, tmp_path: Path, part: str) -> None:
    document = {"name": part, "lateness_days": 7, "inactivity_days": 30, "windows": [{"days": 30}], **PARTS[part]}
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(document))  # JSON is YAML
    before_file = tmp_path / "before.yaml"
    before_file.write_text(json.dumps({name: value for name, value in document.items() if name not in PARTS[part]}
                                      | ({"lateness_days": 7} if part == "lateness" else {})))  # fmt: skip
    policy = LookbackPolicy.parse(document)
    events = traffic(600, 100, tenants=1)
    tenant = events[0].record["tenant_id"]
    train(database, tenant)
    with InProcess(database) as stages:
        with connect(database, application_name="tests") as connection:
            activate_policy(connection, tenant, LookbackPolicy.parse(json.loads(before_file.read_text())))
        stitch(stages, events)
        late(stages, events)
        before = stored_credits(database, tenant)
        found = diff_of(database, tenant, policy)
        assert {cell: old for cell, old, _, _ in found.rows() if old} == {c: v for c, v in before.items() if v}
        assert found.changed > (0 if part == "trained" else 10)  # markov credits few of these journeys otherwise
        assert policy_line(database, file, tenant).endswith(f"in: {part}.")
        assert run(database, "policy", "activate", str(file), "--tenant", tenant, "--refit")[0] == 0
        answer_owed(stages, database)
    after = stored_credits(database, tenant)
    assert {cell: new for cell, _, new, _ in found.rows() if new} == {c: v for c, v in after.items() if v}
    assert after != before
    assert diff_of(database, tenant, policy).changed == 0
    with connect(database, application_name="tests") as connection:
        keys = connection.execute("SELECT tenant_id, conversion_id FROM attribution_conversions").fetchall()
        assert list(wrong_results(connection, list(conversions_by_id(connection, keys, MAX_DEVICES)))) == []


def late(stages: InProcess, events: Sequence[Event]) -> None:
    """Let touchpoints arrive an hour behind everything else, of the people of the first conversions."""
    at_ms = time.time_ns() // 1_000_000 + 3_600_000
    sales = [event for event in events if event.topic == CONVERSIONS and event.record["kind"] == "conversion"][:40]
    template = next(event.record for event in events if event.topic == TOUCHPOINTS)
    stages.read([
        Record(TOUCHPOINTS, 0, 1_000_000 + number, None, codec().encode("touchpoint", template | {
            "event_id": f"late{number}", "user_id": sale.record["user_id"], "is_bot": False,
            "anonymous_id": sale.record["anonymous_id"], "occurred_at": sale.record["occurred_at"] - 1,
        }), at_ms)
        for number, sale in enumerate(sales)
    ])  # fmt: skip
    stages.answer()


def test_trained_models_come_and_go_with_their_policy(database: str, tmp_path: Path) -> None:
    train(database, "acme")
    file = tmp_path / "policy.yaml"

    def activated(version: str) -> tuple[int, str]:
        file.write_text(f"{YAML}trained: {{markov: {version}}}\n")
        return run(database, "policy", "activate", str(file), "--tenant", "acme")

    with InProcess(database) as stages:
        stages.publish(sale("c1"))
    code, output = activated("2")
    assert (code, "Trained models in force: markov 2." in output) == (0, True)
    code, output = run(database, "policy", "rollback", "--tenant", "acme")
    assert (code, "Trained models in force: markov 1." in output) == (0, True)
    assert "Trained models in force: none." in activated("off")[1]
    with connect(database, application_name="tests") as connection:
        activate(connection, "acme", {"markov": 2})
    assert "The trained models stay" in run(database, "policy", "rollback", "--tenant", "acme")[1]
    for version, why in (("3", "its status is: insufficient data"), ("9", "no version 9")):
        code, output = activated(version)
        assert (code, why in output) == (2, True)
        assert run(database, "policy", "diff", str(file), "--tenant", "acme")[0] == 2
    with connect(database, application_name="tests") as connection:
        assert in_force(connection, "acme").versions == {"markov": 2}
        assert len(policy_history(connection, "acme")) == 4
        assert {row.activated_by for row in model_set_history(connection, "acme")} == {
            connection.execute("SELECT current_user").fetchall()[0][0]
        }
    lines = run(database, "policy", "history", "--tenant", "acme")[1].splitlines()
    assert sum(" models " in line for line in lines) == 5
    assert sum(" policy " in line for line in lines) == 4


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ("models: [last, nonsense]", "no model 'nonsense'"),
        ("models: [poisson]", "name one beside poisson"),
        ("trained: {linear: 1}", "'linear' is no trained model"),
        ("rules: {last: {a: 1}}", "has no parameters"),
        ("channels: [{as: Social Media}]", "channels[1]: needs as, and one or more of"),
    ],
)
def test_a_part_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path, part: str, why: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"{YAML}{part}\n")
    for command in ("diff", "activate"):
        ran = CliRunner().invoke(app, ["policy", command, str(file), "--tenant", "acme"], env={"COLUMNS": "300"})
        assert ran.exit_code == 2
        assert why in ran.output


def audit(database: str) -> list[tuple[Any, ...]]:
    with connect(database, application_name="tests") as connection:
        return connection.execute("SELECT action, subject, tenant_id FROM attribution_audit ORDER BY at").fetchall()


def test_versions_pin_what_is_in_force_for_their_tenant_and_a_running_stitcher_knows_it_at_once(database: str) -> None:
    with InProcess(database) as stages:
        stages.publish(sale("c0", 1_000, who="a:d0"))
        with connect(database, application_name="tests") as connection:
            activate_policy(connection, "acme", WIDE)
        stages.publish(sale("c1", 1_000))
        # Beyond every window that the stitcher knew when it began, inside the one that c1 pins.
        stages.publish(touch("t1", 0))
        versions = pins(database)
    assert versions == {"c0": (1, FILE.version), "c1": (2, WIDE.version)}
    with connect(database, application_name="tests") as connection:
        assert policy_in_force(connection, "acme", FILE) == WIDE
        assert policy_in_force(connection, "other", FILE) == FILE


def pins(database: str) -> dict[str, tuple[int, str]]:
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT conversion_id, version, policy_version FROM attribution_conversions"
        ).fetchall()
    return {name: (version, policy) for name, version, policy in rows}


def test_a_sample_has_an_interval_that_holds_the_whole(database: str) -> None:
    events = traffic(800, 300, tenants=1)
    tenant = events[0].record["tenant_id"]
    with InProcess(database) as stages:
        stitch(stages, events)
    whole = {cell: new - old for cell, old, new, _ in diff_of(database, tenant, NARROW).rows()}
    sample = diff_of(database, tenant, NARROW, most=150)
    assert sample.is_sample
    assert 80 < sample.looked_at < 220
    close = [abs(new - old - whole[cell]) <= 2 * half for cell, old, new, half in sample.rows() if half]
    assert close
    assert sum(close) >= 0.8 * len(close)


def test_nothing_to_roll_back_is_said(database: str) -> None:
    with InProcess(database) as stages:
        stages.publish(sale("c1"))
    code, output = run(database, "policy", "rollback", "--tenant", "acme")
    assert code == 1
    assert "no policy was ever activated for acme" in output
