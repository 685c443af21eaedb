"""What the read API answers: pages, results, explanations, reports, models, analyses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributary.consumers.reports.catalog import BY_NAME
from tests.api.conftest import ORDERS

if TYPE_CHECKING:
    from tests.api.conftest import Api

pytestmark = pytest.mark.postgres
BASE = "/api/v1/attribution"


def pages(api: Api, query: str, limit: int) -> list[tuple[str, int]]:
    """Conversion and version of every result, page by page."""
    found: list[tuple[str, int]] = []
    after = ""
    while True:
        page = api.good(f"{BASE}/results?limit={limit}{query}{after}")
        assert len(page["results"]) <= limit
        found += [(result["conversion_id"], result["version"]) for result in page["results"]]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def test_health_needs_no_key(api: Api) -> None:
    assert api.good(f"{BASE}/health", key=None) == {"status": "ok", "database": "ok"}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 40), order=st.sampled_from(["time", "conversion"]))
def test_pages_hold_every_conversion_once_in_order(api: Api, limit: int, order: str) -> None:
    found = pages(api, f"&order={order}", limit)
    assert [name for name, _ in found] == [f"order-{number:02}" for number in range(ORDERS)]
    assert dict(found)["order-03"] == 2


@pytest.mark.parametrize("order", ["time", "conversion"])
def test_all_versions(api: Api, order: str) -> None:
    found = pages(api, f"&versions=all&order={order}", 7)
    assert len(found) == len(set(found)) == ORDERS + 1
    assert {("order-03", 1), ("order-03", 2)} < set(found)


def test_results_are_filtered(api: Api) -> None:
    leads = pages(api, "&conversion_type=lead", 100)
    assert [name for name, _ in leads] == ["order-04", "order-09", "order-14", "order-19", "order-24"]
    assert pages(api, "&currency=USD", 100) == []
    day = pages(api, "&from=2026-11-02T00:00:00Z&to=2026-11-02T02:00:00Z", 100)
    assert day == [("order-23", 1), ("order-24", 1)]


def test_a_result_as_it_was_and_as_it_is(api: Api) -> None:
    now = api.good(f"{BASE}/conversions/order-03/result")
    assert (now["version"], now["version_reason"], now["net_value_micros"]) == (2, "refund", 9_030_000)
    first = api.good(f"{BASE}/conversions/order-03/result?version=1")
    assert (first["version"], first["net_value_micros"]) == (1, 10_040_000)
    then = api.good(f"{BASE}/results?as_of={first['computed_at']}&from=2026-11-01T04:00:00Z&to=2026-11-01T04:00:01Z")
    assert [result["version"] for result in then["results"]] == [1]


def test_credits_and_the_rest_are_the_net_value(api: Api) -> None:
    for result in api.good(f"{BASE}/results")["results"]:
        assert [touch["channel"] for touch in result["touchpoints"]] == ["paid_search", "email"]
        for model in result["models"]:
            given_out = sum(credit["value_micros"] for credit in model["credits"])
            assert given_out + model["unattributed_micros"] == result["net_value_micros"]


def test_the_etag_is_the_version(api: Api) -> None:
    for path in ("result", "explain"):
        first = api.ask(f"{BASE}/conversions/order-03/{path}")
        assert first.headers["etag"].startswith('"2-')
        again = api.ask(
            f"{BASE}/conversions/order-03/{path}", headers={"If-None-Match": f'"x", {first.headers["etag"]}'}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert api.ask(f"{BASE}/conversions/order-03/{path}", headers={"If-None-Match": '"1-x"'}).status_code == 200


def test_an_explanation_names_events_touches_and_versions(api: Api) -> None:
    found = api.good(f"{BASE}/conversions/order-03/explain")
    assert [event["kind"] for event in found["events"]] == ["purchase", "refund"] or len(found["events"]) == 2
    assert [touch["is_in"] for touch in found["touches"]] == [True, True]
    assert [version["version"] for version in found["versions"]] == [1, 2]


def test_a_report_adds_up_to_the_micro(api: Api) -> None:
    report = api.good(f"{BASE}/reports?by=channel,conversion_type&models=last,linear,position_based")
    total = report["totals"][0]
    assert total["conversions"] == ORDERS
    results = api.good(f"{BASE}/results")["results"]
    assert total["net_value_micros"] == sum(result["net_value_micros"] for result in results)
    for model in ("last", "linear", "position_based"):
        lines = [line for line in report["lines"] if line["model"] == model]
        assert sum(line["value_micros"] for line in lines) == total["net_value_micros"]
        assert sum(line["conversions"] for line in lines) == pytest.approx(ORDERS)
    email = next(line for line in report["lines"] if line["model"] == "last" and line["keys"]["channel"] == "email")
    assert email["keys"]["conversion_type"] in {"lead", "purchase"}


def test_a_journey_is_analysed_now(api: Api) -> None:
    found = api.good(f"{BASE}/analyze/journey", method="POST", json={"conversion_id": "order-07"})
    assert [touch["channel"] for touch in found["touchpoints"]] == ["paid_search", "email"]
    linear = next(model for model in found["models"] if model["model"] == "linear")
    assert sum(linear["value_micros"]) + linear["unattributed_micros"] == found["net_value_micros"] == 10_080_000


def test_models_of_a_tenant_without_training(api: Api) -> None:
    assert api.good(f"{BASE}/models/status") == {"models": []}


@pytest.mark.parametrize("name", BY_NAME)
def test_every_report_of_the_catalogue_is_answered(api: Api, name: str) -> None:
    answer = api.ask(f"{BASE}/reports/{name}?by=channel&limit=5")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["total"]["conversions"] == ORDERS
    assert [column["name"] for column in found["columns"]] == [column.name for column in BY_NAME[name].columns]
    assert all(len(row) == len(found["columns"]) for row in found["rows"])
    again = api.ask(f"{BASE}/reports/{name}?by=channel&limit=5", headers={"If-None-Match": answer.headers["etag"]})
    # What depends on the present moment may have changed meanwhile: the default of `since` is a week ago.
    assert again.status_code == 304 or name == "restatements"


def test_a_report_of_the_catalogue_adds_up_and_refuses_what_it_does_not_know(api: Api) -> None:
    found = api.good(f"{BASE}/reports/models?models=last,linear&time_zone=Europe/Berlin")
    value = next(place for place, column in enumerate(found["columns"]) if column["name"] == "value")
    for model in ("last", "linear"):
        assert sum(row[value] for row in found["rows"] if row[1] == model) == found["total"]["net_value_micros"]
    assert (found["tenant"], found["time_zone"], found["models"]) == ("acme", "Europe/Berlin", ["last", "linear"])
    for query, field in (("models=nosuch", "models"), ("time_zone=Mars", "time_zone"), ("by=person", "by")):
        refused = api.ask(f"{BASE}/reports/models?{query}")
        assert (refused.status_code, refused.json()["field"]) == (400, field)
        assert "nosuch" not in refused.text
        assert "Mars" not in refused.text
    assert api.ask(f"{BASE}/reports/nosuch").status_code == 400
    assert api.good(f"{BASE}/reports/days", key="other")["total"]["conversions"] == 1
