"""The floor: consume, decode, copy into the pipeline's tables of November 2026, commit, and nothing else.

A yardstick must not change with what it measures: the tables stand in floor_tables.sql, as they were then.

One process does what no pipeline on these tables can do without. It validates nothing, joins nothing, decides nothing,
keeps no positions in the database and publishes nothing. Repeated event ids are left to the primary key.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import psycopg
from confluent_kafka import Consumer

from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import Message

BATCH = 5_000
_PATIENCE_SECONDS = 60.0
_PLACE = ("source_topic", "source_partition", "source_offset")
_TABLES: dict[str, tuple[str, tuple[str, ...], Sequence[str]]] = {
    TOUCHPOINTS: (
        "attribution_touchpoints",
        ("tenant_id", "event_id", "identity_key", "anonymous_id", "occurred_at_us", "received_at_us", "platform",
         "channel", "interaction", "campaign", "is_bot", "details", "content_hash", *_PLACE),
        ("text", "text", "text", "text", "int8", "int8", "text", "text", "text", "text", "bool", "text", "int8",
         "text", "int4", "int8"),
    ),
    CONVERSIONS: (
        "attribution_conversion_events",
        ("tenant_id", "event_id", "conversion_id", "kind", "conversion_type", "identity_key", "anonymous_id",
         "occurred_at_us", "received_at_us", "value_micros", "currency", "order_id", "details", "content_hash",
         *_PLACE),
        ("text", "text", "text", "text", "text", "text", "text", "int8", "int8", "int8", "text", "text", "text", "int8",
         "text", "int4", "int8"),
    ),
    IDENTITIES: (
        "attribution_identity_links",
        ("tenant_id", "event_id", "anonymous_id", "user_id", "linked_at_us", "source", "received_at_us", "content_hash",
         *_PLACE),
        ("text", "text", "text", "text", "int8", "text", "int8", "int8", "text", "int4", "int8"),
    ),
}  # fmt: skip
_TOUCHPOINT_COLUMNS = frozenset(
    {"tenant_id", "event_id", "user_id", "anonymous_id", "occurred_at", "platform", "channel", "interaction", "is_bot"}
)
_CONVERSION_COLUMNS = frozenset(
    {"tenant_id", "event_id", "conversion_id", "kind", "conversion_type", "user_id", "anonymous_id", "occurred_at",
     "value_micros", "currency", "order_id", "user_data", "client_ip_address", "client_user_agent"}
)  # fmt: skip
_dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def touchpoint_row(record: dict[str, Any], received_at: int, place: tuple[Any, ...]) -> tuple[Any, ...]:
    user_id, anonymous_id = record["user_id"], record["anonymous_id"]
    details = {name: value for name, value in record.items() if value and name not in _TOUCHPOINT_COLUMNS}
    return (
        record["tenant_id"], record["event_id"], f"u:{user_id}" if user_id else f"a:{anonymous_id}",
        anonymous_id if user_id else None, record["occurred_at"], received_at, record["platform"], record["channel"],
        record["interaction"], record["campaign_name"] or "", record["is_bot"], _dump(details), 0, *place,
    )  # fmt: skip


def conversion_row(record: dict[str, Any], received_at: int, place: tuple[Any, ...]) -> tuple[Any, ...]:
    user_id, anonymous_id = record["user_id"], record["anonymous_id"]
    details = {name: value for name, value in record.items() if value and name not in _CONVERSION_COLUMNS}
    return (
        record["tenant_id"], record["event_id"], record["conversion_id"] or record["event_id"], record["kind"],
        record["conversion_type"], f"u:{user_id}" if user_id else f"a:{anonymous_id}",
        anonymous_id if user_id else None, record["occurred_at"], received_at, record["value_micros"],
        record["currency"], record["order_id"], _dump(details), 0, *place,
    )  # fmt: skip


def link_row(record: dict[str, Any], received_at: int, place: tuple[Any, ...]) -> tuple[Any, ...]:
    return (
        record["tenant_id"], record["event_id"], record["anonymous_id"], record["user_id"], record["linked_at"],
        record["source"], received_at, 0, *place,
    )  # fmt: skip


_ROWS: dict[str, tuple[str, Callable[[dict[str, Any], int, tuple[Any, ...]], tuple[Any, ...]]]] = {
    TOUCHPOINTS: ("touchpoint", touchpoint_row),
    CONVERSIONS: ("conversion", conversion_row),
    IDENTITIES: ("identity_link", link_row),
}


class Floor:
    """The job's two ends and the seconds that each step took."""

    def __init__(self, bootstrap: str, dsn: str) -> None:
        self._codec = Codec()
        self._connection = psycopg.connect(dsn, application_name="bench-floor", prepare_threshold=2)
        for table, columns, types in _TABLES.values():
            fields = ", ".join(f"{name} {kind}" for name, kind in zip(columns, types, strict=True))
            self._connection.execute(f"CREATE TEMP TABLE stg_{table} ({fields}) ON COMMIT DELETE ROWS")
        self._connection.commit()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"bench.floor.{time.time_ns()}",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        self.seconds = {"consume": 0.0, "decode": 0.0, "rows": 0.0, "copy": 0.0, "insert": 0.0, "commit": 0.0}
        self.cpu_seconds = 0.0

    def run(self, records: int) -> float:
        """Work through so many records; returns the seconds from the first one's arrival to the last commit."""
        self._consumer.subscribe(list(_TABLES))
        done, started, patience = 0, 0.0, time.monotonic() + _PATIENCE_SECONDS
        started_cpu = 0.0
        while done < records:
            began = time.perf_counter()
            messages = self._consumer.consume(BATCH, 0.1)
            if not messages:
                if time.monotonic() > patience:
                    raise TimeoutError(f"{done} of {records} records arrived")
                continue
            if started:
                self.seconds["consume"] += time.perf_counter() - began
            started = started or time.perf_counter()
            started_cpu = started_cpu or time.process_time()
            self._store(messages)
            done += len(messages)
        ended = time.perf_counter()
        self.cpu_seconds = time.process_time() - started_cpu
        self._consumer.close()
        self._connection.close()
        return ended - started

    def _store(self, messages: list[Message]) -> None:
        clock = time.perf_counter
        began = clock()
        decode, decoded = self._codec.decode, []
        rows: dict[str, list[tuple[Any, ...]]] = {topic: [] for topic in _TABLES}
        for message in messages:
            topic = message.topic() or ""
            name, build = _ROWS[topic]
            place = (topic, message.partition(), message.offset())
            decoded.append((topic, build, decode(name, message.value()), message.timestamp()[1] * 1_000, place))
        self.seconds["decode"] += clock() - began
        began = clock()
        for topic, build, record, received_at, place in decoded:
            rows[topic].append(build(record, received_at, place))
        self.seconds["rows"] += clock() - began
        for topic, (table, columns, types) in _TABLES.items():
            if rows[topic]:
                self._copy(table, columns, types, rows[topic])
        began = clock()
        self._connection.commit()
        self._consumer.commit(asynchronous=True)
        self.seconds["commit"] += clock() - began

    def _copy(self, table: str, columns: Sequence[str], types: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        clock = time.perf_counter
        began = clock()
        with self._connection.cursor() as cursor:
            with cursor.copy(f"COPY stg_{table} FROM STDIN (FORMAT BINARY)") as copy:
                copy.set_types(types)
                for row in rows:
                    copy.write_row(row)
            copied = clock()
            names = ", ".join(columns)
            chosen = ", ".join("details::jsonb" if name == "details" else name for name in columns)
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT {chosen} FROM stg_{table} ON CONFLICT DO NOTHING")
        self.seconds["copy"] += copied - began
        self.seconds["insert"] += clock() - copied


def main() -> None:
    arguments = json.loads(sys.argv[1])
    floor = Floor(arguments["bootstrap"], arguments["dsn"])
    elapsed = floor.run(arguments["records"])
    sys.stdout.write(json.dumps({"seconds": elapsed, "cpu_seconds": floor.cpu_seconds, "steps": floor.seconds}) + "\n")


if __name__ == "__main__":
    main()
