"""The dbt sources are what the database says, and their tests hold on a database with results and spend."""

from __future__ import annotations

import importlib.util
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from attributary.attribution_core.spend.slices import Given, SliceKey, SpendRow
from attributary.consumers.store.connection import connect
from attributary.consumers.store.spend.slices import Slice, store_slices
from tests.factories.rolled_results import roll_up
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run as run_stages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import psycopg

pytestmark = pytest.mark.postgres

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "dbt"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attributary_dbt", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shop(module_database: str) -> Iterator[psycopg.Connection]:
    events: list[Any] = []
    for number in range(12):
        who = f"a:d{number}"
        events += [touch(f"t{number}", number, who=who), touch(f"u{number}", number + 0.5, who=who, channel="mail"),
                   sale(f"o{number}", number + 1, who=who, value=20_000_000)]  # fmt: skip
    run_stages(module_database, [events])
    with connect(module_database, application_name="tests") as connection:
        rows = [SpendRow("c1", "EUR", 5_000_000, campaign_id="c1", campaign_name="Spring"),
                SpendRow("c2", "EUR", 6_000_000, campaign_id="c2", campaign_name="Brand")]  # fmt: skip
        store_slices(connection, "acme", [Slice(SliceKey("meta", "m", date(2026, 11, 2), "campaign"), Given(rows))])
        roll_up(connection, "acme")
        connection.commit()
        yield connection


def sql_tests() -> dict[str, str]:
    """Every test of the sources, as SQL that returns the rows that break it; dbt runs the same."""
    found = {}
    for source in yaml.safe_load((FOLDER / "models" / "sources.yml").read_text("utf-8"))["sources"]:
        for table in source["tables"]:
            view = f"{source['schema']}.{table['name']}"
            for test in table["data_tests"]:
                columns = ", ".join(test["unique_together"]["arguments"]["columns"])
                found[f"{view} unique"] = f"SELECT {columns} FROM {view} GROUP BY {columns} HAVING count(*) > 1"
            for column in table["columns"]:
                name = column["name"]
                for test in column.get("data_tests", ()):
                    if test == "not_null":
                        found[f"{view}.{name} present"] = f"SELECT 1 FROM {view} WHERE {name} IS NULL"
                    else:
                        values = ", ".join(f"'{each}'" for each in test["accepted_values"]["arguments"]["values"])
                        found[f"{view}.{name} known"] = f"SELECT {name} FROM {view} WHERE {name} NOT IN ({values})"
    return found


def test_the_sources_are_those_of_the_database(shop: psycopg.Connection) -> None:
    module = generator()
    found = module.document(shop)
    assert {table["name"] for table in found["sources"][0]["tables"]} == set(module.KEYS)
    assert (FOLDER / "models" / "sources.yml").read_text("utf-8") == module.text_of(found)
    for table in found["sources"][0]["tables"]:
        assert table["description"]
        assert all(column["description"] for column in table["columns"]), table["name"]


def test_every_test_of_the_sources_holds_and_looks_at_rows(shop: psycopg.Connection) -> None:
    tests = sql_tests()
    assert len(tests) > 30
    for name, statement in tests.items():
        assert shop.execute(statement.encode()).fetchall() == [], name
    for view in generator().KEYS:
        assert shop.execute(f"SELECT count(*) FROM reporting.{view}".encode()).fetchall()[0][0] > 0, view


def test_a_key_that_is_there_twice_breaks_its_test(shop: psycopg.Connection) -> None:
    """The statements can fail: a key without its last column is not unique."""
    statement = sql_tests()["reporting.credit unique"].replace(", name", "")
    assert shop.execute(statement.encode()).fetchall()
