"""`attributary explain`: what happened and what to do, in words, at every width."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.auditor import metrics
from tests.factories.samples import link, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typer.testing import Result

pytestmark = pytest.mark.postgres
UUID = "01a22a3e-7c1d-7f00-8000-5d9b6c1e2f3a"


@pytest.fixture(scope="module")
def stages(module_database: str) -> Iterator[InProcess]:
    with InProcess(module_database) as opened:
        opened.publish(
            touch(UUID, 0, channel="paid_search", campaign_name="spring_sale_2026_prospecting_lookalike_germany"),
            touch("too-old", -24 * 40, channel="display"),
            sale("order-1", 24, value=80_000_000),
        )
        opened.publish(touch("late", 12, channel="email"))
        refund = {"kind": "refund", "conversion_id": "order-1"}
        before = metrics.over_refunded._value.get()
        opened.publish(sale("refund-1", 48, value=50_000_000, **refund))
        assert metrics.over_refunded._value.get() == before
        opened.publish(sale("refund-2", 49, value=80_000_000, **refund))
        assert metrics.over_refunded._value.get() == before + 1
        opened.publish(sale("refund-3", 50, value=9_000_000, currency="USD", **refund))
        opened.publish(sale("refund-x", 1, who="a:d9", value=5_000_000, kind="refund", conversion_id="no-such"))
        opened.publish(sale("alone", 1, who="a:d7"), sale("lead", 2, who="a:d7", value=0, currency="XXX"))
        opened.publish(touch("moved", 0, who="a:phone", channel="social"), sale("order-2", 24, who="a:phone"))
        opened.publish(link("l-1", "phone", "ann", 30))
        opened.stitch(touch("t-3", 0, who="a:d3"), sale("order-3", 24, who="a:d3"))
        opened.commands.clear()  # its result is on its way
        yield opened


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, module_database: str, stages: InProcess) -> None:
    del stages
    monkeypatch.setenv("DATABASE_URL", module_database)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")


def run(*arguments: str, code: int = 0, columns: int = 100) -> Result:
    result = CliRunner().invoke(app, ["explain", *arguments], env={"COLUMNS": str(columns)})
    assert result.exit_code == code, result.output
    return result


def sentences(text: str) -> str:
    return " ".join(text.split())


def test_a_refund_of_an_unknown_order_waits_in_words() -> None:
    text = sentences(run("no-such").stdout)
    assert text.startswith("no-such of acme waits: only corrections of it have arrived.")
    assert "Nothing is published: a refund (refund-x) waits for its order." in text
    assert "Publish the conversion event with the id no-such; if it was sent, look for it with: attributary dlq" in text
    for nonsense in ("1970", "version 0", "model set", "Credits", "0.00 XXX"):
        assert nonsense not in text


def test_an_over_refund_is_said_with_the_refunds_and_the_next_step() -> None:
    text = sentences(run("order-1").stdout)
    assert "! Over-refunded: 130.00 EUR are refunded by refund-1, refund-2, the value is 80.00 EUR." in text
    assert "The net value of -50.00 EUR is credited as it is." in text
    assert "publish a restatement" in text
    assert "1 correction in another currency than EUR changes nothing: refund-3. Publish it in EUR." in text


def test_an_untrained_model_is_said_with_the_next_step() -> None:
    text = sentences(run("order-1").stdout)
    assert "markov is credited by linear: markov is not trained." in text
    assert "attributary models train --model markov --tenant acme, activate, refit" in text
    assert "too little data" not in text


def test_each_version_says_what_changed() -> None:
    versions = run("order-1", columns=160).stdout.partition("Published versions")[2]
    changes = versions.splitlines()
    at = next(place for place, line in enumerate(changes) if line.startswith("  2  late_touchpoint"))
    assert "      + late (email)" in changes[at:]
    assert "      linear: paid_search 100.0 % -> 50.0 %, email 0.0 % -> 50.0 %" in changes[at:]
    assert "      last: paid_search 100.0 % -> 0.0 %, email 0.0 % -> 100.0 %" in changes[at:]
    third = next(place for place, line in enumerate(changes) if line.startswith("  3  refund"))
    assert changes[third + 1] == "      net -50.00 EUR"
    assert "-130.00" not in versions
    assert "net 0.00" not in versions


def test_credits_of_each_model_add_up() -> None:
    text = run("order-1", columns=400).stdout
    block = text.partition("Credits of version 4: share, and net value in EUR\n")[2].partition("\n\n")[0].splitlines()
    assert [line.split()[0] for line in block[3:5]] == [UUID, "late"]
    assert set(block[-1].split()[1:]) == {"-50.00"}
    assert "50.0 %  -25.00" in block[3]
    assert "by linear" in block[1]


def test_a_conversion_without_touchpoint_or_value() -> None:
    text = sentences(run("alone").stdout)
    assert "No touchpoint is in the lookback window: the whole value is unattributed." in text
    assert "(unattributed) 100.0 % 10.00" in text
    lead = run("lead").stdout
    assert "no value net" in lead
    assert "XXX" not in lead


def test_what_is_on_its_way_says_so() -> None:
    text = sentences(run("order-3").stdout)
    assert "Version 1 is on its way: none is published yet." in text
    assert "No version is published." in text


def test_a_person_that_moved_is_named_by_the_link_that_decides() -> None:
    text = sentences(run("order-2").stdout)
    assert "phone belongs to ann: l-1" in text
    assert "decides, it is the earliest" in text
    assert "2 identity" in text


@pytest.mark.parametrize("columns", [60, 80, 160])
@pytest.mark.parametrize("conversion", ["order-1", "order-2", "order-3", "no-such", "alone", "lead"])
def test_every_line_fits_and_ids_are_whole(conversion: str, columns: int) -> None:
    text = run(conversion, columns=columns).stdout
    assert max(map(cell_len, text.splitlines())) <= columns
    assert not any(line != line.rstrip() for line in text.splitlines())
    assert "\u2026" not in text
    if conversion == "order-1":
        assert UUID in text
        lines = text.splitlines()
        touch_at = next(place for place, line in enumerate(lines) if line.startswith(f"  {UUID}: paid_search"))
        verdict = next(line for line in lines[touch_at:] if line.startswith("      in: "))
        assert verdict.startswith("      in: 1.00 days before")  # a line of its own


def test_json_has_the_credits_of_each_version() -> None:
    found = json.loads(run("order-1", "--json").stdout)
    newest = found["versions"][-1]
    for model in newest["credits"]:
        assert sum(model["micros"]) + model["unattributed_micros"] == newest["net_value_micros"] == -50_000_000
    assert [each["event_id"] for each in newest["touches"]] == [UUID, "late"]


def test_an_unknown_conversion_or_tenant_is_said_on_standard_error() -> None:
    result = run("nothing", code=1)
    assert "no conversion nothing of tenant acme: no event about it is stored" in result.stderr
    assert result.stdout == ""
    assert "tenants with results: acme" in run("order-1", "--tenant", "nobody", code=1).stderr
