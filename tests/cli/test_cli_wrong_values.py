"""Every command with every kind of wrong value: no traceback, one line on standard error, the exit code of its kind.

The cases are made from the commands themselves, so that a new command or option is tried without anybody's care.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg.conninfo
import pytest

from attributary.consumers.runtime import acls_admin, topics_admin
from attributary.consumers.store import connection
from attributary.local.mock_broker import mock_broker
from attributary.local.ports import free_port
from attributary.schemas.topics import catalogue, dead_letter_topics
from tests.cli.command_cases import CASES, SECRET, Case, base, faults, is_number, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRONG_TIMES = ["5min", "yesterdayy", "2026-13-45", "2026-02-30", "-3d", "99999999999999d", "", "3 d", "nan"]
WRONG_TENANTS = ["nobody", "NO BODY", "a" * 200, "x' OR 1=1 --"]
WRONG_TEXTS = ["no-such-thing", "", "a\x1b[31m\n\udcff" + "x" * 5_000]
WRONG_NUMBERS = ["x", "", "1e400", "nan"]
# Of these some commands may take one: a limit of so many rows is none.
ODD_NUMBERS = ["-1", "-1e9", "1" + "0" * 30, "inf", "-inf", "0"]
WRONG_CURRENCIES = ["EURO", "\u20ac", "123", "EUR; drop", ""]
WRONG_PAIRS = ["x", "=x", "no_such_field=path", "a\x1b[31m=b", "occurred_at=no_such_column"]
WRONG_SETTINGS = ["x", "=x", "x=" + "[" * 20_000, "x=" + "9" * 5_000, 'x={"a": NaN}', "model=\x1b[31m"]
OF_A_KIND = {
    **dict.fromkeys(("since", "until", "as_of", "from", "to"), WRONG_TIMES),
    "currency": WRONG_CURRENCIES,
    "map_": WRONG_PAIRS,
    "setting": WRONG_SETTINGS,
    "parameter": WRONG_SETTINGS,
}
# A tenant may have its first record later.
# And `tenants set` makes one, which `tenants reader` then knows.
ANY_TENANT = {
    ("tail",), ("produce",), ("simulate",), ("jobs", "submit"), ("jobs", "cancel"), ("tenants", "set"),
    ("tenants", "reader"), ("erase",),
}  # fmt: skip
PLAIN_FLAGS = {"help", "version"}
ANY_TENANT |= {("audit", "list")}  # a tenant of which everything was erased
ANY_TENANT |= {("experiment", "add")}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "paths.csv").write_text("path,total_conversions\na > b,3\n")
    (folder / "empty.csv").write_text("")
    (folder / "binary.csv").write_bytes(bytes(range(256)) * 8)
    return folder


@pytest.fixture(scope="module")
def services(module_database: str) -> Iterator[dict[str, str]]:
    from confluent_kafka import Producer

    with mock_broker() as bootstrap, pytest.MonkeyPatch.context() as patch:
        for module in (topics_admin, acls_admin):  # the mock broker leaves some of their questions without an answer
            patch.setattr(module, "_SECONDS", 1.0)
        producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
        for topic in (*catalogue(), *dead_letter_topics()):
            producer.list_topics(topic.name, timeout=120)  # makes it
        with psycopg.connect(module_database, autocommit=True) as opened:
            opened.execute(
                "INSERT INTO attribution_journeys (tenant_id, journey_key, first_event_us, last_event_us, "
                "last_received_us) VALUES ('acme', 'u:somebody', 1, 1, 1)"
            )
        yield {"KAFKA_BOOTSTRAP_SERVERS": bootstrap, "DATABASE_URL": module_database}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 60)  # a busy machine is not a database that is away
    for name in ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL"):
        monkeypatch.delenv(name, raising=False)


def wrong_values(case: Case, option: Any, files: Path) -> tuple[list[str], bool]:
    """Return values to try, and whether each must be refused."""
    kind = option.type_descriptor
    if is_number(option):
        return WRONG_NUMBERS, True
    if kind.is_choice:
        return ["nonsense", ""], True
    if option.name in OF_A_KIND:
        return [value for value in OF_A_KIND[option.name] if value or option.default != ""], True
    if option.name == "tenant":
        # `tenants set` would make the first one, which no other command then refuses.
        return WRONG_TENANTS[case.path == ("tenants", "set") :], case.path not in ANY_TENANT
    if kind.is_path or option.name in {"file", "files"}:
        return [*(str(files / each) for each in ("nowhere/x.csv", "", "empty.csv", "binary.csv")), ""], False
    return WRONG_TEXTS, False


@pytest.mark.postgres
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_wrong_value_of_an_option_is_a_traceback_or_taken(case: Case, services: dict[str, str], files: Path) -> None:
    found: list[str] = []
    for option in case.command.params:
        if option.name in PLAIN_FLAGS or getattr(option, "is_flag", False):
            continue
        words = base(case, files, without=option.name)
        words += ["--dry-run", "events.jsonl"] if case.path == ("simulate",) and option.name != "dry_run" else []
        put = [] if option.param_type_name == "argument" else [option.opts[0]]
        values, must = wrong_values(case, option, files)
        for value in values:
            if option.param_type_name == "argument" and value.startswith("-"):
                continue
            ran = run(case.path, [*words, *put, value], dict(services))
            found += faults(ran, *((1, 2) if must else ()))
        for value in ODD_NUMBERS if is_number(option) and option.param_type_name == "option" else ():
            found += faults(run(case.path, [*words, *put, value], dict(services)))
    assert not found, "\n".join(found)


@pytest.mark.postgres
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_option_that_is_not_there_is_told(case: Case, services: dict[str, str], files: Path) -> None:
    found = faults(run(case.path, [*base(case, files), "--no-such-option"], dict(services)), 2, says="--no-such-option")
    if any(option.required for option in case.command.params):
        found += faults(run(case.path, [], dict(services)), 2, says="Missing")
    assert not found, "\n".join(found)


TAKING_A_TENANT = [
    case for case in CASES for option in case.command.params if "Default: ATTRIBUTION_TENANT" in (option.help or "")
]


@pytest.mark.postgres
@pytest.mark.parametrize("case", TAKING_A_TENANT, ids=lambda case: case.name)
def test_the_tenant_may_be_a_setting(case: Case, services: dict[str, str], files: Path) -> None:
    words = base(case, files, without="tenant")
    if case.path == ("produce",):
        words += [
            "--dry-run",
            "--map",
            "occurred_at=path",
            "--map",
            "channel=path",
            "--map",
            "user_id=path",
            "--constant",
            "platform=x",
        ]
    found = faults(run(case.path, words, {**services, "ATTRIBUTION_TENANT": "NO BODY"}), 78, says="ATTRIBUTION_TENANT")
    named = run(case.path, words, {**services, "ATTRIBUTION_TENANT": "acme"})
    assert named.failed is None
    assert "must be given" not in named.err
    assert not found, "\n".join(found)


def test_the_commands_that_take_a_tenant_are_those_that_need_one() -> None:
    assert {case.path[0] for case in TAKING_A_TENANT} >= {
        "explain", "export", "forward", "jobs", "models", "produce", "refit", "report", "results", "simulate",
    }  # fmt: skip


@pytest.fixture(scope="module")
def needing_postgres(services: dict[str, str], files: Path) -> list[Case]:
    return needing("DATABASE_URL", services, files)


def needing(variable: str, services: dict[str, str], files: Path) -> list[Case]:
    """Return the commands that cannot do without a variable: they say so."""
    found = []
    for case in (case for case in CASES if case.path[0] not in {"status", "doctor"}):
        ran = run(case.path, base(case, files), {**services, variable: None})
        if variable in ran.err:
            assert faults(ran, 78) == []
            found.append(case)
    return found


@pytest.mark.postgres
def test_every_command_tells_why_postgres_is_not_reached(
    services: dict[str, str], files: Path, blank_database: str, needing_postgres: list[Case]
) -> None:
    port, nowhere = free_port(), "postgresql://a:hunter2@127.0.0.1"
    wrong = {
        blank_database: (78, "run `attributary db migrate`"),
        f"{nowhere}:{port}/shop": (69, f"Postgres at 127.0.0.1:{port}, database shop: nothing listens there"),
        "hello": (78, "must be postgresql://"),
        f"jdbc:postgresql://a:{SECRET}@db/x": (78, "must be postgresql://"),
        f"mysql://a:{SECRET}@db/x": (78, "must be postgresql://"),
        f"{nowhere}:99999/x": (78, "a port from 1 to 65535"),
        f"postgresql://a:{SECRET}@host.invalid/x": (78, "the name of the host is unknown"),
        psycopg.conninfo.make_conninfo(services["DATABASE_URL"], dbname="nope"): (78, "has no such database"),
        psycopg.conninfo.make_conninfo(services["DATABASE_URL"], user="nobody_here"): (78, "DATABASE_URL"),
    }
    assert len(needing_postgres) > 20
    wrongs: list[str] = []
    for number, case in enumerate(needing_postgres):
        # Each command meets a server that is away, a database that is not migrated, and in turn one of the others.
        for dsn in [*list(wrong)[:2], list(wrong)[2 + number % (len(wrong) - 2)]]:
            code, said = wrong[dsn]
            if dsn == blank_database and case.path[0] == "db":
                continue
            wrongs += faults(run(case.path, base(case, files), {**services, "DATABASE_URL": dsn}), code, says=said)
    assert not wrongs, "\n".join(wrongs)


@pytest.mark.postgres
def test_every_command_takes_or_refuses_a_newer_database(
    services: dict[str, str], files: Path, database: str, needing_postgres: list[Case]
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO attribution_migrations (number, name, sha256) VALUES (9999, '9999_later.sql', 'x')"
        )
        connection.execute("ALTER TABLE attribution_results RENAME TO results_of_later")
        connection.execute("ALTER TABLE attribution_journeys RENAME TO journeys_of_later")
    wrongs: list[str] = []
    for case in needing_postgres:
        wrongs += faults(run(case.path, base(case, files), {**services, "DATABASE_URL": database}))
    assert not wrongs, "\n".join(wrongs)


@pytest.mark.postgres
def test_every_command_tells_why_kafka_is_not_reached(services: dict[str, str], files: Path) -> None:
    port = free_port()
    wrong = {
        f"127.0.0.1:{port}": (69, f"no Kafka broker answers at 127.0.0.1:{port}: nothing listens there"),
        "http://localhost:9092": (78, "KAFKA_BOOTSTRAP_SERVERS: must be host:port"),
        "127.0.0.1:99999": (78, "KAFKA_BOOTSTRAP_SERVERS: must be host:port"),
        "localhost:kafka": (78, "KAFKA_BOOTSTRAP_SERVERS: must be host:port"),
        "host.invalid:9092": (69, "the name of the host is unknown"),
    }
    found = needing("KAFKA_BOOTSTRAP_SERVERS", services, files)
    assert len(found) >= 7
    wrongs: list[str] = []
    for number, case in enumerate(found):
        for servers in (next(iter(wrong)), list(wrong)[1 + number % (len(wrong) - 1)]):
            code, said = wrong[servers]
            ran = run(case.path, base(case, files), {**services, "KAFKA_BOOTSTRAP_SERVERS": servers})
            wrongs += faults(ran, code, says=said)
    assert not wrongs, "\n".join(wrongs)


@pytest.mark.parametrize("url", ["hello", "ftp://registry:8081", f"http://a:{SECRET}@registry:8081", "http://"])
def test_a_wrong_address_of_the_registry_is_told(url: str, services: dict[str, str]) -> None:
    ran = run(["tail"], ["results", "--until-end"], {**services, "SCHEMA_REGISTRY_URL": url})
    assert faults(ran, 78, says="SCHEMA_REGISTRY_URL: must be http://host:port") == []


@pytest.mark.postgres
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_json_is_json_or_nothing(case: Case, services: dict[str, str], files: Path) -> None:
    if not any("--json" in option.opts for option in case.command.params):
        pytest.skip("has no --json")
    ran = run(case.path, [*base(case, files), "--json"], dict(services))
    text = ran.out.strip()
    if ran.code == 0 and text:
        try:
            json.loads(text, parse_constant=lambda name: math.nan if name == "" else pytest.fail(f"{name} is no JSON"))
        except ValueError:
            assert all(json.loads(line) for line in text.splitlines()), ran
