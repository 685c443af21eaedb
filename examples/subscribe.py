"""A subscriber: keeps the newest result of every conversion, and prints what changed.

    . .attributary/up/env      # or export KAFKA_BOOTSTRAP_SERVERS=host:port
    python examples/subscribe.py

Three rules: read committed records only; keep the highest version of a conversion; commit after the result is kept.
The newest results stand in SQLite, so that a restart forgets nothing and a record that comes again changes nothing.
"""

from __future__ import annotations

import os
import sqlite3
import sys

from confluent_kafka import Consumer, KafkaException

from attributary import Codec, DecodeError

KEEP = """
INSERT INTO results (tenant_id, conversion_id, version, net_value_micros, currency) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (tenant_id, conversion_id) DO UPDATE
SET version = excluded.version, net_value_micros = excluded.net_value_micros WHERE excluded.version > results.version
"""


def main(database: str = "results.db", idle_seconds: float | None = None) -> int:
    """Read until interrupted, or until nothing came for `idle_seconds`; returns how many results were newer."""
    store = sqlite3.connect(database)
    store.execute(
        "CREATE TABLE IF NOT EXISTS results (tenant_id TEXT, conversion_id TEXT, version INTEGER,"
        " net_value_micros INTEGER, currency TEXT, PRIMARY KEY (tenant_id, conversion_id))"
    )
    codec = Codec()
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ.get("GROUP", "my-team"),
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([os.environ.get("ATTRIBUTION_PREFIX", "") + "attribution.results.v1"])
    newer = 0
    try:
        while (message := consumer.poll(idle_seconds or 3600.0)) is not None:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            if message.value() is None:  # a tombstone: the conversion was erased
                tenant_id, _, conversion_id = (message.key() or b"").decode().partition("|")
                store.execute(
                    "DELETE FROM results WHERE (tenant_id, conversion_id) = (?, ?)", (tenant_id, conversion_id)
                )
            else:
                try:
                    result = codec.decode("result", message.value())
                except DecodeError as error:
                    print(f"offset {message.offset()}: {error}", file=sys.stderr)
                    continue
                names = ("tenant_id", "conversion_id", "version", "net_value_micros", "currency")
                if store.execute(KEEP, [result[name] for name in names]).rowcount:
                    newer += 1
                    value = f"{result['net_value_micros'] / 1_000_000:.2f} {result['currency']}"
                    value = "no value" if result["currency"] == "XXX" else value  # a lead, a signup: ISO 4217's "none"
                    print(f"{result['conversion_id']} v{result['version']} {result['version_reason']}: {value}")
            store.commit()  # first the result, then the offset: a crash between the two repeats, it never loses
            consumer.commit(message, asynchronous=False)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()
        store.close()
    return newer


if __name__ == "__main__":
    main()
