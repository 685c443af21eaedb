"""Spend on the report page: the numbers of `spend report` and `spend match`, only where there is spend."""

from __future__ import annotations

import html
import json
import re
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import pytest
from typer.testing import CliRunner

from attributary.attribution_core.spend.ratios import Estimate
from attributary.cli.main import app
from attributary.consumers.reports import page_spend
from attributary.consumers.reports.cells import estimate
from attributary.consumers.reports.page_channel_returns import channel_section
from attributary.consumers.spend.channels import ReturnKey
from attributary.consumers.spend.returns import ReturnQuery, ReturnRow, Returns
from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import prepare_rollup
from attributary.consumers.store.rollup.rebuild import rebuild_rollup
from attributary.schemas.topics import group_name
from tests.factories.samples import sale, touch
from tests.factories.stored_results import insert_results, stored_result
from tests.pipeline_harness import run as run_pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page
    from typer.testing import Result

pytestmark = pytest.mark.postgres

SOCIAL = {"channel": "paid_social", "platform": "meta"}
SEARCH = {"channel": "paid_search", "platform": "google", "campaign_id": "21", "campaign_name": "Brand"}
HOSTILE = "</bdi></td><script>alert(1)</script>"
NOVEMBER = ("--from", "2026-11-01", "--to", "2026-12-01")
GOOGLE = (
    "Day,Customer ID,Campaign,Campaign ID,Currency code,Cost\n"
    "2026-11-01,g1,Brand,21,EUR,50.00\n2026-11-03,g1,Never,22,EUR,1000.00\n"
    f"2026-11-04,g1,{HOSTILE},23,EUR,300.50\n"
)
# More campaigns than the page has room for, so that the rest is one row.
META = "Day,Account ID,Campaign name,Campaign ID,Amount spent (EUR)\n2026-11-02,m1,Spring sale,11,20.00\n" + "".join(
    f"2026-11-02,m1,Small {number} {'<' * 400 * (number > 12)},{100 + number},{number}.25\n" for number in range(1, 15)
)


