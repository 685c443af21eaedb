"""`attributary report html`: one file that adds up, loads nothing, and reads well everywhere; looked at in Chromium."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Literal

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.reports.page_style import STYLE
from attributary.consumers.reports.page_sums import changes_of, days_of
from attributary.consumers.store.connection import connect
from attributary.consumers.store.results.credit_report import ReportQuery, read_report
from attributary.consumers.store.results.report_reads import ReportRequest, StoredResults
from tests.factories.rolled_results import roll_up
from tests.factories.stored_results import insert_results, stored_result

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg
    from playwright.sync_api import Page
    from typer.testing import Result

pytestmark = pytest.mark.postgres

BEGIN = 1_784_851_200_000_000  # 2026-07-24 00:00 UTC
HOUR = 3_600_000_000
MODELS = ("linear", "last", "markov", "first", "position_based", "time_decay", "shapley", "last_non_direct")
HOSTILE = ("</svg><script>alert(1)</script>", "a > b & c", '" onload="x', "\u202egnirts", "=cmd|'/c'", "x" * 200, "\n")
NAMES = ("paid_search", "paid_social", "email", "organic", "affiliates", *HOSTILE)
EVERYTHING = ReportQuery("acme", MODELS, ("channel",), (0, 2**62), 2**62, "EUR")


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    """Sixty days, twelve channels, eight models, three versions; hostile names, over-refunds, two currencies."""
    results = []
    for number in range(480):
        touches = [
            (f"e{number}-{place}", NAMES[(number * 7 + place * 5) % len(NAMES)], "meta", f"c{number % 40}{HOSTILE[0]}")
            for place in range(number % 6)
        ]
        results += [
            stored_result(
                f"o{number}", version, touches, net=(300 - 170 * version) * 1_000_000,
                currency="JPY" if number % 10 == 9 else "EUR", converted_at=BEGIN + 3 * number * HOUR,
                computed_at=BEGIN + (3 * number + 100 * version) * HOUR, models=MODELS,
            )
            | {"version_reason": ("new", "refund", "restated")[version - 1], "is_final": number < 200}
            for version in range(1, 2 + (number % 4 == 0) + (number % 8 == 0))
        ]  # fmt: skip
    with connect(module_database, application_name="tests") as connection:
        insert_results(connection, results)
    return module_database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, shop: str) -> None:
    monkeypatch.setenv("DATABASE_URL", shop)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["report", "html", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def page_file(tmp_path: Path) -> Path:
    file = tmp_path / "report.html"
    run("--out", str(file), "--changed-since", "2026-08-20")
    return file


def stored(connection: psycopg.Connection, since: int = 0) -> StoredResults:
    """What the page's own parts are from, of its model."""
    request = ReportRequest("acme", ("linear",), "channel", (0, 2**62), 2**62, since, "EUR", limit=0)
    return StoredResults(connection, request)


