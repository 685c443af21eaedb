"""A subscriber of the results topic, as other teams write them, which also measures latency."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from attributary.consumers.runtime.errors import AttributaryError
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import read_topic
from attributary.schemas.codec import Codec
from attributary.schemas.topics import RESULTS

if TYPE_CHECKING:
    from attributary.local.broker import Broker


class Seen(NamedTuple):
    """One result as the subscriber saw it."""

    partition: int
    offset: int
    tenant_id: str
    conversion_id: str
    version: int
    seen_at: float  # seconds of the wall clock
    balanced: bool


class ResultsWatcher:
    """Reads all results from the beginning in a thread of its own, committed ones only.

    Args:
        broker: where the topic is.
    """

    def __init__(self, broker: Broker) -> None:
        self._settings = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=broker.bootstrap, KAFKA_EXTRA={"log_level": 0})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="subscriber", daemon=True)
        self.seen: list[Seen] = []
        self.failed: BaseException | None = None

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading and wait for the thread.

        Raises:
            RuntimeError: reading failed.
        """
        self._stop.set()
        self._thread.join(30.0)
        if self.failed is not None:
            raise RuntimeError("the subscriber of the results topic failed") from self.failed

    def _read(self) -> None:
        codec = Codec()
        try:
            for record in read_topic(self._settings, RESULTS, since_ms=0, stopped=self._stop.is_set):
                if record.value is None:  # a person was erased
                    continue
                seen_at = time.time()
                result = codec.decode("result", record.value)
                balanced = all(
                    sum(model["micros"]) + model["unattributed_micros"] == result["net_value_micros"]
                    for model in result["models"]
                )
                self.seen.append(
                    Seen(record.partition, record.offset, result["tenant_id"], result["conversion_id"],
                         result["version"], seen_at, balanced)
                )  # fmt: skip
        except (AttributaryError, ValueError, RuntimeError, OSError) as error:
            self.failed = error
