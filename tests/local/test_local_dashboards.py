"""Every panel of every dashboard: its SQL on a real Postgres, its PromQL by promtool, its unit and description."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from attributary.consumers.store.connection import connect
from tests.factories.dashboards import CHOICES, dashboards, panels, plain_sql
from tests.factories.rolled_results import roll_up
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

    from tests.factories.samples import SampleEvent

TENANT = "o'neill"  # no tenant's name may have it; the queries must not care
CHOSEN = {**CHOICES, "tenant": ("acme",)}
SQL = [panel for panel in panels() if "rawSql" in panel["targets"][0]]
PROMQL = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"] if "expr" in target]


def shop(tenant: str, euros: int) -> list[SampleEvent]:
    """A month of a shop: two currencies, leads, refunds, conversions without a touchpoint."""
    events: list[SampleEvent] = []
    for number in range(30):
        who, at = f"a:d{number}", 24.0 * (number % 20)
        events.append(touch(f"t{number}", at, who=who, channel=("search", "mail")[number % 2], tenant_id=tenant))
        if number % 3:
            named = f"camp'aign {number % 4}"
            events.append(touch(f"u{number}", at + 1, who=who, channel="social", campaign_name=named, tenant_id=tenant))
        kind = {"conversion_type": "lead", "value": 1_000_000} if number % 5 == 0 else {"value": euros * 1_000_000}
        currency = "JPY" if number % 7 == 0 else "EUR"
        events.append(sale(f"o{number}", at + 2, who=who, currency=currency, tenant_id=tenant, **kind))
    events.append(sale("alone", 3, who="u:x", value=euros * 1_000_000, tenant_id=tenant))
    refund = {"kind": "refund", "conversion_id": "o1", "tenant_id": tenant}
    events.append(sale("r1", 60, who="a:d1", value=2 * euros * 1_000_000, **refund))
    return events


@pytest.fixture(scope="module")
def connection(module_database: str) -> Iterator[psycopg.Connection]:
    run(module_database, [shop("acme", 10), shop("other", 1_000)])
    with connect(module_database, application_name="tests") as connection:
        roll_up(connection, "acme", "other")
        connection.commit()
    with connect(module_database, application_name="tests", autocommit=True) as connection:
        yield connection


def answer(connection: psycopg.Connection, title: str) -> list[tuple[Any, ...]]:
    panel = next(panel for panel in SQL if panel["title"].startswith(title))
    return connection.execute(plain_sql(panel["targets"][0]["rawSql"], CHOSEN).encode()).fetchall()


@pytest.mark.postgres
@pytest.mark.parametrize("panel", SQL, ids=lambda panel: panel["title"])
def test_every_query_answers_and_names_what_the_panel_shows(
    connection: psycopg.Connection, panel: dict[str, Any]
) -> None:
    query = panel["targets"][0]["rawSql"]
    found = connection.execute(plain_sql(query, CHOSEN).encode())
    names = [column.name for column in found.description or ()]
    rows = found.fetchall()
    assert rows
    assert None not in {value for row in rows for value in row}
    if panel["type"] == "timeseries":
        assert names[:2] == ["time", "metric"]
        assert {(row[0].hour, row[0].minute) for row in rows} == {(0, 0)}
    for step in panel.get("transformations", ()):
        assert set(step["options"].values()) == set(names)
    nobody = connection.execute(plain_sql(query, {**CHOSEN, "tenant": (TENANT,)}).encode()).fetchall()
    assert all(value in {None, 0} for row in nobody for value in row)


@pytest.mark.postgres
def test_the_sums_of_the_panels_agree(connection: psycopg.Connection) -> None:
    ((conversions,),) = answer(connection, "Conversions")
    ((revenue,),) = answer(connection, "Net revenue, $currency")
    assert (conversions, revenue) == (
        26,
        10 * 21 + 5 - 20,
    )  # purchases, leads and the refund of one tenant in one currency
    assert sum(row[1] for row in answer(connection, "Net revenue by channel, $model")) == revenue
    by_model = answer(connection, "Net revenue by channel and model")
    assert {sum(row[2] for row in by_model if row[1] == model) for model in ("linear", "last")} == {revenue}
    assert sum(row[2] for row in answer(connection, "Net revenue a day")) == revenue
    assert sum(row[2] for row in answer(connection, "Conversions a day")) == conversions
    assert sum(row[2] for row in answer(connection, "Campaigns")) == revenue
    # Nothing stood before, so the changes are all that stands.
    assert sum(row[2] for row in answer(connection, "What changed, by reason")) == revenue
    by_channel = answer(connection, "What changed by channel")
    assert sum(row[2] for row in by_channel) == revenue
    assert {row[1] for row in by_channel} == {"new"}
    assert answer(connection, "Over-refunded") == [(1,)]
    assert answer(connection, "Credited by a fallback rule") == [(0,)]


@pytest.mark.postgres
def test_the_variables_offer_what_is_stored(connection: psycopg.Connection) -> None:
    (marketing,) = [dashboard for dashboard in dashboards() if "marketing" in dashboard["uid"]]
    offered = {
        variable["name"]: [row[0] for row in connection.execute(plain_sql(variable["query"]).encode()).fetchall()]
        for variable in marketing["templating"]["list"]
    }
    assert offered["tenant"] == ["acme", "other"]
    assert offered["currency"] == ["EUR", "JPY"]
    assert offered["type"] == ["purchase", "lead"]
    assert sorted(offered["model"]) == offered["model"]
    assert {"linear", "markov", "shapley"} <= set(offered["model"])
    chosen = {variable["name"]: variable for variable in marketing["templating"]["list"]}
    for name in ("tenant", "currency", "model"):  # adding them up says nothing
        assert not chosen[name]["multi"]
        assert not chosen[name]["includeAll"]


def test_every_panel_has_a_unit_a_description_and_a_place_of_its_own() -> None:
    for dashboard in dashboards():
        assert dashboard["panels"][0]["type"] == "row"
        everything = [*dashboard["panels"], *(p for row in dashboard["panels"] for p in row.get("panels", ()))]
        assert len({panel["id"] for panel in everything}) == len(everything)
        cells: set[tuple[int, int]] = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not mine & cells
            assert place["x"] + place["w"] <= 24
            cells |= mine
        for panel in everything:
            if panel["type"] != "row":
                assert panel["description"]
                assert panel["fieldConfig"]["defaults"]["unit"]
    first = {dashboard["uid"]: dashboard["panels"][0]["title"] for dashboard in dashboards()}
    assert first["attributary-operations"].startswith("Promises")


def test_every_variable_is_used_and_every_used_one_is_there() -> None:
    for dashboard in dashboards():
        text = "".join(
            target.get("rawSql", "") + target.get("expr", "")
            for row in dashboard["panels"]
            for panel in row.get("panels") or [row]
            for target in panel.get("targets", ())
        )
        used = set(re.findall(r"\$\{?(?!__)(\w+)", text))
        assert used == {variable["name"] for variable in dashboard["templating"]["list"]}


def test_promises_and_lag_have_colours() -> None:
    (operations,) = [dashboard for dashboard in dashboards() if "operations" in dashboard["uid"]]
    top = [panel for panel in operations["panels"] if panel["type"] != "row"]
    assert len(top) == 12
    for panel in top:
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert (steps[0]["color"], steps[-1]["color"]) == ("green", "red")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_parses_every_expression(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$__(rate_interval|range)", "5m", expression)}
        for number, (_, expression) in enumerate(PROMQL)
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("title", "expression"), PROMQL)
def test_every_expression_is_closed_and_filters_by_instance(title: str, expression: str) -> None:
    assert 'process=~"$process", instance=~"$instance"' in expression, title
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