def plain(text: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", text))


def test_the_page_adds_up_to_the_total(page_file: Path, shop: str) -> None:
    text = page_file.read_text("utf-8")
    with connect(shop, application_name="tests") as connection:
        report = read_report(connection, EVERYTHING)
        days, paths = days_of(stored(connection)), stored(connection).paths()
    (total,) = report.totals
    assert sum(day.net_micros for day in days) == sum(path.micros for path in paths) == total.net_micros
    assert sum(day.conversions for day in days) == sum(path.conversions for path in paths) == total.conversions
    worth = f"{total.net_micros / 1e6:,.2f} EUR"
    assert f"<dd>{total.conversions:,}</dd>" in text
    assert f"<dd>{worth}</dd>" in text
    sums = re.search(r'<th scope="row">total</th>(.*?)</tr>', text)
    assert sums is not None
    assert sums[1].count(f"{total.conversions:,}.00<br>{worth[:-4]}") == len(MODELS)
    channels = plain(text.partition('id="channels"')[2].partition("</ul>")[0])
    assert sum(map(float, re.findall(r"([\d.]+) conversions", channels))) == pytest.approx(total.conversions, abs=1)
    assert "never added: 48 conversions (" in plain(text)  # of the other currency


def test_days_without_a_conversion_have_their_place(page_file: Path) -> None:
    chart = page_file.read_text("utf-8").partition('id="days"')[2].partition("</svg>")[0]
    assert chart.count("<rect") == 60


@pytest.mark.parametrize("days", [0, 1, 10, 28, 60, 300])
def test_what_stood_then_and_the_changes_are_what_stands_now(shop: str, days: int) -> None:
    since = BEGIN + 24 * days * HOUR
    with connect(shop, application_name="tests") as connection:
        total = next(total for total in stored(connection).totals() if total.currency == "EUR")
        changes = changes_of(stored(connection, since), total)
        now = read_report(connection, EVERYTHING).totals[0].net_micros
        then = read_report(connection, ReportQuery("acme", ("linear",), ("channel",), (0, 2**62), since, "EUR")).totals
    assert sum(change.net_micros for change in changes) == now
    stood = sum(change.net_micros for change in changes if change.reason is None)
    assert stood == sum(total.net_micros for total in then)  # as it was reported then
    assert {change.reason for change in changes} <= {None, "new", "refund", "restated"}


def test_the_page_from_the_roll_up_is_that_from_the_results(page_file: Path, tmp_path: Path, shop: str) -> None:
    singly = page_file.read_text("utf-8")
    assert "From the results one by one, because the tenant has no roll-up" in singly
    with connect(shop, application_name="tests") as connection:
        roll_up(connection, "acme")
        connection.commit()
    try:
        run("--out", str(tmp_path / "rolled.html"), "--changed-since", "2026-08-20")
        run("--out", str(tmp_path / "hours.html"), "--changed-since", "2026-08-20T12:00:00Z")
    finally:
        with connect(shop, application_name="tests") as connection:
            connection.execute("DELETE FROM attribution_rollup_state")
            connection.commit()
    rolled, hours = ((tmp_path / name).read_text("utf-8") for name in ("rolled.html", "hours.html"))
    assert rolled.count("From the roll-up, complete to ") == 1
    assert "From the results" not in rolled
    parts = ("short", "channels", "days", "campaigns", "paths", "changes", "maturity", "lag", "restatements", "quality")
    for name in parts:
        mine, other = (plain(text.partition(f'<h2 id="{name}">')[2].partition("</section>")[0])
                       for text in (rolled, singly))  # fmt: skip
        assert mine == other, name
    changes = hours.partition('<h2 id="changes">')[2].partition("</section>")[0]
    assert "From the results one by one, because the moment of the changes is between two midnights" in changes


def test_what_readers_ask_first_stands_on_top(page_file: Path) -> None:
    text = page_file.read_text("utf-8")
    short = text.partition('<h2 id="short">')[2].partition("</section>")[0]
    said = " ".join(plain(short).split())
    assert "Ranks : No rank of the channels is certain: the intervals of neighbours overlap, or the models" in said
    changed = r"Changes : On 2026-08-20 00:00 UTC these conversions stood at [\d,.-]+ EUR; \d+ new versions since then "
    assert re.search(changed + r"changed that by \+[\d,.]+ EUR: new conversions \+[\d,.]+, refunds and can", said), said
    nav = text.partition("<nav")[2].partition("</nav>")[0]
    anchors = re.findall(r'href="#([\w-]+)"', nav)
    assert anchors == [name for name in re.findall(r'<h2 id="([\w-]+)"', text) if name != "short"]
    assert set(re.findall(r'href="([^"]+)"', text)) == {f"#{anchor}" for anchor in anchors}


def test_the_page_stays_small_and_adds_up_whatever_a_tenant_sends(tmp_path: Path, shop: str) -> None:
    wide = []
    for number in range(700):
        name = f"{'c' * 180}{number}"
        touches = [(f"w{number}-{place}", f"channel {number} {place}", "meta", name) for place in (1, 2)]
        at = BEGIN + number * 36 * HOUR
        result = stored_result(
            f"w{number}", 1, touches, net=3_000_000, converted_at=at, computed_at=BEGIN, models=MODELS
        )
        wide.append(result | {"tenant_id": "wide"})
    with connect(shop, application_name="tests") as connection:
        insert_results(connection, wide)
    file = tmp_path / "wide.html"
    run("--out", str(file), "--tenant", "wide")
    text = file.read_text("utf-8")
    assert len(text.encode()) < 300_000
    assert "Net revenue a month" in text
    assert "700.00<br>2,100.00" in text
    campaigns = plain(text.partition('id="campaigns"')[2].partition("</ul>")[0])
    assert sum(map(float, re.findall(r"([\d.]+) conversions", campaigns.partition("by linear.")[2]))) == pytest.approx(
        700, abs=1
    )


def test_nothing_is_loaded_and_no_name_becomes_code(page_file: Path) -> None:
    text = page_file.read_text("utf-8")
    assert len(text.encode()) < 300_000
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    assert not re.search(r"https?:|//\w|url\(|@import|\bsrc=|\bhref=\"(?!#)|<script|<link|<img|\bon\w+=\"", text)
    assert "&lt;/svg&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\u202e" not in text
    assert text.count("<bdi>") == text.count("</bdi>")


def test_what_cannot_be_shown_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert "no model 'nosuch'; there are" in run("--out", str(file), "--model", "nosuch", code=2).stderr
    assert "no tenant 'nobody'; there are acme" in run("--out", str(file), "--tenant", "nobody", code=2).stderr
    empty = run("--out", str(file), "--from", "2020-01-01", "--to", "2020-02-01", code=1).stderr
    assert "no conversion of acme in this period" in empty
    assert "no file was written" in empty
    assert not list(tmp_path.iterdir())
    lost = run("--out", str(tmp_path / "no" / "report.html"), code=74).stderr
    assert "cannot be written: No such file or directory; name another file with --out" in lost


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrasts_are_those_of_wcag_in_both_schemes() -> None:
    schemes = re.findall(r":root\{([^}]*)\}", STYLE)
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+):(#\w+)", scheme))
        ground = luminance(colours["ground"])
        for name, least in {"ink": 4.5, "soft": 4.5, "line": 3, "bar": 3, "neg": 3}.items():
            pair = sorted((luminance(colours[name]), ground))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, (name, colours[name])


def test_the_page_has_every_report_with_a_sentence(page_file: Path) -> None:
    text = page_file.read_text("utf-8")
    for name in ("maturity", "path-lengths", "lag", "assists", "positions", "cohorts", "restatements", "unattributed"):
        part = text.partition(f'<h2 id="{name}">')[2].partition("</section>")[0]
        assert re.search(r'<p class="finding">[^<]{20,}</p>', part), name
        assert "<table>" in part, name
    assert 'class="interval"' in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page_file: Path, page: Page, scheme: Literal["light", "dark"]) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page.emulate_media(color_scheme=scheme)
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(page_file.as_uri())
        for is_open in ("false", "true"):
            page.evaluate(f"document.querySelectorAll('details').forEach(each => each.open = {is_open})")
            found = axe.Axe().run(page).response
            assert len(found["passes"]) > 10
            assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []


