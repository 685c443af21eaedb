"""The examples of docs/how-to/forward.md work."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from attributary.consumers.destinations import clients, transport
from attributary.consumers.destinations.destination import HttpRequest, HttpResponse
from attributary.consumers.destinations.dry_run import DryRun
from attributary.consumers.destinations.ga4.destination import Ga4Destination
from attributary.consumers.destinations.meta.destination import MetaDestination
from attributary.producers.importer.plan import ImportPlan
from attributary.producers.importer.row_mapper import RowMapper
from attributary.producers.importer.rows import SourceFile

if TYPE_CHECKING:
    import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "how-to" / "forward.md").read_text("utf-8")
AT = 1_795_557_600_000_000  # 2026-11-24T22:00:00Z, an hour after the example


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_example_of_a_conversion_can_be_sent(tmp_path: Path) -> None:
    (example,) = blocks("json")
    path = tmp_path / "conversions.jsonl"
    path.write_text(example)
    with SourceFile(path) as source:
        mapper = RowMapper(ImportPlan(kind="conversion"), source.columns)
        record = [mapper.record(row) for row in source.rows()]
    for destination in (MetaDestination(), Ga4Destination()):
        run = DryRun(destination, "skip", AT)
        (body,) = run.bodies(record)
        assert "order-1" in json.dumps(json.loads(body))
        assert run.refusals == []


def test_the_python_example_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[HttpRequest] = []

    class Recorder(transport.HttpTransport):
        def send(self, request: HttpRequest) -> HttpResponse:
            sent.append(request)
            return HttpResponse(200, b'{"events_received":1}')

    monkeypatch.setattr("attributary.consumers.destinations._client_session.HttpTransport", Recorder)
    assert clients.MetaConversionsClient is not None
    (example,) = blocks("python")
    exec(compile(example, "docs/how-to/forward.md", "exec"), {})  # noqa: S102  # the page's own example
    assert len(sent) == 3
    assert sent[1].url.startswith("https://region1.google-analytics.com/mp/collect?")
    assert capsys.readouterr().out == ""


def test_every_link_inside_the_page_has_its_heading() -> None:
    titles = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
