"""`attributary spend`: a report is imported, matched to credit, and what matches nothing is said in money."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.runtime.records import Record
from attributary.consumers.spender.stage import SpenderStage
from attributary.producers import AttributaryProducer, MemoryTransport
from attributary.schemas.codec import Codec
from attributary.schemas.topics import SPEND
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run as run_pipeline

if TYPE_CHECKING:
    from typer.testing import Result

    from attributary.producers import ProducerConfig

pytestmark = pytest.mark.postgres

GOOGLE = (
    "Day,Customer ID,Campaign,Campaign ID,Currency code,Cost,Clicks\n"
    "2026-11-01,g1,Brand,21,EUR,10.00,5\n2026-11-01,g1,Generic,22,EUR,40.00,9\n"
)
META = "Day,Account ID,Campaign name,Campaign ID,Amount spent (EUR)\n2026-11-01,m1,Spring sale,11,20.00\n"


@pytest.fixture(scope="module")
def shop(module_database: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ad = {"channel": "paid_search", "platform": "google"}
    social = {"channel": "paid_social", "platform": "meta"}
    run_pipeline(
        module_database,
        [
            [
                touch("t1", 1, who="u:a", campaign_id="21", campaign_name="renamed", **ad),
                sale("s1", 2, who="u:a"),
            ],
            [touch("t2", 1, who="u:b", campaign_name="Brand", **ad), sale("s2", 2, who="u:b", value=30_000_000)],
            [
                touch("t3", 1, who="u:c", campaign_name="spring_sale", **social),
                sale("s3", 2, who="u:c", value=7 * 10**6),
            ],
            [touch("t4", 1, who="u:d", channel="email"), sale("s4", 2, who="u:d", value=5_000_000)],
        ],
    )
    folder = tmp_path_factory.mktemp("spend")
    (folder / "google.csv").write_text(GOOGLE)
    (folder / "meta.csv").write_text(META)
    return folder


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, shop: Path, module_database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", module_database)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")
    monkeypatch.chdir(shop)


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["spend", *arguments], env={"COLUMNS": "160"})
    assert result.exit_code == code, result.output
    return result


def imported(*arguments: str, code: int = 0) -> Result:
    return run("import", *arguments, code=code)


def test_a_dry_run_stores_nothing_and_an_import_says_what_changed() -> None:
    assert "nothing is stored: --dry-run" in imported("google.csv", "--mapping", "google", "--dry-run").stdout
    assert "acme has no spend" in run("accounts", "--tenant", "acme").stdout
    said = imported("google.csv", "--mapping", "google", "--complete", "--timezone", "Europe/Berlin").stdout
    assert "2 rows, campaign level, 2026-11-01 to 2026-11-01; 1 account: google g1" in said
    assert "50.00 EUR without tax" in said
    assert "stored: 2 new, 0 changed, 0 as before, 0 no longer there" in said
    assert "stored: 0 new, 0 changed, 2 as before" in imported("google.csv", "--mapping", "google").stdout
    assert "time zone is not known" in imported("meta.csv", "--mapping", "meta").stderr
    shown = json.loads(run("accounts", "--json").stdout)["accounts"]
    assert [(each["platform"], each["days"], each["time_zone"]) for each in shown] == [
        ("google", 1, "Europe/Berlin"),
        ("meta", 1, ""),
    ]


def test_spend_and_credit_are_matched_and_the_rest_is_said_in_money() -> None:
    imported("google.csv", "--mapping", "google", "--complete")
    imported("meta.csv", "--mapping", "meta")
    text = run("match", "--from", "2026-11-01", "--to", "2026-11-02").stdout
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "spend 70.00 EUR" in lines
    assert "of campaigns with a touch 10.00 EUR" in lines
    assert "of campaigns without one 60.00 EUR" in lines
    assert "credit by id 10.00 EUR" in lines
    assert "credit by name 30.00 EUR" in lines
    assert "credit by unknown 7.00 EUR" in lines
    assert any("g1/22" in line and "Generic" in line and "40.00 EUR" in line for line in lines)
    assert any("spring_sale" in line and "meta m1/11 'Spring sale'" in line for line in lines)
    assert "email" not in text


def test_an_alias_matches_from_then_on_and_can_be_taken_back() -> None:
    imported("google.csv", "--mapping", "google", "--complete")
    imported("meta.csv", "--mapping", "meta")
    days = ("--from", "2026-11-01", "--to", "2026-11-02", "--json")
    assert "means m1/11" in run("aliases", "set", "meta", "m1/11", "--name", "spring_sale").stdout
    found = json.loads(run("match", *days).stdout)
    assert [each["how"] for each in found["credit"] if each["platform"] == "meta"] == ["alias"]
    assert [each["value"] for each in json.loads(run("aliases", "list", "--json").stdout)["aliases"]] == ["spring_sale"]
    assert "removed" in run("aliases", "remove", "meta", "--name", "spring_sale").stdout
    assert "has no alias" in run("aliases", "remove", "meta", "--name", "spring_sale", code=1).stderr
    assert "has no aliases" in run("aliases", "list").stdout
    assert "no campaign m1/99 with spend" in run("aliases", "set", "meta", "m1/99", "--name", "x", code=2).stderr
    assert "must be ACCOUNT/CAMPAIGN_ID" in run("aliases", "set", "meta", "m1", "--name", "x", code=2).stderr


def test_a_complete_report_with_a_bad_row_stores_nothing(shop: Path, module_database: str) -> None:
    (shop / "bad.csv").write_text(GOOGLE.replace("10.00", "ten").replace("40.00", "41.00"))
    said = imported("bad.csv", "--mapping", "google", "--complete", code=3)
    assert "1 x amount: must be a number" in said.stdout
    assert "nothing is stored" in said.stdout
    line = json.loads((shop / "bad.csv.rejects.jsonl").read_text())
    assert (line["line"], line["field"]) == (2, "amount")
    with psycopg.connect(module_database) as connection:
        assert connection.execute("SELECT FROM attribution_spend WHERE net_micros = 41000000").fetchall() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("google.csv", "--mapping", "nope"), "there are google, meta"),
        (("missing.csv", "--mapping", "google"), "missing.csv"),
        (("meta.csv", "--mapping", "google"), "no column gives amount"),
        (("google.csv", "--mapping", "google", "--tax", "x"), "tax: must be excluded"),
        (("google.csv", "--mapping", "google", "--timezone", "x"), "must be a name such as"),
    ],
)
def test_what_cannot_be_imported_is_said(arguments: tuple[str, ...], said: str) -> None:
    assert said in imported(*arguments, code=2).stderr


def test_nothing_of_a_file_reaches_the_terminal_unescaped(shop: Path) -> None:
    (shop / "evil.csv").write_text(GOOGLE.replace("Brand", "\x1b[31mred").replace("g1", "\x1b]0;g"))
    said = imported("evil.csv", "--mapping", "google", "--dry-run")
    assert "\x1b" not in said.stdout + said.stderr


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> MemoryTransport:
    """What is published goes here instead of Kafka."""
    transport = MemoryTransport()

    def opened(config: ProducerConfig, records: tuple[str, ...]) -> AttributaryProducer:
        assert records == ("spend",)
        return AttributaryProducer(config, transport=transport)

    monkeypatch.setattr("attributary.cli.event_producer.open_producer", opened)
    return transport


def test_what_is_published_and_stored_by_the_spender_is_what_is_written_straight(
    topic: MemoryTransport, module_database: str, shop: Path
) -> None:
    (shop / "other.csv").write_text(GOOGLE.replace("g1", "g7"))
    arguments = ("other.csv", "--mapping", "google", "--complete", "--reported-at", "2026-11-03")
    said = imported(*arguments, "--publish", "--dry-run").stdout
    assert "nothing is stored: --dry-run" in said
    assert topic.messages == []
    said = imported(*arguments, "--publish").stdout
    assert "published: 1 record, one an account's day; the spender stores them" in said
    (message,) = topic.messages
    assert (message.topic, message.key) == (SPEND, b"acme|google|g7|2026-11-01")
    revisions = (
        "SELECT entity, revision, net_micros, reported_at_us, report_id FROM attribution_spend WHERE account = 'g7' "
        "ORDER BY 1, 2"
    )
    stage = SpenderStage(module_database, Codec(), 1.0)
    try:
        stage.handle([Record(SPEND, 0, 0, message.key, message.value, 1_793_700_000_000)])
    finally:
        stage.close()
    with psycopg.connect(module_database) as connection:
        by_topic = connection.execute(revisions).fetchall()
        connection.execute("TRUNCATE attribution_spend_slices, attribution_spend")
    assert "stored: 2 new" in imported(*arguments).stdout
    with psycopg.connect(module_database) as connection:
        assert connection.execute(revisions).fetchall() == by_topic
    assert len(by_topic) == 2


def test_an_older_report_is_left_out_and_told(shop: Path) -> None:
    (shop / "newer.csv").write_text(GOOGLE.replace("g1", "g8"))
    (shop / "older.csv").write_text(GOOGLE.replace("g1", "g8").replace("10.00", "11.00"))
    imported("newer.csv", "--mapping", "google", "--complete", "--reported-at", "2026-11-05")
    said = imported("older.csv", "--mapping", "google", "--reported-at", "2026-11-04").stdout
    assert "stored: 0 new, 0 changed, 0 as before" in said
    assert "2 rows left out: a report that was made later is stored already" in said
    ahead = imported("older.csv", "--mapping", "google", "--reported-at", "2099-01-01", code=2).stderr
    assert "must be between 2000 and one day from now" in ahead
