"""Reports of platforms become slices: by their own columns, with nothing guessed and nothing lost."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.cli.spend_files import open_report
from attributary.consumers.spend.file_rows import SpendFile, read_spend
from attributary.consumers.spend.mapping import SHIPPED, read_mapping
from attributary.producers.importer.plan import PlanError
from attributary.producers.importer.rows import FileError, Row

if TYPE_CHECKING:
    from pathlib import Path

DAY = date(2026, 11, 2)
# One file a platform, as its interface or connector writes it: the text, options, and what is read of the first row.
REPORTS: dict[str, tuple[str, str, dict[str, Any], tuple[str, str, str, str, int, str]]] = {
    "google": (
        "google.csv",
        ('Campaign report\n"November 1, 2026 - November 2, 2026"\n'
        "Day,Customer ID,Campaign,Campaign ID,Currency code,Cost,Impr.,Clicks,Conversions,Conv. value\n"
        '2026-11-02,123-456-7890,Brand,21,EUR,"1,234.56",900,31,3.50,420.00\n'
        'Total: Account,--,--,--,EUR,"1,234.56",900,31,3.50,420.00\n'),
        {},
        ("google", "123-456-7890", "campaign", "21", 1_234_560_000, "EUR"),
    ),
    "meta": (
        "meta.csv",
        ("Account ID,Campaign name,Campaign ID,Ad set name,Ad set ID,Ad ID,Day,Amount spent (EUR),Impressions,"
        "Link clicks\n"
        "238,Spring,11,Women,12,13,2026-11-02,12.34,100,5\n"),
        {},
        ("meta", "238", "ad", "13", 12_340_000, "EUR"),
    ),
    "tiktok": (
        "tiktok.csv",
        ("Date,Advertiser ID,Campaign ID,Campaign name,Cost,Currency,Impressions,Clicks (destination),Conversions\n"
        "2026-11-02 00:00:00,7001,31,Reels,5.00,USD,10,1,-\nTotal of 1 result,-,-,-,5.00,USD,10,1,-\n"),
        {},
        ("tiktok", "7001", "campaign", "31", 5_000_000, "USD"),
    ),
    "linkedin": (
        "linkedin.tsv",
        ("Campaign Performance Report (in UTC)\nReport Start: November 1\nReport End: November 2\nDate Generated\n\n"
        "Start Date (in UTC)\tAccount ID\tCampaign ID\tCampaign Name\tTotal Spent\tCurrency\tImpressions\tClicks\n"
        "11/02/2026\t501\t41\tLeads\t77.70\tEUR\t20\t2\n"),
        {},
        ("linkedin", "501", "campaign", "41", 77_700_000, "EUR"),
    ),
    "microsoft": (
        "microsoft.csv",
        ("Gregorian date,Account number,Campaign,Campaign ID,Currency code,Spend,Impressions,Clicks,"
        "Conversions,Revenue\n"
        "11/2/2026,F107,Search,51,GBP,8.10,30,3,1,50.00\n©2026 Microsoft Corporation,,,,,,,,,\n"),
        {},
        ("microsoft", "F107", "campaign", "51", 8_100_000, "GBP"),
    ),
    "fivetran": (
        "fivetran.csv",
        ("source_relation,date_day,platform,account_id,account_name,campaign_id,campaign_name,clicks,impressions,spend\n"
        ",2026-11-02,facebook_ads,238,Shop,11,Spring,5,100,12.34\n"),
        {"currency": "EUR"},
        ("meta", "238", "campaign", "11", 12_340_000, "EUR"),
    ),
    "airbyte": (
        "airbyte.jsonl",
        json.dumps({"_airbyte_data": {"segments.date": "2026-11-02", "customer.id": 1234567890, "campaign.id": 21,
                                      "campaign.name": "Brand", "metrics.cost_micros": 1234560000,
                                      "customer.currency_code": "EUR", "metrics.clicks": 31}}) + "\n",
        {"platform": "google"},
        ("google", "1234567890", "campaign", "21", 1_234_560_000, "EUR"),
    ),
}  # fmt: skip


def read(folder: Path, name: str, text: str, mapping: str, **options: Any) -> SpendFile:
    file = folder / name
    file.write_text(text, "utf-8")
    plan = read_mapping(mapping, options)
    with open_report(file, plan, None) as report:
        return read_spend(report.rows, report.columns, plan, report.zone)


@pytest.mark.parametrize("platform", SHIPPED)
def test_each_platform_s_report_is_read_by_its_own_columns(platform: str, tmp_path: Path) -> None:
    name, text, options, expected = REPORTS[platform]
    found = read(tmp_path, name, text, platform, **options)
    assert found.rejected == []
    [(key, rows)] = found.slices.items()
    [row] = rows.values()
    assert (key.platform, key.account, key.level, row.entity, row.net_micros, row.currency) == expected
    assert key.day == DAY
    assert row.campaign_name
    assert row.clicks > 0


def test_totals_are_left_out_and_claims_are_kept(tmp_path: Path) -> None:
    found = read(tmp_path, *REPORTS["google"][:2], "google")
    assert (found.rows, found.totals) == (2, 1)
    [row] = next(iter(found.slices.values())).values()
    assert (row.claimed_conversions, row.claimed_value_micros) == (Decimal("3.50"), 420_000_000)


def test_three_daily_rows_are_three_days_and_rows_of_a_day_add_up(tmp_path: Path) -> None:
    header = "Day,Customer ID,Campaign ID,Campaign,Device,Cost,Currency\n"
    rows = [f"2026-11-0{day},g1,21,Brand,{device},10.00,EUR" for day in (1, 2, 3) for device in ("mobile", "desktop")]
    found = read(tmp_path, "g.csv", header + "\n".join([*rows, rows[0]]) + "\n", "google")
    assert [row.net_micros for rows in found.slices.values() for row in rows.values()] == [20_000_000] * 3
    assert (found.merged, found.copies) == (3, 1)
    assert found.sums() == {"EUR": (60_000_000, 0)}


def test_tax_zone_and_an_account_level_report(tmp_path: Path) -> None:
    text = "Parameters:TimeZone=Europe/Berlin\nDay,Customer ID,Cost,Currency\n2026-11-01,g1,119.00,EUR\n"
    found = read(tmp_path, "g.csv", text, "google", tax="included:19")
    [(key, rows)] = found.slices.items()
    assert (key.level, rows["g1"].net_micros, rows["g1"].tax_micros) == ("account", 100_000_000, 19_000_000)
    assert found.zones[key] == "Europe/Berlin"


def test_a_file_of_ones_own_with_decimal_commas_and_names_without_ids(tmp_path: Path) -> None:
    mapping = tmp_path / "mine.yaml"
    mapping.write_text(
        "platform: criteo\naccount: main\ncurrency: EUR\ndelimiter: ;\ndecimal_comma: true\nday_formats: ['%d.%m.%Y']\n"
        "map: {day: Tag, campaign_name: Kampagne, amount: Kosten}\n"
    )
    found = read(tmp_path, "c.csv", "Tag;Kampagne;Kosten\n02.11.2026;Herbst;1234,50\n", str(mapping))
    [(key, rows)] = found.slices.items()
    assert (key.platform, key.account, key.day) == ("criteo", "main", DAY)
    assert rows["name:Herbst"].net_micros == 1_234_500_000
    assert rows["name:Herbst"].campaign_id == "name:Herbst"


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"Day": "yesterday"}, "day", "must be a day in the form 2026-11-01"),
        ({"Day": ""}, "day", "must be given"),
        ({"Day": "1998-01-01"}, "day", "between 2000 and 2099"),
        ({"Cost": "abc"}, "amount", "number"),
        ({"Cost": "1,234"}, "amount", "could be thousands or decimals"),
        ({"Cost": "1e30"}, "amount", "must be"),
        ({"Currency": "EURO"}, "currency", "ISO 4217"),
        ({"Currency": ""}, "currency", "ISO 4217"),
        ({"Customer ID": ""}, "account", "must be given"),
        ({"Campaign ID": "", "Campaign": ""}, "campaign_id", "must be given, or a name"),
        ({"Campaign ID": "x" * 300}, "campaign_id", "200 characters at most"),
        ({"Clicks": "1.5"}, "clicks", "whole number"),
        ({"Clicks": "-1"}, "clicks", "whole number"),
    ],
)
def test_a_row_that_breaks_a_rule_is_refused_with_it(
    change: dict[str, str], field: str, rule: str, tmp_path: Path
) -> None:
    cells = {"Day": "2026-11-02", "Customer ID": "g1", "Campaign ID": "21", "Campaign": "Brand", "Cost": "10.00",
             "Currency": "EUR", "Clicks": "3"}  # fmt: skip
    rows = [cells, cells | {"Campaign ID": "22"} | change]
    text = ",".join(cells) + "\n" + "\n".join(",".join(f'"{cell}"' for cell in row.values()) for row in rows) + "\n"
    found = read(tmp_path, "g.csv", text, "google")
    [rejected] = found.rejected
    assert (rejected.field, rejected.row.line) == (field, 3)
    assert rule in rejected.rule
    assert len(next(iter(found.slices.values()))) == 1


def test_a_currency_is_never_guessed_and_the_header_s_is_not_overruled(tmp_path: Path) -> None:
    text = "Day,Account ID,Campaign ID,Amount spent (JPY)\n2026-11-02,238,11,1200\n"
    [row] = next(iter(read(tmp_path, "m.csv", text, "meta").slices.values())).values()
    assert (row.currency, row.net_micros) == ("JPY", 1_200_000_000)
    with pytest.raises(PlanError, match="is in JPY, not USD"):
        read(tmp_path, "m.csv", text, "meta", currency="USD")
    with pytest.raises(PlanError, match=r"no column gives currency .*--currency"):
        read(tmp_path, "m.csv", text.replace(" (JPY)", ""), "meta")


@pytest.mark.parametrize(
    ("mapping", "options", "text", "message"),
    [
        ("nope", {}, "", "mapping nope: there is none; there are google, meta"),
        ("google", {"map": ["cost=Cost"]}, "", "spend has no such field"),
        ("google", {"tax": "19"}, "", "must be excluded, or included:PERCENT"),
        ("google", {"level": "keyword"}, "", "must be one of account, campaign, ad_set, ad"),
        ("google", {"time_zone": "Berlin"}, "", "must be a name such as Europe/Berlin"),
        ("google", {}, "Campaign,Cost\nx,1\n", "no column gives day"),
        ("airbyte", {}, "date,account_id,spend,currency\n2026-11-02,1,1,EUR\n", "no column gives platform"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_cure(
    mapping: str, options: dict[str, Any], text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises((PlanError, FileError), match=message):
        read(tmp_path, "f.csv", text or "Day,Customer ID,Cost,Currency\n2026-11-01,g,1,EUR\n", mapping, **options)


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    from pyarrow import csv, parquet

    name, text, options, expected = REPORTS["fivetran"]
    (tmp_path / name).write_text(text)
    parquet.write_table(csv.read_csv(tmp_path / name), tmp_path / "spend.parquet")
    plan = read_mapping("fivetran", options)
    with open_report(tmp_path / "spend.parquet", plan, None) as report:
        found = read_spend(report.rows, report.columns, plan)
    [(key, rows)] = found.slices.items()
    assert (key.platform, key.account, next(iter(rows.values())).net_micros) == ("meta", "238", expected[4])


CELLS = st.one_of(st.none(), st.booleans(), st.text(max_size=8), st.integers(), st.floats(), st.decimals(), st.dates())
NAMES = ("Day", "Customer ID", "Campaign ID", "Campaign", "Cost", "Currency", "Clicks", "Conversions")


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, CELLS)), max_size=5))
def test_whatever_stands_in_the_cells_a_row_is_read_or_refused(rows: list[dict[str, Any]]) -> None:
    plan = read_mapping("google", {})
    found = read_spend([Row(n, cells) for n, cells in enumerate(rows, 1)], NAMES, plan)
    read_rows = sum(len(entities) for entities in found.slices.values())
    assert found.rows == len(rows)
    assert read_rows + found.merged + found.copies + found.totals + len(found.rejected) == len(rows)
    for entities in found.slices.values():
        for row in entities.values():
            assert "\0" not in row.entity + row.campaign_name


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.decimals(-999, 999, places=2)), max_size=12))
def test_the_sum_of_the_slices_is_the_sum_of_the_rows(rows: list[tuple[str, int, Decimal]]) -> None:
    cells = [
        {"Day": f"2026-11-0{day}", "Customer ID": "g", "Campaign ID": campaign, "Cost": str(cost), "Currency": "EUR",
         "Row": str(number)}
        for number, (campaign, day, cost) in enumerate(rows)
    ]  # fmt: skip
    found = read_spend(
        [Row(n, each) for n, each in enumerate(cells, 1)],
        tuple(cells[0]) if cells else None,
        read_mapping("google", {}),
    )
    assert sum(net for net, _ in found.sums().values()) == sum(int(cost * 1_000_000) for _, _, cost in rows)
