"""`attributary export`: files that other tools read, exact to the micro, whole or not at all."""

from __future__ import annotations

import csv
import hashlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import dataset
from typer.testing import CliRunner

from attributary.cli import export_files
from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from tests.factories.samples import START_US, sale, touch
from tests.pipeline_harness import run as run_stages

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    events: list[Any] = []
    for number in range(60):
        who = f"a:d{number}"
        events.append(touch(f"t{number}", number, who=who, channel=("search", "=cmd")[number % 2]))
        events.append(touch(f"u{number}", number + 0.5, who=who, channel="mail"))
        currency = "JPY" if number % 5 == 0 else "EUR"
        events.append(sale(f"o{number}", number + 1, who=who, value=20_000_000 + number * 1_000_000, currency=currency))
    events += [sale("other", 3, who="u:x", tenant_id="other")]
    run_stages(module_database, [events])
    return module_database


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, shop: str) -> None:
    monkeypatch.setenv("DATABASE_URL", shop)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["export", *arguments], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    for file in found["files"]:
        assert hashlib.sha256((folder / file["path"]).read_bytes()).hexdigest() == file["sha256"]
    assert sum(file["rows"] for file in found["files"]) == found["rows"]
    return found


@pytest.mark.parametrize("view", ["conversions", "results", "credit", "touchpoints"])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_other_tools_read_what_the_view_holds(tmp_path: Path, shop: str, view: str, form: str) -> None:
    out = tmp_path / "out"
    assert "see manifest.json" in run(view, "--out", str(out), "--format", form).stdout
    manifest = manifest_of(out)
    with connect(shop, application_name="tests") as connection:
        (count,) = connection.execute(
            f"SELECT count(*) FROM reporting.{view} WHERE tenant_id = 'acme'"
        ).fetchall()[0]  # fmt: skip
        sums = connection.execute(
            "SELECT currency, sum(net_value) FROM reporting.conversions WHERE tenant_id = 'acme' GROUP BY 1"
        ).fetchall()
    assert manifest["rows"] == count > 0
    days = {file["path"].partition("/")[0] for file in manifest["files"]}
    assert days == {"day=2026-11-01", "day=2026-11-02", "day=2026-11-03"}
    if form == "parquet":
        table = dataset.dataset(
            [str(out / file["path"]) for file in manifest["files"]], format="parquet", partitioning="hive"
        ).to_table()
        rows = table.to_pylist()
    else:
        rows = []
        for file in manifest["files"]:
            with (out / file["path"]).open(encoding="utf-8", newline="") as lines:
                rows += list(csv.DictReader(lines))
    assert len(rows) == count
    assert {row["tenant_id"] for row in rows} == {"acme"}
    if view == "credit":
        keys = {(row["model"], row["dimension"]) for row in rows}
        for currency, net in sums:
            for model, dimension in keys:
                chosen = [
                    Decimal(row["value"]) for row in rows
                    if (row["model"], row["dimension"], row["currency"]) == (model, dimension, currency)
                ]  # fmt: skip
                assert sum(chosen) == net
                assert Decimal(manifest["sums"][f"{model}|{dimension}|{currency}"]) == net
    elif view != "touchpoints":
        assert {key: Decimal(value) for key, value in manifest["sums"].items()} == dict(sums)
    else:
        names = {"search", "mail", "=cmd" if form == "parquet" else "'=cmd"}
        assert {row["channel"] for row in rows} == names


def test_a_period_bounds_the_rows(tmp_path: Path) -> None:
    run("conversions", "--out", str(tmp_path / "out"), "--from", "2026-11-02", "--to", "2026-11-03")
    manifest = manifest_of(tmp_path / "out")
    assert [file["path"].partition("/")[0] for file in manifest["files"]] == ["day=2026-11-02"]
    assert manifest["from"] == START_US + 86_400_000_000


