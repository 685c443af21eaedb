"""`attributary spend report`, `spend reconcile` and `fx`: worked numbers, through the whole pipeline."""

from __future__ import annotations

import csv
import io
import json
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run as run_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.postgres

DAY = 24
CAMPAIGNS = ("--from", "2026-11-01", "--by", "campaign", "--currency", "EUR")
SOCIAL = {"channel": "paid_social", "platform": "meta", "campaign_id": "11", "campaign_name": "Spring"}
SEARCH = {"channel": "paid_search", "platform": "google", "campaign_id": "21", "campaign_name": "Brand"}
# The first days of November 2026. Friday is the 6th, Monday the 9th.
RATES = "Date,USD,HRK\n2026-11-09,1.20,N/A\n2026-11-06,1.10,N/A\n"
GOOGLE = (
    "Day,Customer ID,Campaign,Campaign ID,Currency code,Cost,Conversions,Conv. value\n"
    "2026-11-01,g1,Brand,21,EUR,10.00,0,0\n2026-11-02,g1,Brand,21,EUR,20.00,0,0\n2026-11-09,g1,Brand,21,EUR,20.00,2,150.00\n"
    "2026-11-03,g1,Never,22,EUR,1000.00,0,0\n"
)
META = (
    "Day,Account ID,Campaign name,Campaign ID,Amount spent (USD),Purchases,Purchases conversion value\n"
    "2026-11-07,m1,Spring,11,110.00,1,100.00\n"
)


