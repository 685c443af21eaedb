"""A trained version that cannot be built: its tenant is credited by the fallback, the others do not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.attributor import metrics
from attributary.consumers.auditor import metrics as auditor_metrics
from attributary.consumers.maintenance.recompute import wrong_results
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.attribution_inputs import conversions_by_id
from attributary.consumers.store.models.model_states import NewState, activate, save_states
from tests.factories.samples import codec, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.postgres

STATE = JourneyState.fit(
    JourneyBatch.of_paths([["search", "mail"], ["mail"]] * 40), Outcomes.of([True, False] * 40, [1_000_000, 0] * 40)
)


def put_in_force(dsn: str, tenant: str, settings: Mapping[str, Any], document: Mapping[str, Any] | None = None) -> None:
    """As somebody did who stored it past the checks, or before there were any."""
    with connect(dsn, application_name="tests") as connection, connection.transaction():
        state = NewState(tenant, "markov", document or STATE.to_document(), settings, {})
        (version,) = save_states(connection, [state])
        activate(connection, tenant, {"markov": version})


def markov(result: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = [model for model in result["models"] if model["model"] == "markov"]
    return dict(found)


@pytest.mark.parametrize(
    ("settings", "document"),
    [
        ({"journeys_per_count": 1e300, "fallback_rule": "last"}, None),  # comes back from jsonb as a whole number
        ({"draws": 100_000_000, "fallback_rule": "last"}, None),
        ({"fallback_rule": "last"}, {"kind": "attributary.journey-state", "schema": 1, "channels": ["a"]}),
    ],
)
def test_one_tenants_broken_version_stops_nobody(
    database: str, settings: dict[str, Any], document: dict[str, Any] | None
) -> None:
    put_in_force(database, "acme", settings, document)
    put_in_force(database, "else", {})
    unusable = metrics.model_versions_unusable.labels("markov")._value
    imbalance = auditor_metrics.credit_imbalance._value.get()
    before = unusable.get()
    with InProcess(database) as stages, capture_logs() as logs:
        for tenant in ("acme", "else"):
            stages.stitch(
                touch("t1", 1, channel="search", tenant_id=tenant),
                touch("t2", 2, channel="mail", tenant_id=tenant),
                sale("c1", 3, tenant_id=tenant),
            )
        commands = list(stages.commands)
        found = {result["tenant_id"]: markov(result) for result in stages.answer()}
        assert (found["acme"]["model_version"], found["acme"]["fallback"]) == ("1-unusable", "last")
        assert (found["else"]["model_version"], found["else"]["fallback"]) == ("1", None)
        assert found["acme"]["confidence"] is None
        assert found["acme"]["credits"] == [0.0, 1.0]
        (said,) = [entry for entry in logs if entry["log_level"] == "error"]
        assert (said["tenant"], said["model"], said["version"], said["model_set"]) == ("acme", "markov", "1", 1)
        assert said["why"]
        assert unusable.get() - before == 1
    with InProcess(database) as other:  # another process replays it: the same bytes
        rows = other.attributor.handle(commands).messages
        assert rows == []  # stored already
        with connect(database, application_name="tests") as connection:
            connection.execute("UPDATE attribution_conversions SET observed_version = 0")
        again = [codec().decode("result", message.value) for message in other.attributor.handle(commands).messages]
    assert {each["content_hash"] for each in again} == {each["content_hash"] for each in stages.results}
    assert len(again) == 2
    assert auditor_metrics.credit_imbalance._value.get() == imbalance
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT count(*) FROM attribution_results").fetchone() == (2,)
        pending = conversions_by_id(connection, [("acme", "c1"), ("else", "c1")])
        assert len(pending) == 2
        assert list(wrong_results(connection, pending)) == []  # what `verify` computes anew
