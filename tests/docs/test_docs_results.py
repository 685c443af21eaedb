"""The shell blocks of docs/how-to/subscribe.md, typed as they stand: each answers on stored results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run

pytestmark = pytest.mark.postgres
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "subscribe.md").read_text("utf-8")
LINES = [
    re.sub(r"\s+#.*", "", line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith(("attributary results", "attributary report", "attributary export"))
]


def test_every_command_of_the_page_answers(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(database, [[touch("t1", 1), touch("t2", 2, channel="social"), sale("c1", 3)], [sale("c2", 4, who="u:ann")]])
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.chdir(tmp_path)
    assert len(LINES) >= 6
    for line in LINES:
        arguments = line.replace("--from 30d", "--from 2026-10-01").split()[1:]  # samples have a date
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, f"{line}\n{result.output}"
        assert result.stdout or "in this period" in result.stderr, line
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "november", "conversions", "lake"}
