"""`attributary budget plan`: a plan, or the sentence why not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

HEADER = "channel,design,spend_from,spend_to,effect,standard_error\n"
CURVES = {"search": (9000.0, 1500.0), "social": (2500.0, 1200.0)}
LEVELS = ((0, 700), (700, 1000), (1000, 1500), (1000, 2500))


def experiments(error: float, design: str = "geo", levels: tuple[tuple[int, int], ...] = LEVELS) -> str:
    rows = [
        f"{channel},{design},{low},{high},{b * high / (k + high) - b * low / (k + low):.2f},{error}"
        for channel, (b, k) in CURVES.items()
        for low, high in levels
    ]
    return HEADER + "\n".join(rows) + "\n"


def plan(folder: Path, text: str, *arguments: str, code: int) -> Result:
    (folder / "e.csv").write_text(text)
    spends = ("--spend", "search=1000", "--spend", "social=1000", "--draws", "60")
    result = CliRunner().invoke(app, ["budget", "plan", str(folder / "e.csv"), *spends, *arguments])
    assert result.exit_code == code, result.output
    return result


def test_well_measured_channels_get_a_plan(tmp_path: Path) -> None:
    found = json.loads(plan(tmp_path, experiments(20.0), "--json", code=0).stdout)
    after = {each["channel"]: each["after"] for each in found["channels"]}
    assert after["search"] == pytest.approx(1200.0, rel=0.01)
    assert after["social"] == pytest.approx(800.0, rel=0.01)
    assert 0 < found["gain"] == pytest.approx(found["raw_gain"], rel=0.05)
    shown = plan(tmp_path, experiments(20.0), code=0).stdout
    assert "recommended" in shown
    assert "tested from 0 to 2,500; nothing is said outside" in shown


def test_badly_measured_ones_get_the_test_that_would_help_most(tmp_path: Path) -> None:
    text = experiments(20.0).replace("search,", "one,").replace("social,", "search,").replace("one,", "social,")
    same = "\n".join(line for line in text.splitlines() if line.startswith("search"))
    twins = HEADER + same + "\n" + same.replace("search", "social") + "\n"
    shown = plan(tmp_path, twins, code=1).stdout
    assert "no recommendation; the test that would help most is one of" in shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (experiments(20.0, design="observational"), "spend that follows demand shows several times the true return"),
        (experiments(20.0, levels=LEVELS[:1]), "one change of spend gives the return of that change and no curve"),
        (HEADER, "the file has no experiment with it"),
    ],
)
def test_what_makes_no_curve_is_said(text: str, said: str, tmp_path: Path) -> None:
    found = plan(tmp_path, text, code=1).stderr
    assert said in found
    assert "no recommendation" in found


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("a,b\n1,2\n", (), "has no column channel"),
        (HEADER + "search,geo,1,2,x,1\n", (), "line 2: spends, effect and standard_error must be numbers"),
        (HEADER + "search,geo,1,1,1,1\n", (), "line 2: spends must be 0 or more and differ"),
        (experiments(20.0), ("--spend", "search"), "must be CHANNEL=AMOUNT"),
        (experiments(20.0), ("--spend", "search=2"), "is given twice"),
        (experiments(20.0), ("--fixed", "tv"), "'tv' has no --spend"),
        (experiments(20.0), ("--budget", "90000"), "leave no split"),
    ],
)
def test_what_cannot_be_used_is_said(text: str, arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in plan(tmp_path, text, *arguments, code=2).stderr
