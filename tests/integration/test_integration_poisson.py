"""The time-aware model in the running pipeline: trained, brought into force, credited with, computed again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.attribution_core.models.model_set import model_set
from attributary.consumers.store.models.model_states import active_states
from attributary.local.process import run
from attributary.local.stages import command_line
from tests.factories.traffic import publish, traffic
from tests.observed_state import check_run

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

_BY_MODEL = """
SELECT model, sum(value), sum(credit), sum(value) FILTER (WHERE name = '(unattributed)')
FROM reporting.credit WHERE dimension = 'channel' GROUP BY 1
"""


def test_all_promises_hold_with_a_trained_model_that_has_a_baseline(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    def attributary(*arguments: str) -> str:
        return run(command_line(*arguments), name=arguments[0], timeout_seconds=240, env=pipeline.variables())

    publish(publisher, traffic(2_000, 250, seed=71, tenants=1))
    pipeline.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "1"
    pipeline.start("stitcher", "attributor", "auditor", "sweeper")
    pipeline.settle()
    tenant = pipeline.query("SELECT min(tenant_id) FROM attribution_conversions")
    trained = attributary(
        "models", "train", "--tenant", tenant, "--model", "poisson", "--setting", "minimum_conversions=10",
        "--activate", "--json",
    )  # fmt: skip
    assert json.loads(trained)["metadata"]["diagnostics"]["status"] == "ok"
    attributary("refit", "--tenant", tenant)
    publish(publisher, traffic(200, 40, seed=72, tenants=1))
    pipeline.settle()

    with psycopg.connect(pipeline.dsn) as connection:
        models = model_set(states=active_states(connection, tenant))
        by_model = {row[0]: row[1:] for row in connection.execute(_BY_MODEL).fetchall()}
        net = connection.execute("SELECT sum(net_value) FROM reporting.conversions").fetchone()
        (conversion,) = connection.execute("SELECT min(conversion_id) FROM reporting.results").fetchone() or ("",)
    assert models.models[-1].name == "poisson"
    check_run(pipeline.bootstrap, pipeline.dsn, acknowledged=publisher.acknowledged, models=models)
    assert net is not None
    assert {value for value, _, _ in by_model.values()} == set(net)
    _, credit, baseline = by_model["poisson"]
    assert credit == pytest.approx(by_model["linear"][1])
    assert baseline > (by_model["linear"][2] or 0)
    assert "0 differences" in attributary("verify")
    explained = json.loads(attributary("explain", conversion, "--tenant", tenant, "--json"))
    newest = max(explained["versions"], key=lambda version: version["version"])
    assert ("poisson", "1") in {(model["model"], model["model_version"]) for model in newest["credits"]}