def test_the_keyboard_reaches_every_table(page_file: Path, page: Page) -> None:
    page.goto(page_file.as_uri())
    count = page.evaluate("document.querySelectorAll('details').length")
    opened = 0
    for _ in range(8 * count):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "BODY":
            break
        if page.evaluate("document.activeElement.matches('details:not([open]) > summary')"):
            page.keyboard.press("Enter")
            opened += 1
    assert page.evaluate("document.querySelectorAll('details[open]').length") == count
    assert opened >= count - 1


def test_chromium_loads_one_file_and_scrolls_only_down(page_file: Path, page: Page) -> None:
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    for width in (320, 1440):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(page_file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.lang") == "en"
        unnamed = "[...document.querySelectorAll('svg')].filter(e => !e.ariaHidden && !e.ariaLabel).length"
        assert page.evaluate(unnamed) == 0
        bar = page.evaluate("document.querySelector('.bars rect').getBoundingClientRect().width")
        assert 0 < bar <= width
    assert set(asked) == {page_file.as_uri()}
    assert said == []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 22, 26)"}[scheme]
    while page.evaluate("document.activeElement.tagName") in {"BODY", "A"}:  # links to the parts come first
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")  # closes what was opened above
    assert not page.evaluate("document.activeElement.parentElement.open")
