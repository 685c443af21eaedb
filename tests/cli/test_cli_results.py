"""`attributary results`: what an analyst asks first, answered without SQL; nothing is silently empty."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from tests.factories.stored_results import insert_results, stored_result

if TYPE_CHECKING:
    from typer.testing import Result

pytestmark = pytest.mark.postgres

BEGIN = 1_795_046_400_000_000  # 2026-11-19 00:00 UTC
HOUR = 3_600_000_000
MODELS = ("linear", "last", "markov", "position_based")
LONG = "spring_sale_2026_prospecting_lookalike_audience_germany_austria_switzerland_v2"


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    results = []
    for number in range(60):
        channels = [("paid_search", "paid_social", "email", "=HYPERLINK(1)")[place] for place in range(number % 5)]
        touches = [(f"e{number}-{place}", name, "meta", LONG) for place, name in enumerate(channels)]
        currency = ("EUR", "JPY", "XXX")[number % 3]
        net = {"EUR": 19_990_000, "JPY": 7_029_000_000, "XXX": 0}[currency]
        results.append(
            stored_result(
                f"o{number}", 1, touches, net=net, currency=currency, converted_at=BEGIN + number * HOUR,
                conversion_type="lead" if net == 0 else "purchase", computed_at=BEGIN + 100 * HOUR,
                models=MODELS[: 3 + (number > 9)],
            )

        )  # fmt: skip
    with connect(module_database, application_name="tests") as connection:
        insert_results(connection, results)
    return module_database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, shop: str) -> None:
    monkeypatch.setenv("DATABASE_URL", shop)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")


def run(*arguments: str, code: int = 0, columns: int = 80) -> Result:
    result = CliRunner().invoke(app, ["results", *arguments], env={"COLUMNS": str(columns)})
    assert result.exit_code == code, result.output
    return result


def test_credit_adds_up_and_presence_stands_beside_it() -> None:
    text = run("--currency", "EUR").stdout
    assert "20 conversions, 399.80 EUR net" in text
    assert "net EUR   with it" in text
    total = next(line for line in text.splitlines() if line.startswith("total"))
    assert total.split() == ["total", "20.00", "399.80"]
    assert "90 % interval" in text
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.startswith(("paid_s", "email"))}
    assert sum(Decimal(line[1]) for line in lines.values()) < 20  # the last channel has the rest
    assert int(lines["paid_search"][-1]) == 16  # journeys with it, more than its credit
    assert Decimal(lines["paid_search"][1]) < 16


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    assert "60d must be later than --from 30d" in run("--from", "30d", "--to", "60d", code=2, columns=500).stderr


def test_models_stand_side_by_side_with_their_value() -> None:
    text = run("--models", "last,linear,markov", "--currency", "EUR", columns=100).stdout
    assert text.splitlines()[4].split() == ["last", "linear", "markov", "journeys"]
    assert text.splitlines()[5].split() == ["channel", *["conv.", "EUR"] * 3, "with", "it"]
    assert "markov: 60 of 60 conversions by linear: markov is not trained" not in text  # of EUR alone
    assert "markov: 20 of 20 conversions by linear: markov is not trained. To change it:" in text.replace("\n", " ")
    assert "attributary models train --model markov --tenant acme" in text.replace("\n", " ")


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--models", "last,linear,markov"),
        ("--by", "campaign,channel", "--models", "last,linear"),
        ("--by", "campaign,channel,day", "--limit", "3"),
        ("--by", "week"),
    ],
    ids=" ".join,
)
def test_every_line_fits_and_no_name_is_cut(arguments: tuple[str, ...], columns: int) -> None:
    text = run(*arguments, columns=columns).stdout
    assert max(map(cell_len, text.splitlines())) <= columns
    assert not any(line != line.rstrip() for line in text.splitlines())
    if "campaign" in arguments[1]:
        pieces = [line.split()[0] for line in text.splitlines() if line[:1].islower() or line[:1] == "_"]
        assert LONG in "".join(pieces)


def test_currencies_have_their_decimals_and_no_value_is_said() -> None:
    text = run("--by", "conversion_type").stdout
    assert "20 conversions, 399.80 EUR net" in text
    assert "20 conversions, 140,580 JPY net" in text
    assert "20 conversions, no value" in text
    assert "XXX" not in text
    assert "90 %" not in text


def test_csv_is_exact_safe_and_complete() -> None:
    text = run("--by", "channel,day", "--models", "last,linear", "--format", "csv", "--limit", "1").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    for model in ("last", "linear"):
        mine = [row for row in rows if row["model"] == model]
        assert sum(Decimal(row["net_value"]) for row in mine if row["currency"] == "EUR") == Decimal("399.80")
        assert sum(Decimal(row["net_value"]) for row in mine if row["currency"] == "JPY") == 140_580
        assert sum(float(row["conversions"]) for row in mine) == pytest.approx(60)
    assert {row["channel"] for row in rows} == {
        "paid_search",
        "paid_social",
        "email",
        "'=HYPERLINK(1)",
        "(unattributed)",
    }
    assert "total" not in text


def test_json_has_micros_and_what_a_program_needs() -> None:
    found: dict[str, Any] = json.loads(run("--models", "markov", "--from", "2026-11-19", "--json").stdout)
    assert found["from"] == BEGIN
    assert found["to"] is None
    assert {total["currency"]: total["net_micros"] for total in found["totals"]} == {
        "EUR": 399_800_000, "JPY": 140_580_000_000, "XXX": 0,
    }  # fmt: skip
    assert sum(row["net_micros"] for row in found["rows"] if row["currency"] == "EUR") == 399_800_000
    assert found["models"] == [{"model": "markov", "version": "untrained", "fallback": "linear", "conversions": 60}]
    assert {row["is_unattributed"] for row in found["rows"]} == {True, False}


def test_a_limit_sums_up_the_rest() -> None:
    text = run("--currency", "EUR", "--limit", "2").stdout
    assert "(3 more)" in text
    rest = next(line for line in text.splitlines() if line.startswith("(3 more)")).split()
    rows = [line.split() for line in text.splitlines() if line.startswith(("(un", "paid", "email", "="))][:2]
    assert float(rest[2]) + sum(float(row[1]) for row in rows) == pytest.approx(20, abs=0.02)
    assert Decimal(rest[3]) + sum(Decimal(row[-2]) for row in rows) == Decimal("399.80")
    assert "more)" not in run("--currency", "EUR", "--limit", "0").stdout


def test_a_model_that_is_missing_in_older_results_is_said() -> None:
    text = run("--models", "position_based,linear").stdout.replace("\n", " ")
    assert "position_based: 10 of 60 conversions have no credit by it" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "nosuch"), "no model 'nosuch'; there are last, linear, markov, position_based"),
        (("--models", "linear,poisson"), "no model 'poisson'; there are"),
        (("--tenant", "nobody"), "no tenant 'nobody'; there are acme"),
        (("--currency", "USD"), "no currency 'USD'; there are EUR, JPY, XXX"),
        (("--currency", "euro"), "'euro' is no ISO 4217 code"),
        (("--conversion-type", "sale"), "no conversion type 'sale'; there are lead, purchase"),
        (("--by", "colour"), "'colour' must be one of channel"),
        (("--by", ","), "must name at least one"),
        (("--models", ""), "must name at least one"),
        (("--format", "xml"), "is not one of"),
        (("--limit", "-1"), "--limit"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_unknown_is_refused_with_the_known_names(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments, code=2, columns=300)
    assert message in result.stderr
    assert result.stdout == ""


def test_an_empty_period_says_what_exists() -> None:
    result = run("--from", "2020-01-01", "--to", "2020-02-01")
    assert "no conversion of acme in this period; there are 60 conversions, from 2026-11-19 00:00" in result.stderr
    assert result.stdout == ""
    assert run("--from", "2020-01-01", "--to", "2020-02-01", "--format", "csv").stdout.count("\n") == 1
