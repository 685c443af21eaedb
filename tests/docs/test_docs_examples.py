"""Every file of examples/ does what its text says."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import Producer

from attributary import Codec, MemoryTransport
from attributary.local.mock_broker import mock_broker
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import RESULTS, conversion_key
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def result(conversion_id: str, version: int, net_value_micros: int) -> tuple[bytes, bytes]:
    """Key and value of a result."""
    record: dict[str, Any] = sample(current_schemas()["result"].source, 0)
    record |= {"tenant_id": "acme", "conversion_id": conversion_id, "version": version, "currency": "EUR"}
    record |= {"net_value_micros": net_value_micros, "version_reason": "new" if version == 1 else "refund"}
    return conversion_key("acme", conversion_id), Codec().encode("result", record)


RECORDS: list[tuple[bytes, bytes | None]] = [
    result("order-1", 1, 20_000_000),
    result("order-2", 1, 10_000_000),
    result("order-1", 2, 5_000_000),
    result("order-1", 1, 20_000_000),  # comes again: changes nothing
    (conversion_key("acme", "order-2"), None),  # erased
]


def publish(bootstrap: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for key, value in RECORDS:
        producer.produce(RESULTS, value, key)
    assert producer.flush(120) == 0


def test_the_list_of_examples_is_complete() -> None:
    listed = set(re.findall(r"\]\(([\w./]+)\)", (EXAMPLES / "README.md").read_text("utf-8")))
    there = {path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*") if path.is_file()}
    # Saved deliveries and their mapping: tests/collector/test_collector_webhook_routes.py has a test of each.
    there -= {name for name in there if name.endswith(".http")} | {"webhooks/till.yaml"}
    assert {name for name in there if "__pycache__" not in name and "/target/" not in name} - {
        "README.md",
        "subscribe_java/pom.xml",
    } == listed


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, MemoryTransport]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the test client's own imports
        from fastapi.testclient import TestClient
    transport = MemoryTransport()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr("attributary.producers.client.KafkaTransport", lambda *_: transport)
    names = runpy.run_path(str(EXAMPLES / "publish_fastapi.py"))
    with TestClient(names["app"]) as client:
        yield client, transport


def test_the_web_service_publishes_landings_and_orders(shop: tuple[Any, MemoryTransport]) -> None:
    client, transport = shop
    landed = client.post(
        "/landings",
        json={"url": "https://example.com/?utm_source=google&utm_medium=cpc&gclid=G1", "anonymous_id": "d1"},
    )
    assert landed.status_code == 202
    order = {"number": "1001", "anonymous_id": "d1", "user_id": "u1", "total": "19.99", "currency": "EUR"}
    assert client.post("/orders", json={**order, "email": "jo@example.org"}).json() == {"event_id": "order-1001"}
    client.__exit__(None, None, None)  # the server stops: everything is delivered
    (touchpoint,) = transport.records("touchpoint")
    assert (touchpoint["channel"], touchpoint["click_ids"]) == ("paid_search", {"gclid": "G1"})
    (conversion,) = transport.records("conversion")
    assert (conversion["value_micros"], conversion["order_id"]) == (19_990_000, "1001")
    assert "jo@example.org" not in str(conversion)


def test_the_web_service_refuses_what_breaks_a_rule(shop: tuple[Any, MemoryTransport]) -> None:
    client, transport = shop
    order = {"number": "1", "anonymous_id": "null", "total": "19.99", "currency": "EUR"}
    refused = client.post("/orders", json=order)
    assert refused.status_code == 422
    assert "anonymous_id" in refused.json()["detail"]
    internal = {"url": "https://example.com/b", "referrer": "https://example.com/a", "anonymous_id": "d1"}
    assert client.post("/landings", json=internal).json() == {"event_id": ""}
    assert transport.records("conversion") == transport.records("touchpoint") == []


def test_the_subscriber_keeps_the_newest_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLES / "subscribe.py"))["main"]
    with mock_broker() as bootstrap:
        publish(bootstrap)
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
        assert main(str(tmp_path / "results.db"), 15.0) == 3
        assert "order-1 v2 refund: 5.00 EUR\n" in capsys.readouterr().out
        monkeypatch.setenv("GROUP", "another-team")  # reads all of it again
        assert main(str(tmp_path / "results.db"), 15.0) == 1  # order-2 was erased, and is read once more before that
    import sqlite3

    kept = sqlite3.connect(tmp_path / "results.db")
    assert kept.execute("SELECT conversion_id, version, net_value_micros FROM results").fetchall() == [
        ("order-1", 2, 5_000_000)
    ]
    kept.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_java_subscriber_reads_results(fresh_topics: str, tmp_path: Path) -> None:
    maven, compiler, java = (shutil.which(name) for name in ("mvn", "javac", "java"))
    if not (maven and compiler and java):
        pytest.skip("NO JAVA COMPILER OR NO MAVEN: the Java example is not tested")
    here = EXAMPLES / "subscribe_java"
    jars = tmp_path / "jars"
    fetch = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"]
    quiet = ["--batch-mode", "--no-transfer-progress", "--quiet"]
    subprocess.run([maven, *quiet, "--file", str(here / "pom.xml"), *fetch], check=True, timeout=500, cwd=tmp_path)
    subprocess.run(
        [compiler, "--release", "17", "-d", str(tmp_path), "-cp", f"{jars}/*", str(here / "Subscribe.java")],
        check=True,
        timeout=240,
    )
    publish(fresh_topics)
    done = subprocess.run(
        [java, "-cp", f"{tmp_path}:{jars}/*", "Subscribe", str(ROOT / "schemas" / "result.avsc"), str(len(RECORDS))],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": fresh_topics},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.splitlines()) == [
        "acme|order-1 v1 20000000",
        "acme|order-1 v2 5000000",
        "acme|order-2 v1 10000000",
    ]


def statements() -> list[str]:
    text = (EXAMPLES / "results.sql").read_text("utf-8")
    return [part for part in text.split(";\n") if "SELECT" in part]


def test_the_sql_answers_on_stored_results(database: str) -> None:
    run(
        database,
        [[touch("t1", 1), touch("t2", 2, channel="social"), sale("c1", 3)], [sale("c2", 4, who="u:ann")]],
    )
    values = {"tenant": "acme", "day": "2099-01-01"}
    with psycopg.connect(database) as connection:
        answers = [connection.execute(re.sub(r":'(\w+)'", r"%(\1)s", text), values).fetchall() for text in statements()]
    credit, reported, reasons, openers = answers
    linear = {channel: revenue for model, channel, _, _, revenue in credit if model == "linear"}
    assert linear == {"email": 5, "social": 5, "(unattributed)": 10}
    assert reported == [("EUR", 2, 20)]
    assert reasons == [("new", 2)]
    assert openers == [("email", 1)]


def test_as_of_a_day_before_there_is_nothing(database: str) -> None:
    run(database, [[sale("c1", 3)]])
    with psycopg.connect(database) as connection:
        text = re.sub(r":'(\w+)'", r"%(\1)s", statements()[1])
        values = {"tenant": "acme", "day": "2000-01-01"}
        assert connection.execute(text, values).fetchall() == []


def test_the_analysis_prints_what_it_promises(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "analysis.py"))
    printed = capsys.readouterr().out
    assert "markov_shapley" in printed
    assert "90 % intervals" in printed
    assert "row 1" in printed
