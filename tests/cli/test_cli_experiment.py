"""`attributary experiment`: tests of spend are stored, shown, used by plans, and planned from the tenant's sales."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.store.audit import audit_rows
from attributary.consumers.store.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.postgres

HEADER = "experiment,channel,design,from,to,currency,spend_from,spend_to,effect,standard_error,source\n"
CURVES = {"search": (9000.0, 1500.0), "social": (2500.0, 1200.0)}
LEVELS = ((0, 700), (700, 1000), (1000, 1500), (1000, 2500))
SPENDS = ("--spend", "search=7000", "--spend", "social=7000", "--days", "7", "--draws", "60")
# 100 days: each day 20 people buy for 50 +- 10, one of them twice.
SALES = """
INSERT INTO attribution_conversions (
    tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, received_at_us,
    gross_value_micros, net_value_micros, previous_net_micros, currency, version, version_reason, policy_version,
    owner_topic, owner_partition, owner_offset, event_published_us
)
SELECT 'acme', d || '-' || p, 'purchase', 'u:' || d || p % 19, 'u:' || d || p % 19, at, at, value, value, 0, 'EUR', 1,
       'new', 'p', 't', 0, 0, at
FROM generate_series(1, 100) AS d, generate_series(1, 20) AS p,
     LATERAL (SELECT (extract(epoch FROM now() - d * interval '1 day') * 1e6)::int8 AS at,
                     ((40 + (d * 7 + p * 3) % 21) * 1e6)::int8 AS value) AS row
