"""The peer: the same join in Quix Streams 3, as a Python team would write it. Runs in an environment of its own.

It keeps each key's touches in RocksDB with a changelog topic, and on a conversion emits linear, first and last credit,
exactly once, with a commit every 50 ms. Touchpoints and conversions lie in one topic, which spares it the alignment of
two. It neither removes duplicates, nor joins identities, nor looks at windows, nor keeps anything that SQL can ask.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import fastavro
from quixstreams import Application
from quixstreams.models import Deserializer

_FRAMING_BYTES = 10
_MOST_TOUCHES = 200


class SingleObject(Deserializer):  # type: ignore[misc]  # quixstreams is not installed where mypy runs
    """Avro single-object encoding; tells the two records apart by their fingerprints."""

    def __init__(self, schemas: dict[str, tuple[str, Any]]) -> None:
        super().__init__()
        self._schemas = {
            bytes.fromhex(prefix): (kind, fastavro.parse_schema(s)) for prefix, (kind, s) in schemas.items()
        }

    def __call__(self, value: bytes, ctx: Any) -> dict[str, Any]:  # noqa: ARG002
        kind, schema = self._schemas[value[:_FRAMING_BYTES]]
        record: dict[str, Any] = fastavro.schemaless_reader(io.BytesIO(value[_FRAMING_BYTES:]), schema)
        record["_kind"] = kind
        return record


def credit(record: dict[str, Any], state: Any) -> dict[str, Any] | None:
    """Keep a touch, or answer a conversion."""
    touches = state.get("touches", [])
    if record["_kind"] == "touchpoint":
        touches.append([record["occurred_at"], record["channel"]])
        state.set("touches", touches[-_MOST_TOUCHES:])
        return None
    channels = [channel for at, channel in sorted(touches) if at <= record["occurred_at"]]
    if not channels:
        return None
    value = record["value_micros"]
    linear: dict[str, float] = {}
    for channel in channels:
        linear[channel] = linear.get(channel, 0.0) + value / len(channels)
    return {
        "conversion_id": record["event_id"],
        "first": {channels[0]: value},
        "last": {channels[-1]: value},
        "linear": linear,
    }


def main() -> None:
    arguments = json.loads(sys.argv[1])
    records: int = arguments["records"]
    seen, started, started_cpu = 0, 0.0, 0.0

    def count(topic: str, partition: int, offset: int) -> None:  # noqa: ARG001
        nonlocal seen, started, started_cpu
        seen += 1
        started = started or time.perf_counter()
        started_cpu = started_cpu or time.process_time()
        if seen == records:
            application.stop()

    application = Application(
        arguments["bootstrap"],
        consumer_group=f"bench-peer-{time.time_ns()}",
        auto_offset_reset="earliest",
        processing_guarantee="exactly-once",
        commit_interval=0.05,
        state_dir=Path(arguments["state"]),
        on_message_processed=count,
        loglevel="WARNING",
    )
    source = application.topic(arguments["topic"], value_deserializer=SingleObject(arguments["schemas"]))
    results = application.topic(f"{arguments['topic']}.results", value_serializer="json")
    frame = application.dataframe(source).apply(credit, stateful=True)
    frame = frame[frame.apply(lambda answer: answer is not None)]
    frame.to_topic(results)
    application.run()
    cpu = time.process_time() - started_cpu
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - started, "cpu_seconds": cpu, "records": seen}) + "\n")


if __name__ == "__main__":
    main()
