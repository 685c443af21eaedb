"""S9 and a newcomer's first mistakes: who cannot connect is told in a line, within seconds, and never a password."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attributary.local.ports import free_port

ATTRIBUTARY = Path(sys.executable).with_name("attributary")
SECRET = "hunter2"

TYPOS = [
    f"postgres//attributary:{SECRET}@db/x",
    f"attributary:{SECRET}@db:5432/x",
    f"postgresql://attributary:{SECRET}%@db/x",
    f"postgresql://attributary:{SECRET}@x@db/x",
    f"postgresql://attributary:1/{SECRET}@db/x",
    f"postgresql://attributary:1?{SECRET}@db/x",
    f"postgresql://attributary:{SECRET}/1@db/x",
    f"jdbc:postgresql://attributary:{SECRET}@db/x",
    f"host=db password='{SECRET}",
    f"host=db pasword={SECRET}",
    f"{SECRET}",
]


def run(*arguments: str, **variables: str) -> tuple[int, str, float]:
    started = time.monotonic()
    done = subprocess.run(
        [str(ATTRIBUTARY), *arguments],
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, time.monotonic() - started


@pytest.mark.slow
@pytest.mark.parametrize("dsn", TYPOS)
def test_s9_no_typo_in_database_url_shows_the_password(dsn: str) -> None:
    for command in (("db", "status"), ("stitcher",)):
        code, said, _ = run(
            *command, DATABASE_URL=dsn, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", METRICS_PORT="0",
            ATTRIBUTION_FIRST_START="earliest",
        )  # fmt: skip
        assert SECRET not in said
        assert "Traceback" not in said
        assert code == 78
        assert "DATABASE_URL: must be postgresql://user:password@host:port/database" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"KAFKA_EXTRA": f'{{"security.protocol": "{SECRET}"}}'}, "KAFKA_EXTRA: librdkafka refuses"),
        ({"KAFKA_EXTRA": f'{{"{SECRET}": "x"}}'}, "KAFKA_EXTRA: librdkafka refuses"),
        ({"KAFKA_EXTRA": f'{{"sasl.password": ["{SECRET}"]}}'}, "KAFKA_EXTRA: "),
        ({"KAFKA_EXTRA": f'{{"socket.timeout.ms": "{SECRET}"}}'}, "KAFKA_EXTRA: librdkafka refuses"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": "/nowhere"},
            "KAFKA_SSL_CA_LOCATION: the file cannot be read",
        ),
    ],
)
def test_s9_no_setting_that_librdkafka_refuses_is_shown(variables: dict[str, str], named: str) -> None:
    dsn = "postgresql://a:b@127.0.0.1:1/x"
    for command in (("tail", "results"), ("attributor",)):
        code, said, _ = run(
            *command, DATABASE_URL=dsn, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", METRICS_PORT="0", **variables
        )
        assert SECRET not in said
        assert code == 78
        assert named in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("tail", "results"),
        ("dlq", "list"),
        ("topics", "plan"),
        ("simulate", "--touchpoints", "10", "--conversions", "1"),
    ],
    ids=" ".join,
)
def test_newcomer_1_a_broker_that_is_away_is_told_in_one_line(command: tuple[str, ...]) -> None:
    port = free_port()
    code, said, seconds = run(*command, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    lines = said.strip().splitlines()
    assert code == 69
    assert len(lines) <= 2, said
    assert f"no Kafka broker answers at 127.0.0.1:{port}: nothing listens there" in said
    assert "attributary up" in said
    assert seconds < 120  # five and the start of Python, which a loaded machine draws out


def test_newcomer_6_a_postgres_that_is_away_is_told_with_host_port_and_database() -> None:
    port = free_port()
    code, said, _ = run("results", "--tenant", "acme", DATABASE_URL=f"postgresql://a:{SECRET}@127.0.0.1:{port}/shop")
    assert code == 69
    assert f"Postgres at 127.0.0.1:{port}, database shop: nothing listens there" in said
    assert SECRET not in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.postgres
def test_newcomer_5_and_6_an_empty_or_wrong_database_is_told_with_the_cure(database: str) -> None:
    import psycopg
    import psycopg.conninfo

    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS newcomer_empty")
        connection.execute("CREATE DATABASE newcomer_empty")
    empty = psycopg.conninfo.make_conninfo(database, dbname="newcomer_empty")
    code, said, _ = run("results", "--tenant", "acme", DATABASE_URL=empty)
    assert code == 78
    assert "run `attributary db migrate`" in said
    wrong = psycopg.conninfo.make_conninfo(database, dbname="newcomer_nope")
    code, said, _ = run("results", "--tenant", "acme", DATABASE_URL=wrong)
    assert code == 78
    assert "database newcomer_nope: the server answers, but has no such database" in said
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP DATABASE newcomer_empty")
