"""Forwarders of several destinations as processes on real Kafka and Postgres, each beside a stand-in of its own.

Contract: `Forwarders` starts them and ends them; nothing is left running, however a test ends. Accounts are those of
`forwarder_factories.ACCOUNTS`, given as variables of the environment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from confluent_kafka import Consumer, Producer, TopicPartition

from attributary.consumers.runtime.error_codes import PARTITION_END
from attributary.consumers.store.connection import connect
from attributary.local.fakes import (
    BingAdsFake,
    Ga4Fake,
    GoogleFake,
    LinkedInFake,
    MetaFake,
    MicrosoftFake,
    OAuthFake,
    PinterestFake,
    RedditFake,
    SnapFake,
    TikTokFake,
    XFake,
)
from tests.forwarder.forwarder_factories import TOPIC, X_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMMAND = str(Path(sys.executable).with_name("attributary"))

FAKES: dict[str, Any] = {
    "meta": lambda: MetaFake(tokens=["test-token"]),
    "ga4": Ga4Fake,
    "tiktok": lambda: TikTokFake(tokens=["test-token"]),
    "linkedin": lambda: LinkedInFake(tokens=["test-token"], rules=["104012"]),
    "x": lambda: XFake(keys=X_KEYS, tags=["o87ne"]),
    "reddit": lambda: RedditFake(tokens=["test-token"], pixels=["a2_abc"]),
    "pinterest": lambda: PinterestFake(tokens=["test-token"], accounts=["5490"]),
    "snap": lambda: SnapFake(tokens=["test-token"], assets=["pixel-1"]),
    "microsoft": lambda: MicrosoftFake(tokens=["test-token"], tags=["1870"]),
    "bingads": lambda: BingAdsFake(OAuthFake(), developer_token="dev-1", accounts=["1500"], goals=["Shop orders"]),
    "google": lambda: GoogleFake(OAuthFake(), accounts=["1234567890"], actions=["7001"]),
}
_ACCOUNTS: dict[str, dict[str, str]] = {
    "meta": {"META_PIXEL_ID": "42", "META_ACCESS_TOKEN": "test-token"},
    "ga4": {"GA4_MEASUREMENT_ID": "G-TEST1", "GA4_API_SECRET": "secret", "FORWARD_GA4_PROBE": "false"},
    "tiktok": {"TIKTOK_PIXEL_CODE": "PIXEL1", "TIKTOK_ACCESS_TOKEN": "test-token"},
    "linkedin": {
        "LINKEDIN_AD_ACCOUNT_ID": "5001",
        "LINKEDIN_ACCESS_TOKEN": "test-token",
        "FORWARD_LINKEDIN_RULES": "purchase=104012",
    },
    "x": {
        "X_PIXEL_ID": "o8z6j",
        "X_CONSUMER_KEY": X_KEYS[0],
        "X_CONSUMER_SECRET": X_KEYS[1],
        "X_ACCESS_TOKEN": X_KEYS[2],
        "X_ACCESS_TOKEN_SECRET": X_KEYS[3],
        "FORWARD_X_EVENT_IDS": "purchase=o87ne",
    },
    "reddit": {"REDDIT_PIXEL_ID": "a2_abc", "REDDIT_ACCESS_TOKEN": "test-token"},
    "pinterest": {"PINTEREST_AD_ACCOUNT_ID": "5490", "PINTEREST_ACCESS_TOKEN": "test-token"},
    "snap": {"SNAP_PIXEL_ID": "pixel-1", "SNAP_ACCESS_TOKEN": "test-token"},
    "microsoft": {"MICROSOFT_TAG_ID": "1870", "MICROSOFT_ACCESS_TOKEN": "test-token"},
    "bingads": {
        "BINGADS_ACCOUNT_ID": "1500",
        "BINGADS_CUSTOMER_ID": "2500",
        "BINGADS_DEVELOPER_TOKEN": "dev-1",
        "BINGADS_REFRESH_TOKEN": "refresh-1",
        "BINGADS_CLIENT_ID": "client-1",
        "BINGADS_CLIENT_SECRET": "client-secret",
    },
    "google": {
        "GOOGLE_CUSTOMER_ID": "1234567890",
        "GOOGLE_REFRESH_TOKEN": "refresh-1",
        "GOOGLE_CLIENT_ID": "client-1",
        "GOOGLE_CLIENT_SECRET": "client-secret",
        "GOOGLE_PROJECT_ID": "shop-1",
        "FORWARD_GOOGLE_ACTIONS": "purchase=7001",
    },
}

# What only one process may see: the tag of Microsoft skips types that have an offline goal.
_OWN = {"bingads": {"FORWARD_BINGADS_GOALS": "purchase=Shop orders"}}


def variables(bootstrap: str, dsn: str, urls: Mapping[str, str], **more: str) -> dict[str, str]:
    """Return the environment of forwarders to these addresses by destination."""
    found = os.environ | {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "DATABASE_URL": dsn,
        "ATTRIBUTION_FIRST_START": "earliest",
        "METRICS_PORT": "0",
        "FORWARD_LINGER_MS": "100",
        "KAFKA_SESSION_TIMEOUT_MS": "6000",  # a killed member is missed no longer than that
        "KAFKA_TRANSACTION_TIMEOUT_MS": "5000",
    }
    for name, url in urls.items():
        found |= {f"{name.upper()}_BASE_URL": url, f"{name.upper()}_TOKEN_URL": f"{url}/token", **_ACCOUNTS[name]}
    return found | more


class Forwarders:
    """One forwarder for each of some destinations.

    Args:
        names: the destinations.
        environment: of all processes.
        logs: folder for what they print.
    """

    def __init__(self, names: Iterable[str], environment: Mapping[str, str], logs: Path) -> None:
        self._names = tuple(names)
        self._environment = dict(environment)
        self._logs = logs
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        for name in self._names:
            with self.log(name).open("ab") as file:
                command = [COMMAND, "forwarder", "--destination", name]
                environment = self._environment | _OWN.get(name, {})
                self.processes[name] = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            for process in self.processes.values():
                process.send_signal(signal.SIGTERM)
            for process in self.processes.values():
                process.wait(120)
        finally:
            for process in self.processes.values():
                process.kill()

    def log(self, name: str) -> Path:
        """Return the file that a destination's forwarder prints to."""
        return self._logs / f"{name}.log"

    def ended(self) -> dict[str, int]:
        """Return the exit codes of those that have ended."""
        return {name: code for name, process in self.processes.items() if (code := process.poll()) is not None}

    def resident_mib(self) -> dict[str, float]:
        """Return the memory that each holds now."""
        found = {}
        for name, process in self.processes.items():
            status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
            found[name] = int(status.split("VmRSS:")[1].split()[0]) / 1_024
        return found