@pytest.fixture(scope="module")
def folder(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Orders: 100 EUR of ann (social on day 1, search on day 9, bought on day 10), refunded ones in dollars."""
    refund = {"kind": "refund", "conversion_id": "s2", "who": "u:bob", "currency": "USD"}
    run_pipeline(
        module_database,
        [
            [touch("t1", 1, who="u:ann", **SOCIAL), touch("t2", 8 * DAY + 1, who="u:ann", **SEARCH),
             sale("s1", 9 * DAY + 2, who="u:ann", value=100 * 10**6)],
            [touch("t3", 5 * DAY, who="u:bob", **SEARCH),
             sale("s2", 6 * DAY, who="u:bob", value=110 * 10**6, currency="USD")],
            [sale("r2", 8 * DAY + 5, value=110 * 10**6, **refund)],
            [touch("t4", 9 * DAY, who="u:ann", **SEARCH), sale("s4", 9 * DAY + 3, who="u:ann", value=50 * 10**6)],
            [touch("t5", 2, who="u:eve", channel="email"), sale("s5", 3, who="u:eve", value=30 * 10**6)],
        ],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("report")
    for name, text in (("rates.csv", RATES), ("google.csv", GOOGLE), ("meta.csv", META)):
        (path / name).write_text(text)
    return path


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, folder: Path, module_database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", module_database)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")
    monkeypatch.chdir(folder)
    run("fx", "import", "rates.csv")
    run("spend", "import", "google.csv", "--mapping", "google", "--complete", "--timezone", "UTC")
    run("spend", "import", "meta.csv", "--mapping", "meta", "--complete", "--timezone", "Europe/Berlin")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


def report(*arguments: str) -> dict[str, Any]:
    period = ("--from", "2026-11-01", "--to", "2026-11-30", "--format", "json")
    return dict(json.loads(run("spend", "report", *period, *arguments).stdout))


def rows_of(found: dict[str, Any], *keys: str) -> dict[tuple[str, ...], dict[str, Any]]:
    return {tuple(row[key] for key in keys): row for row in found["rows"]}


def test_cash_and_accrual_split_an_order_over_days_and_leave_spend_alone() -> None:
    """100 bought on day 10 after social on day 1 and search on day 9, linear: 50 and 50."""
    amounts: dict[str, dict[tuple[str, str], str]] = {}
    for dating in ("cash", "accrual"):
        found = report("--by", "platform", "--per", "day", "--dating", dating, "--currency", "EUR")
        amounts[dating] = {
            (row["platform"], row["period"]): row["net_value"]
            for row in found["rows"]
            if row["platform"] in {"google", "meta"} and Decimal(row["net_value"])
        }
        spend = sum(Decimal(row["spend"]) for row in found["rows"] if row["platform"] == "google")
        assert spend == 1050
    # s4 is an order of day 10 too: ann's touches of both searches and social share its 50 euros.
    assert set(amounts["cash"]) == {("google", "2026-11-10"), ("meta", "2026-11-10")}
    assert set(amounts["accrual"]) == {("google", "2026-11-09"), ("google", "2026-11-10"), ("meta", "2026-11-01")}
    for dated in amounts.values():
        assert sum(map(Decimal, dated.values())) == 150


def test_amounts_are_converted_by_the_last_rate_of_their_day_and_a_refund_leaves_nothing() -> None:
    found = report("--by", "campaign", "--currency", "EUR")
    rows = rows_of(found, "platform", "campaign_id")
    assert rows["meta", "11"]["spend"] == "100.00"  # 110 dollars on Saturday at Friday's 1.10
    assert {row["currency"] for row in found["rows"]} == {"EUR"}
    assert sum(Decimal(row["net_value"]) for row in found["rows"]) == 180  # the dollars came back as a whole
    apart = report("--by", "campaign", "--currency", "each")
    assert rows_of(apart, "platform", "campaign_id", "currency")["google", "21", "USD"]["net_value"] == "0.00"
    assert rows_of(apart, "platform", "campaign_id", "currency")["meta", "11", "USD"]["spend"] == "110.00"


def test_a_campaign_without_conversions_has_its_spend_in_the_total_and_a_bound() -> None:
    found = report("--by", "campaign", "--currency", "EUR")
    never = rows_of(found, "platform", "campaign_id")["google", "22"]
    assert never["roas"] == {"value": 0.0, "low": None, "high": None}
    assert (never["cpa"]["value"], never["cpa"]["high"]) == (None, None)
    assert never["cpa"]["low"] == pytest.approx(333.8, abs=0.1)
    [total] = found["totals"]
    assert total["spend"] == "1150.00"
    assert not [name for name in total if name.startswith("claimed")]  # each platform claims the same order
    assert "at least 333.81" in run("spend", "report", *CAMPAIGNS).stdout


@pytest.mark.parametrize("by", ["platform", "account", "campaign"])
@pytest.mark.parametrize("per", [(), ("--per", "day"), ("--per", "week"), ("--per", "month")])
def test_ratios_are_sums_over_sums_at_every_level(by: str, per: tuple[str, ...]) -> None:
    found = report("--by", by, "--currency", "EUR", "--models", "linear,last", *per)
    paid = {"google", "meta"}
    for total in found["totals"]:
        mine = [row for row in found["rows"] if row["platform"] in paid
                and (row["period"], row["model"]) == (total["period"], total["model"])]  # fmt: skip
        spend = sum(Decimal(row["spend"]) for row in mine)
        value = sum(Decimal(row["net_value"]) for row in mine)
        assert (spend, value) == (Decimal(total["spend"]), Decimal(total["net_value"]))
        if spend:
            assert total["roas"]["value"] == pytest.approx(float(value / spend), rel=1e-3)
        assert sum(row["conversions"] for row in mine) == pytest.approx(total["conversions"])
    email = [row for row in found["rows"] if row["platform"] == "email"]
    assert {row["campaign_id"] for row in email} == {"(no spend)"}
    assert all(row["roas"]["value"] is None for row in email)


def test_spend_has_the_channel_of_the_touchpoints_that_point_at_its_campaign() -> None:
    found = report("--by", "channel", "--currency", "EUR", "--models", "linear,last")
    rows = rows_of(found, "channel", "platform", "model")
    assert set(rows) == {
        (*key, model)
        for key in (("paid_search", ""), ("paid_social", ""), ("", "email"))
        for model in ("linear", "last")
    }
    # Nobody came by "Never": it has the channel of Google's other touchpoints.
    assert rows["paid_search", "", "linear"]["spend"] == "1050.00"
    # A third of ann's orders of 100 and 50 is social's, for 100.
    assert rows["paid_social", "", "linear"]["roas"]["value"] == pytest.approx(0.5, rel=1e-3)
    for total in found["totals"]:
        mine = [row for row in found["rows"] if row["channel"] and row["model"] == total["model"]]
        assert sum(Decimal(row["spend"]) for row in mine) == Decimal(total["spend"])
        assert sum(Decimal(row["net_value"]) for row in mine) == Decimal(total["net_value"])
    assert {row["claimed_value"] for row in found["rows"]} == {"0.00"}  # a channel has several platforms
    assert "paid_search" in run("spend", "report", *CAMPAIGNS[:2], "--by", "channel", "--currency", "EUR").stdout


def test_mer_is_all_revenue_over_all_spend_and_new_customers_count_once() -> None:
    found = report("--by", "platform", "--currency", "EUR", "--dating", "cash")
    [mer] = found["mer"]
    assert (mer["revenue"], mer["spend"], mer["conversions"]) == ("180.00", "1150.00", 4)
    assert mer["ratio"] == pytest.approx(180 / 1150)
    [total] = found["totals"]
    assert total["conversions"] == pytest.approx(3.0)
    assert total["new_conversions"] == pytest.approx(2.0)  # ann's second order is no new customer
    assert total["note"].startswith("insufficient: 3 conversions")


def test_a_missing_rate_and_another_zone_are_said_and_nothing_is_added_wrongly() -> None:
    found = report("--by", "campaign", "--currency", "GBP")
    assert any(note.startswith("EUR is not converted: no rate is known by") for note in found["notes"])
    assert any("meta m1 reports days of Europe/Berlin" in note for note in found["notes"])
    assert {row["currency"] for row in found["rows"]} == {"EUR", "USD"}


def test_spend_can_be_reported_as_of_a_moment(module_database: str) -> None:
    with psycopg.connect(module_database) as connection:
        then = connection.execute("SELECT clock_timestamp()").fetchall()[0][0].isoformat()
    (changed := io.StringIO()).write(META.replace("110.00", "220.00"))
    with open("meta2.csv", "w") as file:  # noqa: PTH123 - the folder of the test is the present one
        file.write(changed.getvalue())
    run("spend", "import", "meta2.csv", "--mapping", "meta", "--complete")
    now = rows_of(report("--by", "campaign", "--currency", "EUR"), "platform", "campaign_id")["meta", "11"]
    before = report("--by", "campaign", "--currency", "EUR", "--as-of", then)
    assert now["spend"] == "200.00"
    assert rows_of(before, "platform", "campaign_id")["meta", "11"]["spend"] == "100.00"


def test_csv_has_every_row_and_no_formula() -> None:
    text = run("spend", "report", *CAMPAIGNS, "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert sum(Decimal(row["spend"]) for row in rows) == 1150
    assert {row["campaign"] for row in rows} >= {"Brand", "Never", "Spring"}


def test_the_steps_from_our_value_to_the_claim_add_up() -> None:
    period = ("--from", "2026-11-01", "--to", "2026-11-30", "--currency", "EUR")
    found = json.loads(run("spend", "reconcile", *period, "--json").stdout)
    claims = {each["campaign_id"]: each for each in found["claims"]}
    for claim in claims.values():
        steps = ("cash", "dating", "shared", "window", "refunds", "unexplained")
        assert sum(Decimal(claim[step]) for step in steps) == Decimal(claim["claimed"])
    brand, spring = claims["21"], claims["11"]
    assert brand["claimed"] == "150.00"
    assert brand["refunds"] == "100.00"  # 110 dollars at 1.10, which the platform does not take off
    assert Decimal(brand["cash"]) + Decimal(brand["shared"]) == 150
    assert spring["window"] == "-150.00"  # both orders came nine days after its click; Meta's window is seven
    assert spring["window_days"] == 7
    shown = run("spend", "reconcile", *period).stdout
    assert "claimed by the platform" in shown
    assert "not explained" in shown


def test_rates_are_imported_once_corrected_and_told() -> None:
    assert "0 new, 0 corrected, 2 as before" in run("fx", "import", "rates.csv").stdout
    assert (
        "1 USD = 0.90909091 EUR on 2026-11-07, the rate of 2026-11-06"
        in run("fx", "rate", "usd", "eur", "2026-11-07").stdout
    )
    assert "no rate of HRK in EUR is known" in run("fx", "rate", "HRK", "EUR", "2026-11-07", code=1).stderr
    pairs = json.loads(run("fx", "list", "--json").stdout)["pairs"]
    assert [(pair["base"], pair["quote"], pair["days"], pair["last_day"]) for pair in pairs] == [
        ("EUR", "USD", 2, "2026-11-09")
    ]
    assert "neither the ECB's table" in run("fx", "import", "google.csv", code=2).stderr
    assert "either FILE or --ecb" in run("fx", "import", code=2).stderr
    assert "either FILE or --ecb" in run("fx", "import", "rates.csv", "--ecb", code=2).stderr


def test_the_extra_fx_brings_the_rates_of_the_ecb_since_1999() -> None:
    shown = run("fx", "import", "--ecb", "--dry-run").stdout
    assert "currencies, 1999-01-04 to 20" in shown
    assert "nothing is stored" in shown
    assert "left out, no currencies of today: CYP, EEK" in shown


def test_without_the_extra_fx_the_way_to_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "currency_converter", None)
    assert "pip install 'attributary[fx]'" in run("fx", "import", "--ecb", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--currency", "EURO"), "ISO 4217"),
        (("--timezone", "Berlin"), "must be a name such as"),
        (("--from", "2026-11-10", "--to", "2026-11-01"), "later day"),
        (("--models", " ,"), "at least one"),
        (("--by", "color"), "platform"),
    ],
)
def test_an_option_without_meaning_is_refused(arguments: tuple[str, ...], said: str) -> None:
    assert said in run("spend", "report", *arguments, code=2).stderr
