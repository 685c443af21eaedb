"""Times, tenants and money are written in one way in all commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.cli.tables import amount, money
from attributary.schemas.limits import MINOR_UNIT_MICROS

if TYPE_CHECKING:
    from typer.testing import Result

TENANT = ("--tenant", "acme")
TIMES = [
    (("results", *TENANT), "--from"),
    (("results", *TENANT), "--to"),
    (("results", *TENANT), "--as-of"),
    (("explain", "order-1", *TENANT), "--as-of"),
    (("refit", *TENANT), "--from"),
    (("refit", *TENANT), "--to"),
    (("models", "train", *TENANT), "--from"),
    (("models", "train", *TENANT), "--to"),
    (("tail", "results"), "--from"),
    (("verify",), "--since"),
    (("dlq", "list"), "--since"),
    (("dlq", "redrive"), "--since"),
    (("simulate",), "--now"),
]
JOB_TIMES = [("train", "from"), ("train", "to"), ("backtest", "split"), ("analyze_batch", "from")]
WRONG = ("5min", "2026-11-24T10:00:00", "2026-02-30", "31.12.2026", "soon")


def run(*arguments: str, code: int) -> Result:
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "500"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(autouse=True)
def nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong time is refused before anything is asked."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.delenv("ATTRIBUTION_TENANT", raising=False)


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("command", "option"), TIMES, ids=lambda value: " ".join(value) if len(value) < 9 else value)
def test_every_command_names_the_option_the_value_and_the_grammar(
    command: tuple[str, ...], option: str, wrong: str
) -> None:
    error = run(*command, option, wrong, code=2).stderr
    assert option in error
    assert f"'{wrong}" in error
    assert "isoformat" not in error
    assert "it must be a date (2026-11-01)" in error or "must have an offset from UTC" in error


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("kind", "name"), JOB_TIMES)
def test_jobs_speak_the_same_grammar(kind: str, name: str, wrong: str) -> None:
    error = run("jobs", "submit", kind, *TENANT, "-s", f"{name}={wrong}", code=2).stderr
    assert f"{name}: '{wrong}" in error
    assert "it must be a date (2026-11-01)" in error or "must have an offset from UTC" in error


@pytest.mark.parametrize("right", ["30d", "2w", "yesterday", "2026-11-01", "2026-11-01T10:00:00+01:00", "beginning"])
@pytest.mark.parametrize(
    "command",
    [("results", *TENANT, "--from"), ("refit", *TENANT, "--from"), ("models", "train", *TENANT, "--from"),
     ("tail", "results", "--from"), ("verify", "--since"), ("dlq", "list", "--since")],
    ids=lambda command: command[0],
)  # fmt: skip
def test_every_form_is_taken_everywhere(command: tuple[str, ...], right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert "must be set" in run(*command, right, code=78).stderr  # the time was taken, what comes next is missing


def test_a_period_that_ends_before_it_begins_is_refused() -> None:
    """Of results as well, where the database first says which days are the tenant's: test_cli_results.py."""
    error = run("refit", *TENANT, "--from", "30d", "--to", "60d", code=2).stderr
    assert "60d must be later than --from 30d" in error


@pytest.mark.parametrize(
    "command",
    [("results",), ("explain", "x"), ("refit",), ("models", "show", "markov"), ("models", "rollback", "markov"),
     ("jobs", "submit", "train"), ("jobs", "status", "x")],
    ids=" ".join,
)  # fmt: skip
def test_the_tenant_is_named_or_set(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must be given, or ATTRIBUTION_TENANT set" in run(*command, code=2).stderr
    assert "must be 1 to 64 characters" in run(*command, "--tenant", "Acme!", code=2).stderr
    monkeypatch.setenv("ATTRIBUTION_TENANT", "Acme!")
    assert "ATTRIBUTION_TENANT" in run(*command, code=78).stderr
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    assert "must be set" in run(*command, code=78).stderr


@given(st.integers(-(10**18), 10**18), st.sampled_from(sorted(MINOR_UNIT_MICROS)))
def test_money_is_exact_and_has_the_decimals_of_its_currency(micros: int, currency: str) -> None:
    text = money(micros, currency)
    units, _, part = text.replace(",", "").replace("-", "").partition(".")
    assert int(units) * 10**6 + int(part.ljust(6, "0")) == abs(micros)
    assert text.startswith("-") == (micros < 0)
    if micros % MINOR_UNIT_MICROS[currency] == 0:
        assert 10 ** (6 - len(part)) == MINOR_UNIT_MICROS[currency]


def test_money_as_people_write_it() -> None:
    assert amount(7_029_000_000, "JPY") == "7,029 JPY"
    assert amount(-12_345_000, "KWD") == "-12.345 KWD"
    assert amount(1_234_500_000, "EUR") == "1,234.50 EUR"
    assert amount(19_990_001, "EUR") == "19.990001 EUR"
    assert amount(0, "XXX") == "no value"
    assert money(1_234_500_000, "EUR", group=False) == "1234.50"