@pytest.fixture(scope="module")
def shop(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Orders by search, by a campaign of Meta with another name, by one with a hostile name, and by e-mail."""
    run_pipeline(
        module_database,
        [
            [touch("t1", 1, who="u:a", **SEARCH), sale("s1", 30, who="u:a", value=40_000_000)],
            [touch("t2", 2, who="u:b", **SEARCH), sale("s2", 40, who="u:b", value=60_000_000)],
            [touch("t3", 3, who="u:c", campaign_name="spring_sale", **SOCIAL),
             sale("s3", 50, who="u:c", value=7_000_000)],
            [touch("t4", 4, who="u:d", campaign_name=HOSTILE, **SOCIAL), sale("s4", 60, who="u:d", value=2_000_000)],
            [touch("t5", 4, who="u:e", channel="email"), sale("s5", 60, who="u:e", value=5_000_000)],
            [sale("s6", 240, who="u:f", value=1_000_000)],  # of a day without spend
        ],
    )  # fmt: skip
    at = 1_793_700_000_000_000  # 2026-11-03
    other = stored_result("x1", 1, [("e1", "email", "meta", "c")], net=1_000_000, converted_at=at, computed_at=at)
    with connect(module_database, application_name="tests") as connection:
        insert_results(connection, [other | {"tenant_id": "other"}])
    folder = tmp_path_factory.mktemp("spend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", module_database)
        patch.setenv("ATTRIBUTION_TENANT", "acme")
        for name, text in (("google", GOOGLE), ("meta", META)):
            (folder / f"{name}.csv").write_text(text)
            run("spend", "import", str(folder / f"{name}.csv"), "--mapping", name, "--complete", "--timezone", "UTC")
    return module_database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, shop: str) -> None:
    monkeypatch.setenv("DATABASE_URL", shop)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result


def written(folder: Path, *arguments: str) -> str:
    run("report", "html", "--out", str(folder / "report.html"), *arguments)
    return (folder / "report.html").read_text("utf-8")


def part(text: str, name: str) -> str:
    return text.partition(f'<h2 id="{name}">')[2].partition("</section>")[0]


def plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def rows(text: str) -> list[list[str]]:
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    return [[plain(cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)] for row in body.split("</tr>")[:-1]]


def answer(*arguments: str) -> dict[str, Any]:
    return dict(json.loads(run("spend", *arguments, *NOVEMBER).stdout))


def test_the_numbers_are_those_of_the_report(tmp_path: Path) -> None:
    text = written(tmp_path, *NOVEMBER)
    found = answer("report", "--by", "campaign", "--currency", "EUR", "--format", "json")
    shown = rows(part(text, "spend"))
    assert len(shown) == 12 + 1 + len(found["totals"])
    for row, line in zip(found["rows"], shown[:12], strict=False):
        assert line[1:7] == [
            f"{float(row['spend']):,.2f}", f"{float(row['net_value']):,.2f}", "EUR",
            estimate(Estimate(**row["roas"])), f"{row['conversions']:,.2f}", estimate(Estimate(**row["cpa"])),
        ]  # fmt: skip
        assert row["campaign_id"] in line[0]
    rest = found["rows"][12:]
    assert shown[12][:3] == [
        f"(other): {len(rest)} rows",
        f"{sum(float(row['spend']) for row in rest):,.2f}",
        f"{sum(float(row['net_value']) for row in rest):,.2f}",
    ]
    [total] = found["totals"]
    assert shown[13][1:3] == [f"{float(total['spend']):,.2f}", f"{float(total['net_value']):,.2f}"]
    assert f"ROAS {estimate(Estimate(**total['roas']))}" in plain(part(text, "spend"))
    assert "at least 333.81" in part(text, "spend")  # 1,000 for no conversion
    assert "--from 2026-11-01 --to 2026-12-01 --by campaign --currency EUR" in part(text, "spend")
    assert "incremental" not in text


def test_return_by_channel_is_that_of_the_report_for_every_model(tmp_path: Path) -> None:
    text = written(tmp_path, *NOVEMBER)
    models = html.unescape(re.search(r"--models ([\w,]+) --from \S+ --to \S+ --by channel", text)[1])  # type: ignore[index]
    found = answer("report", "--by", "channel", "--currency", "EUR", "--models", models, "--format", "json")
    said = part(text, "spend-channels")
    shown = {(row[0], row[1]): row[2:] for row in rows(said)}
    assert len(models.split(",")) > 3
    names = {(row["channel"] or f"{row['platform']}  {row['campaign_id']}".replace("  ", " "), row["model"]): row
             for row in found["rows"] if row["campaign_id"] != "(no spend)"}  # fmt: skip
    totals = {("total of platforms with spend, EUR", row["model"]): row for row in found["totals"]}
    assert set(shown) == {*names, *totals}
    for key, row in (names | totals).items():
        assert shown[key] == [
            f"{float(row['spend']):,.2f}", f"{float(row['net_value']):,.2f}", "EUR", estimate(Estimate(**row["roas"])),
            f"{row['conversions']:,.2f}", estimate(Estimate(**row["cpa"])), row["note"],
        ], key  # fmt: skip
    assert names["paid_search", "linear"]["spend"] == "1350.50"
    assert "paid_search returns most per unit of spend by every model, but paid_social may be within" in plain(said)
    assert said.count("<li>") == 2


def ratio(value: float, low: float | None, high: float | None, *, channel: str, model: str = "linear") -> ReturnRow:
    """A channel that cost 10 EUR."""
    none = Estimate(None, None, None)
    return ReturnRow(
        ReturnKey("", "", "", channel), "", "", model, "EUR", Decimal(10), Decimal(value) * 10, value, 0.0,
        Estimate(value, low, high), none, none, Decimal(0), Decimal(0), "",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ([ratio(3, 2, 4, channel="a")], "Only one channel has spend: a."),
        ([ratio(3, 2, 4, channel="a"), ratio(1, 0.5, 1.5, channel="b")], "by each apart from all others by more than"),
        ([ratio(3, 2, 4, channel="a"), ratio(1, 0.5, 2.5, channel="b")], "but b may be within chance of it"),
        ([ratio(3, 2, 4, channel="a"), ratio(0, None, None, channel="b")], "but b may be within chance of it"),
        (
            [ratio(3, 2, 4, channel="a"), ratio(1, 0.5, 1.5, channel="b"),
             ratio(1, 0.5, 1.5, channel="a", model="last"), ratio(3, 2, 4, channel="b", model="last")],
            "The models disagree about the channel that returns most: a, b.",
        ),
    ],
)  # fmt: skip
def test_a_channel_is_called_first_only_where_all_models_and_intervals_say_so(
    found: list[ReturnRow], sentence: str
) -> None:
    query = ReturnQuery("acme", ("linear",), (date(2026, 11, 1), date(2026, 12, 1)), (0, 1), currency="EUR")
    said = plain(channel_section(query, Returns(rows=found), "linear", ""))
    assert sentence in said
    assert ("apart" in said) == ("apart" in sentence)


def test_what_matches_nothing_is_that_of_match(tmp_path: Path) -> None:
    text = written(tmp_path, *NOVEMBER)
    found = answer("match", "--json")
    lonely = [row for row in found["campaigns"] if not row["has_touchpoints"]]
    whole, alone = (sum(row["spend_micros"] for row in each) / 1e6 for each in (found["campaigns"], lonely))
    said = plain(part(text, "spend-lonely"))
    assert f"{alone:,.2f} EUR of {whole:,.2f} EUR is spend of {len(lonely)} campaigns" in said
    assert "the most is google g1/22 'Never' with 1,000.00 EUR" in said
    assert "attributary spend aliases set google g1/22 --name NAME --tenant acme" in said
    shown = rows(part(text, "spend-lonely"))
    assert sum(float(row[1].split()[0].replace(",", "")) for row in shown) == pytest.approx(alone)
    assert len(shown) == 13
    unmatched = [row for row in found["credit"] if row["campaign"] is None]
    credit = plain(part(text, "spend-unmatched"))
    assert f"{sum(row['credit_micros'] for row in unmatched) / 1e6:,.2f} EUR of credit by linear" in credit
    assert [row[2] for row in rows(part(text, "spend-unmatched"))] == ["7.00 EUR", "2.00 EUR"]
    assert "attributary spend aliases set meta m1/11 --name spring_sale --tenant acme" in credit


def test_the_roll_up_says_the_same(tmp_path: Path, shop: str) -> None:
    names = ("spend", "spend-channels", "spend-lonely", "spend-unmatched")
    before = written(tmp_path, *NOVEMBER)
    with connect(shop, application_name="tests") as connection:
        prepare_rollup(connection)
        rebuild_rollup(connection, "acme", (group_name("reporter"), group_name("auditor")))
        connection.commit()
    try:
        after = written(tmp_path, *NOVEMBER)
    finally:
        with connect(shop, application_name="tests") as connection:
            connection.execute("DELETE FROM attribution_rollup_state")
            connection.commit()
    assert "Credit is from the roll-up" in part(after, "spend")
    assert [rows(part(after, name)) for name in names] == [rows(part(before, name)) for name in names]


def test_without_limits_the_days_are_those_of_the_spend(tmp_path: Path) -> None:
    text = plain(part(written(tmp_path), "spend"))
    assert "2026-11-01 to 2026-11-04 (UTC)" in text
    assert "1,479.00 EUR of spend was credited with 109.00 EUR: ROAS 0.07 [" in text
    assert "17 of 18 campaigns with spend have no conversion that matches them, by linear." in text


@pytest.mark.parametrize("arguments", [("--tenant", "other"), ("--from", "2026-11-05", "--to", "2026-12-01")])
def test_without_spend_in_the_period_there_is_no_part(
    tmp_path: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = written(tmp_path, *arguments)
    assert 'id="spend' not in text
    monkeypatch.setattr(page_spend, "may_read", lambda _: False)
    assert 'id="spend' not in written(tmp_path, *NOVEMBER)


def test_what_would_take_long_is_left_to_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_spend, "MAX_READ", 4)
    text = written(tmp_path, *NOVEMBER)
    said = plain(part(text, "spend"))
    assert "its return is not computed on this page" in said
    assert "attributary spend report --tenant acme --model linear --from 2026-11-01 --to 2026-12-01" in said
    assert "attributary spend match --tenant acme" in said
    assert 'id="spend-lonely"' not in text


def test_names_are_text_and_the_page_stays_one_small_file(tmp_path: Path) -> None:
    text = written(tmp_path, *NOVEMBER)
    assert "<script" not in text
    assert html.escape(HOSTILE) in part(text, "spend")
    assert html.escape(HOSTILE) in part(text, "spend-lonely")
    assert html.escape(HOSTILE) in part(text, "spend-unmatched")
    assert text.count("<bdi>") == text.count("</bdi>")
    assert "&lt;" * 60 + "\u2026" in part(text, "spend")
    assert len(text.encode()) < 80_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_a_narrow_window_scrolls_only_down(
    tmp_path: Path, page: Page, scheme: Literal["light", "dark"]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    written(tmp_path, *NOVEMBER)
    page.emulate_media(color_scheme=scheme)
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto((tmp_path / "report.html").as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(page).response
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
