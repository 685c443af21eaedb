"""The embedded Postgres: kept data, both ways in, and a crash that loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from attributary.local.postgres import embedded_postgres, find_postgres, for_database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.postgres
def test_an_acknowledged_commit_survives_a_crash_even_when_not_durable() -> None:
    with embedded_postgres(durable=False) as postgres:
        assert postgres.cluster is not None
        with psycopg.connect(postgres.dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept (number int)")
            connection.execute("INSERT INTO kept VALUES (1)")
            postgres.cluster.kill()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        postgres.cluster.restart()
        with psycopg.connect(postgres.cluster.tcp_dsn) as connection:
            assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]
    assert not postgres.cluster.data.exists()


@pytest.mark.postgres
def test_data_of_a_chosen_folder_is_there_at_the_next_start(tmp_path: Path) -> None:
    # Below a folder that only its owner may enter, as a checkout in the home of root is.
    home = tmp_path / "private"
    home.mkdir(mode=0o700)
    with embedded_postgres(home / "data") as postgres, psycopg.connect(postgres.dsn) as connection:
        connection.execute("CREATE TABLE kept (number int)")
    with embedded_postgres(home / "data") as postgres, psycopg.connect(postgres.dsn) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchall() == [(0,)]
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


@pytest.mark.postgres
def test_the_address_stays_over_a_restart_where_the_path_is_too_long_for_a_socket(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 20) / "data"
    data.parent.mkdir()
    with embedded_postgres(data) as postgres:
        assert postgres.cluster is not None
        address, port = postgres.dsn, postgres.cluster.port
        assert str(data) not in address
    with embedded_postgres(data, port=port) as postgres:
        assert postgres.dsn == address


@pytest.mark.postgres
def test_a_socket_folder_that_somebody_else_put_there_is_not_used(tmp_path: Path) -> None:
    data = tmp_path / ("long" * 20) / "data"
    data.parent.mkdir()
    note = data.parent / "data.sockets"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").symlink_to(tmp_path / "theirs")
    note.write_text(str(tmp_path / "ours"))
    with embedded_postgres(data):
        assert note.read_text() != str(tmp_path / "ours")
        assert not list((tmp_path / "theirs").iterdir())


@pytest.mark.postgres
def test_the_loopback_port_wants_the_password() -> None:
    with embedded_postgres(durable=False) as postgres:
        assert postgres.cluster is not None
        wrong = postgres.cluster.tcp_dsn.replace(urlsplit(postgres.cluster.tcp_dsn).password or "", "guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(wrong)


def test_a_given_database_is_used_and_never_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody@db.example/shop")
    with find_postgres() as postgres:
        assert postgres.kind == "given"
        assert postgres.cluster is None
        assert postgres.dsn == "postgresql://somebody@db.example/shop"
    monkeypatch.delenv("DATABASE_URL")
    secret = tmp_path / "url"
    secret.write_text("postgresql://other@db.example/shop\n", encoding="utf-8")
    monkeypatch.setenv("DATABASE_URL_FILE", str(secret))
    with find_postgres() as postgres:
        assert postgres.dsn == "postgresql://other@db.example/shop"


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        (
            "postgresql://u:p@db.example:5432/shop?sslmode=require",
            "postgresql://u:p@db.example:5432/x%20y?sslmode=require",
        ),
        ("postgresql://u@/shop?host=%2Ftmp", "postgresql://u@/x%20y?host=%2Ftmp"),
        ("postgresql:///shop", "postgresql:///x%20y"),
        ("host=/tmp dbname=shop", "dbname='x y' host=/tmp"),
    ],
)
def test_another_database_of_the_same_server(dsn: str, expected: str) -> None:
    assert for_database(dsn, "x y") == expected
