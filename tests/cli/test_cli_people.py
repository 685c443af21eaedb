"""`attributary people hot` shows who waits, and nothing that a terminal would obey."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.reopenings import PutOff, put_off
from tests.factories.samples import touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.postgres


def hot(*options: str) -> str:
    result = CliRunner().invoke(app, ["people", "hot", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_people_who_wait_are_listed_by_tenant_and_in_full(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("COLUMNS", "200")
    with InProcess(database) as stages:
        stages.stitch(touch("t1", tenant_id="acme"), touch("t1", tenant_id="shop"))
    assert "nobody waits" in hot()
    people: Sequence[PutOff] = [
        PutOff("acme", "a:kiosk", 1, 9, 1, 5, 40, 101),
        PutOff("acme", "u:\x1b]0;pwned\x07", 1, 9, 1, 5, 70, 101),
        PutOff("shop", "a:robot", 1, 9, 1, 5, 10, 101),
    ]
    with connect(database, application_name="tests") as connection:
        put_off(connection, people)
        put_off(connection, people[:1])
    text = hot()
    assert "\x1b" not in text
    assert [line.split()[2] for line in text.splitlines() if " a:" in line] == ["80", "10"]
    assert "2 shown, and there are more" in hot("--limit", "2")
    (shown,) = json.loads(hot("--tenant", "shop", "--json"))["people"]
    assert (shown["journey_key"], shown["touchpoints"], shown["reopened"]) == ("a:robot", 10, 0)
