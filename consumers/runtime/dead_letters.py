"""Dead letters: the record as it was, plus why it was given up, in the same transaction as its offset.

Header names follow Kafka Connect's (``__connect.errors.*``), so that existing tools show them. Invariant: key, value
and headers are the original bytes; of a record that is larger than a letter may be, the beginning, with the length and
the sha256 of the whole in headers. The reason names record, field and rule, never a value.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from . import metrics
from .errors import Fatal
from .records import DeadLetter, Outbound

ATTEMPTS_HEADER = "attribution-attempts"
REDRIVEN_HEADER = "attribution-redriven-from"  # the letter that a record was sent again from

# A dead letter is its record, which may be as large as brokers take, and more headers: librdkafka's default of 1 MB
# would make one large poisonous record stop a stage. As for the dead-letter topics (schemas/topics.yaml).
MAX_LETTER_BYTES = 4 * 1024 * 1024

# What is kept of a value, a key and all headers of a record that does not fit into a letter.
_HEAD_BYTES = 64 * 1024
CLOSED_HEADER = "attribution-closed"  # why a letter needs no attention any more; its own record names the letter
CUT_HEADER = "attribution-cut-sha256"

# So much of the poison from one tenant is this tenant's trouble, and no reason to stop the others.
_ONE_TENANT = 0.9

# A share means little in a small batch: one bad record of one is no reason to stop.
_LEAST_BATCH = 100


def dead_letter_topic(topic: str, group: str) -> str:
    """Return the topic for the dead letters of one group on one topic."""
    return f"{topic}.{group}.dlq"


def dead_letter_message(letter: DeadLetter, stage: str, group: str) -> Outbound:
    """Return the record to produce for a dead letter."""
    record = letter.record
    failed = next((value for name, value in record.headers if name == ATTEMPTS_HEADER), b"0")
    attempts = letter.attempts + (int(failed) if failed.isdigit() else 0)
    facts = {
        "__connect.errors.topic": record.topic,
        "__connect.errors.partition": str(record.partition),
        "__connect.errors.offset": str(record.offset),
        "__connect.errors.connector.name": group,
        "__connect.errors.task.id": stage,
        "__connect.errors.stage": letter.stage,
        "__connect.errors.exception.class.name": "Poison",
        "__connect.errors.exception.message": letter.reason,
        "attribution-field": letter.field or "",
        ATTEMPTS_HEADER: str(attempts),
        "attribution-timestamp-ms": str(record.timestamp_ms),
    }
    ours = [(name, value.encode("utf-8", "replace")) for name, value in facts.items()]
    kept = [(name, value) for name, value in record.headers if name not in facts]
    metrics.dead_letters.labels(stage, record.topic, letter.stage).inc()
    topic, key, whole = dead_letter_topic(record.topic, group), record.key, record.value
    size = len(key or b"") + len(whole or b"") + sum(len(name) + len(value or b"") for name, value in kept)
    if size <= MAX_LETTER_BYTES - _HEAD_BYTES:
        return Outbound(topic, key, whole, [*kept, *ours])
    sha256 = hashlib.sha256(whole or b"").hexdigest()
    cut = [(CUT_HEADER, sha256.encode()), ("attribution-cut-bytes", str(len(whole or b"")).encode())]
    few = sum(len(name) + len(value or b"") for name, value in kept) <= _HEAD_BYTES
    head = None if whole is None else whole[:_HEAD_BYTES]
    return Outbound(topic, None if key is None else key[:_HEAD_BYTES], head, [*(kept if few else ()), *ours, *cut])


def check_poison_share(dead: Sequence[DeadLetter], batch_size: int, most: float) -> None:
    """Stop before the first write when too much of a batch is poison: then the fault is more likely ours or a schema's.

    Poison of one tenant (its id begins the key, before ``|``) stops nobody: it becomes dead letters, and an alert.

    Args:
        dead: the records of the batch that cannot be processed.
        batch_size: how many records the batch has.
        most: the largest share allowed, 0 to 1.

    Raises:
        Fatal: nothing was written; the message shows the first reason.
    """
    if batch_size >= _LEAST_BATCH and len(dead) > most * batch_size and not _is_one_tenant(dead):
        first = dead[0]
        raise Fatal(
            f"{len(dead)} of {batch_size} records are poison, more than ATTRIBUTION_MAX_POISON_SHARE={most}; nothing "
            f"was written. First: {first.record.place}: {first.reason}. If they really are to be given up, raise the "
            "share and start again.",
        )


def _is_one_tenant(dead: Sequence[DeadLetter]) -> bool:
    tenants = Counter(key.partition(b"|")[0] for letter in dead if (key := letter.record.key) and b"|" in key)
    return bool(tenants) and max(tenants.values()) >= _ONE_TENANT * len(dead)
