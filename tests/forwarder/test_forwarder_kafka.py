"""The whole forwarder as a process: real Kafka, real Postgres, the stand-ins, the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer, Producer

from attributary.local.fakes import Fault, Ga4Fake, MetaFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import CODEC, TOPIC, conversion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = str(Path(sys.executable).with_name("attributary"))
DEAD = f"{TOPIC}.attribution.forwarder.{{}}.dlq"


def environment(bootstrap: str, dsn: str, url: str, **more: str) -> dict[str, str]:
    return (
        os.environ
        | {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "DATABASE_URL": dsn,
            "META_BASE_URL": url,
            "META_PIXEL_ID": "42",
            "META_ACCESS_TOKEN": "good",
            "ATTRIBUTION_FIRST_START": "earliest",
            "METRICS_PORT": "0",
            "FORWARD_LINGER_MS": "100",
            "KAFKA_SESSION_TIMEOUT_MS": "6000",  # a killed member is missed no longer than that
            "KAFKA_TRANSACTION_TIMEOUT_MS": "5000",
        }
        | more
    )


@contextmanager
def forwarder(variables: dict[str, str], log: Path, name: str = "meta") -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        process = subprocess.Popen(
            [COMMAND, "forwarder", "--destination", name], env=variables, stdout=file, stderr=file
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0, log.read_text()


def wait_for(done: Callable[[], bool], log: Path, seconds: float = 180.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, log.read_text()[-3_000:]
        time.sleep(0.1)


def produce(bootstrap: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap})
    for number, value in enumerate(values):
        producer.produce(TOPIC, value, key=f"acme|{number % 7}".encode())
    assert producer.flush(120) == 0


def dead_letters(bootstrap: str, name: str = "meta") -> list[dict[str, str]]:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"look-{time.time_ns()}",  # no offsets of a topic that had the name before
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([DEAD.format(name)])
    found: list[dict[str, str]] = []
    try:
        for _ in range(300):
            for message in consumer.consume(10, 0.5):
                assert message.error() is None
                headers = cast("list[tuple[str, bytes]]", message.headers() or [])
                found.append({name: value.decode() for name, value in headers})
            if found:
                return found
    finally:
        consumer.close()
    return found


def ask(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "forward", *arguments], env=variables, capture_output=True, text=True, timeout=240, check=False
    )


def encoded(events: list[dict[str, Any]]) -> list[bytes]:
    return [CODEC.encode("conversion", event) for event in events]


@pytest.mark.kafka
@pytest.mark.postgres
def test_conversions_reach_meta_once_and_the_ledger_answers(fresh_topics: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    fake, log = MetaFake(tokens=["good"]), tmp_path / "log"
    good = [conversion(now) for _ in range(300)]
    bad = conversion(now, event_id="bad-one", currency="XXX", value_micros=0, items=[])
    with FakeServer(fake) as server:
        variables = environment(fresh_topics, database, server.url)
        produce(fresh_topics, encoded([*good, bad, *good[:20]]))
        with forwarder(variables, log):
            wait_for(lambda: len(fake.received) == 300, log)
            (letter,) = dead_letters(fresh_topics)
        assert letter["__connect.errors.exception.message"] == "a purchase needs a value and a currency"
        produce(fresh_topics, encoded(good[:50]))
        with forwarder(variables, log):
            produce(fresh_topics, encoded([conversion(now, event_id="last")]))
            wait_for(lambda: len(fake.received) == 301, log)
        assert fake.duplicates == 0
        status = [json.loads(line) for line in ask(variables, "status", "--json").stdout.splitlines()]
        assert {(line["state"], line["deliveries"]) for line in status} == {("sent", 301), ("rejected", 1)}
        told = ask(variables, "explain", good[0]["event_id"])
        assert "sent" in told.stdout
        assert "trace id" in told.stdout
        assert ask(variables, "explain", "unknown").returncode == 1
        explained = ask(variables, "explain", "bad-one").stdout
        assert "the dead-letter topic" in explained
        assert "a purchase needs a value and a currency (currency)" in explained, "F19: the field is named"
        unknown = ask(variables, "retry", "unknown")
        assert (unknown.returncode, "not in the ledger" in unknown.stderr) == (1, True)


@pytest.mark.kafka
@pytest.mark.postgres
def test_dead_credentials_keep_events_and_retry_sends_them(fresh_topics: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    fake, log = MetaFake(tokens=["good"]), tmp_path / "log"
    credentials = tmp_path / "credentials.yaml"
    document: dict[str, Any] = {
        "tenants": {
            "acme": {"meta": {"pixel_id": "1", "access_token": "expired"}},
            "globex": {"meta": {"pixel_id": "2", "access_token": "good"}},
        }
    }
    credentials.write_text(json.dumps(document))
    mine = [conversion(now) for _ in range(30)]
    others = [conversion(now, tenant_id="globex") for _ in range(30)]
    with FakeServer(fake) as server:
        variables = environment(fresh_topics, database, server.url, FORWARD_CREDENTIALS_FILE=str(credentials))
        produce(fresh_topics, encoded(mine + others))
        with forwarder(variables, log):
            wait_for(lambda: len(fake.received) == 30, log)
            wait_for(lambda: "events left pending" in log.read_text(), log)
        assert {pixel for pixel, _, _ in fake.received} == {"2"}
        assert "the access token is not valid" in ask(variables, "explain", mine[0]["event_id"]).stdout
        without = tmp_path / "without.yaml"
        without.write_text(json.dumps({"tenants": {"globex": document["tenants"]["globex"]}}))
        refused = ask({**variables, "FORWARD_CREDENTIALS_FILE": str(without)}, "retry", "--destination", "meta")
        assert refused.returncode == 78
        dead = ask(variables, "retry", "--destination", "meta")
        assert (dead.returncode, dead.stdout) == (69, "")
        assert dead.stderr == "attributary: meta: the access token is not valid\n", "F19: a sentence, no log line"
        assert "must name the account of 30 of these events" in refused.stderr
        assert "now 30 pending" in refused.stdout
        document["tenants"]["acme"]["meta"]["access_token"] = "good"
        credentials.write_text(json.dumps(document))
        one = ask(variables, "retry", mine[0]["event_id"])
        assert "meta: 1 tried; now 1 sent" in one.stdout, one.stderr
        rest = ask(variables, "retry", "--destination", "meta", "--state", "pending")
        assert "meta: 29 tried; now 29 sent" in rest.stdout, rest.stderr
        assert "nothing to send again" in ask(variables, "retry", "--destination", "meta").stdout
    assert len(fake.received) == 60
    assert fake.duplicates == 0


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.fault
def test_s7_what_an_account_left_behind_comes_by_the_ledger(fresh_topics: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    fake, log = MetaFake(tokens=["good"]), tmp_path / "log"
    credentials = tmp_path / "credentials.yaml"
    accounts = {
        "acme": {"meta": {"pixel_id": "1", "access_token": "expired"}},
        "globex": {"meta": {"pixel_id": "2", "access_token": "good"}},
    }
    credentials.write_text(json.dumps({"tenants": accounts}))
    mine = [conversion(now) for _ in range(30)]
    fake.poison.add(mine[7]["event_id"])
    with FakeServer(fake) as server:
        variables = environment(fresh_topics, database, server.url, FORWARD_CREDENTIALS_FILE=str(credentials))
        with forwarder(variables, log):
            produce(fresh_topics, encoded([*mine, *(conversion(now, tenant_id="globex") for _ in range(30))]))
            wait_for(lambda: len(fake.received) == 30, log)
            wait_for(lambda: "events left pending" in log.read_text(), log)
        assert {pixel for pixel, _, _ in fake.received} == {"2"}
        credentials.write_text(json.dumps({"tenants": accounts}).replace("expired", "good"))
        killed = subprocess.run(
            [COMMAND, "forwarder", "meta"],
            env=variables | {"ATTRIBUTION_CRASH_AT": "forwarder_after_send"},
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stdout
        assert len(fake.received) == 59, "no record came: what was left behind was sent, and its answers were lost"
        with forwarder(variables, log):
            (letter,) = dead_letters(fresh_topics)
            assert letter["__connect.errors.stage"] == "send"
            wait_for(lambda: "rejected" in ask(variables, "explain", mine[7]["event_id"]).stdout, log)
    assert len(fake.received) == 59
    assert max(fake.received.values()) == 2, "Meta removes the copies of what was perhaps sent"
    status = [json.loads(line) for line in ask(variables, "status", "--json").stdout.splitlines()]
    assert {(line["state"], line["deliveries"]) for line in status} == {("sent", 59), ("rejected", 1)}


def odd_numbers(now: int) -> list[dict[str, Any]]:
    """Conversions that the schema takes and that no JSON can hold as they are."""

    def line(**changes: Any) -> dict[str, Any]:
        return {"item_id": "a", "quantity": 1.0, "price_micros": 5_000_000, **changes}

    odd = ("NaN", "inf", "-Infinity", "1e400", "-1e999", "nan", "9" * 400)
    lines = [[line(properties={name: text})] for text in odd for name in ("discount", "index")]
    lines += [[line(quantity=1e308), line(quantity=1e308)], [line(quantity=5e-324)], [line(quantity=1.7e308)] * 3]
    events = [conversion(now, items=items) for items in lines]
    names = ("tax", "shipping", "value", "predicted_ltv", "net_revenue", "level", "score", "user.age", "num_items")
    return events + [conversion(now, properties=dict.fromkeys(names, text)) for text in odd]


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.parametrize("name", ["meta", "ga4"])
def test_f1_no_number_stops_a_forwarder(name: str, fresh_topics: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    fake: Any = MetaFake() if name == "meta" else Ga4Fake()
    log = tmp_path / "log"
    odd, good = odd_numbers(now), [conversion(now) for _ in range(20)]
    bad = [
        conversion(now, conversion_type="x" * 60 + "y" * number, currency="XXX", value_micros=0, items=[])
        for number in range(3)
    ]
    bad[0]["action_source"] = "app"  # Meta wants app_data for it
    junk = [b"\x00rubbish"]
    with FakeServer(fake) as server:
        variables = environment(fresh_topics, database, server.url) | {
            "GA4_BASE_URL": server.url, "GA4_MEASUREMENT_ID": "G-TEST1", "GA4_API_SECRET": "secret",
        }  # fmt: skip
        produce(fresh_topics, encoded([*good[:10], *odd, *bad, *good[10:]]) + junk)
        rejected = 1 if name == "meta" else 3
        with forwarder(variables, log, name) as process:
            count = (lambda: len(fake.received)) if name == "meta" else (lambda: fake.counted)
            wait_for(lambda: count() == len(good) + len(odd) + len(bad) - rejected, log)
            assert dead_letters(fresh_topics, name)
            assert process.poll() is None, "alive"
        told = ask(variables, "explain", odd[0]["event_id"]).stdout
    assert "Traceback" not in log.read_text()
    assert "cannot be built" not in log.read_text()
    assert ("discount left out: not a number" in told) is (name == "ga4")


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.fault
def test_a_rate_limit_pauses_the_partition_not_the_process(fresh_topics: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    fake, log = MetaFake(tokens=["good"]), tmp_path / "log"
    fake.script.replace([Fault("http_429", times=1, seconds=2)])
    with FakeServer(fake) as server:
        variables = environment(fresh_topics, database, server.url)
        produce(fresh_topics, encoded([conversion(now) for _ in range(40)]))
        with forwarder(variables, log):
            wait_for(lambda: len(fake.received) == 40, log)
    assert fake.script.fired == {"http_429": 1}
    assert '"event": "paused"' in log.read_text()
    assert fake.duplicates == 0


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.fault
@pytest.mark.parametrize(
    ("point", "copies"),
    [("forwarder_after_send", True), ("forwarder_before_kafka_commit", False), ("loop_before_kafka_commit", False)],
)
def test_a_kill_in_the_middle_loses_nothing(
    fresh_topics: str, database: str, tmp_path: Path, point: str, copies: bool
) -> None:
    now = time.time_ns() // 1_000
    fake, log = MetaFake(tokens=["good"]), tmp_path / "log"
    bad = conversion(now, event_id="bad-one", currency="XXX", value_micros=0, items=[])
    with FakeServer(fake) as server:
        variables = environment(fresh_topics, database, server.url)
        produce(fresh_topics, encoded([*(conversion(now) for _ in range(200)), bad]))
        killed = subprocess.run(
            [COMMAND, "forwarder", "meta"],
            env=variables | {"ATTRIBUTION_CRASH_AT": point},
            capture_output=True,
            timeout=240,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL, killed.stdout
        with forwarder(variables, log):
            produce(fresh_topics, encoded([conversion(now, event_id="last")]))
            wait_for(lambda: len(fake.received) == 201 and "last" in {name for _, _, name in fake.received}, log)
            assert len(dead_letters(fresh_topics)) == 1
        status = [json.loads(line) for line in ask(variables, "status", "--json").stdout.splitlines()]
    assert {(line["state"], line["deliveries"]) for line in status} == {("sent", 201), ("rejected", 1)}
    assert (fake.duplicates > 0) is copies
    assert max(fake.received.values()) <= 2