class Settled(NamedTuple):
    """What the ledger says of one destination: ids of events by state."""

    by_state: dict[str, set[str]]

    def __getitem__(self, state: str | int) -> set[str]:  # type: ignore[override]
        return self.by_state.get(str(state), set())


def ledger_states(dsn: str) -> dict[str, dict[str, set[str]]]:
    """Return the ids of events by destination and state."""
    found: dict[str, dict[str, set[str]]] = {}
    with connect(dsn, application_name="tests") as connection:
        for name, state, event in connection.execute(
            "SELECT destination, state, event_id FROM attribution_deliveries"
        ).fetchall():
            found.setdefault(name, {}).setdefault(state, set()).add(event)
    return found


def settled_counts(dsn: str) -> dict[str, int]:
    """Return by destination how many deliveries wait no longer."""
    with connect(dsn, application_name="tests") as connection:
        rows = connection.execute(
            "SELECT destination, count(*) FILTER (WHERE state <> 'pending') FROM attribution_deliveries GROUP BY 1"
        ).fetchall()
    return dict(rows)


def late_verdicts(dsn: str, name: str) -> list[tuple[str, int, dict[str, int]]]:
    """Return verdict, events and refusals by reason of each request that a destination judges later."""
    with connect(dsn, application_name="tests") as connection:
        return connection.execute(
            "SELECT verdict, events, refused FROM attribution_delivery_requests WHERE destination = %s", (name,)
        ).fetchall()


def ask_at_once(dsn: str) -> None:
    """Make requests due that wait for their time; a forwarder touches none of these, so nobody waits for a lock."""
    with connect(dsn, application_name="tests") as connection:
        connection.execute(
            "UPDATE attribution_delivery_requests SET ask_at = received_at"
            " WHERE verdict = 'pending' AND ask_at > now() + interval '1 minute'"
        )


def produce(bootstrap: str, values: Iterable[bytes]) -> int:
    """Put records on the topic of conversions; return how many."""
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 1_000_000})
    number = 0
    for number, value in enumerate(values, 1):
        producer.produce(TOPIC, value, key=f"acme|{number % 97}".encode())
        producer.poll(0)
    assert producer.flush(120) == 0
    return number


def dead_letters(bootstrap: str, name: str) -> list[bytes]:
    """Return the values of all committed dead letters of a destination."""
    topic = f"{TOPIC}.attribution.forwarder.{name}.dlq"
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "look",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    found: list[bytes] = []
    try:
        partitions = consumer.list_topics(topic, timeout=60).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        left = set(partitions)
        while left:
            for message in consumer.consume(500, 5.0):
                if (error := message.error()) is None:
                    found.append(message.value() or b"")
                else:
                    assert error.code() == PARTITION_END, error
                    left.discard(message.partition() or 0)
    finally:
        consumer.close()
    return found
