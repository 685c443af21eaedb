"""`attributary export --format iceberg`: one commit, only changed days are written, and what is gone is in no file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from pyarrow import parquet
from pyiceberg.catalog.sql import SqlCatalog
from typer.testing import CliRunner

from attributary.cli import export_iceberg
from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run as run_stages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.postgres


@pytest.fixture
def shop(database: str) -> Iterator[psycopg.Connection]:
    """Four days of orders, ten each, and one of another tenant."""
    events: list[Any] = []
    for number in range(40):
        at = number * 2.4
        events += [touch(f"t{number}", at, who=f"a:d{number}"),
                   sale(f"o{number}", at + 0.1, who=f"a:d{number}", value=20_000_000 + number * 10_000)]  # fmt: skip
    events.append(sale("other", 3, who="u:x", tenant_id="other"))
    run_stages(database, [events])
    with connect(database, application_name="tests") as connection:
        yield connection


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")


def export(out: Path, *arguments: str, code: int = 0) -> Result:
    line = ["export", "conversions", "--format", "iceberg", "--out", str(out), *arguments]
    result = CliRunner().invoke(app, line, env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result


def table_of(out: Path) -> Any:
    catalog = SqlCatalog("attributary", uri=f"sqlite:///{out / 'catalog.db'}", warehouse=f"file://{out}")
    return catalog.load_table("attributary.conversions")


def data_files(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*.parquet")}


def test_pyiceberg_reads_what_the_view_holds(tmp_path: Path, shop: psycopg.Connection) -> None:
    assert "40 rows in 4 days, 4 of them new, see catalog.db" in export(tmp_path / "out").stdout
    rows = table_of(tmp_path / "out").scan().to_arrow()
    stored = shop.execute("SELECT sum(net_value) FROM reporting.conversions WHERE tenant_id = 'acme'").fetchall()[0][0]
    assert sum(rows["net_value"].to_pylist()) == stored
    assert set(rows["tenant_id"].to_pylist()) == {"acme"}
    assert str(rows.schema.field("converted_at").type) == "timestamp[us, tz=UTC]"
    one_day = table_of(tmp_path / "out").scan(row_filter="export_day = '2026-11-02'").to_arrow()
    assert one_day.num_rows == 10


def test_only_days_that_changed_are_written_and_what_is_gone_is_in_no_file(
    tmp_path: Path, shop: psycopg.Connection
) -> None:
    out = tmp_path / "out"
    export(out)
    before = data_files(out)
    assert "0 of them new" in export(out).stdout
    assert data_files(out) == before
    shop.execute("DELETE FROM attribution_conversions WHERE conversion_id = 'o3' OR conversion_id >= 'o30'")
    shop.commit()
    gone = {"o3", *(f"o{number}" for number in range(30, 40)), *(f"o{number}" for number in range(4, 10))}
    assert "of them new" in export(out).stdout
    table = table_of(out)
    left = set(table.scan().to_arrow()["conversion_id"].to_pylist())
    assert left == {f"o{number}" for number in range(40)} - gone
    in_files = [
        name for path in out.rglob("*.parquet") for name in parquet.read_table(path)["conversion_id"].to_pylist()
    ]
    assert sorted(in_files) == sorted(left)  # no former file either
    assert len(table.metadata.snapshots) == 1
    assert data_files(out) & before  # days that did not change kept their files


def test_an_export_that_fails_leaves_the_table_as_it_was(
    tmp_path: Path, shop: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(out)
    shop.execute("DELETE FROM attribution_conversions WHERE conversion_id = 'o3'")
    shop.commit()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export_iceberg, "value_sums", fails)
        assert "nothing was replaced" in export(out, code=74).stderr
    assert table_of(out).scan().to_arrow().num_rows == 40
    export(out)
    assert table_of(out).scan().to_arrow().num_rows == 39


def test_a_folder_of_others_is_left_alone(tmp_path: Path, shop: psycopg.Connection) -> None:
    export(tmp_path / "out")
    assert "the table of another tenant" in export(tmp_path / "out", "--tenant", "other", code=2).stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert "holds something that no export wrote" in export(tmp_path / "mine", code=2).stderr
    assert shop.closed is False
