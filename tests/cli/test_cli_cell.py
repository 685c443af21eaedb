"""`attributary cell move-tenant`: what it refuses before anything moves, and how it reads the other cell's settings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.maintenance.cells import Cell, NotReadyError, TenantMove
from attributary.consumers.maintenance.cells.cell import cell_of_file, this_cell
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.store.cells.moves import Move, store_move
from attributary.consumers.store.erasure.entries import Hasher

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a key of the ledger of erasures"


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Cell:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner@here/attributary")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "here:9092")
    monkeypatch.setenv("ATTRIBUTION_PREFIX", "eu.")
    monkeypatch.setenv("SCHEMA_REGISTRY_URL", "http://here:8081")
    return this_cell()


def test_the_other_cell_is_what_its_file_says_and_nothing_else(cell: Cell, tmp_path: Path) -> None:
    file = tmp_path / "north.env"
    file.write_text(
        "# of `attributary up`\n\nexport DATABASE_URL='postgresql://owner:it'\"'\"'s@there/attributary'\n"
        f'KAFKA_BOOTSTRAP_SERVERS=there:9092\nATTRIBUTION_PREFIX=north.\nATTRIBUTION_ERASURE_KEY="{KEY}"\nHOME=/x\n'
    )
    other = cell_of_file(file)
    assert (other.prefix, other.dsn, other.registry) == ("north.", "postgresql://owner:it's@there/attributary", None)
    assert other.kafka.bootstrap_servers == "there:9092"
    assert other.hasher is not None
    assert other.hasher.key_id == Hasher(KEY).key_id
    assert other.topic("results.v1") == "north.attribution.results.v1"
    assert this_cell() == cell  # our own settings are back


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("DATABASE_URL=postgresql://x@y/z\n", "KAFKA_BOOTSTRAP_SERVERS: must be set (in "),
        ("KAFKA_BOOTSTRAP_SERVERS=there:9092\n", "DATABASE_URL: must be set (in "),
        ("KAFKA_BOOTSTRAP_SERVERS=there:9092\nATTRIBUTION_PREFIX=North\n", "ATTRIBUTION_PREFIX: must be lower-case"),
    ],
)
def test_a_setting_that_the_file_lacks_is_named(cell: Cell, tmp_path: Path, text: str, said: str) -> None:
    del cell
    file = tmp_path / "north.env"
    file.write_text(text)
    with pytest.raises(ConfigError) as refused:
        cell_of_file(file)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"# a comment\nnonsense\n", "line 2: must be NAME=value"),
        (b"DATABASE_URL='open\n", "line 1: a quotation mark is not closed"),
        (b"\xff\xfe", "north.env: 'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_holds_no_settings_is_a_usage_error_that_names_the_line(
    tmp_path: Path, text: bytes, said: str
) -> None:
    file = tmp_path / "north.env"
    file.write_bytes(text)
    done = CliRunner().invoke(app, ["cell", "move-tenant", "acme", "--to", str(file)])
    assert done.exit_code == 2
    told = done.output.replace("\n", "").replace(" ", "")
    assert said.replace(" ", "") in told
    assert "north.env" in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dry-run", "--finish"], "only one of --dry-run, --follow and --finish can be given"),
        (["--take-back-results"], "goes with --finish"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: list[str], said: str) -> None:
    file = tmp_path / "north.env"
    file.write_text("")
    done = CliRunner().invoke(app, ["cell", "move-tenant", "acme", "--to", str(file), *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


@pytest.mark.postgres
def test_cells_that_do_not_fit_each_other_are_refused(cell: Cell, database: str) -> None:
    there = replace(cell, prefix="north.")
    with (
        psycopg.connect(database, autocommit=True) as one,
        psycopg.connect(database, dbname="postgres", autocommit=True) as other,
    ):
        for target, to, said in (
            (one, there, "DATABASE_URL: must be another database"),
            (other, cell, "ATTRIBUTION_PREFIX: must be another prefix"),
            (other, replace(there, registry=None), "SCHEMA_REGISTRY_URL: must be the same for both"),
        ):
            move = TenantMove("acme", (cell, to), (one, target))
            with pytest.raises(ConfigError, match=said):
                move.plan()
            move.close()


@pytest.mark.postgres
def test_a_tenant_that_moves_elsewhere_does_not_move_here(cell: Cell, database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        store_move(connection, Move("acme", "m1", "relaying", "south."))
        move = TenantMove("acme", (cell, replace(cell, prefix="north.")), (connection, connection))
        with pytest.raises(NotReadyError, match=r"is relaying already, to the installation with the prefix south\."):
            move.run()
        move.close()