"""


def experiments(error: float = 20.0, name: str = "") -> str:
    """Tests of 28 days in each channel, as its curve says of each pair of spends a day."""
    rows = [
        f"{name}{channel}-{place},{channel},geo,2026-09-01,2026-09-29,EUR,{low * 28},{high * 28},"
        f"{28 * (b * high / (k + high) - b * low / (k + low)):.2f},{error * 28},agency"
        for channel, (b, k) in CURVES.items()
        for place, (low, high) in enumerate(LEVELS)
    ]
    return HEADER + "\n".join(rows) + "\n"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, database: str, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        yield opened


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def add(folder: Path, text: str, *arguments: str, code: int = 0) -> Result:
    (folder / "tests.csv").write_text(text)
    return run("experiment", "add", "tests.csv", *arguments, code=code)


def test_experiments_are_added_corrected_withdrawn_and_each_change_is_audited(
    tmp_path: Path, connection: psycopg.Connection
) -> None:
    assert "nothing is stored" in add(tmp_path, experiments(), "--dry-run").stdout
    assert "stored: 8 new, 0 corrected, 0 as before" in add(tmp_path, experiments()).stdout
    assert "stored: 0 new, 0 corrected, 8 as before" in add(tmp_path, experiments()).stdout
    changed = experiments().replace("search-0,search,geo", "search-0,search,holdout")
    assert "stored: 0 new, 1 corrected, 7 as before" in add(tmp_path, changed).stdout
    assert "withdrawn" in run("experiment", "withdraw", "search-1").stdout
    shown = json.loads(run("experiment", "show", "search-0", "--json").stdout)["revisions"]
    assert [(each["revision"], each["design"]) for each in shown] == [(2, "holdout"), (1, "geo")]
    assert "before: revision 1" in run("experiment", "show", "search-0").stdout
    listed = {
        each["experiment"]: each for each in json.loads(run("experiment", "list", "--json").stdout)["experiments"]
    }
    assert (len(listed), listed["search-1"]["state"], listed["search-0"]["state"]) == (8, "withdrawn", "read")
    noted = audit_rows(connection, tenant="acme", action="experiment.", since_us=0, limit=20)
    assert sorted({row.action for row in noted}) == [
        "experiment.added", "experiment.corrected", "experiment.withdrawn",
    ]  # fmt: skip
    assert len(noted) == 10
    with pytest.raises(psycopg.errors.RaiseException, match="revisions are only added"):
        connection.execute("UPDATE attribution_experiments SET source = 'other'")


def test_the_list_has_amounts_a_day_and_the_return_with_its_interval(tmp_path: Path) -> None:
    row = "s,search,geo,2026-09-01,2026-09-11,EUR,0,1000,2500,100,me\nt,tv,geo,2999-09-01,2999-09-11,EUR,0,1000,,,me\n"
    add(tmp_path, HEADER + row)
    shown = run("experiment", "list").stdout
    assert "0.00 to 100.00" in shown
    assert "2.50 [2.34, 2.66]" in shown
    assert "planned" in shown


def test_a_plan_is_made_of_stored_experiments_and_of_the_tenants_only(tmp_path: Path) -> None:
    add(tmp_path, experiments())
    add(tmp_path, experiments(name="x").replace("search", "else"), "--tenant", "other")
    found = json.loads(run("budget", "plan", *SPENDS, "--json").stdout)
    after = {each["channel"]: each["after"] for each in found["channels"]}
    assert after == pytest.approx({"search": 8400.0, "social": 5600.0}, rel=0.01)
    refused = run("budget", "plan", *SPENDS, "--tenant", "other", code=1).stderr
    assert "search: no experiment with an effect is stored" in refused
    assert "plan it: attributary experiment plan search --tenant other --change 200.00" in refused


def test_spend_that_followed_demand_is_not_even_stored(tmp_path: Path, connection: psycopg.Connection) -> None:
    said = add(tmp_path, experiments().replace(",geo,", ",observational,"), code=2).stderr
    assert "line 2: design: must be one of geo, person" in said
    assert "spend that follows demand shows several times the true return" in said
    assert connection.execute("SELECT count(*) FROM attribution_experiments").fetchone() == (0,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEADER, "has no row"),
        (HEADER.replace("currency,", ""), "has no column currency"),
        (HEADER.replace("source", "source,extra"), "has the column extra, which is not known"),
        (
            HEADER + 2 * "s,search,geo,2026-09-01,2026-09-11,EUR,0,1000,2500,100,me\n",
            "line 3: experiment s is there twice",
        ),
        (HEADER + "s,search,geo,2026-09-01,2026-09-11,EUR,0,x,2500,100,me\n", "line 2: spend_to: must be a number"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_by_line_and_rule(text: str, said: str, tmp_path: Path) -> None:
    assert said in add(tmp_path, text, code=2).stderr


@pytest.mark.parametrize("command", ["list", "show", "withdraw"])
def test_an_unknown_tenant_or_experiment_is_an_error(command: str, connection: psycopg.Connection) -> None:
    name = () if command == "list" else ("nothing",)
    assert "tenant acme is unknown" in run("experiment", command, *name, code=1).stderr
    connection.execute("INSERT INTO attribution_tenants (tenant_id) VALUES ('acme')")
    connection.commit()
    ran = run("experiment", command, *name, code=0 if command == "list" else 1)
    assert "has no experiments" in ran.stdout if command == "list" else "has no experiment 'nothing'" in ran.stderr


def test_a_test_is_planned_from_the_tenants_own_sales(connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO attribution_tenants (tenant_id) VALUES ('acme')")
    connection.execute(SALES)
    connection.commit()
    found: dict[str, Any] = json.loads(run("experiment", "plan", "social", "--change", "100", "--json").stdout)
    assert (found["currency"], found["days_of_sales"]) == ("EUR", 99)
    assert found["sales_a_day"] == pytest.approx(1000.0, rel=0.02)
    tests = {(each["design"], each["days"]): each for each in found["tests"]}
    assert {design for design, _ in tests} == {"switchback", "person"}
    assert tests["person", 84]["detectable"] < tests["person", 14]["detectable"]
    # 18 people for about 50 and one for about 100 a day, half of them in each arm.
    expected = ((18 * 50**2 + 100**2) * 28) ** 0.5 * 2 / 28
    assert tests["person", 28]["error"] == pytest.approx(expected, rel=0.05)
    assert tests["person", 28]["return"] == pytest.approx(tests["person", 28]["detectable"] / 100)
    shown = run("experiment", "plan", "social", "--change", "100", "--carry-over", "0.8").stdout
    assert shown.startswith("social: the smallest effect that a test finds is ")
    assert "seen: the part of an effect" in shown


def test_a_past_that_is_too_short_and_a_file_of_regions(tmp_path: Path, connection: psycopg.Connection) -> None:
    connection.execute("INSERT INTO attribution_tenants (tenant_id) VALUES ('acme')")
    connection.commit()
    assert "there are 0 days of sales" in run("experiment", "plan", "social", code=1).stderr
    lines = [f"2026-{5 + day // 28:02d}-{1 + day % 28:02d},r{region},{100 + (day * 7 + region * 13) % 23}"
             for day in range(84) for region in range(6)]  # fmt: skip
    (tmp_path / "regions.csv").write_text("day,region,sales\n" + "\n".join(lines) + "\n")
    found = json.loads(run("experiment", "plan", "social", "--series", "regions.csv", "--json").stdout)
    assert {(each["design"], each["days"]) for each in found["tests"]} >= {("geo", 14), ("geo", 28)}
    (tmp_path / "regions.csv").write_text("day,region,sales\n2026-01-01,a,x\n")
    said = run("experiment", "plan", "social", "--series", "regions.csv", code=2).stderr
    assert "line 2: day must be a day" in said