def test_an_export_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("conversions", "--out", str(out))
    before = manifest_of(out)
    run("conversions", "--out", str(out), "--from", "2026-11-02", "--to", "2026-11-03")
    after = manifest_of(out)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {"manifest.json", *(file["path"] for file in after["files"])}
    kept = {file["path"] for file in before["files"]} & there
    assert kept == {before["files"][1]["path"]}  # that of the one day that stays, with the same rows
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    assert "holds something that no export wrote" in run("credit", "--out", str(foreign), code=2).stderr
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_what_a_killed_export_left_is_cleared_away(tmp_path: Path) -> None:
    left = tmp_path / "out" / "day=2026-11-09" / "part-0123abcd.parquet"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"PAR1 half")
    run("conversions", "--out", str(tmp_path / "out"))
    assert not left.parent.exists()
    manifest_of(tmp_path / "out")
    (tmp_path / "out" / "manifest.json").write_text('{"format": "of somebody else"}')
    assert "no export wrote" in run("conversions", "--out", str(tmp_path / "out"), code=2).stderr


def test_an_export_that_breaks_off_leaves_the_old_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    run("conversions", "--out", str(out), "--format", "csv")
    before = manifest_of(out)
    written = []

    def full(self: Any, rows: Any) -> None:
        del self
        written.append(rows)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_files._CsvWriter, "write", full)
    error = run("conversions", "--out", str(out), "--format", "csv", code=74).stderr
    assert len(written) == 3  # the fault fired
    assert "cannot be written: No space left on device; nothing was replaced" in error
    assert manifest_of(out) == before
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {"manifest.json", *(file["path"] for file in before["files"])}
    written.clear()
    run("conversions", "--out", str(tmp_path / "new"), "--format", "csv", code=74)
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_exported_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = str(tmp_path / "out")
    assert "tenant nobody is unknown" in run("credit", "--out", out, "--tenant", "nobody", code=2).stderr
    assert "is not one of" in run("nonsense", "--out", out, code=2).stderr
    assert "--from" in run("credit", "--out", out, "--from", "soon", code=2).stderr
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert "install attributary[parquet], or use --format csv" in run("credit", "--out", out, code=2).stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_only_days_that_changed_get_new_files(tmp_path: Path, shop: str, form: str) -> None:
    out = tmp_path / "out"
    arguments = ("result_versions", "--out", str(out), "--format", form)
    assert "3 of them new" in run(*arguments).stdout
    first = manifest_of(out)
    assert (len(first["new_files"]), first["removed_files"]) == (3, [])
    assert "0 of them new" in run(*arguments).stdout
    assert manifest_of(out)["files"] == first["files"]
    # A result of the second day is erased, and all of the third day's.
    second, third = (file["path"] for file in first["files"][1:])
    with connect(shop, application_name="tests") as connection:
        deleted = connection.execute(
            "DELETE FROM attribution_results "
            "WHERE tenant_id = 'acme' AND (conversion_id = 'o30' OR converted_at_us >= %s) RETURNING *",
            (START_US + 2 * 86_400_000_000,),
        )
        assert deleted.rowcount > 1
        kept = deleted.fetchall()
        connection.commit()
        try:
            run(*arguments)
        finally:
            with connection.cursor().copy("COPY attribution_results FROM STDIN") as copy:
                for row in kept:
                    copy.write_row([json.dumps(cell) if isinstance(cell, list) else cell for cell in row])
            connection.commit()
    after = manifest_of(out)
    assert after["files"][0] == first["files"][0]
    assert after["removed_files"] == sorted([second, third])
    assert [name.partition("/")[0] for name in after["new_files"]] == [second.partition("/")[0]]
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert there == {"manifest.json", *(file["path"] for file in after["files"])}


def test_a_file_that_was_changed_by_others_is_written_anew(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("conversions", "--out", str(out))
    first = manifest_of(out)
    (out / first["files"][0]["path"]).write_bytes(b"not parquet")
    run("conversions", "--out", str(out))
    second = manifest_of(out)  # its hashes are those of the files
    assert second["new_files"] == [second["files"][0]["path"]]
    assert second["files"][1:] == first["files"][1:]
