"""The transport to Apache Kafka: librdkafka's idempotent producer.

Invariant: an acknowledged message is on all in-sync replicas, once, and messages of one key keep their order. The
settings that say so (acks, idempotence, partitioner) cannot be changed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from attributary.producers.transport import Message, OnDone, Refused, TooLarge

FIXED: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",  # as Java clients do, so that services in both languages share partitions
}
DEFAULTS: Mapping[str, Any] = {
    "linger.ms": 20,  # fuller batches; a service waits for no answer, so 20 ms cost it nothing
    "batch.size": 262_144,
    "queue.buffering.max.kbytes": 131_072,  # 128 MiB, so that a broker that is away cannot eat the service's memory
    "delivery.timeout.ms": 120_000,  # then the record is reported as failed; as in the Java client
}
COMPRESSIONS = ("lz4", "zstd", "none")
"""Tried in this order: a librdkafka may be built without some."""

logger = logging.getLogger("attributary.producers")

_QUIET_SECONDS = 60.0


class _OncePerMinute(logging.Filter):
    """Lets each line of librdkafka through once a minute: it repeats the same 20 times a second while Kafka is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log a line."""
        said = re.sub(r"\d+", "", record.getMessage().rpartition("]: ")[2])
        now = time.monotonic()
        if now - self._said.get(said, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return False
        if len(self._said) > 100:
            self._said.clear()
        self._said[said] = now
        return True


logger.addFilter(_OncePerMinute())


def settings(bootstrap: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return librdkafka's settings.

    Args:
        bootstrap: ``host:port`` of one or more brokers, separated by commas.
        extra: what to add or change, in librdkafka's words (``security.protocol``, ``linger.ms``, ...).

    Raises:
        ValueError: when ``extra`` changes a setting on which the guarantees rest.
    """
    for name, value in FIXED.items():
        if name in extra and str(extra[name]).lower() != str(value).lower():
            raise ValueError(f"{name} is {value}: records could be lost, doubled or reordered otherwise")
    if "request.required.acks" in extra:
        raise ValueError("request.required.acks is another name of acks, which is all")
    return {"client.id": "attributary", **DEFAULTS, **extra, **FIXED, "bootstrap.servers": bootstrap}


def _open(configuration: Mapping[str, Any]) -> Producer:
    if {"compression.type", "compression.codec"} & configuration.keys():
        return Producer({**configuration, "logger": logger})
    for compression in COMPRESSIONS[:-1]:
        try:
            return Producer({**configuration, "compression.type": compression, "logger": logger})
        except KafkaException as error:
            if "compression" not in str(error):
                raise
    return Producer({**configuration, "compression.type": COMPRESSIONS[-1], "logger": logger})


class KafkaTransport:
    """Carries messages to Kafka. Thread-safe; not to be used across a fork.

    Args:
        bootstrap: ``host:port`` of one or more brokers, separated by commas.
        extra: librdkafka settings to add or change.

    Raises:
        ValueError: when ``extra`` changes a setting on which the guarantees rest.
        confluent_kafka.KafkaException: when librdkafka refuses a setting.
    """

    def __init__(self, bootstrap: str, extra: Mapping[str, Any]) -> None:
        self.trouble = ""
        """Why nothing is acknowledged, as far as librdkafka told; empty while brokers answer."""
        self._bootstrap = bootstrap
        self._producer = _open({"error_cb": self._hear, **settings(bootstrap, extra)})
        self._produce = self._producer.produce

    def _hear(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # librdkafka's local codes are named so
            self.trouble = f"no broker answers at {self._bootstrap}"

    def send(self, message: Message, on_done: OnDone) -> None:
        """Queue one message; see the contract of ``Transport``."""
        topic, key, value, headers = message
        try:
            self._produce(topic, value, key, headers=headers, on_delivery=on_done)
        except KafkaException as error:
            reason = error.args[0]
            refused = TooLarge if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE else Refused
            raise refused(str(reason)) from None

    def poll(self, seconds: float) -> None:
        """Serve delivery reports."""
        self._producer.poll(seconds)

    def flush(self, seconds: float) -> int:
        """Wait for delivery reports; return how many are missing."""
        return int(self._producer.flush(seconds))

    def discard(self) -> None:
        """Give up everything that is queued or in flight and serve its reports."""
        self._producer.purge()
        self._producer.flush(1.0)

    def close(self) -> None:
        """Stop librdkafka's threads."""
        self._producer.close()
